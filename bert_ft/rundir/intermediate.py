"""Training on another task first (`run.intermediate`): which run that is, and where it lies."""

from __future__ import annotations

from bert_ft.config import families
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir

REMEDY = "train it in a command of its own, and give its run as the checkpoint"
"""What helps where that run can't be made beside the other one."""
HOW = ("check", "quiet", "signals", "save_every")
"""How both runs are carried out alike."""


def first(task: Task, folder: RunDir) -> tuple[Task, RunDir] | None:
    """The run that a task's checkpoint is trained in first, by that other task's own recipe and seed, and its
    folder beside `folder`, which all runs that begin with it share; None where the task names none.

    Raises:
        InputError: there is no such task, or it is the task itself.
    """
    name = task.run.intermediate
    if name is None:
        return None
    if name in families.names():
        raise InputError(
            f"'{name}' is a family, not a task",
            where="run.intermediate",
            remedy="`bert-ft tasks` lists the tasks; a .toml file of your own works too",
        )
    base = load_task(name)
    if base.name == task.name:
        remedy = (
            f"name another one, or leave it out; if it is another, its name is not to be '{base.name}', too"
        )
        raise InputError(f"'{name}' is the task itself", where="run.intermediate", remedy=remedy)
    if base.run.intermediate is not None:
        raise InputError(
            f"'{name}' has a task that comes first itself: {base.run.intermediate}",
            where="run.intermediate",
            remedy=f"train {name} in a command of its own, and give its run as the checkpoint",
        )
    keys = {f"run.{key}": getattr(task.run, key) for key in ("checkpoint", "revision", "data_dir")}
    keys |= {f"execution.{key}": getattr(task.execution, key) for key in HOW}
    precision = {} if task.recipe.precision == "auto" else {"recipe.precision": task.recipe.precision}
    bound = base.override(keys | precision)
    place = RunDir(folder.path.parent / naming.run_name(base, bound, precision))
    if place.path.resolve() == folder.path.resolve():
        raise InputError(
            f"this is the folder of the run on {base.name} that comes first",
            where=str(folder.path),
            remedy="choose another place with --output DIR",
        )
    return bound, place


def after(task: Task, folder: RunDir) -> Task:
    """The task as it is trained once that run is there: its checkpoint is the run."""
    found = first(task, folder)
    if found is None:
        return task
    return task.override(
        {"run.checkpoint": str(found[1].path), "run.revision": None, "run.intermediate": None}
    )
