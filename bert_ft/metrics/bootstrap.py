"""Parts and resamples of a set, and the interval that each of its metrics gets: what holds is simulated in
benchmarks/simulations/intervals.py, and told in docs/statistics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.metrics.scoring import Scoring, Values

DRAWS = 1000
LEVEL = 0.95
CELLS = 4_000_000  # of (D, U) held at a time
HALF_A_ROW = 0.5  # right, and as much wrong: what is added to the rows before they are drawn
FEWEST_OF_A_LABEL = 20
FEWEST_GROUPS = 10
FEWEST_MIXED = 5  # groups with an error, groups with a right row, groups that differ
BLOCKS = 500  # of groups, that a jackknife leaves out one by one

EXACT = "exact (Clopper and Pearson)"
SMOOTHED = f"smoothed bootstrap, {DRAWS:,} samples"
SCALED = f"the spread of {DRAWS:,} bootstrap samples"
JACKKNIFE = "jackknife, one of them left out at a time"

CORRELATIONS = ("pearson", "spearmanr", "matthews_correlation")

Scale = Callable[[Any], Any]


class Interval(NamedTuple):
    """A 95 % interval, and how it comes about."""

    low: float
    high: float
    method: str


class Groups(NamedTuple):
    """Which rows hang together. `unit`: what the groups are, in the plural. `codes`: (N,) the group of each
    row, from 0."""

    unit: str
    codes: np.ndarray

    @property
    def number(self) -> int:
        return int(self.codes.max()) + 1

    def __str__(self) -> str:
        unit = self.unit if self.number != 1 else self.unit.replace("groups", "group").rstrip("s")
        return f"{self.number:,} {unit}"


class Resamples:
    """A scored set as kinds of rows.

    Args:
        keys: (N, K) what each row counts; equal rows are one kind.
        scoring: what the metrics of such rows are.
        groups: rows that hang together; None: each row stands for itself.
    """

    def __init__(self, keys: np.ndarray, scoring: Scoring, groups: Groups | None = None) -> None:
        right, wrong = scoring.examples(keys)
        rows = np.concatenate([keys, right, wrong]) if len(right) else keys
        self.kinds, kind = np.unique(rows, axis=0, return_inverse=True)
        self.kind = kind.reshape(-1)[: len(keys)]
        self.examples = kind.reshape(-1)[len(keys) :].reshape(2, -1)  # (right, wrong)
        self.size = len(self.kinds)
        self.scoring = scoring
        self.groups = groups
        self.score = scoring.of(self.kinds)

    def of(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """The metrics of some of the rows (all by default): nan where one is undefined."""
        counts = np.bincount(self.kind[rows], minlength=self.size)
        with np.errstate(all="ignore"):
            return {name: float(value[0]) for name, value in self.score(counts[None]).items()}

    def intervals(self, seed: int = 0) -> dict[str, Interval | str]:
        """The 95 % interval of each metric over other rows like these, or why there is none.

        Where each row stands for itself, a share of rows has its exact interval (Clopper and Pearson 1934);
        correlations and errors that of Student's t around them, on Fisher's or the log scale, with the spread
        of a Bayesian bootstrap (Rubin 1981); everything else the percentiles of that bootstrap of the rows,
        half a row that is right and half a row that is wrong, so that it has a width without any error too.
        Of groups: Student's t on the log-odds scale with the spread of the jackknife that leaves out one
        group at a time, and as many degrees of freedom as groups that weigh alike would have (Carter,
        Schnepel and Steigerwald 2017), less one.
        """
        whole = self.of()
        found: dict[str, Interval | str] = {
            name: "undefined on these rows" if np.isnan(value) else "no row is right, or every one"
            for name, value in whole.items()
        }
        found |= self._by_group(whole) if self.groups else self._by_row(whole, seed)
        return found | self.unfit(list(whole))

    def unfit(self, names: Iterable[str]) -> dict[str, str]:
        """Why there can be no interval, of the metrics that can have none."""
        n = len(self.kind)
        shares = self.scoring.shares(self.kinds)
        if self.groups is not None:
            if self.groups.number < FEWEST_GROUPS:
                return dict.fromkeys(names, f"{self.groups}, fewer than {FEWEST_GROUPS}")
            shares = {}
        elif n < self.scoring.fewest:
            reason = f"{_rows(n)}, fewer than {self.scoring.fewest}"
            return {name: reason for name in names if name not in shares}
        counts = np.bincount(self.kind, minlength=self.size)
        reasons: dict[str, str] = {}
        rests = self.scoring.rests_on(self.kinds)
        fewest: dict[int, tuple[int, str]] = {}  # several metrics rest on the same rows
        for name in rests.keys() & set(names) - shares.keys():
            rows = rests[name]
            if id(rows) not in fewest:
                fewest[id(rows)] = min((int(counts[some].sum()), what) for what, some in rows)
            few, what = fewest[id(rows)]
            if few < FEWEST_OF_A_LABEL:
                reasons[name] = f"{_rows(few)} {what}, fewer than {FEWEST_OF_A_LABEL}"
        return reasons

    def _by_row(self, whole: dict[str, float], seed: int) -> Iterator[tuple[str, Interval]]:
        counts = np.bincount(self.kind, minlength=self.size)
        shares = self.scoring.shares(self.kinds)
        for name, (hit, of) in shares.items():
            if total := int(counts[of].sum()):
                low, high = exact(int(counts[hit].sum()), total)
                yield name, Interval(self.scoring.top * low, self.scoring.top * high, EXACT)
        rest = {name: value for name, value in whole.items() if name not in shares and not np.isnan(value)}
        n = len(self.kind)
        if not rest or n < self.scoring.fewest:
            return
        prior = np.bincount(self.examples.reshape(-1), minlength=self.size) * HALF_A_ROW
        prior = prior / max(self.examples.shape[1], 1)
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            parts = [self.score(weights) for weights in drawn(counts, prior, DRAWS, rng)]
        samples = {name: np.concatenate([part[name] for part in parts]) for name in rest}
        for name, value in rest.items():
            if self.examples.size:
                low, high = percentiles(samples[name])
                yield name, Interval(min(low, value), max(high, value), SMOOTHED)
            elif interval := self._scaled(name, value, samples[name]):
                yield name, interval

    def _scaled(self, name: str, value: float, samples: np.ndarray) -> Interval | None:
        """Of Fisher's z the spread is not below that of normal numbers, since few pairs vary too little."""
        from scipy import stats

        n = len(self.kind)
        to, back = _scale(name, self.scoring.top)
        with np.errstate(all="ignore"):
            wide = np.nanstd(to(samples)) * np.sqrt((n + 1) / (n - 1))
            if name in CORRELATIONS:
                wide = max(wide, 1 / np.sqrt(n - 3))
            ends = to(value) + np.array([-1, 1]) * wide * stats.t.ppf((1 + LEVEL) / 2, n - 1)
        low, high = map(float, back(ends))
        return Interval(low, high, SCALED) if np.isfinite(ends).all() else None

    def _by_group(self, whole: dict[str, float]) -> Iterator[tuple[str, Interval | str]]:
        from scipy import stats

        assert self.groups is not None
        if self.groups.number < FEWEST_GROUPS:
            return
        left = self.left_out()
        student = stats.t.ppf((1 + LEVEL) / 2, self.freedom())
        for name, value in whole.items():
            to, back = _scale(name, self.scoring.top)
            with np.errstate(all="ignore"):
                ends = to(value) + np.array([-1, 1]) * student * spread(to(left[name]))
            if reason := self._too_even(name):
                yield name, reason
            elif np.isfinite(ends).all():
                low, high = map(float, back(ends))
                yield name, Interval(low, high, JACKKNIFE)

    def _too_even(self, name: str) -> str:
        """Why the groups tell too little of their spread; empty where they tell enough."""
        assert self.groups is not None
        right = self.scoring.right(self.kinds)
        sides = {} if right is None else {"an error": ~right}
        if name in (shares := self.scoring.shares(self.kinds)):
            hit, of = shares[name]
            sides = {"an error": of & ~hit, "a right row": hit}
        for what, mask in sides.items():
            if (few := len(np.unique(self.groups.codes[mask[self.kind]]))) < FEWEST_MIXED:
                return f"{few} of {self.groups} have {what}, fewer than {FEWEST_MIXED}"
        return ""

    # --- groups

    def blocks(self) -> np.ndarray:
        """(N,) what the jackknife leaves out together: the group, or of very many some of them by chance."""
        assert self.groups is not None
        if self.groups.number <= BLOCKS:
            return self.groups.codes
        places: np.ndarray = np.random.default_rng(0).permutation(self.groups.number) % BLOCKS
        blocks: np.ndarray = places[self.groups.codes]
        return blocks

    def left_out(self) -> Values:
        """(B,) each metric without one block of rows after the other."""
        from scipy import sparse

        blocks = self.blocks()
        shape = int(blocks.max()) + 1, self.size
        counts = sparse.csr_array((np.ones(len(blocks)), (blocks, self.kind)), shape)
        whole = counts.sum(axis=0)
        step = max(1, CELLS // self.size)
        with np.errstate(all="ignore"):
            parts = [self.score(whole - counts[at : at + step].toarray()) for at in range(0, shape[0], step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def freedom(self) -> float:
        """Degrees of freedom of the jackknife."""
        sizes = np.bincount(self.blocks()).astype(float)
        return float(max(sizes.sum() ** 2 / (sizes**2).sum() - 1, 1))


@lru_cache(10_000)
def exact(hits: int, of: int) -> tuple[float, float]:
    """The ends of the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    from scipy import (
        special,
    )  # scipy.stats.binomtest finds the same ends by a search, hundreds of times slower

    low = special.betaincinv(hits, of - hits + 1, (1 - LEVEL) / 2) if hits else 0.0
    high = special.betaincinv(hits + 1, of - hits, (1 + LEVEL) / 2) if hits < of else 1.0
    return float(low), float(high)


def spread(values: np.ndarray) -> float:
    """The jackknife's standard error, from (B,) values without one block each (Efron and Tibshirani 1993,
    11.5)."""
    n = len(values)
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


def drawn(
    counts: np.ndarray, prior: np.ndarray, draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """(D, U) at a time, `draws` in all, of a Bayesian bootstrap: how much each kind of row weighs, the sum
    being the number of rows.

    The weights are a little more uneven than Rubin's, so that the spread of few rows is that of Student's t.

    Args:
        counts: (U,) rows of each kind. prior: (U,) what is added to them.
    """
    from scipy import stats

    n = int(counts.sum())
    normal, student = (one.ppf((1 + LEVEL) / 2) for one in (stats.norm, stats.t(max(n - 1, 1))))
    each = max(((n - 1) * (normal / student) ** 2 - 1) / n, 0.05)
    shapes = each * counts + prior
    some = np.flatnonzero(shapes)
    step = max(1, CELLS // len(counts))
    for at in range(0, draws, step):
        weights = np.zeros((min(step, draws - at), len(counts)))
        weights[:, some] = rng.standard_gamma(shapes[some], (len(weights), len(some)))
        yield weights * (n / weights.sum(1, keepdims=True))


def _scale(name: str, top: float) -> tuple[Scale, Scale]:
    """The scale on which a metric is about as uncertain to both sides, and the way back."""
    if name in LOWER_IS_BETTER:
        return np.log, np.exp
    if name in CORRELATIONS:
        return np.arctanh, np.tanh
    return lambda x: np.log(np.divide(x, top - x)), lambda x: top / (1 + np.exp(-x))


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The ends of the 95 % percentile interval; draws in which a metric is undefined don't count."""
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


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
