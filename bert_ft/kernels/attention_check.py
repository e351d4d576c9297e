"""Attention under dropout held against plain attention in which just the same was dropped: a part of the
self-check of padding-free layers."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from bert_ft.kernels.packed_attention import Layout, attend, runs


class Request(NamedTuple):
    """What a layer asks of attention: the kind of its q, k, v, and how they attend."""

    dtype: torch.dtype
    heads: int
    head_dim: int
    dropout: float
    window: int | None


def check_dropout(device: torch.device, request: Request) -> str | None:
    """What is wrong with attention under dropout as this machine computes it, forward and backward; None:
    nothing.

    The values are unit vectors, so that what comes out are the probabilities after dropout. They show what
    was dropped: its share has to be the rate to 5 standard errors, and with just that dropped plain softmax
    attention, in fp32, has to give the same output and the same gradients.
    """
    dtype, heads, head_dim, dropout, window = request
    generator = torch.Generator().manual_seed(0)
    longest = min(head_dim, 24)
    lengths = [max(1, longest // 3)] * 4 + [longest] * 4
    tokens = sum(lengths)
    starts = [0, *itertools.accumulate(lengths)]
    row = runs([k * longest for k in range(len(lengths))], lengths).to(device)
    layout = Layout(len(lengths), longest, lengths, row, window, lambda: None)
    q, k, grad = (
        torch.randn(tokens, heads, head_dim, generator=generator).to(device, dtype) for _ in range(3)
    )
    v = torch.cat([torch.eye(longest, head_dim)[:length] for length in lengths])[:, None].expand(
        -1, heads, -1
    )
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v.to(device, dtype))]
    with torch.enable_grad():
        out = attend(leaves[0], leaves[1], leaves[2], layout, head_dim**-0.5, dropout)
        results = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
    expected: list[list[Tensor]] = [[] for _ in results]
    dropped = total = 0
    for start, end in itertools.pairwise(starts):
        here = [x.detach()[start:end].float().requires_grad_() for x in leaves]
        at = torch.arange(end - start, device=device)
        near = (at - at[:, None]).abs() <= (longest if window is None else window)
        after = out.detach()[start:end, :, : end - start].transpose(0, 1)  # (heads, queries, keys)
        dropped += int(((after == 0) & near).sum())
        total += int(near.sum()) * heads
        with torch.enable_grad():
            scores = torch.einsum("ihd,jhd->hij", here[0], here[1]) * head_dim**-0.5
            probs = scores.masked_fill(~near, float("-inf")).softmax(-1) * (after != 0) / (1 - dropout)
            reference = torch.einsum("hij,jhd->ihd", probs, here[2])
            parts = [reference.detach(), *torch.autograd.grad(reference, here, grad[start:end].float())]
        for pieces, part in zip(expected, parts, strict=True):
            pieces.append(part)
    if abs(dropped / total - dropout) > 5 * (dropout * (1 - dropout) / total) ** 0.5:
        return f"attention drops {dropped / total:.3f} of its weights instead of {dropout}"
    for name, result, pieces in zip(("output", "dq", "dk", "dv"), results, expected, strict=True):
        reference = torch.cat(pieces)
        difference = float((result.float() - reference).norm() / reference.norm())
        if not difference <= (1e-4 if dtype == torch.float32 else 3e-2):
            return f"attention under dropout: {name} differs by {difference:.1e}"
    return None
