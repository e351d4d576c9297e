"""Lists that a cell of text holds, as a table has to write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft import reading
from bert_ft.data.columns import ONE_HOT, is_list, is_one_hot, is_text, refuse
from bert_ft.data.formats import json_rows
from bert_ft.errors import shown

ITEM = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<plain>[^\s,'"\[\]()]+))\s*,?\s*""",
    re.VERBOSE | re.DOTALL,
)
NUMBER = re.compile(r"-?\d{1,18}(\.\d*)?")
SET = re.compile(r"(?:(?:frozen)?set\()?(\{.*\})\)?", re.DOTALL)
EMPTY = ("set()", "frozenset()")


def between_brackets(cell: str) -> str:
    """What stands between the brackets of a list as JSON, Python, pandas or NumPy writes it."""
    inner = cell.strip().removeprefix("array(")
    return inner[1 : max(inner.rfind("]"), inner.rfind(")") if inner[:1] == "(" else -1)]


def items(inner: str) -> tuple[list[tuple[str, bool]], str]:
    """Each item of a list, which commas or blanks part, and whether it stands in quotes; and the rest, from
    the first that can't be read."""
    out: list[tuple[str, bool]] = []
    at = 0
    while item := ITEM.match(inner, at):
        quoted = item["text"] is not None
        text = reading.python_string(item["text"]) if quoted else item["plain"]
        if text is None:
            break
        out.append((text, quoted))
        at = item.end()
    return out, inner[at:].strip()


def in_texts(
    column: pa.ChunkedArray, delimiter: str | None, unused: int = 0
) -> tuple[pa.ChunkedArray, list[str]]:
    """Cells of text as lists, where some are lists as JSON, Python or NumPy writes them, or choices as Label
    Studio does, {"choices": [...]}; else the column as it is.

    Args:
        unused: how many nulls are those of rows that are left out.
    """
    if not is_text(column.type) or not len(column):
        return column, []
    texts = [text and text.strip() for text in column.to_pylist()]
    parsed = {text: _list_in(text) for text in dict.fromkeys(texts) if text and _may_be_list(text)}
    # "(none)" is a label, and "(a, b)" may be one
    parsed = {text: value for text, value in parsed.items() if value is not None or text[0] in "[{"}
    if not parsed or not all(value is not None for value in parsed.values()):
        return column, []

    def plain(text: str) -> list[Any]:
        return [part.strip() for part in text.split(delimiter)] if delimiter else [text]

    lists = [parsed.get(text, plain(text)) or [] if text else [] for text in texts]
    first = next(text for text in texts if text in parsed)
    notes = [f"labels are lists that are written as text, such as {shown(first, most=60)}"]
    if empty := sum(not text for text in texts) - unused:
        notes.append(f"{empty:,} of {len(texts):,} rows have an empty cell there, which counts as no label")
    return pa.chunked_array([_array(lists)]), notes


def _array(lists: Sequence[list[Any]]) -> pa.Array:
    """Lists of one type: numbers where every item is one, else texts."""
    kinds = {type(item) for row in lists for item in row}
    if kinds == {str, int} and all(NUMBER.fullmatch(str(item)) for row in lists for item in row):
        lists = [[int(item) for item in row] for row in lists]
        kinds = {int}
    for kind, type_ in ((int, pa.int64()), (float, pa.float64()), (bool, pa.bool_())):
        if kinds == {kind}:
            return pa.array(lists, pa.list_(type_))
    return pa.array([[str(item) for item in row] for row in lists], pa.list_(pa.string()))


def _may_be_list(text: str) -> bool:
    return text[0] in "[{(" or text.startswith(("array(", "set(", "frozenset("))


def _list_in(text: str) -> list[Any] | None:
    if text in EMPTY:
        return []
    braces = SET.fullmatch(text)
    for form in [text, *([f"[{braces[1][1:-1]}]"] if braces else [])]:
        try:
            value = json_rows.loads(form)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and set(value) == {"choices"}:
            value = value["choices"]
        if isinstance(value, list):
            return value if all(isinstance(item, str) or _is_plain_number(item) for item in value) else None
    return _of_numpy(text) if text.startswith(("[", "array(")) else None


def _is_plain_number(item: Any) -> bool:
    return isinstance(item, (int, float)) and abs(item) < 2**63


def _of_numpy(text: str) -> list[Any] | None:
    """The strings, or the numbers, of a NumPy array as `str` writes it."""
    found, rest = items(between_brackets(text))
    if rest or not found:
        return None
    if all(quoted for _, quoted in found):
        return [item for item, _ in found]
    if any(quoted or not NUMBER.fullmatch(item) for item, quoted in found):
        return None
    return [float(item) if "." in item else int(item) for item, _ in found]


def of_one(
    column: pa.ChunkedArray, name: str, where: str, unused: int = 0
) -> tuple[pa.ChunkedArray, list[str]]:
    """Lists of one label as labels, also lists that are written as text; a column of anything else as it is.

    Args:
        unused: as `in_texts` has it.
    """
    found, notes = in_texts(column, None, unused)
    if not is_list(found.type):
        return column, []
    sizes = pac.list_value_length(found)
    whole = found.combine_chunks()
    if is_one_hot(pac.list_flatten(whole), sizes):
        refuse(pac.greater(sizes, 0), where, ONE_HOT[0], ONE_HOT[1])
    if pac.any(pac.greater(sizes, 1)).as_py():
        if not is_list(column.type):
            return column, []  # `check` tells of labels that are lists
        refuse(
            pac.greater(sizes, 1),
            where,
            lambda at: f"column '{name}' has {sizes[at]} labels",
            "--multi-label learns sets of labels; otherwise give each row one",
        )
    rows = pa.array(pac.list_parent_indices(whole).to_numpy())
    places = pac.index_in(pa.array(np.arange(len(whole))), value_set=rows.cast(pa.int64()))
    return pa.chunked_array([pac.list_flatten(whole).take(places)]), notes or [
        f"column '{name}' holds lists of one label"
    ]


def is_only(column: pa.ChunkedArray, values: Sequence[str], delimiter: str | None) -> np.ndarray:
    """(N,) whether a cell is one of these values, or a list of that alone."""
    cells = in_texts(column, delimiter)[0]
    if not is_list(cells.type):
        same: np.ndarray = pac.is_in(cells.cast(pa.string()), pa.array(values, pa.string())).to_numpy()
        return same
    whole = cells.combine_chunks()
    whole = whole.cast(pa.list_(whole.type.value_type))
    single = np.diff(whole.offsets.to_numpy()) == 1
    rows = pac.list_parent_indices(whole).to_numpy()
    equal = pac.is_in(pac.list_flatten(whole).cast(pa.string()), pa.array(values, pa.string()))
    result: np.ndarray = np.zeros(len(whole), bool)
    result[rows[equal.to_numpy(False)]] = True
    both: np.ndarray = result & single
    return both
