"""JSON (a list of objects, or an object of lists) and JSONL (an object a line)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft import reading
from bert_ft.data.formats import OTHERS
from bert_ft.data.formats.delimited import decode
from bert_ft.errors import InputError, did_you_mean


def read(path: Path, keys: list[str], *, encoding: str = "utf-8", optional: tuple[str, ...] = ()) -> pa.Table:
    """The `keys` of every object, in the types they have in the file; a key that is absent is null.

    Raises:
        InputError: not JSON (with the line), not objects, a key that no row has, a key whose type changes.
    """
    try:
        return table(objects(path, encoding), path, keys, optional)
    except InputError as error:
        if isinstance(error.__context__, UnicodeEncodeError):
            decode(path, encoding)  # says which byte it is, where it is not an escape that stands there
        raise


def table(
    rows: list[dict[str, Any]], path: Path, keys: list[str], optional: tuple[str, ...] = ()
) -> pa.Table:
    """`read` of objects that are parsed already."""
    present = {key for row in rows for key in row}
    columns: dict[str, pa.Array] = {}
    for key in keys:
        if key not in present:
            if key in optional:
                continue
            raise InputError(f"no key '{key}'", where=str(path), remedy=did_you_mean(key, present))
        values = [row.get(key) for row in rows]
        for number, row in enumerate(rows, 1):
            if isinstance(row, reading.Row) and (fault := row.faults.get(key)):
                raise InputError(f"'{key}' {fault}", where=f"{path}, row {number}")
        kinds = [type(value) for value in values if value is not None]
        if kinds and (
            different := next(
                (i for i, v in enumerate(values) if v is not None and type(v) is not kinds[0]), None
            )
        ):
            if {int, float} >= set(kinds):
                values = [None if value is None else float(value) for value in values]
            else:
                kind = type(values[different]).__name__
                message = f"'{key}' is {kind} here, but {kinds[0].__name__} in the rows before"
                raise InputError(
                    message, where=f"{path}, row {different + 1}", remedy="give every row the same type"
                )
        columns[key] = array(values, key, path)
    for key in sorted(present - set(keys)) if OTHERS in optional else ():
        # a column that nobody reads may be of several types, or not UTF-8
        with suppress(TypeError, ValueError, OverflowError):
            pa.array([key])
            columns[key] = pa.array([row.get(key) for row in rows])
    return pa.table(columns)


def array(values: list[Any], key: str, path: Path) -> pa.Array:
    """The values of `key` as an Arrow array; one that can't be read is an error with its row."""
    try:
        return pa.array(values)
    except (ValueError, TypeError, OverflowError) as mixed:
        # half a surrogate pair, more than 64 bits, mixed types
        first = next((value for value in values if value), None)
        for row, value in enumerate(values, 1):
            try:
                pa.array([first, value])
            except (ValueError, TypeError, OverflowError) as error:
                raise InputError(f"'{key}' can't be read: {error}", where=f"{path}, row {row}") from None
        raise InputError(
            f"'{key}' has values of different types: {mixed}",
            where=str(path),
            remedy="give every row the same type",
        ) from None


def objects(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """The objects of a file.

    Raises:
        InputError: none, or a line that is no object.
    """
    return of_text(decode(path, encoding, lenient=True), path)


def of_text(text: str, path: Path) -> list[dict[str, Any]]:
    """`objects` of a text that was read from a file already."""
    rows = _whole(path, text) if path.suffix.lower() == ".json" else None
    rows = _lines(path, text) if rows is None else rows
    if not rows:
        raise InputError("the file is empty", where=str(path), remedy="it needs at least one object")
    return rows


def loads(document: str) -> Any:
    """The value of a JSON text, or of Python literals, as `str` and `print` write them.

    Raises:
        json.JSONDecodeError: it is neither.
    """
    try:
        return reading.loads(document)
    except json.JSONDecodeError as error:
        literal = reading.of_python(document) if error.msg.startswith("Expecting") else None
        if literal is None:
            raise
        try:
            return reading.loads(literal)
        except json.JSONDecodeError:
            raise error from None


def _lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from None
        if not isinstance(row, dict):
            raise InputError(
                f"expected a JSON object, got {type(row).__name__}", where=f"{path}, line {number}"
            )
        rows.append(row)
    return rows


def _whole(path: Path, text: str) -> list[dict[str, Any]] | None:
    """The rows of a file that is one JSON document; None where it must be read line by line."""
    try:
        value = loads(text)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("["):
            return None
        raise InputError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        if len({len(v) for v in value.values()}) > 1:
            raise InputError(
                "the lists have different lengths",
                where=str(path),
                remedy="give each key one value for every row",
            )
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return value if isinstance(value, list) and all(isinstance(row, dict) for row in value) else None
