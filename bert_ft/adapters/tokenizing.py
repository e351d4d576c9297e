"""Texts to flat arrays of token ids, in large batches through the Rust tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
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
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("this checkpoint has no fast (Rust) tokenizer", where=str(tokenizer.name_or_path),
                         remedy="save one beside it: tokenizer.json")  # fmt: skip
    typed = "token_type_ids" in tokenizer.model_input_names
    old = backend.truncation
    backend.no_padding()
    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    truncated = 0
    try:
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
    finally:
        if old is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(**old)
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
