"""CUDA graphs of the layers: on a GPU a training step of short rows waits for hundreds of launches from
Python, and not for the arithmetic; recorded once, the layers are launched at once.

    with graphs.recorded(model, rows=32, dtype=torch.bfloat16) as layers:  # after `unpad` and `narrow`
        ...                                                                # train

A graph has fixed shapes, and of those a padding-free batch has but one: its number of tokens. It is filled up
to the next of a few sizes with a sequence of tokens that nothing reads, so that their gradients are zero;
there is one graph for each size, recorded when it is first met. What is recorded is the forward and the
backward of the stack of layers, (1, T, H) to (1, T, H'); embeddings, head, loss, clipping and optimizer run
as ever. Dropout draws anew at every replay, from torch's generator of the device.

Each graph is held against the layers themselves before it counts: the same inputs and the same draws have to
give the same outputs and gradients. Where they do not, or recording fails, no graph is used any more, and
`reason` says so. Whatever a graph can't know takes the ordinary path: evaluation, batches of another number
of rows, a second forward before the backward of the first, recorded hidden states, hooks of others.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bert_ft.kernels import last_layer, probing
from bert_ft.kernels.graph import Call, Cuda, Device, Graph, Stack
from bert_ft.kernels.packed_attention import Layout, choose_kernel
from bert_ft.kernels.padding_free import NAME

SHORTEST = 128  # tokens of the longest sequence, at least: a block of the flash kernel; longer ones double it
SIZES = 8  # of graphs for each doubling of the tokens: at most an eighth of a batch is filling
MOST = 64  # graphs


class _Ticket:
    """Lives as long as the backward of a replayed forward may come."""


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, graph: Graph, ticket: _Ticket, layout: Layout, hidden: Tensor, *learned: Tensor
    ) -> Tensor:
        ctx.graph = graph
        ctx.ticket = ticket
        return graph.forward(hidden, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if ctx.ticket is None:
            raise RuntimeError("a replayed forward has one backward; its activations are gone after that")
        ctx.ticket = None
        return None, None, None, *ctx.graph.backward(grad)


class Layers:
    """The recorded layers of a model, in the place of their stack's forward.

    Attributes:
        replayed: forwards that a graph has computed.
        reason: one line for people.
        pending: gives something while the backward of a replayed forward may come: its activations lie in
            memory that all graphs share.
    """

    def __init__(self, stack: nn.Module, rows: int, device: Device) -> None:
        self.stack = stack
        self.rows = rows
        self.modules = list(stack.modules())
        self.parameters = list(stack.parameters())
        learned = [parameter for parameter in self.parameters if parameter.requires_grad]
        self.shared = Stack(stack.forward, learned, [torch.zeros_like(each) for each in learned], device)
        self.graphs: dict[Any, Graph] = {}
        self.replayed = 0
        self.reason = "graphs: nothing recorded yet"
        self.problem: str | None = None
        self.pending: Callable[[], _Ticket | None] = lambda: None
        self.state = self._state()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self._recordable(args, kwargs)
        graph = None if found is None else self._graph(*found)
        if found is None or graph is None:
            return self.shared.forward(*args, **kwargs)
        self.replayed += 1
        _, hidden, layout = found
        self.pending = weakref.ref(ticket := _Ticket())
        out = _Replay.apply(graph, ticket, layout, hidden, *self.shared.learned)  # type: ignore[no-untyped-call]
        return out if graph.kind is None else graph.kind(last_hidden_state=out)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The forward of the copy of the stack: its own."""
        return functools.partial(type(self.stack).forward, memo[id(self.stack)])

    def _state(self) -> list[Any]:
        """What of the modules a graph holds fast: hooks, rates, which parameters are learned and where they
        are."""
        rates = [module.p for module in self.modules if isinstance(module, nn.Dropout)]
        return [
            _others_hooks(self.modules),
            *rates,
            *((each.data_ptr(), each.requires_grad) for each in self.parameters),
        ]

    def _recordable(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Call, Tensor, Layout] | None:
        """The call with its hidden states and its layout, if a graph can stand for it."""
        if self.problem or not self.stack.training or not torch.is_grad_enabled() or probing.recording():
            return None
        found = Call.of(args, kwargs)
        if found is None or self.pending() is not None:
            return None
        _, hidden, layout = found
        packed = hidden.requires_grad and hidden.shape[:2] == (1, len(layout.tokens))
        fits = layout.aligned and layout.window is None and len(layout.lengths) == self.rows
        return found if packed and fits and self._state() == self.state else None

    def _graph(self, call: Call, hidden: Tensor, layout: Layout) -> Graph | None:
        """The graph for a call, recorded where there is none yet; None: it has to do without."""
        here = len(layout.tokens)
        tokens = size(here + 1)
        longest = SHORTEST
        while longest < max(layout.lengths[-1], tokens - here):
            longest *= 2
        key = (tokens, longest, hidden.dtype, call, last_layer.head_runs())
        if key not in self.graphs and len(self.graphs) < MOST:
            self._record(key, Graph(self.shared, call, hidden, layout, tokens, longest))
        return self.graphs.get(key)

    def _record(self, key: Any, graph: Graph) -> None:
        try:
            self.problem = graph.record()
        except Exception as error:  # what can't be recorded, or has no memory
            self.problem = f"{type(error).__name__}: {error}".splitlines()[0]
        if self.problem is None:
            self.graphs[key] = graph
            self.reason = f"graphs: layers recorded for {len(self.graphs)} sizes of batches"
        else:
            self.graphs.clear()
            self.shared.grads.clear()
            self.reason = f"graphs: none, {self.problem}"


def size(tokens: int) -> int:
    """The size of the graph for so many tokens: the next multiple of 64, or of an eighth of the power of two
    below them."""
    step: int = max(64, (1 << (tokens.bit_length() - 1)) // SIZES)
    return -(-tokens // step) * step


def refusal(model: nn.Module, dtype: torch.dtype | None) -> str | None:
    """Why the layers of this model can't be recorded, as far as its parts show."""
    network = probing.inner(model)
    stack = None if network is None else probing.stack(network)
    if network is None or stack is None or isinstance(stack, nn.ModuleList):
        return "the layers are not the matter of one module"
    if getattr(network.config, "_attn_implementation", "") != NAME:
        return "the layers are not padding-free"
    if choose_kernel(network.device.type, dtype or torch.float32, 64) != "flash":
        return "attention is not flash attention"
    if any(getattr(module, "gradient_checkpointing", False) for module in network.modules()):
        return "gradients are checkpointed"
    if _others_hooks(list(stack.modules())):
        return "the layers have hooks of others"
    return None


def _others_hooks(modules: list[nn.Module]) -> int:
    """How many hooks the modules have that are neither ours nor those by which transformers records."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = (hook for module in modules for kind in kinds for hook in getattr(module, kind).values())
    return sum(not str(getattr(hook, "__module__", "")).startswith(last_layer.OWN) for hook in hooks)


@contextmanager
def recorded(
    model: nn.Module, rows: int, dtype: torch.dtype | None, device: Device | None = None
) -> Iterator[Layers | None]:
    """Lets the layers of a padding-free model be recorded while it is trained inside, in place; yields None
    where they can't be.

    Args:
        rows: of the batches that are recorded: all others are computed as ever.
        dtype: what autocast computes in.
        device: what records; by default the model's GPU.
    """
    if device is None and refusal(model, dtype) is not None:
        yield None
        return
    stack: Any = probing.stack(probing.inner(model))  # type: ignore[arg-type]
    layers = Layers(stack, rows, device or Cuda(next(model.parameters()).device))
    stack.forward = layers
    try:
        yield layers
    finally:
        del stack.forward
        layers.graphs.clear()
