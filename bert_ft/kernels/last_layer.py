"""The last layer only where the head looks: the same arithmetic for fewer tokens, exact, gradients too.

    handle = narrow(model)        # in place; a model whose head reads more is left as it was
    print(handle.reason)

The head of a sequence classifier reads the first token of each row and nothing else. Of the last layer it
needs that token's query, output projection and feed-forward. Keys and values alone would be of every token,
and where their linear layers are in the open, they are absorbed into the few queries
(`packed_attention.absorbed`).

No architecture has code of its own. While the last layer runs, its attention (or, where attention is the
model's own, the first linear layer behind it) goes on with the rows of the first tokens; `Rows`, a mode of
torch's functions, meets what still has all tokens (the residual of `hidden + attended`, a shape that was
noted at the start) and takes the same rows of it. At the layer's exit the rows are put back among zeros, so
that final norms, poolers and heads work untouched.

A small ragged batch decides: the gradient of the outputs has to be zero at every other token, and outputs and
gradients have to stay what they were. What a forward has to show beside its logits turns it off: recorded
hidden states or attentions, a user's hook on the last layer or around it, the encoder called without its
head; and so does gradient checkpointing, whose second forward has no hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from bert_ft.kernels import probing, products, survey, transforms
from bert_ft.kernels.packed_attention import Layout

RESHAPES = (Tensor.view, Tensor.reshape, torch.reshape)
OWN = ("bert_ft.kernels.", "transformers.")  # modules whose hooks do not mind
# Multiplications of one projection, of so many tokens more than twice the sequences, from which on attention
# does without keys and values: below, copies of their weights and two more products for each query take
# longer (of 2 rows of 6 tokens a layer takes 1.1 to 1.2 times as long). The break-even measures 20 to 35
# million at widths of 128, 384 and 768.
WORTH = 2.0**25
RECORDS = ("output_hidden_states", "output_attentions")


class Rows(TorchFunctionMode):
    """Which rows of the last layer's hidden states (wide: (1, T, H), or (B, L, H) padded) are computed to
    the end (narrow: (1, S, H), or (B, 1, H)).

    Attributes:
        starts: (S,) where they are, of packed ones; None: the first of each row.
        projections: the linear layers of keys and values, if attention does without these.
        hidden: (T, H) what they got.
        begun: whether anything is narrow yet.
    """

    def __init__(
        self, wide: tuple[int, int], starts: Tensor | None, projections: Sequence[nn.Linear] = ()
    ) -> None:
        super().__init__()
        self.projections = projections
        self.hidden: dict[nn.Module, Tensor] = {}
        self.wide = wide
        self.narrow = (wide[0], 1) if starts is None else (1, len(starts))
        self.starts = starts
        self.begun = False

    def pick(self, x: Tensor, dim: int = 1) -> Tensor:
        """The narrow rows of a tensor with tokens along `dim`; the tensor itself where it has no more."""
        self.begun = True
        if x.shape[dim] != self.wide[1]:
            return x
        return x.narrow(dim, 0, 1) if self.starts is None else x.index_select(dim, self.starts)

    def spread(self, x: Tensor) -> Tensor:
        """Narrow rows at their places among zeros."""
        if self.starts is None:
            return F.pad(x, (0, 0, 0, self.wide[1] - 1))
        return x.new_zeros(*self.wide, x.shape[-1]).index_copy(1, self.starts, x)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Inside, nothing is taken for hidden states: attention has matrices (1, S, d) of its own, and others
        that have T columns or T rows by chance."""
        begun, self.begun = self.begun, False
        try:
            yield
        finally:
            self.begun = begun

    def is_wide(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.dim() == 3 and x.shape[:2] == self.wide

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if self.begun and args and isinstance(args[0], Tensor):
            if func in RESHAPES:
                args = self._reshaped(args)
            elif any(isinstance(x, Tensor) and x.dim() == 3 and x.shape[:2] == self.narrow for x in args):
                args = [self.pick(x) if self.is_wide(x) else x for x in args]
        return func(*args, **(kwargs or {}))

    def _reshaped(self, args: Sequence[Any]) -> Sequence[Any]:
        """The arguments of a reshape, with the shape of narrow rows where they have that of wide ones."""
        x, *sizes = args
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = list(sizes[0])
        return (x, (*self.narrow, *sizes[2:])) if self._outdated(x, sizes) else args

    def _outdated(self, x: Tensor, sizes: Sequence[Any]) -> bool:
        return x.shape[:2] == self.narrow and tuple(sizes[:2]) == self.wide


_head: ContextVar[nn.Module | None] = ContextVar("head", default=None)  # the last layer, while a head runs
_checks: ContextVar[bool] = ContextVar("checks", default=False)  # whether a self-check runs
_rows: ContextVar[Rows | None] = ContextVar("rows", default=None)  # while that layer runs
# of each last layer that has them in the open: the linear layers of keys and values, and its parts by then
_projections: WeakKeyDictionary[nn.Module, tuple[tuple[nn.Linear, nn.Linear], list[Any]]] = (
    WeakKeyDictionary()
)
# of each network: the attention that the self-check has seen
_attentions: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def current(query: Tensor, key: Tensor, value: Tensor) -> Rows | None:
    """For an attention function that gets these: the rows that it has to compute; None: all."""
    if (seen := survey.current.get()) is not None:
        seen.query, seen.key, seen.value = query, key, value
    return _rows.get()


def head_runs() -> bool:
    """Whether the layers that run are those of a head that reads the first tokens alone."""
    return _head.get() is not None


def _enter_head(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Forward pre-hook of the model with its head."""
    network = probing.inner(module)
    assert network is not None
    layer = last(network)
    recorded = any(kwargs.get(name) or getattr(network.config, name, False) for name in RECORDS)
    watched = any(map(_watched, (network.base_model, probing.stack(network), layer)))
    attention = network.config._attn_implementation
    changed = attention != _attentions.get(network, attention)  # another one may not know narrow queries
    _head.set(None if recorded or watched or changed else layer)


def _leave_head(module: nn.Module, args: Any, output: Any) -> None:
    _head.set(None)


def _watched(module: Any) -> bool:
    """Whether a hook of somebody else sees what leaves a module; those of transformers record what a forward
    was asked for."""
    hooks = module._forward_hooks.values()
    return any(not str(getattr(hook, "__module__", "")).startswith(OWN) for hook in hooks)


def _enter_layer(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Forward pre-hook of the last layer."""
    if _head.get() is not module or probing.recording():
        return
    if module.training and getattr(module, "gradient_checkpointing", False):
        return
    values = [*args, *kwargs.values()]
    hidden = args[0] if args else kwargs.get("hidden_states")
    layout = next((value for value in values if isinstance(value, Layout)), None)
    if not isinstance(hidden, Tensor) or hidden.dim() != 3:
        return
    wide = hidden.shape[0], hidden.shape[1]
    if layout is not None and wide == (1, len(layout.tokens)):
        if not layout.aligned or len(layout.lengths) == len(layout.tokens):
            return
        rows = Rows(wide, layout.starts, _projections_of(module, layout))
    elif wide[1] > 1:
        rows = Rows(wide, None)
    else:
        return
    _rows.set(rows)
    rows.__enter__()  # type: ignore[no-untyped-call]


def _projections_of(layer: nn.Module, layout: Layout) -> Sequence[nn.Linear]:
    """The linear layers of keys and values, where a step's attention can do without these, and is faster so:
    on a CPU and everywhere in a sequence, if they are as plain as they were, without what peft, a hook or a
    person has put there since. Under autocast nothing is gained, and answers are left alone: those of a row
    would differ with the rows beside it, which decide whether there is padding."""
    found, parts = _projections.get(layer, ((), []))
    # a graph's layout does not know the lengths of its batches
    if layout.window is not None or layout.tokens.device.type != "cpu" or type(layout) is not Layout:
        return ()
    watched = _has_any_global_hook()  # type: ignore[no-untyped-call]
    transformed = transforms.active() or torch.is_autocast_enabled("cpu")
    if not found or not torch.is_grad_enabled() or watched or transformed or parts != _parts_of(layer):
        return ()
    more = len(layout.tokens) - 2 * len(layout.lengths)
    if not all(map(_is_plain, found)):
        return ()
    worth = _checks.get() or all(more * each.weight.numel() >= WORTH for each in found)
    return found if worth else ()


def _parts_of(layer: nn.Module) -> list[Any]:
    """What a layer is made of: its modules, and what each runs, but for forwards of ours, which come and
    go."""
    found = []
    for module in layer.modules():
        own = vars(module).get("forward")
        ours = str(getattr(getattr(own, "func", None), "__module__", "")).startswith(OWN)
        found.append((id(module), id(type(module).forward), own is not None and not ours and id(own)))
    return found


def _is_plain(linear: nn.Linear) -> bool:
    """Whether a linear layer is torch's, with weights that are tensors and no hook of somebody else's."""
    hooks = (
        *linear._forward_pre_hooks.values(),
        *linear._forward_hooks.values(),
        *linear._backward_pre_hooks.values(),
        *linear._backward_hooks.values(),
    )
    weights = (linear.weight, linear.bias)
    return (
        products.is_free(linear)
        and all(hook in HOOKS for hook in hooks)
        and all(x is None or type(x) in (Tensor, nn.Parameter) for x in weights)
    )


def _leave_layer(module: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook of the last layer: narrow rows back to their places."""
    rows = _rows.get()
    if rows is None:
        return None
    _rows.set(None)
    rows.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    if output is None or not rows.begun:
        return None
    return (rows.spread(output[0]), *output[1:]) if isinstance(output, tuple) else rows.spread(output)


def _enter_linear(module: nn.Module, args: Sequence[Any]) -> Any:
    """Forward pre-hook of a linear layer that needs no more than the narrow rows."""
    rows = _rows.get()
    return (rows.pick(args[0]), *args[1:]) if rows is not None and rows.is_wide(args[0]) else None


def _enter_projection(module: nn.Module, args: Sequence[Any]) -> Any:
    """Forward pre-hook of the linear layers of keys and values: where attention can do without these, what
    they would be made of is kept for it."""
    rows = _rows.get()
    if rows is None or module not in rows.projections or not rows.is_wide(args[0]):
        return None
    rows.hidden[module] = args[0][0]
    return (rows.pick(args[0]), *args[1:])


HOOKS = (_enter_head, _leave_head, _enter_layer, _leave_layer, _enter_linear, _enter_projection)


@dataclass(eq=False)
class Narrowing:
    """What `narrow` did: whether the last layer is computed for the first tokens alone, and the `reason`."""

    model: nn.Module
    active: bool
    reason: str

    def remove(self) -> None:
        """Make the last layer whole again. A second call does nothing."""
        if self.active:
            probing.unhook(self.model, HOOKS)
            self.active = False
            self.reason = "last layer: whole again"


def narrow(model: nn.Module, *dtypes: torch.dtype | None) -> Narrowing:
    """Let a `transformers` model with a head (inside peft or DDP, padded or padding-free) compute its last
    layer for the first token of each row alone, in place, if a small ragged batch shows that its head reads
    no other. `dtypes`: all that autocast will compute in; None: without it."""
    network = probing.inner(model)
    if network is None:
        return Narrowing(model, False, "last layer: whole, not a transformers model")
    probing.unhook(model, HOOKS)
    problem: str | None = "interrupted"
    try:
        with torch.random.fork_rng([network.device] if network.device.type == "cuda" else []):
            torch.manual_seed(0)
            problem = _install_and_check(model, network, dtypes or (None,))
    except Exception as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"{network.config.model_type} does not run with the first tokens alone ({first})"
    finally:
        if problem is not None:
            probing.unhook(model, HOOKS)
    return Narrowing(model, problem is None, f"last layer: {problem or 'first tokens only'}")


def _install_and_check(
    model: nn.Module, network: PreTrainedModel, dtypes: Sequence[torch.dtype | None]
) -> str | None:
    """Install the hooks and compare a small batch with the model's own path; returns why not."""
    layer = last(network)
    if network.base_model is network:
        return "whole, there is no head"
    if layer is None:
        return f"whole, {type(network.base_model).__name__} has no list of layers"
    seen = survey.Survey()
    with seen.taken(network, layer):
        expected = [_outputs(network, dtypes[0])]
    expected += [_outputs(network, dtype) for dtype in dtypes[1:]]
    if seen.calls != 1:
        return f"whole, the last layer of {network.config.model_type} runs {seen.calls} times"
    if seen.hidden is None or (gradient := seen.hidden.grad) is None or bool(gradient[:, 1:].any()):
        return "whole, the head reads more than the first token"
    if not bool(gradient[:, 0].any(1).all()):
        return "whole, nothing shows what the head reads"
    begun: list[bool] = []

    def watch(*_: Any) -> None:
        begun.append((rows := _rows.get()) is not None and rows.begun)

    _install(model, network, layer, seen)
    watcher = layer.register_forward_hook(watch, prepend=True)
    token = _checks.set(True)
    try:
        results = [_outputs(network, dtype) for dtype in dtypes]
    finally:
        _checks.reset(token)
        watcher.remove()
    if begun != [True] * len(dtypes):
        return f"whole, nothing of the last layer of {network.config.model_type} could be left out"
    single = network.dtype in (torch.float32, torch.float64)
    for dtype, ours, own in zip(dtypes, results, expected, strict=True):
        for name, result, reference in zip(("outputs", "gradients"), ours, own, strict=True):
            if (difference := probing.difference(result, reference, dtype, single)) is not None:
                return f"whole, {name} would differ by {difference:.1e}"
    return None


def _install(model: nn.Module, network: PreTrainedModel, layer: nn.Module, seen: survey.Survey) -> None:
    for module in dict.fromkeys((model, network)):  # peft calls the network's forward past its hooks
        module.register_forward_pre_hook(_enter_head, with_kwargs=True)
        module.register_forward_hook(_leave_head, always_call=True)
    _attentions[network] = network.config._attn_implementation
    layer.register_forward_pre_hook(_enter_layer, with_kwargs=True)
    # before what leaves a bare list of padding-free layers
    layer.register_forward_hook(_leave_layer, prepend=True, always_call=True)
    if seen.linear is not None:
        seen.linear.register_forward_pre_hook(_enter_linear)
    if seen.projections is not None:
        for projection in seen.projections:
            projection.register_forward_pre_hook(_enter_projection)
        _projections[layer] = seen.projections, _parts_of(layer)


def last(network: PreTrainedModel) -> nn.Module | None:
    """The last layer, as far as the modules show."""
    stack = probing.stack(network)
    if stack is None:
        return None
    children = [stack] if isinstance(stack, nn.ModuleList) else list(stack.children())
    lists = [child for child in children if isinstance(child, nn.ModuleList) and len(child)]
    return lists[0][-1] if len(lists) == 1 else None


def _outputs(network: PreTrainedModel, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """All numbers that the model gives for a small ragged batch, in one row, and the gradient of their
    weighted sum by the embeddings that go in."""
    ids, mask = (tensor.to(network.device) for tensor in probing.ragged(network))

    def run() -> Tensor:
        output: Any = network(input_ids=ids, attention_mask=mask.long())
        values = output.values() if isinstance(output, Mapping) else output
        tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
        return torch.cat([tensor.flatten().float() for tensor in tensors])

    return probing.differentiate(network, run, dtype)
