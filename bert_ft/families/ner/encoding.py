"""Where the windows of long sentences begin and end."""

from __future__ import annotations

import numpy as np

from bert_ft.families import tokenization


def windows(
    limits: np.ndarray, low: np.ndarray, high: np.ndarray, budget: int, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of at most `budget` tokens over rows that lie behind one another.

    Args:
        limits: (N + 1,) row i is the tokens limits[i] to limits[i + 1].
        low, high: (N,) how far the context of each row reaches.
        stride: tokens that two windows of a row share, at least, up to half a window.
    Returns:
        begin, end, core, each (F,): the tokens core[f] to core[f + 1] are further from the edges of window f,
        which is begin[f] to end[f], than from those of any other.
    """
    lengths = np.diff(limits)
    stride = min(stride, budget // 2)
    row, number, many = tokenization.windows(lengths, budget, budget - stride)
    spread = number * (lengths[row] - budget) // np.maximum(many[row] - 1, 1)
    alone = np.clip(limits[:-1] - (budget - lengths) // 2, low, np.maximum(low, high - budget))[row]
    begin = np.where(many[row] > 1, limits[row] + spread, alone)
    end = np.minimum(begin + budget, np.where(many > 1, limits[1:], high)[row])
    core = limits[row].copy()
    later = np.flatnonzero(number)
    core[later] = (begin[later - 1] + begin[later] + budget) // 2
    return begin, end, core
