"""Attention within each sequence of a packed batch: the sequences lie one behind the other, without padding.

`Layout` says where they lie and how they lay in the padded batch; `attend` computes their attention with the
kernel that `choose_kernel` picks for the device. Nothing here knows a model.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ft.kernels import grouped_attention
from bert_ft.kernels.grouped_attention import Piece, Places
from bert_ft.kernels.groups import GROUP_COST, Group, group_sizes, width

LONG = 1024  # tokens from which on a training keeps no scores that torch's attention would not

Kernel = Literal["groups", "flash", "block"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the T tokens of a padded batch (batch, length) are. Packed, the shortest sequence comes first."""

    batch: int
    length: int
    lengths: list[int]  # of the sequences that have tokens, ascending; their sum is T
    tokens: Tensor  # (T,) where in the flattened batch each packed token was
    window: int | None  # local attention: at most so far to either side
    padded_mask: Callable[[], Tensor | None]  # (batch, 1, length, length), for layers behind no door
    aligned: bool = True  # whether each sequence began at the first position of its row

    def pack(self, hidden: Tensor) -> Tensor:
        """(batch, length, H) -> (1, T, H)."""
        return hidden.flatten(0, 1).index_select(0, self.tokens)[None]

    def unpack(self, hidden: Tensor) -> Tensor:
        """(1, T, H) -> (batch, length, H), zeros at the padding."""
        padded = hidden.new_zeros(self.batch * self.length, hidden.shape[-1])
        return padded.index_copy_(0, self.tokens, hidden[0]).view(self.batch, self.length, -1)

    def rotary(self, embeddings: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(cos, sin), each (batch or 1, length, d) -> each (1, T, d); gathered once, kept for all layers."""
        cached: tuple[Any, Any] = self.__dict__.get("_rotary", (None, None))
        if cached[0] is not embeddings:
            cached = embeddings, tuple(self.pack(x.expand(self.batch, -1, -1)) for x in embeddings)
            self.__dict__["_rotary"] = cached
        return cached[1]  # type: ignore[no-any-return]

    @functools.cached_property
    def boundaries(self) -> Tensor:
        """(sequences + 1,) int32: where each sequence begins in the packed row, as flash kernels ask for
        it."""
        return self._upload(torch.tensor([0, *itertools.accumulate(self.lengths)], dtype=torch.int32))

    @functools.cached_property
    def firsts(self) -> Tensor:
        """(sequences + 1,) int32: the same of packed rows of one token each."""
        return torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.tokens.device)

    @functools.cached_property
    def starts(self) -> Tensor:
        """(sequences,) the first packed token of each."""
        return self._upload([0, *itertools.accumulate(self.lengths)][:-1])

    @functools.cached_property
    def groups(self) -> list[Group]:
        """On a CPU groups of near length; elsewhere one: there more launches cost more than padding."""
        device = self.tokens.device
        cpu = device.type == "cpu"
        widths = [width(length) for length in self.lengths] if cpu else self.lengths
        groups, first = [], 0
        for rows in group_sizes(widths, GROUP_COST if cpu else None):
            here, length = self.lengths[first : first + rows], widths[first + rows - 1]
            lengths = None if here[0] == length else self._upload(here)
            groups.append(Group(rows, length, lengths, self.window, device, cpu))
            first += rows
        return groups

    @functools.cached_property
    def slots(self) -> Tensor:
        """(T,) the slot of each packed token, all groups one behind the other."""
        sizes = [group.length for group in self.groups for _ in range(group.rows)]
        return self._upload(runs([0, *itertools.accumulate(sizes)][:-1], self.lengths))

    @functools.cached_property
    def tokens_of_slots(self) -> Tensor:
        """(slots,) the packed token of each slot; padding has the first of its own sequence."""
        sizes = [group.length for group in self.groups for _ in range(group.rows)]
        found = self.starts.repeat_interleave(self._upload(sizes))
        found[self.slots] = torch.arange(len(self.slots), device=found.device)
        return found

    def by_heads(self, heads: int, each: int | None, element_size: int) -> tuple[Places, list[Piece]]:
        """Where the tokens of each head lie for our own attention, and what of them it computes together,
        with so many queries each (None: one for every token); made once, kept for all layers."""
        cached: dict[Any, Any] = self.__dict__.setdefault("_by_heads", {})
        if heads not in cached:
            cached[heads] = Places.of(self.groups, self.lengths, heads)
        if (kind := (heads, each, element_size)) not in cached:
            cached[kind] = grouped_attention.pieces(self.groups, *kind)
        return cached[heads], cached[kind]

    def _upload(self, values: list[int] | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.tokens.device, non_blocking=True)


def runs(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(sum of lengths,) on the CPU: starts[0], starts[0] + 1, ..., lengths[0] of them, then from starts[1],
    ..."""
    # whatever device is a person's default
    sizes = torch.tensor(lengths, device="cpu")
    shifts = torch.tensor(starts, device="cpu") - sizes.cumsum(0) + sizes
    return shifts.repeat_interleave(sizes) + torch.arange(int(sizes.sum()), device="cpu")


def choose_kernel(
    device: str, dtype: torch.dtype, head_dim: int, flash: Callable[[], bool] | None = None
) -> Kernel:
    """The attention for packed q, k, v of this kind; nothing else decides it.

    groups  CPU: sequences padded in groups of near length
    flash   CUDA in half precision: torch's own flash kernel, which takes sequences of any length
    block   anything else: all sequences padded to the longest, through sdpa

    Args:
        flash: whether flash runs here, asked where it comes to that; by default it is tried.
    """
    if device == "cpu":
        return "groups"
    half = dtype in (torch.bfloat16, torch.float16)
    if device == "cuda" and half and head_dim in range(8, 257, 8) and (flash or flash_runs)():
        return "flash"
    return "block"


@functools.cache
def flash_runs(device: str = "cuda") -> bool:
    """Whether torch's flash kernel runs here, forward and backward: tried, since nothing else tells older
    GPUs, other builds of torch and other versions of the operator apart."""
    q = torch.ones(3, 1, 8, device=device, dtype=torch.float16, requires_grad=True)
    ends = torch.tensor([0, 1, 3], device=device, dtype=torch.int32)
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(_flash(q, q, q, ends, ends, 2, 2, 1.0, 0.0, None).sum(), q)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(gradient.isfinite().all())


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T scale) v within each sequence, its probabilities dropped at the rate of `dropout`:
    q and k (T, heads, d), v (T, heads, d') -> (T, heads, d'). With q (sequences, heads, d), the query of each
    sequence's first token: (sequences, heads, d')."""
    kernel = choose_kernel(q.device.type, q.dtype, q.shape[-1])
    whole = q.shape[0] == k.shape[0]
    # flash counts a window from the end of the keys, which is not where a single first token is
    if kernel == "flash" and v.shape[-1] == q.shape[-1] and (whole or layout.window is None):
        longest = layout.lengths[-1]
        at = (layout.boundaries, longest) if whole else (layout.firsts, 1)
        return _flash(q, k, v, at[0], layout.boundaries, at[1], longest, scale, dropout, layout.window)
    if kernel == "groups" and _is_ours(q, layout, dropout):
        return _ours(q, k, v, layout, None if whole else 1, scale, dropout)
    enter = _scattered if _learns(q, k, v) else _gathered
    k, v, *rest = (enter(x, layout) for x in (k, v, *[q] * whole))
    out = _sdpa(rest[0] if whole else q, k, v, layout.groups, scale, dropout)
    return out.index_select(0, layout.slots) if whole else out


def absorbed(
    q: Tensor,
    hidden: Sequence[Tensor],
    projections: Sequence[nn.Linear],
    layout: Layout,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attention of the first token of each sequence without keys and values of any token, on a CPU: their
    projections are absorbed into the few queries, and into what these have summed up.

    q . (W x + b) = (W' q) . x + q . b, and a sum of p (W x + b) is W times the sum of p x, plus b times that
    of p. What is left is attention of all heads of a sequence over the same hidden states.

    Args:
        q: (sequences, heads, d).
        hidden: (T, D) of which keys and values would be made.
        projections: of D to heads * d, by which.
    Returns:
        (sequences, heads, d).
    """
    heads = q.shape[1]
    weights, states = [], []
    for projection, x in zip(projections, hidden, strict=True):
        weight, bias = projection.weight, projection.bias
        if bias is not None:  # a column more, by which every token has a one
            weight = torch.cat([weight, bias[:, None]], 1)
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        weights.append(weight.view(heads, -1, weight.shape[1]))
        states.append(x.to(q.dtype)[:, None])
    looking = torch.bmm(q.transpose(0, 1), weights[0]).transpose(0, 1)
    summed = _ours(looking, states[0], states[1], layout, heads, scale, dropout)
    return torch.bmm(summed.transpose(0, 1), weights[1].mT).transpose(0, 1)


def _ours(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, each: int | None, scale: float, dropout: float
) -> Tensor:
    places, parts = layout.by_heads(k.shape[1], each, q.element_size())
    out: Tensor = grouped_attention.Attention.apply(  # type: ignore[no-untyped-call]
        q, k, v, places, parts, scale, dropout, _learns(q, k, v)
    )
    return out


def _scattered(x: Tensor, layout: Layout) -> Tensor:
    """(T, heads, d) -> (slots, heads, d), zeros at the padding: its backward is a look-up."""
    slots = sum(group.rows * group.length for group in layout.groups)
    return x.new_zeros(slots, *x.shape[1:]).index_copy_(0, layout.slots, x)


def _gathered(x: Tensor, layout: Layout) -> Tensor:
    """The same by a look-up, in half the time; padding has a token of its own sequence."""
    return x.index_select(0, layout.tokens_of_slots)


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    starts_of_keys: Tensor,
    longest: int,
    longest_of_keys: int,
    scale: float,
    dropout: float,
    window: int | None,
) -> Tensor:
    """torch's flash kernel for packed sequences. Its public door (`torch.nn.attention.varlen`) has no
    dropout, the operator behind it has."""
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, starts, starts_of_keys, longest, longest_of_keys, dropout, False, False, scale=scale,
        window_size_left=window, window_size_right=window,
    )[0]  # fmt: skip
    return out


def _parts(groups: list[Group], x: Tensor, whole: bool) -> Iterator[Tensor]:
    """The slots of each group; where not `whole`, one for each of its sequences."""
    return iter(torch.split(x, [group.rows * (group.length if whole else 1) for group in groups]))


def _sdpa(q: Tensor, k: Tensor, v: Tensor, groups: list[Group], scale: float, dropout: float) -> Tensor:
    """torch's attention, group by group: k and v (slots, heads, d), q the same or (sequences, heads, d) ->
    as q."""
    outputs = []
    whole = q.shape[0] == k.shape[0]
    parts = _parts(groups, q, whole), _parts(groups, k, True), _parts(groups, v, True)
    for group, *qkv in zip(groups, *parts, strict=True):
        q_, k_, v_ = (group.heads(x) for x in qkv)
        spans = [
            F.scaled_dot_product_attention(
                q_[:, :, at], k_[:, :, near], v_[:, :, near], mask, dropout, scale=scale
            )
            for at, near, mask in group.spans(q_.shape[2])
        ]
        out = spans[0] if len(spans) == 1 else torch.cat(spans, dim=2)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _is_ours(q: Tensor, layout: Layout, dropout: float) -> bool:
    """Whether a CPU is faster with our attention than with torch's, which is fused without dropout, slow with
    it, and slow in bfloat16: backwards by 8 times at 14 tokens, by 1.6 at 512; forwards by 1.3 to 1.7."""
    longest = layout.groups[-1].length
    reach = longest if layout.window is None else min(longest, 4 * layout.window)
    return dropout > 0 or (q.dtype == torch.bfloat16 and not (_learns(q) and reach > LONG))


def _learns(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
