"""What a reader of a file finds: its rows, and what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError

SPANS = pa.list_(pa.struct({"start": pa.int64(), "end": pa.int64(), "label": pa.string()}))
BLANKS = re.compile(r"(?:\s|\\n|\\t|\\r)+")  # a browser's surface has a line break as a backslash and an n

NOT_ANNOTATED = "rows that nobody has annotated"
DISCONTINUOUS = "discontinuous spans, which no tags of words can say,"


@dataclass
class Asked:
    """What of a file is asked for.

    Attributes:
        words, tags: the names of their columns.
        labelled: whether each row must have tags.
    """

    path: Path
    wanted: list[str]
    data: Data
    optional: tuple[str, ...]

    @property
    def words(self) -> str:
        return self.data.columns.get("tokens", "tokens")

    @property
    def tags(self) -> str:
        return self.data.columns.get("tags", "tags")

    @property
    def labelled(self) -> bool:
        return self.tags in self.wanted and self.tags not in self.optional


@dataclass
class LeftOut:
    """What is left out of a file, by its kind: how many, and where the first stands."""

    first: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, place: str, count: int = 1) -> None:
        """Counts what stands at a place; `what` is a noun phrase in the plural."""
        if count:
            self.first.setdefault(what, place)
            self.counts[what] = self.counts.get(what, 0) + count

    def notes(self) -> list[str]:
        """A line for each kind."""
        return [
            f"{count:,} {what} are left out; the first: {self.first[what]}"
            for what, count in self.counts.items()
        ]


@dataclass
class Collected:
    """Rows in the order of their file.

    Attributes:
        rows: words or a text, and tags or spans (None: not annotated), of each row.
        places: (file, row number from 1) of each row.
        others: role's column -> its value in each row.
    """

    asked: Asked
    left: LeftOut = field(default_factory=LeftOut)
    rows: list[tuple[Any, Any]] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    others: dict[str, list[Any]] = field(default_factory=dict)
    total: int = 0

    def add(self, words: Any, tags: Any, file: Path | None = None, **others: Any) -> None:
        """Takes in the next row; one that nobody has annotated is left out where each must have tags."""
        self.total += 1
        place = (str(file or self.asked.path), self.total)
        texts = [words] if isinstance(words, str) else words
        if any(not each.isascii() and reading.HALF.search(each) for each in texts):
            raise InputError("half a surrogate pair is no character", where=f"{place[0]}, row {place[1]}")
        if tags is None and self.asked.labelled:
            self.left.add(NOT_ANNOTATED, f"{place[0]}, row {place[1]}")
            return
        self.rows.append((words, tags))
        self.places.append(place)
        for name, value in others.items():
            self.others.setdefault(name, []).append(value)

    def skip(self, what: str, file: Path | None = None) -> None:
        """Leaves out the next row."""
        self.total += 1
        self.left.add(what, f"{file or self.asked.path}, row {self.total}")

    def _column(self, values: Sequence[Any], type_: pa.DataType | None = None) -> pa.Array:
        """Raises InputError: a whole number that no column holds, such as a span's."""
        try:
            return pa.array(values, type_)
        except OverflowError:
            for value, (file, row) in zip(values, self.places, strict=True):
                try:
                    pa.array([value], type_)
                except OverflowError:
                    raise InputError(
                        "a whole number of more than 64 bits",
                        where=f"{file}, row {row}",
                        remedy="start and end of a span count characters; other numbers may be texts",
                    ) from None
            raise

    def raw(self, notes: list[str] | None = None) -> Raw:
        """The rows as a table: lists of words with tags, or texts with `SPANS`.

        Raises:
            InputError: no row is left, a column is asked for that the file does not have.
        """
        asked = self.asked
        where = str(asked.path)
        left = self.left.notes()
        if not self.rows:
            raise InputError(
                "no rows" if self.total == 0 else "no row is left", where=where, remedy="; ".join(left)
            )
        words, tags = zip(*self.rows, strict=True)
        texts = isinstance(words[0], str)
        columns = {
            asked.words: pa.array(words, pa.string() if texts else pa.list_(pa.string())),
            asked.tags: self._column(
                tags, SPANS if texts else None if _numbered(tags) else pa.list_(pa.string())
            ),
        }
        columns |= {name: self._column(values) for name, values in self.others.items()}
        for name in asked.wanted:
            if name not in columns and name not in asked.optional:
                raise InputError(
                    f"no column '{name}': a file of this format has none",
                    where=where,
                    remedy="leave this key out, or convert the file to JSONL with this key in each row",
                )
        if tags.count(None) == len(tags):
            del columns[asked.tags]
        if len(self.rows) < self.total or {file for file, _ in self.places} != {where}:
            files, numbers = zip(*self.places, strict=True)
            columns["file"] = pa.array(files).dictionary_encode()
            columns["row"] = pa.array(numbers, pa.int32())
        return Raw(pa.table(columns), where, notes=left + (notes or []))


def _numbered(tags: tuple[Any, ...]) -> bool:
    return any(type(tag) is int for row in tags for tag in row or ())


def of_token_spans(length: int, spans: list[tuple[int, int, str]], place: str, left: LeftOut) -> list[str]:
    """IOB2 tags of `length` words from spans of words, ends exclusive; of spans that overlap the longest
    stays.

    Raises:
        InputError: a span outside the words.
    """
    tags = ["O"] * length
    for start, end, kind in sorted(dict.fromkeys(spans), key=lambda span: (span[0] - span[1], span[0])):
        if not 0 <= start < end <= length:
            raise InputError(
                f"the span of the words {start} to {end - 1} ({kind}) lies outside the {length} words",
                where=place,
                remedy="words count from 0, and the last one of a span is in it",
            )
        if any(tag != "O" for tag in tags[start:end]):
            left.add("spans that overlap a longer or equal one", place)
            continue
        tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return tags


def same_surface(text: str, surface: str) -> bool:
    """Whether two texts are the same but for their blanks."""
    return text == surface or BLANKS.sub("", text) == BLANKS.sub("", surface)


def word_lists(
    sentences: list[tuple[list[str], list[str]]], lines: list[list[int]], asked: Asked
) -> dict[str, pa.Array]:
    """The columns of sentences (words, tags) whose words stand in lines of their own."""
    columns = {
        asked.words: pa.array([words for words, _ in sentences], pa.list_(pa.string())),
        asked.tags: pa.array([tags for _, tags in sentences], pa.list_(pa.string())),
    }
    here = pa.DictionaryArray.from_arrays(np.zeros(len(sentences), np.int32), [str(asked.path)])
    return columns | {"file": here, "line": pa.array(lines, pa.list_(pa.int32()))}
