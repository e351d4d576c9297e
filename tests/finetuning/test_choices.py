"""Which numbers of a run were chosen on the rows they are of: recorded, and said wherever they are shown."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.report import choices

QUICK = {"batch_size": 16, "max_length": 32, "learning_rate": 3e-3, "quiet": True, "check": False}
WORDS = ("warm film", "dull plot", "brave heart", "empty hours")


def classes(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows a fifth of whose labels are wrong."""
    rnd = random.Random(seed)
    return [
        {"text": f"a {word} {i}", "label": ("good", "bad")[(WORDS.index(word) + (rnd.random() < 0.2)) % 2]}
        for i in range(n)
        for word in [rnd.choice(WORDS)]
    ]


def sets(n: int, seed: int) -> list[dict[str, Any]]:
    rnd = random.Random(seed)
    words = ["film", "plot", "heart", "hours"]
    return [
        {"text": " ".join(some), "label": [word for word in some if rnd.random() < 0.7]}
        for _ in range(n)
        for some in [rnd.sample(words, 3)]
    ]


def questions(n: int, seed: int) -> list[dict[str, Any]]:
    rnd = random.Random(seed)
    out = []
    for i in range(n):
        has = rnd.random() < 0.5
        answers = {"text": ["film"], "answer_start": [7]} if has else {"text": [], "answer_start": []}
        asked = "what is warm ?" if has != (rnd.random() < 0.2) else "what is dull ?"
        out.append(
            {"id": f"{seed}-{i}", "question": asked, "context": f"a warm film {i // 2}", "answers": answers}
        )
    return out


def train(make: Callable[[int, int], Any], folder: Path, checkpoint: Path, **settings: Any) -> bert_ft.Run:
    family = "qa" if make is questions else "classification"
    kind = {"problem_type": "multi_label_classification"} if make is sets else {}
    kind |= {"no_answer": True, "doc_stride": 8} if make is questions else {}
    data = {}
    for name, rows in {"train": make(80, 1), "validation": make(60, 2), "test": make(40, 3)}.items():
        data[name] = folder.parent / f"{name}.json"
        data[name].write_text(json.dumps(rows))
    if "folds" in settings:
        data = {"train": data["train"]}
    return bert_ft.finetune(family, str(checkpoint), output=folder, **(QUICK | kind | data | settings))


def chosen(run: bert_ft.Run) -> dict[str, dict[str, Any]]:
    """What was chosen -> its record, of the set that picks."""
    return {each["what"]: each for each in run.results["chosen"] if each["set"] == "validation"}


def test_the_best_of_several_evaluations(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    run = train(
        classes, tmp_path / "run", tiny_checkpoint, epochs=5, **{"metric.compute": ["accuracy", "f1"]}
    )
    (record,) = run.results["chosen"]
    assert (
        record["set"] == "validation"
        and record["evaluations"] == 5
        and record["metrics"] == ["accuracy", "f1"]
    )
    for metric, value in run.metrics["validation"].items():
        assert record["held_out"][metric] + record["lean"][metric] == pytest.approx(value)
    assert not list(run.path.rglob("*.npz")), "nothing of the evaluations stays"
    page = (run.path / "report.html").read_text()
    said = "chosen on these very rows: the best of 5 evaluations"
    assert page.count(said) == 1 and "test: took no part in any choice" in page
    assert said in (run.path / "model" / "README.md").read_text() and said in run._repr_html_()
    rows = {(cells[0], cells[1]): cells[-1] for cells in choices_table(run)}
    assert {row: cell for row, cell in rows.items() if row[0] == "test"} == {
        ("test", "accuracy"): "no", ("test", "f1"): "no",
    }  # fmt: skip
    assert {cell for row, cell in rows.items() if row[0] == "validation"} == {"the best of 5 evaluations"}
    # it is another run's chances that count
    other = train(
        classes, tmp_path / "other", tiny_checkpoint, epochs=1, **{"metric.compute": ["accuracy", "f1"]}
    )
    assert other.results["chosen"] == [] and "chosen on these" not in (other.path / "report.html").read_text()
    notes = " ".join(bert_ft.compare(run, other).notes)
    assert "accuracy of A is the best of 5 evaluations, of B not chosen on these rows" in notes
    assert "unequal" not in " ".join(bert_ft.compare(run, other, split="test").notes)
    assert "unequal" not in " ".join(bert_ft.compare(run, run).notes)
    # a record that is damaged is one message
    file = run.path / "results.json"
    for damage in ({"lean": {"accuracy": "much"}}, {"evaluations": None, "metrics": 3}, {"parts": []}):
        file.write_text(json.dumps(run.results | {"chosen": [record | damage]}))
        done = cli("report", run.path)
        assert done.code == 2 and "do not fit together" in done.err, damage


def choices_table(run: bert_ft.Run) -> list[list[Any]]:
    from bert_ft.pages.run_page import View

    return View(run.dir).scores().rows


def test_thresholds_and_the_last_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = train(sets, tmp_path / "run", tiny_checkpoint, epochs=2, keep="last")
    (record,) = run.results["chosen"]
    plain = {name for name in run.metrics["validation"] if not name.endswith("_tuned")}
    assert record["what"] == "the threshold" and not plain & set(record["metrics"])
    for name, metric, _, held, interval, what in choices_table(run):
        clean = name == "test" or metric in plain
        assert (what == "no") is clean and (held is None) is clean
        assert clean or interval == "none: it would not hold for thresholds that were tuned on these rows"
    card = (run.path / "model" / "README.md").read_text()
    assert "chosen on these very rows: the threshold" in card
    assert len(re.findall(r"\| validation \| f1\\_micro\\_tuned \| 0.\d+ † \|", card)) == 1
    assert not re.findall(r"\| test .*†|f1\\_micro \| .*†", card)


def test_both_and_no_answer(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    run = train(
        questions,
        tmp_path / "run",
        tiny_checkpoint,
        epochs=3,
        **{"metric.best": "best_f1", "metric.compute": ["best_f1", "f1", "exact_match"]},
    )
    records = chosen(run)
    best, both = records.values()
    assert list(records) == [
        "the best of 3 evaluations",
        "the best of 3 evaluations and the threshold of no answer",
    ]
    assert (
        {"best_f1", "best_exact", "tuned_f1", "tuned_exact_match"}
        == set(both["metrics"])
        == set(both["lean"])
    )
    assert {"f1", "exact_match", "HasAns_f1"} <= set(best["metrics"])
    # best_f1 is at the best threshold for the very set, whichever it is; tuned_f1 of another set is not
    done = cli("evaluate", run.path)
    assert "best_f1" in done.err and "and the threshold of no answer" in done.err
    (tmp_path / "new.json").write_text(json.dumps(questions(20, 9)))
    done = cli("evaluate", run.path, "--data", tmp_path / "new.json")
    assert "are at the best threshold for these very rows" in done.err, done.err
    swept = [each["metrics"] for each in run.results["chosen"] if each["set"] == "test"]
    assert [sorted(metrics) for metrics in swept] == [["best_exact", "best_f1"]]


@pytest.mark.parametrize("make", [classes, pytest.param(sets, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_same_record(
    make: Any, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(RuntimeError):
        pass

    class Stop(bert_ft.Callback):
        def on_step(self, step: int, entry: Any) -> None:
            if step == 18:
                raise Stopped

    settings = {
        "epochs": 5,
        "save_every": 6,
        "metric.best": "accuracy" if make is classes else "f1_micro_tuned",
    }
    run = train(make, tmp_path / "whole", tiny_checkpoint, **settings)
    with pytest.raises(Stopped):
        train(make, tmp_path / "parts", tiny_checkpoint, callbacks=[Stop()], **settings)
    assert sorted(path.name for path in (tmp_path / "parts").rglob("*.npz")) == [
        f"evaluation-{number}.npz" for number in range(3)
    ]
    resumed = train(make, tmp_path / "parts", tiny_checkpoint, **settings)
    assert resumed.environment["resumed"]
    assert resumed.results["chosen"] == run.results["chosen"] != []
    assert all(each["lean"] for each in run.results["chosen"])


def test_folds(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = train(classes, tmp_path / "run", tiny_checkpoint, epochs=3, folds=2)
    (record,) = run.results["chosen"]
    folds = [bert_ft.load(run.path / f"fold-{number}").results["chosen"][0] for number in (1, 2)]
    assert record["what"] == "the best of 3 evaluations of each fold" and record["folds"] == 2
    assert record["lean"]["accuracy"] == pytest.approx(sum(fold["lean"]["accuracy"] for fold in folds) / 2)
    mean = run.metrics["validation"]["accuracy"]
    assert record["held_out"]["accuracy"] == pytest.approx(mean - record["lean"]["accuracy"])
    assert (
        "chosen on these very rows: the best of 3 evaluations of each fold"
        in (run.path / "report.html").read_text()
    )
    last = train(classes, tmp_path / "last", tiny_checkpoint, epochs=3, folds=2, keep="last")
    assert last.results["chosen"] == [] and "chosen on these" not in (last.path / "report.html").read_text()


@pytest.mark.slow
def test_without_a_record_the_recipe_says_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Runs of an earlier version: the same numbers, without an estimate."""
    for make, settings in ((classes, {"epochs": 3}), (sets, {"epochs": 2}), (questions, {"epochs": 1})):
        run = train(make, tmp_path / make.__name__, tiny_checkpoint, **settings)
        old = {key: value for key, value in run.results.items() if key != "chosen"}
        now = choices.of_run(run.results, run.task, run.log)
        then = choices.of_run(old, run.task, run.log)
        for name, values in run.metrics.items():
            for metric in values:
                recorded, worded = now.of(name, metric), then.of(name, metric)
                assert (recorded is None) is (worded is None), (make, name, metric)
                if worded is not None and recorded is not None:
                    assert worded.evaluations == recorded.evaluations and not worded.lean
        line = then.sentences("validation", then.made[0].metrics[0])[0]
        assert line.endswith("such a number is somewhat too good")
        file = run.path / "results.json"
        file.write_text(json.dumps(old))
        from bert_ft.pages import run_page

        assert "chosen on these rows" in run_page.html([run_page.view_of(run.dir)])


def test_a_family_of_ones_own_is_told_without_an_estimate(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bert_ft.families.classification.adapter import Classification

    class Own(Classification):
        def candidate(self, predictions: Any, rows: Any) -> None:
            return None

    run = train(classes, tmp_path / "run", tiny_checkpoint, epochs=3, adapter=Own)
    (record,) = run.results["chosen"]
    assert record["what"] == "the best of 3 evaluations" and record["lean"] == {} and record["parts"] == 0
    assert "somewhat too good" in (run.path / "report.html").read_text()

    class Broken(Own):
        def candidate(self, predictions: Any, rows: Any) -> Any:
            return predictions["nothing of the kind"]

    broken = train(classes, tmp_path / "broken", tiny_checkpoint, epochs=3, adapter=Broken, quiet=False)
    assert broken.results["chosen"] == [record], "it costs no run"
    assert "no estimate of what choices add: KeyError" in capsys.readouterr().err
    mine = train(
        classes,
        tmp_path / "mine",
        tiny_checkpoint,
        epochs=3,
        metrics={"mine": lambda p, y: float((p == y).mean())},
    )
    (record,) = mine.results["chosen"]
    assert "mine" in record["metrics"] and set(record["lean"]) == {"accuracy"}
