"""AdamW and the learning rate's schedule, as `transformers.Trainer` builds them."""

from __future__ import annotations

import math
from typing import Any

import torch

from bert_ft.config.schema import Recipe

# as `Trainer` has them
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Fused AdamW with weight decay on everything but biases and normalisation layers.

    Source: Devlin et al. 2019, `optimization.py` of google-research/bert; parameter groups as in
    `Trainer.get_decay_parameter_names`.
    """
    from transformers.trainer_pt_utils import get_parameter_names

    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))  # type: ignore[no-untyped-call]
    learned = [
        (name in decayed, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    groups = [
        {"params": [p for decays, p in learned if decays], "weight_decay": recipe.weight_decay},
        {"params": [p for decays, p in learned if not decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """The `transformers` scheduler of the recipe over `steps` optimizer steps; `step()` once after each. The
    steps of warmup are the recipe's number, or its share of the steps rounded up (as `Trainer`)."""
    from transformers import get_scheduler

    warmup = math.ceil(recipe.warmup_ratio * steps) if recipe.warmup_steps is None else recipe.warmup_steps
    name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    return get_scheduler(name, optimizer, warmup, steps)
