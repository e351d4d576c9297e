"""The statistics of compare against exact enumeration, scipy, and their formulas worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bert_ft.metrics import bootstrap, classification, multilabel, scoring, significance
from bert_ft.metrics.bootstrap import Resamples

Metrics = Callable[[np.ndarray], dict[str, float]]
CLASSES = ("accuracy", "f1_macro")
NUMBERS = ("pearson", "spearmanr", "mean_absolute_error")


def of_classes(keys: np.ndarray) -> dict[str, float]:
    return classification.compute(CLASSES, keys[:, 1], keys[:, 0])


def of_numbers(keys: np.ndarray) -> dict[str, float]:
    return classification.compute(NUMBERS, keys[:, 1], keys[:, 0])


def of_sets(keys: np.ndarray) -> dict[str, float]:
    gold, found, _ = np.split(keys, 3, axis=1)
    return multilabel.compute(["f1_micro", "f1_macro", "accuracy"], found, gold)


KINDS: dict[str, tuple[int, int, Any, Metrics]] = {  # columns of a row: gold, predicted
    "classes": (1, 1, scoring.Classes("abc", 1), of_classes),
    "numbers": (1, 1, scoring.Numbers(), of_numbers),
    "sets": (2, 4, scoring.LabelSets("ab"), of_sets),
}


@st.composite
def pairs(draw: Any, kind: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys of two systems on the same rows."""
    gold, found, *_ = KINDS[kind]
    most = 1 if kind == "sets" else 2
    n = draw(st.integers(2, rows))
    golds, *sides = (
        draw(arrays(np.int64, (n, columns), elements=st.integers(0, most)))
        for columns in (gold, found, found)
    )
    first, second = (np.concatenate([golds, side], axis=1) for side in sides)
    return first, second


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_randomisation_equals_all_sign_flips(kind: str, data: Any) -> None:
    first, second = data.draw(pairs(kind, 5))
    *_, scoring, score = KINDS[kind]
    ours = significance.randomisation(Resamples(first, scoring), Resamples(second, scoring))
    rows = np.flatnonzero((first != second).any(axis=1))
    seen, hits = {}, dict.fromkeys(score(first), 0)
    for swap in product((False, True), repeat=len(rows)):
        a, b = first.copy(), second.copy()
        places = rows[list(swap)]
        a[places], b[places] = second[places], first[places]
        before, after = score(a), score(b)
        differences = {name: after[name] - before[name] for name in before}
        seen = seen or differences  # the first one swaps nothing
        for name, value in differences.items():
            hits[name] += not abs(value) < abs(seen[name]) - 1e-9  # undefined: a hit
    assert {name: ours[name] for name in hits} == {
        name: count / 2 ** len(rows) for name, count in hits.items()
    }


@settings(deadline=None)
@given(arrays(bool, (2, 9)))
def test_mcnemar_equals_all_sign_flips(right: np.ndarray) -> None:
    lost, won = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    n = int(lost + won)
    extreme = [abs(n - 2 * sum(flip)) >= abs(int(lost) - int(won)) for flip in product((0, 1), repeat=n)]
    assert significance.mcnemar(*right) == pytest.approx(sum(extreme) / 2**n)


def test_drawn_randomisation_is_near_the_exact_p() -> None:
    """Of accuracy the exact p is a binomial test's."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200)
    sides = [
        np.stack([gold, np.where(rng.random(200) < share, gold, 1 - gold)], axis=1) for share in (0.75, 0.77)
    ]
    ours = significance.randomisation(
        *(Resamples(side, scoring.Classes("ab", 1)) for side in sides), draws=20_000
    )  # type: ignore[misc]
    right = [side[:, 0] == side[:, 1] for side in sides]
    exact = stats.binomtest(int((right[0] & ~right[1]).sum()), int((right[0] != right[1]).sum())).pvalue
    assert 0.001 < exact < 0.2 and ours["accuracy"] == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))


def distribution(values: np.ndarray) -> np.ndarray:
    """The share of values at or below each of 41 points."""
    return (np.sort(values)[None] <= np.linspace(-1, 1, 41)[:, None] + 1e-9).mean(axis=1)


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2), (3, 2)])
def test_bootstrap_equals_all_resamples(seeds: tuple[int, int]) -> None:
    """All resamples of 4 rows, and of the seeds, whose weights are spread by sqrt(m / (m - 1)) around 1/m."""
    rng = np.random.default_rng(sum(seeds))
    gold = np.array([0, 1, 1, 0])
    answers = [[rng.integers(0, 2, 4) for _ in range(m)] for m in seeds]
    groups = [
        [Resamples(np.stack([gold, a], axis=1), scoring.Classes("ab", 1)) for a in group] for group in answers
    ]
    drawn = significance.bootstrap(groups, draws=40_000)
    ours = drawn[1]["accuracy"] - drawn[0]["accuracy"]
    every = []
    for rows in product(range(4), repeat=4):
        means = []
        for group in answers:
            m = len(group)
            accuracy = [np.mean([a[i] == gold[i] for i in rows]) for a in group]
            spread = math.sqrt(m / (m - 1)) if m > 1 else 0
            means.append([sum((1 / m + spread * (picked.count(k) / m - 1 / m)) * accuracy[k] for k in range(m))
                          for picked in product(range(m), repeat=m)])  # fmt: skip
        every += [b - a for a in means[0] for b in means[1]]
    assert distribution(ours) == pytest.approx(distribution(np.array(every)), abs=0.015)
    assert ours.mean() == pytest.approx(np.mean(every), abs=0.01)


def test_interval_is_scipys() -> None:
    """The percentile interval of a paired bootstrap of 300 rows, of accuracy."""
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 3, 300)
    answers = [np.where(rng.random(300) < share, gold, rng.integers(0, 3, 300)) for share in (0.6, 0.7)]
    drawn = significance.bootstrap(
        [[Resamples(np.stack([gold, a], axis=1), scoring.Classes("abc", 1))] for a in answers], draws=9999
    )
    found = bootstrap.percentiles(drawn[1]["accuracy"] - drawn[0]["accuracy"])
    theirs = stats.bootstrap([answers[0] == gold, answers[1] == gold], lambda a, b, axis: b.mean(axis) - a.mean(axis),
                             paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0))  # fmt: skip
    assert found == pytest.approx(
        (theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.005
    )


scores = st.lists(st.integers(0, 8), min_size=2, max_size=4).map(lambda values: [v / 8 for v in values])


@settings(deadline=None, max_examples=40)
@given(scores, scores)
def test_permutation_equals_scipys_of_the_absolute_difference(
    first: list[float], second: list[float]
) -> None:
    theirs = stats.permutation_test((first, second), lambda a, b: round(abs(np.mean(a) - np.mean(b)), 9),
                                    vectorized=False, alternative="greater", n_resamples=np.inf)  # fmt: skip
    assert significance.permutation(first, second) == pytest.approx(theirs.pvalue)
    assert significance.permutation(first[:1], second) * (len(second) + 1) >= 1  # one run against a group


def test_drawn_permutation_is_near_the_exact_p() -> None:
    first, second = (
        [v / 100 for v in values] for values in ((82, 85, 79, 88, 84, 81, 86), (86, 89, 83, 90, 85, 91, 84))
    )
    exact = significance.permutation(first, second, draws=5000)
    assert (
        significance.permutation(first, second, draws=3000) == pytest.approx(exact, abs=0.02)
        and 0.01 < exact < 0.2
    )


@settings(deadline=None)
@given(scores, scores)
def test_welch_and_hedges_by_hand(first: list[float], second: list[float]) -> None:
    a, b = (np.var(side, ddof=1) / len(side) for side in (first, second))
    difference = np.mean(second) - np.mean(first)
    if a + b == 0:
        assert significance.welch(first, second) == (difference, difference) and not math.isfinite(
            significance.hedges(first, second)
        )
        return
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    assert significance.welch(first, second) == pytest.approx((difference - half, difference + half))
    n, m = len(first), len(second)
    pooled = math.sqrt(((n - 1) * np.var(first, ddof=1) + (m - 1) * np.var(second, ddof=1)) / (n + m - 2))
    assert significance.hedges(first, second) == pytest.approx(
        difference / pooled * (1 - 3 / (4 * (n + m) - 9))
    )


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 0.99))
def test_holm_rejects_what_its_steps_reject(p: list[float], level: float) -> None:
    """Step down: the smallest at level/m, the next at level/(m - 1), and so on until one is not rejected."""
    rejected: set[int] = set()
    for step, i in enumerate(np.argsort(p, kind="stable").tolist()):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(significance.holm(p)) if value <= level} == rejected
