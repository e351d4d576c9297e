"""CSV and TSV, benchmark distributions of it (GLUE) included: every cell is read as the text that stands
there."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.csv as pc

from bert_ft.data.formats import chosen, distinct
from bert_ft.errors import InputError
from bert_ft.reading import HALF

NO_CHARACTER = "\ufdd0"  # Unicode has promised never to give it a meaning


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
        InputError: empty file, a ragged row, a missing or doubled column, bytes that are not of the encoding.
    """
    delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    text = decode(path, encoding, lenient=True)
    lines = io.StringIO(text, newline="")
    try:
        header = next(csv.reader(lines, delimiter=delimiter, quoting=0 if quoting else csv.QUOTE_NONE), [])
    except csv.Error as error:
        raise InputError(
            f"the header can't be read: {error}", where=str(path), remedy="is a quote open?"
        ) from None
    if not header:
        raise InputError(
            "the file is empty", where=str(path), remedy="it needs a header line and at least one row"
        )
    has_header = names is None or wanted[0] in header
    columns = header if has_header else list(names or [])
    chosen(columns, wanted, optional, str(path))
    if HALF.search("".join(columns)):
        decode(path, encoding)  # says which byte of the header it is
    try:
        content, broken = text.encode(), False
    except UnicodeEncodeError:  # what is no character may stand in a column that nobody reads
        content, broken = HALF.sub(NO_CHARACTER, text).encode(), True
    # Arrow wants distinct names; doubled columns that nobody asked for only need to be out of the way
    names_ = distinct(columns)
    bad: list[pc.InvalidRow] = []

    def noting(row: pc.InvalidRow) -> str:
        bad.append(row)
        return "error" if skipped is None else "skip"

    kept = chosen(names_, wanted, optional, str(path))
    try:
        table = pc.read_csv(
            io.BytesIO(content),
            read_options=pc.ReadOptions(
                use_threads=False,  # only then does a ragged row know its number
                column_names=names_,
                skip_rows_after_names=int(has_header),
                block_size=max(1 << 20, min(len(content) + 1, 1 << 30)),
            ),
            parse_options=pc.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoting else False,
                newlines_in_values=quoting,
                ignore_empty_lines=len(columns) > 1,
                invalid_row_handler=noting,
            ),
            convert_options=pc.ConvertOptions(
                column_types={column: pa.string() for column in names_},
                include_columns=kept,
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if not bad:
            raise InputError(str(error).splitlines()[0], where=str(path)) from None
        row = bad[0]
        place = "" if row.number is None else f", row {row.number - has_header}"
        remedy = "quote cells that hold the delimiter; quotes that are plain text want --set quoting=false"
        remedy = remedy if quoting else "the file is read without quoting"
        message = f"{row.actual_columns} cells where the header has {row.expected_columns}: {row.text[:80]!r}"
        raise InputError(message, where=f"{path}{place}", remedy=remedy) from None
    if skipped is not None:
        skipped.extend((row.number or 0) - has_header for row in bad)
    if not table.num_rows:
        raise InputError("no rows below the header", where=str(path))
    return _without_bytes(table, wanted, path, encoding) if broken else table


def _without_bytes(table: pa.Table, wanted: list[str], path: Path, encoding: str) -> pa.Table:
    """The table without the columns that hold bytes of another encoding; in a wanted column they are an
    error."""
    broken = [
        name for name in table.column_names if pac.any(pac.match_substring(table[name], NO_CHARACTER)).as_py()
    ]
    if set(broken) & set(wanted):
        decode(path, encoding)
    return table.drop_columns(broken)


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
    if encoding == "utf-8" and (raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:2]):
        raise InputError(
            "the file is UTF-16, not UTF-8", where=str(path), remedy='set data.encoding = "utf-16"'
        )
    try:
        codec, errors = (
            "utf-8-sig" if encoding == "utf-8" else encoding,
            "surrogateescape" if lenient else "strict",
        )
        return raw.decode(codec, errors)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {raw[error.start]:#04x} is not {encoding}"
        remedy = (
            'save the file as UTF-8, or name its encoding: --set data.encoding=latin-1 (or "cp1252", '
            '"gb18030")'
        )
        raise InputError(message, where=f"{path}, line {line}", remedy=remedy) from None
