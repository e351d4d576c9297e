"""Column files: a word a line with its columns, a blank line behind each sentence, -DOCSTART- before each
document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError

DEFAULTS = {"tokens": 0, "tags": -1}


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """The sentences of a column file.

    Columns are parted by tabs where the first line has one, otherwise by spaces. `data.columns` gives their
    numbers ("0" is the first, "-1" the last); without it words are the first and tags the last. A line before
    a sentence that starts with "# " and has another number of columns is a comment. An empty cell between
    tabs is a word like any other.

    Returns:
        list columns of strings under the wanted names; `document` (int32) where the file has -DOCSTART-
        lines; `file` and `line` (list of int32), where each word stands.
    Raises:
        InputError: a line with another number of columns, a column that is not there.
    """
    text = pa.array(decode(path, data.encoding).replace("\r\n", "\n").split("\n"), pa.string())
    bare = pac.ascii_trim_whitespace(text)
    docstart = pac.starts_with(text, "-DOCSTART-").to_numpy(zero_copy_only=False)
    gap = docstart | pac.equal(bare, "").to_numpy(zero_copy_only=False)
    hashed = pac.starts_with(text, "#").to_numpy(zero_copy_only=False)
    if gap.all():
        raise InputError("no sentences", where=str(path), remedy="a word a line is wanted, with its tag")
    first = int(np.argmax(~gap & ~hashed if (~gap & ~hashed).any() else ~gap))
    tabbed = "\t" in text[first].as_py()
    cells = pac.split_pattern(
        text if tabbed else pac.replace_substring_regex(bare, "[ \t]+", " "), "\t" if tabbed else " "
    )
    widths = pac.list_value_length(cells).to_numpy()
    width = int(widths[first])
    remark = pac.starts_with(text, "# ").to_numpy(zero_copy_only=False) & ~gap & (widths != width)
    # of each line, the last one up to it that is no comment
    latest = np.maximum.accumulate(np.where(remark, -1, np.arange(len(gap))))
    used = ~gap & ~(remark & ((latest < 0) | gap[latest]))
    if (odd := used & (widths != width)).any():
        line = int(np.argmax(odd))
        message = f"{widths[line]} columns where the other lines have {width}: {text[line].as_py()[:60]!r}"
        raise InputError(
            message, where=f"{path}, line {line + 1}", remedy="columns are parted by tabs, or by spaces"
        )
    lines = np.flatnonzero(used)
    starts = np.flatnonzero(np.diff(np.cumsum(gap)[lines], prepend=-1))
    offsets = pa.array(np.append(starts, len(lines)), pa.int32())
    kept = cells.filter(pa.array(used))
    roles = {data.columns.get(role, role): (role, default) for role, default in DEFAULTS.items()}
    out = {}
    for name in wanted:
        role, default = roles.get(name, ("", 0))
        number = _number(name, role, default, width, path)
        if number is None or (role == "tags" and width == 1):
            if name in optional or (name == "document" and docstart.any()):
                continue
            raise InputError(
                f"no column '{name}': the file has {width}",
                where=str(path),
                remedy="0 is the first column, -1 the last: --tokens 0 --tags 3",
            )
        column = pac.list_element(kept, number)
        out[name] = pa.ListArray.from_arrays(
            offsets, pac.ascii_trim_whitespace(column) if role == "tags" else column
        )
    if docstart.any():
        out["document"] = pa.array(np.cumsum(docstart)[lines[starts]], pa.int32())
    here = pa.DictionaryArray.from_arrays(np.zeros(len(starts), np.int32), [str(path)])
    out |= {"file": here, "line": pa.ListArray.from_arrays(offsets, pa.array(lines + 1, pa.int32()))}
    return Raw(pa.table(out), str(path))


def _number(name: str, role: str, default: int, width: int, path: Path) -> int | None:
    """The column that a name means; None where the file has none of it."""
    if name == role:
        number = default
    elif name.lstrip("-").isdigit():
        number = int(name)
    else:
        return None
    return number % width if -width <= number < width else None
