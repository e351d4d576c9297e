"""Training rows that a list names, which are left out of a training.

A row is named by a fingerprint of its texts, its label and its soft targets, so that the list holds whatever
order or file the rows are in, and no longer where a row has changed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from bert_ft import reading
from bert_ft.data.formats.encodings import UTF16
from bert_ft.data.rows import Rows
from bert_ft.data.soft import COLUMN as SOFT
from bert_ft.data.soft import VOTES
from bert_ft.errors import InputError

COLUMN = "fingerprint"
PLACE = "place"
"""Columns of the list: what names a row, and where it stood."""
LARGEST = 2**30  # bytes of a list
WRITES = "a list of rows to leave out is what `bert-ft check TASK --with RUN --export FILE` writes"


class Reading(Protocol):
    """What a fingerprint needs of an adapter."""

    target: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]


def roles(family: type[Reading]) -> list[str]:
    """The columns that make a row's fingerprint."""
    return [*family.texts, family.target]


def fingerprints(rows: Rows, roles: Sequence[str]) -> list[str]:
    """The name of each row: of equal texts, labels and votes an equal one. It starts with a letter, so that
    no spreadsheet takes it for a number."""

    def column(role: str) -> list[Any]:
        here = role in rows.table.column_names
        return rows.table[role].to_pylist() if here else [None] * len(rows)

    # what other rows have beside a row does not change its name
    softs = [
        [{label: p for label, p in soft.items() if p}, votes] if soft else []
        for soft, votes in zip(column(SOFT), column(VOTES), strict=True)
    ]
    columns = [column(role) for role in roles if role in rows.table.column_names]
    return [
        "r" + hashlib.sha256(json.dumps([*values, *soft]).encode()).hexdigest()[:16]
        for *values, soft in zip(*columns, softs, strict=True)
    ]


@dataclass(frozen=True)
class Listed:
    """What a list names of a set: the file, the columns that make a fingerprint, the fingerprints, how many
    rows have one, and what there is to know of rows that are equal."""

    file: str
    roles: Sequence[str]
    names: frozenset[str]
    count: int
    equal: str = ""

    def without(self, train: Rows) -> tuple[Rows, str]:
        """The training rows that are not listed, and the note on the others."""
        stays = np.array([name not in self.names for name in fingerprints(train, self.roles)], bool)
        count = int((~stays).sum())
        if not stays.any():
            raise InputError("it names all training rows", where=self.file, remedy="leave some in")
        note = f"left out: {count:,} {'row' if count == 1 else 'rows'} named in {self.file}"
        if rest := self.count - count:
            note += f"; {rest:,} more of them {'is' if rest == 1 else 'are'} held out, and scored"
        note += self.equal
        return train.take(np.flatnonzero(stays)), note


def read(file: str, rows: Rows, roles: Sequence[str]) -> Listed:
    """What a list names of all training rows, those that a share is held out of.

    Raises:
        InputError: the file is no such list, or names a row that is not among these.
    """
    lines = _lines(reading.path(file, "data.without"))
    names = fingerprints(rows, roles)
    listed = frozenset(line[COLUMN] for line in lines)
    if strange := listed - set(names):
        number, first = next((i, line) for i, line in enumerate(lines, 1) if line[COLUMN] in strange)
        place = f" ({first[PLACE]})" if first.get(PLACE) else ""
        raise InputError(
            f"{len(strange):,} of the {len(listed):,} rows that it names are not among the training rows, "
            f"the first in its row {number:,}{place}",
            where=file,
            remedy="the data has changed since, or is another: delete the lines of rows that you have "
            "corrected, or write the list anew: bert-ft check TASK --with RUN --export FILE",
        )
    return Listed(file, roles, listed, sum(name in listed for name in names), _equal(lines, names, rows))


def _equal(lines: Sequence[Mapping[str, str]], names: Sequence[str], rows: Rows) -> str:
    """The note on rows that are left out since one that equals them is listed; empty where none is."""
    # a sentence has a line for each word that is doubted
    times = Counter((line[COLUMN], line.get("word", "")) for line in lines)
    listed: dict[str, int] = {}
    for (name, _), count in times.items():
        listed[name] = max(count, listed.get(name, 0))
    total = Counter(names)
    more = [name for name in listed if total[name] > listed[name]]
    if not more:
        return ""
    first = [rows.place(i) for i, name in enumerate(names) if name == more[0]][:2]
    lead = "1 line names" if len(more) == 1 else f"{len(more):,} lines name"
    count = sum(total[name] for name in more)
    rest = ", ..." if count > 2 else ""
    return f"; {lead} {count:,} equal rows, all of which are meant: {first[0]} and {first[1]}{rest}"


def _lines(file: Path) -> list[dict[str, str]]:
    """The lines of a list, which a spreadsheet may have written anew: with ; or a tab between the cells, in
    UTF-16, below "sep=;", with lines whose cells were emptied, and texts in another encoding, of which
    nothing is read."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise InputError("no list of rows: not a regular file, or too large", where=str(file))
        raw = file.read_bytes()
        content = raw.decode("utf-16" if raw[:2] in UTF16 else "utf-8-sig", "replace")
    except OSError as error:
        raise InputError(
            error.strerror or str(error), where=str(file), remedy="data.without names a list of rows"
        ) from None
    if content[:4].lower() == "sep=":  # Excel's own line about the delimiter
        content = content.partition("\n")[2]
    header = content.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    csv.field_size_limit(LARGEST)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        lines = list(reader)
    except csv.Error as error:
        raise InputError(f"no CSV: {error}", where=str(file), remedy=WRITES) from None
    if COLUMN not in (reader.fieldnames or ()):
        raise InputError(f"it has no column '{COLUMN}'", where=str(file), remedy=WRITES)
    result = []
    for number, line in enumerate(lines, 1):
        line = {key: str(cell or "").strip() for key, cell in line.items() if key is not None}
        if not any(line.values()):  # emptied, in the place of being deleted
            continue
        if not line[COLUMN]:
            raise InputError(f"its row {number:,} has no '{COLUMN}'", where=str(file), remedy=WRITES)
        result.append(line)
    return result
