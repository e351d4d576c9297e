"""Texts as what the encoder reads: each once, cut to its length, or in windows that cover it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_ft.errors import InputError
from bert_ft.families import fast_tokenizer, tokenization
from bert_ft.families.features import Features

SHARED = 4  # windows share one token in so many, at least


@dataclass(frozen=True)
class Windows:
    """Texts as features.

    Attributes:
        features: the windows of the texts that have tokens, in their order. values: `text`, its number;
            `last`, whether it is that text's last window. places: `place`, the number of the token in its
            text, -1 for special ones and the prompt's; `position`, counted from 1 with the special ones and
            the prompt's; `counted`, whether pooling takes the token: each of a text once, from the window
            where it has the most context, and the special ones of each window.
        lengths: (N,) tokens of each text, without special ones and the prompt's.
        spans: of each text (lengths[i], 2) the characters that its tokens stand for.
        truncated: (N,) whether tokens are left out.
        counts: tokens of all texts, and how many of them are `unknown`, of which the encoder sees nothing.
    """

    features: Features
    lengths: np.ndarray
    spans: list[np.ndarray]
    truncated: np.ndarray
    counts: dict[str, int]


def lower(tokenizer: Any) -> None:
    """Has the tokenizer lower-case every text first."""
    from tokenizers import normalizers

    backend = fast_tokenizer.fast(tokenizer)
    parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
    backend.normalizer = normalizers.Sequence(parts)


def cut(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    *,
    prompt: str = "",
    counts_prompt: bool = True,
    whole: bool = False,
) -> Windows:
    """Texts as features of at most `max_length` tokens, special ones among them.

    Args:
        prompt: stands before each text, and in each of its windows.
        counts_prompt: whether pooling takes the prompt's tokens; without them nor what stands before them.
        whole: of a text too long, windows that cover all of it; otherwise its beginning alone (its end, where
            the tokenizer's `truncation_side` says so).
    Raises:
        InputError: a prompt that leaves no room for a text.
    """
    around = fast_tokenizer.frame(tokenizer)
    ends, ids, spans = fast_tokenizer.tokenize(tokenizer, [prompt + text for text in texts])
    lead = _lead(ends, spans, len(prompt))
    begin = ends[:-1] + lead
    lengths = ends[1:] - begin
    room = max_length - around.size - lead
    if (room < 1).any():
        message = f"the prompt has {lead.max():,} tokens, which leaves no room for a text"
        raise InputError(message, where=f"max_length = {max_length}", remedy="a shorter prompt")
    row, start, last = _starts(lengths, room, whole, tokenizer.truncation_side == "left")
    size = np.minimum(lengths, room)[row]
    own = np.zeros(around.size, np.int32)
    columns = {"input_ids": np.concatenate([around.columns["input_ids"], ids])}
    if "token_type_ids" in around.columns:
        types = np.full(len(ids), around.kinds[0], np.int32)
        columns["token_type_ids"] = np.concatenate([around.columns["token_type_ids"], types])
    offsets, source = fast_tokenizer.join(
        [
            around.parts[0],
            (len(own) + ends[row], lead[row]),
            (len(own) + begin[row] + start, size),
            around.parts[1],
        ]
    )
    window = np.repeat(np.arange(len(row)), np.diff(offsets))
    inner = np.arange(len(source)) - offsets[window]
    place = source - len(own) - begin[row][window]
    place[source < len(own)] = -1
    place = np.maximum(place, -1)
    low, high = _cores(start, size, last)
    counted = (place < 0) | ((low[window] <= place) & (place < high[window]))
    if prompt and not counts_prompt:
        counted &= inner >= (around.parts[0][1] + lead[row])[window]
    features = Features(
        offsets,
        {name: column[source] for name, column in columns.items()},
        values={"text": row, "last": last},
        weights=np.ones(len(row)),
        places={"place": place, "position": inner + 1 + start[window], "counted": counted},
    )
    truncated = np.zeros(len(texts), bool) if whole else lengths > room
    each = [spans[a:b] - len(prompt) for a, b in zip(begin, ends[1:], strict=True)]
    unknown = int((ids == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
    return Windows(features, lengths, each, truncated, {"tokens": len(ids), "unknown": unknown})


def _lead(ends: np.ndarray, spans: np.ndarray, characters: int) -> np.ndarray:
    """(N,) how many tokens of each text begin within its first characters."""
    before = np.concatenate([[0], np.cumsum(spans[:, 0] < characters)])
    out: np.ndarray = before[ends[1:]] - before[ends[:-1]]
    return out


def _starts(
    lengths: np.ndarray, room: np.ndarray, whole: bool, from_end: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each window the text, the token that it starts with, and whether it is the text's last one; none of
    a text without tokens."""
    left_out = np.maximum(0, lengths - room)
    if whole:
        step = room - room // SHARED
        row, number, many = tokenization.windows(lengths, room, step)
        start = np.minimum(number * step[row], left_out[row])
        last = number == many[row] - 1
    else:
        row = np.arange(len(lengths))
        start = left_out if from_end else np.zeros_like(left_out)
        last = np.ones(len(row), bool)
    some = lengths[row] > 0
    return row[some], start[some], last[some]


def _cores(start: np.ndarray, size: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a text that each window gives: two neighbours part in the middle of what they share."""
    low, high = start.copy(), start + size
    later = np.flatnonzero(~last[:-1]) + 1
    low[later] = high[later - 1] = (start[later] + start[later - 1] + size[later - 1]) // 2
    return low, high
