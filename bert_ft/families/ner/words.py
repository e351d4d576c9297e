"""Character spans of raw text become tags of its words."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bert_ft.data.checks.findings import excerpt
from bert_ft.data.finding import KEPT, Finding
from bert_ft.errors import InputError
from bert_ft.families.words import Words, split

TOLD = 60  # characters of a word, or of a span, in an example


class Tagged(NamedTuple):
    """Texts with character spans, as words with tags.

    Attributes:
        tags: (W,) IOB2, strings: the spans that begin and end where words do.
        learned: (W,) what a training learns: the others too, on the words whose first character they hold.
        missed: of each text the types of those others, in their order.
    """

    words: Words
    tags: np.ndarray
    learned: np.ndarray
    missed: list[list[str]]


def tag(
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int, str]]],
    place: Callable[[int], str],
    unspaced: bool = True,
) -> tuple[Tagged, list[str], list[Finding]]:
    """Texts with character spans (start, end, type), ends exclusive, as words with tags. White space at the
    edges of a span is no part of it; of spans that overlap the longest stays.

    Args:
        place: number of the text -> where it stands, for a message.
        unspaced: as `split` takes it.
    Returns:
        the words with their tags; the lines to tell; the findings.
    Raises:
        InputError: a span outside its text, or without a word in it.
    """
    kept = []
    nested = []
    for row, (text, marks) in enumerate(zip(texts, spans, strict=True)):
        _refuse_outside(text, marks, place, row)
        clear = _apart(marks)
        nested += [row] * (len(set(marks)) - len(clear))
        kept.append(sorted(clear))
    words = split(texts, unspaced)
    tags = np.full(len(words.words), "O", object)
    learned = tags.copy()
    missed: list[list[str]] = [[] for _ in texts]
    examples = []
    places = []
    bare = 0
    padded = []
    for row, marks in enumerate(kept):
        begin = words.offsets[row]
        starts = words.starts[begin : words.offsets[row + 1]]
        ends = words.ends[begin : words.offsets[row + 1]]
        for start, end, kind in marks:
            first = np.searchsorted(ends, start, "right")  # the words that the span has characters of
            last = np.searchsorted(starts, end)
            if last <= first:
                raise InputError(f"the span {start} to {end} ({kind}) holds no word", where=place(row))
            exact = starts[first] >= start and ends[last - 1] <= end
            if exact and (starts[first] > start or ends[last - 1] < end):
                padded.append(row)
            inner = slice(begin + first + (starts[first] < start), begin + last)
            for target in (tags, learned) if exact else (learned,):
                target[inner] = f"I-{kind}"
                target[inner.start : min(inner.start + 1, inner.stop)] = f"B-{kind}"
            if not exact:
                missed[row].append(kind)
                bare += inner.start == inner.stop
                whole = texts[row][starts[first] : ends[last - 1]]
                examples.append(f"{_short(texts[row][start:end])} ({kind}) in {_short(whole)}")
                places.append(place(row))
    notes = []
    if nested:
        notes.append(
            f"{len(nested):,} spans overlap a longer or equal one and are left out; the first: "
            f"{place(nested[0])}"
        )
    if padded:
        notes.append(
            f"{len(padded):,} spans begin or end with white space, which is no part of an entity; the first: "
            f"{place(padded[0])}"
        )
    if not examples:
        return Tagged(words, tags, learned, missed), notes, []
    if bare:
        notes.append(
            f"{bare:,} spans hold no beginning of a word, so that no word is learned with their type; where "
            "others end within a word, the whole word is learned"
        )
    message = (
        "spans whose ends lie within a word: predict can't give them, so they count as missed where they are "
        "scored; training learns the whole word"
    )
    finding = Finding("spans", "warning", "", len(examples), message, examples[:KEPT], places[:KEPT])
    return Tagged(words, tags, learned, missed), notes, [finding]


def _refuse_outside(
    text: str, marks: Sequence[tuple[int, int, str]], place: Callable[[int], str], row: int
) -> None:
    for start, end, kind in marks:
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"the span {start} to {end} ({kind}) lies outside the text of {len(text)} characters",
                where=place(row),
                remedy="spans are [start, end) in characters",
            )


def _short(text: str) -> str:
    return excerpt(text, most=TOLD)


def _apart(marks: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans without those that overlap a longer one (of equals, the first stays)."""
    kept: list[tuple[int, int, str]] = []  # in the order of the text
    for mark in sorted(dict.fromkeys(marks), key=lambda mark: (mark[0] - mark[1], mark[0])):
        place = bisect(kept, mark)
        before, after = kept[max(place - 1, 0) : place], kept[place : place + 1]
        if all(other[1] <= mark[0] for other in before) and all(mark[1] <= other[0] for other in after):
            kept.insert(place, mark)
    return kept
