"""Was a published number reached? The rule that judges it, for numbers whose conditions are met: pure
functions.

In points (hundredths of a fraction; SQuAD's metrics have that scale already), of n published and m measured
runs:

- **The interval** of measured less published. Where the source gives the standard deviation of its runs:
  Welch's, widened for few runs (`metrics/two_means.py`), whatever the two spreads are. Where it gives none,
  they are taken to spread as ours do: Student's t, s·√(1/n + 1/m), a prediction interval for the published
  value, turned round; the verdict says up to how many times our spread theirs may be for it to stand. One
  or two seeds tell too little of a spread, and seeds that agree nothing: no interval.
- **The words.** Lies the interval inside ± margin, the number is *reproduced*, also where it excludes zero: a
  difference smaller than the margin is no failure. Otherwise it is *below* or *above* where the interval
  excludes zero, and *inconclusive* where it holds zero. Of a mean without a spread, or of a single run,
  *above* can't be said, since a training that collapsed may be in it: then the number is *reached*.
- **Looks.** The first look is at 95 %, every later one at 99.7 % and with half as many seeds again at least,
  so that all looks together err in about 6 % at most.
- **Many numbers** judged together keep 5 % for one error among them all (Holm 1979).

`benchmarks/simulations/verdicts.py` simulates its errors; `docs/statistics.md` has sources and assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from bert_ft.metrics import two_means

FIRST, LATER = 0.95, 0.997  # the levels of the first look and of those after it
FEWEST = 3  # runs that tell a spread
GROWTH = 1.5  # what the next look's seeds must be of this one's
FEWEST_TO_COMPARE, FAR = 4, 1.0  # seeds among which one may lie far off; points that are far
MOST = 1000  # seeds that are worth asking for
DIFFERENT = ("below", "above", "reached")  # the words that say that there is a difference


class Published(NamedTuple):
    """A published number. `runs`: None, the source does not say; taken as one. `std`: their standard
    deviation."""

    value: float
    runs: int | None
    std: float | None
    statistic: str

    @property
    def n(self) -> int:
        """The runs that the number is of; a best, or an unknown number of runs, is one number."""
        return (self.runs or 1) if self.statistic in ("mean", "median") else 1

    @property
    def spread(self) -> float | None:
        """The standard deviation of its runs, where there is one to use."""
        return self.std if self.n >= FEWEST else None

    @property
    def robust(self) -> bool:
        """Whether one collapsed run in it would show, or do no harm."""
        return self.spread is not None or (self.statistic == "median" and self.n > 2)


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one published number.

    Attributes: verdict: reproduced, below, above, reached, inconclusive, incomplete (runs are missing) or not
        comparable. why: the conditions that are not met, or the verdict in words. difference, interval:
        measured less published, in points; None where nothing was judged. level: the interval's. seeds: how
        many in all would decide an inconclusive one, if mean and spread stay; None: no number of them would.
    """

    verdict: str
    why: list[str]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None
    seeds: int | None = None


def interval(published: Published, values: Any, level: float = FIRST) -> tuple[np.ndarray, np.ndarray]:
    """(measured less published, half the width of its interval); nan where nothing tells the spread.

    Args:
        published: its value and std may be arrays, (...). values: (..., m) measured.
    """
    values = np.asarray(values, float)
    center = np.median(values, axis=-1) if published.statistic == "median" else values.mean(axis=-1)
    m = values.shape[-1]
    if m < FEWEST:
        return center - published.value, np.full_like(center, np.nan)
    half = _half_width(published, np.var(values, axis=-1, ddof=1), m, level)
    return center - published.value, np.where(two_means.same(values), np.nan, half)


def _half_width(published: Published, variance: Any, m: int, level: float) -> np.ndarray:
    """Half the width of the interval of m runs of this variance."""
    from scipy.stats import t

    theirs, ours = (_variance(k, published.statistic) for k in (published.n, m))
    if published.spread is None:
        return np.asarray(t.ppf((1 + level) / 2, m - 1) * np.sqrt(variance * (theirs + ours)))
    sides = (np.square(published.spread) * theirs, published.n - 1), (variance * ours, m - 1)
    return two_means.half_width(*sides, level)


def _variance(k: int, statistic: str) -> float:
    """Of the mean or median of k runs, in units of a run's. A median of many normal values has π/2 times the
    variance of their mean, of few a little less (Kenney and Keeping 1962); of one or two it is their mean."""
    return (math.pi / 2 if statistic == "median" and k > 2 else 1) / k


def rule(difference: Any, half: Any, margin: float, robust: bool = True) -> np.ndarray:
    """The verdict's word for each difference and half-width: the rule of this module's text. `robust`: of the
    published number."""
    difference, half = np.asarray(difference, float), np.asarray(half, float)
    words = [np.abs(difference) + half <= margin, difference + half < 0, difference - half > 0]
    return np.select(words, ["reproduced", "below", "above" if robust else "reached"], "inconclusive")


def judge(
    published: Published, values: Sequence[float], margin: float = 1.0, earlier: Sequence[int] = ()
) -> Verdict:
    """The verdict on one published number whose every condition is met.

    Args:
        values: measured, one a seed; with "best of grid" each the one that did best on validation.
        margin: points that a difference may have.
        earlier: with how many seeds it was looked at before.
    """
    return judge_together([(published, values)], margin, earlier)[0]


def judge_together(
    cases: Sequence[tuple[Published, Sequence[float]]], margin: float = 1.0, earlier: Sequence[int] = ()
) -> list[Verdict]:
    """The verdicts on numbers that are read together, in their order: those that say that there is a
    difference hold together, by Holm's correction. Arguments as of `judge`."""
    level = LATER if earlier else FIRST
    alone = [_judge_alone(*case, margin, level, earlier) for case in cases]
    judged = [i for i, verdict in enumerate(alone) if verdict.interval is not None]
    judged.sort(key=lambda i: _p(*cases[i]))
    together = list(alone)
    for place, i in enumerate(judged):
        stricter = 1 - (1 - level) / (len(judged) - place)
        gap, half = interval(*cases[i], stricter)
        if abs(gap) <= half:
            for j in judged[place:]:
                if alone[j].verdict in DIFFERENT:
                    together[j] = _withdrawn(cases[j], alone[j], margin, len(judged))
            break
    return together


def _p(published: Published, values: Sequence[float]) -> float:
    """What orders the numbers for Holm's correction: the p-value of Student's or Welch's t."""
    from scipy.stats import t

    gap, half = (float(x) for x in interval(published, values))
    freedom = _freedom(published, values)
    return float(2 * t.sf(abs(gap) / half * t.ppf((1 + FIRST) / 2, freedom), freedom))


def _freedom(published: Published, values: Sequence[float]) -> float:
    m = len(values)
    if published.spread is None:
        return m - 1
    theirs = published.spread**2 * _variance(published.n, published.statistic)
    ours = float(np.var(values, ddof=1)) * _variance(m, published.statistic)
    return float(two_means.freedom((theirs, published.n - 1), (ours, m - 1)))


def _withdrawn(
    case: tuple[Published, Sequence[float]], verdict: Verdict, margin: float, together: int
) -> Verdict:
    """A verdict that holds alone, but not among so many."""
    published, values = case
    seeds = _seeds(published, values, margin, 1 - (1 - LATER) / together)
    why = (
        f"{verdict.why[0]}; {verdict.verdict} by itself, but not among {together} numbers judged together "
        f"(Holm's correction), {_hint(published, seeds)}"
    )
    return replace(verdict, verdict="inconclusive", why=[why, *verdict.why[1:]], seeds=seeds)


def _judge_alone(
    published: Published, values: Sequence[float], margin: float, level: float, earlier: Sequence[int]
) -> Verdict:
    m = len(values)
    if undefined := sum(not math.isfinite(value) for value in values):
        return Verdict("inconclusive", [f"the metric is undefined in {undefined} of {m} seeds"])
    gap, half = (float(x) for x in interval(published, values, level))
    statement = f"{_name(published, m)}: {gap:+.2f} points"
    if math.isnan(half):
        few = f"fewer than {FEWEST} seeds tell too little of their spread"
        lacking = few if m < FEWEST else "the seeds do not differ"
        why = f"{statement}; {lacking}, so there is no interval: more seeds"
        return Verdict("inconclusive", [why], gap, seeds=FEWEST if m < FEWEST else None)
    outlier = _outlier(values)
    if earlier and m < (least := math.ceil(GROWTH * max(earlier))):
        why = (
            f"{statement}; judged with {max(earlier)} seeds before, and next with {least} in all: "
            "every look may err"
        )
        return Verdict("inconclusive", [why, *outlier], gap, seeds=least)
    statement += (
        f", {100 * level:g} % interval {gap - half:+.2f} to {gap + half:+.2f} ({_method(published, values)})"
    )
    found = Verdict(
        str(rule(gap, half, margin, published.robust)),
        [statement, *outlier],
        gap,
        (gap - half, gap + half),
        level,
    )
    if found.verdict == "inconclusive":
        seeds = _seeds(published, values, margin, LATER)
        return replace(found, why=[f"{statement}; {_hint(published, seeds)}", *outlier], seeds=seeds)
    notes = []
    if found.verdict == "reproduced" and abs(gap) > half:
        notes.append(f"a real difference, and inside ±{margin:g}")
    if published.spread is None:
        room = margin - abs(gap) if found.verdict == "reproduced" else abs(gap)
        times = _most_spread(published, values, room, level)
        notes.append(f"it stands if the published runs spread at most {times:.1f} times as ours")
    if found.verdict == "reached":
        notes.append("the source gives no spread, so that a collapsed run in its number can't be ruled out")
    return replace(found, why=["; ".join([statement, *notes]), *outlier])


def _name(published: Published, m: int) -> str:
    """What is compared, in words."""
    what = "median" if published.statistic == "median" else "mean"
    runs = f"{published.n} runs" if published.n > 1 else "1 run"
    if published.runs is None and published.statistic in ("mean", "median"):
        runs += ", their number not stated"
    seeds = "1 seed" if m == 1 else f"{m} seeds"
    return f"{what} of {seeds} less published ({runs})"


def _method(published: Published, values: Sequence[float]) -> str:
    """The interval's, in words."""
    freedom = f"{_freedom(published, values):.3g} degrees of freedom"
    if published.spread is None:
        return f"Student's t, {freedom}, the published runs' spread taken as ours"
    return f"Welch's t, widened for few runs, {freedom}"


def _most_spread(published: Published, values: Sequence[float], room: float, level: float) -> float:
    """How many times our standard deviation that of the published runs may be for half an interval to stay
    within `room`."""
    from scipy.stats import t

    m = len(values)
    most = (room / (float(t.ppf((1 + level) / 2, m - 1)) * float(np.std(values, ddof=1)))) ** 2
    theirs, ours = (_variance(k, published.statistic) for k in (published.n, m))
    return math.sqrt(max(most - ours, 0.0) / theirs)


def _outlier(values: Sequence[float]) -> list[str]:
    """A seed that lies far from the others, by Grubbs' test at 5 % (1950), in words."""
    from scipy.stats import t

    m = len(values)
    if m < FEWEST_TO_COMPARE:
        return []
    distances = np.abs(np.asarray(values) - np.mean(values)) / np.std(values, ddof=1)
    squared = float(t.ppf(1 - 0.05 / (2 * m), m - 2)) ** 2
    if distances.max() <= (m - 1) / math.sqrt(m) * math.sqrt(squared / (m - 2 + squared)):
        return []
    far = values[int(distances.argmax())]
    median = float(np.median(np.delete(values, distances.argmax())))
    if abs(far - median) < FAR:
        return []
    return [
        f"one seed, {far:.2f}, lies far from the others (Grubbs' test, 5 %), whose median is {median:.2f}: "
        "did that training collapse?"
    ]


def _seeds(published: Published, values: Sequence[float], margin: float, level: float) -> int | None:
    """The least number of seeds in all that decides at the next look, if mean and spread stay."""
    gap = float(interval(published, values)[0])
    variance = float(np.var(values, ddof=1))

    def decided(m: int) -> bool:
        half = _half_width(published, variance, m, level)
        return str(rule(gap, half, margin)) != "inconclusive"

    low, high = math.ceil(GROWTH * len(values)), MOST
    if not decided(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle + 1, high)
    return high


def _hint(published: Published, seeds: int | None) -> str:
    """What would decide, in words."""
    if seeds:
        return f"about {seeds} seeds in all would decide it, if mean and spread stay"
    if published.spread is None:
        return "no number of seeds decides it, if the published runs spread as ours do"
    return "no number of seeds decides it: the published value itself varies too much"
