"""Raw text becomes words, and character spans become tags of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bert_ft.errors import InputError

CJK = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f]"


class Words(NamedTuple):
    """The words of texts, flat: text i has the words offsets[i] to offsets[i + 1]; starts and ends are in its
    characters."""

    words: list[str]
    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    cut: list[int]  # texts of which a word was parted at a cut, once for each


@cache
def _splitter() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CJK), "isolated"), pre_tokenizers.BertPreTokenizer()]
    )


def split(texts: Sequence[str], cuts: Sequence[Sequence[int]] = ()) -> Words:
    """Words as BERT's basic tokenizer has them (Devlin et al. 2019): parted at white space, every punctuation
    mark and every Chinese character by itself; and parted at the places `cuts` of each text."""
    found = [[span for _, span in _splitter().pre_tokenize_str(text)] for text in texts]
    cut = []
    for row, places in enumerate(cuts):
        for place in places:
            inside = next((k for k, (start, end) in enumerate(found[row]) if start < place < end), None)
            if inside is not None:
                start, end = found[row][inside]
                found[row][inside : inside + 1] = [(start, place), (place, end)]
                cut.append(row)
    words = [text[start:end] for text, spans in zip(texts, found, strict=True) for start, end in spans]
    limits = np.array([span for spans in found for span in spans], np.int64).reshape(-1, 2)
    return Words(words, np.cumsum([0, *map(len, found)]), limits[:, 0], limits[:, 1], cut)


def tag(
    texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int, str]]], place: Callable[[int], str]
) -> tuple[Words, np.ndarray, list[str]]:
    """Texts with character spans (start, end, type), ends exclusive, as words with tags.

    A word that a span cuts through is parted there; of spans that overlap the longest stays. Both are told.

    Args:
        place: number of the text -> where it stands, for a message.
    Returns:
        the words; (W,) their IOB2 tags, strings; the lines to tell.
    Raises:
        InputError: a span outside its text, or without a word in it.
    """
    kept = []
    nested = []
    for row, (text, marks) in enumerate(zip(texts, spans, strict=True)):
        for start, end, kind in marks:
            if not 0 <= start < end <= len(text):
                raise InputError(
                    f"the span {start} to {end} ({kind}) lies outside the text of {len(text)} characters",
                    where=place(row),
                    remedy="spans are [start, end) in characters",
                )
        clear = _apart(marks)
        nested += [row] * (len(set(marks)) - len(clear))
        kept.append(clear)
    words = split(texts, [[edge for start, end, _ in marks for edge in (start, end)] for marks in kept])
    tags = np.full(len(words.words), "O", object)
    for row, marks in enumerate(kept):
        begin = words.offsets[row]
        stop = words.offsets[row + 1]
        for start, end, kind in marks:
            first = begin + np.searchsorted(words.starts[begin:stop], start)
            last = begin + np.searchsorted(words.ends[begin:stop], end, "right")
            if last <= first:
                raise InputError(f"the span {start} to {end} ({kind}) holds no word", where=place(row))
            tags[first:last] = f"I-{kind}"
            tags[first] = f"B-{kind}"
    notes = []
    if nested:
        notes.append(
            f"{len(nested):,} spans overlap a longer one and are left out; the first: {place(nested[0])}"
        )
    if words.cut:
        first = place(words.cut[0])
        notes.append(
            f"{len(words.cut):,} ends of spans lie within a word, which is parted there; the first: {first}"
        )
    return words, tags, notes


def _apart(marks: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans without those that overlap a longer one (of equals, the first stays)."""
    kept: list[tuple[int, int, str]] = []
    for mark in sorted(set(marks), key=lambda mark: (mark[0] - mark[1], mark)):
        if all(mark[1] <= other[0] or other[1] <= mark[0] for other in kept):
            kept.append(mark)
    return kept
