"""CSV and TSV, benchmark distributions of it (GLUE) included: every cell is read as the text that stands
there.

`records` says what a table holds, a row at a time; `predict` reads by it. `read` takes a whole file, by
Arrow, which is faster and gives the same cells (tests/data/test_tables.py), unless a quote in it is not what
Arrow takes it for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.csv as pc

from bert_ft.data.finding import Finding
from bert_ft.data.formats import distinct
from bert_ft.data.formats.encodings import decode
from bert_ft.data.formats.quotes import Remarks
from bert_ft.data.formats.records import QUOTES, UNEVEN, Quoting, Table, table, uneven
from bert_ft.errors import InputError, is_collecting, row_fault
from bert_ft.reading import HALF

NO_CHARACTER = "\ufdd0"  # Unicode has promised never to give it a meaning
BLOCK = 1 << 24  # bytes that are parsed at a time, which takes three times as many
SEPARATORS = "\x1f\x1e\x1d\x1c\x01\x02\x03"  # Arrow takes ASCII alone: what stands for another delimiter
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


class Content(NamedTuple):
    """The bytes below the header of a file, and what stands between its cells."""

    body: pa.Buffer
    separator: str


@dataclass
class Delimited:
    """The columns of a delimited file; what was done to them, and what may be wrong."""

    table: pa.Table
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def delimiter_of(given: str | None, kind: str) -> str:
    """What stands between the cells of a csv or a tsv, unless a delimiter is given."""
    return given or ("\t" if kind in ("tsv", "txt") else ",")


def read(
    path: Path,
    wanted: list[str],
    *,
    delimiter: str | None = None,
    quoting: Quoting = True,
    encoding: str = "utf-8",
    names: Sequence[str] | None = None,
    optional: tuple[str, ...] = (),
    skipped: list[int] | None = None,
) -> Delimited:
    """The `wanted` columns of a delimited file, all as strings; an empty unquoted cell is null.

    No types are guessed, so that "NA", "01" and "1e3" stay what they are.

    Args:
        names: of the columns of a file without a header line, as `records.table` takes them.
        optional: wanted columns that may be missing (the labels of a test file); `OTHERS` adds all others.
        skipped: takes the numbers of ragged rows, which then are left out; without it one is an error.
    Raises:
        InputError: empty file, a ragged row, a missing or doubled column, bytes that are not of the encoding,
            a quote that is never closed, or text behind a closing one, where the line is no row without it.
    """
    delimiter = delimiter_of(delimiter, path.suffix.lower().lstrip("."))
    text = decode(path, encoding, lenient=True)
    remarks = Remarks()
    layout = table(
        lines_of(text),
        str(path),
        delimiter=delimiter,
        quoting=quoting,
        names=names,
        wanted=wanted,
        remarks=remarks,
    )
    if HALF.search("".join(layout.columns)):
        decode(path, encoding)  # says which byte of the header it is
    selected = layout.select(wanted, optional, str(path))
    # Arrow wants distinct names; doubled columns that nobody asked for only need to be out of the way
    columns = distinct(layout.columns)
    first_line = _first_line(layout, names)
    has_others = HALF.search(text) is not None
    if _is_plain(text, delimiter, quoting):
        content = _content(text, sum(map(len, islice(lines_of(text), layout.header))), delimiter)
        del text, layout  # a large file is not held twice while it is parsed
        found = _by_arrow(path, content, columns, selected, delimiter, bool(quoting), skipped)
    else:
        found = _by_rows(path, layout, columns, selected)
    if not found.num_rows:
        raise InputError("no rows below the header", where=str(path))
    if has_others:
        found = _without_bytes(found, wanted, path, encoding)
    notes = [note for note in (first_line, remarks.note()) if note]
    return Delimited(found, notes, remarks.findings(str(path)))


def _first_line(layout: Table, names: Sequence[str] | None) -> str:
    """What is said of a table whose columns were given by number."""
    if layout.header or names is not None:
        return ""
    return "columns are given by number, so that the first line is a row and no header"


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text with their ends, as a stream has them."""
    return (match[0] for match in LINE.finditer(text) if match[0])


def _is_plain(text: str, delimiter: str, quoting: Quoting) -> bool:
    """Whether Arrow reads the quotes of a text as `records` does: it reads over those that are not closed, or
    not at the end of their cell, and knows none that is text."""
    if not quoting or '"' not in text:
        return True
    # what stands before a quote within a cell that begins with none
    inside = f"[^{re.escape(delimiter)}\r\n]"
    quoted_cell = f'(?<!{inside})"[^"]*+(?:""[^"]*+)*+"(?!{inside})'
    if quoting == "backslash" or not re.fullmatch(
        f'(?:[^"]*+(?:{quoted_cell}|(?<={inside})"))*+[^"]*+', text
    ):
        return False
    if quoting == "strict":
        return True
    several = (match[0] for match in re.finditer(quoted_cell, text))
    return not any(delimiter in cell and ("\n" in cell or "\r" in cell) for cell in several)


def _by_rows(path: Path, layout: Table, columns: list[str], selected: list[str]) -> pa.Table:
    """The selected columns, a row at a time."""
    rows = []
    for number, (line, cells, fault) in enumerate(layout.rows, 1):
        if fault:
            remedy = UNEVEN if fault == uneven(len(cells), len(columns)) else QUOTES
            row_fault(InputError(fault, where=f"{path}, line {line}", remedy=remedy), number)
            continue
        rows.append([cell and HALF.sub(NO_CHARACTER, cell) for cell in cells])
    places = [columns.index(name) for name in selected]
    return pa.table([pa.array([cells[k] for cells in rows], pa.string()) for k in places], names=selected)


def _by_arrow(
    path: Path,
    content: Content,
    columns: list[str],
    selected: list[str],
    delimiter: str,
    quoting: bool,
    skipped: list[int] | None,
) -> pa.Table:
    """The selected columns of what stands below the header.

    Raises:
        InputError: a row that has too few or too many cells, unless `skipped` takes its number.
    """
    body, separator = content
    uneven_rows: list[pc.InvalidRow] = []

    def note(row: pc.InvalidRow) -> str:
        uneven_rows.append(row)
        return "error" if skipped is None and not is_collecting() else "skip"

    def parsed(block: int) -> pa.Table:
        return _parsed(body, columns, selected, separator, quoting, note, block)

    try:
        try:
            found = parsed(BLOCK)
        except pa.ArrowInvalid:
            if body.size <= BLOCK:
                raise
            uneven_rows.clear()
            found = parsed(body.size + 1)  # a row that is longer than a block, perhaps
    except pa.ArrowInvalid as error:
        if not uneven_rows:
            raise InputError(str(error).splitlines()[0], where=str(path)) from None
        raise _uneven(uneven_rows[0], path, separator, delimiter, quoting) from None
    if skipped is not None:
        skipped.extend(row.number or 0 for row in uneven_rows)
    else:
        for row in uneven_rows:
            row_fault(_uneven(row, path, separator, delimiter, quoting), row.number or 0)
    if separator != delimiter:
        cells = [pac.replace_substring(column, separator, delimiter) for column in found.columns]
        found = pa.table(cells, names=found.column_names)
    return found


def _uneven(row: pc.InvalidRow, path: Path, separator: str, delimiter: str, quoting: bool) -> InputError:
    start = row.text[:80].replace(separator, delimiter)
    return InputError(
        f"{uneven(row.actual_columns, row.expected_columns)}: {start!r}",
        where=str(path) if row.number is None else f"{path}, row {row.number}",
        remedy=UNEVEN if quoting else "the file is read without quoting",
    )


def _content(text: str, start: int, delimiter: str) -> Content:
    """A text from `start` on as Arrow has to get it: its bytes, where what is no character has become one of
    no meaning, and what stands between its cells."""
    separator = delimiter
    if not delimiter.isascii():
        text, start = text[start:], 0
        separator = next(character for character in SEPARATORS if character not in text)
        text = text.replace(delimiter, separator)
    if len(text) > start and not text.endswith(("\n", "\r")):
        text += "\n"  # else Arrow takes an empty cell at the very end, behind a quoted one, for a quoted one
    if text.startswith("\ufeff", start):  # Arrow drops the first byte-order mark, also that of a cell
        text, start = f"\ufeff{text[start:]}", 0
    try:
        content, before = text.encode(), len(text[:start].encode())
    except UnicodeEncodeError:  # it may stand in a column that nobody reads
        content, before = HALF.sub(NO_CHARACTER, text[start:]).encode(), 0
    return Content(pa.py_buffer(content).slice(before), separator)


def _parsed(
    body: pa.Buffer,
    columns: list[str],
    selected: list[str],
    separator: str,
    quoting: bool,
    note: Callable[[pc.InvalidRow], str],
    block: int,
) -> pa.Table:
    if not body.size:  # Arrow would call the file empty
        return pa.table({column: pa.array([], pa.string()) for column in selected})
    return pc.read_csv(
        pa.BufferReader(body),
        read_options=pc.ReadOptions(
            use_threads=False,  # only then does an uneven row know its number
            column_names=columns,
            block_size=max(1 << 20, min(block, 1 << 30)),
        ),
        parse_options=pc.ParseOptions(
            delimiter=separator,
            quote_char='"' if quoting else False,
            newlines_in_values=quoting,
            ignore_empty_lines=len(columns) > 1,
            invalid_row_handler=note,
        ),
        convert_options=pc.ConvertOptions(
            column_types={column: pa.string() for column in columns},
            include_columns=selected,
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _without_bytes(table: pa.Table, wanted: list[str], path: Path, encoding: str) -> pa.Table:
    """The table without the columns that hold bytes of another encoding; in a wanted column they are an
    error."""
    broken = [
        name for name in table.column_names if pac.any(pac.match_substring(table[name], NO_CHARACTER)).as_py()
    ]
    if set(broken) & set(wanted):
        decode(path, encoding)
    return table.drop_columns(broken)
