"""A classifier that reads the mean of a text's tokens, as a plain `transformers` model.

The heads of sequence classifiers read the first token, behind a dense layer and an activation. What a linear
layer can say about a text is rather in the mean of its tokens (Reimers & Gurevych 2019, Table 6): on a frozen
sentence encoder 8 to 11 points more. So the network gets one layer more, of its own kind, whose queries and
keys are zero: its attention is the same for every token, so that what it adds to the first token is the mean,
and so much of it that its own state no longer counts. Norms are plain, the feed-forward is zero. The dense
layer before the head becomes the identity, where its activation is straight.

Nothing but the number of layers tells such a model from any other: pipelines, `predict` and export have it.
A small ragged batch decides whether it says what it should; a network that can't have the layer stays as it
was.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bert_ft.engine.last_linear import LastLinear
from bert_ft.kernels import last_layer, probing

SHARE = 1e3  # times that the mean counts against the first token's own state; states up to 65 fit fp16
VALUES = ("value", "v_lin", "v_proj", "value_proj")
STRAIGHT = ((2**-6, 0.0), (1.0, 16.0))
"""(slope, shift) of a dense layer behind which an activation is straight: tanh near zero, ReLU and GELU far
above."""
ALIKE = 0.999  # correlation of what the network says with what it should


def add(network: Any, adapter: Any) -> list[str]:
    """Lets a sequence classifier read the mean of a text's tokens, in place; returns what is to be told.

    A head that reads each token, or averages them itself where its config says so (ModernBERT), gets no
    layer.
    """
    head = LastLinear(network, adapter)
    if head.per_token:
        return []
    if hasattr(network.config, "classifier_pooling"):
        network.config.classifier_pooling = "mean"
        return ["the head reads the mean of the tokens (classifier_pooling)"]
    notes = []
    if is_in(network):
        pass
    elif _add_layer(network):
        notes.append("one layer more, which takes the mean of the tokens: what the head reads")
    else:
        notes.append(f"{type(network).__name__} has no layer that could take the mean: the head reads less")
    _straighten(network, head)
    return notes


def drop(network: Any) -> list[str]:
    """Takes the layer of an earlier run out of a network that is read at each token, in place; returns what
    is to be told. Behind it all tokens of a text are alike."""
    if not is_in(network):
        return []
    _remove(network)
    return ["the checkpoint's layer that takes the mean of the tokens is left out: here each token is read"]


def is_in(network: Any) -> bool:
    """Whether a network has the layer: the last one looks for nothing."""
    layer = last_layer.last(network)
    found = None if layer is None else _attention(layer)
    if found is None:
        return False
    values, _, others = found
    return not any(bool(module.weight.any()) for module in others) and bool(values.weight.any())


def _add_layer(network: Any) -> bool:
    """Adds the layer, if the network can have it."""
    before = last_layer.last(network)
    if before is None or _attention(before) is None:
        return False
    layers = _layers(network)
    tokens, mask = _states(network)
    expected = torch.stack([row[real].mean(0) for row, real in zip(tokens, mask, strict=True)])
    layers.append(_layer(before))
    _count(network, 1)
    try:
        if _alike(_states(network)[0][:, 0], expected) and _loads(network):
            return True
    except (RuntimeError, TypeError, ValueError, IndexError):  # a layer that can't be added to its kind
        pass
    _remove(network)
    return False


def _remove(network: Any) -> None:
    """Takes the last layer out."""
    del _layers(network)[-1]
    _count(network, -1)


def _count(network: Any, more: int) -> None:
    """Says in the config that there is a layer more, or less."""
    config = network.config
    config.num_hidden_layers += more
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [*kinds, kinds[-1]] if more > 0 else list(kinds[:-1])


def _loads(network: Any) -> bool:
    """Whether a network that is made from the config takes the weights and computes the same: in some (ESM)
    other parts follow from the number of layers, too."""
    with torch.random.fork_rng(devices=[]):
        again = type(network)(copy.deepcopy(network.config))
    again.load_state_dict(network.state_dict())
    return bool(torch.allclose(_states(again)[0], _states(network)[0], rtol=1e-4, atol=1e-5))


def _layers(network: Any) -> nn.ModuleList:
    """The list that the last layer is in."""
    last = last_layer.last(network)
    return next(m for m in network.modules() if isinstance(m, nn.ModuleList) and last in list(m))


def _layer(before: nn.Module) -> nn.Module:
    """A copy of a layer that takes the mean."""
    shared = {id(m.config): m.config for m in before.modules() if hasattr(m, "config")}
    layer = copy.deepcopy(before, shared)  # speed-ups set what all layers read in their one config
    for module in layer.modules():
        number = getattr(module, "layer_idx", None)
        if isinstance(number, int):
            module.__dict__["layer_idx"] = number + 1
        parameters = dict(module.named_parameters(recurse=False))
        for key, parameter in parameters.items():
            norm = "norm" in type(module).__name__.lower() and key == "weight"
            nn.init.constant_(parameter, float(norm))
    found = _attention(layer)
    assert found is not None
    values, output, _ = found
    nn.init.eye_(values.weight)
    nn.init.eye_(output.weight)
    with torch.no_grad():
        output.weight *= SHARE
    return layer


def _attention(layer: nn.Module) -> tuple[nn.Linear, nn.Linear, list[nn.Linear]] | None:
    """The linear modules of values and of what attention puts out, and those of queries and keys before."""
    linear = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    square = [(name, module) for name, module in linear if module.in_features == module.out_features]
    at = [i for i, (name, _) in enumerate(square) if name.rpartition(".")[2] in VALUES]
    if len(at) != 1 or at[0] + 1 >= len(square):
        return None
    place = at[0]
    inside = square[place][0].rpartition(".")[0]
    others = [m for name, m in square if name.rpartition(".")[0] == inside and m is not square[place][1]]
    output = next(
        (m for name, m in square[place + 1 :] if m not in others or name.rpartition(".")[2].startswith("o")),
        None,
    )
    if output is None:
        return None
    return square[place][1], output, [module for module in others if module is not output]


@torch.no_grad()
def _states(network: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(5, L, H) last hidden states of a small ragged batch, and its mask."""
    training = network.training
    network.eval()
    ids, mask = (tensor.to(network.device) for tensor in probing.ragged(network))
    states = network.base_model(input_ids=ids, attention_mask=mask.long())[0]
    network.train(training)
    return states, mask


def _alike(result: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether each row is the other's, but for its mean and its scale."""
    rows = (torch.stack([a, b]) for a, b in zip(result.double(), expected.double(), strict=True))
    return all(float(torch.corrcoef(pair)[0, 1]) > ALIKE for pair in rows)


def _straighten(network: Any, head: LastLinear) -> None:
    """Makes the dense layer between encoder and head the identity, where its activation lets it through."""
    dense = _between(network, head.module)
    if dense is None:
        return
    weight = dense.weight.detach().clone()
    bias = None if dense.bias is None else dense.bias.detach().clone()
    for slope, shift in STRAIGHT:
        if shift and bias is None:
            continue
        with torch.no_grad():
            nn.init.eye_(dense.weight)
            dense.weight *= slope
            if dense.bias is not None:
                dense.bias.fill_(shift)
        taken: list[torch.Tensor] = []
        handle = dense.register_forward_pre_hook(lambda module, args, taken=taken: taken.append(args[0]))
        try:
            behind = head.probe()
        finally:
            handle.remove()
        if behind.shape == taken[0].shape and _alike(behind, taken[0]):
            return
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None:
            dense.bias.copy_(bias)


def _between(network: Any, last: nn.Module) -> nn.Linear | None:
    """The one square linear module that is neither in a layer nor the last; None where there is no such
    one."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
    inside = {id(module) for module in itertools.chain.from_iterable(m.modules() for m in lists)}
    found: Sequence[nn.Linear] = [
        module
        for module in network.modules()
        if isinstance(module, nn.Linear)
        and id(module) not in inside
        and module is not last
        and module.in_features == module.out_features
    ]
    return found[0] if len(found) == 1 else None
