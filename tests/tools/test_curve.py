"""A curve from the runs to the sentence: nested parts, folders that are used again, and what is refused."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_ft
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.data import splitting
from bert_ft.errors import InputError
from bert_ft.files import write_json
from bert_ft.finetuning.finetune import finetune
from bert_ft.prepared import read
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.curve.results import _statement
from bert_ft.tools.curve.sizes import sizes


@pytest.fixture
def task(tmp_path: Path) -> Path:
    draw = random.Random(0)
    words = {"fine": "warm funny brave love finest", "dull": "flat tired empty dull lazy"}
    for name, n in (("train", 40), ("validation", 41), ("test", 23)):
        rows = [{"text": " ".join(draw.choices([*words[label].split(), "a", "film", "the", "plot"], k=6)), "label": label}
                for label in draw.choices(["fine", "dull"], k=n)]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "films.toml"
    file.write_text("""
        [data]
        train = "train.jsonl"
        evaluate = "validation.jsonl"
        test = "test.jsonl"
        [recipe]
        max_steps = 2
        batch_size = 8
        max_length = 16
        learning_rate = 3e-3
        """)
    return file


def pretended(task: Task, *, output: Path, **_: Any) -> None:
    """A run whose score is a function of its rows and its seed, without a training."""
    folder = RunDir(output)
    if folder.state == "finished":
        return
    folder.start(task, {"data_fingerprint": ""})
    score = 0.9 - (task.data.limit_train or 0) ** -0.5 + 0.001 * task.run.seed**2
    folder.append_log({"seconds": 1.0})
    write_json(folder.results_json, {"metrics": {"validation": {"accuracy": score}}})


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_curve_is_trained_once_and_grows(
    real: bool,
    task: Path,
    tmp_path: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    checkpoint = request.getfixturevalue("tiny_checkpoint") if real else "nowhere"
    trained = list[str]()

    def counted(*arguments: Any, **keywords: Any) -> Any:
        trained.append(Path(keywords["output"]).name)
        return (finetune if real else pretended)(*arguments, **keywords)

    monkeypatch.setattr("bert_ft.tools.curve.curve.finetune", counted)
    line = ["curve", task, "-c", checkpoint, "--seeds", "1,2", "--output", "c", "--set", "max_steps=3"]
    done = cli(*line, "--shares", "20%", "20", "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert [(row["rows"], row["seed"]) for row in results["points"]] == [(8, 1), (8, 2), (20, 1), (20, 2)]
    assert results["law"] is None and "No law is fitted" in results["statement"][0]
    for row in results["points"]:
        run = RunDir(tmp_path / "c" / row["run"])
        assert run.results()["metrics"] == {"validation": {"accuracy": row["value"]}}, (
            "test sets are left alone"
        )
        task_of_run = run.task()
        assert (task_of_run.data.limit_train, task_of_run.run.seed) == (row["rows"], row["seed"])
        assert task_of_run.recipe.max_steps == 3 and not run.model.exists()
    before = {name: (tmp_path / "c" / name / "results.json").stat().st_mtime_ns for name in trained}

    more = cli(*line, "--shares", "20%,20", "100%")
    assert more.code == 0, more.err
    assert "Twice the rows (80 in place of 40)" in more.out or (
        real and "No law is fitted: the seeds" in more.out
    )
    assert "in points; spread" in more.out and len(set(trained)) == 6
    after = {name: (tmp_path / "c" / name / "results.json").stat().st_mtime_ns for name in before}
    assert after == before, "what is finished is not trained again"
    results = json.loads((tmp_path / "c" / "results.json").read_text())
    with (tmp_path / "c" / "points.csv").open() as stream:
        assert [float(row["value"]) for row in csv.DictReader(stream)] == [
            p["value"] for p in results["points"]
        ]
    by_rows = np.array([row["value"] for row in results["points"]]).reshape(3, 2)
    assert [size["mean"] for size in results["sizes"]] == pytest.approx(by_rows.mean(axis=1))
    assert [size["spread"] for size in results["sizes"]] == pytest.approx(by_rows.std(axis=1, ddof=1))
    page = (tmp_path / "c" / "curve.html").read_text()
    assert "<script" not in page and page.count("<svg") == 1 and results["statement"][0] in page


def test_smaller_parts_lie_within_larger(task: Path) -> None:
    rows = read(loaded := load_task(task), bert_ft.Classification).splits.train
    assert loaded.data.limit_train is None
    for seed in (1, 2):
        parts = [splitting.limit(rows, n, seed).table["text"].to_pylist() for n in (8, 20, 39)]
        assert parts[0] == parts[1][:8] and parts[1] == parts[2][:20]


@pytest.mark.parametrize(("shares", "rows"), [
    (["10%", "50%", "100%"], [100, 500, 1000]), (["100%", 200, "7"], [7, 200, 1000]), (["0.01%", "0.25 %"], [1, 2]),
])  # fmt: skip
def test_parts_of_the_rows(shares: list[str | int], rows: list[int]) -> None:
    assert [size.rows for size in sizes(shares, 1000)] == rows


@pytest.mark.parametrize(("shares", "message"), [
    (["0%", "50%"], "0% is no part of the rows\n  a share lies above 0% and up to 100%"),
    (["101%"], "101% is no part of the rows"), ([0.1], "'0.1' is neither a share nor a number of rows"),
    (["-5"], "'-5' is neither"), (["0"], "'0' is neither"), (["ten"], "'ten' is neither"), ([], "no share is given"),
    (["1001"], "1001 rows are asked for, and there are 1,000 training rows"),
    (["50%", 500], "50% and 500 are the same 500 rows\n  leave one of them out"),
])  # fmt: skip
def test_parts_at_fault(shares: list[Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        sizes(shares, 1000)
    assert str(error.value).startswith(f"shares: {message}")


@pytest.mark.parametrize(("options", "message"), [
    ({"seeds": 1}, "seeds: a curve needs at least 2 seeds"),
    ({"seeds": [1, 1]}, "seeds: a seed is named twice"),
    ({"shares": [1, 20]}, "shares: 1 is 1 row, fewer than the 2 labels"),
    ({"shares": [2, 20], "seeds": range(1, 9)}, "shares: 2 is 2 rows, and with seed "),
    ({"limit_train": 8}, "curve: `limit_train` is not for a curve\n  use --shares"),
    ({"folds": 3}, "curve: `folds` is not for a curve"),
    ({"seed": 3}, "curve: `seed` is not for a curve\n  use --seeds"),
    ({"model": object()}, "curve: `model` is not for a curve"),
])  # fmt: skip
def test_curve_at_fault(task: Path, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        bert_ft.curve(task, "nowhere", output=tmp_path / "c", **options)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "c").exists()


def test_what_lies_there_is_left_alone(task: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results.json").write_text('{"verdicts": []}')
    with pytest.raises(InputError, match="something that is no curve lies here"):
        bert_ft.curve(task, "nowhere", output=tmp_path / "c")


def test_command_s_words(task: Path, cli: Callable[..., Any]) -> None:
    done = cli("curve", task, "10%", "-c", "x")
    assert done.code == 2 and "parts of the rows are named behind --shares" in done.err
    done = cli("curve", task, "-c", "x", "--seeds", "few")
    assert done.code == 2 and "a number of seeds is wanted" in done.err


def law(**values: Any) -> Any:
    class Law:
        misfit = 0.5
        gain, gain_low, gain_high = 0.012, 0.004, 0.02

    for name, value in values.items():
        setattr(Law, name, value)
    return Law


@pytest.mark.parametrize(("values", "metric", "unit", "said"), [
    ({}, "accuracy", 100, "Twice the rows (200 in place of 100): about +1.2 points of accuracy, between +0.4 and +2.0."),
    ({"gain_low": -0.004}, "accuracy", 100, "between -0.4 and +2.0; the scores do not say whether more rows help."),
    ({"gain_low": -0.0004}, "accuracy", 100, "between +0.0 and +2.0; the scores do not say whether more rows help."),
    ({"misfit": None}, "accuracy", 100, "between +0.4 and +2.0; three sizes fit any such law, so that a fourth"),
    ({"misfit": 0.0}, "accuracy", 100, "The scores do not follow a power law (p below 0.002), so that nothing is said"),
    ({}, "mean_squared_error", 1, "about +0.0120 mean_squared_error, between +0.0040 and +0.0200; more rows make it worse."),
    ({"gain": -0.012, "gain_low": -0.02, "gain_high": -0.004}, "accuracy", 100, "-0.4; more rows make it worse."),
])  # fmt: skip
def test_sentence(values: Any, metric: str, unit: float, said: str) -> None:
    lines = _statement(law(**values), "", [50, 100], metric, "validation", unit)
    assert said in lines[0]
    assert (len(lines) == 2) == ("do not follow" not in said)


def test_undefined_scores_are_shown_and_not_fitted(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undefined(task: Task, *, output: Path, **options: Any) -> None:
        pretended(task, output=output, **options)
        if task.run.seed == 2:
            write_json(RunDir(output).results_json, {"metrics": {"validation": {"accuracy": None}}})

    monkeypatch.setattr("bert_ft.tools.curve.curve.finetune", undefined)
    curve = bert_ft.curve(task, "nowhere", shares=[10, 20, 40], seeds=2, output=tmp_path / "c", quiet=True)
    assert curve.statement == ["No law is fitted: a score is undefined."]
    assert curve.results["sizes"][0]["mean"] is None and "–" in curve._repr_html_()
