"""Comparisons of runs where the truth is known: rows alone, documents, seeds, one run against several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from cells import Rate, Simulated

from bert_ft.metrics import scoring, significance
from bert_ft.metrics.bootstrap import Groups, Resamples, percentiles

TITLE = "Comparisons"
ACCURACY = "accuracy"
BOTH = scoring.Classes(["wrong", "right"], 1)  # of gold labels that are all 1
Runs = list[np.ndarray]
"""(N,) what each seed has right."""


def simulate(scale: float) -> list[Simulated]:
    return [rows(scale), documents(scale), interval_of_two(scale), seeds(scale), one_against_several(scale),
            permutations(scale), holm(scale)]  # fmt: skip


def resamples(right: np.ndarray, groups: Groups | None = None) -> Resamples:
    return Resamples(np.stack([np.ones_like(right, int), right.astype(int)], axis=1), BOTH, groups)


def two(rng: np.random.Generator, n: int, gain: float, spread: float = 0.0, size: int = 1) -> Runs:
    """Two models of accuracy .85 and .85 + gain, half of whose errors are at the same rows; they may be better and worse
    at whole documents of `size` rows: then the log-odds of each differ from the other's by `spread`."""
    of = np.arange(n) // size
    hard = rng.normal(size=n)
    sides = []
    for more in (0.0, gain):
        own = rng.normal(size=n) + spread * rng.normal(size=of[-1] + 1)[of]
        z = (hard + own) / np.sqrt(2 + spread**2)
        sides.append(z < significance.stats.norm.ppf(0.85 + more))
    return sides


def share(values: Sequence[bool], low: float | None = None, high: float | None = None) -> Rate:
    return Rate(100 * float(np.mean(values)), len(values), low, high)


def rows(scale: float) -> Simulated:
    """McNemar and randomisation of rows that are independent."""
    table = Simulated(
        "Two runs, independent rows",
        "p below .05. Accuracy by McNemar's exact test, macro F1 by randomisation; the gain is in points of accuracy.",
        ("rows", "gain", "McNemar", "randomisation"),
    )
    for n, gain in ((300, 0.0), (1000, 0.0), (300, 0.03), (1000, 0.03)):
        rng = np.random.default_rng(n)
        found: list[tuple[bool, bool]] = []
        for _ in range(int(300 * scale)):
            a, b = two(rng, n, gain)
            p = significance.randomisation(resamples(a), resamples(b), 400, 1)["f1"]
            found.append((significance.mcnemar(a, b) < 0.05, p < 0.05))
        high = None if gain else 6
        table.rows.append(
            [f"{n:,}", f"{100 * gain:.0f}", *(share(side, high=high) for side in zip(*found, strict=True))]
        )
    return table


def documents(scale: float) -> Simulated:
    """Two models that are better and worse at whole documents."""
    table = Simulated(
        "Two runs, documents of 20 rows",
        "p below .05 where the models differ by document (log-odds, standard deviation). McNemar takes rows one by one and "
        "is what earlier versions showed; now whole documents swap.",
        ("documents", "differ by", "gain", "McNemar", "randomisation of documents", "interval without 0"),
    )
    for number, spread, gain in (
        (12, 0.7, 0.0),
        (50, 0.7, 0.0),
        (50, 1.2, 0.0),
        (50, 0.0, 0.0),
        (50, 0.7, 0.05),
    ):
        rng = np.random.default_rng(number)
        found: list[tuple[bool, ...]] = []
        groups = Groups("documents", np.repeat(np.arange(number), 20))
        for _ in range(int(200 * scale)):
            a, b = two(rng, 20 * number, gain, spread, 20)
            first, second = resamples(a, groups), resamples(b, groups)
            p = significance.randomisation(first, second, 400, 1)[ACCURACY]
            low, high = percentiles(significance.differences([first], [second], 400, 1)[ACCURACY])
            found.append((significance.mcnemar(a, b) < 0.05, p < 0.05, not low <= 0 <= high))
        rates = [
            share(side, high=None if gain or not i else 6.5)
            for i, side in enumerate(zip(*found, strict=True))
        ]
        table.rows.append([number, spread, f"{100 * gain:.0f}", *rates])
    return table


def interval_of_two(scale: float) -> Simulated:
    """The difference of two runs, with many and with few rows that differ."""
    table = Simulated(
        "The interval of a difference, independent rows",
        "Two models of accuracy .85, or of .99, that truly differ by the gain. Few rows that differ make the interval "
        "wider than it would have to be: no upper bound at .99.",
        ("rows", "accuracy", "gain", "no interval", "coverage"),
    )
    for n, accuracy, gain in (
        (200, 0.85, 0.0),
        (1000, 0.85, 0.03),
        (60, 0.99, 0.0),
        (200, 0.99, 0.0),
        (1000, 0.99, 0.005),
    ):
        rng = np.random.default_rng(n)
        found: list[bool] = []
        sets = int(600 * scale)
        for _ in range(sets):
            a, b = (rng.random(n) < accuracy + more for more in (0.0, gain))
            sides = [resamples(a)], [resamples(b)]
            if significance.unfit(*sides, [ACCURACY]):
                continue
            low, high = percentiles(significance.differences(*sides, 600, 1)[ACCURACY])
            found.append(low - 1e-9 <= gain <= high + 1e-9)
        few = accuracy > 0.9
        table.rows.append([f"{n:,}", accuracy, f"{100 * gain:.1f}", f"{100 * (1 - len(found) / sets):.0f} %",
                           share(found, 93, None if few else 97)])  # fmt: skip
    return table


def trained(rng: np.random.Generator, m: int, sd: float, gain: float, hard: np.ndarray) -> Runs:
    """Seeds whose own accuracy has the standard deviation `sd`, on the same rows; half of each answer is the row's."""
    ppf = significance.stats.norm.ppf
    p = np.clip(0.85 + gain + sd * rng.normal(size=m), 0.05, 0.995)
    return [(hard + rng.normal(size=len(hard))) / np.sqrt(2) < ppf(each) for each in p]


def coverage(rng: np.random.Generator, sizes: tuple[int, int], sds: tuple[float, float], n: int, gain: float, sets: int
             ) -> list[tuple[bool, bool, float]]:  # fmt: skip
    """Of each set: whether the interval has the gain in it, whether p is below .05, and the interval's width."""
    found = []
    for _ in range(sets):
        hard = rng.normal(size=n)
        sides = [trained(rng, m, sd, more, hard) for m, sd, more in zip(sizes, sds, (0.0, gain), strict=True)]
        groups = [[resamples(one) for one in side] for side in sides]
        low, high = percentiles(
            significance.differences(groups[0], groups[1], 400, int(rng.integers(2**31)))[ACCURACY]
        )
        p = significance.permutation(*([float(one.mean()) for one in side] for side in sides), draws=400)
        found.append((low <= gain <= high, p < 0.05, high - low))
    return found


def table_of_seeds(
    title: str, text: str, cells: Sequence[tuple[tuple[int, int], tuple[float, float], int, float]], sets: int,
    bounds: Callable[[tuple[int, int]], tuple[float, float | None]],
) -> Simulated:  # fmt: skip
    table = Simulated(title, text, ("seeds", "sd", "rows", "gain", "coverage", "width", "p below .05"))
    for sizes, sds, n, gain in cells:
        found = coverage(np.random.default_rng(sum(sizes) + n), sizes, sds, n, gain, sets)
        inside, below, widths = zip(*found, strict=True)
        low, high = bounds(sizes)
        table.rows.append(
            [
                f"{sizes[0]} against {sizes[1]}",
                " and ".join(f"{100 * sd:g}" for sd in dict.fromkeys(sds)),
                f"{n:,}",
                f"{100 * gain:g}",
                share(inside, low, high),
                f"{100 * np.median(widths):.1f}",
                share(below, high=None if gain else 6),
            ]
        )
    return table


def seeds(scale: float) -> Simulated:
    """Groups of seeds: the interval over rows and seeds, and the permutation of seeds."""
    cells = [
        (sizes, (0.015, 0.015), n, 0.0) for sizes in ((2, 2), (3, 3), (5, 5), (3, 5)) for n in (500, 5000)
    ]
    cells += [((5, 5), (0.005, 0.02), 5000, 0.0), ((5, 5), (0.015, 0.015), 1000, 0.02)]
    return table_of_seeds(
        "Groups of seeds",
        "Accuracy .85, seeds spread by sd points. The interval is over rows and seeds; what rows change of single seeds is "
        "in both, and of two or three seeds Welch's degrees of freedom are few: it covers 95 % or more, hence no upper "
        "bound. Few seeds are wide: that is what they can tell.",
        cells,
        int(100 * scale),
        lambda sizes: (93, None),
    )


def one_against_several(scale: float) -> Simulated:
    """One run against a group."""
    cells = [((1, 5), (0.015, 0.015), n, 0.0) for n in (1000, 5000)] + [((1, 3), (0.015, 0.015), 1000, 0.0)]
    return table_of_seeds(
        "One run against several",
        "The single run's seeds are taken to vary as the group's do, which the output says; without this the interval "
        "covered 60 to 81 %.",
        cells,
        int(150 * scale),
        lambda sizes: (93, None),
    )


def permutations(scale: float) -> Simulated:
    """The permutation of seeds alone: its p is of these rows."""
    table = Simulated(
        "The permutation of seeds, and what it is for",
        "p below .05, of 5 against 5 seeds. Two methods that differ at single rows but not on average are different on "
        "these rows: p is for other seeds on these rows, and says so; the interval is over both.",
        ("methods", "rows", "p below .05", "interval without 0"),
    )
    for what, own in (("of one truth", 0.0), ("that differ by row, not on average", 1.0)):
        rng = np.random.default_rng(7)
        found: list[tuple[bool, bool]] = []
        for _ in range(int(200 * scale)):
            hard = rng.normal(size=(3, 1000))
            sides = [
                trained(rng, 5, 0.01, 0.0, (hard[0] + own * hard[i]) / np.sqrt(1 + own**2)) for i in (1, 2)
            ]
            p = significance.permutation(*([float(one.mean()) for one in side] for side in sides), draws=400)
            groups = [[resamples(one) for one in side] for side in sides]
            low, high = percentiles(significance.differences(groups[0], groups[1], 200, 1)[ACCURACY])
            found.append((p < 0.05, not low <= 0 <= high))
        below, without = zip(*found, strict=True)
        table.rows.append([what, "1,000", share(below, high=None if own else 6), share(without, high=6)])
    return table


def holm(scale: float) -> Simulated:
    """Four groups against the first, all of one truth."""
    table = Simulated(
        "Several groups against the first",
        "At least one p below .05 of four comparisons where all are of one truth, McNemar, 500 rows.",
        ("uncorrected", "Holm"),
    )
    rng = np.random.default_rng(11)
    found: list[tuple[bool, bool]] = []
    for _ in range(int(1000 * scale)):
        right = (rng.normal(size=500) + rng.normal(size=(5, 500))) / np.sqrt(2) < 1.0364
        p = [significance.mcnemar(right[0], other) for other in right[1:]]
        found.append((min(p) < 0.05, min(significance.holm(p)) < 0.05))
    plain, corrected = zip(*found, strict=True)
    table.rows.append([share(plain), share(corrected, high=6)])
    return table
