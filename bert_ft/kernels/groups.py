"""Sequences of near length in groups, for attention padded within each: how they are cut, and what of a group
is computed together where attention is local."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

GROUP_COST = 1000  # what one more group costs, in attention scores per head; 300 to 4,000 measure within 3 %
LANES = 16  # numbers in a vector of a CPU
WORTH = 5  # keys beyond whole vectors from which on one more is worth being filled


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
        """What is computed together, for all tokens of a sequence or for the first of them; without a window
        also for so many queries that are no tokens. Made once, kept for all layers."""
        cached: dict[int, list[Span]] = self.__dict__.setdefault("_spans", {})
        if queries not in cached:
            window = self.length if self.window is None else self.window
            size = 2 * window if self.banded and self.window else queries
            starts = range(0, queries, max(1, size))
            cached[queries] = [self._span(start, min(start + size, queries), window) for start in starts]
        return cached[queries]

    def _span(self, start: int, end: int, window: int) -> Span:
        first = max(0, start - window) if self.banded else 0
        last = min(self.length, end + window) if self.banded else self.length
        at = torch.arange(start, end, device=self.device)[:, None]
        other = torch.arange(first, last, device=self.device)
        mask = None if self.lengths is None else (other < self.lengths[:, None])[:, None, None]
        if self.window is not None and max(end - 1 - first, last - 1 - start) > window:
            near = (at - other).abs() <= window
            # padding may look at itself: a row of scores that may look nowhere would be NaN
            mask = near[None, None] if mask is None else near & mask | (at == other)
        return Span(slice(start, end), slice(first, last), mask)


def width(length: int) -> int:
    """What a sequence of so many tokens is padded to on a CPU, at least: what is left of a row beside whole
    vectors costs so much that 15 keys take three times as long as 16, and 5 as long."""
    return length if 0 < length % LANES < WORTH else -(-length // LANES) * LANES


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
