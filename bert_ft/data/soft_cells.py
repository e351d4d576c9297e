"""Cells that say more than one label, as dictionaries and lists: whatever wrote them, and what is refused of
them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data import columns as cells
from bert_ft.data import lists
from bert_ft.data.formats import json_rows
from bert_ft.errors import InputError, shown

FORMS = 'such as {"good": 0.7, "bad": 0.3}, ["good", "good", "bad"], or several columns with a vote each'
WHOLE = re.compile(r"-?\d+(\.0*)?")
POINTED = r"^(-?\d+)\.0*$"
""""1.0", as pandas writes whole numbers that have gaps."""
EMPTY = ("nan", "NaN", "None", "null")  # of a list without commas: a vote that is none


def parsed(column: pa.ChunkedArray, data: Data, name: str, where: str, used: np.ndarray | None) -> list[Any]:
    """Each cell as a dictionary or a list; None where it is empty, or its row is not used."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_map(column.type):
        rows: list[Any] = [_once(row) if row else None for row in column.to_pylist()]
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
    refuse(rows, lambda row: isinstance(row, str), name, where, "no distribution and no list of votes", FORMS)
    _refuse_faults(rows, name, where, cells.is_text(column.type))
    rows = [_of_pipeline(row) for row in rows]
    _refuse_faults(rows, name, where)
    kind = list if isinstance(next((row for row in rows if row is not None), None), list) else dict
    what = "dictionary" if kind is dict else "list"
    refuse(
        rows, lambda row: not isinstance(row, kind), name, where, f"no {what}, as the rows before are", FORMS
    )
    return rows


def _refuse_faults(rows: Sequence[Any], name: str, where: str, parsed_lists: bool = False) -> None:
    kinds = (reading.Row, list) if parsed_lists else (reading.Row,)
    faults = [_fault(row) if isinstance(row, kinds) else "" for row in rows]
    for fault in dict.fromkeys(filter(None, faults)):
        bad = pa.array([each == fault for each in faults])
        cells.refuse(bad, where, f"column '{name}': {fault}")


def _of_text(text: str, delimiter: str | None) -> Any:
    """The dictionary or the list that a cell of text holds; itself where it holds none."""
    text = text.strip()
    if text[:1] in ("{", "[") or text.startswith("array("):
        try:
            value = json_rows.loads(text)
        except json.JSONDecodeError:
            return _of_numpy(text)
        return (value or None) if isinstance(value, (dict, list)) else text
    return [part.strip() for part in text.split(delimiter)] if delimiter else text


def _of_numpy(text: str) -> Any:
    """The list that `str` writes of a list or an array with nan, or without commas; the text where it is
    none."""
    if text.startswith("{"):
        return text
    found, rest = lists.items(lists.between_brackets(text))
    try:
        values = [
            item if quoted else None if item in EMPTY else float(item) if "." in item else int(item)
            for item, quoted in found
        ]
    except ValueError:
        return text
    return text if rest or not values else values


def _fault(value: Any) -> str:
    """What is in a dictionary or a list that can't be taken as it stands; empty where nothing is."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, reading.Row):
            key, fault = next(iter(item.faults.items()))
            return f"'{key}' {fault}"
        if fault := next(reading.faults(item), ""):
            return f"it holds {fault}"
    return ""


def _once(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Pairs as a dictionary, which knows of a key that is there twice."""
    row = reading.Row(pairs)
    counts = Counter(key for key, _ in pairs)
    row.faults = {key: "appears twice" for key in row if counts[key] > 1}
    return row if row.faults else dict(pairs)


def of_pipeline(row: Sequence[Any]) -> list[tuple[Any, Any]] | None:
    """(label, score) of each item of what a pipeline of `transformers` gives; None: it is no such list."""
    if not row or not all(isinstance(item, dict) and set(item) == {"label", "score"} for item in row):
        return None
    return [(item["label"], item["score"]) for item in row]


def _of_pipeline(row: Any) -> Any:
    """[{"label": "good", "score": 0.7}, ...] as {"good": 0.7, ...}; a list without NaN, which is no vote."""
    if not isinstance(row, list):
        return row
    if (pairs := of_pipeline(row)) is not None:
        return _once(pairs)
    return [None if isinstance(item, float) and math.isnan(item) else item for item in row]


def is_number(value: Any) -> bool:
    """Whether a value of a dictionary or a list is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refuse(
    rows: Sequence[Any],
    wrong: Callable[[Any], bool] | np.ndarray,
    name: str,
    where: str,
    message: str,
    remedy: str = "",
) -> None:
    """Raises an InputError about the first row, of those that have anything, that is wrong; `wrong` says it
    of a row, or is (N,)."""
    bad = (
        wrong.tolist() if isinstance(wrong, np.ndarray) else [row is not None and wrong(row) for row in rows]
    )
    mask = pa.array([row is not None and each for row, each in zip(rows, bad, strict=True)], pa.bool_())
    cells.refuse(
        mask,
        where,
        lambda at: f"column '{name}' has {said(rows[at])}: {message}",
        remedy,
        one=f"column '{name}': {message}",
    )


def said(row: Any) -> str:
    """A cell as a message shows it: whole numbers of a dictionary of them without a point."""
    if isinstance(row, dict) and all(isinstance(p, float) and p.is_integer() for p in row.values()):
        row = {key: int(p) for key, p in row.items()}
    return shown(json.dumps(row, ensure_ascii=False, default=str), 80)


def array(values: list[Any]) -> pa.ChunkedArray:
    """Values of one type, or as texts."""
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.chunked_array([pa.array([None if value is None else str(value) for value in values])])


def skipped(table: Sequence[pa.ChunkedArray], data: Data) -> tuple[list[pa.ChunkedArray], list[str]]:
    """Columns of votes without those of `data.skip_labels`, such as "-"; and the note on them."""
    if not data.skip_labels:
        return list(table), []
    masks = [pa.array(lists.is_only(column, data.skip_labels, data.label_delimiter)) for column in table]
    without = [
        pac.if_else(mask, pa.scalar(None, column.type), column)
        for mask, column in zip(masks, table, strict=True)
    ]
    count = sum(mask.true_count for mask in masks)
    return without, [votes_skipped(count)] if count else []


def votes_skipped(count: int) -> str:
    """The note on votes that count for nothing."""
    what = "1 vote is" if count == 1 else f"{count:,} votes are"
    return f"{what} left out, by data.skip_labels"


def whole(text: str) -> str:
    """ "1.0" as "1"; any other text as it is."""
    return re.sub(POINTED, r"\1", text)


def whole_numbers(table: Sequence[pa.ChunkedArray], data: Data) -> tuple[list[pa.ChunkedArray], list[str]]:
    """Columns of labels of which all are whole numbers, with 1 where one has 1.0, so that both are one label;
    others as they are. And the note on it."""
    texts = [column for column in table if cells.is_text(column.type)]
    values = {value for column in texts for value in column.unique().to_pylist() if value}
    named = {*data.label_names, *data.label_names.values(), *map(str, data.labels or [])}
    pointed = sorted(value for value in values - named if re.match(POINTED, value))
    if not pointed or not all(WHOLE.fullmatch(value) for value in values):
        return list(table), []

    def mended(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if not cells.is_text(column.type):
            return column
        column = column.cast(pa.string())
        there = pac.is_in(column, pa.array(pointed))
        return pac.if_else(there, pac.replace_substring_regex(column, POINTED, r"\1"), column)

    note = f"labels are whole numbers: {pointed[0]} is read as {pointed[0].partition('.')[0]}"
    return [mended(column) for column in table], [note]
