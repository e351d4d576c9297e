"""An average of the weights over the steps of a training (`recipe.ema`): what is evaluated, kept and
saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of the weights that are trained: after the first step these weights,
    from then on `decay` of what it was and the rest of the weights as they are after a step.

    Source: Polyak and Juditsky 1992; as `torch.optim.swa_utils.get_ema_multi_avg_fn` has it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.means: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights into account as they are after a step."""
        if not self.means:
            self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}
            return
        means = list(self.means.values())
        torch._foreach_lerp_(means, [self.weights[name] for name in self.means], 1 - self.decay)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Puts the average into the network inside, and the weights back; nothing before the first step."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Puts the average where the weights are, and keeps these in its place."""
        for name, mean in self.means.items():
            weight = self.weights[name]
            current = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(current)

    def load(self, means: Mapping[str, Tensor]) -> None:
        """Goes on from an average that was saved."""
        self.means = {name: mean.to(self.weights[name]) for name, mean in means.items()}
