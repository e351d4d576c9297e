"""`bert-ft runs`: list the runs below a folder, or watch them."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from bert_ft.cli.options import Json, app, note, print_json, print_table, table

WATCHED = 2  # seconds between two looks
SHOWN = ("run", "seed", "state", "metric", "value", "course")  # of a run that is watched


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the run folders lie.")] = "runs",
    sort: Annotated[str, typer.Option(help="Column to sort by; of values the highest first.")] = "run",
    task: Annotated[str | None, typer.Option(help="Only the runs of this task.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Only the runs whose checkpoint's name holds this.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only finished, unfinished or unreadable ones.")] = None,
    watch: Annotated[
        bool, typer.Option(help="Show them anew while any is trained: how far it is, and on which machine.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the runs below a folder with their metrics.

    \b
    bert-ft runs --task mrpc --state finished --sort value
    bert-ft runs /shared/suite --watch
    """
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.tools import listing

    options = (("--sort", sort, listing.COLUMNS), ("--state", state or "finished", listing.STATES))
    for option, given, valid in options:
        if given not in valid:
            raise InputError(f"there is no '{given}'", where=option, remedy=did_you_mean(given, valid))
    if watch:
        return _watch(folder, sort, task, checkpoint, state, as_json)
    everything = list(listing.Runs(folder, note).rows())
    rows = listing.chosen(everything, sort, task, checkpoint, state)
    if as_json:
        print_json(rows)
    elif rows:
        print_table([_cells(row) for row in rows])
    elif everything:
        note(f"none of {len(everything)} runs below {folder} is of that kind")
    else:
        note(f"no runs below {folder}; `bert-ft train` makes one")


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {key: "" if v is None else f"{v:.4f}" if key == "value" else str(v) for key, v in row.items()}


def _watch(
    folder: str, sort: str, task: str | None, checkpoint: str | None, state: str | None, as_json: bool
) -> None:
    from rich.console import Console
    from rich.live import Live

    from bert_ft.errors import InputError
    from bert_ft.tools import listing

    if as_json or not sys.stdout.isatty():
        raise InputError(
            "runs are watched on a terminal", where="--watch", remedy="leave it out to list them once"
        )
    said: list[str] = []  # while a region of the terminal is written over
    found = listing.Runs(folder, lambda *lines: said.extend(lines))
    region = Live(console=Console(), auto_refresh=False, vertical_overflow="ellipsis")

    def look() -> list[dict[str, Any]]:
        return listing.chosen(list(found.rows()), sort, task, checkpoint, state)

    def show(rows: list[dict[str, Any]]) -> None:
        cells = [{key: _cells(row)[key] for key in SHOWN} for row in rows]
        region.update(table(cells or [{"run": f"no runs below {folder} yet"}]))
        region.refresh()

    with suppress(KeyboardInterrupt), region:  # how one leaves it
        listing.watch(look, show, WATCHED)
    note(*dict.fromkeys(said))
