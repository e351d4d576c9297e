"""Vectors to a file as they come: `.npy`, Parquet, Arrow or JSON lines, whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from bert_ft import files, reading
from bert_ft.errors import InputError, did_you_mean, disk
from bert_ft.tools.predict.writers import printable, table_of, write_tables

FORMATS = ("npy", "parquet", "arrow", "jsonl")
DTYPES = ("float32", "float16", "int8")
DIGITS = {"float32": 9, "float16": 5}  # that tell a number from its neighbours


class Block(NamedTuple):
    """Some rows with their vectors.

    Attributes:
        rows: what stands beside the vectors. vectors: (N, D) float32. valid: (N,) whether the row has one.
    """

    rows: Sequence[dict[str, Any]]
    vectors: np.ndarray
    valid: np.ndarray


def format_of(target: str, given: str | None) -> str:
    """The format of the output: the given one, or what its suffix says; jsonl for standard output.

    Raises:
        InputError: one that is not known, or that standard output can't be.
    """
    if given is None:
        suffix = Path(target).suffix.lower().lstrip(".")
        given = {"": "jsonl", "json": "jsonl"}.get(suffix, suffix)
    if given not in FORMATS:
        raise InputError(
            f"vectors can't be written as '{given}'", where=target, remedy=did_you_mean(given, FORMATS)
        )
    if target == "-" and given != "jsonl":
        raise InputError(f"{given} can't be written to standard output", remedy="name a file with --output")
    return given


def stored(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Vectors in the type that they are stored in; of int8 also what each has to be multiplied by, (N,)
    float32: its largest number is 127 or -127, so that directions stay and lengths do not."""
    if dtype != "int8":
        return vectors.astype(dtype), None
    largest = np.abs(vectors).max(axis=1, initial=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


@contextmanager
def writing(target: str, kind: str, dtype: str, size: int) -> Iterator[Callable[[Iterator[Block]], None]]:
    """A function that writes all blocks, of vectors of `size` numbers."""
    if target == "-":
        yield lambda blocks: _write_jsonl(sys.stdout, blocks, dtype)
        sys.stdout.flush()
        return
    with disk(Path(target)), files.beside(Path(target)) as temporary:
        if kind == "npy":
            yield lambda blocks: _write_npy(temporary, blocks, dtype, size)
        elif kind == "jsonl":
            with temporary.open("w", encoding="utf-8") as stream:
                yield lambda blocks: _write_jsonl(stream, blocks, dtype)
        else:
            yield lambda blocks: write_tables(temporary, _tables(blocks, dtype, size), target, kind)


def _write_npy(path: Path, blocks: Iterator[Block], dtype: str, size: int) -> None:
    """An array of all rows, whose number is only known at the end: NumPy's header leaves room for it."""

    def header(rows: int) -> None:
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (rows, size)}
        np.lib.format.write_array_header_1_0(stream, described)

    rows = 0
    with path.open("r+b") as stream:
        header(0)
        for block in blocks:
            stream.write(np.ascontiguousarray(stored(block.vectors, dtype)[0]).data)
            rows += len(block.vectors)
        stream.seek(0)
        header(rows)


def _tables(blocks: Iterator[Block], dtype: str, size: int) -> Iterator[Any]:
    import pyarrow as pa

    written = False
    for block in blocks:
        if not block.rows:
            continue
        written = True
        vectors, scale = stored(block.vectors, dtype)
        missing = pa.array(~block.valid)
        flat = pa.array(vectors.ravel())
        table = table_of(block.rows).append_column(
            "vector", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=missing)
        )
        if scale is not None:
            table = table.append_column("scale", pa.array(scale, mask=~block.valid))
        yield table
    if not written:
        empty = pa.array([], pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), size))
        yield pa.table({"vector": empty} | ({"scale": pa.array([], pa.float32())} if dtype == "int8" else {}))


def _write_jsonl(stream: TextIO, blocks: Iterator[Block], dtype: str) -> None:
    for block in blocks:
        vectors, scale = stored(block.vectors, dtype)
        for number, row in enumerate(block.rows):
            own: dict[str, Any] = {"vector": None}
            if block.valid[number]:
                own["vector"] = _numbers(vectors[number], dtype)
                if scale is not None:
                    own["scale"] = _numbers(scale[number : number + 1], "float32")[0]
            stream.write(reading.dumps(printable(row) | own) + "\n")


def _numbers(vector: np.ndarray, dtype: str) -> list[Any]:
    """A vector's numbers, with as many digits as their type has."""
    numbers: list[Any] = vector.tolist()
    if dtype == "int8":
        return numbers
    return [float(f"{value:.{DIGITS[dtype]}g}") for value in numbers]
