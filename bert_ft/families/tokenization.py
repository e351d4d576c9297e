"""Texts to flat arrays of token ids, in large batches through the Rust tokenizer; long texts cut, or read in
windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft.errors import InputError
from bert_ft.families import coverage, fast_tokenizer
from bert_ft.families.features import ranges

HEAD = 0.25  # of head+tail: Sun et al. 2019 keep the first 128 of 510 tokens and the last 382

Encoded = tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    *,
    keep: str | None = None,
) -> Encoded:
    """Tokenizes texts, or pairs of texts, as `tokenizer(text, pair, truncation="longest_first")` would.

    Args:
        keep: what is kept of a row too long: "head" or "tail" (of each text of a pair); by default what the
            tokenizer's `truncation_side` says.
    Returns:
        offsets (N + 1,) int64; token columns (T,) int32 (input_ids, and token_type_ids where the model has
        them);
        counts: rows, tokens, truncated (rows that lost tokens), unknown (tokens the vocabulary lacks),
            characters and uncovered (those that no token stands for) as `coverage.of_texts` has them.
    Raises:
        InputError: a tokenizer without a Rust backend.
    """
    side = {"head": "right", "tail": "left", None: tokenizer.truncation_side}[keep]
    offsets, tokens, truncated = _tokenized(tokenizer, texts, pairs, max_length, side)
    return offsets, tokens, _counts(tokenizer, [*texts, *(pairs or ())], len(texts), tokens, truncated)


def encode_head_and_tail(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """As `encode` for single texts, but of a text too long the first quarter of the room and the last three
    are kept."""
    frame, ends, tokens = _unframed(tokenizer, texts)
    room = max_length - frame.size
    lengths = np.diff(ends)
    head = np.where(lengths > room, round(room * HEAD), lengths)
    tail = np.where(lengths > room, room - head, 0)
    offsets, source = fast_tokenizer.join(
        [frame.parts[0], (ends[:-1], head), (ends[1:] - tail, tail), frame.parts[1]]
    )
    tokens = {key: column[source] for key, column in tokens.items()}
    return offsets, tokens, _counts(tokenizer, texts, len(texts), tokens, int((lengths > room).sum()))


def encode_windows(
    tokenizer: Any, texts: Sequence[str], max_length: int, stride: int
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int], np.ndarray]:
    """As `encode` for single texts, but a text too long becomes several features that share `stride` tokens
    or more; the last window of a text is moved back so that it is full.

    Returns:
        offsets (W + 1,), token columns and counts (with `windows`) as `encode`; the row of each window (W,).
    """
    frame, ends, tokens = _unframed(tokenizer, texts)
    room = max_length - frame.size
    lengths = np.diff(ends)
    if stride >= room:
        raise InputError(
            f"windows of {room} tokens can't share {stride}",
            where="classification.stride",
            remedy="a smaller stride, or a larger recipe.max_length",
        )
    rows, number, _ = windows(lengths, room, room - stride)
    starts = np.minimum(number * (room - stride), np.maximum(0, lengths - room)[rows])
    offsets, source = fast_tokenizer.join(
        [frame.parts[0], (ends[rows] + starts, np.minimum(lengths, room)[rows]), frame.parts[1]]
    )
    tokens = {key: column[source] for key, column in tokens.items()}
    counts = _counts(tokenizer, texts, len(texts), tokens, 0)
    return offsets, tokens, counts | {"windows": len(rows)}, rows


def windows(lengths: np.ndarray, room: Any, step: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many windows of at most `room` tokens, `step` tokens apart, cover rows of `lengths` tokens: the row
    of each window (W,), its number in the row, and how many each row has (N,). Room and step may differ by
    row."""
    counts = 1 + np.maximum(0, -((room - lengths) // step))
    row = np.repeat(np.arange(len(lengths)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts), counts


def _tokenized(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int | None,
    side: str = "right",
    special: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Offsets, token columns and the number of rows that lost tokens; without `max_length` none does."""
    typed = "token_type_ids" in tokenizer.model_input_names
    truncated = 0
    lengths = [np.zeros(1, np.int64)]
    ids = [np.empty(0, np.int32)]
    types = [np.empty(0, np.int32)]
    inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
    with fast_tokenizer.whole(tokenizer) as backend:
        if max_length is not None:
            backend.enable_truncation(max_length, strategy="longest_first", direction=side)
        for part in fast_tokenizer.chunks(inputs, fast_tokenizer.CHUNK):
            encodings = backend.encode_batch(part, add_special_tokens=special)
            sizes, numbers = fast_tokenizer.flat([encoding.ids for encoding in encodings])
            lengths.append(sizes)
            ids.append(numbers)
            if typed:
                types.append(fast_tokenizer.flat([encoding.type_ids for encoding in encodings])[1])
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
    tokens = {"input_ids": np.concatenate(ids)} | ({"token_type_ids": np.concatenate(types)} if typed else {})
    return np.cumsum(np.concatenate(lengths)), tokens, truncated


def _unframed(
    tokenizer: Any, texts: Sequence[str]
) -> tuple[fast_tokenizer.Frame, np.ndarray, dict[str, np.ndarray]]:
    """Whole texts without special tokens: the frame of each, where it begins and ends (N + 1,), and the token
    columns, which open with the frame's."""
    around = fast_tokenizer.frame(tokenizer)
    ends, tokens, _ = _tokenized(tokenizer, texts, None, None, special=False)
    columns = {key: np.concatenate([around.columns[key], column]) for key, column in tokens.items()}
    return around, ends + around.size, columns


def _counts(
    tokenizer: Any, texts: Sequence[str], rows: int, tokens: dict[str, np.ndarray], truncated: int
) -> dict[str, int]:
    ids = tokens["input_ids"]
    counts = {
        "rows": rows,
        "tokens": len(ids),
        "truncated": truncated,
        "unknown": coverage.unknown(tokenizer, ids),
    }
    return counts | coverage.counts(*coverage.of_texts(tokenizer, texts))


def encode_words(tokenizer: Any, words: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes words as `tokenizer(words, is_split_into_words=True)` would, without special tokens.

    A word's tokens do not depend on its neighbours, so each different word is tokenized once.

    Returns:
        token ids (P,) int32; offsets (W + 1,) int64, word i has the tokens offsets[i] to offsets[i + 1]
        (none, where the tokenizer makes nothing of it).
    """
    fast_tokenizer.leading_space(tokenizer)
    coded = words.dictionary_encode()
    rows: list[list[int]] = []
    known = coded.dictionary.to_pylist()
    with fast_tokenizer.whole(tokenizer) as backend:
        for part in fast_tokenizer.chunks(known, fast_tokenizer.CHUNK, "words"):
            single = [[word] for word in part]
            encodings = backend.encode_batch_fast(single, is_pretokenized=True, add_special_tokens=False)
            rows += [encoding.ids for encoding in encodings]
    sizes, ids = fast_tokenizer.flat(rows)
    chosen = coded.indices.to_numpy()
    lengths = sizes[chosen]
    source = ranges((np.cumsum(sizes) - sizes)[chosen], lengths)
    return ids[source], np.concatenate([[0], np.cumsum(lengths)])
