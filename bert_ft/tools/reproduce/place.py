"""The folder of a reproduction: what is written there, and what else may lie in its place."""

from __future__ import annotations

import json
from pathlib import Path

from bert_ft import files
from bert_ft.errors import InputError

OWN = ("results.json", "table.md", "page.html")  # what an outcome writes; the first is written first


def refuse_others(folder: Path) -> None:
    """Leaves alone a folder whose results.json, table.md or page.html are not of a reproduction, or are
    links."""
    for name in (*OWN, "logs"):
        files.refuse_link(folder / name)
    if not any((folder / name).exists() for name in OWN):
        return
    try:
        value = json.loads((folder / OWN[0]).read_bytes())
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "verdicts" not in value:
        raise InputError(
            "something that is no reproduction lies here, and is left alone",
            where=str(folder),
            remedy="choose another place with --output DIR; or, if it was one and is damaged, remove "
            f"{', '.join(OWN)}: the runs beside them are collected again",
        )
