"""CSV and TSV, benchmark distributions of it (GLUE) included: every cell is read as the text that stands
there.

`records` says what a table holds, a row at a time; `predict` reads by it. `read` takes a whole file, by
Arrow, which is faster and gives the same cells (tests/data/test_tables.py) once quotes that no cell can have
are refused.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.csv as pc

from bert_ft.data.formats import chosen, distinct
from bert_ft.errors import InputError
from bert_ft.reading import HALF

NO_CHARACTER = "\ufdd0"  # Unicode has promised never to give it a meaning
SEPARATORS = "\x1f\x1e\x1d\x1c\x01\x02\x03"  # Arrow takes ASCII alone: what stands for another delimiter
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
UNEVEN = "quote cells that hold the delimiter; quotes that are plain text want --set quoting=false"
QUOTES = "write a quote within a quoted cell twice; where quotes are plain text: --set quoting=false"

Record = tuple[int, list[str | None], str]
"""(the line where a row begins, its cells, what is wrong with it); None is an empty cell without quotes."""


def delimiter_of(given: str | None, kind: str) -> str:
    """What stands between the cells of a csv or a tsv, unless a delimiter is given."""
    return given or ("\t" if kind == "tsv" else ",")


# --- a row at a time


def rows(
    lines: Iterable[str], where: str, *, delimiter: str, quoting: bool = True
) -> tuple[list[str], Iterator[Record]]:
    """The header, and the rows below it as they are asked for. Empty lines are no rows, except in a table of
    one column, where they are empty cells.

    Args:
        lines: with their ends, as `open(..., newline="")` gives them.
    Raises:
        InputError: there is no header, or it can't be read.
    """
    all_records = records(lines, delimiter, quoting)
    first = next(all_records, None)
    if first is None:
        remedy = "it needs a header line and at least one row"
        raise InputError("the file is empty", where=where, remedy=remedy)
    _, cells, fault = first
    if fault:
        raise InputError(f"the header can't be read: {fault}", where=where, remedy=QUOTES)
    if cells == [None]:
        raise InputError("the first line is empty", where=where, remedy="it has to name the columns")
    return [cell or "" for cell in cells], _below(all_records, len(cells))


def _below(all_records: Iterator[Record], width: int) -> Iterator[Record]:
    for line, cells, fault in all_records:
        if cells == [None] and width > 1 and not fault:
            continue
        if not fault and len(cells) != width:
            fault = _uneven(len(cells), width)
        yield line, cells, fault


def records(lines: Iterable[str], delimiter: str, quoting: bool = True) -> Iterator[Record]:
    """What stands in each line, or in several where a quoted cell holds line breaks; an empty line is one
    empty cell. A quote means something only around a whole cell."""
    numbered = enumerate(lines, 1)
    for number, line in numbered:
        if quoting and '"' in line:
            yield number, *_quoted(line, (more for _, more in numbered), delimiter)
        else:
            yield number, [cell or None for cell in line.rstrip("\r\n").split(delimiter)], ""


def _quoted(line: str, more: Iterator[str], delimiter: str) -> tuple[list[str | None], str]:
    """The cells of the row that begins with a line, and what is wrong with it; takes more lines while a quote
    is open."""
    cells: list[str | None] = []
    start = 0
    while True:
        if not line.startswith('"', start):
            end = line.find(delimiter, start)
            if end < 0:
                return [*cells, line[start:].rstrip("\r\n") or None], ""
            cells.append(line[start:end] or None)
            start = end + 1
            continue
        pieces: list[str] = []
        start += 1
        while True:
            end = line.find('"', start)
            if end < 0:
                pieces.append(line[start:])
                line, start = next(more, ""), 0
                if not line:
                    return (
                        cells,
                        "a quote opens a cell and is never closed, so that all that follows is in it",
                    )
            elif line.startswith('"', end + 1):
                pieces.append(line[start : end + 1])
                start = end + 2
            else:
                pieces.append(line[start:end])
                start = end + 1
                break
        cells.append("".join(pieces))
        rest = line[start : start + 40]
        if not rest.rstrip("\r\n"):
            return cells, ""
        if rest[0] != delimiter:
            return cells, f"text stands behind a closing quote: {rest.rstrip()!r}"
        start += 1


def _uneven(cells: int, width: int) -> str:
    return f"{cells} cells where the header has {width}"


# --- a whole file


def read(
    path: Path,
    wanted: list[str],
    *,
    delimiter: str | None = None,
    quoting: bool = True,
    encoding: str = "utf-8",
    names: list[str] | None = None,
    optional: tuple[str, ...] = (),
    skipped: list[int] | None = None,
) -> pa.Table:
    """The `wanted` columns of a delimited file, all as strings; an empty unquoted cell is null.

    No types are guessed, so that "NA", "01" and "1e3" stay what they are.

    Args:
        names: column names of a file without a header line; they are used only where the first line
            lacks the first of the wanted columns (CoLA: train and dev have no header, test has one).
        optional: wanted columns that may be missing (the labels of a test file); `OTHERS` adds all others.
        skipped: takes the numbers of ragged rows, which then are left out; without it one is an error.
    Raises:
        InputError: empty file, a ragged row, a missing or doubled column, bytes that are not of the encoding,
            a quote that is never closed, or text behind a closing one.
    """
    delimiter = delimiter_of(delimiter, path.suffix.lower().lstrip("."))
    text = decode(path, encoding, lenient=True)
    taken: list[str] = []
    header, _ = rows(_lines(text, taken), str(path), delimiter=delimiter, quoting=quoting)
    has_header = names is None or wanted[0] in header
    columns = header if has_header else list(names or [])
    chosen(columns, wanted, optional, str(path))
    if HALF.search("".join(columns)):
        decode(path, encoding)  # says which byte of the header it is
    if quoting:
        _refuse_stray_quotes(text, path, delimiter)
    body, separator, broken = _body(text, sum(map(len, taken)) if has_header else 0, delimiter)
    # Arrow wants distinct names; doubled columns that nobody asked for only need to be out of the way
    columns = distinct(columns)
    uneven: list[pc.InvalidRow] = []
    try:
        table = _by_arrow(
            body,
            columns,
            chosen(columns, wanted, optional, str(path)),
            separator,
            quoting,
            uneven,
            on_uneven="error" if skipped is None else "skip",
        )
    except pa.ArrowInvalid as error:
        if not uneven:
            raise InputError(str(error).splitlines()[0], where=str(path)) from None
        raise _uneven_row(uneven[0], path, separator, delimiter, quoting) from None
    if skipped is not None:
        skipped.extend(row.number or 0 for row in uneven)
    if not table.num_rows:
        raise InputError("no rows below the header", where=str(path))
    if separator != delimiter:
        cells = [pac.replace_substring(column, separator, delimiter) for column in table.columns]
        table = pa.table(cells, names=table.column_names)
    return _without_bytes(table, wanted, path, encoding) if broken else table


def _lines(text: str, taken: list[str]) -> Iterator[str]:
    """The lines of a text with their ends, as a stream has them; those that were asked for are `taken`."""
    for match in LINE.finditer(text):
        if match[0]:
            taken.append(match[0])
            yield match[0]


def _refuse_stray_quotes(text: str, path: Path, delimiter: str) -> None:
    """Raises InputError where a quoted cell is not closed, or not at its end: Arrow reads over both."""
    if '"' not in text:
        return
    inside = (
        f"[^{re.escape(delimiter)}\r\n]"  # what stands before a quote within a cell that begins with none
    )
    quoted_cell = f'(?<!{inside})"[^"]*+(?:""[^"]*+)*+"(?!{inside})'
    if re.fullmatch(f'(?:[^"]*+(?:{quoted_cell}|(?<={inside})"))*+[^"]*+', text):
        return
    for line, _, fault in records(_lines(text, []), delimiter):
        if fault:
            raise InputError(fault, where=f"{path}, line {line}", remedy=QUOTES)


def _body(text: str, start: int, delimiter: str) -> tuple[Any, str, bool]:
    """(the bytes of a text from a character on as Arrow has to get them, what stands for the delimiter in
    them, whether characters of no meaning stand for bytes that could not be decoded)."""
    separator = delimiter
    if not delimiter.isascii():
        separator = next(character for character in SEPARATORS if character not in text)
        text = text.replace(delimiter, separator)
    try:
        content, broken = text.encode(), False
    except UnicodeEncodeError:  # what is no character may stand in a column that nobody reads
        content, broken = HALF.sub(NO_CHARACTER, text).encode(), True
    if start < len(text) and not content.endswith((b"\n", b"\r")):
        content += (
            b"\n"  # else Arrow takes an empty cell at the very end, behind a quoted one, for a quoted one
        )
    body = pa.py_buffer(content).slice(len(text[:start].encode(errors="surrogatepass")))
    if text.startswith("\ufeff", start):  # Arrow drops the first byte-order mark, also that of a cell
        body = pa.py_buffer(codecs.BOM_UTF8 + body.to_pybytes())
    return body, separator, broken


def _by_arrow(
    body: Any,
    columns: list[str],
    kept: list[str],
    separator: str,
    quoting: bool,
    uneven: list[pc.InvalidRow],
    *,
    on_uneven: str,
) -> pa.Table:
    """The columns to keep; `uneven` takes the rows that have too few or too many cells."""

    def note(row: pc.InvalidRow) -> str:
        uneven.append(row)
        return on_uneven

    if not body.size:  # Arrow would call the file empty
        return pa.table({column: pa.array([], pa.string()) for column in kept})
    return pc.read_csv(
        pa.BufferReader(body),
        read_options=pc.ReadOptions(
            use_threads=False,  # only then does an uneven row know its number
            column_names=columns,
            block_size=max(1 << 20, min(body.size + 1, 1 << 30)),
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
            include_columns=kept,
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _uneven_row(row: pc.InvalidRow, path: Path, separator: str, delimiter: str, quoting: bool) -> InputError:
    start = row.text[:80].replace(separator, delimiter)
    return InputError(
        f"{_uneven(row.actual_columns, row.expected_columns)}: {start!r}",
        where=str(path) if row.number is None else f"{path}, row {row.number}",
        remedy=UNEVEN if quoting else "the file is read without quoting",
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


# --- encodings


def known(encoding: str) -> str:
    """The encoding's usual name: utf8 and UTF_8 are utf-8."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        remedy = "utf-8, latin-1, ..."
        raise InputError(f"unknown encoding '{encoding}'", where="data.encoding", remedy=remedy) from None


def decode(path: Path, encoding: str, lenient: bool = False) -> str:
    """The file's text without a byte-order mark; bytes that do not fit are an error with their line, or if
    `lenient` halves of surrogate pairs, as `surrogateescape` has them."""
    raw, encoding = path.read_bytes(), known(encoding)
    _refuse_utf16(raw[:2], encoding, str(path))
    try:
        return raw.decode(_codec(encoding), "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {raw[error.start]:#04x} is not {encoding}"
        remedy = (
            'save the file as UTF-8, or name its encoding: --set data.encoding=latin-1 (or "cp1252", '
            '"gb18030")'
        )
        raise InputError(message, where=f"{path}, line {line}", remedy=remedy) from None


def opened(raw: IO[bytes], encoding: str, where: str) -> TextIO:
    """A stream of bytes as one of text, read as `decode` reads a file: without a byte-order mark, and with
    bytes that do not fit as halves of surrogate pairs. Line ends stay as they are."""
    encoding = known(encoding)
    buffer = io.BufferedReader(raw)  # type: ignore[type-var] # of anything that has readinto
    _refuse_utf16(buffer.peek(2)[:2], encoding, where)
    return io.TextIOWrapper(buffer, encoding=_codec(encoding), errors="surrogateescape", newline="")


def _codec(encoding: str) -> str:
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _refuse_utf16(first: bytes, encoding: str, where: str) -> None:
    if encoding == "utf-8" and (first in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first):
        raise InputError("the file is UTF-16, not UTF-8", where=where, remedy='set data.encoding = "utf-16"')
