"""Lists that a cell of text holds, as a table has to write them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data.columns import is_list, is_text, refuse
from bert_ft.data.formats import json_rows
from bert_ft.errors import shown


def in_texts(column: pa.ChunkedArray, delimiter: str | None) -> tuple[pa.ChunkedArray, list[str]]:
    """Cells of text as lists, where some are lists of texts as JSON or Python writes them, or choices as
    Label Studio does, {"choices": [...]}; else the column as it is."""
    if not is_text(column.type) or not len(column):
        return column, []
    texts = [text and text.strip() for text in column.to_pylist()]
    parsed = {text: _list_in(text) for text in dict.fromkeys(texts) if text and text[0] in "[{"}
    if not parsed or not all(value is not None for value in parsed.values()):
        return column, []

    def plain(text: str) -> list[str]:
        return [part.strip() for part in text.split(delimiter)] if delimiter else [text]

    lists = [parsed.get(text, plain(text)) if text else [] for text in texts]
    first = next(text for text in texts if text in parsed)
    notes = [f"labels are lists that are written as text, such as {shown(first, most=60)}"]
    if empty := sum(not text for text in texts):
        notes.append(f"{empty:,} of {len(texts):,} rows have an empty cell there, which counts as no label")
    return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))]), notes


def _list_in(text: str) -> list[str] | None:
    try:
        value = json_rows.loads(text)
    except json.JSONDecodeError:
        return None
    if isinstance(value, dict) and set(value) == {"choices"}:
        value = value["choices"]
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def of_one(column: pa.ChunkedArray, name: str, where: str) -> tuple[pa.ChunkedArray, list[str]]:
    """Lists of one label as labels, also lists that are written as text; a column of anything else as it
    is."""
    found, notes = in_texts(column, None)
    if not is_list(found.type):
        return column, []
    sizes = pac.list_value_length(found)
    if pac.any(pac.greater(sizes, 1)).as_py():
        if not is_list(column.type):
            return column, []  # `check` tells of labels that are lists
        refuse(
            pac.greater(sizes, 1),
            where,
            lambda at: f"column '{name}' has {sizes[at]} labels",
            "--multi-label learns sets of labels; otherwise give each row one",
        )
    whole = found.combine_chunks()
    rows = pa.array(pac.list_parent_indices(whole).to_numpy())
    places = pac.index_in(pa.array(np.arange(len(whole))), value_set=rows.cast(pa.int64()))
    return pa.chunked_array([pac.list_flatten(whole).take(places)]), notes or [
        f"column '{name}' holds lists of one label"
    ]
