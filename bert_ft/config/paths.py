"""The paths in a task's `[data]`: relative ones start at the file that names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.errors import InputError

LONGEST_FILE = 10_000_000  # bytes of a task file, or of a list of label names


def anchor(data: Any, folder: Path, by: Path | None = None) -> None:
    """Makes the local paths of a `[data]` table absolute: relative ones start at `folder`. Where the rows lie
    is for whoever wrote the table to say; label names that a file (`by`) does not have itself are read beside
    it alone."""

    def absolute(path: str) -> str:
        # a link is read by its own name, whose suffix says what it is
        return path if "\0" in path else os.path.abspath(folder / reading.path(path))

    def file(split: Any) -> Any:
        if not isinstance(split, str) or not Path(split).suffix:
            return split
        parts = [split] if _exists(folder / split) else split.split("+")
        return "+".join(map(absolute, parts))

    if not isinstance(data, dict):
        return
    for table in (data, data.get("original")):
        if isinstance(table, dict) and isinstance(names := table.get("label_names"), str):
            file_ = (
                reading.inside(names, folder, f"{by}, data.label_names")
                if by
                else reading.path(names, "data.label_names")
            )
            table["label_names"] = _lines(file_)
    if isinstance(without := data.get("without"), (str, Path)):
        data["without"] = absolute(str(without))
    if isinstance(path := data.get("path"), str):
        reading.refuse_address(path)
        data["path"] = absolute(path) if path.startswith((".", "/", "~")) or _exists(folder / path) else path
        return  # the splits are below it
    for key in data.keys() & {"train", "evaluate", "test"}:
        sets = data[key]
        data[key] = (
            {name: file(split) for name, split in sets.items()} if isinstance(sets, dict) else file(sets)
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can have this name
        return False


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in reading.text(path, LONGEST_FILE).rstrip().splitlines()]
    except InputError as error:
        raise InputError(
            f"no list of label names: {error.where}: {error.message}",
            where="data.label_names",
            remedy="a name a line",
        ) from None
