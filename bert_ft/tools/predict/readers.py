"""Rows of any number from a file or a stream, a row at a time, each with its place."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from bert_ft import reading
from bert_ft.config.task import Task
from bert_ft.data import originals
from bert_ft.data.formats import chosen, delimited, distinct, encodings, json_rows, records
from bert_ft.data.formats.quotes import Remarks
from bert_ft.data.sources import Reader
from bert_ft.errors import InputError, did_you_mean

WINDOW = 4096  # rows that are tokenized, sorted by length and scored together
HEAD = 100  # lines that show what a file of lines holds
FORMATS = ("jsonl", "csv", "tsv", "txt", "parquet")

UNDECODED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are not of the encoding."""

Line = tuple[str, dict[str, Any] | None, str]
"""(where the row stands, the row, what is wrong with it)"""


def format_of(path: str, given: str | None, default: str = "jsonl") -> str:
    """The format of a file: the given one, or what its suffix says."""
    if given is None:
        suffix = Path(path).suffix.lower().lstrip(".")
        given = {"": default, "json": "jsonl"}.get(suffix, suffix)
    if given not in FORMATS:
        raise InputError(f"unknown format '{given}'", where=path, remedy=did_you_mean(given, FORMATS))
    return given


def rows_of(source: str, kind: str) -> int | None:
    """About how many rows a file has, for a progress bar: its lines; None for standard input."""
    if source == "-" or not Path(source).is_file():
        return None
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.ParquetFile(source).metadata.num_rows)
        except pa.ArrowException:
            return None
    with Path(source).open("rb") as stream:
        return sum(part.count(b"\n") for part in iter(lambda: stream.read(2**20), b""))


def refuse_tagged(source: str, encoding: str, labels: Sequence[str]) -> None:
    """Refuses a file whose lines are no texts but words with tags of these labels, in columns, as taggers are
    trained on.

    Raises:
        InputError: it is such a file.
    """
    if not Path(source).is_file():
        return
    with encodings.opened(Path(source).open("rb"), encoding, source) as stream:
        lines = [line.split() for line in islice(stream, HEAD) if line.strip() and line[0] != "#"]
    known = re.compile(rf"(?:[A-Z][-_.])?(?:{'|'.join(map(re.escape, labels))})")
    tags = {cells[-1] if len(cells) > 1 else "" for cells in lines} - {"O"}
    if tags and all(map(known.fullmatch, tags)):
        raise InputError(
            "each line is a word with its tag, and would be answered as a text",
            where=source,
            remedy="write a text a line; `bert-ft evaluate RUN --data FILE` scores such a file; --from txt "
            "takes its lines for texts all the same",
        )


@contextmanager
def reading_rows(
    source: str,
    kind: str,
    needed: list[str],
    task: Task,
    remarks: Remarks | None = None,
    reader: Reader | None = None,
) -> Iterator[Iterator[Line]]:
    """The rows of a file or of standard input, as they are read; `remarks` takes what there is to know of a
    table's quotes. `reader`: of the family's own JSON documents."""
    encoding = task.data.encoding
    if source == "-":
        text = encodings.opened(sys.stdin.buffer, encoding, "standard input")
        yield _rows(text, kind, "standard input", needed, task, remarks)
        return
    if not Path(source).is_file():
        there = Path(source).exists()
        raise InputError(
            "not a regular file" if there else "no such file",
            where=source,
            remedy="standard input can be anything: ... | bert-ft predict RUN -" if there else "",
        )
    if kind == "parquet":
        yield _parquet(source, needed)
        return
    with encodings.opened(Path(source).open("rb"), encoding, source) as stream:
        is_json = source.lower().endswith(".json")
        if is_json and (rows := _document(stream, source, needed, task, reader)) is not None:
            yield (_clean(f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
            return
        stream.seek(0)
        yield _rows(stream, kind, source, needed, task, remarks)


def _document(
    stream: TextIO, source: str, needed: list[str], task: Task, reader: Reader | None
) -> list[dict[str, Any]] | None:
    """The rows of a file that is one JSON document; None where it has an object a line. What holds no rows
    with the needed keys (questions nested in their contexts) is read as a training file of the family is."""
    if stream.read(1024).lstrip().startswith("["):
        rows = json_rows.objects(Path(source), task.data.encoding)
        if reader is None or any(row.keys() >= set(needed) for row in rows):
            return rows
    else:
        stream.seek(0)
        if reader is None or _is_row(stream.readline(), needed):
            return None
        stream.seek(0)
        try:
            found = reading.loads(stream.read())
        except json.JSONDecodeError:
            return None
        if isinstance(found, dict) and not any(isinstance(value, (list, dict)) for value in found.values()):
            return None  # one row, at fault, and nothing that holds rows
    raw = reader(Path(source), ["id", *needed], task.data, ("id",))
    return [dict(row) for row in raw.table.to_pylist()]


def _is_row(line: str, needed: list[str]) -> bool:
    """Whether a line is an object with the keys that a row needs."""
    try:
        row = reading.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and row.keys() >= set(needed)


def _rows(
    stream: Iterable[str], kind: str, where: str, needed: list[str], task: Task, remarks: Remarks | None
) -> Iterator[Line]:
    try:
        if task.data.pattern is not None and kind != "jsonl":
            yield from _of_pattern(stream, where, needed, task.data.pattern)
        elif kind == "txt":
            remaining = iter(stream)
            first = next(remaining, "")
            stream = chain([first], remaining)
            if set(needed) <= set(first.rstrip("\r\n").split(task.data.delimiter or "\t")):  # a header
                yield from _table(stream, kind, where, needed, task, remarks)
                return
            for number, line in enumerate(filter(None, stream), 1):
                yield _clean(f"{where}, line {number}", {needed[0]: line.rstrip("\r\n")})
        elif kind == "jsonl":
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _object(line, f"{where}, line {number}")
        else:
            yield from _table(stream, kind, where, needed, task, remarks)
    except UnicodeDecodeError as error:
        encoding = encodings.known(task.data.encoding)
        raise InputError(
            f"the bytes are not {encoding}: {error.reason}",
            where=where,
            remedy="name their encoding: --set encoding=utf-8 (or latin-1, gb18030, ...)",
        ) from None


def _object(line: str, where: str) -> Line:
    try:
        row = reading.loads(line)
    except json.JSONDecodeError as error:
        return where, None, f"not JSON: {error.msg}"
    return (
        _clean(where, row) if isinstance(row, dict) else (where, None, f"{type(row).__name__}, not an object")
    )


def _of_pattern(stream: Iterable[str], where: str, needed: list[str], pattern: str) -> Iterator[Line]:
    """Lines that the task's pattern matches, as it names their parts; another line is a text alone."""
    numbered = enumerate(stream, 1)
    while window := list(islice(numbered, WINDOW)):
        texts = [line.rstrip("\r\n") for _, line in window]
        for (number, _), text, parts in zip(window, texts, originals.parted(texts, pattern), strict=True):
            if text.strip():
                yield _clean(f"{where}, line {number}", parts or {needed[0]: text})


def _table(
    stream: Iterable[str], kind: str, where: str, needed: list[str], task: Task, remarks: Remarks | None
) -> Iterator[Line]:
    data = task.data
    # benchmarks' original files are tab-separated and not quoted, and the training rows were read so
    original = kind == "tsv" and task.run.data_dir is not None
    layout = records.table(
        stream,
        where,
        delimiter=delimited.delimiter_of(data.delimiter, kind),
        quoting=False if original else data.quoting,
        names=data.names,
        wanted=needed,
        remarks=remarks,
    )
    if UNDECODED.search("".join(layout.columns)):
        name = encodings.known(data.encoding)
        remedy = f"name their encoding: {encodings.NAMES}"
        raise InputError(f"the bytes of the column names are not {name}", where=where, remedy=remedy)
    layout.select(needed, (), where)
    columns = distinct(layout.columns)  # each is kept
    for line, cells, fault in layout.rows:
        place = f"{where}, line {line}"
        if fault:
            yield place, None, fault
        else:
            yield _clean(place, dict(zip(columns, cells, strict=True)))


def _clean(where: str, row: dict[str, Any]) -> Line:
    """The row, unless one of its texts has bytes that its encoding has not (`surrogateescape` let them
    through to be told here), or one of its values can't be passed on as it stands."""
    for name, fault in getattr(row, "faults", {}).items():
        return where, None, f"'{name}' {fault}"
    for name, value in row.items():
        if isinstance(value, str) and not value.isascii() and UNDECODED.search(value):
            return where, None, f"'{name}' has bytes of another encoding: --set data.encoding=..."
    return where, row, ""


def _parquet(source: str, needed: list[str]) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file, number = pq.ParquetFile(source), 0
        chosen(file.schema_arrow.names, needed, (), source)
        for batch in file.iter_batches(WINDOW):
            for row in _of_batch(batch):
                number += 1
                yield f"{source}, row {number}", *row
    except pa.ArrowException as error:
        raise InputError(f"not a Parquet file: {error}", where=source) from None


def _of_batch(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """(row, what is wrong with it) of each: a date, a number or bytes that Python can't hold as what their
    column is."""
    try:
        yield from [(row, "") for row in batch.to_pylist()]
    except (ValueError, OverflowError):
        for i in range(len(batch)):
            try:
                yield batch.slice(i, 1).to_pylist()[0], ""
            except (ValueError, OverflowError) as error:
                yield None, f"a value can't be read: {error}"
