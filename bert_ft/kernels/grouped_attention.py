"""Attention on a CPU over groups of near length, where that beats torch's: with dropout, or in bfloat16.

Heads come first: within a group each head of each sequence is one block of its tokens, so that every product
is one batched product over blocks, whatever part of a group is computed together. Tokens are brought there
and back by one look-up for all groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bert_ft.errors import InputError
from bert_ft.kernels.groups import Group

# Bytes of scores that are computed together, so that softmax and dropout find them in the cache: 8 rows of
# 384 tokens take 0.75 of the time that they take as one; 256 KB to 2 MB measure alike.
SCORES = 2**20
# Keys up to which a step of a training is computed in float32 whatever comes in. In bfloat16 nearly every
# batch has products of new shapes, and oneDNN makes a kernel for each: over rows of RTE, 20 to 250 tokens,
# a forward and a backward take 1.3 to 1.6 times as long so, of SQuAD, 100 to 384, 0.9 times; a forward
# alone 0.9.
NARROW = 256


class Places(NamedTuple):
    """Where the T tokens of H heads lie when heads come first.

    Attributes:
        tokens: (slots * H,) for each slot of each head the row of the flattened (T * H, d); padding has a row
            of its own sequence.
        slots: (T * H,) the slot of each head of each token.
    """

    tokens: Tensor
    slots: Tensor

    @classmethod
    def of(cls, groups: Sequence[Group], lengths: Sequence[int], heads: int) -> Places:
        """Of sequences of these lengths, grouped in their order."""
        sizes = torch.tensor([group.length for group in groups for _ in range(group.rows)])
        count = torch.tensor(lengths)
        begin = count.cumsum(0) - count
        at = torch.arange(int(count.sum())) - begin.repeat_interleave(count)
        blocks = (sizes.cumsum(0) - sizes) * heads
        head = torch.arange(heads)
        slots = (blocks.repeat_interleave(count) + at)[:, None] + sizes.repeat_interleave(count)[
            :, None
        ] * head
        tokens = (begin * heads).repeat_interleave(sizes * heads)
        tokens[slots.flatten()] = torch.arange(slots.numel())
        return cls(tokens, slots.flatten())

    def enter(self, x: Tensor) -> Tensor:
        """(T, H, d) -> (slots * H, d)."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.tokens)

    def enter_with_zeros(self, x: Tensor) -> Tensor:
        """The same, with zeros at the padding."""
        entered = x.new_zeros(len(self.tokens), x.shape[-1])
        return entered.index_copy_(0, self.slots, x.reshape(-1, x.shape[-1]))

    def leave(self, x: Tensor, heads: int) -> Tensor:
        """(slots * H, d) -> (T, H, d)."""
        return x.index_select(0, self.slots).view(-1, heads, x.shape[-1])


class Piece(NamedTuple):
    """Blocks that are computed together: heads of sequences that are as long.

    Attributes:
        sequences: how many, of which all heads are here, or some heads of one.
        blocks: how many heads of sequences.
        queries, keys: the slots of their blocks.
        at, near: the tokens of each block that are looked from, and looked at.
        alone: whether all keys of its blocks are looked at here, and nowhere else.
        bias: (sequences or 1, 1, queries or 1, keys) 0 where attention may look, -inf elsewhere; None:
            everywhere.
    """

    sequences: int
    blocks: int
    queries: slice
    keys: slice
    at: slice
    near: slice
    alone: bool
    bias: Tensor | None

    def looking(self, x: Tensor) -> Tensor:
        """(slots of queries, d) -> (blocks, queries, d), a view."""
        return x[self.queries].view(self.blocks, -1, x.shape[-1])[:, self.at]

    def looked_at(self, x: Tensor) -> Tensor:
        """(slots of keys, d) -> (blocks, keys, d), a view."""
        return x[self.keys].view(self.blocks, -1, x.shape[-1])[:, self.near]


def pieces(groups: Sequence[Group], heads: int, each: int | None, element_size: int) -> list[Piece]:
    """What is computed together: some sequences of a group, or some heads of one, as many as have `SCORES`
    bytes of scores.

    Args:
        heads: of keys and values.
        each: how many queries a head of a sequence has; None: one for every token.
        element_size: bytes of a score.
    """
    found = []
    sequence = slot = 0  # the first of a group
    for group in groups:
        queries = group.length if each is None else each
        spans = group.spans(queries)
        for at, near, mask in spans:
            bias = None if mask is None else torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
            size = (at.stop - at.start) * (near.stop - near.start) * element_size
            fit = max(1, SCORES // size)  # heads, of any sequence
            rows, some = max(1, fit // heads), min(fit, heads)
            for row, head in itertools.product(range(0, group.rows, rows), range(0, heads, some)):
                row_end, head_end = min(row + rows, group.rows), min(head + some, heads)
                first, last = row * heads + head, (row_end - 1) * heads + head_end
                start = slot if each is None else sequence * heads * each
                found.append(
                    Piece(
                        row_end - row,
                        last - first,
                        slice(start + first * queries, start + last * queries),
                        slice(slot + first * group.length, slot + last * group.length),
                        at,
                        near,
                        len(spans) == 1 and near == slice(0, group.length),
                        bias[row:row_end] if bias is not None and len(bias) > 1 else bias,
                    )
                )
        sequence += group.rows
        slot += group.rows * group.length * heads
    return found


class Attention(torch.autograd.Function):
    """softmax(q k^T scale) v within each sequence, with its backward written out: over matrices this small
    autograd's bookkeeping around softmax and dropout costs a quarter more, torch's path with dropout a third.

    Scores, softmax and its gradient are in float32 at least; in a training over few keys all of it is. In
    bfloat16 scores of 10 would be wrong by 0.03, and gradients by five times as much as torch's fused kernel
    has them."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        places: Places,
        parts: list[Piece],
        scale: float,
        dropout: float,
        learns: bool,
    ) -> Tensor:
        """q (T, H, d), or (sequences, H, d) of each one's first token; k (T, H, d) and v (T, H, d') -> as q,
        (..., H, d'). With k (T, 1, d) and v (T, 1, d') all H queries of a sequence look at the same keys.
        Scores are kept for a backward if it `learns`."""
        wide = torch.promote_types(q.dtype, torch.float32)
        narrow = max(part.near.stop - part.near.start for part in parts) <= NARROW
        dtype = wide if learns and narrow else q.dtype
        whole = q.shape[0] == k.shape[0]
        saved: list[Tensor] = []
        mean = 1.0
        with torch.autocast(q.device.type, enabled=False):  # the backward runs without it, on the same types
            q_ = (places.enter(q) if whole else q.reshape(-1, q.shape[-1])).to(dtype)
            k_, v_ = places.enter(k).to(dtype), places.enter(v).to(dtype)
            out = v_.new_empty(len(q_), v_.shape[-1])
            wide_q, wide_k = q_.to(wide), k_.to(wide)
            for part in parts:
                looking, looked_at = part.looking(wide_q), part.looked_at(wide_k)
                scores = wide_q.new_empty(part.blocks, looking.shape[1], looked_at.shape[1])
                scores.baddbmm_(looking, looked_at.mT, beta=0, alpha=scale)
                if part.bias is not None:
                    scores.view(part.sequences, -1, *scores.shape[1:]).add_(part.bias)
                probs = torch.softmax(scores, -1, out=scores).to(dtype)
                dropped, mean = _dropped(probs, dropout)
                part.looking(out).baddbmm_(dropped, part.looked_at(v_), beta=0, alpha=mean)
                if learns:
                    saved += [probs, dropped]
            out = (places.leave(out, q.shape[1]) if whole else out.view(*q.shape[:2], -1)).to(q.dtype)
        ctx.save_for_backward(*([q_, k_, v_, *saved] if learns else []))
        ctx.places, ctx.parts, ctx.scale, ctx.whole, ctx.mean = places, parts, scale, whole, mean
        ctx.heads = k.shape[1]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():  # the share of q, k and v in a second derivative would be missing
            message = "a loss that holds gradients can't differentiate attention over packed tokens twice"
            raise InputError(message, where="batching.unpad", remedy="batching.unpad = false")
        q_, k_, v_, *saved = ctx.saved_tensors
        places, scale, mean = ctx.places, ctx.scale, ctx.mean
        wide = torch.promote_types(grad.dtype, torch.float32)
        # zeros at the padding, whose queries then have no gradient to hand on
        dout = places.enter_with_zeros(grad) if ctx.whole else grad.reshape(-1, grad.shape[-1])
        dout = dout.to(q_.dtype)
        new = torch.empty_like if all(part.alone for part in ctx.parts) else torch.zeros_like
        dq, dk, dv = torch.empty_like(q_), new(k_), new(v_)
        for part, probs, dropped in zip(ctx.parts, saved[::2], saved[1::2], strict=True):
            d, values = part.looking(dout), part.looked_at(v_)
            dscores = d.new_empty(probs.shape).baddbmm_(d, values.mT, beta=0, alpha=mean)
            dscores = dscores.to(wide).mul_(dropped)
            dscores = dscores.addcmul_(probs.to(wide), dscores.sum(-1, keepdim=True), value=-1).to(q_.dtype)
            part.looking(dq).baddbmm_(dscores, part.looked_at(k_), beta=0, alpha=scale)
            beta = 0 if part.alone else 1  # added up, for keys that several spans look at
            part.looked_at(dk).baddbmm_(dscores.mT, part.looking(q_), beta=beta, alpha=scale)
            part.looked_at(dv).baddbmm_(dropped.mT, d, beta=beta, alpha=mean)
        dq = places.leave(dq, ctx.heads) if ctx.whole else dq.view(*grad.shape[:2], -1)
        gradients = (dq, places.leave(dk, ctx.heads), places.leave(dv, ctx.heads))
        return *(x.to(grad.dtype) for x in gradients), *[None] * 5


def _dropped(probs: Tensor, dropout: float) -> tuple[Tensor, float]:
    """The probabilities that are left, and what they are to be multiplied by."""
    if not dropout > 0:
        return probs, 1.0
    mask, mean = keep(probs, dropout)
    return mask.mul_(probs), mean


def keep(like: Tensor, dropout: float) -> tuple[Tensor, float]:
    """A dropout mask, zeros at the rate of `dropout` and ones elsewhere, and the factor that keeps the mean,
    which bfloat16 would round by a part in 600; never 0, with which torch's batched product in bfloat16
    leaves in its result what was there before."""
    return torch.empty_like(like).bernoulli_(1 - dropout), 1 / (1 - dropout) if dropout < 1 else 1.0
