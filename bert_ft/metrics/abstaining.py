"""What it costs to answer only where a model is sure: risk and coverage, thresholds with a guarantee, and
sets of labels that hold the right one as often as is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_ft.metrics.bootstrap import exact

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5, 0.3)
WANTED = (0.9, 0.95, 0.99)
GRID = 50  # coverages that a threshold is looked for on
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answered:
    """The rows that a model answers when it leaves out those of which it is least sure.

    Attributes:
        threshold: the least probability of an answer that is given. coverage: the share of rows answered.
        accuracy: of these. low, high: its exact 95 % interval (Clopper and Pearson 1934).
    """

    threshold: float
    coverage: float
    accuracy: float
    low: float
    high: float


def answered(confidence: np.ndarray, right: np.ndarray, coverage: float) -> Answered:
    """What the surest rows come to.

    Args:
        confidence, right: (N,) the probability of each answer, and whether it is right.
        coverage: of these rows, rounded up; rows as sure as the last of them are answered too.
    """
    order = np.argsort(-confidence, kind="stable")
    threshold = float(confidence[order[max(math.ceil(coverage * len(order)), 1) - 1]])
    kept = confidence >= threshold
    hits, of = int(right[kept].sum()), int(kept.sum())
    return Answered(threshold, of / len(right), hits / of, *exact(hits, of))


def area(confidence: np.ndarray, right: np.ndarray) -> float:
    """The area under risk (the share that is wrong) by coverage: the mean risk over all coverages (Geifman
    and El-Yaniv 2017). Rows of equal confidence count with the mean of their risks."""
    values, inverse, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(inverse, ~right) / counts
    before = np.concatenate([[0.0], np.cumsum(wrong * counts)[:-1]])
    ends = np.cumsum(counts)
    risks = [
        (b + w * np.arange(1, n + 1)) / np.arange(e - n + 1, e + 1)
        for b, w, n, e in zip(before, wrong, counts, ends, strict=True)
    ]
    return float(np.concatenate(risks).mean()) if len(values) else math.nan


def guaranteed(confidence: np.ndarray, right: np.ndarray, accuracy: float) -> Answered | None:
    """The largest coverage at which rows like these are answered with at least this accuracy, with 95 %
    confidence; None where there is none.

    Coverages are tried from the smallest on, each by a one-sided exact test at 5 %, until one fails: so that
    the chance of any wrong promise is 5 % (fixed-sequence testing, Angelopoulos et al. 2021, "Learn then
    Test"). Few rows promise nothing: 118 are the least for 0.95, where `accuracy` is below 1.
    """
    from scipy import special

    found = None
    # the first test is of twice as many rows as would pass it without an error
    least = 2 * math.ceil(math.log(1 - CONFIDENCE) / math.log(accuracy))
    if least > len(right):
        return None
    steps = np.unique(np.linspace(least, len(right), GRID).astype(int))
    for size in steps:
        part = answered(confidence, right, size / len(right))
        of = round(part.coverage * len(right))
        hits = round(part.accuracy * of)
        low = special.betaincinv(hits, of - hits + 1, 1 - CONFIDENCE) if hits else 0.0
        if low < accuracy:
            break
        found = part
    return found


def least_of_set(probabilities: np.ndarray, gold: np.ndarray, coverage: float) -> float:
    """The least probability that a label of a set has, so that sets of rows like these hold the right label
    in at least this share of them (split conformal prediction; Vovk et al. 2005, Sadinle et al. 2019); 0
    where the rows are too few to promise it.

    Args:
        probabilities: (N, C) of rows that the model was not trained on. gold: (N,) label numbers.
    """
    scores = 1 - probabilities[np.arange(len(gold)), gold]
    rank = math.ceil((len(gold) + 1) * coverage)
    return 0.0 if rank > len(gold) else max(0.0, float(1 - np.sort(scores)[rank - 1]))


def table(confidence: np.ndarray, right: np.ndarray) -> list[Answered]:
    """What is answered at `COVERAGES`."""
    return [answered(confidence, right, coverage) for coverage in COVERAGES]


def promises(confidence: np.ndarray, right: np.ndarray) -> Sequence[tuple[float, Answered | None]]:
    """`WANTED` accuracy -> the largest coverage that promises it."""
    return [(accuracy, guaranteed(confidence, right, accuracy)) for accuracy in WANTED]
