"""Files of rows in, files of vectors out: rows stream through the encoder, so memory does not grow with their
number.

A row that can't be read, or has no text, is told with its line. In an `.npy` file, whose rows are numbers
alone, it has a vector of zeros, so that row i of the array is row i of the file; elsewhere it is left out, or
passed through with its `error`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bert_ft import display, reading
from bert_ft.config.task import Task
from bert_ft.data.formats.quotes import Remarks
from bert_ft.errors import InputError, did_you_mean
from bert_ft.kernels import cpu
from bert_ft.modeling.saved_task import FORM
from bert_ft.modeling.vectors.embedder import Embedder, Vectors, told
from bert_ft.modeling.vectors.pooling import OF_WORDS, valid
from bert_ft.tools.embed.writers import DTYPES, Block, format_of, writing
from bert_ft.tools.predict import readers
from bert_ft.tools.predict.cells import unwritable
from bert_ft.tools.predict.readers import Line, reading_rows, rows_of
from bert_ft.tools.predict.writers import printable

ROWS = 1024  # that are computed and written together, at most
CHARACTERS = 2**20  # of their texts, or one text
OF_WORDS_TOGETHER = 2**16  # where each word has a vector
REMEMBERED = 16_000_000  # bytes of vectors that are kept for texts that come again
ENTRY = 500  # bytes of one beside its vector, about
UNTRIMMED = 4  # blocks, after which memory that lies free between others is given back
OWN = ("vector", "scale", "error")
"""Columns that are ours."""
SPEED_UPS = ("batching.unpad", "batching.lean")
"""Settings of the command that are of the embedder, and not of its file."""


@dataclass
class Outcome:
    """What became of the rows."""

    rows: int = 0
    bad: list[str] = field(default_factory=list)  # one line each: where, and what is wrong
    empty: int = 0  # texts, or words, of which the tokenizer makes nothing
    truncated: int = 0
    repeated: int = 0  # texts that were computed already
    became: str = ""  # of the rows at fault


def embed_file(
    embedder: Embedder,
    source: str = "-",
    target: str = "-",
    *,
    column: str = "text",
    words: str | None = None,
    dtype: str = "float32",
    read_as: str | None = None,
    write_as: str | None = None,
    keep_bad: bool = False,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Writes the vector of each row's text, behind the row's own columns, in the order of the rows; or one
    row for each word: `row` (from 0, as the file has them), `word`, `start`, `end`, `vector`.

    Args:
        source, target: a file, or "-" for standard input and output.
        column: where the text stands.
        words: how a word's vector is pooled from its tokens, of `OF_WORDS`; None: vectors of texts.
        dtype: "float32", "float16", or "int8" with a `scale` for each vector.
        read_as: one of `readers.FORMATS`, write_as: one of `writers.FORMATS`; by default what the suffix
            says.
        keep_bad: rows at fault are written with an `error` and no vector, instead of being left out.
        settings: keys that say how the file is written: delimiter, quoting, encoding, names, pattern.
        tell: takes one line for each row at fault, and what there is to know of the rows.
    Raises:
        InputError: no such file or column; a format that can't hold vectors; a column that is called as ours.
    """
    reading.path(source), reading.path(target)
    read_as = readers.format_of(source, read_as)
    write_as = format_of(target, write_as)
    valid(dtype, DTYPES, "--dtype")
    if words is not None:
        valid(words, OF_WORDS, "--pooling")
        if write_as == "npy":
            message = "an .npy file has no place for the words beside their vectors"
            raise InputError(message, where=target, remedy="--to parquet, arrow or jsonl")
    before = embedder.counts.copy()
    making = _Making(embedder, column, words, read_as, write_as, keep_bad, tell)
    remarks = Remarks()
    with (
        reading_rows(source, read_as, [column], _form(settings or {}), remarks) as lines,
        writing(target, write_as, dtype, embedder.size) as write,
        display.counting(None if quiet else rows_of(source, read_as), "rows", quiet) as advance,
    ):
        write(making.blocks(lines, advance))
    outcome = making.outcome
    left_out = ", and have zeros" if write_as == "npy" else ", and left out"
    outcome.became = ", and kept with their error" if keep_bad and write_as != "npy" else left_out
    for line in remarks.lines(source):
        tell(line)
    if lost := display.unread("texts", embedder.counts - before):
        tell(lost)
    if words is None:
        for line in told(outcome.rows, outcome.empty, outcome.truncated, embedder.encoder.max_length):
            tell(line)
    elif outcome.empty:
        tell(f"{outcome.empty:,} words have no token: their vectors are all zeros")
    return outcome


def _form(settings: Mapping[str, Any]) -> Task:
    """A task that says how the rows' file is written."""
    known = {f"data.{key}" for key in FORM}
    for key in sorted(settings.keys() - known):
        raise InputError(
            f"'{key}' is no setting of embed", where="--set", remedy=did_you_mean(key, {*known, *SPEED_UPS})
        )
    return Task().override(dict(settings), "--set")


class _Recent:
    """Vectors that were computed a short while ago, with what is to be told of each, by the digest of its
    text: the last of them, in memory of their own, so that they hold nothing of the blocks that they came
    from."""

    def __init__(self, size: int) -> None:
        self.most = REMEMBERED // (4 * size + ENTRY)
        self.made = Vectors(np.empty((self.most, size), np.float32), *np.empty((2, self.most), bool))
        self.keys: list[bytes] = []
        self.places: dict[bytes, int] = {}
        self.next = 0

    def find(self, key: bytes) -> tuple[Any, ...] | None:
        """(vector, empty, truncated), a copy; None: not among them."""
        place = self.places.get(key)
        return None if place is None else tuple(column[place].copy() for column in self.made)

    def add(self, key: bytes, row: tuple[Any, ...]) -> None:
        """Takes one in, in the place of the oldest."""
        if len(self.keys) < self.most:
            self.keys.append(key)
        else:
            del self.places[self.keys[self.next]]
            self.keys[self.next] = key
        for column, value in zip(self.made, row, strict=True):
            column[self.next] = value
        self.places[key] = self.next
        self.next = (self.next + 1) % self.most


@dataclass
class _Making:
    """The way of rows to their vectors, a block at a time."""

    embedder: Embedder
    column: str
    words: str | None
    read_as: str
    write_as: str
    keep_bad: bool
    tell: Callable[[str], None]
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.recent = _Recent(self.embedder.size)

    def blocks(self, lines: Iterator[Line], advance: Callable[[int], None]) -> Iterator[Block]:
        """What is written, in the order of the rows that are read."""
        for number, part in enumerate(self._parts(lines)):
            if number % UNTRIMMED == UNTRIMMED - 1:
                cpu.trim()
            first = self.outcome.rows
            judged = [(row or {}, fault or self._fault(where, row or {})) for where, row, fault in part]
            for (where, _, _), (_, fault) in zip(part, judged, strict=True):
                if fault:
                    self.outcome.bad.append(f"{where}: {fault}")
                    self.tell(self.outcome.bad[-1])
            self.outcome.rows += len(part)
            yield self._of_words(judged, first) if self.words else self._of_texts(judged)
            advance(len(part))

    def _parts(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Lines in lists of so many rows and characters at most, or of one row."""
        part: list[Line] = []
        held, most = 0, OF_WORDS_TOGETHER if self.words else CHARACTERS
        for line in lines:
            size = len(str(self._text(line[1] or {})))
            if part and (len(part) == ROWS or held + size > most):
                yield part
                part, held = [], 0
            part.append(line)
            held += size
        if part:
            yield part

    def _of_texts(self, judged: Sequence[tuple[dict[str, Any], str]]) -> Block:
        good = np.array([not fault for _, fault in judged], bool)
        made = self._vectors([self._text(row) for row, fault in judged if not fault])
        self.outcome.empty += int(made.empty.sum())
        self.outcome.truncated += int(made.truncated.sum())
        kept = np.ones(len(judged), bool) if self.keep_bad or self.write_as == "npy" else good
        vectors = np.zeros((len(judged), made.vectors.shape[1]), np.float32)
        vectors[good] = made.vectors
        more = [{"error": fault or None} if self.keep_bad else {} for _, fault in judged]
        rows = [
            (self._as_it_was(row) if fault else row) | own
            for (row, fault), own, keep in zip(judged, more, kept, strict=True)
            if keep
        ]
        return Block(rows, vectors[kept], good[kept])

    def _as_it_was(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row at fault as it is kept; what stands in the place of its text as JSON, where a column holds
        texts alone."""
        row = printable(row)
        value = row.get(self.column)
        other = self.write_as in ("parquet", "arrow") and value is not None and not isinstance(value, str)
        return row | {self.column: reading.dumps(value)} if other else row

    def _of_words(self, judged: Sequence[tuple[dict[str, Any], str]], first: int) -> Block:
        assert self.words is not None
        numbers: dict[str, int] = {}
        which = [
            None if fault else numbers.setdefault(self._text(row), len(numbers)) for row, fault in judged
        ]
        self.outcome.repeated += sum(number is not None for number in which) - len(numbers)
        made = list(self.embedder.words(numbers, self.words))
        rows: list[dict[str, Any]] = []
        vectors = [np.zeros((0, self.embedder.word_size), np.float32)]
        for row, (number, (_, fault)) in enumerate(zip(which, judged, strict=True), first):
            if number is None:
                if self.keep_bad:
                    rows.append({"row": row, "word": None, "start": None, "end": None, "error": fault})
                    vectors.append(np.zeros((1, self.embedder.word_size), np.float32))
                continue
            found = made[number]
            error = {"error": None} if self.keep_bad else {}
            rows += [
                {"row": row, "word": word, "start": start, "end": end, **error}
                for word, (start, end) in zip(found.words, found.spans.tolist(), strict=True)
            ]
            vectors.append(found.vectors)
            self.outcome.empty += int((~found.vectors.any(axis=1)).sum())
        good = np.array([row["word"] is not None for row in rows], bool)
        return Block(rows, np.concatenate(vectors), good)

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Of these texts; what was computed a short while ago is not computed again."""
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        known = {key: row for key in keys if (row := self.recent.find(key)) is not None}
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        self.outcome.repeated += len(texts) - len(fresh)
        made = self.embedder.vectors(fresh.values())
        for key, row in zip(fresh, zip(*made, strict=True), strict=True):
            known[key] = row
            self.recent.add(key, row)
        found = [known[key] for key in keys]
        if not found:
            return made
        vectors, empty, truncated = zip(*found, strict=True)
        return Vectors(np.stack(vectors), np.array(empty), np.array(truncated))

    def _text(self, row: dict[str, Any]) -> Any:
        """The text of a row; an empty cell of a table is an empty text."""
        text = row.get(self.column)
        empty = text is None and self.column in row and self.read_as in ("csv", "tsv")
        return "" if empty else text

    def _fault(self, where: str, row: dict[str, Any]) -> str:
        """What is wrong with a row that could be read. Raises InputError: it has a column of our names."""
        if (clash := row.keys() & {*OWN}) and self.write_as != "npy" and not self.words:
            message = f"the rows have a column '{min(clash)}' of their own, as the vectors do"
            raise InputError(message, where=where, remedy="give it another name")
        text = self._text(row)
        if text is None:
            return f"no '{self.column}'"
        if not isinstance(text, str):
            return f"'{self.column}' is {type(text).__name__}, not text"
        if reading.HALF.search(text):
            return f"'{self.column}' holds half a surrogate pair"
        return unwritable(row, "parquet") if self.write_as in ("parquet", "arrow") and not self.words else ""
