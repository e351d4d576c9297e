"""Training on another task first (`run.intermediate`): which run that is, and where it lies."""

from __future__ import annotations

from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir


def first(task: Task, folder: RunDir) -> tuple[Task, RunDir] | None:
    """The run that a task's checkpoint is trained in first, by that other task's own recipe and seed, and its
    folder beside `folder`, which all runs that begin with it share; None where the task names none.

    Raises:
        InputError: there is no such task, or it is the task itself.
    """
    name = task.run.intermediate
    if name is None:
        return None
    base = load_task(name)
    if base.name == task.name:
        raise InputError(
            f"'{name}' is the task itself",
            where="run.intermediate",
            remedy="name another one, or leave it out",
        )
    keys = {f"run.{key}": getattr(task.run, key) for key in ("checkpoint", "revision", "data_dir")}
    keys |= {f"batching.{key}": value for key, value in task.batching.model_dump().items()}
    keys |= {
        f"execution.{key}": getattr(task.execution, key)
        for key in ("check", "quiet", "signals", "save_every")
    }
    bound = base.override(keys | {"recipe.precision": task.recipe.precision})
    return bound, RunDir(folder.path.parent / naming.run_name(base, bound, {}))


def after(task: Task, folder: RunDir) -> Task:
    """The task as it is trained once that run is there: its checkpoint is the run."""
    found = first(task, folder)
    if found is None:
        return task
    return task.override(
        {"run.checkpoint": str(found[1].path), "run.revision": None, "run.intermediate": None}
    )
