"""One CUDA graph of the layers and what it takes to record it: the call it stands for, the layout it is
recorded with, and the device that records. What for: kernels/graphs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bert_ft.kernels import probing
from bert_ft.kernels.groups import Group
from bert_ft.kernels.packed_attention import Layout


class Device(Protocol):
    """What records: a GPU, or what stands in for one."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Records what a function launches; returns what launches it again."""
        ...

    def warm(self, function: Callable[[], None]) -> None:
        """Runs a function apart, so that nothing is set up while it is recorded."""
        ...

    def draws(self) -> Tensor:
        """The state of its generator."""
        ...

    def draw_from(self, state: Tensor) -> None:
        """Sets the state of its generator."""
        ...


class Cuda:
    """Records CUDA graphs, all in one pool of memory: they are replayed one after the other, forward and
    backward."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.side, "thread_local"):
            function()
        return graph.replay

    def warm(self, function: Callable[[], None]) -> None:
        self.side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.side):
            function()
        torch.cuda.current_stream(self.device).wait_stream(self.side)

    def draws(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device)

    def draw_from(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)


class Shape(Layout):
    """The layout of a graph: sequences, tokens and places as any batch of its size has them, filled anew for
    each."""

    @classmethod
    def of(cls, sequences: int, tokens: int, longest: int, device: torch.device) -> Shape:
        """Of so many sequences, the filling one included. The flash kernel asks for the longest alone."""
        row = torch.zeros(tokens, dtype=torch.long, device=device)
        result = cls(sequences, longest, [longest] * sequences, row, None, lambda: None)
        result.__dict__["boundaries"] = torch.zeros(sequences + 1, dtype=torch.int32, device=device)
        result.__dict__["starts"] = torch.zeros(sequences, dtype=torch.long, device=device)
        return result

    @property
    def groups(self) -> list[Group]:
        raise RuntimeError("attention asks for the lengths of a batch, which a graph does not know")

    def fill(self, layout: Layout) -> None:
        """Takes over where a batch's sequences begin; what is left is one more, the last."""
        self.boundaries[:-1].copy_(layout.boundaries)
        self.boundaries[-1:].fill_(len(self.tokens))
        self.starts.copy_(self.boundaries[:-1])


class Place(Enum):
    """What a graph puts into a call, in the place of what came."""

    HIDDEN = "hidden states"
    LAYOUT = "layout"


@dataclass(frozen=True)
class Call:
    """How a stack of layers is called: arguments, with places for hidden states and layout, and what autocast
    computes in (None: there is none)."""

    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    dtype: torch.dtype | None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Tensor, Layout] | None:
        """With the hidden states and the layout that came; None: not a call that a graph can stand for."""
        found: dict[Place, Any] = {}

        def place(value: Any) -> Any:
            kind = {Tensor: Place.HIDDEN, Layout: Place.LAYOUT}.get(type(value))
            if kind is None or kind in found:
                return value
            found[kind] = value
            return kind

        placed = tuple(map(place, args))
        named = tuple((key, place(value)) for key, value in sorted(kwargs.items()))
        known = (Place, bool, int, str, type(None))
        if len(found) < 2 or not all(isinstance(v, known) for v in (*placed, *(v for _, v in named))):
            return None
        hidden = found[Place.HIDDEN]
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return cls(placed, named, dtype), hidden, found[Place.LAYOUT]

    def run(self, forward: Callable[..., Any], hidden: Tensor, layout: Layout) -> Any:
        """What leaves the stack, called so."""
        inputs = {Place.HIDDEN: hidden, Place.LAYOUT: layout}

        def filled(value: Any) -> Any:
            return inputs[value] if isinstance(value, Place) else value

        return forward(*map(filled, self.args), **{key: filled(value) for key, value in self.kwargs})


@dataclass(frozen=True, eq=False)
class Stack:
    """What all graphs of a stack of layers share.

    Attributes:
        forward: that of the layers themselves.
        learned: the parameters that are trained.
        grads: their gradients, as a replayed backward leaves them.
    """

    forward: Callable[..., Any]
    learned: list[nn.Parameter]
    grads: list[Tensor]
    device: Device


class Graph:
    """The layers' forward and backward for batches of one size.

    Attributes:
        hidden, grad_hidden: (1, T, H) what enters, and its gradient.
        out, grad_out: (1, T, H') what leaves, and its gradient.
        kind: of what leaves: None, a tensor; else the class that holds it.
        used: for each learned parameter whether it has a gradient.
    """

    def __init__(
        self, stack: Stack, call: Call, hidden: Tensor, layout: Layout, tokens: int, longest: int
    ) -> None:
        self.stack = stack
        self.call = call
        self.shape = Shape.of(len(layout.lengths) + 1, tokens, longest, hidden.device)
        self.shape.fill(layout)
        self.tokens = hidden.shape[1]
        # what fills is no row of equal numbers, for which a norm would have a gradient of a million
        random = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(1, tokens, hidden.shape[2], generator=random).to(hidden)
        self.hidden[:, : self.tokens] = hidden.detach()
        self.hidden.requires_grad_()
        self.grad_hidden = torch.zeros_like(self.hidden)
        self.out = self.grad_out = torch.empty(0)
        self.live: Tensor | None = None  # what left, with the way back
        self.kind: type | None = None
        self.used: list[bool] = []

    def record(self) -> str | None:
        """Records both; returns what is wrong with the graphs, None: nothing."""
        device = self.stack.device
        state = device.draws()
        try:
            for _ in range(2):
                device.draw_from(state)
                device.warm(self._both)
            expected = [self.out.clone(), self.grad_hidden.clone(), *map(torch.clone, self.stack.grads)]
            self.replay_forward = device.record(self._forward)
            self.replay_backward = device.record(self._backward)
            device.draw_from(state)
            self.replay_forward()
            self.replay_backward()
        finally:
            self.live = None
            device.draw_from(state)
        return self._difference(expected)

    def _difference(self, expected: list[Tensor]) -> str | None:
        """What of a replay differs from this, outputs and gradients."""
        if not (apart := probing.relative(self.out, expected[0])) <= 3e-2:
            return f"outputs of a replay differ by {apart:.1e}"
        results = [self.grad_hidden, *self.stack.grads]
        # some are zero but for rounding, such as those of the keys' biases
        small = 1e-3 * max(float(each.norm()) for each in expected[1:])
        for result, reference in zip(results, expected[1:], strict=True):
            difference = float((result - reference).norm())
            if not difference <= 3e-2 * float(reference.norm()) + small:
                return f"gradients of a replay differ by {difference / float(reference.norm()):.1e}"
        return None

    def _both(self) -> None:
        self._forward()
        self._backward()
        self.live = None  # or what is recorded next would share nodes of autograd that are another stream's

    def _forward(self) -> None:
        dtype = self.call.dtype
        autocast = torch.autocast(self.hidden.device.type, dtype, dtype is not None, cache_enabled=False)
        with torch.enable_grad(), autocast:
            output = self.call.run(self.stack.forward, self.hidden, self.shape)
        self.kind = None if isinstance(output, Tensor) else type(output)
        self.live = output if isinstance(output, Tensor) else output.last_hidden_state
        result = self.live.detach()
        if not len(self.out):
            self.out = torch.empty_like(result)
            self.grad_out = torch.randn_like(result)
            self.grad_out[:, self.tokens :] = 0
        self.out.copy_(result)

    def _backward(self) -> None:
        into = [self.hidden, *self.stack.learned]
        assert self.live is not None
        found = torch.autograd.grad(self.live, into, self.grad_out, allow_unused=True)
        self.used = [grad is not None for grad in found[1:]]
        places = [self.grad_hidden, *self.stack.grads]
        pairs = [(place, grad) for place, grad in zip(places, found, strict=True) if grad is not None]
        torch._foreach_copy_([place for place, _ in pairs], [grad for _, grad in pairs])

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(1, t, H) -> (1, t, H')."""
        tokens = hidden.shape[1]
        self.shape.fill(layout)
        self.hidden.detach()[:, :tokens].copy_(hidden)
        self.replay_forward()
        return self.out[:, :tokens].clone()

    def backward(self, grad: Tensor) -> list[Tensor | None]:
        """The gradients of what entered, (1, t, H), and of each learned parameter."""
        tokens = grad.shape[1]
        self.grad_out[:, :tokens].copy_(grad)
        self.grad_out[:, tokens:].zero_()
        self.replay_backward()
        learned = (
            grad.detach() if used else None for grad, used in zip(self.stack.grads, self.used, strict=True)
        )
        return [self.grad_hidden[:, :tokens].clone(), *learned]
