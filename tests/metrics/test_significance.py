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

from bert_ft.metrics import bootstrap, classification, multilabel, scoring, significance, two_means
from bert_ft.metrics.bootstrap import Groups, Resamples

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


def of_two_labels(rng: np.random.Generator, n: int, right: float, gold: np.ndarray) -> np.ndarray:
    return np.stack([gold, np.where(rng.random(n) < right, gold, 1 - gold)], axis=1)


def test_interval_of_a_difference_is_scipys() -> None:
    """The percentile interval of a paired bootstrap of 300 rows, of accuracy; with half a row won and half a row lost."""
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 3, 300)
    answers = [np.where(rng.random(300) < share, gold, rng.integers(0, 3, 300)) for share in (0.6, 0.7)]
    sides = [[Resamples(np.stack([gold, a], axis=1), scoring.Classes("abc", 1))] for a in answers]
    drawn = significance.differences(sides[0], sides[1], draws=9999)["accuracy"]
    theirs = stats.bootstrap([answers[0] == gold, answers[1] == gold], lambda a, b, axis: b.mean(axis) - a.mean(axis),
                             paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0))  # fmt: skip
    assert bootstrap.percentiles(drawn) == pytest.approx(tuple(theirs.confidence_interval), abs=0.007)
    p, q = (np.mean(a == gold) for a in answers)
    both = np.mean((answers[1] == gold).astype(int) - (answers[0] == gold).astype(int) == 0)
    variance = ((1 - both) - (q - p) ** 2) / 300
    assert drawn.mean() == pytest.approx(q - p, abs=0.003) and drawn.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (1, 4), (1, 1)])
def test_what_seeds_add(sizes: tuple[int, int]) -> None:
    """Welch's interval around the difference; of one seed, that of a new value like the others (a prediction interval)."""
    rng = np.random.default_rng(0)
    first, second = ([float(v) for v in rng.normal(0.8, 0.02, m)] for m in sizes)
    drawn = significance.of_seeds(first, second, 200_000, rng)
    ends = np.quantile(drawn, [0.025, 0.975])
    if sizes == (1, 1):
        assert not drawn.any()
        return
    if sizes == (1, 4):
        half = stats.t.ppf(0.975, 3) * np.std(second, ddof=1) * math.sqrt(1 + 1 / 4)
    else:
        theirs = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
        half = (theirs.high - theirs.low) / 2
    assert ends == pytest.approx([-half, half], rel=0.03)


@pytest.mark.parametrize("m", [3, *[pytest.param(m, marks=pytest.mark.slow) for m in (5, 10)]])
def test_equal_seeds_have_no_spread(m: int) -> None:
    """The mean of equal numbers is off by rounding: over a thousand values no interval, no effect size."""
    n = np.arange(2, 1002)
    for value in (n // 3 / n).tolist():
        equal, other = [value] * m, [value + 0.25] * m
        assert significance.deviation(equal) == 0
        assert all(map(math.isnan, significance.welch(equal, other)))
        assert math.isnan(significance.hedges(equal, other))
        assert not significance.of_seeds(equal, other, 3, np.random.default_rng(0)).any()
        if round(value * 1000) % 25:  # the rest of some values says it
            continue
        spread = [value, value + 0.01, value - 0.01]
        theirs = stats.ttest_ind(spread, equal[:1] * m, equal_var=False).confidence_interval()
        wider = two_means.widening(m - 1, 2, 0.95)
        middle, half = (theirs.low + theirs.high) / 2, (theirs.high - theirs.low) / 2 * wider
        assert significance.welch(equal, spread) == pytest.approx((middle - half, middle + half))
        assert math.isfinite(significance.hedges(equal, spread))
        # all ways to divide them give one difference, up to rounding
        assert m > 5 or significance.permutation(equal, equal) == 1


@pytest.mark.parametrize("number", [4, 7])
def test_groups_are_swapped_whole(number: int) -> None:
    """Against all ways to swap the documents of two systems, one by one."""
    rng = np.random.default_rng(number)
    of = np.sort(rng.integers(0, number, 40))
    of = np.unique(of, return_inverse=True)[1]
    gold = rng.integers(0, 2, 40)
    sides = [of_two_labels(rng, 40, right, gold) for right in (0.6, 0.8)]
    groups = Groups("documents", of)
    ours = significance.randomisation(*(Resamples(side, scoring.Classes("ab", 1), groups) for side in sides))
    seen = of_classes_of_two(sides)
    hits = dict.fromkeys(seen, 0)
    places = range(int(of.max()) + 1)
    for swap in product((False, True), repeat=len(places)):
        rows = np.array(swap)[of]
        swapped = [np.where(rows[:, None], sides[1 - i], sides[i]) for i in (0, 1)]
        for name, value in of_classes_of_two(swapped).items():
            hits[name] += abs(value) >= abs(seen[name]) - 1e-9
    assert {name: ours[name] for name in hits} == {name: k / 2 ** len(places) for name, k in hits.items()}


def of_classes_of_two(sides: list[np.ndarray]) -> dict[str, float]:
    before, after = (of_classes(side) for side in sides)
    return {name: after[name] - before[name] for name in before}


def test_interval_of_a_difference_by_groups() -> None:
    """The jackknife of the difference, one document left out after the other; Student's t as wide."""
    rng = np.random.default_rng(8)
    of = np.repeat(np.arange(30), rng.integers(3, 30, 30))
    gold = rng.integers(0, 2, len(of))
    sides = [of_two_labels(rng, len(of), right, gold) for right in (0.7, 0.8)]
    first, second = ([Resamples(side, scoring.Classes("ab", 1), Groups("documents", of))] for side in sides)
    drawn = significance.differences(first, second, 100_000)["accuracy"]
    right = [side[:, 0] == side[:, 1] for side in sides]
    each = np.array([right[1][of != i].mean() - right[0][of != i].mean() for i in range(30)])
    error = math.sqrt(29 / 30 * ((each - each.mean()) ** 2).sum())
    sizes = np.bincount(of)
    half = stats.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1) * error
    middle = right[1].mean() - right[0].mean()
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([middle - half, middle + half], abs=0.003)


def test_no_interval_of_a_difference() -> None:
    rng = np.random.default_rng(9)
    gold = rng.integers(0, 2, 100)
    side = of_two_labels(rng, 100, 0.8, gold)
    other = side.copy()
    other[:5, 1] = 1 - other[:5, 1]
    names = ["accuracy", "f1"]

    def unfit(a: np.ndarray, b: np.ndarray, groups: Groups | None = None) -> dict[str, str]:
        first, second = ([Resamples(each, scoring.Classes("ab", 1), groups)] for each in (a, b))
        return significance.unfit(first, second, names)

    assert unfit(side, side) == dict.fromkeys(names, "no row differs")
    assert unfit(side[:6], other[:6]) == dict.fromkeys(names, "6 rows, fewer than 10")
    documents = Groups("documents", np.arange(100) // 5)
    assert unfit(side, other, documents) == dict.fromkeys(names, "1 of 20 documents differ, fewer than 5")
    assert not unfit(side, other)


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


@settings(deadline=None, max_examples=25)
@given(scores, scores)
def test_welch_and_hedges_by_hand(first: list[float], second: list[float]) -> None:
    a, b = (np.var(side, ddof=1) / len(side) for side in (first, second))
    difference = np.mean(second) - np.mean(first)
    if a + b == 0:
        assert all(map(math.isnan, (*significance.welch(first, second), significance.hedges(first, second))))
        return
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    half *= two_means.widening(len(first) - 1, len(second) - 1, 0.95)
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
