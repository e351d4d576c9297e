"""Statistics of systems that answered the same rows, and of groups of seeds: pure functions of scored sets
and of numbers.

Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance in NLP", is a guide to the
row-wise ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from scipy import sparse, stats

from bert_ft.metrics.bootstrap import CELLS, LEVEL, Resamples, Values

DRAWS = 5000
CLOSE = 1e-9  # what rounding may part two equal differences by


def bootstrap(groups: Sequence[Sequence[Resamples]], draws: int = DRAWS, seed: int = 0) -> list[Values]:
    """The metrics of each group in bootstrap samples of the rows, the same rows for all (Berg-Kirkpatrick et
    al. 2012); of a group of several seeds, which counts as their mean, the seeds are drawn too.

    Rows and seeds are drawn apart, as in the pigeonhole bootstrap (Owen 2007): its variance is that of both
    together, or more. The m seeds' weights are spread by √(m / (m - 1)), so that few of them vary enough (Rao
    and Wu 1988).
    """
    sets = [one for group in groups for one in group]
    joint, kind = np.unique(np.stack([one.kind for one in sets], axis=1), axis=0, return_inverse=True)
    share = np.bincount(kind.reshape(-1)) / len(sets[0].kind)
    places = np.arange(len(joint))
    own = [
        sparse.csr_array((np.ones(len(joint)), (places, joint[:, i])), (len(joint), one.size))
        for i, one in enumerate(sets)
    ]
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // len(joint))
    parts: list[list[Values]] = []
    for at in range(0, draws, step):
        counts = rng.multinomial(len(sets[0].kind), share, min(step, draws - at))
        with np.errstate(all="ignore"):
            scores = iter([one.score(counts @ to) for one, to in zip(sets, own, strict=True)])
        parts.append([])
        for group in groups:
            m = len(group)
            shares = rng.multinomial(m, np.full(m, 1 / m), len(counts)) / m
            weights = 1 / m + (shares - 1 / m) * np.sqrt(m / max(m - 1, 1))
            values = [next(scores) for _ in group]
            parts[-1].append(
                {name: np.einsum("dm,md->d", weights, [each[name] for each in values]) for name in values[0]}
            )
    return [
        {name: np.concatenate([part[g][name] for part in parts]) for name in parts[0][g]}
        for g in range(len(groups))
    ]


def randomisation(first: Resamples, second: Resamples, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """The two-sided p-value of each metric's difference by approximate randomisation (Noreen 1989; Yeh 2000):
    were the two alike, their answers to a row could change places. Where the rows that differ have at most
    `draws` ways to do so, all are taken, and p is exact; otherwise it is (hits + 1) / (draws + 1).

    Both must be scored by the same function, of the same labels.
    """
    n = len(first.kind)
    both = Resamples(np.concatenate([first.kinds[first.kind], second.kinds[second.kind]]), first.scoring)
    sides = both.kind[:n], both.kind[n:]
    whole = [np.bincount(side, minlength=both.size) for side in sides]
    rows = np.flatnonzero(sides[0] != sides[1])
    exact = len(rows) < 60 and 2 ** len(rows) <= draws
    total = 2 ** len(rows) if exact else draws
    pairs, kind = np.unique(np.stack([side[rows] for side in sides], axis=1), axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    places = np.repeat(np.arange(len(pairs)), 2)
    move = sparse.csr_array(
        (np.tile([-1, 1], len(pairs)), (places, pairs.reshape(-1))), (len(pairs), both.size)
    )
    pair_counts = np.bincount(kind, minlength=len(pairs))
    # (rows, pairs): the pair of each row
    flips = np.eye(len(pairs), dtype=np.int64)[kind] if exact else pair_counts

    def differences(swapped: np.ndarray) -> Values:
        moved = swapped @ move
        with np.errstate(all="ignore"):
            a = both.score(whole[0] + moved)
            b = both.score(whole[1] - moved)
        return {name: b[name] - a[name] for name in a}

    observed = differences(np.zeros((1, len(pairs)), np.int64))
    hits = dict.fromkeys(observed, 0)
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // both.size)
    for at in range(0, total, step):
        numbers = np.arange(at, min(at + step, total))
        shape = len(numbers), len(pairs)
        swapped = (
            (numbers[:, None] >> np.arange(len(rows)) & 1) @ flips
            if exact
            else rng.binomial(pair_counts, 0.5, shape)
        )
        for name, value in differences(swapped).items():
            smaller = abs(value) < abs(observed[name]) - CLOSE
            hits[name] += int((~smaller).sum())  # an undefined difference counts as a hit
    return {name: (count + (not exact)) / (total + (not exact)) for name, count in hits.items()}


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The exact two-sided p-value of McNemar's test (1947), a binomial test on the rows that one has right
    and the other has wrong, from (N,) what is right."""
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the difference of two means of at least two seeds each (Welch 1947); without any
    spread the difference itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of a group without spread, whose other one decides then
        interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(LEVEL)
    return float(interval.low), float(interval.high)


def permutation(first: Sequence[float], second: Sequence[float], draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p-value of the difference of two means when seeds change groups: exact, of all ways to
    divide them, where there are at most `draws`; otherwise (hits + 1) / (draws + 1)."""
    pooled = np.concatenate([first, second])
    n = len(first)
    if exact := comb(len(pooled), n) <= draws:
        chosen = np.array(list(combinations(range(len(pooled)), n)))
    else:
        chosen = np.argsort(np.random.default_rng(seed).random((draws, len(pooled))), axis=1)[:, :n]
    means = pooled[chosen].mean(axis=1)
    differences = (pooled.sum() - n * means) / len(second) - means
    hits = int((abs(differences) >= abs(np.mean(second) - np.mean(first)) - CLOSE).sum())
    return (hits + (not exact)) / (len(chosen) + (not exact))


def hedges(first: Sequence[float], second: Sequence[float]) -> float:
    """Hedges' g (1981): the difference of the means in standard deviations of the seeds, small samples
    corrected for; nan without any spread."""
    freedom = len(first) + len(second) - 2
    squares = sum(np.var(side) * len(side) for side in (first, second))
    with np.errstate(all="ignore"):
        return float(
            (np.mean(second) - np.mean(first)) / np.sqrt(squares / freedom) * (1 - 3 / (4 * freedom - 1))
        )


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that one of them is wrong in 5 % at most (Holm 1979)."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(np.minimum(1, np.asarray(p)[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in raised[np.argsort(order)]]
