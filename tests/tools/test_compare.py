"""Runs of every kind against themselves, against runs whose predictions are known to differ, and against other data.

The runs are folders made by hand: predictions that are right by chance, scored by the family's own metrics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from seqeval.metrics.sequence_labeling import get_entities

import bert_ft
from bert_ft import families
from bert_ft.data import loading
from bert_ft.files import write_json, write_jsonl
from bert_ft.metrics import LOWER_IS_BETTER, squad, two_means
from bert_ft.report import scored_set
from bert_ft.rundir.folder import MARKER, RunDir

Made = Callable[..., bert_ft.Run]
KINDS = ("classes", "sets", "numbers", "entities", "questions")
N, SCRIPT = 60, "<script>alert(1)</script>"


def rows_of(kind: str) -> list[dict[str, Any]]:
    rng, texts = np.random.default_rng(0), [f"text {i} {SCRIPT}" for i in range(N)]
    if kind == "entities":
        tags = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O", "B-LOC", "O"]]
        return [{"tokens": ["Anna", "Lund", f"saw{i}", "Rome"], "tags": tags[i % 2]} for i in range(N)]
    if kind == "questions":
        answers = [
            {"text": ["text"], "answer_start": [0]} if i % 3 else {"text": [], "answer_start": []}
            for i in range(N)
        ]
        return [
            {"id": f"q{i}", "question": f"what {i}?", "context": text, "answers": answers[i]}
            for i, text in enumerate(texts)
        ]
    labels: dict[str, Any] = {"classes": lambda i: "abc"[rng.integers(3)], "numbers": lambda i: float(rng.normal()),
                              "sets": lambda i: [name for name in "abc" if rng.random() < 0.4]}  # fmt: skip
    return [{"text": text, "label": labels[kind](i)} for i, text in enumerate(texts)]


OF_KIND: dict[str, dict[str, Any]] = {
    "classes": {"metric.compute": ["accuracy", "f1_macro", "matthews_correlation"]},
    "sets": {"data.problem_type": "multi_label_classification", "data.labels": ["a", "b", "c"]},
    "numbers": {
        "data.problem_type": "regression",
        "metric.compute": ["pearson", "spearmanr", "mean_absolute_error"],
    },
    "entities": {"data.labels": ["O", "B-PER", "I-PER", "B-LOC"]},
    "questions": {"qa.no_answer": True},
}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """`made("classes", 1, right=0.8, learning_rate=1e-3)`: a finished run of seed 1 on 60 rows."""

    def make(kind: str, seed: int, *, right: float = 0.7, **settings: Any) -> bert_ft.Run:
        family = {"entities": "ner", "questions": "qa"}.get(kind, "classification")
        task = bert_ft.load_task(family).override(
            {"run.seed": seed, "run.checkpoint": "tiny", **OF_KIND[kind], **settings}
        )
        objects = {"train": rows_of(kind), "validation": rows_of(kind)}
        rows = loading.load(task, families.find(family), objects).evaluation["validation"]
        adapter = families.find(family)(task, families.find(family).find_labels(rows, task))
        task = adapter.task = task.override({"data.labels": adapter.labels or None})
        folder, rng = (
            RunDir(tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"),
            np.random.default_rng([seed, int(1000 * right)]),
        )
        folder.start(task, {MARKER: None})
        files: dict[str, Any] = {}
        if kind == "questions":
            lines, metrics, files = answered(rng, right)
            adapter.tuned = {"null_threshold": 0.5}
        else:
            gold = adapter.references(rows)
            keep = rng.random(gold.shape) < right
            predictions = {"prediction": np.where(keep, gold, rng.permutation(gold))}
            if kind == "numbers":
                predictions["prediction"] = gold + rng.normal(size=N) * (1 - right)
            elif kind == "sets":
                predictions["probabilities"] = np.clip(
                    predictions["prediction"] * 0.4 + 0.6 * rng.random(gold.shape), 0, 1
                )
                adapter.tune(predictions, rows)
            elif kind == "classes":
                predictions["probabilities"] = (
                    np.eye(3)[predictions["prediction"]] + rng.dirichlet(np.ones(3), N)
                ) / 2
            lines, metrics = list(adapter.lines(predictions, rows)), adapter.score(predictions, rows)
        write_jsonl(folder.prediction_file("validation"), lines)
        scored_set.keep(folder, "validation", rows.table)
        for suffix, value in files.items():
            write_json(folder.predictions / f"validation{suffix}.json", value)
        write_json(folder.results_json, {"metrics": {"validation": metrics}, "tuned": adapter.tuned})
        return bert_ft.Run(folder.path)

    return make


def answered(
    rng: np.random.Generator, right: float
) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, Any]]:
    """Lines, metrics and n best of answers, with a threshold of no answer of 0.5."""
    ids, golds = [f"q{i}" for i in range(N)], {f"q{i}": ["text"] if i % 3 else [] for i in range(N)}
    texts = {key: "text" if rng.random() < right else "text 1" for key in ids}
    odds = {
        key: float(rng.normal() + (2 if rng.random() < right else -2) * (1 if not golds[key] else -1))
        for key in ids
    }
    lines = [{"id": key, "prediction": "" if odds[key] > 0.5 else texts[key], "start": None, "end": None, "score": 0.5,
              "null_odds": odds[key]} for key in ids]  # fmt: skip
    zero, tuned = (squad.squad_v2(texts, golds, odds, limit) for limit in (0.0, 0.5))
    metrics = {"f1": zero["f1"], "exact_match": zero["exact"], "best_f1": zero["best_f1"], "best_exact": zero["best_exact"],
               "tuned_f1": tuned["f1"], "tuned_exact_match": tuned["exact"]}  # fmt: skip
    return lines, metrics, {".nbest": {key: [{"text": texts[key], "probability": 0.5}] for key in ids}}


def wrong(run: bert_ft.Run) -> np.ndarray:
    """(N,) what a run has wrong: 0 or 1 a row, of entities by seqeval; of numbers the error."""
    found = []
    for i, line in enumerate(run.predictions()):
        said, label = line["prediction"], line.get("label", "text" if i % 3 else "")
        if isinstance(said, float):
            found.append(abs(said - label))
        elif "tokens" in line:
            found.append(get_entities(said) != get_entities(label))
        else:
            found.append(sorted(said) != sorted(label))
    return np.array(found, float)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_against_itself_shows_no_difference(made: Made, kind: str) -> None:
    run = made(kind, 1)
    found = bert_ft.compare(run, str(run.path))
    assert len(found.differences) >= 3 and found.rows == N
    for d in found.differences:
        assert d.difference == 0 and d.interval is None and d.p == 1 and d.seeds_interval is None
        assert d.no_interval == "no row differs"
        assert d.values == pytest.approx((run.metrics["validation"][d.metric],) * 2)
    assert found.flips[0].worse == found.flips[0].better == []


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs(made: Made, kind: str) -> None:
    """Differences are those of the results; the flips, those of the lines; McNemar's p that of the flips."""
    first, second = made(kind, 1), made(kind, 2, right=0.8)
    found = bert_ft.compare(first, second, draws=500)
    known = {
        name for name in second.metrics["validation"] if not name.startswith("f1_") or kind != "entities"
    }
    assert {d.metric for d in found.differences} == known - (
        {"best_f1", "best_exact"} if kind == "questions" else set()
    )
    for d in found.differences:
        before, after = (run.metrics["validation"][d.metric] for run in (first, second))
        assert d.difference == pytest.approx(after - before)
        few = d.metric.endswith("_macro") or (
            d.metric.endswith("_macro_tuned") and kind in ("classes", "sets")
        )
        if d.interval is None:  # a label of 60 rows has 16
            assert few and re.fullmatch(r"\d+ rows of '[abc]', fewer than 20", d.no_interval)
        else:
            assert d.interval[0] <= d.difference <= d.interval[1] and not d.no_interval
        error = (
            (before, after)
            if d.metric in LOWER_IS_BETTER
            else np.subtract(100 if kind == "questions" else 1, (before, after))
        )
        assert d.fewer_errors == pytest.approx(1 - error[1] / error[0] if error[0] else np.nan, nan_ok=True)
    change = wrong(second) - wrong(first)
    (flips,) = found.flips
    assert {line["row"] for line in flips.worse} == set(np.flatnonzero(change > 0))
    assert {line["row"] for line in flips.better} == set(np.flatnonzero(change < 0))
    assert flips.worse and flips.better
    sizes = [abs(change[line["row"]]) for line in flips.worse]
    assert sizes == sorted(sizes, reverse=True)
    tested = [d.p for d in found.differences if d.test.startswith("McNemar")]
    assert len(tested) == (kind not in ("numbers", "entities"))
    for p in tested:
        n = len(flips.worse) + len(flips.better)
        assert p == pytest.approx(stats.binomtest(len(flips.worse), n).pvalue if n else 1)
    inputs = {"text"} if kind != "questions" else {"question", "context"}
    for line in [*flips.worse, *flips.better]:
        assert inputs < set(line) and len(line["A"]) == len(line["B"]) == 1
        if kind not in ("entities", "numbers"):
            said = {"A": first, "B": second}
            assert all(
                line[side][0] in ("right", said[side].predictions()[line["row"]]["prediction"])
                for side in said
            )


def test_groups_of_seeds(made: Made) -> None:
    """Runs that differ in the seed alone count as one: means, deviations, Welch's interval and p over the seeds; a group
    flips where most of its seeds do."""
    base = [made("numbers", seed) for seed in (1, 2, 3)]
    new = [made("numbers", seed, right=0.75, learning_rate=1e-4) for seed in (4, 5)]
    found = bert_ft.compare(*base, *new, draws=500)
    table = next(found.tables(0))
    assert (
        table.columns[-1] == "p (other seeds, these rows)" and "95 % over 60 rows and seeds" in table.columns
    )
    assert [(group.name, group.seeds) for group in found.groups] == [("A", [1, 2, 3]), ("B", [4, 5])]
    assert found.groups[1].differs == ["recipe.learning_rate: 3e-05 -> 0.0001"]
    for d in found.differences:
        a, b = ([run.metrics["validation"][d.metric] for run in group] for group in (base, new))
        assert d.values == pytest.approx((np.mean(a), np.mean(b)))
        assert d.deviations == pytest.approx((np.std(a, ddof=1), np.std(b, ddof=1)))
        theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
        half = (theirs.high - theirs.low) / 2 * two_means.widening(len(a) - 1, len(b) - 1, 0.95)
        assert d.seeds_interval == pytest.approx((d.difference - half, d.difference + half))
        assert d.p in [pytest.approx(k / 10) for k in range(1, 11)] and d.test == "permutation of the seeds"
        assert d.interval[0] < d.difference < d.interval[1]
    before, after = (np.mean([wrong(run) for run in group], axis=0) for group in (base, new))
    assert {line["row"] for line in found.flips[0].worse} == set(np.flatnonzero(after > before))
    assert all(len(line["A"]) == 3 and len(line["B"]) == 2 for line in found.flips[0].worse)
    assert any("no p below 0.1" in note for note in found.notes)
    given = bert_ft.compare(base, new, draws=500)
    assert given.dump() == found.dump()


def test_several_groups_are_corrected_for(made: Made) -> None:
    first, *others = (made("classes", 1, right=0.5 + i / 10, learning_rate=1e-3 * (i + 1)) for i in range(4))
    found = bert_ft.compare(first, *others, metrics=["accuracy"], draws=500)
    assert any("the 3 groups that are compared with A, one metric at a time" in note for note in found.notes)
    assert [d.b for d in found.differences] == ["B", "C", "D"]
    order = np.argsort([d.p for d in found.differences])
    expected = np.maximum.accumulate([min(1, found.differences[i].p * (3 - k)) for k, i in enumerate(order)])
    assert [found.differences[i].p_holm for i in order] == pytest.approx(expected)


def test_one_run_against_several(made: Made) -> None:
    """What another seed of the single run would change is taken from the group's, and said; p is for other seeds."""
    one, several = made("classes", 1), [made("classes", s, right=0.75, learning_rate=1e-4) for s in (2, 3, 4)]
    found = bert_ft.compare(one, several, draws=2000, metrics=["accuracy"])
    (d,) = found.differences
    note = "A is one run: what another seed of it would change is not measured; the interval takes its seeds to vary as those of B do"
    assert note in found.notes and d.p_is_for == "other seeds, these rows" and d.seeds_interval is None
    scores = [run.metrics["validation"]["accuracy"] for run in several]
    half = stats.t.ppf(0.975, 2) * np.std(scores, ddof=1) * np.sqrt(1 + 1 / 3)
    assert d.interval and d.interval[1] - d.interval[0] > 2 * half
    table = next(found.tables(0))
    assert "95 % over 60 rows and seeds" in table.columns
    alone = bert_ft.compare(one, several[0], metrics=["accuracy"])
    table = next(alone.tables(0))
    assert "95 % over 60 rows" in table.columns and table.columns[-1] == "p (other rows, these models)"
    assert "p of accuracy: McNemar's exact test, for other rows, these models" in alone.lines()


def test_equal_seeds(made: Made) -> None:
    """Seeds of one score have no effect size and no interval of their own; nothing is -2e14 standard deviations."""
    base = [made("classes", 1), made("classes", 1), made("classes", 1)]
    new = [made("classes", 2, right=0.8, learning_rate=1e-4)] * 3
    found = bert_ft.compare(base, new, metrics=["accuracy"], draws=500)
    (d,) = found.differences
    assert d.deviations == (0, 0) and d.seeds_interval is None and d.hedges_g is None


def grouped(run: bert_ft.Run, column: str, values: list[Any]) -> None:
    """Gives the rows that a run keeps another column."""
    file = run.dir.predictions / "validation.rows.parquet"
    pq.write_table(pq.read_table(file).append_column(column, pa.array(values)), file)


@pytest.mark.parametrize(("kind", "column", "unit"), [("classes", "group", "groups (product)"), ("entities", "document", "documents"),
                                                      ("questions", "article", "articles")])  # fmt: skip
def test_rows_that_hang_together(made: Made, kind: str, column: str, unit: str) -> None:
    """They are resampled and swapped together, and the output says so; a run that keeps no such column takes part."""
    runs = [made(kind, 1), made(kind, 2, right=0.9)]
    for run in runs:
        run.__dict__["task"] = run.task.override({"data.group": "product"})
    before = bert_ft.compare(*runs, draws=500)
    assert sum("The rows are taken as independent" in note for note in before.notes) == 1
    values: list[Any] = [i // 5 for i in range(N)]
    for run in runs[1:]:
        grouped(run, column, values if column == "document" else list(map(str, values)))
    found = bert_ft.compare(*runs, draws=500)
    assert found.drawn == f"12 {unit}" and not any("independent" in note for note in found.notes)
    assert f"95 % over 12 {unit}" in next(found.tables(0)).columns
    for d in found.differences:
        assert d.test == f"approximate randomisation of the 12 {unit}" and (d.interval or d.no_interval)
        ways = [501 * d.p, 4096 * d.p]  # drawn, or all
        assert min(abs(way - round(way)) for way in ways) < 1e-6
    one = runs[1].scored()
    assert one.drawn == f"12 {unit}" and not one.independence and one.clusters is not None
    assert runs[0].scored().clusters is None or column == "article"  # where each context is a row


def other_label(run: bert_ft.Run) -> None:
    lines = run.predictions()
    lines[3]["label"] = next(line["label"] for line in lines if line["label"] != lines[3]["label"])
    write_jsonl(run.dir.prediction_file("validation"), lines)


def other_text(run: bert_ft.Run) -> None:
    file = run.dir.predictions / "validation.rows.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[3]["text"] = "another text"
    pq.write_table(pa.Table.from_pylist(rows), file)


def fewer(run: bert_ft.Run) -> None:
    write_jsonl(run.dir.prediction_file("validation"), run.predictions()[:-1])


def other_set(run: bert_ft.Run) -> None:
    run.dir.prediction_file("validation").unlink()


@pytest.mark.parametrize(("spoil", "told"), [(other_label, "row 3 has another 'label'"), (fewer, "59 rows, not 60"),
                                             (other_text, "row 3 has another 'text': another text, not"),
                                             (other_set, "no scored set 'validation'")])  # fmt: skip
def test_other_data_is_refused(made: Made, spoil: Callable[[bert_ft.Run], None], told: str) -> None:
    first, second = made("classes", 1), made("classes", 2)
    bert_ft.compare(first, second, draws=10)
    spoil(second)
    with pytest.raises(bert_ft.InputError, match=re.escape(told)):
        bert_ft.compare(first, second)


def test_what_can_not_be_compared(made: Made) -> None:
    run = made("classes", 1)
    strict = made("entities", 1, **{"metric.mode": "seqeval-strict"})
    cases: Sequence[tuple[Sequence[Any], str]] = (
        ([run], "two runs or groups"), ([run, []], "two runs or groups"), ([run, made("sets", 1)], "data.problem_type: "),
        ([made("sets", 1), made("sets", 1, **{"data.labels": ["a", "b", "c", "d"]})], "data.labels: "),
        ([made("entities", 1), strict], "metric.mode: conlleval -> seqeval-strict"),
    )  # fmt: skip
    for given, told in cases:
        with pytest.raises(bert_ft.InputError, match=re.escape(told)):
            bert_ft.compare(*given)
    with pytest.raises(
        bert_ft.InputError, match="no metric 'accurracy' to compare\n  did you mean 'accuracy'"
    ):
        bert_ft.compare(run, run, metrics=["accurracy"])


def test_a_metric_that_the_predictions_do_not_give_is_left_out_and_told(made: Made) -> None:
    first, second = made("classes", 1), made("classes", 2)
    write_json(
        second.dir.results_json,
        {"metrics": {"validation": second.metrics["validation"] | {"accuracy": 0.123}}},
    )
    found = bert_ft.compare(first, bert_ft.Run(second.path), draws=10)
    assert [d.metric for d in found.differences] == ["f1_macro", "matthews_correlation"]
    assert any("not compared: accuracy" in note for note in found.notes)


def test_labels_in_another_order_are_bound_by_name(made: Made) -> None:
    orders = [
        made("classes", seed, **{"data.labels": list(names)}) for seed, names in ((1, "abc"), (2, "cab"))
    ]
    same = [made("classes", seed) for seed in (1, 2)]
    write_jsonl(orders[1].dir.prediction_file("validation"), same[1].predictions())
    write_json(orders[1].dir.results_json, same[1].results)
    found, expected = (bert_ft.compare(*runs, draws=500) for runs in (orders, same))
    assert found.differences == expected.differences


def test_the_command(made: Made, cli: Any) -> None:
    runs = [made("classes", 1), made("classes", 2, right=0.9)]
    first, second = (run.path for run in runs)
    done = cli("compare", first, second, "--show-flips", 2, "--json")
    found = bert_ft.compare(first, second)
    assert done.code == 0 and json.loads(done.out) == json.loads(json.dumps(found.dump(2)))
    shown = cli("compare", first, second, "--show-flips", 1, "--metric", "accuracy")
    counts = [len(found.flips[0].worse), len(found.flips[0].better)]
    assert f"right -> wrong from A to B: {counts[0]} rows; wrong -> right: {counts[1]}" in shown.out
    assert (
        f"1 of {counts[1]} rows" in shown.out and "McNemar" in shown.out and "randomisation" not in shown.out
    )
    grouped = json.loads(cli("compare", first, "vs", second, second, "--json").out)
    assert [len(group["runs"]) for group in grouped["groups"]] == [1, 2] and "a seed twice" in grouped[
        "notes"
    ][0]
    alone = cli("compare", first)
    assert alone.code == 2 and "two runs or groups are wanted" in alone.err


def test_a_comparison_shows_itself(made: Made) -> None:
    text = bert_ft.compare(made("sets", 1), made("sets", 2, learning_rate=1e-3))._repr_html_()
    assert "<table" in text and "learning_rate: 3e-05 -&gt; 0.001" in text and "accuracy_tuned" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
