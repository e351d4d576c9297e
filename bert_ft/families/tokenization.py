"""Texts to flat arrays of token ids, in large batches through the Rust tokenizer; long texts cut, or read in
windows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bert_ft.errors import InputError

CHUNK = 8192  # rows a call: enough for the Rust threads, few enough that their Encoding objects stay small
PART = 2**20  # characters looked at together
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
            characters and
        uncovered (those that no token stands for) as `coverage` has them.
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
    room, lengths = max_length - frame.size, np.diff(ends)
    head = np.where(lengths > room, round(room * HEAD), lengths)
    tail = np.where(lengths > room, room - head, 0)
    offsets, source = join([frame.parts[0], (ends[:-1], head), (ends[1:] - tail, tail), frame.parts[1]])
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
    room, lengths = max_length - frame.size, np.diff(ends)
    if stride >= room:
        raise InputError(
            f"windows of {room} tokens can't share {stride}",
            where="classification.stride",
            remedy="a smaller stride, or a larger recipe.max_length",
        )
    rows, number, _ = windows(lengths, room, room - stride)
    starts = np.minimum(number * (room - stride), np.maximum(0, lengths - room)[rows])
    offsets, source = join(
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
    ids, types = np.array(probe.ids, np.int32), np.array(probe.type_ids, np.int32)
    columns = {"input_ids": ids[owner < 0]}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = types[owner < 0]
    sizes = np.bincount(np.maximum.accumulate(owner) + 1, owner < 0).astype(int)
    parts = list(zip((np.cumsum(sizes) - sizes).tolist(), sizes.tolist(), strict=True))
    return Frame(columns, parts, [int(types[owner == number][0]) for number in range(texts)])


def join(pieces: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Features made of pieces, each (start, length) in flat token columns, (N,) or one for all of them: the
    features' offsets (N + 1,), and where in the columns each of their tokens stands (T,)."""
    starts, lengths = (np.stack(np.broadcast_arrays(*side), axis=1) for side in zip(*pieces, strict=True))
    return np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]), ranges(starts.ravel(), lengths.ravel())


def _tokenized(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int | None,
    side: str = "right",
    special: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Offsets, token columns and the number of rows that lost tokens; without `max_length` none does."""
    typed, truncated = "token_type_ids" in tokenizer.model_input_names, 0
    lengths, ids, types = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
    with whole(tokenizer) as backend:
        if max_length is not None:
            backend.enable_truncation(max_length, strategy="longest_first", direction=side)
        for part in _parts(inputs, CHUNK):
            encodings = backend.encode_batch(part, add_special_tokens=special)
            sizes, flat = _flat([encoding.ids for encoding in encodings])
            lengths.append(sizes)
            ids.append(flat)
            if typed:
                types.append(_flat([encoding.type_ids for encoding in encodings])[1])
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
    tokens = {"input_ids": np.concatenate(ids)} | ({"token_type_ids": np.concatenate(types)} if typed else {})
    return np.cumsum(np.concatenate(lengths)), tokens, truncated


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists as their lengths (N,) int64, and their items one behind the other, int32."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return lengths, np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))


def _unframed(tokenizer: Any, texts: Sequence[str]) -> tuple[Frame, np.ndarray, dict[str, np.ndarray]]:
    """Whole texts without special tokens: the frame of each, where it begins and ends (N + 1,), and the token
    columns, which open with the frame's."""
    frame_ = frame(tokenizer)
    ends, tokens, _ = _tokenized(tokenizer, texts, None, None, special=False)
    return (
        frame_,
        ends + frame_.size,
        {k: np.concatenate([frame_.columns[k], column]) for k, column in tokens.items()},
    )


def _counts(
    tokenizer: Any, texts: Sequence[str], rows: int, tokens: dict[str, np.ndarray], truncated: int
) -> dict[str, int]:
    ids = tokens["input_ids"]
    counts = {"rows": rows, "tokens": len(ids), "truncated": truncated, "unknown": unknown(tokenizer, ids)}
    return counts | covered(*coverage(tokenizer, texts))


def covered(uncovered: np.ndarray, characters: np.ndarray) -> dict[str, int]:
    """What `coverage` returns, as counts."""
    return {"characters": int(characters.sum()), "uncovered": int(uncovered.sum())}


def unknown(tokenizer: Any, ids: np.ndarray) -> int:
    """How many of the tokens stand for what the vocabulary lacks."""
    return 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())


def coverage(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """How much of these texts no token stands for: what a vocabulary without an unknown token leaves out in
    silence.

    Counted are the characters of the whole texts, before any truncation, that lie in the span of no token
    other than the special ones. White space, control and format characters and combining marks do not count:
    a normaliser may drop them for good reason. An unknown token covers what it stands for.

    Each different character is tried first: alone, and at the beginning, within and at the end of a word.
    Only texts with one that then lies in no token are tokenized for it.

    Returns:
        uncovered (N,) int64, characters of each text; characters (N,) int64, how many of it count.
    """
    uncovered, characters = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    lost: dict[str, bool] = {}  # of the characters that count and were met so far
    for part in _by_size(texts, PART):
        codes, sizes = _characters(part)
        visible, bare = (np.zeros(int(codes.max(initial=0)) + 1, bool) for _ in range(2))
        present = [chr(code) for code in np.flatnonzero(np.bincount(codes)).tolist()]
        present = [character for character in present if character in lost or _counts_as_text(character)]
        fresh = [character for character in present if character not in lost]
        lost |= dict(zip(fresh, _lost(tokenizer, fresh).tolist(), strict=True))
        visible[[ord(character) for character in present]] = True
        bare[[ord(character) for character in present if lost[character]]] = True
        characters.append(_sums(visible[codes], sizes))
        counts = _sums(bare[codes], sizes)
        if (suspected := np.flatnonzero(counts)).size:
            chosen = [part[number] for number in suspected.tolist()]
            codes, sizes = _characters(chosen)
            counts[suspected] = _sums(visible[codes] & _bare(tokenizer, chosen), sizes)
        uncovered.append(counts)
    return np.concatenate(uncovered), np.concatenate(characters)


def _by_size(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The texts in parts of at most so many characters, or of one text."""
    part, size = list[str](), 0
    for text in texts:
        if part and size + len(text) > most:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


def _characters(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) the code points of all texts, one behind the other; (N,) how many each has."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, np.fromiter(map(len, texts), np.int64, len(texts))


def _sums(mask: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) int64: how often the mask (C,) of all texts' characters is true in each text."""
    before = np.concatenate([[0], np.cumsum(mask)])
    return np.diff(before[np.concatenate([[0], np.cumsum(sizes)])])


def _counts_as_text(character: str) -> bool:
    return unicodedata.category(character)[0] not in "ZCM" and not character.isspace()


def _lost(tokenizer: Any, characters: Sequence[str]) -> np.ndarray:
    """(C,) whether a character lies in no token, at the beginning of a word, within or at the end of one, or
    alone."""
    frames = [(before, after) for before in ("", "a") for after in ("", "a")]
    probes = [f"{before}{character}{after}" for before, after in frames for character in characters]
    bare = _bare(tokenizer, probes)
    starts = np.cumsum([0, *map(len, probes)])[:-1].reshape(len(frames), -1)
    at = starts + np.array([[len(before)] for before, _ in frames])
    result: np.ndarray = bare[at].any(axis=0)
    return result


def _bare(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """(C,) of all characters of the texts, one behind the other, whether each lies in the span of no
    token."""
    offsets, _, spans = pieces(tokenizer, texts)
    sizes = _characters(texts)[1]
    base = np.repeat(np.cumsum(sizes) - sizes, np.diff(offsets))[:, None]
    begin, end = (spans + base).T
    edges = np.zeros(int(sizes.sum()) + 1, np.int64)
    np.add.at(edges, begin, 1)
    np.add.at(edges, end, -1)
    result: np.ndarray = np.cumsum(edges)[:-1] == 0
    return result


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


def pieces(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of each text alone, all of them, without special ones.

    Returns:
        offsets (N + 1,) int64: the tokens of text i are `offsets[i]:offsets[i + 1]`; ids (T,) int32;
        spans (T, 2) int32: the characters of the text that a token stands for, without white space around
        them.
    """
    ids, spans, lengths = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)], [np.zeros(1, np.int64)]
    pair = np.dtype((np.int32, 2))
    with whole(tokenizer) as backend:
        for part in _parts(texts, CHUNK // 8):  # texts of a paragraph and more
            encodings = backend.encode_batch(part, add_special_tokens=False)
            sizes, flat = _flat([encoding.ids for encoding in encodings])
            places = np.fromiter(chain.from_iterable(e.offsets for e in encodings), pair, len(flat))
            lengths.append(sizes)
            ids.append(flat)
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


def encode_words(tokenizer: Any, words: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes words as `tokenizer(words, is_split_into_words=True)` would, without special tokens.

    A word's tokens do not depend on its neighbours, so each different word is tokenized once.

    Returns:
        token ids (P,) int32; offsets (W + 1,) int64, word i has the tokens offsets[i] to offsets[i + 1]
        (none, where the
        tokenizer makes nothing of it).
    """
    leading_space(tokenizer)
    coded = words.dictionary_encode()
    rows: list[list[int]] = []
    known = coded.dictionary.to_pylist()
    with whole(tokenizer) as backend:
        for part in _parts(known, CHUNK):
            single = [[word] for word in part]
            encodings = backend.encode_batch_fast(single, is_pretokenized=True, add_special_tokens=False)
            rows += [encoding.ids for encoding in encodings]
    sizes, ids = _flat(rows)
    chosen = coded.indices.to_numpy()
    lengths = sizes[chosen]
    source = ranges((np.cumsum(sizes) - sizes)[chosen], lengths)
    return ids[source], np.concatenate([[0], np.cumsum(lengths)])


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


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`starts[0], starts[0] + 1, ...` for `lengths[0]` numbers, then those of the next, as one array."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
