"""How a recipe trains: by steps of the whole network, by a fit of its head, or by pairs of rows first."""

from __future__ import annotations

from typing import Any

from bert_ft.engine import contrastive, fitting, loop
from bert_ft.engine.checkpoints import State

METHODS = {"fine-tuning": loop.train, "features": fitting.train, "contrastive": contrastive.train}


def train(model: Any, *args: Any, **options: Any) -> State:
    """Trains a model in place by its task's recipe; arguments and result as of `loop.train`."""
    return METHODS[model.adapter.task.recipe.method](model, *args, **options)
