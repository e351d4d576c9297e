"""Was a published number of a frozen encoder reached? Pure functions.

Nothing is trained and every row is drawn as it was for the published number, so that the same value is due.
It is *reproduced* where it lies within the margin, 0.0001 points by default, or within half a unit of the
last digit that the source gives. Draws whose values are published are compared one by one. Where a value
differs, the words are those of `reproduce.verdict`: draws by the interval of their differences in pairs
(where the mean alone is published, by that of two independent means), a value without draws by its
difference, which has no spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bert_ft.config.frozen import FrozenReference
from bert_ft.tools.reproduce import verdict
from bert_ft.tools.reproduce.verdict import FEWEST, FIRST, Published, Verdict

MARGIN = 1e-4  # points that rounding may cost: 1e-6 of a correlation


def resolution(reference: FrozenReference) -> float:
    """Half a unit of the last digit that the source gives, in points."""
    values = [reference.value, *reference.draws]
    digits = max(len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values)
    return float(0.5 * 10.0**-digits)


def judge(reference: FrozenReference, values: Sequence[float], margin: float = MARGIN) -> Verdict:
    """The verdict on one published number whose every condition is met.

    Args:
        values: measured, in points; one, or one a draw.
        margin: points that a reproduced number may differ by.
    """
    if undefined := sum(not math.isfinite(value) for value in values):
        return Verdict("inconclusive", [f"the metric is undefined in {undefined} of {len(values)} values"])
    margin = max(margin, resolution(reference) * (1 + 1e-9))
    room = f"{margin:.2g} points"
    if reference.draws:
        gaps = np.subtract(values, reference.draws)
        apart = int((np.abs(gaps) > margin).sum())
        if not apart:
            why = f"each of {len(values)} draws is the published one, to {room}"
            return Verdict("reproduced", [why], float(gaps.mean()))
        what = f"{apart} of {len(values)} draws differ from the published ones; their mean"
        return _differing(what, float(gaps.mean()), _half(gaps), margin, "Student's t of the differences")
    gap = float(np.mean(values)) - reference.value
    if abs(gap) <= margin:
        return Verdict("reproduced", [f"{gap:+.2g} points, within {room}"], gap)
    if len(values) == 1:
        return _differing("one value", gap, 0.0, margin, "")
    published = Published(reference.value, reference.runs, reference.std, "mean")
    half = float(verdict.interval(published, values)[1])
    return _differing(f"mean of {len(values)} draws", gap, half, margin, "as of independent draws")


def _half(gaps: np.ndarray) -> float:
    """Half the width of the interval of the mean of differences in pairs; nan of fewer than three."""
    from scipy.stats import t

    n = len(gaps)
    if n < FEWEST:
        return math.nan
    return float(t.ppf((1 + FIRST) / 2, n - 1) * np.std(gaps, ddof=1) / math.sqrt(n))


def _differing(what: str, gap: float, half: float, margin: float, method: str) -> Verdict:
    """The verdict on a difference and half the width of its interval: nan, nothing tells it; 0, there is no
    spread."""
    statement = f"{what}: {gap:+.4g} points"
    if math.isnan(half):
        return Verdict("inconclusive", [f"{statement}; too few draws for an interval"], gap)
    word = str(verdict.rule(gap, half, margin))
    if not method:
        return Verdict(word, [statement], gap)
    low, high = gap - half, gap + half
    why = f"{statement}, {100 * FIRST:g} % interval {low:+.4g} to {high:+.4g} ({method})"
    return Verdict(word, [why], gap, (low, high), FIRST)
