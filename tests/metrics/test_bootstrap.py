"""Metrics of resamples equal those of the drawn rows, one resample after the other, by the metrics that results hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bert_ft.metrics import bootstrap, classification, entities, multilabel, scoring
from bert_ft.metrics.bootstrap import Groups, Interval, Resamples

Draws = Callable[..., Any]


@st.composite
def ids_and_draws(
    draw: Draws, rows: int = 12, columns: int = 2, most: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """(N, columns) small whole numbers, and the rows of a resample."""
    n = draw(st.integers(2, rows))
    keys = draw(arrays(np.int64, (n, columns), elements=st.integers(0, most)))
    return keys, draw(arrays(np.int64, n, elements=st.integers(0, n - 1)))


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True, abs=1e-12)


@settings(deadline=None)  # the first example imports scikit-learn and scipy
@given(ids_and_draws())
def test_classes(made: tuple[np.ndarray, np.ndarray]) -> None:
    keys, drawn = made
    gold, found = keys[drawn].T
    names = [name for name in classification.CLASS_METRICS if name not in ("f1", "precision", "recall")]
    same(Resamples(keys, scoring.Classes("abcd", 1)).of(drawn), classification.compute(names, found, gold))
    two = Resamples(keys % 2, scoring.Classes("ab", 0)).of(drawn)
    if len(set((keys % 2)[drawn].ravel())) == 2:  # scikit-learn asks for both
        same(two, classification.compute(["f1", "precision", "recall"], found % 2, gold % 2, positive=0))


@settings(deadline=None)  # the first example imports scikit-learn and scipy
@given(ids_and_draws())
def test_numbers(made: tuple[np.ndarray, np.ndarray]) -> None:
    keys, drawn = made
    gold, found = (keys[drawn] / 7).T
    expected = classification.compute(list(classification.REGRESSION_METRICS), found, gold)
    same(Resamples(keys / 7, scoring.Numbers()).of(drawn), expected)


@given(ids_and_draws(columns=9, most=1))
def test_label_sets(made: tuple[np.ndarray, np.ndarray]) -> None:
    keys, drawn = made
    gold, *found = np.split(keys[drawn], 3, axis=1)
    ours = Resamples(keys, scoring.LabelSets("abc")).of(drawn)
    for suffix, each in zip(("", "_tuned"), found, strict=True):
        expected = multilabel.compute(multilabel.NAMES, each, gold)
        same(ours, {name + suffix: value for name, value in expected.items()})


@settings(deadline=None)
@given(ids_and_draws(columns=8, most=4), st.sampled_from(entities.MODES))
def test_entities(made: tuple[np.ndarray, np.ndarray], mode: str) -> None:
    """Sentences of four words; what a sentence counts is what its own score counts, so that sums are the whole's."""
    from bert_ft.families.ner.report import Entities

    keys, drawn = made
    names = ["O", "B-A", "I-A", "B-B", "I-B"]

    def kinds(sentences: np.ndarray) -> Entities:
        one = Entities.__new__(Entities)
        one.clusters = None
        one.tags = (
            sentences[:, :4].ravel(),
            sentences[:, 4:].ravel(),
            np.arange(0, 4 * len(sentences) + 1, 4),
            names,
        )
        one.missed = [[]] * len(sentences)
        one.task = type("Task", (), {"metric": type("Metric", (), {"mode": mode})})  # type: ignore[assignment]
        return one

    whole = kinds(keys[drawn])
    expected = entities.score(*whole.tags, mode)[""]
    expected.pop("number")
    same(kinds(keys).resamples.of(drawn), expected)


def of_two_labels(rng: np.random.Generator, n: int, right: float) -> np.ndarray:
    gold = rng.integers(0, 2, n)
    return np.stack([gold, np.where(rng.random(n) < right, gold, 1 - gold)], axis=1)


def interval(found: Interval | str) -> tuple[float, float]:
    assert isinstance(found, Interval), found
    return found[:2]


def clopper_pearson(hits: int, of: int) -> tuple[float, float]:
    found = stats.binomtest(hits, of).proportion_ci(0.95, "exact")
    return found.low, found.high


@given(st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=50)
def test_exact_intervals(of: int, data: Any) -> None:
    hits = data.draw(st.sampled_from([0, 1, of // 2, of - 1, of]))
    assert bootstrap.exact(hits, of) == pytest.approx(clopper_pearson(hits, of), abs=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_intervals_of_rows(seed: int) -> None:
    """Shares have scipy's exact interval; the rest is near scipy's BCa of the same rows."""
    keys = of_two_labels(np.random.default_rng(seed), 150, 0.75)
    ours = Resamples(keys, scoring.Classes("ab", 1)).intervals(seed=seed)
    k = int((keys[:, 0] == keys[:, 1]).sum())
    exact = pytest.approx(clopper_pearson(k, 150))
    assert interval(ours["accuracy"]) == exact and interval(ours["f1_micro"]) == exact
    predicted = keys[keys[:, 1] == 1, 0]
    hits, n = int(predicted.sum()), len(predicted)
    assert interval(ours["precision"]) == pytest.approx(clopper_pearson(hits, n))

    def f1(gold: np.ndarray, said: np.ndarray, axis: int = -1) -> np.ndarray:
        return 2 * (gold & said).sum(axis) / (gold.sum(axis) + said.sum(axis))

    rng = np.random.default_rng(0)
    theirs = stats.bootstrap(tuple(keys.T), f1, paired=True, vectorized=True, n_resamples=2000, rng=rng)
    assert interval(ours["f1"]) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


@pytest.mark.parametrize("n", [12, 50])
def test_no_error_is_no_certainty(n: int) -> None:
    """Of n right rows the share's lower end is .025 ** (1 / n); every other metric's is below 1 too."""
    found = Resamples(np.repeat([[0, 0], [1, 1]], n // 2, axis=0), scoring.Classes("ab", 1)).intervals()
    assert interval(found["accuracy"]) == pytest.approx((0.025 ** (1 / n), 1))
    for name in ("f1_macro", "balanced_accuracy", "matthews_correlation", "f1"):
        if n == 12:
            assert found[name] == ("6 rows of 'b'" if name == "f1" else "6 rows of 'a'") + ", fewer than 20"
        else:
            low, high = interval(found[name])
            assert 0.75 < low < 0.97 and high == 1


def test_the_bayesian_bootstrap_has_its_moments() -> None:
    """The mean of weighted values has the mean and variance of a Dirichlet distribution, worked by hand; with its more
    uneven weights the variance is that of the mean times (t / normal) squared."""
    values = np.array([0.0, 1.0, 1.0, 3.0, 0.5, 2.0, 2.0, 2.0])
    n = len(values)
    drawn = np.concatenate(list(bootstrap.drawn(np.ones(n), np.zeros(n), 40_000, np.random.default_rng(1))))
    assert drawn.sum(axis=1) == pytest.approx(n)
    means = drawn @ values / n
    ratio = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.var() == pytest.approx(values.var(ddof=1) / n * ratio**2, rel=0.03)


def test_correlations_of_few_pairs() -> None:
    """Two pairs say nothing; of normal numbers Pearson's interval is near Fisher's."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    keys = np.stack([x, 0.8 * x + 0.6 * rng.normal(size=400)], axis=1)
    assert set(Resamples(keys[:2], scoring.Numbers()).intervals().values()) == {"2 rows, fewer than 50"}
    found = Resamples(keys, scoring.Numbers()).intervals()
    theirs = stats.pearsonr(*keys.T).confidence_interval()
    assert interval(found["pearson"]) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    same = Resamples(keys[:, [0, 0]], scoring.Numbers()).intervals()
    assert same["pearson"] == same["mean_absolute_error"] == "no row is right, or every one"


def test_groups_by_hand() -> None:
    """The jackknife of a share over documents, one left out after the other, on the log-odds scale; the order of the rows
    does not matter, and rows that repeat each other are no more certain than one of them."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(5, 40, 24)
    of = np.repeat(np.arange(24), sizes)
    right = rng.random(len(of)) < rng.beta(8, 2, 24)[of]
    keys = np.stack([np.ones(len(of), int), right.astype(int)], axis=1)
    order = rng.permutation(len(of))
    found, mixed, twice = (
        Resamples(k, scoring.Classes("ab", 1), Groups("documents", g)).intervals()["accuracy"]
        for k, g in ((keys, of), (keys[order], of[order]), (np.repeat(keys, 2, axis=0), np.repeat(of, 2)))
    )
    each = np.array([right[of != i].mean() for i in range(24)])
    odds = np.log(each / (1 - each))
    error = math.sqrt(23 / 24 * ((odds - odds.mean()) ** 2).sum())
    alike = sizes.sum() ** 2 / (sizes**2).sum()
    p = right.mean()
    ends = math.log(p / (1 - p)) + np.array([-1, 1]) * stats.t.ppf(0.975, alike - 1) * error
    assert interval(found) == pytest.approx(1 / (1 + np.exp(-ends)))
    assert interval(mixed) == pytest.approx(interval(found)) and interval(twice) == pytest.approx(
        interval(found)
    )
    alone = Resamples(keys, scoring.Classes("ab", 1)).intervals()["accuracy"]
    assert np.diff(interval(found)) > 1.2 * np.diff(interval(alone))


def test_groups_that_tell_too_little() -> None:
    keys = np.ones((600, 2), int)
    keys[:30, 1] = 0  # all errors in three of the documents
    of = np.arange(600) // 10

    def accuracy(groups: np.ndarray) -> Interval | str:
        return Resamples(keys, scoring.Classes("ab", 1), Groups("documents", groups)).intervals()["accuracy"]

    assert accuracy(of) == "3 of 60 documents have an error, fewer than 5"
    assert accuracy(of % 7) == "7 documents, fewer than 10"
    many = Resamples(
        np.tile(keys, (10, 1)), scoring.Classes("ab", 1), Groups("contexts", np.arange(6000) // 3)
    )
    low, high = interval(many.intervals()["accuracy"])  # 2,000 groups, in blocks
    assert low < 0.95 < high and high - low < 0.03


@pytest.mark.parametrize(("n", "right"), [(60, 0.99), (150, 0.75)])
def test_intervals_cover(n: int, right: float) -> None:
    """A small part of benchmarks/simulations: of 300 sets 92 to 99 % of the intervals have the truth in them."""
    rng = np.random.default_rng(n)
    names = ("accuracy", "f1", "f1_macro", "matthews_correlation")
    truth = dict(zip(names, (right, right, right, 2 * right - 1), strict=True))
    inside = dict.fromkeys(names, 0)
    for _ in range(300):
        found = Resamples(of_two_labels(rng, n, right), scoring.Classes("ab", 1)).intervals()
        for name in names:
            inside[name] += (
                not isinstance(found[name], Interval) or found[name][0] <= truth[name] <= found[name][1]
            )
    assert all(count >= 0.92 * 300 for count in inside.values()), inside


@given(arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 30)), st.integers(1, 6))
def test_every_row_is_in_one_bin(values: np.ndarray, most: int) -> None:
    parts = bootstrap.bins(values, most)
    assert (
        sorted(np.concatenate([rows for _, rows in parts])) == list(range(len(values))) and len(parts) <= most
    )
    for name, rows in parts:
        low, _, high = name.partition(" to ")
        assert (
            int(low) <= values[rows].min() and values[rows].max() <= int(high or low) if len(rows) else True
        )
