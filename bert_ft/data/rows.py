"""Canonical rows: one Arrow table a set, with a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from bert_ft.config.schema import Label
from bert_ft.data.columns import codes
from bert_ft.data.finding import Finding

PLACES = ("file", "line", "row")
"""Columns that say where a row stands (a string, a list of line numbers by item, the row's number from 1 in a
file some of whose rows are left out), and are no part of the data."""

ARTICLE = "article"
"""The column of the title of what a row is about: it says which rows hang together, and nothing is learned of
it; no part of the fingerprint, so that data has that of versions that did not keep it."""
TOGETHER = {"group": "groups", ARTICLE: "articles", "context": "contexts", "document": "documents"}
"""Columns whose equal values mean that rows are no independent ones, and what these are called."""


@dataclass
class Rows:
    """The canonical rows of one split, in the order of its source.

    Attributes:
        where: the source.
        numbers: row i stands at numbers[i] of the source, where it isn't row i.
        others: the columns of the source that have no role, where they were asked for.
        label_order: the label names in the order of the source, where it has names and an order of its own.
        parts: (where, rows) of each of several files that are joined.
    """

    table: pa.Table
    where: str
    numbers: np.ndarray | None = None
    others: pa.Table | None = None
    label_order: Sequence[str] = ()
    parts: Sequence[tuple[str, int]] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at `indices`, in that order."""
        numbers = indices if self.numbers is None else self.numbers[indices]
        others = None if self.others is None else self.others.take(pa.array(indices))
        return Rows(
            self.table.take(pa.array(indices)), self.where, numbers, others, self.label_order, self.parts
        )

    def part(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, without a copy."""
        numbers = np.arange(start, min(stop, len(self))) if self.numbers is None else self.numbers[start:stop]
        table = self.table.slice(start, stop - start)
        return Rows(table, self.where, numbers, label_order=self.label_order, parts=self.parts)

    def together(self) -> np.ndarray | None:
        """(N,) a number for each row, equal for rows that hang together; None where no column says so."""
        found = together(self.table)
        return None if found is None else found[1]

    def place(self, index: int, item: int | None = None) -> str:
        """Where row `index` (or an item of it, such as a word) stands, for a message: the first row below a
        header is row 1; in a file that says so in `PLACES`, its line or its own number."""
        if "line" in self.table.column_names and (lines := self.table["line"][index].as_py()):
            return f"{self.table['file'][index]}, line {lines[item or 0]}"
        file, number = in_part(self.parts, self.where, self.number(index))
        row = f"{file}, row {number}"
        if "row" in self.table.column_names and (number := self.table["row"][index].as_py()):
            row = f"{self.table['file'][index]}, row {number}"
        return row if item is None else f"{row}, word {item + 1}"

    def number(self, index: int) -> int:
        """The number of row `index` in its source, from 1."""
        return (index if self.numbers is None else int(self.numbers[index])) + 1

    def named(self, index: int) -> str:
        """What another row's message calls row `index`: "row 3", or "b.csv row 3" of files that are
        joined."""
        file, number = in_part(self.parts, "", self.number(index))
        return f"{Path(file).name} row {number}".strip()


def together(table: pa.Table) -> tuple[str, np.ndarray] | None:
    """(column of `TOGETHER`, (N,) a number for each of its values, a null being a group of its own), of that
    which makes the fewest groups; None where no such column has rows together."""
    found = []
    for name in TOGETHER:
        if name in table.column_names:
            numbers = codes(table[name])
            nulls = np.flatnonzero(numbers < 0)
            numbers = numbers.copy()
            numbers[nulls] = numbers.max(initial=-1) + 1 + np.arange(len(nulls))
            if (groups := int(numbers.max(initial=-1)) + 1) < len(numbers):
                found.append((groups, name, numbers))
    return min(found, key=lambda item: item[0])[1:] if found else None


def in_part(parts: Sequence[tuple[str, int]], where: str, number: int) -> tuple[str, int]:
    """The file that a row of joined files stands in, and its number there; of one source as they are.

    Args:
        parts: as `Rows` has them.
        number: the row's number over all of them, from 1.
    """
    for file, rows in parts:
        if number <= rows:
            return file, number
        number -= rows
    return where, number


@dataclass(frozen=True)
class Canonical:
    """The columns of a set as its family has them, and what a person should know of how they were read.

    Attributes:
        notes: a line for each thing that was detected, mended or left out.
        label_order: as `Rows` has it.
        findings: what may be wrong with it, of a set that has no name yet.
        used: (N,) whether each row is one to learn from or to score; None: all are. The others are left out,
            which a note says.
    """

    table: pa.Table
    notes: Sequence[str] = ()
    label_order: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    used: np.ndarray | None = None


@dataclass
class Splits:
    """All rows of a run, and what was done to them (`notes`) or may be wrong with them (`findings`) that the
    user should know; `labels`: those of all rows that a fold was held out of, in order."""

    train: Rows
    evaluation: dict[str, Rows]
    test: dict[str, Rows]
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    labels: list[Label] | None = None

    def all(self) -> dict[str, Rows]:
        """Name -> rows of every set."""
        return {"train": self.train, **self.evaluation, **self.test}

    def fingerprint(self) -> str:
        """`fingerprint` of every set."""
        return fingerprint(self.all())


def fingerprint(sets: Mapping[str, Rows]) -> str:
    """sha256 over canonical rows: equal data has equal fingerprints, whatever file it was in."""
    digest = hashlib.sha256()
    for name, rows in sets.items():
        digest.update(name.encode())
        for column in rows.table.column_names:
            if column in PLACES or column == ARTICLE:
                continue
            digest.update(column.encode())
            sink = pa.BufferOutputStream()
            # one chunk, copied: neither the file's row groups nor a slice's offset may show in the bytes
            array = pa.concat_arrays(rows.table[column].chunks or [pa.array([], rows.table[column].type)])
            batch = pa.record_batch([array], names=[column])
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            digest.update(sink.getvalue())
    return digest.hexdigest()
