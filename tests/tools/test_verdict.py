"""The verdict: its interval beside scipy's, its error rates, its words, and every condition that it names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bert_ft.config.catalog import builtin, load_task
from bert_ft.config.references import Reference
from bert_ft.config.task import Task
from bert_ft.files import write_json
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce import verdict
from bert_ft.tools.reproduce.plan import plan
from bert_ft.tools.reproduce.verdict import conditions, interval, judge, rule

Numbers = st.lists(st.floats(0, 100), min_size=2, max_size=9)

# --- the rule ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(Numbers, Numbers)
def test_interval_is_that_of_scipys_t_test(theirs: list[float], ours: list[float]) -> None:
    """Published mean, std and number of runs carry all that the pooled two-sample t-test takes."""
    if np.std(theirs) < 1e-3 or np.std(ours) < 1e-3:
        return
    gap, half = interval(np.mean(theirs), len(theirs), np.std(theirs, ddof=1), ours, "mean")
    expected = stats.ttest_ind(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose([gap - half, gap + half], [expected.low, expected.high], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(Numbers)
def test_one_published_run_lies_in_its_prediction_interval(ours: list[float]) -> None:
    """Without a published spread: Student's t of scipy on the measured runs, one run of no spread beside them."""
    if np.std(ours) < 1e-3:
        return
    value, n = 50.0, len(ours)
    gap, half = interval(value, 1, None, ours, "single run")
    found = stats.ttest_ind_from_stats(np.mean(ours), np.std(ours, ddof=1), n, value, 0.0, 1)
    assert float(2 * stats.t.sf(abs(gap) / half * stats.t.ppf(0.975, n - 1), n - 1)) == pytest.approx(
        found.pvalue, abs=1e-9
    )


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize(
    ("n", "stated", "m"), [(1, False, 3), (1, False, 5), (5, False, 5), (5, True, 3), (4, False, 10)]
)
def test_error_rates(statistic: str, n: int, stated: bool, m: int) -> None:
    """Where the truth is equal, below and above together come out in at most 5 %; a loss of three margins is no success."""
    random = np.random.default_rng(7)
    theirs, ours = random.normal(0, 1.5, (20_000, n)), random.normal(0, 1.5, (20_000, m))
    value = np.median(theirs, axis=1) if statistic == "median" else theirs.mean(axis=1)
    std = theirs.std(axis=1, ddof=1) if stated else None
    gap, half = interval(value, n, std, ours, statistic)
    assert np.isin(rule(gap, half, 1.0), ["below", "above"]).mean() < 0.055
    assert (rule(gap - 3.0, half, 1.0) == "reproduced").mean() < 0.01
    assert (rule(gap, half, 1e9) == "reproduced").all(), "the margin is what it says"


@pytest.mark.parametrize(("gap", "half", "word"), [
    (0.0, 0.9, "reproduced"), (-0.5, 0.4, "reproduced"), (-0.5, 0.6, "inconclusive"), (-0.9, 0.2, "below"),
    (3.0, 2.0, "above"), (3.0, 3.1, "inconclusive"), (-1.0, 0.0, "reproduced"), (0.0, math.nan, "inconclusive"),
])  # fmt: skip
def test_rule(gap: float, half: float, word: str) -> None:
    assert rule(gap, half, 1.0) == word


def around(mean: float, std: float, n: int) -> list[float]:
    """n numbers of exactly that mean (and median) and standard deviation."""
    z = np.linspace(-1, 1, n)
    return list(mean + std * z / z.std(ddof=1))


@given(
    st.floats(-3, 3),
    st.floats(0.05, 1.5),
    st.integers(3, 6),
    st.integers(1, 6),
    st.sampled_from(["mean", "median"]),
)
def test_the_seeds_it_asks_for_decide(gap: float, std: float, m: int, n: int, statistic: str) -> None:
    found = judge(80.0, n, None, around(80 + gap, std, m), statistic)
    if found.verdict != "inconclusive":
        assert found.seeds is None
        return

    def decides(k: int) -> bool:
        return judge(80.0, n, None, around(80 + gap, std, k), statistic).verdict != "inconclusive"

    assert decides(found.seeds or 999) is (found.seeds is not None)
    assert found.seeds is None or found.seeds == m + 1 or not decides(found.seeds - 1)


def test_words() -> None:
    values = [80.1, 80.3, 79.9, 80.0, 80.2]
    assert judge(80.0, 5, 0.2, values, "mean").verdict == "reproduced"
    assert judge(80.4, 5, 0.05, values, "mean").why[0].endswith("a real difference, and inside ±1")
    below = judge(90.0, None, None, values, "median")
    assert below.verdict == "below" and below.interval is not None and below.interval[1] < 0
    assert "1 run, their number not stated" in below.why[0]
    assert judge(70.0, 1, None, values, "single run").verdict == "above"
    wide = judge(80.0, 1, None, [75.0, 80.0, 86.0], "single run")
    assert (wide.verdict, wide.seeds) == (
        "inconclusive",
        None,
    ) and "the published value alone varies" in wide.why[0]
    assert judge(80.0, 1, None, [80.0], "single run").seeds == 2
    assert judge(80.0, 1, None, [70.0, 70.0], "single run").verdict == "inconclusive", (
        "no spread is no evidence"
    )
    assert judge(80.0, 1, None, [70.0, math.nan], "single run").verdict == "inconclusive"
    assert judge(80.0, 48, None, values, "best of grid").why[0].count("(1 run)"), (
        "a best is one number, however many runs"
    )


# --- the conditions ---------------------------------------------------------------------------------------------------

PUBLISHED: dict[str, Any] = {
    "checkpoint": "org/bert", "split": "validation", "metric": "accuracy", "value": 80.0, "statistic": "mean", "runs": 5,
    "recipe": {"learning_rate": 2e-5, "batch_size": 32, "epochs": 3, "keep": "last"}, "confidence": "C", "source": "a paper",
}  # fmt: skip


def unmet(published: dict[str, Any], changes: dict[str, Any], grid: dict[str, list[Any]]) -> list[str]:
    base, reference = load_task("rte"), Reference(**{**PUBLISHED, **published})
    task = base.override(verdict.recipe(reference) | {"run.checkpoint": "else/bert", **changes})
    return conditions(reference, base, task, grid)


GRID = {"learning_rate": [1e-5, 2e-5]}


@pytest.mark.parametrize(("published", "changes", "grid", "told"), [
    ({}, {}, {}, None),
    ({}, {"batching.unpad": False, "run.seed": 3, "run.data_dir": "x"}, {}, None),
    ({"checkpoint": "org/roberta"}, {}, {}, "checkpoint: roberta published, bert here"),
    ({"intermediate": "mnli"}, {}, {}, "intermediate training: mnli published, none here"),
    ({"intermediate": "not stated"}, {}, {}, "intermediate training: not stated published"),
    ({"metric": "f1"}, {}, {}, "metric: f1 is not computed"),
    ({"metric": "mean of f1 and accuracy"}, {}, {}, "metric: f1 is not computed"),
    ({"statistic": "not stated"}, {}, {}, "statistic: the source does not say"),
    ({"statistic": "best of grid"}, {}, {}, "statistic: the best of a grid published, no grid searched here"),
    ({"statistic": "best of grid", "runs": 2}, {}, GRID, None),
    ({"statistic": "best of grid", "runs": 48}, {}, GRID, "statistic: the best of 48 published, of 2 here"),
    ({"statistic": "best of grid", "runs": None}, {}, GRID, "statistic: the best of an unknown number of runs"),
    ({}, {}, GRID, "statistic: mean published, the best of a grid of 2 here"),
    ({"recipe": {}}, {}, {}, "recipe: the source does not state learning_rate, batch_size, keep, epochs"),
    ({"recipe": {"max_steps": 9, "learning_rate": 1e-5, "batch_size": 8, "keep": "best"}}, {}, {}, None),
    ({}, {"recipe.learning_rate": 2e-6}, {}, "recipe.learning_rate: 2e-05 published, 2e-06 here"),
    ({}, {"data.limit_train": 1000}, {}, "data.limit_train: (none) published, 1000 here"),
    ({"unmet": ["layer-wise learning-rate decay 0.8"]}, {}, {}, "layer-wise learning-rate decay 0.8"),
])  # fmt: skip
def test_each_condition_is_named(published: Any, changes: Any, grid: Any, told: str | None) -> None:
    found = unmet(published, changes, grid)
    assert len(found) == (told is not None) and all(line.startswith(str(told)) for line in found), found


def test_intermediate_training_is_found_in_the_chain_of_runs(tmp_path: Path) -> None:
    def finished(name: str, checkpoint: str) -> str:
        folder = RunDir(tmp_path / name)
        folder.path.mkdir()
        folder.task_toml.write_text(
            tomli_w.dumps(load_task(name).override({"run.checkpoint": checkpoint}).dump())
        )
        write_json(folder.environment_json, {"data_fingerprint": "some"})
        write_json(folder.results_json, {})
        return str(folder.path)

    first = finished("mnli", "org/bert")
    second = finished("rte", first + "/model")
    assert verdict.origin("org/bert") == ("bert", "none")
    assert verdict.origin(first) == verdict.origin(first + "/model") == ("bert", "mnli")
    assert verdict.origin(second) == ("bert", "mnli+rte")
    base, reference = load_task("mrpc"), Reference(**{**PUBLISHED, "intermediate": "mnli"})
    task = base.override(verdict.recipe(reference) | {"run.checkpoint": first})
    assert conditions(reference, base, task, {}) == []


def test_scales() -> None:
    form = "mean of f1 and accuracy"
    assert verdict.measured(form, "classification", {"f1": 0.9, "accuracy": 0.8}) == pytest.approx(85)
    assert verdict.measured(form, "qa", {"f1": 90.0, "accuracy": 80.0}) == pytest.approx(85)
    assert math.isnan(verdict.measured(form, "ner", {"f1": None, "accuracy": 0.8}))
    assert verdict.points(0.25, "classification", "mean_squared_error") == 0.25


def test_built_in_references(tmp_path: Path) -> None:
    """What the sources of the built-in tasks allow: the examples of transformers are comparable as they are run by
    default; what trains in a way that no recipe here can say never is."""
    made = plan("glue", "google-bert/bert-base-cased", seeds=1, output=tmp_path)
    for entry in made.entries:
        assert entry.reference is not None and entry.reference.source.startswith("transformers, examples/")
        assert conditions(entry.reference, entry.base, entry.runs[0].task, {}) == []
    for name in builtin():
        task: Task = load_task(name)
        for reference in task.reference:
            said = json.dumps([reference.note, reference.unmet])
            run = task.override(verdict.recipe(reference) | {"run.checkpoint": reference.checkpoint})
            if "layer-wise" in said or "reverse order" in said or "before the head" in said:
                assert set(reference.unmet) & set(conditions(reference, task, run, {}))
