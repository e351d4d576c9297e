"""Was a published number reached? The conditions of a comparison, and the rule that judges it: pure
functions.

The rule, in points (hundredths of a fraction; SQuAD's metrics have that scale already). Of n published and m
measured runs, spread taken as equal, the difference of their means has the standard error s·√(1/n + 1/m),
where s is the standard deviation of the measured runs, pooled with the published one where there is one. Its
95 % interval is Student's t: a prediction interval for the published value, turned round. Lies the interval
inside ± margin, the number is *reproduced*, also where it excludes zero: a difference smaller than the margin
is no failure. Otherwise it is *below* or *above* where the interval excludes zero, and *inconclusive* where
it holds zero. `benchmarks/verdict.py` simulates the rule's errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import families
from bert_ft.config.references import Reference
from bert_ft.config.task import Task
from bert_ft.files import difference
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.naming import short_name

LEVEL, MOST = 0.95, 1000  # of the intervals; seeds that are worth asking for
STATED = ("learning_rate", "batch_size", "keep")  # what a source must say, beside the length of the training


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one published number.

    Attributes:
        verdict: reproduced, below, above, inconclusive, incomplete (runs are missing) or not comparable.
        difference, interval: measured less published, in points; None where nothing was judged.
        seeds: how many would decide an inconclusive one, if mean and spread stay; None: no number of them
            would.
        why: the conditions that are not met, or the verdict in words.
    """

    verdict: str
    why: list[str]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int | None = None


# --- the conditions


def origin(checkpoint: str) -> tuple[str, str]:
    """(short name of the pretrained checkpoint, the tasks it was trained on since then: "none", or
    "mnli")."""
    trained: list[str] = []
    seen = set[Path]()
    while True:
        path = Path(checkpoint).expanduser()
        folder = RunDir(path.parent if path.name == "model" else path)
        if folder.state != "finished" or folder.path.resolve() in seen:
            return short_name(checkpoint), "+".join(trained) or "none"
        task = folder.task()
        seen.add(folder.path.resolve())
        trained.insert(0, task.name)
        checkpoint = task.run.checkpoint or "a model object"


def recipe(reference: Reference) -> dict[str, Any]:
    """The settings that a reference's recipe makes, its grid aside."""
    return {f"recipe.{key}": value for key, value in reference.recipe.items() if key != "grid"}


def conditions(reference: Reference, base: Task, task: Task, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """The conditions of a published number that a run does not meet, in words; all that is known before it is
    trained.

    Args:
        base: the task as its file has it. task: the task as it is run, with its checkpoint.
        grid: what is searched, key of the recipe -> values; empty where nothing is.
    """
    out = []
    name, intermediate = origin(task.run.checkpoint or "")
    if short_name(reference.checkpoint) != name:
        out.append(f"checkpoint: {short_name(reference.checkpoint)} published, {name} here")
    if reference.intermediate != intermediate:
        out.append(f"intermediate training: {reference.intermediate} published, {intermediate} here")
    if lacking := [metric for metric in forms(reference.metric) if metric not in task.metric.compute]:
        out.append(f"metric: {', '.join(lacking)} is not computed here")
    size, searched = math.prod(map(len, grid.values())), reference.statistic == "best of grid"
    if reference.statistic == "not stated":
        out.append(
            "statistic: the source does not say whether it is a single run, a mean, a median or a best"
        )
    elif searched and not grid:
        out.append("statistic: the best of a grid published, no grid searched here (--grid)")
    elif searched and reference.runs != size:
        out.append(
            f"statistic: the best of {reference.runs or 'an unknown number of runs'} published, of {size} "
            "here"
        )
    elif grid and not searched:
        out.append(f"statistic: {reference.statistic} published, the best of a grid of {size} here")
    said = {*reference.recipe, *grid}
    if silent := [key for key in STATED if key not in said] + ["epochs"] * (
        not said & {"epochs", "max_steps"}
    ):
        out.append(f"recipe: the source does not state {', '.join(silent)}")
    expected = base.override(recipe(reference))
    for line in difference(_conditions(expected, grid), _conditions(task, grid)):
        out.append(f"{line.replace(' -> ', ' published, ')} here")
    return out + reference.unmet


def _conditions(task: Task, grid: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison wants equal: not how a step is computed, nor what a grid varies."""
    tree = task.model_dump(exclude={"name", "title", "run", "reference", "batching"})
    tree["recipe"] = {key: value for key, value in tree["recipe"].items() if key not in ("grid", *grid)}
    return tree


def forms(metric: str) -> list[str]:
    """The metrics behind a metric's form: "f1", or "mean of pearson and spearmanr"."""
    return metric.removeprefix("mean of ").split(" and ")


def points(value: float | None, family: str, metric: str) -> float:
    """A run's metric on the scale that is published: points, 0 to 100; nan where it is undefined."""
    if value is None:
        return math.nan
    return value if metric in LOWER_IS_BETTER else 100 / families.known(family).metric_scale * value


def measured(metric: str, family: str, scores: Mapping[str, float | None]) -> float:
    """What a run has on one set for a metric's form, in points. Raises KeyError: it has no such score."""
    return float(np.mean([points(scores[part], family, part) for part in forms(metric)]))


# --- the rule


def interval(
    value: Any, n: int, std: Any, values: Any, statistic: str, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """(measured less published, half the width of its interval); nan where nothing tells the spread.

    Args:
        value: (...) published. n: runs behind it. std: (...) of these, or None.
        values: (..., m) measured. statistic: "median" or one that is a mean.
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    center = np.median(values, axis=-1) if statistic == "median" else values.mean(axis=-1)
    m = values.shape[-1]
    squares, freedom = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1), m - 1
    if std is not None and n > 1:
        squares, freedom = squares + (n - 1) * np.square(std), freedom + n - 1
    if not freedom:
        return center - value, np.full_like(center, np.nan)
    return center - value, t.ppf((1 + level) / 2, freedom) * np.sqrt(
        squares / freedom * _variance(n, m, statistic)
    )


def _variance(n: int, m: Any, statistic: str) -> Any:
    """Of the difference, in units of the runs' variance. A median of many normal values has π/2 times the
    variance of their mean, of few a little less (Kenney and Keeping 1962); of one or two it is their mean."""
    return sum(
        np.where((k > 2) & (statistic == "median"), np.pi / 2, 1) / k for k in (np.asarray(n), np.asarray(m))
    )


def rule(difference: Any, half: Any, margin: float) -> np.ndarray:
    """The verdict's word for each difference and half-width: the rule of this module's text."""
    difference, half = np.asarray(difference, float), np.asarray(half, float)
    words = [np.abs(difference) + half <= margin, difference + half < 0, difference - half > 0]
    return np.select(words, ["reproduced", "below", "above"], "inconclusive")


def judge(
    value: float,
    n: int | None,
    std: float | None,
    values: Sequence[float],
    statistic: str,
    margin: float = 1.0,
) -> Verdict:
    """The verdict on a published value whose every condition is met.

    Args:
        value: published, of n runs (None, the source does not say: taken as one), with their standard
            deviation.
        values: measured, one a seed; with "best of grid" each the one that did best on validation.
        statistic: the reference's. margin: points that a difference may have.
    """
    from scipy.stats import t

    m = len(values)
    known = (n or 1) if statistic in ("mean", "median") else 1
    if any(map(math.isnan, values)):
        return Verdict(
            "inconclusive", [f"the metric is undefined in {sum(map(math.isnan, values))} of {m} seeds"]
        )
    gap, half = (float(x) for x in interval(value, known, std, values, statistic))
    what = "median" if statistic == "median" else "mean"
    runs = f"{known} run{'s' * (known > 1)}" + ", their number not stated" * (
        n is None and statistic in ("mean", "median")
    )
    told = f"{what} of {m} seeds less published ({runs}): {gap:+.2f} points"
    if not half > 0:  # one seed alone, or none that differs
        lacking = "one seed has no spread" if m == 1 else "the seeds do not differ"
        return Verdict(
            "inconclusive",
            [f"{told}; {lacking}, so there is no interval: more seeds"],
            gap,
            seeds=2 if m == 1 else None,
        )
    freedom = m - 1 + (known - 1) * (std is not None)
    told += (
        f", 95 % interval {gap - half:+.2f} to {gap + half:+.2f} (Student's t, {freedom} degrees of freedom)"
    )
    word = str(rule(gap, half, margin))
    low_high = (gap - half, gap + half)
    if word != "inconclusive":
        clear = abs(gap) > half and word == "reproduced"
        return Verdict(word, [told + f"; a real difference, and inside ±{margin:g}" * clear], gap, low_high)
    more = np.arange(m + 1, MOST)
    spread = half / float(t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(_variance(known, m, statistic)))
    halves = t.ppf((1 + LEVEL) / 2, freedom - m + more) * spread * np.sqrt(_variance(known, more, statistic))
    enough = more[rule(gap, halves, margin) != "inconclusive"]
    seeds = int(enough[0]) if len(enough) else None
    hint = (
        f"about {seeds} seeds would decide it, if mean and spread stay"
        if seeds
        else (
            "no number of seeds decides it: the published value alone varies by "
            f"±{1.96 * spread / math.sqrt(known):.2f}"
        )
    )
    return Verdict("inconclusive", [f"{told}; {hint}"], gap, low_high, seeds)
