"""Columns of rows as arrays that can be compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data import columns as cells
from bert_ft.data.rows import Rows


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(N,) large_string: texts as they are, the words of a list joined, "" for a null."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pac.binary_join(column.cast(pa.list_(pa.string())), " ")
    return pac.fill_null(column.cast(pa.large_string()), "")


def fold(column: pa.Array) -> pa.Array:
    """Texts after NFKC normalisation and case folding, with every run of white space as one space."""
    folded = pac.utf8_trim_whitespace(pac.utf8_lower(column))  # all that most ASCII texts need
    hard = pac.or_(
        pac.invert(pac.string_is_ascii(column)), pac.match_substring_regex(folded, r"\s\s|[\t-\r\x1c-\x1f]")
    )
    texts = (unicodedata.normalize("NFKC", text).casefold() for text in column.filter(hard).to_pylist())
    return pac.replace_with_mask(
        folded, hard, pa.array([" ".join(text.split()) for text in texts], folded.type)
    )


def encode(columns: Sequence[pa.Array]) -> list[np.ndarray]:
    """Each column as (N,) int64 codes: equal values have equal codes, in all of them; -1 for a null."""
    ends = np.cumsum([len(column) for column in columns])
    return np.split(cells.codes(pa.chunked_array(columns)).astype(np.int64), ends[:-1])


def is_text(table: pa.Table, role: str) -> bool:
    """Whether the table has this column, of strings or of lists of strings."""
    kind = table.schema.field(role).type if role in table.column_names else None
    kind = kind.value_type if kind is not None and pa.types.is_list(kind) else kind
    return kind in (pa.string(), pa.large_string())


def has_target(rows: Rows, target: str) -> bool:
    """Whether any row has a target, and one that can be compared: a name, several names, or a number."""
    if target not in rows.table.column_names or rows.table[target].null_count == len(rows):
        return False
    kind = rows.table[target].type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_floating(kind))


def numbers(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray]:
    """Targets as (N,) float64: the numbers, or codes of the names; NaN where a row has none."""
    if not columns or pa.types.is_floating(columns[0].type):
        return [column.to_numpy() for column in columns]
    codes = encode(
        [pac.if_else(pac.is_valid(column.combine_chunks()), plain(column), None) for column in columns]
    )
    return [np.where(code < 0, np.nan, code) for code in codes]


def mask_of(column: pa.Array) -> np.ndarray:
    """The column as (N,) bool."""
    mask: np.ndarray = column.to_numpy(zero_copy_only=False)
    return mask
