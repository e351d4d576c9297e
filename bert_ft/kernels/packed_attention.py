"""Attention within each sequence of a packed batch: the sequences lie one behind the other, without padding.

`Layout` says where they lie and how they lay in the padded batch; `attend` computes their attention with the
kernel that `choose_kernel` picks for the device. Nothing here knows a model.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP_COST = 1000  # what one more group costs, in attention scores per head; 300 to 4,000 measure within 3 %
# Bytes of scores that are computed together, so that softmax and dropout find them in the cache: 8 rows of
# 384 tokens take 0.75 of the time that they take as one; 256 KB to 2 MB measure alike.
SCORES = 2**20
LONG = 1024  # tokens from which on a training keeps no scores that torch's attention would not

Kernel = Literal["groups", "varlen_attn", "flash_attn", "block"]


class Span(NamedTuple):
    """Queries of each sequence of a group, and the keys that any of them may look at.

    Attributes:
        mask: (rows or 1, 1, queries, keys) True where attention may look; None: everywhere.
    """

    queries: slice
    keys: slice
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of near length, for attention padded to the longest of them: rows x length slots.

    Attributes:
        lengths: (rows,) how many tokens each has; None: all as many.
        window: local attention: at most so far to either side; None: everywhere.
        banded: whether long sequences are computed in spans, so that a window costs what it spans.
    """

    rows: int
    length: int
    lengths: Tensor | None
    window: int | None
    device: torch.device
    banded: bool

    def heads(self, x: Tensor) -> Tensor:
        """(rows * length, heads, d) -> (rows, heads, length, d), a view; also of a single query each."""
        return x.view(self.rows, x.shape[0] // self.rows, *x.shape[1:]).transpose(1, 2)

    def spans(self, queries: int) -> list[Span]:
        """What is computed together, for all queries of a sequence or for the first of them; made once, kept
        for all layers."""
        cached: dict[int, list[Span]] = self.__dict__.setdefault("_spans", {})
        if queries not in cached:
            window = self.length if self.window is None else self.window
            size = 2 * window if self.banded and window else queries
            starts = range(0, queries, max(1, size))
            cached[queries] = [self._span(start, min(start + size, queries), window) for start in starts]
        return cached[queries]

    def _span(self, start: int, end: int, window: int) -> Span:
        first = max(0, start - window) if self.banded else 0
        last = min(self.length, end + window) if self.banded else self.length
        at = torch.arange(start, end, device=self.device)[:, None]
        other = torch.arange(first, last, device=self.device)
        mask = None if self.lengths is None else (other < self.lengths[:, None])[:, None, None]
        if max(end - 1 - first, last - 1 - start) > window:
            near = (at - other).abs() <= window
            # padding may look at itself: a row of scores that may look nowhere would be NaN
            mask = near[None, None] if mask is None else near & mask | (at == other)
        return Span(slice(start, end), slice(first, last), mask)


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

    def _upload(self, values: list[int] | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.tokens.device, non_blocking=True)


def runs(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(sum of lengths,) on the CPU: starts[0], starts[0] + 1, ..., lengths[0] of them, then from starts[1],
    ..."""
    sizes = torch.tensor(lengths)
    shifts = torch.tensor(starts) - sizes.cumsum(0) + sizes
    return shifts.repeat_interleave(sizes) + torch.arange(int(sizes.sum()))


def group_sizes(lengths: Sequence[int], cost: int | None) -> list[int]:
    """Cut ascending lengths into groups so that the sum over groups of rows x longest^2 + cost is least, and
    return how many rows each has. Without a cost: one group."""
    if cost is None:
        return [len(lengths)]
    counts = sorted(Counter(lengths).items())  # equal lengths never part
    rows = [0, *itertools.accumulate(count for _, count in counts)]
    best = [(0, 0)]  # for the k shortest lengths: the least sum, and where its last group starts
    for end, (longest, _) in enumerate(counts, 1):
        area = longest * longest
        best.append(min((best[k][0] + cost + (rows[end] - rows[k]) * area, k) for k in range(end)))
    sizes = []
    end = len(counts)
    while end:
        start = best[end][1]
        sizes.append(rows[end] - rows[start])
        end = start
    return sizes[::-1]


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
    slots = sum(group.rows * group.length for group in layout.groups)
    k, v, *rest = (
        x.new_zeros(slots, *x.shape[1:]).index_copy_(0, layout.slots, x) for x in (k, v, *[q] * whole)
    )
    attention = _Attention.apply if kernel == "groups" and _is_ours(q, layout, dropout) else _sdpa
    out: Tensor = attention(rest[0] if whole else q, k, v, layout.groups, scale, dropout)
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
    learns = q.requires_grad and torch.is_grad_enabled()
    longest = layout.groups[-1].length
    reach = longest if layout.window is None else min(longest, 4 * layout.window)
    return dropout > 0 or (q.dtype == torch.bfloat16 and not (learns and reach > LONG))


class _Attention(torch.autograd.Function):
    """What `_sdpa` computes, with its backward written out: over matrices this small autograd's bookkeeping
    around softmax and dropout costs a quarter more, sdpa's path with dropout a third.

    Scores, softmax and its gradient are in float32 at least. In bfloat16 scores of 10 would be wrong by 0.03,
    and gradients by five times as much as torch's fused kernel has them."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, groups: list[Group], scale: float, dropout: float
    ) -> Tensor:
        out = q.new_empty(q.shape[0], *v.shape[1:])
        saved: list[Tensor | None] = []
        wide = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):  # the backward runs without it, on the same types
            for mask, q_, into, k_, v_ in _pieces(groups, q.shape[0] == k.shape[0], (q, out), (k, v)):
                # each (rows * heads, length, d)
                q_, k_, v_ = (x.flatten(0, 1) for x in (q_, k_, v_))
                scores = torch.bmm(q_.to(wide) * scale, k_.to(wide).mT)
                if mask is not None:
                    scores.view(into.shape[0], -1, *scores.shape[1:]).masked_fill_(~mask, float("-inf"))
                probs = scores.softmax(-1).to(q.dtype)
                keep_mask = keep(probs, dropout) if dropout > 0 else None
                into.copy_(torch.bmm(_dropped(probs, keep_mask), v_).view_as(into))
                if any(ctx.needs_input_grad):
                    saved += [q_, k_, v_, probs, keep_mask]
        ctx.save_for_backward(*saved)
        ctx.groups = groups
        ctx.scale = scale
        ctx.shapes = (q.shape, k.shape, v.shape)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = iter(ctx.saved_tensors)
        dq, dk, dv = grads = [grad.new_zeros(shape) for shape in ctx.shapes]
        wide = torch.promote_types(grad.dtype, torch.float32)
        for _, dout, *into in _pieces(ctx.groups, dq.shape[0] == dk.shape[0], (grad, dq), (dk, dv)):
            q_, k_, v_, probs, keep_mask = itertools.islice(saved, 5)
            dout = dout.flatten(0, 1)
            dropped = _dropped(probs, keep_mask)
            dprobs = torch.bmm(dout, v_.mT).to(wide).mul_(dropped)
            dscores = dprobs.sub_(probs * dprobs.sum(-1, keepdim=True)).mul_(ctx.scale).to(grad.dtype)
            results = (torch.bmm(dscores, k_), torch.bmm(dscores.mT, q_), torch.bmm(dropped.mT, dout))
            for every, part in zip(into, results, strict=True):
                every.add_(part.view_as(every))  # of keys that several spans look at
        return *grads, None, None, None


def _dropped(probs: Tensor, keep_mask: Tensor | None) -> Tensor:
    return probs if keep_mask is None else probs * keep_mask


def _pieces(
    groups: list[Group], whole: bool, queries: Sequence[Tensor], keys: Sequence[Tensor]
) -> Iterator[tuple[Any, ...]]:
    """What is computed together: some rows of a group, or some heads of one row, as many as have `SCORES`
    bytes of scores.

    Yields:
        the mask of the rows, or None; then of each of the `queries` and the `keys`, which lie in slots, the
        view (rows, heads, length, d).
    """
    parts = [*(_parts(groups, x, whole) for x in queries), *(_parts(groups, x, True) for x in keys)]
    for group, *here in zip(groups, *parts, strict=True):
        views = [group.heads(x) for x in here]
        heads, length = views[0].shape[1:3]
        for at, near, mask in group.spans(length):
            size = (at.stop - at.start) * (near.stop - near.start) * views[0].element_size()
            fit = max(1, SCORES // size)  # heads, of any row
            rows, some = max(1, fit // heads), min(fit, heads)
            tokens = [at] * len(queries) + [near] * len(keys)
            for row, head in itertools.product(range(0, group.rows, rows), range(0, heads, some)):
                part = slice(row, row + rows)
                masked = mask[part] if mask is not None and len(mask) > 1 else mask
                yield (masked, *(v[part, head : head + some, t] for v, t in zip(views, tokens, strict=True)))


def keep(like: Tensor, dropout: float) -> Tensor:
    """A dropout mask: zeros at the rate of `dropout`, elsewhere what keeps the mean."""
    return torch.empty_like(like).bernoulli_(1 - dropout).mul_(1 / (1 - dropout) if dropout < 1 else 0.0)
