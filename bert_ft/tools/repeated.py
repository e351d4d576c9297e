"""What tools that train one task many times have in common: what they take for each run, and what they
refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config.schema import Execution
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.jobs import remote
from bert_ft.jobs.base import Job
from bert_ft.jobs.local import InProcess
from bert_ft.modeling import remote_code

OBJECTS = {"adapter", "loss", "metrics", "callbacks", "tokenizer", "model", "test", "trust_remote_code"}
"""What `finetune` takes beside the task, its sets and keys of the task."""
REFUSED = {"model", "test", "overwrite", "resume", "save_model", "baselines"}
"""Arguments of `finetune` that make no sense for many runs."""


def refuse_launched(tool: str, remedy: str) -> None:
    """Refuses processes that a launcher (torchrun, accelerate) started to train one run together."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("each of its runs is trained by one process", where=tool, remedy=remedy)


def options(settings: dict[str, Any], tool: str, remedy: str) -> dict[str, Any]:
    """Takes out of the settings what `finetune` takes for each run that is no key of what is learned: the
    user's objects, and how a run is carried out, with or without the name of its table.

    Raises:
        InputError: one that makes no sense for many runs, with what is to be done instead.
    """
    result = {}
    for key in [*settings]:
        name = key.removeprefix("execution.")
        if name in OBJECTS or name in Execution.model_fields:
            result[name] = settings.pop(key)
    for name in sorted(result.keys() & REFUSED):
        raise InputError(f"`{name}` is not for a {tool}", where=tool, remedy=remedy)
    return result


def execution(options: dict[str, Any]) -> Execution:
    """How the runs are carried out, as `options` says it. What is the caller's alone, where they are made, is
    taken out of it."""
    result = Execution(**{key: value for key, value in options.items() if key in Execution.model_fields})
    for key in ("on", "per_run"):
        options.pop(key, None)
    return result


def objects(options: Mapping[str, Any], rows: Mapping[str, Any]) -> list[Any]:
    """The user's Python objects that take part; arguments as of `run_remote`."""
    return [rows, *(options[name] for name in OBJECTS & options.keys() - {"trust_remote_code"})]


def run_remote(
    jobs: Sequence[Job],
    logs: Path,
    execution: Execution,
    here: InProcess,
    options: Mapping[str, Any],
    rows: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Makes the runs of jobs on the cluster that `execution.on` names: without models and baselines, the data
    being checked by the first. Errors as of `jobs.remote.run`.

    Args:
        options: as `options` returns them. rows: set name -> rows, of the sets that are Python objects.
    """
    own = {f"execution.{key}": value for key, value in remote_execution(execution).items()}
    for job in jobs:
        first = job is jobs[0]
        job.task = job.task.override({**own, "execution.check": first and job.task.execution.check})
    trusted = remote_code.names(options.get("trust_remote_code"))
    remote.run(jobs, logs, execution, here, say, trusted, objects(options, rows))


def remote_execution(execution: Execution) -> dict[str, Any]:
    """How a run of many is carried out: as the caller says, without a model and without baselines."""
    own = execution.model_dump(exclude=remote.DRIVER, exclude_defaults=True)
    return {**own, "save_model": False, "baselines": False}


def without_tests(task: Task) -> Task:
    """The task that each run trains: without test sets, which are left alone, and nothing left to search."""
    changes: dict[str, Any] = {"data.test": None, "recipe.search": {}}
    if task.data.original:
        changes["data.original.test"] = None
    return task.override(changes)


def refuse_others(folder: Path, own: Sequence[str], key: str, what: str) -> None:
    """Leaves alone a folder whose files of these names are not ours, or are links.

    Args:
        own: the files, the first of which is written first and is JSON with this `key`.
        what: what they are of, in words.
    """
    for name in own:
        files.refuse_link(folder / name)
    if not any((folder / name).exists() for name in own):
        return
    try:
        value = json.loads((folder / own[0]).read_bytes())
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or key not in value:
        raise InputError(
            f"something that is no {what} lies here, and is left alone",
            where=str(folder),
            remedy="choose another place with --output DIR; or, if it was one and is damaged, remove "
            f"{', '.join(own)}: the runs beside them are collected again",
        )
