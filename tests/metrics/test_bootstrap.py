"""Metrics of resamples equal those of the drawn rows, one resample after the other, by the metrics that results hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bert_ft.metrics import bootstrap, classification, entities, multilabel, scoring
from bert_ft.metrics.bootstrap import Resamples

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


@given(ids_and_draws(columns=8, most=4), st.sampled_from(entities.MODES))
def test_entities(made: tuple[np.ndarray, np.ndarray], mode: str) -> None:
    """Sentences of four words; what a sentence counts is what its own score counts, so that sums are the whole's."""
    from bert_ft.families.ner.report import Entities

    keys, drawn = made
    names = ["O", "B-A", "I-A", "B-B", "I-B"]

    def kinds(sentences: np.ndarray) -> Entities:
        one = Entities.__new__(Entities)
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


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_intervals_are_those_of_drawn_rows(seed: int) -> None:
    """Against resamples made row by row: the ends of both intervals differ by what 1,000 draws leave to chance."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, 150)
    keys = np.stack([gold, np.where(rng.random(150) < 0.75, gold, 1 - gold)], axis=1)
    ours = Resamples(keys, scoring.Classes("ab", 1)).intervals(seed=seed)
    drawn = keys[rng.integers(0, 150, (1000, 150))]
    accuracy = np.percentile((drawn[..., 0] == drawn[..., 1]).mean(1), [2.5, 97.5])
    both, one = (drawn.sum(2) == 2).sum(1), drawn.sum((1, 2))
    f1 = np.percentile(2 * both / one, [2.5, 97.5])
    assert ours["accuracy"] == pytest.approx(accuracy, abs=0.02) and ours["f1"] == pytest.approx(
        f1, abs=0.025
    )


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
