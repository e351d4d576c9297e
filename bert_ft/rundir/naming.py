"""The names of run folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft.config.recipe import Recipe
from bert_ft.config.task import Task
from bert_ft.rundir.folder import RunDir


def run_name(base: Task, task: Task, settings: Mapping[str, Any]) -> str:
    """`<task>-<checkpoint>[-changed keys]-seed<k>`."""
    leaves = dict[str, Any]()
    for key, value in sorted(settings.items()):
        table, _, leaf = key.rpartition(".")
        if leaf == "without":
            value = Path(str(value)).stem
        if table.endswith("lora"):
            leaves[f"lora.{leaf}"] = value
        elif leaf == "lora" and isinstance(value, Mapping):
            leaves |= {f"lora.{part}": part_value for part, part_value in value.items()}
            leaves |= {} if value else {"lora": "default"}
        else:
            leaves[leaf] = value
    changes = [
        f"{leaf}={value}"
        for leaf, value in leaves.items()
        if leaf.partition(".")[0] in {*Recipe.model_fields, "limit_train", "without", "intermediate"}
    ]
    if task.run.folds:
        changes.append(f"folds={task.run.folds}")
    parts = [base.name, short_name(task.run.checkpoint or "model"), *changes]
    name = "-".join(map(clean, parts))
    if len(name) > 180:
        name = f"{name[:170]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name}-seed{task.run.seed}"


def clean(part: str) -> str:
    """A name (of a task, a checkpoint, a file) as a part of a folder's name: of letters, digits and "._=+-"
    alone."""
    return "".join(c if c.isalnum() or c in "._=+-" else "_" for c in part)


def short_name(checkpoint: str) -> str:
    """The part of a checkpoint's name that goes into a run's name."""
    path = Path(checkpoint).expanduser()
    return path.resolve().name if path.is_dir() else checkpoint.rpartition("/")[2]


def numbered(folder: RunDir, resume: bool = False) -> RunDir:
    """The folder, or the first free `<name>-2`, `<name>-3`, ...: a notebook's cell never runs into its own
    past, unless it is to be resumed: then the last one that is there."""
    number = 2
    first = before = folder
    while folder.state != "new":
        before = folder
        folder = RunDir(first.path.with_name(f"{first.path.name}-{number}"))
        number += 1
    return before if resume else folder
