"""Texts to flat arrays of token ids, in large batches through the Rust tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from bert_ft.errors import InputError

CHUNK = 8192  # rows a call: enough for the Rust threads, few enough that their Encoding objects stay small


def encode(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    """Tokenizes texts, or pairs of texts, as `tokenizer(text, pair, truncation="longest_first")` would.

    Returns:
        offsets (N + 1,) int64; token columns (T,) int32 (input_ids, and token_type_ids where the model has them);
        counts: tokens, truncated (rows that lost tokens), unknown (tokens the vocabulary lacks).
    Raises:
        InputError: a tokenizer without a Rust backend.
    """
    typed = "token_type_ids" in tokenizer.model_input_names
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    truncated = 0
    with whole(tokenizer) as backend:
        backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
        for start in range(0, len(texts), CHUNK):
            inputs: Any = texts[start : start + CHUNK]
            if pairs is not None:
                inputs = list(zip(inputs, pairs[start : start + CHUNK], strict=True))
            encodings = backend.encode_batch(inputs, add_special_tokens=True)
            rows = [encoding.ids for encoding in encodings]
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            total = int(lengths[-1].sum())
            ids.append(np.fromiter(chain.from_iterable(rows), np.int32, total))
            if typed:
                types.append(np.fromiter(chain.from_iterable(e.type_ids for e in encodings), np.int32, total))
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    tokens = {"input_ids": np.concatenate(ids)}
    if typed:
        tokens["token_type_ids"] = np.concatenate(types)
    unknown = tokenizer.unk_token_id
    counts = {
        "rows": len(texts),
        "tokens": int(offsets[-1]),
        "truncated": truncated,
        "unknown": int((tokens["input_ids"] == unknown).sum()) if unknown is not None else 0,
    }
    return offsets, tokens, counts


@contextmanager
def whole(tokenizer: Any) -> Iterator[Any]:
    """The Rust tokenizer, which neither pads nor truncates; its own truncation is given back.

    Raises:
        InputError: a tokenizer without a Rust backend.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("this checkpoint has no fast (Rust) tokenizer", where=str(tokenizer.name_or_path),
                         remedy="save one beside it: tokenizer.json")  # fmt: skip
    old = backend.truncation
    backend.no_padding()
    backend.no_truncation()
    try:
        yield backend
    finally:
        if old is not None:
            backend.enable_truncation(**old)
        else:
            backend.no_truncation()


def pieces(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of each text alone, all of them, without special ones.

    Returns:
        offsets (N + 1,) int64: the tokens of text i are `offsets[i]:offsets[i + 1]`; ids (T,) int32;
        spans (T, 2) int32: the characters of the text that a token stands for, without white space around them.
    """
    ids, spans, lengths = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)], [np.zeros(1, np.int64)]
    pair = np.dtype((np.int32, 2))
    with whole(tokenizer) as backend:
        for start in range(0, len(texts), CHUNK // 8):  # texts of a paragraph and more
            chunk = list(texts[start : start + CHUNK // 8])
            encodings = backend.encode_batch(chunk, add_special_tokens=False)
            rows = [encoding.ids for encoding in encodings]
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            total = int(lengths[-1].sum())
            ids.append(np.fromiter(chain.from_iterable(rows), np.int32, total))
            places = np.fromiter(chain.from_iterable(e.offsets for e in encodings), pair, total)
            spans.append(_trimmed(places, chunk, lengths[-1]))
    return np.cumsum(np.concatenate(lengths)), np.concatenate(ids), np.concatenate(spans)


def _trimmed(spans: np.ndarray, texts: Sequence[str], lengths: np.ndarray) -> np.ndarray:
    """Spans without the white space at their ends, which some tokenizers count to a token; empty where that is all."""
    blank = np.strings.isspace(np.frombuffer("".join(texts).encode("utf-32-le"), "<U1"))
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    base = np.repeat(np.cumsum(sizes) - sizes, lengths)[:, None]
    places = np.arange(len(blank) + 1)
    following = np.minimum.accumulate(np.where(np.append(blank, False), len(blank), places)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(np.append(blank, True), -1, places))
    begin, end = (spans + base).T
    begin = np.minimum(following[begin], end)
    end = np.maximum(before[np.maximum(end - 1, 0)] + 1, begin)
    return (np.stack([begin, end], 1) - base).astype(np.int32)
