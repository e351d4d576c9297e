"""The conditions of a published number, without any one of which a comparison is worth nothing: pure
functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

STATED = ("learning_rate", "batch_size", "keep")  # what a source must say, beside the length of the training


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


def conditions(
    reference: Reference, base: Task, task: Task, grid: Mapping[str, Sequence[Any]], first: str | None = None
) -> list[str]:
    """The conditions of a published number that a run does not meet, in words; all that is known before it is
    trained.

    Args:
        base: the task as its file has it. task: the task as it is run, with its checkpoint.
        grid: what is searched, key of the recipe -> values; empty where nothing is.
        first: the task that the checkpoint will have been trained on by then.
    """
    out = []
    name, intermediate = origin(task.run.checkpoint or "")
    if first is not None:
        intermediate = first if intermediate == "none" else f"{intermediate}+{first}"
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
