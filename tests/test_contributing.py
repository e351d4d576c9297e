"""CONTRIBUTING.md, done word for word: its changes apply and give what they promise; a family of an installed package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest

import bert_ft

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GUIDE = pages.blocks((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
FAMILY = next(block.code for block in GUIDE if "class Ordinal" in block.code).rpartition("run = ")[0]


def test_the_picture_has_every_room() -> None:
    picture = next(block.code for block in pages.blocks(TEXT) if "cli" in block.code)
    rooms = {
        path.stem
        for path in (ROOT / "bert_ft").iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or path.suffix == ".py"
    }
    assert {room for room in rooms if not room.startswith("__")} <= set(re.findall(r"\w+", picture))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree with the changes of CONTRIBUTING.md applied."""
    if shutil.which("git") is None:
        pytest.skip("git apply reads the changes")
    tree = tmp_path_factory.mktemp("changed")
    for folder in ("bert_ft", "tasks", "tests/metrics"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)  # which tells a checkout, with tasks of its own
    for block in pages.blocks(TEXT):
        if block.language == "diff":
            subprocess.run(["git", "apply", "-"], input=block.code, text=True, cwd=tree, check=True)
    return tree


def _run(tree: Path, code: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=tree, check=True, env=environment)


def test_the_changes_apply_and_work(changed: Path) -> None:
    code = """
import bert_ft, sklearn.metrics
from bert_ft import families
from bert_ft.metrics import classification
task = bert_ft.load_task("tweet_sentiment")
assert task.data.path == "cardiffnlp/tweet_eval" and task.best_metric == ("validation", "recall_macro")
gold, found = [0, 1, 1, 2, 0], [0, 1, 2, 2, 1]
weighted = classification.compute(["precision_weighted"], found, gold)
assert weighted == {"precision_weighted": sklearn.metrics.precision_score(gold, found, average="weighted")}
assert task.override({"metric.compute": ["precision_weighted"]}).metric.compute == ["precision_weighted"]
assert families.find("ordinal").family == "ordinal"
"""
    _run(changed, code)


def test_the_family_is_whole(changed: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Its own options, metric and table of the report: trained, resumed, evaluated, asked, reported, compared."""
    code = """
import sys
from pathlib import Path
import bert_ft
from bert_ft import families

checkpoint, output = sys.argv[1:]
grades = {1: "dull", 2: "fair", 3: "great"}
rows = [{"text": f"a {word} film {i}", "label": grade} for i in range(4) for grade, word in grades.items()]
settings = {"train": rows, "validation": rows, "batch_size": 4, "max_steps": 4, "eval_every": 4, "max_length": 16,
            "tolerance": 2, "windows": True, "stride": 2, "save_every": 1, "quiet": True}

class Stop(bert_ft.Callback):
    def on_step(self, step, entry):
        if step == 2:
            raise InterruptedError

try:
    bert_ft.finetune("ordinal", checkpoint, output=output, callbacks=[Stop()], **settings)
    raise AssertionError("it was not interrupted")
except InterruptedError:
    pass
run = bert_ft.finetune("ordinal", checkpoint, output=output, resume=True, **settings)

table = Path(output, "task.toml").read_text().partition("[ordinal]")[2].partition("[run]")[0]
assert "tolerance = 2" in table and "windows = true" in table, table
assert run.task.best_metric == ("validation", "accuracy"), run.task.metric
assert run.metrics["validation"]["near"] == 1.0, "no grade of three is more than two off"
there = bert_ft.Run(output)
assert there.evaluate(rows) == run.metrics
there.task = there.task.override({"tolerance": 0})
del there.model
strict = there.evaluate(rows)["validation"]
assert strict["near"] == strict["accuracy"], strict
answer, = run.predict(["a great film"])
assert answer["prediction"] in grades and abs(sum(answer["probabilities"].values()) - 1) < 1e-6
assert "how far off" in Path(output, "report.html").read_text()
assert "pipeline_tag" not in Path(output, "model", "README.md").read_text()
assert type(run.scored()).__name__ == "Grades"
same = bert_ft.compare(run, run, metrics=["accuracy"])
assert [difference.difference for difference in same.differences] == [0.0]
try:
    bert_ft.load_task("ordinal").override({"ordinal.tolerence": 1})
except bert_ft.InputError as error:
    assert "did you mean 'tolerance'" in str(error), error
try:
    bert_ft.finetune("ordinal", checkpoint, output=output, **(settings | {"tolerance": 1}))
    raise AssertionError("another tolerance is another run")
except bert_ft.InputError as error:
    assert "ordinal.tolerance" in str(error), error
"""
    _run(changed, code, str(tiny_checkpoint), str(tmp_path / "run"))


def test_a_family_of_an_installed_package(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with the guide's entry point lies on the path: `family = "ordinal"` finds it, also when it is loaded."""
    monkeypatch.chdir(tmp_path)
    pages.write_files(tmp_path)
    (tmp_path / "your_package.py").write_text("import bert_ft\n" + FAMILY)
    info = tmp_path / "your_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your_package\nVersion: 1.0\n")
    entry_point = next(block.code for block in GUIDE if "entry-points" in block.code)
    section = entry_point.replace('[project.entry-points."bert_ft.families"]', "[bert_ft.families]").replace(
        '"', ""
    )
    (info / "entry_points.txt").write_text(section)
    monkeypatch.syspath_prepend(str(tmp_path))
    toml = next(block for block in GUIDE if block.title == "reviews.toml").code
    (tmp_path / "reviews.toml").write_text(toml.replace('"classification"', '"ordinal"'))
    run = bert_ft.finetune("reviews.toml", str(tiny_checkpoint), quiet=True)
    assert run.results["family"] == "ordinal" and run.task.data.labels == [1, 2, 3, 4, 5]
    texts = ["a great thing", "a dull thing"]
    assert bert_ft.load(run.path).predict(texts) == run.predict(texts)
    sys.modules.pop("your_package")
