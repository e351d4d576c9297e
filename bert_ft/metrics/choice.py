"""What a choice adds to a score of the rows that it was made on, estimated by making it again on parts of
them.

A score of the best of ten evaluations, or at a threshold that was tuned, is too high on the very rows that
chose it. Cross-fitting (Stone 1974; Chernozhukov et al. 2018) divides the rows into parts, makes the whole
choice without a part and applies it to that part, so that each row is scored once by a choice that did not
see it. The mean over many divisions is the held-out value; the score less that value is how far it leans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from bert_ft.metrics import multilabel, squad
from bert_ft.metrics.classification import LOWER_IS_BETTER
from bert_ft.metrics.scoring import LabelSets, Means, Scoring

Fit = np.ndarray | slice
"""The rows that a choice is made on: (N,) bool, or all."""

CHOICES = 100  # that are made: 50 divisions into halves, 10 into tenths
CELLS = 40_000_000  # rows times columns times candidates that are counted: a few seconds
SWEPT = ("best_f1", "best_exact")
NULL_TUNED = ("tuned_f1", "tuned_exact_match", *SWEPT)
"""Scores of answers at a threshold that was tuned; those of `SWEPT` are at the best one for the set that they
are of, whichever that is."""


@dataclass(frozen=True)
class Candidate:
    """The answers of one evaluation, as a choice among several is made, and as thresholds are tuned on them.

    Attributes:
        size: the number of rows, N.
        keys: takes the rows to tune on, and returns (N, K), what each row counts.
        scoring: as `bootstrap.Resamples` takes it.
        what: what is tuned, as "thresholds"; "" where nothing is.
        tuned: the metrics that depend on it. swept: those of them that are tuned on every set anew.
        parts: into how many the rows are divided. Two give the least spread; the thresholds of rare labels
            need nearly all rows to be those that all rows give.
    """

    size: int
    keys: Callable[[Fit], np.ndarray]
    scoring: Scoring
    what: str = ""
    tuned: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    parts: int = 2


def answers(keys: np.ndarray, scoring: Scoring) -> Candidate:
    """Answers in which nothing is tuned; arguments as of `bootstrap.Resamples`."""
    return Candidate(len(keys), lambda _: keys, scoring)


def label_sets(gold: np.ndarray, probabilities: np.ndarray, per_label: bool) -> Candidate:
    """Sets of labels, whose thresholds are tuned: one a label by its own F1, or one for all by micro F1.

    Args:
        gold: (N, C) bool. probabilities: (N, C).
    """
    fixed = np.concatenate([gold, probabilities > 0.5], axis=1)
    width = gold.shape[1] if per_label else 1

    def keys(fit: Fit) -> np.ndarray:
        p, y = (side[fit].reshape(-1, width) for side in (probabilities, gold))
        return np.concatenate([fixed, probabilities > multilabel.best_thresholds(p, y)], axis=1)

    what = "a threshold for each label" if per_label else "the threshold"
    parts = 10 if per_label else 2
    return Candidate(len(gold), keys, LabelSets([""] * gold.shape[1]), what, multilabel.TUNED, parts=parts)


def null_threshold(
    raw: dict[str, np.ndarray], has: np.ndarray, answered: np.ndarray, odds: np.ndarray, by: str
) -> Candidate:
    """Answers of questions that may have none, whose threshold of null odds is tuned.

    Args:
        raw: "exact" and "f1" -> (N,) of the answers that are given where no question is taken to have none.
        has, answered: (N,) whether the question has an answer, and gets one.
        by: the key of `raw` that the model's own threshold is tuned by.
    """

    # the official sweep cuts inside equal odds, a threshold of the model's can't
    ranks = np.empty(len(odds))
    ranks[np.argsort(odds, kind="stable")] = np.arange(len(odds)) / len(odds)

    def best(of: np.ndarray, name: str, fit: Fit) -> float:
        return squad.null_threshold(raw[name][fit], has[fit], answered[fit], of[fit])

    def at(of: np.ndarray, threshold: float, name: str) -> np.ndarray:
        return np.where(of > threshold, ~has, raw[name])

    def keys(fit: Fit) -> np.ndarray:
        own = best(odds, by, fit)
        columns = [at(odds, own, name) for name in ("f1", "exact")]
        columns += [at(ranks, best(ranks, name, fit), name) for name in ("f1", "exact")]
        columns += [at(odds, 0.0, name) for name in ("f1", "exact")]
        return np.stack(columns, axis=1)

    counted = Means([*NULL_TUNED, "f1", "exact_match"], 100.0)
    return Candidate(len(has), keys, counted, "the threshold of no answer", NULL_TUNED, SWEPT)


def cross_fitted(
    candidates: Sequence[Candidate],
    best: str,
    groups: np.ndarray | None = None,
    seed: int = 0,
    divisions: Iterable[np.ndarray] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of the candidate that all rows choose, and the same held out; empty where `best` is not to
    be had from the candidates, or the rows are too few to be divided.

    Args:
        candidates: of the same rows; of equally good ones the first is chosen.
        best: the metric that chooses.
        groups: (N,) numbers of rows that hang together: not divided, unless they are fewer than four.
        divisions: (N,) the part of each row, 0 on, in each division; random ones by default.
    """
    whole = np.ones(candidates[0].size, bool)
    keys = best_keys(candidates, best, whole)
    if keys is None:
        return {}, {}
    apparent = scores(candidates[0], keys)
    if divisions is None:
        divisions = _divisions(candidates, keys.shape[1], groups, seed)
    found = []
    for part in divisions:
        fitted = keys.copy()
        for number in range(part.max() + 1):
            rows = part == number
            other = best_keys(candidates, best, ~rows)
            if other is None:
                break
            fitted[rows] = other[rows]
        else:
            found.append(scores(candidates[0], fitted))
    if not found:
        return {}, {}
    with np.errstate(all="ignore"):
        values = {name: np.array([each[name] for each in found]) for name in apparent}
    held = {name: float(np.nanmean(each)) for name, each in values.items() if not np.isnan(each).all()}
    return {name: apparent[name] for name in held}, held


def best_keys(candidates: Sequence[Candidate], best: str, fit: np.ndarray) -> np.ndarray | None:
    """The keys of the candidate that does best on the rows `fit`; None where no value is defined."""
    if not fit.any():
        return None
    if len(candidates) == 1:
        return candidates[0].keys(fit)
    sign = -1 if best in LOWER_IS_BETTER else 1
    highest, chosen = -np.inf, None
    for candidate in candidates:
        keys = candidate.keys(fit)
        value = sign * scores(candidate, keys[fit]).get(best, np.nan)
        if value > highest:
            highest, chosen = value, keys
    return chosen


def scores(candidate: Candidate, keys: np.ndarray) -> dict[str, float]:
    """The metrics of rows that count `keys`."""
    kinds, counts = _kinds(keys)
    with np.errstate(all="ignore"):
        values = candidate.scoring.of(kinds)(counts[None])
    return {name: float(value[0]) for name, value in values.items()}


def _kinds(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of whole numbers and how often each is there, by one number for a row; what does not
    fit in one as it is."""
    top = [int(column.max()) + 1 for column in keys.T] if keys.dtype.kind == "i" and keys.min() >= 0 else []
    if not top or prod(top) >= 2**62:
        return keys, np.ones(len(keys))
    numbers = np.ravel_multi_index(tuple(keys.T), top)
    _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    return keys[first], counts.astype(np.float64)


def _divisions(
    candidates: Sequence[Candidate], width: int, groups: np.ndarray | None, seed: int
) -> Iterator[np.ndarray]:
    """Random divisions of the rows, or of whole groups, into parts of about the same size; as many as a few
    seconds allow."""
    rng = np.random.default_rng(seed)
    size = candidates[0].size
    parts = max(candidate.parts for candidate in candidates)
    units = np.arange(size) if groups is None else np.unique(groups, return_inverse=True)[1]
    if units.max() < 3:  # all of one document, say
        units = np.arange(size)
    many = int(units.max()) + 1
    if many < 4:
        return
    parts = min(parts, many // 2)
    rows = np.bincount(units)
    number = CELLS // (size * width * parts * len(candidates))
    for _ in range(max(1, min(number, CHOICES // parts))):
        order = rng.permutation(many)
        middle = np.cumsum(rows[order]) - rows[order] / 2
        part = np.empty(many, np.int64)
        part[order] = np.minimum(middle * parts / size, parts - 1).astype(np.int64)
        yield part[units]
