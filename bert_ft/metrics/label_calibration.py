"""Calibration a label at a time, by Platt's sigmoid or by isotonic regression, as scikit-learn's
`CalibratedClassifierCV` does it: each label against the others, of several labels a row by itself, of one
label a row divided by their sum.

A label's score is its log odds: with two labels the difference of their logits, of several labels a row the
label's logit. What is fitted is plain numbers, so that it is kept in a model's config: a slope and an
intercept (Platt 1999, with his smoothed targets), or the corners of a line through scores and probabilities.

Unlike a temperature either can change which label is the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bert_ft.metrics.calibration import FOLDS, TINY

Method = Literal["platt", "isotonic"]
Fitted = list[Any]
"""Of platt [slope, intercept]; of isotonic [scores, probabilities], equally many, both ascending."""

METHODS: tuple[Method, ...] = ("platt", "isotonic")
LEAST: dict[Method, int] = {"platt": 200, "isotonic": 1000}
"""Rows from which they are fitted: the steps of isotonic regression follow fewer rows too closely."""
STEPS = 100
"""Steps to a standard deviation of the scores that isotonic regression is fitted to: none is steeper, so that
what another machine or batch rounds a score by moves a probability by little."""
STEEPEST = 1000.0
"""Slopes of Platt's sigmoid beyond it are of scores that hardly differ: their rounding would show."""
FARTHEST = 36.0
"""Log odds of a label by itself beyond it count as this far: float64 has no 1 - p nearer to 0."""
LEAST_EACH = 10  # rows with a label, and rows without it, from which it is fitted


def valid(method: Method, fitted: Any) -> bool:
    """Whether a value out of somebody's file is a calibrator."""
    lists = [fitted] if method == "platt" else fitted
    if not isinstance(fitted, list) or len(fitted) != 2 or not all(isinstance(each, list) for each in lists):
        return False
    numbers = [value for each in lists for value in each]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        return False
    if method == "platt":
        return bool(fitted[0] > 0)
    scores, shares = fitted
    rising = all(list(each) == sorted(each) for each in lists)
    return bool(rising and 0 < len(scores) == len(shares) and shares[0] >= 0 and shares[-1] <= 1)


def log_odds(probabilities: np.ndarray, several: bool) -> np.ndarray:
    """(N, C) log p / (1 - p) of every label; of one label a row 1 - p is the sum of the others, to full
    precision where p is nearly 1."""
    p = np.asarray(probabilities, np.float64)
    if several:
        farthest = FARTHEST
        others = 1 - p
    else:
        farthest = -math.log(TINY)
        others = np.zeros_like(p)
        others[:, 1:] += np.cumsum(p[:, :-1], axis=1)
        others[:, :-1] += np.cumsum(p[:, :0:-1], axis=1)[:, ::-1]
    odds: np.ndarray = np.log(np.maximum(p, TINY)) - np.log(np.maximum(others, TINY))
    bounded: np.ndarray = np.clip(odds, -farthest, farthest)
    return bounded


def fit(method: Method, odds: np.ndarray, truth: np.ndarray) -> Fitted | None:
    """One label's calibrator; None where too few rows have the label, or lack it, where a higher score does
    not make it likelier, or where scores differ by too little for a sigmoid.

    Args:
        odds: (N,) its scores. truth: (N,) how far it holds, 0 to 1.
    """
    if min(truth.sum(), (1 - truth).sum()) < LEAST_EACH:
        return None
    found = _platt(odds, truth) if method == "platt" else _isotonic(odds, truth)
    if found is None:
        return None
    rises = 0 < found[0] <= STEEPEST if method == "platt" else found[1][-1] > found[1][0]
    return found if rises else None


def _platt(odds: np.ndarray, truth: np.ndarray) -> Fitted | None:
    """Slope and intercept; None where the scores are too far apart to be told from certain ones."""
    from scipy.optimize import minimize
    from scipy.special import expit

    yes, no = truth.sum(), (1 - truth).sum()
    target = truth * (yes + 1) / (yes + 2) + (1 - truth) / (no + 2)
    unit = max(1.0, float(abs(odds).max()))
    x = np.stack([odds / unit, np.ones_like(odds)], axis=1)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w
        return float((np.logaddexp(0, z) - target * z).mean()), x.T @ (expit(z) - target) / len(x)

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(x @ w)
        second: np.ndarray = (x.T * (p * (1 - p))) @ x / len(x)
        return second

    try:
        found = minimize(
            loss, [unit, 0.0], jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10}
        )
    except (ValueError, np.linalg.LinAlgError):  # a curvature of zeros, at probabilities of 0 and 1
        return None
    return [float(found.x[0] / unit), float(found.x[1])]


def _isotonic(odds: np.ndarray, truth: np.ndarray) -> Fitted:
    from sklearn.isotonic import IsotonicRegression

    unit = max(float(odds.std()) / STEPS, TINY)
    steps = np.round(odds / unit) * unit
    found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(steps, truth)
    return [found.X_thresholds_.tolist(), found.y_thresholds_.tolist()]


def probability(method: Method, fitted: Fitted, odds: np.ndarray) -> np.ndarray:
    """(N,) how likely a label is by its calibrator; beyond the scores it was fitted to an isotonic one is
    level."""
    if method == "isotonic":
        return np.asarray(np.interp(odds, *fitted))
    slope, intercept = fitted
    return np.asarray((1 + np.tanh((slope * odds + intercept) / 2)) / 2)  # the sigmoid, without overflow


def calibrated(
    method: Method, probabilities: np.ndarray, fitted: Sequence[Fitted | None], several: bool
) -> np.ndarray:
    """(N, C) probabilities by a calibrator each; a label with None keeps its own. Of one label a row they
    are divided by their sum, and all equal where that is 0."""
    odds = log_odds(probabilities, several)
    columns = [
        probabilities[:, i] if one is None else probability(method, one, odds[:, i])
        for i, one in enumerate(fitted)
    ]
    result = np.stack(columns, axis=1)
    if several:
        return result
    total = result.sum(axis=1, keepdims=True)
    return np.where(total > 0, result / np.where(total > 0, total, 1), 1 / result.shape[1])


def fits(method: Method, probabilities: np.ndarray, truth: np.ndarray, several: bool) -> list[Fitted | None]:
    """A calibrator for every label, or None; `truth`: (N, C), how far each holds."""
    odds = log_odds(probabilities, several)
    return [fit(method, one, each) for one, each in zip(odds.T, truth.T, strict=True)]


def cross_fitted(
    method: Method, probabilities: np.ndarray, truth: np.ndarray, several: bool, seed: int = 0
) -> np.ndarray:
    """(N, C) each row by calibrators of rows without it, in `FOLDS` folds."""
    fold = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
    result = probabilities.copy()
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        found = fits(method, probabilities[rest], truth[rest], several)
        result[held] = calibrated(method, probabilities[held], found, several)
    return result
