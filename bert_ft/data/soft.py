"""Soft targets: distributions over labels, or what several annotators said, as columns hold them.

A cell is a dictionary (label -> probability, or label -> votes), a list of probabilities in the order of
`data.labels`, what a pipeline of `transformers` gives ([{"label": ..., "score": ...}]), or a list of votes;
or each of several columns holds a vote, or the probability of the label that it is called after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data.formats import json_rows
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, did_you_mean, shown

COLUMN, VOTES = "soft", "votes"
"""Canonical columns: a struct of float64, a field a label; how many votes it comes of, where it does."""
PREFIX = "probability of "
"""Of the columns of a table that `predict` writes, one a label."""
NEAR = 0.02  # how far from 1 probabilities may sum: those that are rounded to two places
EXACT = 1e-6
Cell = dict[str, Any] | list[Any]


@dataclass(frozen=True)
class Soft:
    """The soft targets of a set.

    Attributes:
        names: the labels, in the order of `data.labels` or else sorted.
        shares: (N, C) the distribution of each row, of several labels a row the probability of each.
        given: (N,) whether a row has one. votes: (N,) how many votes it comes of; 0: it is no such thing.
        notes: a line for each thing that was mended on the way.
    """

    names: list[str]
    shares: np.ndarray
    given: np.ndarray
    votes: np.ndarray
    notes: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, pa.Array]:
        """As columns of the canonical rows, which are the same whatever form they came in."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        fields = [pa.array(self.shares[:, i]) for i in order]
        names = [self.names[i] for i in order]
        found = {COLUMN: pa.StructArray.from_arrays(fields, names=names, mask=pa.array(~self.given))}
        if self.votes.any():
            found[VOTES] = pa.array(self.votes, mask=self.votes == 0)
        return found


def refuse(task: Task, learns: bool) -> None:
    """Raises InputError: soft targets for a family that learns none."""
    if task.data.soft and not learns:
        raise InputError(
            f"the {task.family} family learns no distributions over labels",
            where="data.soft",
            remedy="it is for one label a text, several, or a number",
        )


def require(raw: Raw, data: Data) -> None:
    """Raises InputError: training rows without the columns of `data.soft`."""
    if data.soft and not present(raw, data):
        raise InputError(
            f"no column '{data.soft[0]}', which data.soft names",
            where=raw.where,
            remedy="take data.soft out to learn from labels alone",
        )


def present(raw: Raw, data: Data) -> list[str]:
    """The columns of `data.soft` that a set has: all, or none.

    Raises:
        InputError: some of them.
    """
    here = [name for name in data.soft or [] if name in raw.table.column_names]
    if here and (missing := [name for name in data.soft or [] if name not in here]):
        remedy = did_you_mean(missing[0], raw.table.column_names)
        raise InputError(f"no column '{missing[0]}'", where=raw.where, remedy=remedy)
    return here


def read(raw: Raw, data: Data, names: Sequence[str], used: np.ndarray | None) -> Soft:
    """The soft targets of the columns `names`; of rows that are not `used` there are none.

    Raises:
        InputError: the first cell that is none, with its place.
    """
    title = ", ".join(names)
    if len(names) > 1:
        table = [_used(raw.table[name], used) for name in names]
        if not all(name.startswith(PREFIX) for name in names):
            return _of_votes(table, data, names, raw)
        numbers = [cells.numbers(column, name, raw.where) for column, name in zip(table, names, strict=True)]
        labels = [name.removeprefix(PREFIX) for name in names]
        values = zip(*(column.to_pylist() for column in numbers), strict=True)
        each = [None if None in row else dict(zip(labels, row, strict=True)) for row in values]
        return _of_shares(each, data, title, raw.where)
    rows = _parsed(raw.table[title], data, title, raw.where, used)
    first = next((row for row in rows if row is not None), None)
    if isinstance(first, list) and not _is_shares(rows):
        votes = _by_annotator(rows, data, title, raw.where)
        return _of_votes(votes, data, [title] * len(votes), raw)
    if isinstance(first, list):
        rows = _in_order(rows, data, title, raw.where)
    return _of_shares(rows, data, title, raw.where)


def means(raw: Raw, data: Data, names: Sequence[str], used: np.ndarray | None) -> tuple[pa.Array, np.ndarray]:
    """(N,) the mean of the numbers that several annotators gave, null where none did; and the numbers, (N,
    annotators), nan where one gave none."""
    table = [_used(raw.table[name], used) for name in names] if len(names) > 1 else []
    if len(names) == 1:
        rows = _parsed(raw.table[names[0]], data, names[0], raw.where, used)
        _refuse(
            rows, lambda row: not isinstance(row, list), names[0], raw.where, "a list of numbers is wanted"
        )
        width = max((len(row) for row in rows if row is not None), default=0)
        table = [
            _array([row[k] if row is not None and k < len(row) else None for row in rows])
            for k in range(width)
        ]
        names = [names[0]] * width
    numbers = [
        cells.numbers(column, name, raw.where).to_numpy() for column, name in zip(table, names, strict=True)
    ]
    scores = np.stack(numbers, axis=1) if numbers else np.full((len(raw.table), 1), np.nan)
    counts = np.isfinite(scores).sum(axis=1)
    mean = np.nansum(scores, axis=1) / np.maximum(counts, 1)
    return pa.array(mean, mask=counts == 0), scores


def _used(column: pa.ChunkedArray, used: np.ndarray | None) -> pa.ChunkedArray:
    return column if used is None else pac.if_else(pa.array(used), column, pa.scalar(None, column.type))


def _parsed(column: pa.ChunkedArray, data: Data, name: str, where: str, used: np.ndarray | None) -> list[Any]:
    """Each cell as a dictionary or a list; None where it is empty, or its row is not used."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_map(column.type):
        rows: list[Any] = [dict(row) if row else None for row in column.to_pylist()]
    elif cells.is_text(column.type):
        parsed = {text: _of_text(text, data.label_delimiter) for text in column.unique().to_pylist() if text}
        rows = [parsed.get(text) if text else None for text in column.to_pylist()]
    elif pa.types.is_struct(column.type):
        # a label that other rows have is no part of this one
        dense = ({k: v for k, v in (row or {}).items() if v is not None} for row in column.to_pylist())
        rows = [row or None for row in dense]
    elif cells.is_list(column.type):
        rows = [row or None for row in column.to_pylist()]
    else:
        raise InputError(
            f"column '{name}' holds {column.type}, no distributions and no votes", where=where, remedy=FORMS
        )
    if used is not None:
        rows = [row if use else None for row, use in zip(rows, used.tolist(), strict=True)]
    _refuse(
        rows, lambda row: isinstance(row, str), name, where, "no distribution and no list of votes", FORMS
    )
    rows = [_of_pipeline(row) for row in rows]
    kind = next((type(row) for row in rows if row is not None), dict)
    what = "dictionary" if kind is dict else "list"
    _refuse(rows, lambda row: type(row) is not kind, name, where, f"no {what}, as the rows before are", FORMS)
    return rows


FORMS = 'such as {"good": 0.7, "bad": 0.3}, ["good", "good", "bad"], or several columns with a vote each'


def _of_text(text: str, delimiter: str | None) -> Any:
    """The dictionary or the list that a cell of text holds; itself where it holds none."""
    if text.strip()[:1] in ("{", "["):
        try:
            value = json_rows.loads(text)
        except json.JSONDecodeError:
            return text
        return (value or None) if isinstance(value, (dict, list)) else text
    return [part.strip() for part in text.split(delimiter)] if delimiter else text


def _of_pipeline(row: Any) -> Any:
    """[{"label": "good", "score": 0.7}, ...] as {"good": 0.7, ...}."""
    if not isinstance(row, list) or not all(
        isinstance(item, dict) and set(item) == {"label", "score"} for item in row
    ):
        return row
    return {item["label"]: item["score"] for item in row}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_shares(rows: Sequence[Any]) -> bool:
    """Whether lists hold probabilities: numbers that are not all whole ones, which are codes of labels."""
    items = [item for row in rows if row for item in row]
    return all(_is_number(item) for item in items) and any(isinstance(item, float) for item in items)


def _in_order(rows: Sequence[Any], data: Data, name: str, where: str) -> list[Any]:
    """Lists of probabilities as dictionaries."""
    if data.labels is None:
        raise InputError(
            f"column '{name}' holds lists of probabilities, which do not say of what",
            where=where,
            remedy='name the labels in their order: data.labels = ["good", "bad"]',
        )
    labels = [str(label) for label in data.labels]
    size = len(labels)
    _refuse(
        rows, lambda row: len(row) != size, name, where, f"a probability for each of {size} labels is wanted"
    )
    return [None if row is None else dict(zip(labels, row, strict=True)) for row in rows]


def _refuse(
    rows: Sequence[Any], wrong: Callable[[Any], bool], name: str, where: str, message: str, remedy: str = ""
) -> None:
    """Raises an InputError about the first row, of those that have anything, that is wrong."""
    mask = pa.array([row is not None and wrong(row) for row in rows], pa.bool_())
    cells.refuse(
        mask,
        where,
        lambda at: f"column '{name}' has {_shown(rows[at])}: {message}",
        remedy,
        one=f"column '{name}': {message}",
    )


def _shown(row: Any) -> str:
    return shown(json.dumps(row, ensure_ascii=False, default=str), 80)


def _of_shares(rows: list[Any], data: Data, name: str, where: str) -> Soft:
    """Dictionaries as soft targets: probabilities, or numbers of votes where all are whole and some sum to
    more than 1."""

    def check(wrong: Callable[[dict[str, Any]], bool], message: str, remedy: str = "") -> None:
        _refuse(rows, wrong, name, where, message, remedy)

    check(lambda row: not all(map(_is_number, row.values())), "a label whose value is no number")
    check(
        lambda row: not all(np.isfinite(value) and value >= 0 for value in row.values()),
        "a probability is a number from 0 to 1",
    )
    rows = [
        None if row is None else {data.label_names.get(str(key), str(key)): p for key, p in row.items()}
        for row in rows
    ]
    if data.labels is not None:
        known = {str(label) for label in data.labels}
        check(
            lambda row: any(p and label not in known for label, p in row.items()),
            "a label that data.labels does not name",
        )
    names = _ordered({label for row in rows if row for label in row}, data)
    place = {label: i for i, label in enumerate(names)}
    shares = np.zeros((len(rows), len(names)))
    for at, row in enumerate(rows):
        for label, p in (row or {}).items():
            if label in place:
                shares[at, place[label]] = p
    given = np.array([row is not None for row in rows])
    sums = shares.sum(axis=1)
    none = np.zeros(len(rows), np.int64)
    if data.problem_type == "multi_label_classification":
        check(lambda row: max(row.values(), default=0) > 1, "a probability is a number from 0 to 1")
        return Soft(names, shares, given, none)
    if (shares == shares.round()).all() and sums.max(initial=0) > 1:
        check(lambda row: not sum(row.values()), "no votes at all", "leave the cell empty")
        return Soft(names, shares / np.maximum(sums, 1)[:, None], given, sums.astype(np.int64))
    check(
        lambda row: abs(sum(row.values()) - 1) > NEAR,
        "the probabilities of a row sum to 1",
        "--multi-label learns a probability for each of several labels",
    )
    notes = []
    if rounded := int((abs(sums[given] - 1) > EXACT).sum()):
        notes = [
            f"column '{name}': the probabilities of {rounded:,} rows sum to 1 up to rounding, and are "
            "divided by their sum"
        ]
    return Soft(names, shares / np.where(given, sums, 1.0)[:, None], given, none, notes)


def _ordered(found: set[str], data: Data) -> list[str]:
    return [str(label) for label in data.labels] if data.labels is not None else sorted(found)


def _by_annotator(rows: Sequence[Any], data: Data, name: str, where: str) -> list[pa.ChunkedArray]:
    """Lists of votes as a column for the first vote of each row, one for the second, ..."""
    if data.problem_type == "multi_label_classification":
        _refuse(
            rows,
            lambda row: not all(item is None or isinstance(item, list) for item in row),
            name,
            where,
            "of several labels a row each vote is a list of labels",
        )
    width = max((len(row) for row in rows if row is not None), default=0)
    return [
        _array([row[k] if row is not None and k < len(row) else None for row in rows]) for k in range(width)
    ]


def _array(values: list[Any]) -> pa.ChunkedArray:
    """Values of one type, or as texts."""
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.chunked_array([pa.array([None if value is None else str(value) for value in values])])


def _of_votes(table: Sequence[pa.ChunkedArray], data: Data, names: Sequence[str], raw: Raw) -> Soft:
    """A column of votes an annotator as soft targets: the share of the votes that each label has."""
    several = data.problem_type == "multi_label_classification"
    notes: list[str] = []
    voted: list[pa.ChunkedArray | pa.Array] = []
    for column, name in zip(table, names, strict=True):
        codes = raw.class_names.get(name)
        if data.skip_labels and not several:  # such as "-": no vote
            skipped = pac.is_in(column.cast(pa.string()), pa.array(data.skip_labels))
            column = pac.if_else(skipped, pa.scalar(None, column.type), column)
        if several:
            found, more = cells.name_sets(column, codes, data, name, raw.where)
            notes += more
        else:
            found = cells.names(column, codes, data, name, raw.where)
            found = pac.if_else(pac.equal(found, ""), None, found)
        voted.append(found)
    flat = [cells.flat(pa.chunked_array([pa.array(column)]) if several else column) for column in voted]
    labels = _ordered({label for values, _ in flat for label in values.unique().to_pylist() if label}, data)
    counts = np.zeros((len(raw.table), len(labels)))
    votes = np.zeros(len(raw.table), np.int64)
    for column, (values, owners) in zip(voted, flat, strict=True):
        votes += (
            pac.is_valid(column).to_numpy(zero_copy_only=False)
            if several
            else pac.is_valid(column).to_numpy()
        )
        places = pac.index_in(values, value_set=pa.array(labels, pa.string()))
        unknown = pac.and_(pac.is_null(places), pac.is_valid(values))
        if (at := pac.index(unknown, True).as_py()) >= 0:
            label = values[at].as_py()
            raise InputError(
                f"label '{label}': data.labels does not name it",
                where=raw.rows().place(int(owners[at])),
                remedy=did_you_mean(label, labels),
            )
        valid = pac.is_valid(places).to_numpy()
        np.add.at(counts, (owners[valid], places.drop_null().to_numpy()), 1)
    return Soft(labels, counts / np.maximum(votes, 1)[:, None], votes > 0, votes, list(dict.fromkeys(notes)))
