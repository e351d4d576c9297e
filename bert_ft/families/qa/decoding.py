"""The n best answers of every question from the logits of its windows: top-k starts and ends, padded arrays,
no loops."""

from __future__ import annotations

import numpy as np

from bert_ft.families.features import Features

CHUNK = 512  # windows whose starts and ends are combined together
LEAST = -1e30  # what stands for a logit that is no number


def n_best(
    logits: np.ndarray, features: Features, rows: int, *, n: int, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best spans over all windows of each question, the best first.

    A span starts and ends in the context, ends where it starts or later, takes at most `max_answer_length`
    tokens, and starts in the window in which its first token has the most context, as in BERT's run_squad.py.
    It is one of the pairs of a window's `n` best starts and `n` best ends; a window in which no such pair is
    valid gives its best span.

    Args:
        logits: (T, 2) start and end logits in the order of the windows' flat tokens.
    Returns:
        spans (rows, n, 2) int32, characters of the context, -1 where there are fewer;
        scores (rows, n) float32, start plus end logit, -inf where there are fewer;
        null (rows,) float32, the least score of [CLS] over the windows (Devlin et al. 2019, section 4.3).
    """
    row = features.values["row"]
    lengths = features.lengths
    blank = logits[features.offsets[:-1] + features.values["cls"]].sum(1)
    null = np.full(rows, np.inf, np.float32)
    np.minimum.at(null, row, np.nan_to_num(blank, nan=LEAST))
    order = np.argsort(lengths, kind="stable")  # windows of near length: little padding
    found = [
        _chunk(logits, features, order[i : i + CHUNK], n, max_answer_length)
        for i in range(0, len(order), CHUNK)
    ]
    window, first, last, score = (np.concatenate(column) for column in zip(*found, strict=True))

    best = np.lexsort((-score, row[window]))
    question = row[window[best]]
    starts = np.flatnonzero(np.diff(question, prepend=-1))
    rank = np.arange(len(best)) - np.repeat(starts, np.diff(np.append(starts, len(best))))
    best = best[rank < n]
    question = question[rank < n]
    rank = rank[rank < n]
    spans = np.full((rows, n, 2), -1, np.int32)
    scores = np.full((rows, n), -np.inf, np.float32)
    spans[question, rank, 0] = features.places["begin"][first[best]]
    spans[question, rank, 1] = features.places["end"][last[best]]
    scores[question, rank] = score[best]
    return spans, scores, null


def _chunk(
    logits: np.ndarray, features: Features, windows: np.ndarray, n: int, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(window, flat token of its start, of its end, score) of the candidates of these windows."""
    offsets = features.offsets[windows]
    lengths = features.lengths[windows]
    place = np.arange(lengths.max())
    at = np.where(real := place < lengths[:, None], offsets[:, None] + place, 0)
    inside = real & (features.places["begin"][at] < features.places["end"][at])
    low, high = (features.values[key][windows][:, None] for key in ("low", "high"))
    both = np.nan_to_num(logits[at], nan=LEAST, posinf=-LEAST, neginf=LEAST)
    start = np.where(inside & (place >= low) & (place <= high), both[..., 0], -np.inf)
    end = np.where(inside, both[..., 1], -np.inf)

    k = min(n, len(place))
    starts, ends = (np.argpartition(side, -k, axis=1)[:, -k:] for side in (start, end))
    span = ends[:, None, :] - starts[:, :, None]
    score = np.take_along_axis(start, starts, 1)[:, :, None] + np.take_along_axis(end, ends, 1)[:, None, :]
    score[(span < 0) | (span >= max_answer_length)] = -np.inf
    score = score.reshape(len(windows), -1)
    m = min(n, score.shape[1])
    best = np.argpartition(score, -m, axis=1)[:, -m:]
    score = np.take_along_axis(score, best, 1)
    first = np.take_along_axis(starts, best // k, 1)
    last = np.take_along_axis(ends, best % k, 1)
    if (none := np.isneginf(score).all(1)).any():
        first[none, 0], last[none, 0], score[none, 0] = _best(start[none], end[none], max_answer_length)
    window, column = np.nonzero(~np.isneginf(score))
    pick = (window, column)
    return windows[window], offsets[window] + first[pick], offsets[window] + last[pick], score[pick]


def _best(
    start: np.ndarray, end: np.ndarray, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(W,) first token, last token and score of the best valid span of each window, every pair considered."""
    padded = np.pad(end, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf)
    reach = np.lib.stride_tricks.sliding_window_view(padded, max_answer_length, axis=1)
    first = (start + reach.max(2)).argmax(1)
    each = np.arange(len(start))
    last = np.minimum(first + reach[each, first].argmax(1), start.shape[1] - 1)
    return first, last, start[each, first] + end[each, last]
