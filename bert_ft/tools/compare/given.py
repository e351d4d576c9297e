"""A file of predictions in the place of a run: another model's answers to the rows of a scored set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft.data.checks.findings import excerpt
from bert_ft.data.formats import json_rows
from bert_ft.data.soft_cells import whole
from bert_ft.errors import InputError, did_you_mean
from bert_ft.report.scored_set import Scored
from bert_ft.tools.compare import forms
from bert_ft.tools.compare.forms import ANSWER, PROBABILITIES, ROLES, TEXTS, Placed

Texts = list[tuple[str, ...]]
"""Of each row what it is known by, a text a column."""


class Predictions:
    """What another model answered; JSON lines, JSON, CSV, TSV, Parquet, a text file with an answer a line, or
    a format of the family's own.

    The answers stand in the column `prediction` (otherwise `label`), probabilities in `probabilities` or in
    columns "probability of LABEL". Rows are those of a scored set by their number `row` (from 0, as a run's
    own predictions have it) or their `id`, otherwise by their texts, otherwise in their order; where the file
    has texts they have to be the set's.

    Attributes:
        notes: after `scored`, what there is to know of how the file was read.
    """

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.columns = dict(columns or {})
        self.notes: list[str] = []
        for role in self.columns:
            if role not in ROLES:
                remedy = did_you_mean(role, ROLES)
                raise InputError(f"there is no role '{role}'", where="--column", remedy=remedy)

    def scored(self, first: Scored) -> Scored:
        """The set of a run, with the answers of this file in the place of its own.

        Raises:
            InputError: rows that are not the set's, or an answer that is none; with its place.
        """
        form = forms.read(self.path, self.columns, first)
        self.notes = list(form.notes)
        rows = self._in_order(form.rows, first)
        other = type(first)(first.folder, first.task, first.name, {"metrics": {}, "tuned": {}})
        lines = []
        for i, (where, row) in enumerate(rows):
            try:
                answer = first.given(i, row)
            except ValueError as error:
                raise InputError(f"row {i} of the set: {error}", where=where) from None
            lines.append({key: first.lines[i][key] for key in first.lines[i] if key not in answer} | answer)
        if form.of_label and form.others and all(map(_is_gold, lines)):
            raise InputError(
                "its column 'label' is the set's own label in every row, and it has other columns: "
                f"{', '.join(form.others[:5])}",
                where=str(self.path),
                remedy="name that of the answers: --column prediction=COLUMN (label, if it is that)",
            )
        other.lines = lines
        return other

    def _in_order(self, rows: list[Placed], first: Scored) -> list[Placed]:
        """The rows of the file in the order of the set's."""
        remedy = f"it must answer the rows of {first.folder.path}, {first.name}"
        keys = ("row", "id") if "row" in first.lines[0] else ("id", "row")
        unusable = ""
        for key in keys:
            if all(row.get(key) is None for _, row in rows):
                continue
            own = [line.get(key, i if key == "row" else None) for i, line in enumerate(first.lines)]
            if None in own:
                unusable = key
                continue
            rows = _joined(rows, key, list(map(str, own)), remedy)
            ours, theirs = _texts(rows, first)
            if theirs != ours:
                raise _another_text(rows, ours, theirs, remedy)
            return rows
        if len(rows) != len(first.lines):
            message = f"{len(rows):,} rows, not {len(first.lines):,}"
            raise InputError(message, where=str(self.path), remedy=remedy)
        ours, theirs = _texts(rows, first)
        if unusable and (unusable in self.columns or not (ours or _counts(rows, unusable))):
            raise InputError(
                f"the rows of {first.folder.path}, {first.name} have no '{unusable}' to find those of the "
                "file by",
                where=str(self.path),
                remedy="give their numbers, from 0, in a column 'row' (or --column row=COLUMN), or their "
                f"texts in 'text'; take '{unusable}' out where all stand in the set's order",
            )
        if not ours:
            without = "has no 'row', no 'id' and none of their texts"
            if unusable:
                without = f"has none of their texts, and they have no '{unusable}'"
            self.notes.append(f"the rows of {self.path} are taken in their order: it {without}")
            return rows
        return rows if ours == theirs else self._by_texts(rows, ours, theirs, remedy)

    def _by_texts(self, rows: list[Placed], ours: Texts, theirs: Texts, remedy: str) -> list[Placed]:
        if Counter(ours) != Counter(theirs):
            raise _another_text(rows, ours, theirs, remedy)
        places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for at, key in enumerate(theirs):
            places[key].append(at)
        answers = [repr([row.get(ANSWER), row.get(PROBABILITIES)]) for _, row in rows]
        unlike = [found for found in places.values() if len({answers[at] for at in found}) > 1]
        note = f"the rows of {self.path} stand in another order and are found by their texts"
        if unlike:
            note += (
                f"; {sum(map(len, unlike)):,} of them have the text of another and not its answer, and are "
                "taken in their order (a column 'row' tells them apart)"
            )
        self.notes.append(note)
        return [rows[places[text].pop(0)] for text in ours]


def _is_gold(line: Mapping[str, Any]) -> bool:
    """Whether the answer is the label; false of rows that have none."""
    said, gold = line["prediction"], line.get("label")
    if isinstance(gold, list) and isinstance(said, list):
        return sorted(map(str, said)) == sorted(map(str, gold))
    return gold is not None and (said == gold or str(said) == str(gold))


def _counts(rows: Sequence[Placed], key: str) -> bool:
    """Whether a column numbers the rows in their order."""
    found = [_plain(row.get(key)) for _, row in rows]
    start = int(found[0]) if found[0].isdecimal() else 0
    return found == [str(start + i) for i in range(len(found))]


def _joined(rows: list[Placed], key: str, own: Sequence[str], remedy: str) -> list[Placed]:
    """The rows in the order of the set's numbers or ids."""
    for where, row in rows:
        if row.get(key) is None:
            raise InputError(
                f"this row has no '{key}', and others have one",
                where=where,
                remedy=f"give it to each row, or take '{key}' out where all stand in the set's order",
            )
    by: dict[str, Placed] = {}
    known = set(own)
    values = [_plain(row[key]) for _, row in rows]
    if key == "row":
        values = [whole(value.strip()) for value in values]
        if set(values) == set(map(str, range(1, len(own) + 1))):
            message = f"'row' counts from 1 to {len(own):,}, and rows are counted from 0 here"
            raise InputError(message, where=rows[0][0], remedy="take 1 from each")
    for value, (where, row) in zip(values, rows, strict=True):
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


def _texts(rows: Sequence[Placed], first: Scored) -> tuple[Texts, Texts]:
    """The texts of the set's rows and of the file's, as far as the run keeps them and the file has them."""
    sides: tuple[list[list[str]], list[list[str]]] = ([], [])
    for name in TEXTS:
        if name == "tokens":
            own = first.column(name) if name in first.lines[0] else None
        else:
            kept = first.rows is not None and name in first.rows.column_names
            own = first.rows[name].to_pylist() if kept and first.rows is not None else None
        present = [name in row for _, row in rows]
        if own is None or not any(present):
            continue
        if not all(present):
            message = f"this row has no '{name}', and others have one"
            raise InputError(message, where=rows[present.index(False)][0], remedy="give it to each row")
        sides[0].append(list(map(_plain, own)))
        theirs = [row[name] for _, row in rows]
        sides[1].append([_plain(_list(value) if name == "tokens" else value) for value in theirs])
    ours, theirs_ = (list(zip(*side, strict=True)) for side in sides)
    return ours, theirs_


def _another_text(rows: Sequence[Placed], ours: Texts, theirs: Texts, remedy: str) -> InputError:
    """About the first row whose text is none of the set's, or not that of its number."""
    strange, open_ = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
    at = next(i for i, text in enumerate(theirs) if (text in strange if strange else text != ours[i]))
    there = " | ".join(theirs[at])
    blank = next((own for own in (ours[at], *open_) if _words(own) == _words(theirs[at])), None)
    if blank is not None and blank != theirs[at]:
        here = " | ".join(blank)
        same = next(i for i, (a, b) in enumerate(zip(f"{here}\0", f"{there}\0", strict=False)) if a != b)
        start = max(0, same - 20)
        mine, other = (repr(side[start : start + 60]) for side in (here, there))
        message = (
            f"the text of row {ours.index(blank)} of the set differs in white space: {other}, not {mine}"
        )
        return InputError(message, where=rows[at][0], remedy=remedy)
    if strange and ours[at] not in open_:
        message = f"a text that is none of the set's: {excerpt(there, most=60)}"
        return InputError(message, where=rows[at][0], remedy=remedy)
    mine, other = (excerpt(side, most=60) for side in (" | ".join(ours[at]), there))
    return InputError(
        f"row {at} of the set has another text: {other}, not {mine}", where=rows[at][0], remedy=remedy
    )


def _words(texts: Sequence[str]) -> list[list[str]]:
    return [text.split() for text in texts]


def _list(value: Any) -> Any:
    """The words of a sentence, also of a cell that has them as a list."""
    try:
        return json_rows.loads(value) if isinstance(value, str) and value.startswith("[") else value
    except ValueError:
        return value


def _plain(value: Any) -> str:
    """A value as a text: an empty cell is empty, 3.0 is 3, and words stand between blanks."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
