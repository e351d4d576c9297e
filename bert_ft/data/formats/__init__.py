"""One file a format: each turns a file into a `pyarrow.Table`, or says which row of it is at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bert_ft.errors import InputError, did_you_mean

OTHERS = "*"  # among the optional columns: every column that nobody asked for


def chosen(columns: Sequence[str], wanted: Sequence[str], optional: Sequence[str], where: str) -> list[str]:
    """The wanted columns that are there; with `OTHERS`, then all others whose name is theirs alone.

    Raises:
        InputError: a wanted column that is doubled, or missing and not optional.
    """
    counts = Counter(columns)
    for column in wanted:
        if counts[column] > 1:
            raise InputError(f"two columns are called '{column}'", where=where, remedy="rename one of them")
        if not counts[column] and column not in optional:
            raise InputError(f"no column '{column}'", where=where, remedy=did_you_mean(column, columns))
    others = [column for column, count in counts.items() if count == 1] if OTHERS in optional else []
    return [column for column in dict.fromkeys([*wanted, *others]) if counts[column]]


def distinct(columns: Sequence[str]) -> list[str]:
    """The names in their order, each once: one that was there before has its place behind it, "name (3)"."""
    counts, seen = Counter(columns), set[str]()
    out = []
    for place, name in enumerate(columns, 1):
        if name in seen:
            name = f"{name} ({place})"
            while counts[name] or name in seen:
                name += " "
        seen.add(name)
        out.append(name)
    return out
