"""Soft targets: distributions over labels, or what several annotators said, as columns hold them.

A cell is a dictionary (label -> probability, or label -> votes), a list of probabilities in the order of
`data.labels`, what a pipeline of `transformers` gives ([{"label": ..., "score": ...}]), or a list of votes;
or each of several columns holds a vote, or the probability of the label that it is called after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data import lists
from bert_ft.data.soft_cells import array, is_number, parsed, skipped, votes_skipped, whole_numbers
from bert_ft.data.soft_cells import refuse as refuse_rows
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, did_you_mean

COLUMN, VOTES = "soft", "votes"
"""Canonical columns: a struct of float64, a field a label; how many votes it comes of, where it does."""
PREFIX = "probability of "
"""Of the columns of a table that `predict` writes, one a label."""
NEAR = 0.02  # how far from 1 probabilities may sum: those that are rounded to two places
EXACT = 1e-6
SLACK = 1e-9  # of sums of floats
APART = "name them apart, or merge their probabilities in the data"


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
        each = [None if set(row) == {None} else dict(zip(labels, row, strict=True)) for row in values]
        return _of_shares(each, data, title, raw.where)
    rows = parsed(raw.table[title], data, title, raw.where, used)
    first = next((row for row in rows if row is not None), None)
    if isinstance(first, list) and not _is_shares(rows):
        votes = _by_annotator(rows, data, title, raw.where)
        return _of_votes(votes, data, [title] * len(votes), raw)
    if isinstance(first, list):
        rows = _in_order(rows, data, title, raw.where)
    return _of_shares(rows, data, title, raw.where)


def means(
    raw: Raw, data: Data, names: Sequence[str], used: np.ndarray | None
) -> tuple[pa.Array, np.ndarray, list[str]]:
    """(N,) the mean of the numbers that several annotators gave, null where none did; the numbers, (N,
    annotators), nan where one gave none; and notes."""
    table = [_used(raw.table[name], used) for name in names] if len(names) > 1 else []
    if len(names) == 1:
        rows = parsed(raw.table[names[0]], data, names[0], raw.where, used)
        refuse_rows(
            rows, lambda row: not isinstance(row, list), names[0], raw.where, "a list of numbers is wanted"
        )
        width = max((len(row) for row in rows if row is not None), default=0)
        table = [
            array([row[k] if row is not None and k < len(row) else None for row in rows])
            for k in range(width)
        ]
        names = [names[0]] * width
    table, notes = skipped(table, data)
    numbers = [
        cells.numbers(_without_nan(column), name, raw.where).to_numpy()
        for column, name in zip(table, names, strict=True)
    ]
    scores = np.stack(numbers, axis=1) if numbers else np.full((len(raw.table), 1), np.nan)
    counts = np.isfinite(scores).sum(axis=1)
    mean = np.nansum(scores, axis=1) / np.maximum(counts, 1)
    return pa.array(mean, mask=counts == 0), scores, notes


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of which NaN is no vote, as it is none of a label."""
    return pac.if_else(pac.is_nan(column), None, column) if pa.types.is_floating(column.type) else column


def _used(column: pa.ChunkedArray, used: np.ndarray | None) -> pa.ChunkedArray:
    return column if used is None else pac.if_else(pa.array(used), column, pa.scalar(None, column.type))


def _is_shares(rows: Sequence[Any]) -> bool:
    """Whether lists hold probabilities: numbers that are not all whole ones, which are codes of labels."""
    items = [item for row in rows if row for item in row]
    numbers = [item for item in items if item is not None]
    floats = [item for item in numbers if isinstance(item, float)]
    if len(numbers) < len(items):  # codes with gaps are floats too
        floats = [item for item in floats if not item.is_integer()]
    return all(map(is_number, numbers)) and bool(floats)


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
    refuse_rows(
        rows, lambda row: len(row) != size, name, where, f"a probability for each of {size} labels is wanted"
    )
    return [None if row is None else dict(zip(labels, row, strict=True)) for row in rows]


def _of_shares(rows: list[Any], data: Data, name: str, where: str) -> Soft:
    """Dictionaries as soft targets: probabilities, or numbers of votes where all are whole and some sum to
    more than 1."""

    def check(wrong: Any, message: str, remedy: str = "") -> None:
        refuse_rows(rows, wrong, name, where, message, remedy)

    check(lambda row: not all(map(is_number, row.values())), "a label whose value is no number")
    check(
        lambda row: not all(np.isfinite(value) and value >= 0 for value in row.values()),
        "a probability is a number from 0 to 1",
    )
    several = data.problem_type == "multi_label_classification"
    labels, notes = _labels({str(key) for row in rows for key in row or ()}, data, name, where)
    if data.labels is not None:
        strange = {key for key, label in labels.items() if label not in map(str, data.labels)}
        check(
            lambda row: any(p and str(key) in strange for key, p in row.items()),
            "a label that data.labels does not name",
        )
    names = _ordered(set(labels.values()), data)
    place = {label: i for i, label in enumerate(names)}
    shares, merged, top = np.zeros((len(rows), len(names))), np.zeros(len(rows), bool), np.zeros(len(rows))
    for at, row in enumerate(rows):
        top[at] = max((row or {}).values(), default=0)
        for key, p in (row or {}).items():
            if (i := place.get(labels.get(str(key), ""), -1)) >= 0:
                merged[at] |= bool(p and shares[at, i])
                shares[at, i] += p
    given = np.array([row is not None for row in rows])
    total = np.array([sum(row.values()) if row else 0.0 for row in rows])
    sums = shares.sum(axis=1)
    none = np.zeros(len(rows), np.int64)
    if several:
        remedy = "votes are divided by the number of people first, percents by 100"
        check(top > 1, "a probability is a number from 0 to 1", remedy)
        check(merged, "data.label_names makes one label of two that are likely", APART)
        given &= np.array([not labels.keys().isdisjoint(map(str, row or ())) for row in rows])
        return Soft(names, shares, given, none, notes)
    whole = np.array([all(float(p).is_integer() for p in (row or {}).values()) for row in rows])
    if whole.all():  # where nobody voted, the cell is as good as empty
        given &= total > 0
    else:
        _refuse_sums(rows, total, top, whole & given, check)
    partly = given & (abs(total - sums) > EXACT)
    given &= sums > 0
    if whole.all() and total.max(initial=0) > 1:
        if count := int((total - sums)[partly].sum()):
            notes.append(votes_skipped(count))
        return Soft(names, _divided(shares, given), given, np.where(given, sums, 0).astype(np.int64), notes)
    if count := int(partly.sum()):
        notes.append(
            f"column '{name}': {count:,} rows have a probability of data.skip_labels; their others are "
            "divided by their sum"
        )
    if rounded := int((abs(total[given] - 1) > EXACT).sum()):
        notes.append(
            f"column '{name}': the probabilities of {rounded:,} rows sum to 1 up to rounding, and are "
            "divided by their sum"
        )
    return Soft(names, _divided(shares, given), given, none, notes)


def _divided(shares: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, C) each row divided by its sum; zeros where none is given."""
    result: np.ndarray = shares / np.where(given, shares.sum(axis=1), 1.0)[:, None]
    return result


def _refuse_sums(
    rows: list[Any], total: np.ndarray, top: np.ndarray, whole: np.ndarray, check: Callable[..., None]
) -> None:
    """Raises an InputError about rows, (N,), whose values do not sum to 1: what they are instead, and what
    helps."""
    near = abs(total - 1) <= NEAR + SLACK
    percents = (abs(total - 100) <= 100 * NEAR) & (top > 1)
    check(percents, "a probability is a number from 0 to 1", "percents are divided by 100: 0.7 and not 70")
    check(
        ~whole & (top > 1) & ~near,
        "votes are whole numbers",
        "give weighted votes as probabilities: each divided by the sum of its row",
    )
    votes, shares = whole & (total > 1), ~whole & near
    if votes.any() and shares.any():
        other = shares if votes.argmax() < shares.argmax() else votes
        kind, before = ("probabilities", "votes") if other is shares else ("votes", "probabilities")
        remedy = "give votes in every row, or each row's votes divided by their sum"
        check(other, f"{kind}, where rows before have {before}", remedy)
    single = np.array([len(row or ()) == 1 for row in rows])
    message = "the probabilities of a row sum to 1"
    check(
        single & ~near & (total > 0),
        f"{message}, and this is of one label alone",
        "give those of the other labels too: a pipeline of transformers has them with top_k=None",
    )
    check(total == 0, f"{message}, and these are all 0", "leave the row out, or give it a distribution")
    check(~near, message, "--multi-label learns a probability for each of several labels")


def _labels(keys: set[str], data: Data, name: str, where: str) -> tuple[dict[str, str], list[str]]:
    """Key -> its label, as a column of labels has it; without those of `data.skip_labels`. And notes."""
    found = sorted(keys - set(data.skip_labels))
    (column,), notes = whole_numbers([pa.chunked_array([pa.array(found, pa.string())])], data)
    return dict(zip(found, cells.names(column, None, data, name, where).to_pylist(), strict=True)), notes


def _ordered(found: set[str], data: Data) -> list[str]:
    return [str(label) for label in data.labels] if data.labels is not None else sorted(found)


def _by_annotator(rows: Sequence[Any], data: Data, name: str, where: str) -> list[pa.ChunkedArray]:
    """Lists of votes as a column for the first vote of each row, one for the second, ..."""
    if data.problem_type == "multi_label_classification":
        refuse_rows(
            rows,
            lambda row: not all(item is None or isinstance(item, list) for item in row),
            name,
            where,
            "of several labels a row each vote is a list of labels",
        )
    width = max((len(row) for row in rows if row is not None), default=0)
    return [
        array([row[k] if row is not None and k < len(row) else None for row in rows]) for k in range(width)
    ]


def _of_votes(table: Sequence[pa.ChunkedArray], data: Data, names: Sequence[str], raw: Raw) -> Soft:
    """A column of votes an annotator as soft targets: the share of the votes that each label has."""
    several = data.problem_type == "multi_label_classification"
    voted: list[pa.ChunkedArray | pa.Array] = []
    table, notes = skipped(table, data)
    if not several:
        table, more = whole_numbers(table, data)
        notes += more
    for column, name in zip(table, names, strict=True):
        codes = raw.class_names.get(name)
        if several:
            here = pac.is_valid(column)
            column, first = lists.in_texts(column, data.label_delimiter, column.null_count)
            found, more = cells.name_sets(column, codes, data, name, raw.where, column.null_count)
            found = pac.if_else(here.combine_chunks(), found, pa.scalar(None, found.type))
            notes += [*first, *more]
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
