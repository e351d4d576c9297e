"""Whether probabilities mean what they say: measures of calibration, and temperatures that mend it.

A model that says 0.9 should be right in nine of ten such rows. Fine-tuned ones say more than that (Guo et
al. 2017, "On Calibration of Modern Neural Networks"): one number that divides all logits, fitted to rows
that the model was not trained on, mends most of it and leaves every answer as it is.

Probabilities of one label a row are (N, C), those of several labels (N, C) too, each a binary question; gold
is (N,) label numbers, or (N, C) bool. Where distributions are known in its place they are (N, C) float, and
`several` says which of the two they are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
"""Of equal mass: as many rows in each (Nguyen and O'Connor 2015)."""
LEAST = 200
"""Rows from which a temperature is fitted: of fewer it is mostly chance."""
ENDS = (0.05, 20.0)
"""A temperature beyond these is none: rows that are all told apart sharpen without bound."""
RESAMPLES = 200
DRAWN = 200_000
"""Rows that are drawn one by one; of more, so many groups of rows of about the same confidence."""
FOLDS = 5
TINY = 1e-300


@dataclass(frozen=True)
class Measures:
    """How well probabilities fit what is true.

    Attributes:
        nll: mean negative log likelihood, in nats. brier: mean squared distance from the truth, summed over
            the labels of one-label rows (Brier 1950), the mean over all labels otherwise.
        ece: expected calibration error of the answers given, in `BINS` bins of equal mass.
        low, high: 95 % bootstrap percentile interval of `ece`.
        by_chance: what `ece` would be, on average, were every probability right: it is never 0 on few rows.
        classwise: the same error of every label's own probability, averaged over the labels; None of
            answers that are no labels.
        bins: (mean confidence, share that is right, rows) of each bin.
    """

    nll: float
    brier: float
    ece: float
    low: float
    high: float
    by_chance: float
    classwise: float | None
    bins: list[tuple[float, float, int]]


def measures(
    probabilities: np.ndarray, gold: np.ndarray, seed: int = 0, several: bool | None = None
) -> Measures:
    """The measures of probabilities; bootstrap and chance are drawn by `seed`. Of distributions an answer is
    right as often as they say."""
    several = gold.dtype == bool if several is None else several
    truth = gold if gold.ndim == 2 else np.arange(probabilities.shape[1]) == gold[:, None]
    truth = truth.astype(np.float64)
    if several:
        chosen, right = probabilities.ravel(), truth.ravel()
        confidence = np.maximum(chosen, 1 - chosen)
        right = np.where(chosen > 0.5, right, 1 - right)
    else:
        confidence = probabilities.max(axis=1)
        right = truth[np.arange(len(truth)), probabilities.argmax(axis=1)]
    squares = np.square(probabilities - truth)
    return Measures(
        nll=nll(probabilities, gold, several),
        brier=float(squares.mean() if several else squares.sum(axis=1).mean()),
        classwise=float(
            np.mean([_unsorted_ece(p, t) for p, t in zip(probabilities.T, truth.T, strict=True)])
        ),
        **errors(confidence, right, seed),
    )


def errors(confidence: np.ndarray, right: np.ndarray, seed: int) -> dict[str, Any]:
    """The measures that are of answers alone: `ece`, its ends, what it is by chance, and its bins.

    Args:
        confidence, right: (N,) the probability of each answer, and how far it is right, 0 to 1.
    """
    order = np.argsort(confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    bins = _bins(confidence, right)
    value = _ece(confidence, right)
    random = np.random.default_rng(seed)
    if len(right) > DRAWN:
        each = -(-len(right) // DRAWN)
        confidence, right = (_means(column, each) for column in (confidence, right))
        chance = [_ece(confidence, random.binomial(each, confidence) / each) for _ in range(RESAMPLES)]
    else:
        chance = [_ece(confidence, random.random(len(right)) < confidence) for _ in range(RESAMPLES)]
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.sort(random.integers(len(right), size=len(right)))
        drawn.append(_ece(confidence[rows], right[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "ece": value,
        "low": float(low),
        "high": float(high),
        "by_chance": float(np.mean(chance)),
        "bins": bins,
    }


def _means(values: np.ndarray, each: int) -> np.ndarray:
    """The means of so many values after one another."""
    starts = np.arange(0, len(values), each)
    sums = np.add.reduceat(values.astype(np.float64), starts)
    means: np.ndarray = sums / np.diff(np.append(starts, len(values)))
    return means


def nll(probabilities: np.ndarray, gold: np.ndarray, several: bool | None = None) -> float:
    """Mean negative log likelihood, in nats; of several labels, of each of them; of distributions the mean
    cross-entropy."""
    p = np.clip(probabilities, TINY, 1)
    if gold.ndim == 1:
        return float(-np.log(p[np.arange(len(gold)), gold]).mean())
    if not (gold.dtype == bool if several is None else several):
        return float(-(gold * np.log(p)).sum(axis=1).mean())
    return float(-(gold * np.log(p) + (1.0 - gold) * np.log(np.clip(1 - probabilities, TINY, 1))).mean())


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """The bins of rows in the order of their confidence."""
    size = len(confidence)
    # as numpy.array_split parts them
    ends = np.cumsum([size // BINS + (i < size % BINS) for i in range(min(BINS, size))])
    starts = np.concatenate([[0], ends[:-1]])
    counts = ends - starts
    means = np.add.reduceat(confidence, starts) / counts
    shares = np.add.reduceat(right.astype(np.float64), starts) / counts
    return list(zip(means.tolist(), shares.tolist(), counts.tolist(), strict=True))


def _ece(confidence: np.ndarray, right: np.ndarray) -> float:
    return float(sum(abs(p - t) * n for p, t, n in _bins(confidence, right)) / len(confidence))


def _unsorted_ece(probabilities: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(probabilities, kind="stable")
    return _ece(probabilities[order], truth[order])


def temperature(probabilities: np.ndarray, gold: np.ndarray) -> float | None:
    """The temperature that makes these rows most likely; None where there is none within `ENDS`: where every
    row is told right the best is 0, and where the probabilities mislead it has no bound.

    Args:
        probabilities: by temperature 1.
    """
    from scipy.optimize import minimize_scalar

    if told_right(probabilities, gold):  # in floating point the likelihood is flat from some temperature on
        return None

    def loss(log: float) -> float:
        return nll(scaled(probabilities, float(np.exp(log))), gold)

    low, high = np.log(ENDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    margin = 0.01 * (high - low)
    return None if not low + margin < found.x < high - margin else float(np.exp(found.x))


def told_right(probabilities: np.ndarray, gold: np.ndarray) -> bool:
    """Whether the label of every row is the likeliest, and certain."""
    if gold.ndim == 2:
        return bool((gold[np.arange(len(gold)), probabilities.argmax(axis=1)] == 1).all())
    return bool((probabilities.argmax(axis=1) == gold).all())


def scaled(probabilities: np.ndarray, divisor: float) -> np.ndarray:
    """(N, C) the softmax of logits that are divided by a temperature, from that of the logits as they are."""
    logits = np.log(np.clip(probabilities, TINY, 1)) / divisor
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = exp / exp.sum(axis=1, keepdims=True)
    return result


def cross_fitted(probabilities: np.ndarray, gold: np.ndarray, each: int = 1, seed: int = 0) -> np.ndarray:
    """(N, C) each row scaled by the temperature of rows without it, in `FOLDS` folds: what a temperature that
    was fitted to these rows does on others. `each`: how many that follow one another stay together."""
    fold = np.repeat(np.random.default_rng(seed).permutation(len(gold) // each) % FOLDS, each)
    result = probabilities.copy()
    for number in range(FOLDS):
        divisor = temperature(probabilities[fold != number], gold[fold != number])
        if divisor is not None:
            result[fold == number] = scaled(probabilities[fold == number], divisor)
    return result


def two_sided(probabilities: np.ndarray) -> np.ndarray:
    """(N, 2) no and yes, from (N,) the probability of yes."""
    return np.stack([1 - probabilities, probabilities], axis=1)
