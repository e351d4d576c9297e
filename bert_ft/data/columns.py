"""Columns as they came from a source to canonical ones; the error of a wrong cell names its row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.errors import InputError, is_collecting

LONGEST = 10_000_000  # bytes of a text: ten books
ONE_HOT = ("a row of 0 and 1 is not a list of labels", "list the names of the labels that a row has")
Place = str | Callable[[int], str]
"""Where cells stand: the source, whose rows they are in their order, or a cell's number -> its place."""


def refuse(
    bad: pa.Array | pa.ChunkedArray,
    where: Place,
    message: str | Callable[[int], str],
    remedy: str = "",
    one: str = "",
) -> None:
    """Raises an InputError about the first cell where `bad` is true, if there is one; a null is not.

    Args:
        one: the message about one of these cells, where each is told by itself; `message` by default.
    """

    def place(at: int) -> str:
        return f"{where}, row {at + 1}" if isinstance(where, str) else where(at)

    def said(at: int) -> str:
        return message if isinstance(message, str) else message(at)

    if (first := pac.index(bad, True).as_py()) < 0:
        return
    error = InputError(said(first), where=place(first), remedy=remedy)
    if is_collecting():
        mask = pac.fill_null(bad, False).to_numpy(*([] if isinstance(bad, pa.ChunkedArray) else [False]))
        error.each = [(place(at), one or said(at)) for at in np.flatnonzero(mask).tolist()]
    raise error


def texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """The column as strings. Raises InputError with the row of a missing one."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not is_text(column.type):
        raise InputError(
            f"column '{name}' holds {column.type}, not text",
            where=where,
            remedy="name the text column: --text COLUMN, or data.columns in the task",
        )
    column = column.cast(pa.string())
    sizes = pac.binary_length(column)
    if (size := pac.max(sizes).as_py() or 0) > LONGEST:
        message = f"column '{name}' holds a text of {size / 1e6:,.0f} MB"
        refuse(pac.equal(sizes, size), where, message, "look for a quote that is never closed")
    message = f"column '{name}' has no text ({column.null_count} such rows)"
    remedy = 'remove the row, or quote the empty text ("") where it is meant'
    refuse(pac.is_null(column), where, message, remedy, one=f"column '{name}' has no text")
    return column


def numbers(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """The column as float64. Raises InputError with the row of a cell that is no finite number."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        column = column.cast(pa.string())  # 3.8 as the source wrote it, not 3.799999952316284
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid:
        odd = [cell for cell in column.unique() if not _is_number(cell)]
        refuse(
            pac.is_in(column, pa.array([cell.as_py() for cell in odd], column.type)),
            where,
            lambda row: f"column '{name}' has '{column[row]}' where a number is expected",
        )
        raise
    except pa.ArrowNotImplementedError:
        raise InputError(f"column '{name}' holds {column.type}, not numbers", where=where) from None
    refuse(
        pac.invert(pac.is_finite(numbers)),
        where,
        lambda row: f"column '{name}' has {numbers[row]} where a finite number is expected",
    )
    return numbers


def _is_number(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def names(
    column: pa.ChunkedArray,
    codes: list[str] | None,
    data: Data,
    name: str,
    where: str,
    place: Place | None = None,
) -> pa.ChunkedArray:
    """The column's label names as strings. Codes become names by the source's own table; there -1 means that
    a row has no label.

    Args:
        codes: the names of the source's integer codes.
        place: of each value, where it isn't a row of its own.
    """

    def fault(bad: pa.ChunkedArray, message: str, remedy: str) -> None:
        refuse(bad, place or where, lambda at: f"column '{name}' has {column[at]}: {message}", remedy)

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind):
        column = pac.if_else(pac.is_nan(column), None, column)
        whole = column.cast(pa.int64(), safe=False)
        fault(
            pac.not_equal(whole.cast(kind), column),
            "a number with a fraction can't be a label",
            'to predict numbers, set data.problem_type = "regression"',
        )
        column = whole
        kind = column.type
    if codes is not None and pa.types.is_integer(kind):
        fault(
            pac.greater_equal(column, len(codes)), f"the source names {len(codes)} labels, counted from 0", ""
        )
        ids = pac.if_else(pac.less(column, 0), pa.scalar(None, kind), column)
        column = pa.chunked_array(
            [pac.take(pa.array(codes, pa.string()), chunk) for chunk in ids.chunks], pa.string()
        )
        kind = column.type
    if pa.types.is_boolean(kind):
        column = pac.if_else(column, "True", "False")
    elif not (pa.types.is_integer(kind) or is_text(kind)):
        raise InputError(
            f"column '{name}' holds {kind}, not labels",
            where=where,
            remedy="name the label column: --label COLUMN",
        )
    column = column.cast(pa.string())
    if mapping := data.label_names:
        keys = pa.array(list(mapping))
        # 1.0 is code 1, as pandas writes whole numbers that have gaps
        whole = pac.replace_substring_regex(column, r"^(-?\d+)\.0*$", r"\1")
        positions = pac.coalesce(pac.index_in(column, keys), pac.index_in(whole, keys))
        named = pac.take(pa.array(list(mapping.values())), positions.combine_chunks())
        column = pa.chunked_array([pac.coalesce(named, column.combine_chunks())])
    return column


def name_sets(
    column: pa.ChunkedArray, codes: list[str] | None, data: Data, name: str, where: str, unused: int = 0
) -> tuple[pa.Array, list[str]]:
    """Sets of label names, list<string>, each sorted; and what a person should know about them.

    A cell is a list, or a text that `data.label_delimiter` splits. An empty text is the empty set, unless the
    whole column is empty: then no row has labels.

    Args:
        unused: how many nulls are those of rows that are left out.
    """
    notes: list[str] = []

    def fault(bad: pa.Array, message: str, remedy: str) -> None:
        refuse(
            bad, place, lambda at: f"column '{name}' has {column[int(rows[at])].as_py()!r}: {message}", remedy
        )

    def place(at: int) -> str:
        return f"{where}, row {rows[at] + 1}"

    rows = np.arange(len(column))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        column = column.cast(pa.string())
        delimiter = data.label_delimiter or ","
        trimmed = pac.utf8_trim_whitespace(column)
        fault(
            pac.match_substring_regex(trimmed, r"(?s)^\[.*\]$"),
            "a list written as text that can't be read",
            f"write a{delimiter}b and set data.label_delimiter, or use JSON or Parquet",
        )
        if data.label_delimiter is None and column.null_count < len(column):
            raise InputError(
                f"column '{name}' holds text, not lists of labels",
                where=where,
                remedy='set what separates the labels of a cell, such as data.label_delimiter = ","',
            )
        if 0 < column.null_count < len(column):
            if empty := column.null_count - unused:
                notes = [
                    f"{empty:,} of {len(column):,} rows have an empty cell in column '{name}', which counts "
                    "as no label"
                ]
            column = column.fill_null("")
        trimmed = pac.utf8_trim_whitespace(column.combine_chunks())
        cells = pac.split_pattern(pac.if_else(pac.equal(trimmed, ""), None, trimmed), delimiter)
        values = pac.utf8_trim_whitespace(pac.list_flatten(cells))
        missing = pac.is_null(trimmed)
        rows = pac.list_parent_indices(cells).to_numpy()
        fault(
            pac.equal(values, ""),
            "an empty label",
            "remove a delimiter that is doubled, or at the start or end of the cell",
        )
    elif is_list(column.type):
        cells = column.combine_chunks().cast(pa.list_(column.type.value_type))
        values = pac.list_flatten(cells)
        missing = pac.is_null(cells)
        rows = pac.list_parent_indices(cells).to_numpy()
    else:
        raise InputError(
            f"column '{name}' holds {column.type}, not lists of labels",
            where=where,
            remedy='one label a row: data.problem_type = "single_label_classification"',
        )
    label_names = names(pa.chunked_array([values]), codes, data, name, where, place).combine_chunks()
    fault(pac.is_null(label_names), "a label is missing", "write an empty list where a row has no label")
    if codes is None and is_one_hot(values, pac.list_value_length(cells)):
        fault(pa.array(np.ones(len(rows), bool)), *ONE_HOT)
    sets, repeated = _sets(label_names, rows, missing)
    if repeated:
        notes.append(f"{repeated:,} labels are repeated within their row in column '{name}', and count once")
    return sets, notes


def _sets(names: pa.Array, rows: np.ndarray, missing: pa.Array) -> tuple[pa.Array, int]:
    """Names and the row of each as a sorted list of every row, null where it is missing; and how many names
    stood in their row already."""
    encoded = names.dictionary_encode()
    distinct = max(1, len(encoded.dictionary))
    rank = np.argsort(pac.sort_indices(encoded.dictionary).to_numpy())
    # a set has neither order nor doubles: equal sets are equal cells, whatever the source
    unique = np.unique(rows.astype(np.int64) * distinct + rank[encoded.indices.to_numpy()])
    sizes = np.bincount(unique // distinct, minlength=len(missing))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    flat = encoded.dictionary.take(pac.sort_indices(encoded.dictionary)).take(pa.array(unique % distinct))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=missing), len(rows) - len(unique)


def is_one_hot(values: pa.Array, sizes: pa.Array | pa.ChunkedArray) -> bool:
    """Whether lists of these sizes, with these values one after another, are rows of 0 and 1, one for each
    label."""
    sizes = pac.min_max(sizes).as_py()
    if is_text(values.type) or not sizes["max"] or not sizes["min"] == sizes["max"] > 1:
        return False
    return bool(pac.all(pac.is_in(values.cast(pa.string()), pa.array(["0", "1", "true", "false"]))).as_py())


def flat(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The label names of a column of names or of sets of them, and the row of each."""
    if not pa.types.is_list(column.type):
        return column, np.arange(len(column))
    return pac.list_flatten(column), pac.list_parent_indices(column).to_numpy()


def codes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A number for each value, (N,): equal values have the same; -1 for a null."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    numbers: np.ndarray = column.dictionary_encode().indices.fill_null(-1).to_numpy()
    return numbers


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists, of any length or of one."""
    return any(of(kind) for of in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts, or nothing at all."""
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())
