"""The answers of each evaluation, kept while a run goes on: how far the choice of the best one leans is
estimated from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bert_ft import files
from bert_ft.errors import disk
from bert_ft.rundir.folder import RunDir


def _file(folder: RunDir, number: int) -> Path:
    return folder.checkpoints / f"evaluation-{number}.npz"


def count(folder: RunDir) -> int:
    """How many evaluations the log has: those that a resumed run repeats are cut off it."""
    return sum("evaluation" in entry for entry in folder.log())


def keep(folder: RunDir, number: int, columns: Mapping[str, np.ndarray]) -> None:
    """Keeps columns of the predictions of evaluation `number`, the first being 0, in place of what an
    interrupted run left under that number."""
    with disk(folder.checkpoints):
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        with files.beside(_file(folder, number)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **columns)  # type: ignore[arg-type]


def kept(folder: RunDir, number: int) -> list[dict[str, np.ndarray]]:
    """The columns of the first `number` evaluations; empty where one of them is missing."""
    places = [_file(folder, each) for each in range(number)]
    if not all(place.is_file() for place in places):
        return []
    found = []
    for place in places:
        with np.load(place, allow_pickle=False) as columns:
            found.append({name: columns[name] for name in columns.files})
    return found


def drop(folder: RunDir) -> None:
    """Deletes them all."""
    for place in folder.checkpoints.glob("evaluation-*.npz"):
        place.unlink()


def logged(folder: RunDir, step: int) -> dict[str, dict[str, float | None]]:
    """Set name -> metric -> value of the evaluation after `step`, as logged; empty where there was none."""
    found = [line["evaluation"] for line in folder.log() if "evaluation" in line and line["step"] == step]
    return found[-1] if found else {}
