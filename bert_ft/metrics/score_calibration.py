"""Calibration of answers that are no labels: entities, and answers to questions. Each has a score, which
should be how often such answers are right. It goes through Platt's sigmoid, a slope and an intercept of its
log odds, or through isotonic regression: both only rise, the answers are chosen before, and none changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_ft.metrics import calibration, label_calibration
from bert_ft.metrics.calibration import FOLDS, TINY, Measures
from bert_ft.metrics.label_calibration import METHODS, Fitted, Method

END = 1e-9  # scores nearer to 0 or 1 count as this near: one of exactly 1 would outweigh all others


def log_odds(scores: np.ndarray) -> np.ndarray:
    """(A,) log s / (1 - s)."""
    inner = np.clip(np.asarray(scores, np.float64), END, 1 - END)
    odds: np.ndarray = np.log(inner) - np.log1p(-inner)
    return odds


def fit(method: Method, scores: np.ndarray, right: np.ndarray) -> Fitted | None:
    """What calibrates scores; None where it can't be fitted, as `label_calibration.fit` says it.

    Args:
        scores: (A,) of answers. right: (A,) bool.
    """
    return label_calibration.fit(method, log_odds(scores), right.astype(np.float64))


def calibrated(kept: Mapping[str, Any], scores: np.ndarray) -> np.ndarray:
    """(A,) scores by what a model keeps, method -> fitted; themselves where that is nothing."""
    for method in METHODS:
        if method in kept:
            return label_calibration.probability(method, kept[method], log_odds(scores))
    return scores


def cross_fitted(method: Method, scores: np.ndarray, right: np.ndarray, seed: int = 0) -> np.ndarray:
    """(A,) the score of each answer by what is fitted to answers without it, in `FOLDS` folds."""
    fold = np.random.default_rng(seed).permutation(len(right)) % FOLDS
    result = scores.copy()
    for number in range(FOLDS):
        held = fold == number
        found = fit(method, scores[~held], right[~held])
        if found is not None:
            result[held] = calibrated({method: found}, scores[held])
    return result


def measures(scores: np.ndarray, right: np.ndarray, seed: int = 0) -> Measures:
    """The measures of answers; Brier's is the mean squared distance of a score from 1 or 0."""
    truth = right.astype(np.float64)
    likelihood = np.where(right, scores, 1 - scores)
    return Measures(
        nll=float(-np.log(np.maximum(likelihood, TINY)).mean()),
        brier=float(np.square(scores - truth).mean()),
        classwise=None,
        **calibration.errors(scores, truth, seed),
    )
