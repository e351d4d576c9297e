"""Runs that an earlier bert-ft wrote (`earlier_runs/make.py`) load, predict, evaluate and compare as they did then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from earlier_runs import make

import bert_ft

HERE = Path(__file__).resolve().parent / "earlier_runs" / "kept"
NAMES = ("classification-seed1", "ner-seed1", "qa-seed1")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The folders, with the place of their rows as it is here."""
    shutil.copytree(HERE, tmp_path / "kept")
    for file in (tmp_path / "kept").glob("*/*.*"):
        if file.suffix in (".toml", ".json"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("@HERE@", str(tmp_path)), encoding="utf-8")
    return tmp_path / "kept"


def _close(now: Any, then: Any) -> bool:
    """Whether two answers agree, numbers to the last digits."""
    if isinstance(then, dict):
        return now.keys() == then.keys() and all(_close(now[key], then[key]) for key in then)
    if isinstance(then, list):
        return len(now) == len(then) and all(map(_close, now, then))
    return now == pytest.approx(then, rel=1e-5, abs=1e-6) if isinstance(then, float) else bool(now == then)


@pytest.mark.parametrize("name", NAMES)
def test_evaluates_to_the_same_metrics(runs: Path, name: str) -> None:
    run = bert_ft.Run(runs / name)
    assert run.evaluate() == {"validation": pytest.approx(run.metrics["validation"], rel=1e-6)}


@pytest.mark.parametrize("name", NAMES)
def test_predicts_the_same(runs: Path, name: str) -> None:
    run = bert_ft.Run(runs / name)
    family = name.partition("-")[0]
    lines = [json.loads(line) for line in (runs / f"{family}.jsonl").read_text(encoding="utf-8").splitlines()]
    if family == "ner":  # its raw input is a sentence, cut into words or not
        lines = [line["tokens"] for line in lines]
    for loaded in (run.model, bert_ft.load(runs / name / "model")):
        answers = loaded.predict(lines)
        for answer, then in zip(answers, run.predictions(), strict=True):
            shared = answer.keys() & then.keys() - {"row", "tokens"}
            assert shared, (answer, then)
            assert _close({key: answer[key] for key in shared}, {key: then[key] for key in shared})


def test_keeps_its_options(runs: Path) -> None:
    tree = bert_ft.Run(runs / "classification-seed1").task.dump()
    assert tree["classification"]["windows"] and tree["classification"]["stride"] == 2
    assert bert_ft.Run(runs / "ner-seed1").task.dump()["ner"]["label_all_tokens"]
    assert bert_ft.Run(runs / "qa-seed1").task.dump()["qa"]["doc_stride"] == 8


def test_compares(runs: Path) -> None:
    found = bert_ft.compare(runs / "classification-seed1", runs / "classification-seed2")
    assert [difference.metric for difference in found.differences] == ["accuracy"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_finds_it_finished(runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """How a task is written did not change: nothing is trained again."""
    family = name.partition("-")[0]
    file = str(runs / f"{family}.jsonl")
    before = (runs / name / "results.json").read_bytes()
    options = make.RECIPE | make.OPTIONS[family] | {"quiet": False, "seed": 1}
    run = bert_ft.finetune(
        family, runs / "checkpoint", train=file, validation=file, output=runs / name, **options
    )
    assert "finished already" in capsys.readouterr().err
    assert (run.path / "results.json").read_bytes() == before
