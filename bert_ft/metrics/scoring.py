"""How metrics come of the kinds of rows that a set has: all of a set's resamples and parts at once.

Rows that count the same towards a metric (one cell of the confusion matrix, say) are one kind of row: U kinds
and how much of each there is, (D, U), give the metrics of D resamples in a few matrix products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Values = dict[str, np.ndarray]
"""Metric -> (D,) its value in each resample."""

Score = Callable[[np.ndarray], Values]
"""From (D, U) counts, which need not be whole numbers."""

Mask = np.ndarray
"""(U,) bool: which kinds."""


class Scoring(ABC):
    """What the metrics of rows are, and what their intervals rest on. Kinds are (U, K), a row each.

    Attributes:
        top: the value of a perfect score. fewest: the number of rows below which no interval holds.
    """

    top: float = 1.0
    fewest: int = 10

    @abstractmethod
    def of(self, kinds: np.ndarray) -> Score:
        """The function from counts of the kinds to the metrics."""

    def right(self, kinds: np.ndarray) -> Mask | None:
        """The rows without an error; None where a row is not right or wrong."""
        return None

    def examples(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(E, K) rows that are right, and as many that are wrong, for the rows of a set, (N, K)."""
        return keys[:0], keys[:0]

    def shares(self, kinds: np.ndarray) -> dict[str, tuple[Mask, Mask]]:
        """Metric -> (which, of which) rows, of the metrics that are a share of rows."""
        return {}

    def rests_on(self, kinds: np.ndarray) -> dict[str, list[tuple[str, Mask]]]:
        """Metric -> (what they are, which they are, a mask or their places) of the rows that it needs enough
        of."""
        return {}


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """0 where the divisor is."""
    return top / np.where(bottom > 0, bottom, 1)


def _one_hot(numbers: np.ndarray, size: int) -> Any:
    """(U, `size`), sparse: of ten thousand labels a row of zeros is 80 kB."""
    from scipy import sparse

    return sparse.csr_array((np.ones(len(numbers)), (np.arange(len(numbers)), numbers)), (len(numbers), size))


def _averages(hits: np.ndarray, predicted: np.ndarray, gold: np.ndarray, counted: np.ndarray) -> Values:
    """From (D, C) counts; macro averages go over the labels that are `counted`, (D, C) bool."""
    result: Values = {}
    for name, top, bottom in (
        ("precision", hits, predicted),
        ("recall", hits, gold),
        ("f1", 2 * hits, predicted + gold),
    ):
        each = _ratio(top, bottom)
        result[f"{name}_macro"] = np.where(counted, each, 0).sum(1) / np.maximum(counted.sum(1), 1)
        result[f"{name}_micro"] = _ratio(top.sum(1), bottom.sum(1))
        result[f"{name}_weighted"] = _ratio((each * gold).sum(1), gold.sum(1))
    return result


MACRO = ("precision_macro", "recall_macro", "f1_macro")


class Classes(Scoring):
    """Kinds are (gold label, predicted label), by their numbers: all metrics of classes.

    Args:
        labels: their names. positive: the number of that of `f1`, `precision` and `recall`.
    """

    def __init__(self, labels: Sequence[str], positive: int) -> None:
        self.labels = labels
        self.positive = positive

    def of(self, kinds: np.ndarray) -> Score:
        same = kinds[:, 0] == kinds[:, 1]
        of_gold, of_predicted = (_one_hot(side, len(self.labels)) for side in kinds.T)
        of_hits = of_gold[np.flatnonzero(same)]

        def score(counts: np.ndarray) -> Values:
            gold = counts @ of_gold
            predicted = counts @ of_predicted
            hits = counts[:, same] @ of_hits
            n = counts.sum(1)
            correct = hits.sum(1)
            spread = (n**2 - (predicted**2).sum(1)) * (n**2 - (gold**2).sum(1))
            out = _averages(hits, predicted, gold, predicted + gold > 0)
            h = hits[:, self.positive]
            p = predicted[:, self.positive]
            g = gold[:, self.positive]
            return out | {
                "accuracy": correct / n,
                "balanced_accuracy": _ratio(hits, gold).sum(1) / (gold > 0).sum(1),
                "matthews_correlation": (correct * n - (predicted * gold).sum(1))
                / np.where(spread > 0, np.sqrt(spread), np.inf),
                "precision": _ratio(h, p),
                "recall": _ratio(h, g),
                "f1": _ratio(2 * h, p + g),
            }

        return score

    def right(self, kinds: np.ndarray) -> Mask:
        same: Mask = kinds[:, 0] == kinds[:, 1]
        return same

    def examples(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each label one that is right, and one that is taken for the most frequent other one."""
        if len(self.labels) < 2:
            return keys[:0], keys[:0]
        labels = np.arange(len(self.labels))
        frequent = np.argsort(-np.bincount(keys[:, 0], minlength=len(labels)), kind="stable")
        other = np.where(labels == frequent[0], frequent[1], frequent[0])
        return np.stack([labels, labels], axis=1), np.stack([labels, other], axis=1)

    def shares(self, kinds: np.ndarray) -> dict[str, tuple[Mask, Mask]]:
        right = self.right(kinds)
        every = np.ones(len(kinds), bool)
        gold, predicted = (kinds[:, side] == self.positive for side in (0, 1))
        of_all = ("accuracy", "precision_micro", "recall_micro", "f1_micro", "recall_weighted")
        return dict.fromkeys(of_all, (right, every)) | {
            "precision": (right & predicted, predicted),
            "recall": (right & gold, gold),
        }

    def rests_on(self, kinds: np.ndarray) -> dict[str, list[tuple[str, Mask]]]:
        order = np.argsort(kinds[:, 0], kind="stable")
        ends = np.searchsorted(kinds[order, 0], np.arange(len(self.labels) + 1))
        gold = [(f"of '{name}'", order[ends[i] : ends[i + 1]]) for i, name in enumerate(self.labels)]
        rests = dict.fromkeys((*MACRO, "balanced_accuracy"), gold)
        if len(gold) == 2:  # of more, those of a rare one hardly change it
            rests["matthews_correlation"] = gold
        return rests | {"f1": gold[self.positive : self.positive + 1]}


class LabelSets(Scoring):
    """Kinds are 3C bits: the gold labels, those above 0.5, those above the tuned thresholds."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    def of(self, kinds: np.ndarray) -> Score:
        gold, *predicted = self._parts(kinds)

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

    def right(self, kinds: np.ndarray) -> Mask:
        gold, plain, tuned = self._parts(kinds)
        right: Mask = ((gold == plain) & (gold == tuned)).all(axis=1)
        return right

    def examples(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A row of each label; each of them taken for the next one."""
        gold = np.eye(len(self.labels), dtype=keys.dtype)
        said = np.roll(gold, 1, axis=1) if len(gold) > 1 else 1 - gold
        return np.hstack([gold, gold, gold]), np.hstack([gold, said, said])

    def shares(self, kinds: np.ndarray) -> dict[str, tuple[Mask, Mask]]:
        gold, *predicted = self._parts(kinds)
        every = np.ones(len(kinds), bool)
        return {
            f"accuracy{suffix}": ((gold == each).all(axis=1), every)
            for suffix, each in zip(("", "_tuned"), predicted, strict=True)
        }

    def rests_on(self, kinds: np.ndarray) -> dict[str, list[tuple[str, Mask]]]:
        gold = self._parts(kinds)[0].astype(bool)
        each = [(f"of '{name}'", gold[:, i]) for i, name in enumerate(self.labels)]
        return dict.fromkeys([*MACRO, *(f"{name}_tuned" for name in MACRO)], each)

    def _parts(self, kinds: np.ndarray) -> list[np.ndarray]:
        """Gold, above 0.5, above the thresholds: (U, C) each."""
        return np.split(kinds.astype(np.float64), 3, axis=1)


class Numbers(Scoring):
    """Kinds are (gold number, predicted number)."""

    fewest = 50

    def of(self, kinds: np.ndarray) -> Score:
        sides = kinds.T

        def score(counts: np.ndarray) -> Values:
            n = counts.sum(1)
            error = sides[0] - sides[1]
            out = {
                "mean_squared_error": counts @ error**2 / n,
                "mean_absolute_error": counts @ abs(error) / n,
            }
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


class Entities(Scoring):
    """Kinds are sentences: their entities recalled, correct, gold, predicted; their words right, words."""

    def of(self, kinds: np.ndarray) -> Score:
        def score(counts: np.ndarray) -> Values:
            recalled, correct, gold, predicted, same, words = (counts @ kinds).astype(np.float64).T
            precision = _ratio(correct, predicted)
            recall = _ratio(recalled, gold)
            return {
                "f1": _ratio(2 * precision * recall, precision + recall),
                "precision": precision,
                "recall": recall,
                "accuracy": _ratio(same, words),
            }

        return score

    def right(self, kinds: np.ndarray) -> Mask:
        recalled, correct, gold, predicted, same, words = kinds.T
        right: Mask = (recalled == gold) & (correct == predicted) & (same == words)
        return right

    def examples(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A sentence of one entity; one where it is missed and another one made up."""
        words = max(1, int(keys[:, 5].mean())) if len(keys) else 1
        right, wrong = [1, 1, 1, 1, words, words], [0, 0, 1, 1, words - 1, words]
        return np.array([right], keys.dtype), np.array([wrong], keys.dtype)

    def rests_on(self, kinds: np.ndarray) -> dict[str, list[tuple[str, Mask]]]:
        gold, predicted = kinds[:, 2] > 0, kinds[:, 3] > 0
        return {
            "f1": [("with an entity", gold | predicted)],
            "precision": [("with a predicted entity", predicted)],
            "recall": [("with an entity in the gold", gold)],
        }


class Means(Scoring):
    """Kinds are scores from 0 to 1, a column a metric: metrics that are the mean over the rows, times
    `top`."""

    def __init__(self, names: Sequence[str], top: float = 1.0) -> None:
        self.names = names
        self.top = top

    def of(self, kinds: np.ndarray) -> Score:
        return lambda counts: dict(
            zip(self.names, self.top * (counts @ kinds / counts.sum(1, keepdims=True)).T, strict=True)
        )

    def right(self, kinds: np.ndarray) -> Mask:
        right: Mask = (kinds == 1).all(axis=1)
        return right

    def examples(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((1, len(self.names))), np.zeros((1, len(self.names)))

    def shares(self, kinds: np.ndarray) -> dict[str, tuple[Mask, Mask]]:
        """Those whose scores are 0 and 1 alone."""
        every = np.ones(len(kinds), bool)
        return {
            name: (column == 1, every)
            for name, column in zip(self.names, kinds.T, strict=True)
            if np.isin(column, (0, 1)).all()
        }
