"""What a recipe leaves open, for few training rows: enough steps to learn anything at all.

Three epochs of 200 rows are 21 steps. Fine-tuning on few rows fails mostly for want of steps (Mosbach et al.
2021; Zhang et al. 2021): both train for hundreds of them, with a warmup, whatever the number of rows.
"""

from __future__ import annotations

import math
from typing import Any

from bert_ft.config.recipe import Recipe
from bert_ft.config.task import Task

STEPS = {"fine-tuning": 300, "contrastive": 30}
"""Method -> optimizer steps that a training has at least, where its recipe says nothing of its length."""
FEW: dict[str, dict[str, Any]] = {
    "fine-tuning": {"batch_size": 16, "learning_rate": 5e-5, "warmup_ratio": 0.1},
    "contrastive": {"batch_size": 16, "learning_rate": 5e-5, "warmup_ratio": 0.1},
}
"""Method -> what it trains with on few rows, where the recipe says nothing."""


def settled(task: Task, rows: int) -> tuple[Task, str]:
    """The task with the length of its training, where its recipe leaves that open, and what goes with it; and
    a line that says so, empty where nothing changed.

    Args:
        rows: of training.
    """
    recipe = task.recipe
    stated = recipe.model_fields_set
    least = STEPS.get(recipe.method)
    if least is None or stated & {"epochs", "max_steps"}:
        return task, ""
    changes = {key: value for key, value in FEW[recipe.method].items() if key not in stated}
    if "warmup_steps" in stated:
        changes.pop("warmup_ratio", None)
    batch = changes.get("batch_size", recipe.batch_size)
    if recipe.epochs * math.ceil(rows / recipe.batch_size) >= least:
        return task, ""
    changes["epochs"] = float(math.ceil(least / math.ceil(rows / batch)))
    changes = {key: value for key, value in changes.items() if value != getattr(recipe, key)}
    return task.override({f"recipe.{key}": value for key, value in changes.items()}), _line(rows, changes)


def _line(rows: int, changes: dict[str, Any]) -> str:
    values = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    usual = Recipe()
    return (
        f"{rows:,} training rows are few for {usual.epochs:g} epochs, and the recipe says nothing: {values} "
        "(epochs = N of your own takes their place)"
    )
