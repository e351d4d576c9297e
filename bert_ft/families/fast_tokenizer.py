"""The Rust tokenizer behind one of `transformers`: the tokens of whole texts, the special tokens around them,
and features joined from parts of flat token columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from bert_ft import progress
from bert_ft.errors import InputError
from bert_ft.families.features import ranges

CHUNK = 8192  # rows a call: enough for the Rust threads, few enough that their Encoding objects stay small


def fast(tokenizer: Any) -> Any:
    """The Rust tokenizer behind one of `transformers`.

    Raises:
        InputError: a tokenizer without one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            "this checkpoint has no fast (Rust) tokenizer",
            where=str(tokenizer.name_or_path),
            remedy="save one beside it: tokenizer.json",
        )
    return backend


@contextmanager
def whole(tokenizer: Any) -> Iterator[Any]:
    """The Rust tokenizer, which neither pads nor truncates; its own truncation is given back."""
    backend = fast(tokenizer)
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


def leading_space(tokenizer: Any) -> None:
    """Byte-level BPE (RoBERTa, ModernBERT) knows the beginning of a word by the space before it: from here on
    the tokenizer sets one before each, as `add_prefix_space=True` does, and is saved so."""
    from tokenizers import pre_tokenizers

    first = fast(tokenizer).pre_tokenizer
    parts: Any = first if isinstance(first, pre_tokenizers.Sequence) else [first]
    for part in parts:
        if isinstance(part, pre_tokenizers.ByteLevel) and not part.add_prefix_space:
            part.add_prefix_space = True
            tokenizer.add_prefix_space = True
            tokenizer.init_kwargs["add_prefix_space"] = True


class Frame(NamedTuple):
    """The special tokens of a text, or of a pair of texts.

    Attributes:
        columns: their input_ids, and token_type_ids where the model has them, (S,) int32.
        parts: (start, length) in these of what stands before the first text, between two, and behind the
            last.
        kinds: the token type of each text.
    """

    columns: dict[str, np.ndarray]
    parts: list[tuple[int, int]]
    kinds: list[int]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.columns["input_ids"])


def frame(tokenizer: Any, texts: int = 1) -> Frame:
    """The special tokens that a tokenizer sets around one text, or two.

    Raises:
        InputError: a tokenizer that knows no letters.
    """
    with whole(tokenizer) as backend:
        probe = backend.encode(*"ab"[:texts])
    owner = np.array([-1 if number is None else number for number in probe.sequence_ids])
    if {*range(texts)} - {*owner.tolist()}:
        raise InputError(
            "its tokenizer makes nothing of the letters a and b",
            where=str(tokenizer.name_or_path),
            remedy="is this an encoder's tokenizer?",
        )
    ids = np.array(probe.ids, np.int32)
    types = np.array(probe.type_ids, np.int32)
    columns = {"input_ids": ids[owner < 0]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = types[owner < 0]
    sizes = np.bincount(np.maximum.accumulate(owner) + 1, owner < 0).astype(int)
    parts = list(zip((np.cumsum(sizes) - sizes).tolist(), sizes.tolist(), strict=True))
    return Frame(columns, parts, [int(types[owner == number][0]) for number in range(texts)])


def join(parts: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Features made of parts, each (start, length) in flat token columns, (N,) or one for all of them: the
    features' offsets (N + 1,), and where in the columns each of their tokens stands (T,)."""
    starts, lengths = (np.stack(np.broadcast_arrays(*side), axis=1) for side in zip(*parts, strict=True))
    return np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]), ranges(starts.ravel(), lengths.ravel())


def tokenize(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of each text alone, all of them, without special ones.

    Returns:
        offsets (N + 1,) int64: the tokens of text i are `offsets[i]:offsets[i + 1]`; ids (T,) int32;
        spans (T, 2) int32: the characters of the text that a token stands for, without white space around
        them.
    """
    ids = [np.empty(0, np.int32)]
    spans = [np.empty((0, 2), np.int32)]
    lengths = [np.zeros(1, np.int64)]
    pair = np.dtype((np.int32, 2))
    with whole(tokenizer) as backend:
        for part in chunks(texts, CHUNK // 8):  # texts of a paragraph and more
            encodings = backend.encode_batch(part, add_special_tokens=False)
            sizes, numbers = flat([encoding.ids for encoding in encodings])
            places = np.fromiter(chain.from_iterable(e.offsets for e in encodings), pair, len(numbers))
            lengths.append(sizes)
            ids.append(numbers)
            spans.append(trimmed(places, part, sizes))
    return np.cumsum(np.concatenate(lengths)), np.concatenate(ids), np.concatenate(spans)


def trimmed(spans: np.ndarray, texts: Sequence[str], lengths: np.ndarray) -> np.ndarray:
    """Spans without the white space at their ends, which some tokenizers count to a token; empty where that
    is all."""
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


def chunks(items: Sequence[Any], size: int, unit: str = "texts") -> Iterator[list[Any]]:
    """The items, which are to be tokenized, in lists of at most `size`."""
    lists = (list(items[start : start + size]) for start in range(0, len(items), size))
    return progress.told(lists, len(items), f"{unit} tokenized", len)


def flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists as their lengths (N,) int64, and their items one behind the other, int32."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return lengths, np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
