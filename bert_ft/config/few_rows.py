"""What a recipe leaves open, for few training rows: enough steps to learn anything at all.

Three epochs of 200 rows are 21 steps. Fine-tuning on few rows fails mostly for want of steps (Mosbach et al.
2021; Zhang et al. 2021): both train for hundreds of them, with a warmup, whatever the number of rows.
"""

from __future__ import annotations

import math
from typing import Any

from bert_ft.config.task import Task

LEAST = 300
"""Optimizer steps that a fine-tuning has at least, where its recipe says nothing of its length."""
FEW = {"batch_size": 16, "learning_rate": 5e-5, "warmup_ratio": 0.1}
"""What it trains with on so few rows, where the recipe says nothing."""
EVALUATIONS = 3  # of such a training: an epoch of few rows is short beside the evaluation of many
PAIRS = {"batch_size": 16, "learning_rate": 1e-4, "warmup_ratio": 0.1}
"""The same of contrastive training, whatever the number of rows."""
PASSES = 10.0  # over the rows, of contrastive training
MOST = 500  # steps of it, at most


def settled(task: Task, rows: int) -> tuple[Task, str]:
    """The task with the length of its training, where its recipe leaves that open, and what goes with it; and
    a line that says so, empty where nothing changed.

    Args:
        rows: of training.
    """
    recipe = task.recipe
    if recipe.method == "features" or recipe.model_fields_set & {"epochs", "max_steps"}:
        return task, ""
    pairs = recipe.method == "contrastive"
    if not pairs and recipe.epochs * math.ceil(rows / recipe.batch_size) >= LEAST:
        return task, ""
    changes: dict[str, Any] = dict(PAIRS if pairs else FEW)
    batch = recipe.batch_size if "batch_size" in recipe.model_fields_set else changes["batch_size"]
    each = math.ceil(rows / batch)
    if pairs:
        changes["epochs"] = PASSES
        steps = math.ceil(PASSES * each)
        if steps > MOST:
            changes |= {"max_steps": MOST}
            steps = MOST
        changes["eval_every"] = steps
    else:
        changes["epochs"] = float(math.ceil(LEAST / each))
        changes["eval_every"] = math.ceil(changes["epochs"] * each / EVALUATIONS)
    stated = set(recipe.model_fields_set)
    if recipe.warmup_steps is not None:
        stated.add("warmup_ratio")
    if recipe.patience is not None:  # which counts evaluations
        stated.add("eval_every")
    changes = {key: value for key, value in changes.items() if key not in stated}
    values = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    line = f"{rows:,} training rows, and nothing says how long: {values} (--epochs N takes their place)"
    return task.override({f"recipe.{key}": value for key, value in changes.items()}), line
