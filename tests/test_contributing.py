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


@pytest.mark.skipif(shutil.which("git") is None, reason="git apply reads the changes")
def test_the_changes_apply_and_work(tmp_path: Path) -> None:
    for folder in ("bert_ft", "tasks", "tests/metrics"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # which tells a checkout, with tasks of its own
    for block in pages.blocks(TEXT):
        if block.language == "diff":
            subprocess.run(["git", "apply", "-"], input=block.code, text=True, cwd=tmp_path, check=True)
    head = "import bert_ft\n"
    (tmp_path / "bert_ft" / "families" / "ordinal.py").write_text(head + FAMILY)
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
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )


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
