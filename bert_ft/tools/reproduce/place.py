"""The folder of a reproduction: what is written there, and what else may lie in its place."""

from __future__ import annotations

from pathlib import Path

from bert_ft import files
from bert_ft.tools import repeated

OWN = ("results.json", "table.md", "page.html")  # what an outcome writes; the first is written first


def refuse_others(folder: Path) -> None:
    """Leaves alone a folder whose results.json, table.md or page.html are not of a reproduction, or are
    links."""
    files.refuse_link(folder / "logs")
    repeated.refuse_others(folder, OWN, "verdicts", "reproduction")
