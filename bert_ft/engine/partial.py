"""Training a part of a network: what a recipe freezes, what it alone trains, what it draws anew. Weights that
are new, and those of the head, are always trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bert_ft.config.recipe import Recipe
from bert_ft.engine import lora, parameters
from bert_ft.engine.parameters import Depths
from bert_ft.errors import InputError


def fit(network: Any, recipe: Recipe, new: Iterable[str]) -> list[str]:
    """Draws anew, freezes, drops out and adapts what a recipe says, before a training; returns what is to be
    told.

    Args:
        new: names of the parameters that the checkpoint did not have.
    Raises:
        InputError: the network has not what the recipe speaks of.
    """
    notes = []
    drawn: list[str] = []
    if recipe.reinitialize:
        drawn = parameters.reinitialize(network, recipe.reinitialize)
        notes.append(f"drawn anew, as the recipe says: {len(drawn)} weights, {drawn[0]} first")
    if recipe.head_dropout is not None:
        parameters.set_head_dropout(network, recipe.head_dropout)
    for name in drawn:  # of a network of the user's own they may have been frozen
        network.get_parameter(name).requires_grad_(True)
    for name in frozen(network, recipe, [*new, *drawn]):
        network.get_parameter(name).requires_grad_(False)
    if recipe.lora is not None:
        notes += lora.inject(network, recipe.lora, [*new, *drawn])
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("nothing is left to train", where="recipe.freeze", remedy="freeze less")
    return notes


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Leaves a model's network as it was in what `fit` and a training change beside its weights: what is
    trained, what drops out and whether it does; and after a training that failed in everything else, its
    speed-ups and low-rank changes included, since the network may be a user's own."""
    import torch

    network = model.network
    modes = [(module, module.training) for module in network.modules()]
    plain = "forward" not in vars(network)
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    dropouts = [m for m in network.modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)]
    rates = [module.p for module in dropouts]
    adapted = lora.is_in(network)
    try:
        yield
    except BaseException:
        model.network = model.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        model.plain()
        raise
    finally:
        if plain:  # accelerate leaves its own, unwrapped
            vars(network).pop("forward", None)
        if not adapted:
            lora.remove(network, merge=False)
        for parameter, requires in trained:
            parameter.requires_grad_(requires)
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        for module, training in modes:
            module.training = training


def frozen(network: Any, recipe: Recipe, new: Iterable[str]) -> list[str]:
    """The names of the parameters that `recipe.freeze`, `train_only` or `lora` keep as they are.

    Args:
        new: names of the weights that are new; these, and those of the head, are always trained.
    Raises:
        InputError: more layers than there are, names that no parameter has, or of what is always trained.
    """
    where = parameters.depths(network)
    always = {*new, *where.head}
    if recipe.freeze is not None:
        names = _stated(recipe.freeze, where, always)
    elif recipe.train_only is not None:
        trained = _alone(network, recipe.train_only, where, always)
        names = [name for name in where.of if name not in trained]
    else:
        names = [] if recipe.lora is None else list(where.of)
    return [name for name in names if name not in always]


def _stated(freeze: str | int | Sequence[str], where: Depths, always: set[str]) -> list[str]:
    """What `freeze` names: "embeddings"; n, these and the lowest n layers; "encoder"; or beginnings."""
    if freeze == "encoder":
        return [name for name in where.of if name not in where.head]
    if isinstance(freeze, (str, int)):
        lowest = 0 if freeze == "embeddings" else int(freeze)
        parameters.enough(lowest, where.layers, "recipe.freeze")
        return [name for name, depth in where.of.items() if depth <= lowest]
    return _beginning(freeze, where, always, "recipe.freeze")


def _alone(network: Any, only: str | Sequence[str], where: Depths, always: set[str]) -> list[str]:
    """What `train_only` names: "biases", "norms", or beginnings. Raises InputError: there is none."""
    if not isinstance(only, str):
        return _beginning(only, where, always, "recipe.train_only")
    if only == "biases":
        names = [name for name in where.of if "bias" in name.rpartition(".")[2]]
    else:
        names = [name for name in where.of if _is_norm(network.get_submodule(name.rpartition(".")[0]))]
    if not set(names) - always:
        message = f"{type(network).__name__} has no {only} in its encoder"
        other = "biases" if only == "norms" else "norms"
        raise InputError(message, where="recipe.train_only", remedy=f'train_only = "{other}", or lora')
    return names


def _is_norm(module: Any) -> bool:
    return "norm" in type(module).__name__.lower()


def _beginning(starts: Sequence[str], where: Depths, always: set[str], key: str) -> list[str]:
    """The names that begin in one of these ways. Raises InputError: none does, or all are always trained."""
    if unknown := [start for start in starts if not any(name.startswith(start) for name in where.of)]:
        examples = ", ".join(dict.fromkeys(".".join(name.split(".")[:3]) for name in list(where.of)[:40]))
        raise InputError(
            f"no parameter's name begins with '{unknown[0]}'",
            where=key,
            remedy=f"names begin like this: {examples}",
        )
    for start in starts:
        if all(name in always for name in where.of if name.startswith(start)):
            raise InputError(
                f"'{start}' is of the head, or new: such weights are always trained",
                where=key,
                remedy="leave it out",
            )
    return [name for name in where.of if name.startswith(tuple(starts))]
