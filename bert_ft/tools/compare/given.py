"""A file of predictions in the place of a run: another model's answers to the rows of a scored set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config.task import Task
from bert_ft.data.checks.findings import excerpt
from bert_ft.data.rows import PLACES
from bert_ft.data.soft import PREFIX
from bert_ft.errors import InputError, did_you_mean
from bert_ft.files import LARGEST
from bert_ft.report.scored_set import Scored
from bert_ft.tools.predict.readers import format_of, reading_rows

ROLES = ("prediction", "probabilities", "row", "id")
ANSWER = "prediction"
Placed = tuple[str, dict[str, Any]]
"""(where it stands, a row of the file)"""


class Predictions:
    """What another model answered; JSON lines, JSON, CSV, TSV, Parquet, or a text file with an answer a line.

    The answers stand in the column `prediction` (otherwise `label`), probabilities in `probabilities` or in
    columns "probability of LABEL". Rows are those of a scored set by their number `row` (from 0, as a run's
    own predictions have it) or their `id`, otherwise in their order; where the file has their texts they have
    to be the same, in any order.
    """

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.columns = dict(columns or {})
        for role in self.columns:
            if role not in ROLES:
                remedy = did_you_mean(role, ROLES)
                raise InputError(f"there is no role '{role}'", where="--column", remedy=remedy)

    def scored(self, first: Scored) -> Scored:
        """The set of a run, with the answers of this file in the place of its own.

        Raises:
            InputError: rows that are not the set's, or an answer that is none; with its place.
        """
        size = len(first.lines)
        rows = self._in_order(list(self._rows()), first)
        other = type(first)(first.folder, first.task, first.name, {"metrics": {}, "tuned": {}})
        lines = []
        for i, (where, row) in enumerate(rows[:size]):
            try:
                answer = first.given(i, row)
            except ValueError as error:
                raise InputError(f"row {i} of the set: {error}", where=where) from None
            lines.append({key: first.lines[i][key] for key in first.lines[i] if key not in answer} | answer)
        other.lines = lines
        return other

    def _rows(self) -> Iterator[Placed]:
        """The rows of the file, their columns called by their roles."""
        if not self.path.is_file():
            raise InputError("no such file", where=str(self.path))
        if (answers := self._official()) is not None:
            yield from ((str(self.path), {"id": key, ANSWER: text}) for key, text in answers.items())
            return
        kind = format_of(str(self.path), None)
        needed = [self.columns.get(ANSWER, ANSWER)] if kind == "txt" else list(self.columns.values())
        with reading_rows(str(self.path), kind, needed, Task()) as found:
            for where, row, fault in found:
                if fault or row is None:
                    raise InputError(fault, where=where)
                yield where, self._named(row, where)

    def _named(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        if missing := [column for column in self.columns.values() if column not in row]:
            raise InputError(f"no column '{missing[0]}'", where=where, remedy=did_you_mean(missing[0], row))
        named = dict(row) | {role: row[column] for role, column in self.columns.items()}
        each = {name.removeprefix(PREFIX): p for name, p in row.items() if name.startswith(PREFIX)}
        if each and "probabilities" not in named:
            named["probabilities"] = each
        if ANSWER not in named and "probabilities" not in named:
            if "label" not in named:
                remedy = "name it: --column prediction=COLUMN"
                raise InputError("no column 'prediction'", where=where, remedy=remedy)
            named[ANSWER] = named["label"]
        return named

    def _official(self) -> dict[str, str] | None:
        """The answers of a file as SQuAD's script takes it, {id: answer}; None where it is no such file."""
        if self.path.suffix.lower() != ".json":
            return None
        try:
            value = reading.strict(reading.text(self.path, LARGEST))
        except ValueError:  # JSON lines, perhaps
            return None
        strings = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        return value if strings else None

    def _in_order(self, rows: list[Placed], first: Scored) -> list[Placed]:
        """The rows of the file in the order of the set's."""
        size = len(first.lines)
        remedy = f"it must answer the rows of {first.folder.path}, {first.name}"
        for key in ("row", "id"):
            own = [line.get(key) for line in first.lines]
            if rows and all(key in row for _, row in rows) and None not in own:
                return _joined(rows, key, list(map(str, own)), remedy)
        if len(rows) != size:
            raise InputError(f"{len(rows):,} rows, not {size:,}", where=str(self.path), remedy=remedy)
        shared = [name for name in _texts(first) if all(name in row for _, row in rows)]
        if not shared:
            return rows
        ours = list(zip(*(_texts(first)[name] for name in shared), strict=True))
        theirs = [tuple(_plain(row[name]) for name in shared) for _, row in rows]
        if ours == theirs:
            return rows
        if Counter(ours) == Counter(theirs):  # in another order; equal texts in theirs
            places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
            for at, key_ in enumerate(theirs):
                places[key_].append(at)
            return [rows[places[text].pop(0)] for text in ours]
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        mine, other = (excerpt(" | ".join(side[at]), most=60) for side in (ours, theirs))
        raise InputError(
            f"row {at} of the set has another text: {other}, not {mine}", where=rows[at][0], remedy=remedy
        )


def _joined(rows: list[Placed], key: str, own: Sequence[str], remedy: str) -> list[Placed]:
    """The rows in the order of the set's numbers or ids."""
    by: dict[str, Placed] = {}
    known = set(own)
    for where, row in rows:
        value = _plain(row[key])
        if value in by or value not in known:
            what = "stands there twice" if value in by else "is none of the set's"
            raise InputError(f"{key} '{value}' {what}", where=where, remedy=remedy)
        by[value] = where, row
    if missing := [value for value in own if value not in by]:
        where = rows[-1][0].rpartition(", ")[0] or rows[-1][0]
        raise InputError(
            f"no answer to {key} '{missing[0]}' ({len(missing):,} in all)", where=where, remedy=remedy
        )
    return [by[value] for value in own]


def _texts(first: Scored) -> dict[str, list[str]]:
    """Column -> the texts of the set's rows, as far as the run keeps them."""
    if first.rows is None:
        return {}
    names = [name for name in ("text", "text_pair", "question", "context") if name in first.rows.column_names]
    return {
        name: [_plain(value) for value in first.rows[name].to_pylist()]
        for name in names
        if name not in PLACES
    }


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
