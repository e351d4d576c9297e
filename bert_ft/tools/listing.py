"""The runs below a folder, one row each, and how far those come that are being trained."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.errors import InputError
from bert_ft.rundir import lease
from bert_ft.rundir.folder import RunDir

COLUMNS = ("run", "task", "checkpoint", "seed", "state", "metric", "value", "seconds")
STATES = ("finished", "unfinished", "unreadable")


class Runs:
    """The runs below a folder, as often as they are asked for: a finished one is read once.

    Args:
        told: takes the lines of what can't be read.
    """

    def __init__(self, folder: str, told: Callable[..., None]) -> None:
        self.folder = reading.path(folder)
        self.told = told
        self.finished: dict[Path, dict[str, Any]] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A dict of `COLUMNS` for each run, in the order of their paths."""
        # what is deleted meanwhile is left out; `rglob` would fail at it
        folders = (Path(place) for place, _, names in os.walk(self.folder) if "task.toml" in names)
        for folder in sorted(folders):
            with suppress(FileNotFoundError):
                if (row := self._row(RunDir(folder))) is not None:
                    yield row

    def _row(self, run: RunDir) -> dict[str, Any] | None:
        state = run.state
        if state == "foreign" and not (run.results_json.exists() or run.environment_json.exists()):
            return None  # a task file in a project's folder
        if state == "finished" and run.path in self.finished:
            return self.finished[run.path]
        row = self._read(run)
        return row if run.task_toml.exists() else None

    def _read(self, run: RunDir) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"run": str(run.path), "state": "unreadable"}
        try:
            spec = run.task()
            row |= {"task": spec.name, "checkpoint": spec.run.checkpoint, "seed": spec.run.seed}
            if (state := run.state) == "finished":
                results, (name, metric) = run.results(), spec.best_metric
                row |= {
                    "seed": results.get("seed", spec.run.seed),
                    "metric": f"{name}/{metric}",
                    "value": results["metrics"].get(name, {}).get(metric),
                    "seconds": results.get("timing", {}).get("train_seconds"),
                }
                self.finished[run.path] = row
            row["state"] = "unreadable" if state == "foreign" else state
        except InputError as error:
            if run.task_toml.exists():
                self.told(*error.lines)
        return row


def chosen(
    rows: Sequence[dict[str, Any]], sort: str, task: str | None, checkpoint: str | None, state: str | None
) -> list[dict[str, Any]]:
    """The rows of a task, whose checkpoint's name holds `checkpoint`, in a state; sorted by a column, of
    values the highest first, rows without one last."""
    kept = [
        row
        for row in rows
        if task in (None, row["task"])
        and state in (None, row["state"])
        and (checkpoint or "") in (row["checkpoint"] or "")
    ]
    sortable = [row for row in kept if row[sort] is not None]
    sortable.sort(key=itemgetter(sort), reverse=sort == "value")
    return sortable + [row for row in kept if row[sort] is None]


def course(path: str) -> str:
    """How far an unfinished run has come and who trains it: "epoch 1.20 of 3, loss 0.3126, about 2 min left,
    process 7 on node3"."""
    run = RunDir(path)
    try:
        log, epochs = run.log(), run.task().recipe.epochs
    except InputError:  # it is being begun, or is told as unreadable
        log, epochs = [], None
    parts = []
    busy = run.busy
    if log and "epoch" in (last := log[-1]):
        parts.append(f"epoch {last['epoch']:.2f}" + (f" of {epochs:g}" if epochs else ""))
        if losses := [entry["loss"] for entry in log if "loss" in entry]:
            parts.append(f"loss {losses[-1]:.4f}")
        if busy and epochs and last["epoch"] > 0 and "seconds" in last:
            left = last["seconds"] * max(0.0, epochs / last["epoch"] - 1)
            parts.append("about " + (f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s") + " left")
    if not busy:
        parts.append("nobody works on it")
    elif lease.alive(run.path):
        parts.append(lease.holder(run.path))
    return ", ".join(parts) or "begun"


def watch(
    look: Callable[[], list[dict[str, Any]]], show: Callable[[list[dict[str, Any]]], None], seconds: float
) -> None:
    """Shows again and again what is there, those that are trained first, until nothing is unfinished that
    was; ends at Ctrl-C, too.

    Args:
        look: returns the rows of now.
        show: takes them, each with its `course`.
    """
    began = False
    while True:
        rows = look()
        open_ones = [row for row in rows if row["state"] == "unfinished"]
        rest = [row for row in rows if row["state"] != "unfinished"]
        show(
            [row | {"course": course(row["run"])} for row in open_ones]
            + [row | {"course": ""} for row in rest]
        )
        began = began or bool(open_ones)
        if began and not open_ones:
            return
        time.sleep(seconds)
