"""Padding-free layers: the arithmetic of a padded batch without its padding.

    unpadding = unpad(model)      # in place; a model that can't do it is left as it was
    print(unpadding.reason)
    ...                           # train, evaluate
    unpadding.remove()            # a plain `transformers` model again

A batch of B rows padded to L positions holds T real tokens. The embeddings run on (B, L) as usual; at the
entrance of the stack of layers a hook gathers the tokens into one row, (B, L, H) -> (1, T, H), so that every
linear layer, norm and activation meets real tokens only; a registered attention function attends within each
sequence; at the exit a hook puts the tokens back into (B, L, H), zeros elsewhere, so that every head works
untouched.

The layout of the batch travels in the slot of the attention mask: whatever the registered mask function
returns, `transformers` hands to every layer. So no forward is replaced and nothing is kept on the model but
the hooks. Batches without padding, masks with holes and forwards that record hidden states take the ordinary
path.

What differs between architectures, and what meets it; none has code of its own:

    BERT, RoBERTa, ELECTRA, ...      the doors are at `encoder`
    DistilBERT                       at `transformer`, which takes hidden states by keyword
    ALBERT                           one layer run many times, so the doors stand around the loop; it leaves
                                     wider than it enters, so the width is taken from what leaves
    MobileBERT                       mixes neighbouring positions, but in the embeddings, before the door
    ModernBERT                       a bare list, `layers`: enters at the first, leaves at the last; its local
                                     attention comes as a second mask: a second layout, with a window
    ModernBERT, NomicBERT, EuroBERT  rotary positions, made for (B, L), are handed to each layer: gathered
                                     like the tokens. EuroBERT may have fewer key than query heads: repeated
    DeBERTa, MPNet                   attention of their own, out of reach: padded
    X-MOD                            picks an adapter per row inside the layers: fails the self-check, padded
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from bert_ft.kernels import last_layer, probing
from bert_ft.kernels.attention_check import Request, check_dropout
from bert_ft.kernels.packed_attention import Layout, absorbed, attend, choose_kernel, runs

NAME = "bert_ft_unpadded"  # of our attention and mask function in a live config; never saved

# a list: each call of attention is noted in it
_requests: ContextVar[list[Request] | None] = ContextVar("requests", default=None)
_lengths: ContextVar[Sequence[int] | None] = ContextVar("lengths", default=None)


@contextlib.contextmanager
def known_lengths(lengths: Sequence[int]) -> Iterator[None]:
    """For the forwards inside: how long the rows of the batch are, padded on the right, as its collator
    knows. On a GPU this spares reading them off the mask, which waits for the device."""
    token = _lengths.set(lengths)
    try:
        yield
    finally:
        _lengths.reset(token)


def _mask(**kwargs: Any) -> Layout | Tensor | None:
    """The registered mask function: a layout if there is padding to drop, otherwise the mask sdpa would
    get."""
    mask = kwargs.get("attention_mask")
    batch = kwargs["batch_size"]
    length = kwargs["q_length"]
    window = kwargs.get("local_size")
    if (
        mask is None
        or mask.shape != (batch, length)
        or kwargs["kv_length"] != length  # a prefix (peft) or a cache
        or kwargs.get("use_vmap")  # somebody's own mask on top
        or (window is None and kwargs["mask_function"] is not bidirectional_mask_function)
        or probing.recording()
    ):
        return sdpa_mask(**kwargs)
    row_lengths = _lengths.get()
    if row_lengths is not None and len(row_lengths) == batch and max(row_lengths) <= length:
        first = [0] * batch
        count = list(row_lengths)
        whole = True
    else:  # one wait for the device
        ends = mask.int().argmax(1), length - mask.flip(1).int().argmax(1), mask.sum(1)
        first, end, count = torch.stack(ends).tolist()
        whole = all(not n or e - f == n for f, e, n in zip(first, end, count, strict=True))
    if not whole or not any(count):  # holes in a row, or nothing at all
        return sdpa_mask(**kwargs)
    if min(count) == length:
        return sdpa_mask(**kwargs | {"attention_mask": None})
    rows = sorted((row for row in range(batch) if count[row]), key=count.__getitem__)
    lengths = [count[row] for row in rows]
    tokens = runs([row * length + first[row] for row in rows], lengths).to(mask.device, non_blocking=True)
    mask_of_all = functools.partial(sdpa_mask, **kwargs)
    return Layout(batch, length, lengths, tokens, window, mask_of_all, aligned=not any(first))


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Layout | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered attention function. With a layout: q, k, v (1, heads, T, d) -> (1, T, heads, d)."""
    if (rows := last_layer.current(query, key, value)) is None:
        return _attend(module, query, key, value, attention_mask, None, dropout, scaling, **kwargs)
    query = rows.pick(query, dim=2)
    with rows.at_rest():
        return _attend(module, query, key, value, attention_mask, rows, dropout, scaling, **kwargs)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout | Tensor | None,
    rows: last_layer.Rows | None,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As `_attention`, for the query of every token, or of those of `rows`, a last layer's."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    absorbs = rows is not None and len(rows.hidden) == 2
    if isinstance(layout, Layout) and key.shape[0] == 1 and (absorbs or key.shape[2] == len(layout.tokens)):
        if any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "s_aux")):
            raise NotImplementedError("attention with a bias, a cap or sinks")
        if rows is not None and absorbs:
            hidden = [rows.hidden[projection] for projection in rows.projections]
            q = query[0].transpose(0, 1)
            return absorbed(q, hidden, rows.projections, layout, scale, dropout)[None], None
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        if k.shape[1] < q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        device = q.device.type
        # under autocast rotary positions leave q and k wider than v
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else v.dtype
        if (requests := _requests.get()) is not None:
            requests.append(Request(dtype, q.shape[1], q.shape[-1], dropout, layout.window))
        return attend(q.to(dtype), k.to(dtype), v.to(dtype), layout, scale, dropout)[None], None
    # no padding; or a model made from our model's config, which has inherited our name but no doors
    mask = layout.padded_mask() if isinstance(layout, Layout) else layout
    if mask is not None:  # of the first query alone, where there is no other
        mask = mask[:, :, : query.shape[2]]
    return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


def _layout_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Layout)), None)


def _enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Forward pre-hook: hidden states (B, L, H) -> (1, T, H), and rotary positions with them."""
    if (layout := _layout_of(args, kwargs)) is None:
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    if hidden.shape[:2] == (layout.batch, layout.length):  # in a bare list of layers only the first one packs
        hidden = layout.pack(hidden)
    if kwargs.get("position_embeddings") is not None:
        kwargs = kwargs | {"position_embeddings": layout.rotary(kwargs["position_embeddings"])}
    return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})


def _leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook: hidden states (1, T, H') -> (B, L, H')."""
    if (layout := _layout_of(args, kwargs)) is None:
        return None
    if isinstance(output, Tensor):
        return layout.unpack(output)
    output.last_hidden_state = layout.unpack(output.last_hidden_state)
    return output


@dataclass(eq=False)
class Unpadding:
    """What `unpad` did: whether the model is `active`ly padding-free, and the `reason`, one line to print.
    As a context manager it removes itself at the end."""

    model: nn.Module
    active: bool
    reason: str
    attn_implementation: str  # the model's own

    def remove(self) -> None:
        """Make the model plain again: no hook, the attention it had. A second call does nothing."""
        if self.active:
            restore(self.model, self.attn_implementation)
            self.active = False
            self.reason = "padded: padding-free layers were removed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def unpad(model: nn.Module, *dtypes: torch.dtype | None) -> Unpadding:
    """Let a `transformers` encoder (bare or with a head, inside peft or DDP) run its layers on real tokens
    only, in place, if a small ragged batch shows that its outputs are the same. `dtypes`: all that
    autocast will compute in; None: without it."""
    inner = probing.inner(model)
    if inner is None:
        return Unpadding(model, False, "padded: not a transformers model", "")
    restore(inner)  # a deep copy of an unpadded model has its hooks
    before = inner.config._attn_implementation
    problem = _refusal(inner)
    requests: list[Request] = []
    if problem is None:
        problem = "self-check: interrupted"
        gpus = [inner.device] if inner.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(gpus):
                torch.manual_seed(0)
                problem, requests = _install_and_check(inner, dtypes or (None,))
        except Exception as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            problem = (
                f"self-check: the layers of {inner.config.model_type} do not run without padding ({first})"
            )
        finally:
            if problem is not None:
                restore(inner, before)
    reason = f"padding-free, {_kernels(inner, requests)}" if problem is None else f"padded: {problem}"
    return Unpadding(model, problem is None, reason, before)


def restore(model: nn.Module, attn_implementation: str = "sdpa") -> None:
    """Take our hooks and our attention off a model; also off a deep copy, of which no handle knows."""
    probing.unhook(model, (_enter, _leave, *last_layer.HOOKS))
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.config._attn_implementation == NAME:
            module.set_attn_implementation(attn_implementation)


def _refusal(inner: PreTrainedModel) -> str | None:
    """Why this model can't be padding-free, as far as its parts show."""
    config = inner.config
    decoders = ("is_decoder", "is_encoder_decoder", "add_cross_attention")
    if any(getattr(config, flag, False) for flag in decoders):
        return f"{config.model_type} has a decoder"
    if any(getattr(module, "is_causal", False) is True for module in inner.modules()):
        return f"{config.model_type} is causal: a token sees only those before it"
    if not inner._supports_attention_backend:
        return f"{config.model_type} does not take its attention from transformers' AttentionInterface"
    if getattr(config, "chunk_size_feed_forward", 0):
        return "chunk_size_feed_forward is set"
    if not _doors(inner):
        return f"no stack of layers found in {type(inner.base_model).__name__}"
    if not probing.sees_recording():
        return "this version of transformers records hidden states in another way"
    return None


def _doors(inner: PreTrainedModel) -> list[nn.Module]:
    """Where hidden states enter and, at the last, leave: the module that runs the layers, or the bare
    layers."""
    stack = probing.stack(inner)
    return list(stack) if isinstance(stack, nn.ModuleList) else [stack] if stack is not None else []


def _install_and_check(
    inner: PreTrainedModel, dtypes: Sequence[torch.dtype | None]
) -> tuple[str | None, list[Request]]:
    """Install the hooks and compare a small batch with the model's own path, gradients too; then see that
    attention under dropout is right wherever training will ask for it. Returns the first difference, and what
    training asks for."""
    own = [_probe(inner, dtype) for dtype in dtypes]
    exact = None if set(dtypes) <= {None, torch.float32} else _probe(inner, None)
    inner.set_attn_implementation(NAME)
    doors = _doors(inner)
    layouts: list[Layout | None] = []
    for door in doors:
        door.register_forward_pre_hook(_enter, with_kwargs=True)
    doors[-1].register_forward_hook(_leave, with_kwargs=True)
    watcher = doors[0].register_forward_pre_hook(
        lambda _, a, k: layouts.append(_layout_of(a, k)), with_kwargs=True
    )
    requests: list[Request] = []
    token = _requests.set(requests)
    try:
        ours = [_probe(inner, dtype) for dtype in dtypes]
        requests.clear()
        for dtype in dtypes:
            _probe(inner, dtype, training=True)
    finally:
        watcher.remove()
        _requests.reset(token)
    if not any(layouts):
        return f"self-check: the layers of {inner.config.model_type} still get padding", requests
    for dtype, results, expected in zip(dtypes, ours, own, strict=True):
        single = expected[0].dtype in (torch.float32, torch.float64)
        for at, name in enumerate(("hidden states", "gradients")):
            result, reference = results[at], expected[at]
            rounding = 0.0 if exact is None else probing.relative(reference, exact[at])
            if (difference := probing.difference(result, reference, dtype, single, rounding)) is not None:
                return f"self-check: {name} differ by {difference:.1e}", requests
    for each in dict.fromkeys(requests):
        if each.dropout > 0 and (problem := check_dropout(inner.device, each)):
            return f"self-check: {problem}", requests
    return None, requests


def _probe(
    inner: PreTrainedModel, dtype: torch.dtype | None, training: bool = False
) -> tuple[Tensor, Tensor]:
    """Hidden states (tokens, H) of a small ragged batch, and the gradient of their weighted sum by the
    embeddings that go in (tokens, H'). Leaves no trace."""
    ids, mask = (tensor.to(inner.device) for tensor in probing.ragged(inner))

    def run() -> Tensor:
        hidden: Tensor = inner.base_model(input_ids=ids, attention_mask=mask.long())[0]
        return hidden[mask]

    hidden, gradient = probing.differentiate(inner, run, dtype, training)
    return hidden, gradient[mask]


def _kernels(inner: PreTrainedModel, requests: Sequence[Request]) -> str:
    """What attention runs on, one line for people."""
    each = requests[0]
    return f"attention: {choose_kernel(inner.device.type, each.dtype, each.head_dim)}"
