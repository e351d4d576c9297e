"""The linear layer that a head ends with, and what goes into it: the features that it makes logits of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bert_ft.engine.sharing import Reader
from bert_ft.errors import InputError
from bert_ft.kernels import probing

REMEDY = 'method = "fine-tuning", with freeze = "encoder" to train the head alone'


class LastLinear:
    """The last linear layer of a network's head, as a reader of what goes into it.

    Attributes:
        module: the layer; a small ragged batch shows which one gives the logits.
        per_token: whether it makes logits of each token, and not of each row.
        inputs: as the adapter's.
    """

    def __init__(self, network: Any, adapter: Reader) -> None:
        """Raises InputError: a head that does not end with a linear layer."""
        self.network = network
        self.adapter = adapter
        self.taken: Tensor | None = None
        self.module, self.per_token = _find(network, adapter)

    @property
    def inputs(self) -> Mapping[str, bool]:
        """The texts of a row -> whether each must be there."""
        return self.adapter.inputs

    def logits(self, outputs: Any) -> Tensor:
        """(B, D), or (B, L, D) for each token: what went into the layer in the forward that gave the
        outputs; inside `read`."""
        assert self.taken is not None
        taken = self.taken
        self.taken = None
        return taken

    @contextmanager
    def read(self) -> Iterator[LastLinear]:
        """What goes into the layer is taken from the forwards inside."""

        def take(module: nn.Module, args: Any) -> None:
            self.taken = args[0]

        handle = self.module.register_forward_pre_hook(take)
        try:
            yield self
        finally:
            handle.remove()
            self.taken = None

    @torch.no_grad()
    def probe(self) -> Tensor:
        """What goes into the layer of a small ragged batch."""
        with self.read():
            return self.logits(_run(self.network))


def _find(network: Any, adapter: Reader) -> tuple[nn.Linear, bool]:
    given: list[tuple[nn.Linear, Tensor]] = []

    def take(module: Any, args: Any, output: Tensor) -> None:
        given.append((module, output))

    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_hook(take) for module in linear]
    try:
        with torch.no_grad():
            logits = adapter.logits(_run(network))
    finally:
        for handle in handles:
            handle.remove()
    for module, output in reversed(given):
        if output.shape == logits.shape and torch.equal(output, logits):
            return module, logits.dim() == 3
    raise InputError(
        f"the head of {type(network).__name__} does not end with a linear layer",
        where="recipe.method",
        remedy=REMEDY,
    )


def _run(network: Any) -> Any:
    training = network.training
    network.eval()
    try:
        ids, mask = (tensor.to(network.device) for tensor in probing.ragged(network))
        return network(input_ids=ids, attention_mask=mask.long())
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        message = f"{type(network).__name__} does not run on a few tokens of no meaning: {error}"
        raise InputError(message, where="recipe.method", remedy=REMEDY) from None
    finally:
        network.train(training)
