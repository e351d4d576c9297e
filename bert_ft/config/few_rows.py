"""What a recipe leaves open, for few training rows: enough steps to learn anything at all.

Three epochs of 200 rows are 21 steps. Fine-tuning on few rows fails mostly for want of steps (Mosbach et al.
2021; Zhang et al. 2021): both train for hundreds of them, with a warmup, whatever the number of rows. 1,000
rows of six emotions are learned in 600 steps, and not in 300 (benchmarks/results/few-rows.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bert_ft.config.recipe import Recipe
from bert_ft.config.task import Task

LEAST = 300
"""Optimizer steps that a fine-tuning has at least, where its recipe says nothing of its length; ten passes
over its rows, too, as far as these are no more than twice as many."""
FEW = {"batch_size": 16, "learning_rate": 5e-5, "warmup_ratio": 0.1}
"""What it trains with on so few rows, where the recipe says nothing."""
EVALUATIONS = 3  # of such a training: an epoch of few rows is short beside the evaluation of many
PAIRS = {"batch_size": 16, "learning_rate": 1e-4, "warmup_ratio": 0.1}
"""The same of contrastive training, whatever the number of rows."""
PASSES = 10  # over the rows
MOST = 500  # steps of contrastive training, at most
LENGTH = {"epochs", "max_steps", "min_steps"}
STEPS = LENGTH | {"learning_rate", "batch_size", "schedule", "warmup_ratio", "warmup_steps", "weight_decay"}
STEPS |= {"dropout", "head_dropout", "layer_decay", "max_grad_norm", "patience", "eval_every"}
"""Keys of the recipe that a head which is fitted has no use for."""


def settled(task: Task, rows: int, windowed: bool = False) -> tuple[Task, str]:
    """The task with what its recipe leaves open, where that follows from the number of training rows; and a
    line that says so, empty where there is nothing to say.

    Args:
        windowed: whether a row may be trained on in several windows.
    """
    recipe = task.recipe
    stated = set(recipe.model_fields_set)
    if recipe.method == "features":
        unused = [key for key in type(recipe).model_fields if key in STEPS & stated]
        line = f'the method "features" takes no steps: {", ".join(unused)} have no effect' if unused else ""
        return task, line
    least = max(LEAST, min(2 * LEAST, _passes(PASSES, recipe, rows, FEW)))
    if recipe.method == "contrastive":
        changes = _pairs(recipe, rows)
    elif stated & LENGTH or recipe.epochs * math.ceil(rows / recipe.batch_size) >= least:
        return task, ""
    else:
        steps = max(least, _passes(recipe.epochs, recipe, rows, FEW))
        # rounded up: the last of them is the training's last step, and none comes just before it
        changes = {**FEW, "min_steps": steps, "eval_every": math.ceil(steps / EVALUATIONS)}
        if windowed and steps > LEAST:  # an epoch of many windows is long; of few rows there are too many
            del changes["eval_every"]
    if recipe.warmup_steps is not None:
        stated.add("warmup_ratio")
    if recipe.patience is not None:  # which counts evaluations
        stated.add("eval_every")
    changes = {key: value for key, value in changes.items() if key not in stated}
    if not changes:
        return task, ""
    values = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    line = f"{rows:,} training rows; what was not said is {values} (--epochs, --lr ... take their place)"
    return task.override({f"recipe.{key}": value for key, value in changes.items()}), line


def _pairs(recipe: Recipe, rows: int) -> dict[str, Any]:
    """What contrastive training takes for so many rows."""
    if recipe.model_fields_set & LENGTH:
        return dict(PAIRS)
    steps = min(MOST, _passes(PASSES, recipe, rows, PAIRS))
    return {**PAIRS, "max_steps": steps, "eval_every": steps}


def _passes(number: float, recipe: Recipe, rows: int, settings: Mapping[str, Any]) -> int:
    """The steps of so many passes over the rows, in the recipe's batches or, where it names none, these."""
    batch = recipe.batch_size if "batch_size" in recipe.model_fields_set else settings["batch_size"]
    return math.ceil(number * math.ceil(rows / batch))
