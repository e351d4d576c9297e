"""CONTRIBUTING.md, done word for word: a task of one's own, a metric, a loss and a family."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import bert_ft

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOML, ENTRY_POINT = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
PYTHON = dict(zip(("metric", "loss", "family"), re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL), strict=True))


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a CSV of their own and the TOML file of the guide."""
    words = {1: "awful", 2: "dull", 3: "fair", 4: "good", 5: "great"}
    rows = "".join(f'"a {word}, {word} thing {i}",{stars}\n' for i in range(16) for stars, word in words.items())
    (tmp_path / "reviews.csv").write_text("review,stars\n" + rows)
    (tmp_path / "reviews.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_task_is_one_toml_file(newcomer: Path, tiny_checkpoint: Path) -> None:
    run = bert_ft.finetune("reviews.toml", str(tiny_checkpoint), quiet=True)
    assert run.task.name == "reviews" and run.path.parent.name == "runs"
    assert run.task.data.labels == [1, 2, 3, 4, 5], "labels keep order and type"
    assert len(run.predictions()) == 8 and run.predictions()[0]["prediction"] in range(1, 6)


@pytest.mark.parametrize("what", PYTHON)
def test_the_guides_code_runs(what: str, newcomer: Path, tiny_checkpoint: Path) -> None:
    code = PYTHON[what]
    assert len(code.splitlines()) <= 26
    scope: dict[str, Any] = {"checkpoint": str(tiny_checkpoint)}
    exec(
        compile(code.replace('"reviews.toml", checkpoint', '"reviews.toml", checkpoint, quiet=True'), what, "exec"),
        scope,
    )
    run = scope["run"]
    assert run.dir.state == "finished"
    if what == "metric":
        assert run.metrics["validation"]["macro_recall"] == pytest.approx(_recall(run))
    if what == "family":
        answer = run.predict("a great thing")[0]
        assert sum(answer["probabilities"].values()) == pytest.approx(1) and len(answer["probabilities"]) == 5


def _recall(run: bert_ft.Run) -> float:
    from sklearn.metrics import recall_score

    lines = run.predictions()
    labels = [line["label"] for line in lines]
    return recall_score(labels, [line["prediction"] for line in lines], average="macro", labels=sorted(set(labels)))


def test_a_family_of_an_installed_package(
    newcomer: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with the guide's entry point lies on the path: `family = "ordinal"` finds it, also when it is loaded."""
    (newcomer / "your_package.py").write_text(PYTHON["family"].rpartition("run = ")[0])
    info = newcomer / "your_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your_package\nVersion: 1.0\n")
    section = ENTRY_POINT.replace('[project.entry-points."bert_ft.families"]', "[bert_ft.families]").replace('"', "")
    (info / "entry_points.txt").write_text(section)
    monkeypatch.syspath_prepend(str(newcomer))
    (newcomer / "reviews.toml").write_text(TOML.replace('"classification"', '"ordinal"'))
    run = bert_ft.finetune("reviews.toml", str(tiny_checkpoint), quiet=True)
    assert run.results["family"] == "ordinal"
    texts = ["a great thing", "a dull thing"]
    assert bert_ft.load(run.path).predict(texts) == run.predict(texts)
    sys.modules.pop("your_package")
