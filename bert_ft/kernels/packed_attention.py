"""Attention within each sequence of a packed batch: the sequences lie one behind the other, without padding.

`Layout` says where they lie and how they lay in the padded batch; `attend` computes their attention with the
kernel that `choose_kernel` picks for the device. Nothing here knows a model.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_ft.kernels import grouped_attention
from bert_ft.kernels.grouped_attention import Piece, Places
from bert_ft.kernels.groups import GROUP_COST, Group, group_sizes

LONG = 1024  # tokens from which on a training keeps no scores that torch's attention would not

Kernel = Literal["groups", "varlen_attn", "flash_attn", "block"]


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
        return self._upload([0, *itertools.accumulate(self.lengths)]).int()

    @functools.cached_property
    def starts(self) -> Tensor:
        """(sequences,) the first packed token of each."""
        return self._upload([0, *itertools.accumulate(self.lengths)][:-1])

    @functools.cached_property
    def groups(self) -> list[Group]:
        """On a CPU groups of near length; elsewhere one: there more launches cost more than padding."""
        device = self.tokens.device
        groups = []
        lengths = iter(self.lengths)
        for rows in group_sizes(self.lengths, GROUP_COST if device.type == "cpu" else None):
            here = list(itertools.islice(lengths, rows))
            lengths_here = None if here[0] == here[-1] else self._upload(here)
            groups.append(Group(rows, here[-1], lengths_here, self.window, device, device.type == "cpu"))
        return groups

    @functools.cached_property
    def slots(self) -> Tensor:
        """(T,) the slot of each packed token, all groups one behind the other."""
        sizes = [group.length for group in self.groups for _ in range(group.rows)]
        return self._upload(runs([0, *itertools.accumulate(sizes)][:-1], self.lengths))

    def by_heads(self, heads: int, whole: bool, element_size: int) -> tuple[Places, list[Piece]]:
        """Where the tokens of each head lie for our own attention, and what of them it computes together;
        made once, kept for all layers."""
        cached: dict[Any, Any] = self.__dict__.setdefault("_by_heads", {})
        if heads not in cached:
            cached[heads] = Places.of(self.groups, self.lengths, heads)
        if (kind := (heads, whole, element_size)) not in cached:
            cached[kind] = grouped_attention.pieces(self.groups, *kind)
        return cached[heads], cached[kind]

    def _upload(self, values: list[int] | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.tokens.device, non_blocking=True)


def runs(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(sum of lengths,) on the CPU: starts[0], starts[0] + 1, ..., lengths[0] of them, then from starts[1],
    ..."""
    sizes = torch.tensor(lengths)
    shifts = torch.tensor(starts) - sizes.cumsum(0) + sizes
    return shifts.repeat_interleave(sizes) + torch.arange(int(sizes.sum()))


def choose_kernel(
    device: str, dtype: torch.dtype, head_dim: int, dropout: float, installed: Container[str] | None = None
) -> Kernel:
    """The attention for packed q, k, v of this kind; nothing else decides it.

    groups       CPU: sequences padded in groups of near length
    varlen_attn  CUDA in half precision without dropout: torch's flash kernel, which has none
    flash_attn   CUDA in half precision with dropout, where that package is installed
    block        anything else: all sequences padded to the longest, through sdpa
    """
    if device == "cpu":
        return "groups"
    if device == "cuda" and dtype in (torch.bfloat16, torch.float16) and head_dim in range(8, 257, 8):
        installed = _installed() if installed is None else installed
        if dropout == 0 and "varlen_attn" in installed:
            return "varlen_attn"
        if "flash_attn" in installed:
            return "flash_attn"
    return "block"


@functools.cache
def _installed() -> frozenset[str]:
    if torch.cuda.get_device_capability() < (8, 0):  # neither knows older GPUs
        return frozenset()
    functions = {
        "varlen_attn": ("torch.nn.attention.varlen", "varlen_attn"),
        "flash_attn": ("flash_attn", "flash_attn_varlen_func"),
    }
    return frozenset(kernel for kernel, (module, function) in functions.items() if _has(module, function))


def _has(module: str, function: str) -> bool:
    """Whether a package is not only there, but can be imported and has what we call: one built for another
    torch can't, and an empty folder of its name hasn't."""
    try:
        return callable(getattr(importlib.import_module(module), function, None))
    except (ImportError, OSError, RuntimeError):
        return False


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T scale) v within each sequence, its probabilities dropped at the rate of `dropout`:
    q and k (T, heads, d), v (T, heads, d') -> (T, heads, d'). With q (sequences, heads, d), the query of each
    sequence's first token: (sequences, heads, d')."""
    kernel = choose_kernel(q.device.type, q.dtype, q.shape[-1], dropout)
    whole = q.shape[0] == k.shape[0]
    if whole and (kernel == "varlen_attn" or kernel == "flash_attn"):
        flash: Tensor = _flash(kernel, q, k, v, layout, scale, dropout)
        return flash
    if kernel == "groups" and _is_ours(q, layout, dropout):
        ours: Tensor = grouped_attention.Attention.apply(  # type: ignore[no-untyped-call]
            q, k, v, *layout.by_heads(q.shape[1], whole, q.element_size()), scale, dropout, _learns(q, k, v)
        )
        return ours
    slots = sum(group.rows * group.length for group in layout.groups)
    k, v, *rest = (
        x.new_zeros(slots, *x.shape[1:]).index_copy_(0, layout.slots, x) for x in (k, v, *[q] * whole)
    )
    out = _sdpa(rest[0] if whole else q, k, v, layout.groups, scale, dropout)
    return out.index_select(0, layout.slots) if whole else out


def _flash(kernel: str, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Any:
    ends = layout.boundaries
    longest = layout.lengths[-1]
    sizes = q, k, v, ends, ends, longest, longest
    window = (-1, -1) if layout.window is None else (layout.window, layout.window)
    if kernel == "varlen_attn":
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn(*sizes, scale=scale, window_size=window)
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(*sizes, dropout_p=dropout, softmax_scale=scale, window_size=window)


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
