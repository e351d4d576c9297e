"""Verdicts: how often *below* or *above* is wrong, and the power to see a loss, one look or many, one number or nine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cells import Rate, Simulated
from scipy.stats import t

from bert_ft.tools.reproduce.verdict import (
    DIFFERENT,
    FIRST,
    GROWTH,
    LATER,
    Published,
    interval,
    judge_together,
    rule,
)

TITLE = "Verdicts on published numbers"
MARGIN = 1.0
ERROR = 6.0  # per cent, at most
SEEDS = (3, 5, 10, 20)
WRONG = ("below", "above")
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)


def words(
    theirs: np.ndarray, ours: np.ndarray, statistic: str, stated: bool, level: float = FIRST
) -> np.ndarray:
    """The verdicts on (draws, n) published and (draws, m) measured runs; nothing is said of seeds that agree."""
    published = _published(theirs, statistic, stated)
    return rule(*interval(published, ours, level), MARGIN, published.robust)


def _published(theirs: np.ndarray, statistic: str, stated: bool) -> Published:
    value = np.median(theirs, axis=-1) if statistic == "median" else theirs.mean(axis=-1)
    std = theirs.std(axis=-1, ddof=1) if stated else None
    return Published(value, theirs.shape[-1], std, statistic)  # type: ignore[arg-type]


def before(theirs: np.ndarray, ours: np.ndarray, statistic: str, stated: bool) -> np.ndarray:
    """The verdicts of the rule until 0.1: one spread for both sides, pooled where theirs is stated."""
    n, m = theirs.shape[-1], ours.shape[-1]
    published = _published(theirs, statistic, stated)
    center = np.median(ours, axis=-1) if statistic == "median" else ours.mean(axis=-1)
    squares, freedom = ours.var(axis=-1) * m, m - 1
    if stated:
        squares, freedom = squares + theirs.var(axis=-1) * n, m + n - 2
    parts = sum((np.pi / 2 if statistic == "median" and k > 2 else 1) / k for k in (n, m))
    half = t.ppf((1 + FIRST) / 2, freedom) * np.sqrt(squares / freedom * parts)
    return rule(center - published.value, half, MARGIN)


def share(found: np.ndarray, *of: str) -> float:
    """Per cent of the verdicts that are one of these words."""
    return float(100 * np.isin(found, of).mean())


def wrong(found: np.ndarray) -> float:
    """Per cent that call equal numbers different; *reached* is not wrong of them."""
    return share(found, *WRONG)


def collapsing(random: np.random.Generator, shape: Sequence[int], std: float) -> np.ndarray:
    """Normal seeds, of which one in ten falls by 17 points, as from 70 to the majority's 53."""
    return random.normal(0, std, shape) - 17 * (random.random(shape) < 0.1)


def one_look(draws: int) -> Simulated:
    table = Simulated(
        "One look, spreads that differ or not",
        "Published and measured runs are normal and equal in truth, or ours are one point worse; `ratio` is the "
        "published runs' spread over ours. *Wrong*: below or above where the truth is equal and our spread two points, the "
        "hardest. *Sees*: below, where ours are a point worse and spread by half a point. *Before*: the rule that pooled both spreads. Where the source states a spread, *wrong* "
        f"must be {ERROR:g} % at most at every ratio. Where it states none the verdict is made for equal spreads, and "
        "says how many times ours theirs may be: *wrong as stated* counts those whose statement covers the ratio.",
        ["published", "ratio", "seeds", "wrong", "before", "wrong as stated", "sees", "before"],
    )
    for statistic, n, stated in (("mean", 5, True), ("mean", 3, True), ("mean", 10, True), ("median", 5, True),
                                 ("mean", 5, False), ("single run", 1, False), ("median", 5, False)):  # fmt: skip
        for ratio in RATIOS:
            for m in SEEDS:
                random = np.random.default_rng([n, m, int(10 * ratio), stated])
                theirs, ours = random.normal(0, ratio, (draws, n)), random.normal(0, 1, (draws, m))
                found, old = (
                    share(f(2 * theirs, 2 * ours, statistic, stated), *WRONG) for f in (words, before)
                )
                sees, old_sees = (
                    share(f(theirs / 2, ours / 2 - 1, statistic, stated), "below") for f in (words, before)
                )
                rate = Rate(found, draws, high=ERROR if stated or ratio == 1 else None)
                told = (
                    ""
                    if stated
                    else Rate(as_stated(2 * theirs, 2 * ours, statistic, ratio), draws, high=ERROR)
                )
                name = f"{statistic} of {n}" if n > 1 else statistic
                table.rows.append([
                    f"{name}{', with its std' if stated else ''}", ratio, m, rate, f"{old:.1f} %", told,
                    f"{sees:.0f} %", f"{old_sees:.0f} %",
                ])  # fmt: skip
    return table


def as_stated(theirs: np.ndarray, ours: np.ndarray, statistic: str, ratio: float) -> float:
    """Per cent that are called different, wrongly, and are said to stand at this ratio of the spreads."""
    n, m = theirs.shape[-1], ours.shape[-1]
    published = _published(theirs, statistic, False)
    gap, half = interval(published, ours)
    parts = [(np.pi / 2 if statistic == "median" and k > 2 else 1) / k for k in (n, m)]
    wider = half * np.sqrt((ratio**2 * parts[0] + parts[1]) / (parts[0] + parts[1]))
    found = rule(gap, half, MARGIN, published.robust)
    return float(100 * (np.isin(found, WRONG) & (abs(gap) > wider)).mean())


def skewed(draws: int) -> Simulated:
    table = Simulated(
        "Seeds that collapse",
        "One seed in ten, of theirs and of ours, falls by 17 points; the others spread by half a point or one. Of a "
        "mean without a spread, or of a single run, nothing is called above: it is *reached* (told beside).",
        ["published", "spread", "seeds", "wrong", "before", "reached"],
    )
    for statistic, n, stated in (("mean", 5, False), ("mean", 10, False), ("single run", 1, False), ("mean", 5, True),
                                 ("mean", 10, True), ("median", 5, False), ("median", 3, False),
                                 ("median", 1, False)):  # fmt: skip
        for std in (0.5, 1.0):
            for m in (1, 3, 5, 10):
                random = np.random.default_rng([n, m, int(10 * std), stated, 9])
                theirs, ours = (collapsing(random, (draws, k), std) for k in (n, m))
                found = words(theirs, ours, statistic, stated)
                old = before(theirs, ours, statistic, stated) if m > 1 or stated else found
                rate = Rate(wrong(found) if m > 2 else np.nan, draws, high=ERROR)
                name = f"{statistic} of {n}{', with its std' if stated else ''}"
                table.rows.append(
                    [name, std, m, rate, f"{wrong(old):.1f} %", f"{share(found, 'reached'):.1f} %"]
                )
    return table


def looking_again(draws: int) -> Simulated:
    table = Simulated(
        "Looking again, up to 40 seeds",
        f"The first look is at {FIRST:.0%}, later ones at {100 * LATER:g} % and with {GROWTH:g} times the seeds at "
        "least. *Wrong*: below or above at any look, where the truth is equal; *sees*, *seeds*: below at a look, and "
        "the seeds used on average, where ours are a point worse. *Before*: 95 % at each of the same looks.",
        [
            "published",
            "spread",
            "looks at",
            "wrong",
            "before",
            "reproduced",
            "seeds",
            "sees",
            "before",
            "seeds",
        ],
    )
    for n, stated in ((1, False), (5, False), (10, False), (5, True), (10, True)):
        for std in (0.5, 1.0, 2.0):
            for looks in ((3, 5, 8, 12, 18, 27, 40), (3, 10, 40), (5, 20)):
                random = np.random.default_rng([n, int(10 * std), len(looks), stated])
                theirs, ours = random.normal(0, std, (draws, n)), random.normal(0, std, (draws, max(looks)))
                found = [followed(theirs, ours - loss, looks, stated, LATER) for loss in (0, 1)]
                old = [followed(theirs, ours - loss, looks, stated, FIRST) for loss in (0, 1)]
                table.rows.append([
                    f"{'mean of ' if n > 1 else ''}{n}{', with its std' if stated else ''}", std, ", ".join(map(str, looks)),
                    Rate(wrong(found[0][0]), draws, high=ERROR), f"{wrong(old[0][0]):.1f} %",
                    f"{share(found[0][0], 'reproduced'):.0f} %", f"{found[0][1].mean():.1f}",
                    f"{share(found[1][0], 'below'):.0f} %", f"{share(old[1][0], 'below'):.0f} %", f"{found[1][1].mean():.1f}",
                ])  # fmt: skip
    return table


def followed(
    theirs: np.ndarray, ours: np.ndarray, looks: Sequence[int], stated: bool, later: float
) -> tuple[np.ndarray, np.ndarray]:
    """The first verdict that decides, or the last, and the seeds behind it."""
    found = np.full(len(ours), "inconclusive", dtype="<U12")
    seeds = np.full(len(ours), max(looks))
    for place, m in enumerate(looks):
        open_ = found == "inconclusive"
        # of one run "above" is not said: counted as the same error here, by the rule of a robust number
        published = _published(theirs, "mean", stated)
        now = rule(*interval(published, ours[:, :m], later if place else FIRST), MARGIN)
        seeds[open_ & (now != "inconclusive")] = m
        found[open_] = now[open_]
    return found, seeds


def together(draws: int) -> Simulated:
    table = Simulated(
        "Many numbers at once",
        "So many tasks, each a mean of five with its spread, five seeds of ours. *Wrong*: at least one is called "
        "below or above where all are equal. *Sees*: one of them is two points worse, the others equal, and that one is "
        "called below. *Before*: each by itself.",
        ["numbers", "spread", "wrong", "before", "sees", "before"],
    )
    for count in (1, 2, 9, 20):
        for std in (0.5, 1.0):
            random = np.random.default_rng([count, int(10 * std)])
            errors, alone, seen, seen_alone = 0, 0, 0, 0
            for _ in range(draws):
                theirs, ours = random.normal(0, std, (2, count, 5))
                errors += any(word in DIFFERENT for word in _together(theirs, ours))
                alone += bool(np.isin(before(theirs, ours, "mean", True), WRONG).any())
                ours[0] -= 2
                seen += _together(theirs, ours)[0] == "below"
                seen_alone += before(theirs[:1], ours[:1], "mean", True)[0] == "below"
            table.rows.append([
                count, std, Rate(100 * errors / draws, draws, high=ERROR), f"{100 * alone / draws:.1f} %",
                f"{100 * seen / draws:.0f} %", f"{100 * seen_alone / draws:.0f} %",
            ])  # fmt: skip
    return table


def _together(theirs: np.ndarray, ours: np.ndarray) -> list[str]:
    cases = [(_published(a, "mean", True), b.tolist()) for a, b in zip(theirs, ours, strict=True)]
    return [verdict.verdict for verdict in judge_together(cases, MARGIN)]


def simulate(scale: float) -> list[Simulated]:
    """All tables; at scale 1 of 20,000 draws a line, and 1,000 of many numbers at once."""
    draws = int(20_000 * scale)
    return [one_look(draws), skewed(draws), looking_again(draws), together(int(1000 * scale))]
