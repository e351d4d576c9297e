"""Files in, files out: rows stream through a trained model in windows, so memory does not grow with their number.

The columns of the input are kept, in their order; the answer's columns come behind them. A row that can't be read, or
that the model can't take, is told with its line and left out, or passed through with its `error`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from bert_ft import files, reading
from bert_ft.adapters.base import Adapter
from bert_ft.data.formats import chosen, delimited, distinct, json_rows
from bert_ft.errors import InputError, did_you_mean, disk, escaped
from bert_ft.model import Model
from bert_ft.task import Task
from bert_ft.tools.cells import changed, unwritable, without_formula

WINDOW = 4096  # rows that are tokenized, sorted by length and scored together
FORMATS = ("jsonl", "csv", "tsv", "txt", "parquet")

Line = tuple[str, dict[str, Any] | None, str]
"""(where the row stands, the row, what is wrong with it)"""


@dataclass
class Outcome:
    """What became of the rows."""

    rows: int = 0
    bad: list[str] = field(default_factory=list)  # one line each: where, and what is wrong
    broken: int = 0  # rows of a TSV with a line break in a cell


def predict(
    model: Model,
    source: str = "-",
    target: str = "-",
    *,
    read_as: str | None = None,
    write_as: str | None = None,
    columns: dict[str, str] | None = None,
    keep_bad: bool = False,
    escape_formulas: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Answers every row of a file, or of standard input, in the order of the rows.

    Args:
        source, target: a file, or "-" for standard input and output.
        read_as, write_as: one of `FORMATS`; by default what the file's suffix says, otherwise jsonl.
        columns: role (text, text_pair, question, context) -> column; a role's own name by default. Encoding, delimiter and
            quoting of tables are those of the model's task.
        keep_bad: rows at fault are written with an `error` and no answer, instead of being left out.
        escape_formulas: in tables, a ' stands before each cell that a spreadsheet would run as a formula.
        tell: takes one line for each row at fault.
    Raises:
        InputError: no such file, or none of the wanted columns; a column that is there twice, or called as an answer's.
    """
    for role in columns or {}:
        if role not in model.adapter.inputs:
            raise InputError(
                f"there is no role '{role}'", where="--column", remedy=did_you_mean(role, model.adapter.inputs)
            )
    reading.path(source), reading.path(target)
    read_as = _format(source, read_as)
    write_as = _format(target, write_as, read_as if read_as in ("csv", "tsv") else "jsonl")
    names = {
        role: (columns or {}).get(role, model.adapter.task.data.columns.get(role, role))
        for role in model.adapter.inputs
    }
    if escape_formulas and write_as not in ("csv", "tsv"):
        raise InputError(
            f"{write_as} holds no formulas", where="--escape-formulas", remedy="it is for --to csv and tsv"
        )
    found = Outcome()

    def judge(row: dict[str, Any]) -> str:
        return _unfit(row, model.adapter, names) or ("" if write_as == "jsonl" else unwritable(row, write_as))

    def answered(stream: Iterable[Line]) -> Iterator[dict[str, Any]]:
        lines = iter(stream)
        while window := list(islice(lines, WINDOW)):
            judged = [(where, row, wrong or judge(row or {})) for where, row, wrong in window]
            try:
                rows = model.rows([row for _, row, wrong in judged if not wrong], names)
            except InputError:  # of one row at least
                judged = [(where, row, wrong or _refused(row, model, names)) for where, row, wrong in judged]
                rows = model.rows([row for _, row, wrong in judged if not wrong], names)
            answers = iter(model.answer(rows) if len(rows) else ())
            for where, row, wrong in judged:
                found.rows += 1
                found.broken += read_as == "tsv" and any("\n" in str(value) for value in (row or {}).values())
                if not wrong and row is not None:
                    # what a row has of the model's inputs it keeps as it was
                    answer = {key: value for key, value in next(answers).items() if key not in model.adapter.inputs}
                    answer |= {"error": None} if keep_bad else {}
                    if clash := answer.keys() & row.keys():
                        raise InputError(f"the rows have a column '{min(clash)}' of their own, as the answers do", where=where,
                                         remedy="give it another name")  # fmt: skip
                    yield row | answer
                    continue
                found.bad.append(f"{where}: {wrong}")
                tell(found.bad[-1])
                if keep_bad:
                    yield {**_printable(row or {}), "error": wrong}

    needed = [name for role, name in names.items() if model.adapter.inputs[role]]
    if read_as == "txt" and len(needed) > 1:
        raise InputError(
            f"a line of text can't hold {' and '.join(needed)}", where=source, remedy="--from jsonl, or csv"
        )
    with _reading(source, read_as, needed, model.adapter.task) as stream, _writing(target, write_as, tell) as write:
        rows = answered(stream)
        if escape_formulas:
            rows = (changed(row, without_formula) for row in rows)
        write(rows)
    if found.broken:
        tell(f"{found.broken:,} rows hold line breaks within quotes; where each line is a row: --set quoting=false")
    return found


def _format(path: str, given: str | None, default: str = "jsonl") -> str:
    if given is None:
        suffix = Path(path).suffix.lower().lstrip(".")
        given = {"": default, "json": "jsonl"}.get(suffix, suffix)
    if given not in FORMATS:
        raise InputError(f"unknown format '{given}'", where=path, remedy=did_you_mean(given, FORMATS))
    return given


def _unfit(row: dict[str, Any], adapter: Adapter, names: dict[str, str]) -> str:
    """What is wrong with a row that could be read."""
    for role, needed in adapter.inputs.items():
        value = row.get(names[role])
        if value is None and needed:
            return f"no '{names[role]}'"
        if value is not None and not isinstance(value, str) and needed:
            return f"'{names[role]}' is {type(value).__name__}, not text"
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return f"'{names[role]}' holds half a surrogate pair"
    return ""


def _refused(row: dict[str, Any] | None, model: Model, names: dict[str, str]) -> str:
    """What the adapter says of one row."""
    try:
        model.rows([row], names)
    except InputError as error:
        return error.message
    return ""


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(source: str, kind: str, needed: list[str], task: Task) -> Iterator[Iterator[Line]]:
    encoding = delimited.known(task.data.encoding)
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    if source == "-":
        text = io.TextIOWrapper(sys.stdin.buffer, encoding=encoding, errors="surrogateescape", newline="")
        yield _lines(text, kind, "standard input", needed, task)
        return
    if not Path(source).is_file():
        there = Path(source).exists()
        raise InputError("not a regular file" if there else "no such file", where=source,
                         remedy="standard input can be anything: ... | bert-ft predict RUN -" if there else "")  # fmt: skip
    if kind == "parquet":
        yield _parquet(source)
        return
    with Path(source).open(encoding=encoding, errors="surrogateescape", newline="") as stream:
        if source.lower().endswith(".json") and stream.read(1024).lstrip().startswith("["):  # one document
            rows = json_rows.objects(Path(source), task.data.encoding)
            yield (_clean(f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
            return
        stream.seek(0)
        yield _lines(stream, kind, source, needed, task)


def _lines(stream: TextIO, kind: str, where: str, needed: list[str], task: Task) -> Iterator[Line]:
    if kind == "txt":
        for number, line in enumerate(stream, 1):
            yield _clean(f"{where}, line {number}", {needed[0]: line.rstrip("\r\n")})
    elif kind == "jsonl":
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _object(line, f"{where}, line {number}")
    else:
        yield from _table(stream, kind, where, needed, task)


def _object(line: str, where: str) -> Line:
    try:
        row = reading.loads(line)
    except json.JSONDecodeError as error:
        return where, None, f"not JSON: {error.msg}"
    return _clean(where, row) if isinstance(row, dict) else (where, None, f"{type(row).__name__}, not an object")


def _table(stream: TextIO, kind: str, where: str, needed: list[str], task: Task) -> Iterator[Line]:
    csv.field_size_limit(2**31 - 1)
    plain = not task.data.quoting or (kind == "tsv" and task.run.data_dir is not None)  # as the training rows were read
    reader = csv.reader(stream, delimiter=task.data.delimiter or ("," if kind == "csv" else "\t"), strict=True,
                        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)  # fmt: skip
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"the header can't be read: {error}", where=where, remedy="--set quoting=false?") from None
    chosen(header, needed, (), where)
    header = distinct(header)  # each is kept
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield (
                f"{where}, line {reader.line_num}",
                None,
                f"{error} (quotes that are plain text want --set quoting=false)",
            )
            continue
        place = f"{where}, line {reader.line_num}"
        if len(cells) != len(header):
            if cells:
                yield place, None, f"{len(cells)} cells where the header has {len(header)}"
            continue
        yield _clean(place, dict(zip(header, cells, strict=True)))


def _clean(where: str, row: dict[str, Any]) -> Line:
    """The row, unless one of its texts is not UTF-8 (which `surrogateescape` let through to be told here), or one of its
    values can't be passed on as it stands."""
    for name, fault in getattr(row, "faults", {}).items():
        return where, None, f"'{name}' {fault}"
    for name, value in row.items():
        if isinstance(value, str) and not value.isascii() and any("\udc80" <= c <= "\udcff" for c in value):
            return where, None, f"'{name}' is not UTF-8"
    return where, row, ""


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    """What can't be written as UTF-8 is written as its escape."""

    def printable(value: Any) -> Any:
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    return {printable(name): printable(value) for name, value in row.items()}


def _parquet(source: str) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file, number = pq.ParquetFile(source), 0
        for batch in file.iter_batches(WINDOW):
            for row in _of_batch(batch):
                number += 1
                yield f"{source}, row {number}", *row
    except pa.ArrowException as error:
        raise InputError(f"not a Parquet file: {error}", where=source) from None


def _of_batch(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """(row, what is wrong with it) of each: a date, a number or bytes that Python can't hold as what their column is."""
    try:
        yield from [(row, "") for row in batch.to_pylist()]
    except (ValueError, OverflowError):
        for i in range(len(batch)):
            try:
                yield batch.slice(i, 1).to_pylist()[0], ""
            except (ValueError, OverflowError) as error:
                yield None, f"a value can't be read: {error}"


# --- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def _writing(
    target: str, kind: str, tell: Callable[[str], None]
) -> Iterator[Callable[[Iterator[dict[str, Any]]], None]]:
    """A function that writes all rows; a file is whole or not there."""
    if kind == "txt":
        raise InputError("answers have several columns: a .txt can't hold them", where=target, remedy="--to jsonl")
    if target == "-":
        if kind == "parquet":
            raise InputError("Parquet can't be written to standard output", remedy="name a file with --output")
        yield lambda rows: _write(sys.stdout, kind, rows, tell)
        sys.stdout.flush()
        return
    with disk(Path(target)), files.beside(Path(target)) as temporary:
        if kind == "parquet":
            yield lambda rows: _write_parquet(temporary, rows, target)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
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
    writer = csv.DictWriter(stream, header, restval="", extrasaction="ignore", delimiter="," if kind == "csv" else "\t",
                            lineterminator="\n")  # fmt: skip
    writer.writeheader()
    known = set(header)
    for row in chain(first, flat):
        for name in row.keys() - known:
            tell(f"'{name}' first comes up after {WINDOW:,} rows, too late for the head of a table: it is left out; "
                 "--to jsonl or parquet keeps it")  # fmt: skip
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
    """A row group a window; where a later one brings another column, or a wider type, what is there is written anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    older, writer = path.with_name(path.name + ".older"), pq.ParquetWriter(path, pa.schema([]))
    try:
        while window := list(islice(rows, WINDOW)):
            names = dict.fromkeys(name for row in window for name in row)
            table = pa.table({name: [row.get(name) for row in window] for name in names})
            schema = pa.unify_schemas([writer.schema, table.schema], promote_options="permissive")
            if schema != writer.schema:
                writer.close()
                path.replace(older)
                writer = pq.ParquetWriter(path, schema)
                for batch in pq.ParquetFile(older).iter_batches(WINDOW):
                    writer.write_table(_widened(pa.table(batch), schema))
            writer.write_table(_widened(table, schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"these rows make no columns: {error}", where=target,
                         remedy="give every row the same types, or write --to jsonl") from None  # fmt: skip
    finally:
        writer.close()
        older.unlink(missing_ok=True)


def _widened(table: Any, schema: Any) -> Any:
    """The table in the columns and types of a schema that has its own among them."""
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
