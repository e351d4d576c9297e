"""Metrics of rows with several labels, or none, and the thresholds that make labels of probabilities.

Predictions and labels are (N, C) arrays of 0 and 1, a column a label. The values are those of scikit-learn on
such indicator matrices (``zero_division=0``); averages go over all C labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bert_ft.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike


NAMES = (
    "accuracy", "f1_micro", "f1_macro", "f1_weighted",
    "precision_micro", "precision_macro", "recall_micro", "recall_macro",
)  # fmt: skip
"""`accuracy` is subset accuracy, the share of rows whose whole set is right, as scikit-learn's
``accuracy_score``."""

TUNED = tuple(f"{name}_tuned" for name in NAMES)
"""A task's `f1_micro` is at the threshold 0.5, as the field reports it; `f1_micro_tuned` is at the thresholds
that were tuned on the validation rows (and so leans high on these)."""


def compute(names: Iterable[str], predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The metrics `names`, in that order: name -> value.

    Raises:
        InputError: an unknown name. ValueError: no rows, shapes that differ, values beside 0 and 1.
    """
    import numpy as np

    p, y = np.asarray(predictions), np.asarray(labels)
    if p.ndim != 2 or p.shape != y.shape or not p.size:
        raise ValueError(f"predictions {p.shape} and labels {y.shape} must be two matrices, rows by labels")
    if not (np.isin(p, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise ValueError("multi-label metrics take 0 and 1: not names, logits, probabilities")
    p, y = p.astype(bool), y.astype(bool)
    hits, predicted, gold = (p & y).sum(0), p.sum(0), y.sum(0)
    rates: dict[str, Any] = {
        "precision": lambda h, f, g: h / np.maximum(f, 1),
        "recall": lambda h, f, g: h / np.maximum(g, 1),
        "f1": lambda h, f, g: 2 * h / np.maximum(f + g, 1),
    }
    result = {}
    for name in names:
        if name not in NAMES:
            raise InputError(f"unknown metric '{name}'", remedy=did_you_mean(name, NAMES))
        rate, _, average = name.partition("_")
        if rate == "accuracy":
            value = (p == y).all(1).mean()
        elif average == "micro":
            value = rates[rate](hits.sum(), predicted.sum(), gold.sum())
        else:
            each = rates[rate](hits, predicted, gold)
            value = each.mean() if average == "macro" else (each * gold).sum() / max(gold.sum(), 1)
        result[name] = float(value)
    return result


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The threshold of each column with the best F1: a label is predicted where p > threshold.

    It lies half-way between two probabilities; of several with the same F1 it is the highest; a column
    without a positive row keeps 0.5.

    Args:
        probabilities: (N, C). labels: (N, C) of 0 and 1.
    Returns:
        (C,) float64.
    """
    import numpy as np

    order = np.argsort(-probabilities, axis=0, kind="stable")
    p = np.take_along_axis(probabilities, order, 0).astype(np.float64)
    hits = np.take_along_axis(labels.astype(np.int64), order, 0).cumsum(0)
    below = np.concatenate([p[1:], np.zeros_like(p[:1])])
    f1 = 2 * hits / (np.arange(1, len(p) + 1)[:, None] + hits[-1])
    f1[p <= below] = -1  # equal probabilities stay together
    best = f1.argmax(0)[None]
    above = np.take_along_axis(p, best, 0)[0]
    below = np.take_along_axis(below, best, 0)[0]
    middle = below + (above - below) / 2
    middle = np.where(middle < above, middle, below)  # two neighbouring floats have nothing between them
    return np.where(hits[-1] > 0, middle, 0.5)
