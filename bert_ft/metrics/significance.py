"""Statistics of systems that answered the same rows, and of groups of seeds: pure functions of scored sets
and of numbers.

Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance in NLP", is a guide to the
row-wise ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb, nan

import numpy as np
from scipy import sparse, stats

from bert_ft.metrics import bootstrap, two_means
from bert_ft.metrics.bootstrap import CELLS, HALF_A_ROW, LEVEL, Groups, Resamples
from bert_ft.metrics.scoring import Values

DRAWS = 5000
CLOSE = 1e-9  # what rounding may part two equal numbers by, in terms of them

Seeds = Sequence[float]
"""A metric of each seed of a group."""


def differences(
    first: Sequence[Resamples], second: Sequence[Resamples], draws: int = DRAWS, seed: int = 0
) -> Values:
    """(D,) of each metric: what the difference of two groups of seeds, the second's mean less the first's,
    may be on other rows like these and with other seeds. All must be scored alike, on the same rows.

    The rows are drawn as `Resamples.intervals` draws them, the same for all (Berg-Kirkpatrick et al. 2012);
    half a row that the first alone has right and half a row that the second alone has right are added (as
    Agresti and Min 2005 add them). Where groups of rows are known, the jackknife's spread takes the place of
    drawn rows. What other seeds would change is drawn apart (`of_seeds`).
    """
    rng = np.random.default_rng(seed)
    rows = (_of_groups if first[0].groups else _of_rows)(first, second, draws, rng)
    whole = [[one.of() for one in group] for group in (first, second)]
    for name in rows:
        sides = [[of[name] for of in group] for group in whole]
        rows[name] = rows[name] + of_seeds(sides[0], sides[1], draws, rng)
    return rows


def unfit(first: Sequence[Resamples], second: Sequence[Resamples], names: Sequence[str]) -> dict[str, str]:
    """Why there can be no interval of the difference, of the metrics that can have none."""
    one = first[0]
    keys = [each.kinds[each.kind] for each in (*first, *second)]
    apart = np.any([(keys[0] != other).any(axis=1) for other in keys[1:]], axis=0)
    if not apart.any():
        return dict.fromkeys(names, "no row differs")
    few = f"{len(apart)} rows, fewer than {one.scoring.fewest}"
    if one.groups is None and len(apart) < one.scoring.fewest:
        return dict.fromkeys(names, few)
    reasons = one.unfit(names)
    if one.groups and (number := len(np.unique(one.groups.codes[apart]))) < bootstrap.FEWEST_MIXED:
        reason = f"{number} of {one.groups} differ, fewer than {bootstrap.FEWEST_MIXED}"
        return dict.fromkeys(names, reason) | reasons
    return reasons


def _of_rows(
    first: Sequence[Resamples], second: Sequence[Resamples], draws: int, rng: np.random.Generator
) -> Values:
    sets = [*first, *second]
    right, wrong = (np.stack([one.examples[i] for one in sets], axis=1) for i in (0, 1))  # (E, sets)
    of_first = np.arange(len(sets)) < len(first)
    halves = np.concatenate([np.where(of_first, right, wrong), np.where(of_first, wrong, right)])
    joint = np.concatenate([np.stack([one.kind for one in sets], axis=1), halves])
    kinds, kind = np.unique(joint, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    n = len(sets[0].kind)
    counts, prior = (np.bincount(part, minlength=len(kinds)) for part in (kind[:n], kind[n:]))
    places = np.arange(len(kinds))
    own = [
        sparse.csr_array((np.ones(len(kinds)), (places, kinds[:, i])), (len(kinds), one.size))
        for i, one in enumerate(sets)
    ]
    parts: list[Values] = []
    for weights in bootstrap.drawn(counts, prior * HALF_A_ROW / max(len(right), 1), draws, rng):
        with np.errstate(all="ignore"):
            scores = [one.score(weights @ to) for one, to in zip(sets, own, strict=True)]
        parts.append(_difference(scores, len(first)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_groups(
    first: Sequence[Resamples], second: Sequence[Resamples], draws: int, rng: np.random.Generator
) -> Values:
    left = _difference([one.left_out() for one in (*first, *second)], len(first))
    whole = _difference(
        [{name: np.array(value) for name, value in one.of().items()} for one in (*first, *second)], len(first)
    )
    t = rng.standard_t(first[0].freedom(), draws)
    return {name: whole[name] + bootstrap.spread(values) * t for name, values in left.items()}


def _difference(scores: Sequence[Values], n: int) -> Values:
    """The mean of the rest less that of the first n."""
    return {
        name: np.mean([each[name] for each in scores[n:]], axis=0)
        - np.mean([each[name] for each in scores[:n]], axis=0)
        for name in scores[0]
    }


def of_seeds(first: Seeds, second: Seeds, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(D,) what other seeds would add to the difference of two means: Student's t with Welch's spread and
    degrees of freedom. Of one seed its spread is taken to be that of the other group's; of one on both sides,
    or without any spread, 0."""
    spreads = [deviation(side) if len(side) > 1 else None for side in (first, second)]
    known = [s for s in spreads if s is not None]
    if not any(known):
        return np.zeros(draws)
    if len(known) == 1:
        m = max(len(first), len(second))
        return np.asarray(known[0] * np.sqrt(1 + 1 / m) * rng.standard_t(m - 1, draws))
    each = np.array([s**2 / len(side) for s, side in zip(known, (first, second), strict=True)])
    freedom = each.sum() ** 2 / sum(each**2 / (np.array([len(first), len(second)]) - 1))
    return np.asarray(np.sqrt(each.sum()) * rng.standard_t(freedom, draws))


def deviation(values: Seeds) -> float:
    """The sample standard deviation of at least two seeds; 0 where they differ by rounding alone."""
    return 0.0 if two_means.same(values) else float(np.std(values, ddof=1))


def randomisation(first: Resamples, second: Resamples, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """The two-sided p-value of each metric's difference by approximate randomisation (Noreen 1989; Yeh 2000):
    were the two alike, their answers to a row could change places, or those to all rows of a group where such
    are known. Where what differs has at most `draws` ways to do so, all are taken, and p is exact; otherwise
    it is (hits + 1) / (draws + 1).

    Both must be scored by the same function, of the same labels.
    """
    both = Resamples(np.concatenate([first.kinds[first.kind], second.kinds[second.kind]]), first.scoring)
    n = len(first.kind)
    sides = both.kind[:n], both.kind[n:]
    whole = [np.bincount(side, minlength=both.size) for side in sides]
    move, kind = _moves(both.size, sides[0], sides[1], first.groups)
    exact = len(kind) < 60 and 2 ** len(kind) <= draws
    total = 2 ** len(kind) if exact else draws
    alike = np.bincount(kind, minlength=move.shape[0])
    flips = np.eye(len(alike), dtype=np.int64)[kind] if exact else alike  # of each unit

    def differ(swapped: np.ndarray) -> Values:
        moved = swapped @ move
        with np.errstate(all="ignore"):
            a = both.score(whole[0] + moved)
            b = both.score(whole[1] - moved)
        return {name: b[name] - a[name] for name in a}

    observed = differ(np.zeros((1, len(alike)), np.int64))
    hits = dict.fromkeys(observed, 0)
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(both.size, len(alike)))
    for at in range(0, total, step):
        numbers = np.arange(at, min(at + step, total))
        swapped = (
            (numbers[:, None] >> np.arange(len(kind)) & 1) @ flips
            if exact
            else rng.binomial(alike, 0.5, (len(numbers), len(alike)))
        )
        for name, value in differ(swapped).items():
            smaller = abs(value) < abs(observed[name]) - CLOSE
            hits[name] += int((~smaller).sum())  # an undefined difference counts as a hit
    return {name: (count + (not exact)) / (total + (not exact)) for name, count in hits.items()}


def _moves(
    size: int, first: np.ndarray, second: np.ndarray, groups: Groups | None
) -> tuple[sparse.csr_array, np.ndarray]:
    """What swaps, rows or groups of them: how the first side's counts of kinds, (P, size), change by one of
    each sort, and the sort of each that changes anything."""
    rows = np.flatnonzero(first != second)
    pairs = np.stack([first[rows], second[rows]], axis=1)
    if groups is None:
        pairs, sort = np.unique(pairs, axis=0, return_inverse=True)
        sort = sort.reshape(-1)
        places = np.arange(len(pairs))
    else:
        units, places = np.unique(groups.codes[rows], return_inverse=True)
        sort = np.arange(len(units))
    shape = (len(places) if groups is None else len(sort), size)
    signs = np.tile([-1, 1], len(pairs))
    return sparse.csr_array((signs, (np.repeat(places, 2), pairs.reshape(-1))), shape), sort


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The exact two-sided p-value of McNemar's test (1947), a binomial test on the rows that one has right
    and the other has wrong, from (N,) what is right."""
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def welch(first: Seeds, second: Seeds) -> tuple[float, float]:
    """The 95 % interval of the difference of two means of at least two seeds each (Welch 1947, widened for
    few seeds as `two_means` has it); nan without any spread."""
    if not (deviation(first) or deviation(second)):
        return nan, nan
    a, b = ((deviation(side) ** 2 / len(side), len(side) - 1) for side in (first, second))
    half = float(two_means.half_width(a, b, LEVEL))
    gap = float(np.mean(second) - np.mean(first))
    return gap - half, gap + half


def permutation(first: Seeds, second: Seeds, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p-value of the difference of two means when seeds change groups: exact, of all ways to
    divide them, where there are at most `draws`; otherwise (hits + 1) / (draws + 1)."""
    pooled = np.concatenate([first, second])
    close = CLOSE * np.abs(pooled).max()
    n = len(first)
    if exact := comb(len(pooled), n) <= draws:
        chosen = np.array(list(combinations(range(len(pooled)), n)))
    else:
        chosen = np.argsort(np.random.default_rng(seed).random((draws, len(pooled))), axis=1)[:, :n]
    means = pooled[chosen].mean(axis=1)
    differences = (pooled.sum() - n * means) / len(second) - means
    hits = int((abs(differences) >= abs(np.mean(second) - np.mean(first)) - close).sum())
    return (hits + (not exact)) / (len(chosen) + (not exact))


def hedges(first: Seeds, second: Seeds) -> float:
    """Hedges' g (1981): the difference of the means in standard deviations of the seeds, small samples
    corrected for; nan without any spread."""
    if not (deviation(first) or deviation(second)):
        return nan
    freedom = len(first) + len(second) - 2
    squares = sum(np.var(side) * len(side) for side in (first, second))
    effect = (np.mean(second) - np.mean(first)) / np.sqrt(squares / freedom)
    return float(effect * (1 - 3 / (4 * freedom - 1)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that one of them is wrong in 5 % at most (Holm 1979)."""
    order = np.argsort(p)
    raised = np.maximum.accumulate(np.minimum(1, np.asarray(p)[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in raised[np.argsort(order)]]
