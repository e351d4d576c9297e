"""The cells of answered rows: what a format can't hold, and what a spreadsheet would run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TextIO

from bert_ft.reading import HALF

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for a formula's beginning."""
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*([eE][-+]?\d+)?%?")


def unwritable(row: dict[str, Any], kind: str) -> str:
    """What of a row can't be written as `kind`, which is no JSON lines."""
    for name, value in row.items():
        if any(HALF.search(text) for text in (name, *_texts(value))):
            return f"'{name}' holds half a surrogate pair, which only jsonl can hold"
        if kind == "parquet" and isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"'{name}' is a whole number of more than 64 bits, which parquet can't hold"
    return ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in chain(value, value.values()) if isinstance(value, dict) else value:
            yield from _texts(item)


class CsvLines:
    """What `csv.writer` writes to with "\\r\\n" as the end of its rows: they end with "\\n" in the stream.

    The writer quotes the characters of its own row end alone. A carriage return in a cell, which readers take
    for the end of a row, would stand bare if that were "\\n".
    """

    END = "\r\n"

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, row: str) -> int:
        return self.stream.write(row.removesuffix(self.END) + "\n")


def without_formula(cell: str) -> str:
    """The cell, with a ' before it where a spreadsheet would run it (OWASP, CSV injection); a number is
    none."""
    if not cell.startswith(FORMULAS) or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def changed(row: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The row with its names and texts changed, and other values as they are."""
    return {change(name): change(value) if isinstance(value, str) else value for name, value in row.items()}
