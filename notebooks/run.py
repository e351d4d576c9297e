"""Executes the notebooks and leaves them clean: `python notebooks/run.py [--check] [NOTEBOOK ...]`.

Outputs are kept, but nothing of the machine: no absolute path, no times. A notebook has a cell tagged `headline` that ends
with a flat dict of its numbers; `--check` writes nothing and compares them with the committed ones: whole numbers exactly,
fractions to 0.05 and percentages to 5, since a training carries on what another machine rounds otherwise.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.05  # of a fraction; 5 of what lies above 1
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(path: Path) -> NotebookNode:
    """The notebook with its outputs as its cells give them now, cleaned. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    # without ipywidgets tqdm warns once that it has no bar to show, whoever imports it first
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        client = NotebookClient(notebook, timeout=1800, record_timing=False, coalesce_streams=True,
                                resources={"metadata": {"path": str(path.parent)}})  # fmt: skip
        client.execute(env={**os.environ, **quiet, "TMPDIR": scratch})
        return clean(notebook, Path(scratch))


def clean(notebook: NotebookNode, scratch: Path) -> NotebookNode:
    """Without metadata of the execution, and with paths below the checkout and below `scratch` as relative ones; without
    what differs each time (addresses of objects, dates of pictures) and what colours a terminal."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    folders = {HERE.parent, (HERE.parent / ".demo").resolve().parent, scratch, scratch.resolve()}
    paths = [rf"{re.escape(str(folder))}(?:/tmp\w+)?/?" for folder in sorted(folders, reverse=True)]
    ours = re.compile(
        "|".join([*paths, r"\x1b\[[\d;]*m", r" at 0x[0-9a-f]+", r"<metadata>[\s\S]*?</metadata>\s*"])
    )

    def relative(value: object) -> object:
        if isinstance(value, str):
            return ours.sub("", value)
        if isinstance(value, dict):
            return NotebookNode({key: relative(item) for key, item in value.items()})
        return [relative(item) for item in value] if isinstance(value, list) else value

    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type == "code":
            cell.outputs = [NotebookNode(relative(output)) for output in cell.outputs]
    return notebook


def headline(notebook: NotebookNode) -> dict[str, float]:
    """The numbers of the cell tagged `headline`."""
    (cell,) = [cell for cell in notebook.cells if "headline" in cell.metadata.get("tags", [])]
    (shown,) = [output for output in cell.outputs if output.output_type == "execute_result"]
    found: dict[str, float] = ast.literal_eval(shown.data["text/plain"])
    return found


def stale(committed: dict[str, float], now: dict[str, float]) -> list[str]:
    """A line for each number that is no longer what is committed."""

    def differ(a: float | None, b: float | None) -> bool:
        if not (isinstance(a, float) and isinstance(b, float)):
            return a != b
        return abs(a - b) > TOLERANCE * (100 if max(abs(a), abs(b)) > 1 else 1)

    keys = dict.fromkeys([*committed, *now])
    return [
        f"{k}: committed {committed.get(k)}, now {now.get(k)}"
        for k in keys
        if differ(committed.get(k), now.get(k))
    ]


def main(arguments: list[str] | None = None) -> int:
    """1 where `--check` found a number that is stale."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare the headline numbers, write nothing")
    parser.add_argument(
        "notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="all of this folder by default"
    )
    given = parser.parse_args(arguments)
    wrong = 0
    for path in given.notebooks or sorted(HERE.glob("*.ipynb")):
        began = time.monotonic()
        notebook = execute(path)
        told = stale(headline(nbformat.read(path, as_version=4)), headline(notebook)) if given.check else []
        if not given.check:
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s", *told, sep="\n    ")
        wrong += bool(told)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
