"""Where a network's parameters stand, from the embeddings to the head: what layer-wise rates, freezing,
low-rank changes and re-initialising go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bert_ft.errors import InputError

EMBEDDINGS = 0
SHARED = ("embed", "relative_attention", "rel_")  # parts of embeddings that stand beside the layers


@dataclass(frozen=True)
class Depths:
    """Where each parameter stands.

    Attributes:
        layers: how many there are; ALBERT's, which share their weights, count once.
        of: name of a parameter -> 0 for the embeddings, 1 to `layers`, and `top` for what is above them: a
            pooler, a last norm, the head.
        head: the names that are no part of the encoder.
    """

    layers: int
    of: dict[str, int]
    head: frozenset[str]

    @property
    def top(self) -> int:
        """The depth of the head: ELECTRA counts two above the last layer."""
        return self.layers + 2

    def group(self, name: str) -> str:
        """The part that a parameter is of, in words."""
        if name in self.head:
            return "head"
        depth = self.of[name]
        if depth == EMBEDDINGS:
            return "embeddings"
        return "above the layers" if depth == self.top else f"layer {depth}"


def depths(network: Any) -> Depths:
    """Where the parameters of a network stand, by its lists of layers: any `transformers` model with a head.

    A model with a decoder has its layers above those of the encoder. Lists of one length in one module (XLM's
    attentions, norms and feed-forward parts) are the parts of the same layers.
    """
    places = _layers(network)
    layers = max(places.values(), default=0)
    last = max((i for i, name in enumerate(_names(network)) if _layer(name, places)), default=-1)
    top = layers + 2
    of: dict[str, int] = {}
    before = EMBEDDINGS
    for i, name in enumerate(_names(network)):
        layer = _layer(name, places)
        if layer:
            before = of[name] = layer
        elif i > last and not _shared(name):
            of[name] = top
        else:
            of[name] = EMBEDDINGS if _shared(name) else before
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    outside = [name for name in of if not name.startswith(prefix)]
    if len(outside) == len(of):  # T5's for questions has its stacks at the top
        outside = [name for name in of if of[name] == top and "norm" not in name.lower()]
    return Depths(layers, of, frozenset(outside))


def _names(network: Any) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def _shared(name: str) -> bool:
    return any(part in name.lower() for part in SHARED)


def _layers(network: Any) -> dict[str, int]:
    """Prefix of a layer's parameters -> its number from 1, over all outermost lists of layers."""
    import torch

    places: dict[str, int] = {}
    seen: dict[tuple[str, int], int] = {}  # (parent, length) of a list -> what its layers come after
    count = 0
    lists: list[str] = []
    for name, module in network.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or any(name.startswith(f"{of}.") for of in lists):
            continue
        if _shared(name) or not any(True for _ in module.parameters()):
            continue
        lists.append(name)
        key = name.rpartition(".")[0], len(module)
        if key not in seen:
            seen[key] = count
            count += len(module)
        places |= {f"{name}.{i}.": seen[key] + i + 1 for i in range(len(module))}
    return places


def _layer(name: str, places: dict[str, int]) -> int:
    """The number of the layer that a parameter is of; 0 for none."""
    parts = name.split(".")
    prefixes = (".".join(parts[:k]) + "." for k in range(1, len(parts)))
    return next((places[prefix] for prefix in prefixes if prefix in places), 0)


def reinitialize(network: Any, layers: int) -> list[str]:
    """Draws the weights of the highest layers and of what is above them anew, as `transformers` draws new
    ones, from torch's random state; returns the names of the parameters (Zhang et al. 2021).

    Raises:
        InputError: more layers than there are.
    """
    where = depths(network)
    enough(layers, where.layers, "recipe.reinitialize")
    drawn = [
        name for name, depth in where.of.items() if name not in where.head and depth > where.layers - layers
    ]
    modules = dict.fromkeys(name.rpartition(".")[0] for name in drawn)
    for module in (network.get_submodule(name) for name in modules):
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False
        module._is_hf_initialized = False
        network._init_weights(module)
    return drawn


def set_head_dropout(network: Any, rate: float) -> None:
    """Sets the rate of every dropout between the encoder and the head's logits; not of DeBERTa's before its
    pooler, which has a rate of its own in its sources too.

    Raises:
        InputError: this head has none.
    """
    import torch

    encoder = {id(module) for module in network.base_model.modules()} if _is_apart(network) else set()
    found = [
        module
        for name, module in network.named_modules()
        if id(module) not in encoder
        and not name.startswith("pooler.")
        and isinstance(module, torch.nn.modules.dropout._DropoutNd)
    ]
    if not found:
        name = type(network).__name__
        raise InputError(
            f"{name} has no dropout before its head",
            where="recipe.head_dropout",
            remedy="leave it out; recipe.dropout sets every rate of the encoder",
        )
    for module in found:
        module.p = rate


def _is_apart(network: Any) -> bool:
    return network.base_model is not network


def enough(asked: int, layers: int, where: str) -> None:
    """Raises InputError: a recipe's key, `where`, asks for more layers than there are."""
    if asked > layers:
        remedy = f"at most {layers}"
        raise InputError(f"{asked} layers, but the encoder has {layers}", where=where, remedy=remedy)
