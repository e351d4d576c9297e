"""Answers to a file or a stream, as they come."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from bert_ft import files, reading
from bert_ft.errors import InputError, disk, escaped
from bert_ft.tools.predict.cells import CsvLines, changed
from bert_ft.tools.predict.readers import WINDOW

NO_TEXT = "answers have several columns: a .txt can't hold them"


def printable(row: dict[str, Any]) -> dict[str, Any]:
    """What can't be written as UTF-8 is written as its escape."""

    def printable(value: Any) -> Any:
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    return {printable(name): printable(value) for name, value in row.items()}


@contextmanager
def writing_rows(
    target: str,
    kind: str,
    tell: Callable[[str], None],
    place: Callable[[Path], AbstractContextManager[Path]] = files.beside,
    mark: bool = False,
) -> Iterator[Callable[[Iterator[dict[str, Any]]], None]]:
    """A function that writes all rows; a file is whole or not there: `place` gives where it is written until
    then. `mark`: a table in a file begins with the mark by which a spreadsheet knows UTF-8."""
    if kind == "txt":
        raise InputError(NO_TEXT, where=target, remedy="--to jsonl")
    if target == "-":
        if kind == "parquet":
            raise InputError(
                "Parquet can't be written to standard output", remedy="name a file with --output"
            )
        yield lambda rows: _write(sys.stdout, kind, rows, tell)
        sys.stdout.flush()
        return
    with disk(Path(target)), place(Path(target)) as temporary:
        if kind == "parquet":
            yield lambda rows: _write_parquet(temporary, rows, target)
        else:
            with temporary.open("w", encoding="utf-8-sig" if mark else "utf-8", newline="") as stream:
                yield lambda rows: _write(stream, kind, rows, tell)


def _write(stream: TextIO, kind: str, rows: Iterator[dict[str, Any]], tell: Callable[[str], None]) -> None:
    if kind == "jsonl":
        for row in rows:
            stream.write(reading.dumps(row) + "\n")
        return
    flat: Iterator[dict[str, Any]] = map(_flat, rows)
    if stream.isatty():  # a terminal gets nothing that it would obey
        flat = (changed(row, escaped) for row in flat)
    first = list(islice(flat, WINDOW))  # a row at fault may be the first, and has no answer's columns
    header = list(dict.fromkeys(name for row in first for name in row))
    writer = csv.DictWriter(
        CsvLines(stream),
        header,
        restval="",
        extrasaction="ignore",
        delimiter="," if kind == "csv" else "\t",
        lineterminator=CsvLines.END,
    )
    writer.writeheader()
    known = set(header)
    for row in chain(first, flat):
        for name in row.keys() - known:
            tell(
                f"Column '{name}' first appears after row {WINDOW:,}, when the header had been written, "
                "and is dropped; use --to jsonl or parquet"
            )
            known.add(name)
        writer.writerow(row)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Cells of a table: a number for each label's probability, JSON for a list of entities."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if name == "probabilities" and isinstance(value, dict):
            cells |= {f"probability of {label}": p for label, p in value.items()}
        else:
            cells[name] = reading.dumps(value) if isinstance(value, (list, dict)) else value
    return cells


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], target: str) -> None:
    """A row group a window."""

    def tables() -> Iterator[Any]:
        while window := list(islice(rows, WINDOW)):
            yield table_of(window)

    write_tables(path, tables(), target)


def table_of(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a `pyarrow.Table`: every column that one of them has."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def write_tables(path: Path, tables: Iterator[Any], target: str, kind: str = "parquet") -> None:
    """A row group (of an Arrow file a batch) a table; where a later one brings another column, or a wider
    type, what is there is written anew.

    Raises:
        InputError: values that make no column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    new = pq.ParquetWriter if kind == "parquet" else pa.ipc.new_file
    older, writer = path.with_name(path.name + ".older"), new(path, schema := pa.schema([]))
    try:
        for table in tables:
            wider = pa.unify_schemas([schema, table.schema], promote_options="permissive")
            if wider != schema:
                writer.close()
                shutil.copyfile(path, older)  # not renamed: the file itself says that it is being written
                writer, schema = new(path, wider), wider
                for batch in _batches(older, kind):
                    writer.write_table(_widened(pa.table(batch), schema))
            writer.write_table(_widened(table, schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"these rows make no columns: {error}",
            where=target,
            remedy="give every row the same types, or write --to jsonl",
        ) from None
    finally:
        writer.close()
        older.unlink(missing_ok=True)


def _batches(path: Path, kind: str) -> Iterator[Any]:
    """The batches of a file that was just written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        yield from pq.ParquetFile(path).iter_batches(WINDOW)
        return
    with pa.OSFile(str(path)) as stream, pa.ipc.open_file(stream) as reader:
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def _widened(table: Any, schema: Any) -> Any:
    """The table in the columns and types of a schema that has its own among them."""
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
