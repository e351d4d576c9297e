"""Metrics of resamples and of parts of a set, many at once.

Rows that count the same towards a metric (one cell of the confusion matrix, say) are one kind of row: a
resample is how often each kind is drawn, (U,), and the metrics of D resamples are a few matrix products over
(D, U).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

Values = dict[str, np.ndarray]
"""Metric -> (D,) its value in each resample."""

DRAWS = 1000
LEVEL = 0.95
CELLS = 4_000_000  # of (D, U) held at a time


class Resamples:
    """A scored set as kinds of rows.

    Args:
        keys: (N, K) what each row counts; equal rows are one kind.
        scoring: takes the kinds, (U, K), and returns the function from counts (D, U) to metrics.
    """

    def __init__(
        self, keys: np.ndarray, scoring: Callable[[np.ndarray], Callable[[np.ndarray], Values]]
    ) -> None:
        self.kinds, kind = np.unique(keys, axis=0, return_inverse=True)
        self.kind = kind.reshape(-1)
        self.size = len(self.kinds)
        self.scoring = scoring
        self.score = scoring(self.kinds)

    def of(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """The metrics of some of the rows (all by default): nan where one is undefined."""
        counts = np.bincount(self.kind[rows], minlength=self.size)
        with np.errstate(all="ignore"):
            return {name: float(value[0]) for name, value in self.score(counts[None]).items()}

    def intervals(self, draws: int = DRAWS, seed: int = 0) -> dict[str, tuple[float, float]]:
        """The percentile interval of each metric over bootstrap samples of the rows (Efron and Tibshirani
        1993, 13.3)."""
        rng = np.random.default_rng(seed)
        share = np.bincount(self.kind, minlength=self.size) / len(self.kind)
        step = max(1, CELLS // self.size)
        with np.errstate(all="ignore"):
            parts = [
                self.score(rng.multinomial(len(self.kind), share, min(step, draws - at)))
                for at in range(0, draws, step)
            ]
        samples = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: percentiles(values) for name, values in samples.items() if not np.isnan(values).all()}


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The ends of the 95 % percentile interval; draws in which a metric is undefined don't count."""
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _averages(hits: np.ndarray, predicted: np.ndarray, gold: np.ndarray, counted: np.ndarray) -> Values:
    """From (D, C) counts; macro averages go over the labels that are `counted`, (D, C) bool."""
    result: Values = {}
    for name, top, bottom in (
        ("precision", hits, predicted),
        ("recall", hits, gold),
        ("f1", 2 * hits, predicted + gold),
    ):
        each = top / np.maximum(bottom, 1)
        result[f"{name}_macro"] = np.where(counted, each, 0).sum(1) / np.maximum(counted.sum(1), 1)
        result[f"{name}_micro"] = top.sum(1) / np.maximum(bottom.sum(1), 1)
        result[f"{name}_weighted"] = (each * gold).sum(1) / np.maximum(gold.sum(1), 1)
    return result


def classes(labels: int, positive: int) -> Callable[[np.ndarray], Callable[[np.ndarray], Values]]:
    """Kinds are (gold label, predicted label): all metrics of classes."""

    def scoring(kinds: np.ndarray) -> Callable[[np.ndarray], Values]:
        one = np.eye(labels)
        same = kinds[:, 0] == kinds[:, 1]

        def score(counts: np.ndarray) -> Values:
            gold = counts @ one[kinds[:, 0]]
            predicted = counts @ one[kinds[:, 1]]
            hits = counts[:, same] @ one[kinds[same, 0]]
            n = counts.sum(1)
            correct = hits.sum(1)
            spread = (n**2 - (predicted**2).sum(1)) * (n**2 - (gold**2).sum(1))
            out = _averages(hits, predicted, gold, predicted + gold > 0)
            h = hits[:, positive]
            p = predicted[:, positive]
            g = gold[:, positive]
            recalls = np.where(gold > 0, hits / np.maximum(gold, 1), 0).sum(1)
            return out | {
                "accuracy": correct / n,
                "balanced_accuracy": recalls / (gold > 0).sum(1),
                "matthews_correlation": (correct * n - (predicted * gold).sum(1))
                / np.where(spread > 0, np.sqrt(spread), np.inf),
                "precision": h / np.maximum(p, 1),
                "recall": h / np.maximum(g, 1),
                "f1": 2 * h / np.maximum(p + g, 1),
            }

        return score

    return scoring


def label_sets(kinds: np.ndarray) -> Callable[[np.ndarray], Values]:
    """Kinds are 3C bits: the gold labels, those above 0.5, those above the tuned thresholds."""
    gold, *predicted = np.split(kinds.astype(np.float64), 3, axis=1)

    def score(counts: np.ndarray) -> Values:
        out: Values = {}
        for suffix, each in zip(("", "_tuned"), predicted, strict=True):
            rates = _averages(
                counts @ (gold * each), counts @ each, counts @ gold, np.ones((1, gold.shape[1]), bool)
            )
            rates["accuracy"] = counts @ (gold == each).all(1) / counts.sum(1)
            out |= {name + suffix: value for name, value in rates.items()}
        return out

    return score


def numbers(kinds: np.ndarray) -> Callable[[np.ndarray], Values]:
    """Kinds are (gold number, predicted number)."""
    sides = kinds.T

    def score(counts: np.ndarray) -> Values:
        n = counts.sum(1)
        error = sides[0] - sides[1]
        out = {"mean_squared_error": counts @ error**2 / n, "mean_absolute_error": counts @ abs(error) / n}
        out["pearson"] = _correlation(counts, *(np.broadcast_to(side, counts.shape) for side in sides))
        return out | {"spearmanr": _correlation(counts, *(_ranks(counts, side) for side in sides))}

    return score


def _correlation(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    n = counts.sum(1, keepdims=True)
    sampled = [np.where(counts > 0, side, np.nan) for side in (x, y)]
    varied = np.all([np.nanmax(side, axis=1) > np.nanmin(side, axis=1) for side in sampled], axis=0)
    x, y = (side - (counts * side).sum(1, keepdims=True) / n for side in (x, y))
    squares = (counts * x * x).sum(1) * (counts * y * y).sum(1)
    return np.asarray((counts * x * y).sum(1) / np.sqrt(np.where(varied, squares, np.nan)))


def _ranks(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(D, U) rank of each value in each resample; equal ones share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    mass = np.add.reduceat(counts[:, order], first, axis=1)
    middle = np.cumsum(mass, axis=1) - mass / 2
    ranks = np.empty(counts.shape)
    ranks[:, order] = np.repeat(middle, np.diff(np.append(first, len(values))), axis=1)
    return ranks


def entities(kinds: np.ndarray) -> Callable[[np.ndarray], Values]:
    """Kinds are sentences: their entities recalled, correct, gold, predicted; their words right, words."""

    def score(counts: np.ndarray) -> Values:
        recalled, correct, gold, predicted, same, words = (counts @ kinds).astype(np.float64).T
        precision = correct / np.maximum(predicted, 1)
        recall = recalled / np.maximum(gold, 1)
        both = precision + recall
        return {
            "f1": 2 * precision * recall / np.where(both > 0, both, 1),
            "precision": precision,
            "recall": recall,
            "accuracy": same / np.maximum(words, 1),
        }

    return score


def means(names: Sequence[str], scale: float = 1.0) -> Callable[[np.ndarray], Callable[[np.ndarray], Values]]:
    """Kinds are scores, a column a metric: metrics that are the mean over the rows."""

    def scoring(kinds: np.ndarray) -> Callable[[np.ndarray], Values]:
        return lambda counts: dict(
            zip(names, scale * (counts @ kinds / counts.sum(1, keepdims=True)).T, strict=True)
        )

    return scoring


def bins(values: np.ndarray, most: int = 5) -> list[tuple[str, np.ndarray]]:
    """(what they hold, their rows) of up to `most` bins of about as many whole numbers each."""
    limits = np.unique(np.quantile(values, np.linspace(0, 1, most + 1)).astype(np.int64))
    limits[-1] += 1
    if len(limits) == 1:
        return [(f"{limits[0] - 1:,}", np.arange(len(values)))]
    return [
        (
            f"{low:,} to {high - 1:,}" if high - 1 > low else f"{low:,}",
            np.flatnonzero((values >= low) & (values < high)),
        )
        for low, high in pairwise(limits.tolist())
    ]
