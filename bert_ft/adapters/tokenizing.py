"""Texts to flat arrays of token ids, in large batches through the Rust tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

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
    backend = fast(tokenizer)
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


def fast(tokenizer: Any) -> Any:
    """The Rust tokenizer behind one of `transformers`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("this checkpoint has no fast (Rust) tokenizer", where=str(tokenizer.name_or_path),
                         remedy="save one beside it: tokenizer.json")  # fmt: skip
    return backend


def encode_words(tokenizer: Any, words: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes words as `tokenizer(words, is_split_into_words=True)` would, without special tokens.

    A word's tokens do not depend on its neighbours, so each different word is tokenized once.

    Returns:
        token ids (P,) int32; offsets (W + 1,) int64, word i has the tokens offsets[i] to offsets[i + 1] (none, where the
        tokenizer makes nothing of it).
    """
    backend = fast(tokenizer)
    leading_space(tokenizer)
    backend.no_padding()
    backend.no_truncation()
    coded = words.dictionary_encode()
    rows: list[list[int]] = []
    known = coded.dictionary.to_pylist()
    for start in range(0, len(known), CHUNK):
        inputs: Any = [[word] for word in known[start : start + CHUNK]]
        encodings = backend.encode_batch_fast(inputs, is_pretokenized=True, add_special_tokens=False)
        rows += [encoding.ids for encoding in encodings]
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(chain.from_iterable(rows), np.int32, int(sizes.sum()))
    chosen = coded.indices.to_numpy()
    lengths = sizes[chosen]
    source = ranges((np.cumsum(sizes) - sizes)[chosen], lengths)
    return ids[source], np.concatenate([[0], np.cumsum(lengths)])


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that a single sequence begins and ends with."""
    fast(tokenizer).no_padding()
    probe = fast(tokenizer).encode(["a"], is_pretokenized=True)
    own = [k for k, sequence in enumerate(probe.sequence_ids) if sequence is not None] or [1]
    return probe.ids[: own[0]], probe.ids[own[-1] + 1 :]


def leading_space(tokenizer: Any) -> None:
    """Byte-level BPE (RoBERTa, ModernBERT) knows the beginning of a word by the space before it: from here on the
    tokenizer sets one before each, as `add_prefix_space=True` does, and is saved so."""
    from tokenizers import pre_tokenizers

    first = fast(tokenizer).pre_tokenizer
    parts: Any = first if isinstance(first, pre_tokenizers.Sequence) else [first]
    for part in parts:
        if isinstance(part, pre_tokenizers.ByteLevel) and not part.add_prefix_space:
            part.add_prefix_space = True
            tokenizer.add_prefix_space = True
            tokenizer.init_kwargs["add_prefix_space"] = True


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`starts[0], starts[0] + 1, ...` for `lengths[0]` numbers, then those of the next, as one array."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
