"""What is measured of vectors, as the benchmarks that publish numbers do it: pure functions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bert_ft.config.frozen import DISTANCES, Measure


def similarity(left: np.ndarray, right: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Correlations of the nearness of pairs with their scores.

    Args:
        left, right: (N, D) vectors of the texts of each pair. scores: (N,).
    Returns:
        `cosine_spearman` and the like; nan where one side has no spread.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import pairwise

    out = {}
    for distance in DISTANCES:
        nearness = -getattr(pairwise, f"paired_{distance}_distances")(left, right)
        for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no spread: nan says it
                out[f"{distance}_{name}"] = float(correlation(scores, nearness).statistic)
    return out


def draws(labels: np.ndarray, measure: Measure) -> list[np.ndarray]:
    """The training rows of each draw: the first so many of each label in a shuffled order of all rows, which
    is that of the draw before, shuffled once more.

    Args:
        labels: (N,) ids.
    Returns:
        (n,) row numbers a draw, in the order in which they were drawn.
    """
    order = np.arange(len(labels))
    state = np.random.RandomState(measure.random_state)  # the generator that published draws were made with
    rows = []
    for _ in range(measure.draws):
        if measure.each_draw == "reset":
            state = np.random.RandomState(measure.random_state)
        state.shuffle(order)
        taken = [order[labels[order] == label][: measure.rows_per_label] for label in np.unique(labels)]
        rows.append(order[np.isin(order, np.concatenate(taken))])
    return rows


class Probed(NamedTuple):
    """Of one classifier.

    Attributes:
        predictions: of each set, (N,) label ids. converged: whether it ended before its last iteration.
    """

    predictions: dict[str, np.ndarray]
    converged: bool


def probe(
    vectors: np.ndarray, labels: Sequence[int] | np.ndarray, sets: Mapping[str, np.ndarray], measure: Measure
) -> Probed:
    """Fits a logistic regression to (n, D) vectors with (n,) label ids, and predicts those of each set's
    (N, D) vectors."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(
        C=measure.strength, max_iter=measure.max_iter, random_state=measure.random_state
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier.fit(vectors, labels)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return Probed({name: classifier.predict(found) for name, found in sets.items()}, converged)
