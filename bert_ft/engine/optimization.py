"""AdamW, its rates by layer and the learning rate's schedule, as `transformers.Trainer` builds them where the
recipe has no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from bert_ft.config.recipe import Recipe
from bert_ft.engine import parameters
from bert_ft.errors import InputError

# as `Trainer` has them
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
LONG_AGO = 1e9  # a step at which AdamW's corrections of its averages are 1


def optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Fused AdamW with weight decay on everything but biases and normalisation layers.

    Source: Devlin et al. 2019, `optimization.py` of google-research/bert; parameter groups as in
    `Trainer.get_decay_parameter_names`.
    """
    built = torch.optim.AdamW(
        groups(model, recipe),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )
    if not recipe.bias_correction:
        built.register_step_pre_hook(_without_correction)
    return built


def groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameter groups: a pair, with weight decay and without, for each learning rate, the highest first.

    With `layer_decay` d a parameter at depth k of n layers has the rate lr·d^(n + 2 - k), the embeddings at
    0, the head at n + 2: ELECTRA's formula (Clark et al. 2020, `model/optimization.py` of
    google-research/electra)."""
    from transformers.trainer_pt_utils import get_parameter_names

    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))  # type: ignore[no-untyped-call]
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rates = _rates(model, recipe)
    return [
        {
            "params": [learned[name] for name in names],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "lr": rate,
        }
        for rate in sorted({rates[name] for name in learned}, reverse=True)
        for decays in (True, False)
        if (names := [name for name in learned if rates[name] == rate and (name in decayed) == decays])
    ]


def _rates(model: torch.nn.Module, recipe: Recipe) -> dict[str, float]:
    """The peak learning rate of each parameter, trained or not."""
    names = [name for name, _ in model.named_parameters()]
    if recipe.layer_decay == 1 and recipe.head_learning_rate is None:
        return dict.fromkeys(names, recipe.learning_rate)
    where = parameters.depths(model)
    rates = {
        name: recipe.learning_rate * recipe.layer_decay ** (where.top - where.of[name]) for name in names
    }
    if recipe.head_learning_rate is not None:
        rates |= dict.fromkeys(where.head, recipe.head_learning_rate)
    return rates


def table(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained of a network and how fast, from the embeddings to the head: a row a part with `part`,
    its `parameters`, how many are `trained`, and their peak `learning_rate` (None: it is frozen)."""
    where = parameters.depths(model)
    rates = _rates(model, recipe)
    rows: dict[str, dict[str, Any]] = {}
    for name, parameter in sorted(
        model.named_parameters(), key=lambda item: (item[0] in where.head, where.of[item[0]])
    ):
        part = where.group(name)
        row = rows.setdefault(part, {"part": part, "parameters": 0, "trained": 0, "learning_rate": None})
        row["parameters"] += parameter.numel()
        if parameter.requires_grad:
            row["trained"] += parameter.numel()
            row["learning_rate"] = rates[name]
    return list(rows.values())


def _without_correction(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Before a step: AdamW's state as that of a training long under way, so that its averages are taken as
    they are, as BERT's own optimizer took them (Mosbach et al. 2021, section 4)."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not optimizer.state[parameter]:
                step = torch.full((), LONG_AGO, device=parameter.device if group["fused"] else "cpu")
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] |= {"step": step, **zeros}


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """The `transformers` scheduler of the recipe over `steps` optimizer steps; `step()` once after each. The
    steps of warmup are the recipe's number, or its share of the steps rounded up (as `Trainer`)."""
    from transformers import get_scheduler

    warmup = math.ceil(recipe.warmup_ratio * steps) if recipe.warmup_steps is None else recipe.warmup_steps
    floor = recipe.schedule_floor
    name: str = recipe.schedule
    options: dict[str, Any] = {}
    if name == "constant" or warmup >= steps:  # which is nothing but a warmup then
        name = "constant_with_warmup"
    elif name == "cosine" and floor:
        name, options = "cosine_with_min_lr", {"min_lr_rate": floor}
    elif name == "polynomial":
        # of transformers, whose floor is a rate and not a share
        options = {"power": recipe.schedule_power, "lr_end": floor * recipe.learning_rate}
    elif name == "constant_with_cooldown":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, _cooldown(recipe, warmup, steps))
    return get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=options or None)


def _cooldown(recipe: Recipe, warmup: int, steps: int) -> Callable[[int], float]:
    """The share of the peak at a step: up, level, and down to the floor. (In `transformers` the warmup begins
    at the floor too.)"""
    cooldown = math.ceil(recipe.cooldown_ratio * steps)
    if warmup + cooldown > steps:
        raise InputError(
            f"{warmup} steps of warmup and {cooldown} of cooldown are more than the {steps} of this training",
            where="recipe.cooldown_ratio",
            remedy="make one of them shorter",
        )
    floor = recipe.schedule_floor

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        return floor + (1 - floor) * min(1.0, (steps - step) / cooldown)

    return share
