"""Columns as they came from a source to canonical ones; a cell at fault is told with its row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.errors import InputError
from bert_ft.schema import Data

LONGEST = 10_000_000  # bytes of a text: ten books


def texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Strings; a missing one is an error with its row."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _is_text(column.type):
        raise InputError(f"column '{name}' holds {column.type}, not text", where=where,
                         remedy="name the text column: --text COLUMN, or data.columns in the task")  # fmt: skip
    column = column.cast(pa.string())
    sizes = pac.binary_length(column)
    if (size := pac.max(sizes).as_py() or 0) > LONGEST:
        raise InputError(f"column '{name}' holds a text of {size / 1e6:,.0f} MB", remedy="is a quote left open there?",
                         where=f"{where}, row {pac.index(sizes, pac.max(sizes)).as_py() + 1}")  # fmt: skip
    if column.null_count:
        row = pac.index(pac.is_null(column), True).as_py()
        message = f"column '{name}' has no text ({column.null_count} such rows)"
        remedy = 'remove the row, or quote the empty text ("") where it is meant'
        raise InputError(message, where=f"{where}, row {row + 1}", remedy=remedy)
    return column


def numbers(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """float64; a cell that is no finite number is an error with its row."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        column = column.cast(pa.string())  # 3.8 as the source wrote it, not 3.799999952316284
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid:
        row = next(i for i, cell in enumerate(column) if not _is_number(cell))
        raise InputError(
            f"column '{name}' has '{column[row]}' where a number is wanted", where=f"{where}, row {row + 1}"
        ) from None
    except pa.ArrowNotImplementedError:
        raise InputError(f"column '{name}' holds {column.type}, not numbers", where=where) from None
    bad = pac.fill_null(pac.invert(pac.is_finite(numbers)), False)
    if (row := pac.index(bad, True).as_py()) >= 0:
        raise InputError(
            f"column '{name}' has {numbers[row]} where a finite number is wanted", where=f"{where}, row {row + 1}"
        )
    return numbers


def alike(labels: pa.Array) -> list[str]:
    """A line for each two labels that differ in case or white space alone."""
    seen: dict[str, str] = {}
    pairs = [(seen.setdefault("".join(name.split()).casefold(), name), name)
             for name in sorted(pac.unique(labels.drop_null()).to_pylist())]  # fmt: skip
    return [f"the labels '{a}' and '{b}' differ in case or white space alone; they are kept apart (data.label_names "
            "makes one of them)" for a, b in pairs if a != b]  # fmt: skip


def _is_number(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def names(
    column: pa.ChunkedArray, codes: list[str] | None, data: Data, name: str, where: str, rows: np.ndarray | None = None
) -> pa.ChunkedArray:
    """Label names as strings. Codes become names by the source's own table; -1 there means that a row has no label.

    Args:
        codes: the names of the source's integer codes.
        rows: the row that each value stands in, where it isn't the value's own number.
    """

    def fault(bad: pa.ChunkedArray, message: str, remedy: str) -> None:
        if (at := pac.index(pac.fill_null(bad, False), True).as_py()) >= 0:
            row = at if rows is None else int(rows[at])
            raise InputError(
                f"column '{name}' has {column[at]}: {message}", where=f"{where}, row {row + 1}", remedy=remedy
            )

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind):
        whole = column.cast(pa.int64(), safe=False)
        fault(pac.not_equal(whole.cast(kind), column), "a number with a fraction is no label",
              'for numbers set data.problem_type = "regression"')  # fmt: skip
        column, kind = whole, whole.type
    if codes is not None and pa.types.is_integer(kind):
        fault(pac.greater_equal(column, len(codes)), f"the source names {len(codes)} labels, counted from 0", "")
        ids = pac.if_else(pac.less(column, 0), pa.scalar(None, kind), column)
        column = pa.chunked_array([pac.take(pa.array(codes, pa.string()), chunk) for chunk in ids.chunks], pa.string())
        kind = column.type
    if pa.types.is_boolean(kind):
        column = pac.if_else(column, "True", "False")
    elif not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InputError(f"column '{name}' holds {kind}, not labels", where=where, remedy="name it: --label COLUMN")
    column = column.cast(pa.string())
    if mapping := data.label_names:
        found = pac.index_in(column, value_set=pa.array(list(mapping)))
        named = pac.take(pa.array(list(mapping.values())), found.combine_chunks())
        column = pa.chunked_array([pac.coalesce(named, column.combine_chunks())])
    return column


def name_sets(
    column: pa.ChunkedArray, codes: list[str] | None, data: Data, name: str, where: str
) -> tuple[pa.Array, list[str]]:
    """Sets of label names, list<string>, each sorted; and what a person should know about them.

    A cell is a list, or a text that `data.label_delimiter` splits. An empty text is the empty set, unless the whole
    column is empty: then no row has labels.
    """
    notes: list[str] = []

    def fault(bad: pa.Array, rows: np.ndarray, message: str, remedy: str) -> None:
        if (at := pac.index(bad, True).as_py()) >= 0:
            cell = column[int(rows[at])].as_py()
            raise InputError(
                f"column '{name}' has {cell!r}: {message}", where=f"{where}, row {int(rows[at]) + 1}", remedy=remedy
            )

    everyone = np.arange(len(column))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        column = column.cast(pa.string())
        if data.label_delimiter is None and column.null_count < len(column):
            raise InputError(f"column '{name}' holds text, not lists of labels", where=where,
                             remedy='data.label_delimiter = "," says what stands between the labels of a cell')  # fmt: skip
        if 0 < column.null_count < len(column):
            notes = [f"{column.null_count:,} of {len(column):,} rows have an empty cell in column '{name}': no label"]
            column = column.fill_null("")
        trimmed = pac.utf8_trim_whitespace(column.combine_chunks())
        brackets = pac.and_(pac.starts_with(trimmed, "["), pac.ends_with(trimmed, "]")).fill_null(False)
        fault(
            brackets,
            everyone,
            "a list written as text",
            f"write a{data.label_delimiter or ','}b, or use JSON or Parquet",
        )
        cells = pac.split_pattern(pac.if_else(pac.equal(trimmed, ""), None, trimmed), data.label_delimiter or ",")
        values, missing = pac.utf8_trim_whitespace(pac.list_flatten(cells)), pac.is_null(trimmed)
        rows = pac.list_parent_indices(cells).to_numpy()
        fault(pac.equal(values, ""), rows, "an empty label", "two delimiters stand side by side, or one at an end")
    elif (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        cells = column.combine_chunks().cast(pa.list_(column.type.value_type))
        values, missing, rows = pac.list_flatten(cells), pac.is_null(cells), pac.list_parent_indices(cells).to_numpy()
    else:
        raise InputError(f"column '{name}' holds {column.type}, not lists of labels", where=where,
                         remedy='one label a row: data.problem_type = "single_label_classification"')  # fmt: skip
    named = names(pa.chunked_array([values]), codes, data, name, where, rows).combine_chunks()
    fault(pac.is_null(named), rows, "a label is missing", "an empty list says that a row has none")
    encoded = named.dictionary_encode()
    known = max(1, len(encoded.dictionary))
    rank = np.argsort(pac.sort_indices(encoded.dictionary).to_numpy())
    # a set has neither order nor doubles: equal sets are equal cells, whatever the source
    unique = np.unique(rows.astype(np.int64) * known + rank[encoded.indices.to_numpy()])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(unique // known, minlength=len(column)))]).astype(np.int32)
    flat = encoded.dictionary.take(pac.sort_indices(encoded.dictionary)).take(pa.array(unique % known))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=missing), notes


def flat(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The label names of a column of names or of sets of them, and the row of each."""
    if not pa.types.is_list(column.type):
        return column, np.arange(len(column))
    return pac.list_flatten(column), pac.list_parent_indices(column).to_numpy()


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )
