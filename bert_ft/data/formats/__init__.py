"""One file a format: each turns a file into a `pyarrow.Table`, or says which row of it is at fault."""

from __future__ import annotations

from collections.abc import Sequence

OTHERS = "*"  # among the optional columns: every column that nobody asked for


def chosen(columns: Sequence[str], wanted: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The wanted columns that are there; with `OTHERS`, then all others whose name is theirs alone."""
    others = [column for column in columns if columns.count(column) == 1] if OTHERS in optional else []
    return [column for column in dict.fromkeys([*wanted, *others]) if column in columns]
