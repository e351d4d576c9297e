"""The runs of one result on a cluster: each job becomes a command on a task file, and what fails is told once
all have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import tomli_w

from bert_ft import files
from bert_ft.config.schema import Execution
from bert_ft.display import table_of
from bert_ft.errors import disk
from bert_ft.jobs.base import Job, Watcher, refuse_failed
from bert_ft.jobs.cluster import Cluster, Connection
from bert_ft.jobs.local import InProcess
from bert_ft.jobs.needs import needs
from bert_ft.modeling import contradictions

DRIVER = {"on", "per_run", "quiet", *Execution.CALL_ONLY}
"""Keys of `[execution]` that are the caller's, and no run's."""


def connected(execution: Execution, logs: Path) -> AbstractContextManager[Connection]:
    """A connection to the cluster that `execution.on` names, over which jobs are run.

    Args:
        logs: as of `jobs.local.Processes`.
    Raises:
        InputError: as `jobs.ray.connect`, or what a run is to ask for can't be read.
    """
    assert execution.on is not None
    return Cluster(execution.on, logs, needs(execution.per_run), execution.signals).connected()


def run(
    jobs: Sequence[Job],
    logs: Path,
    execution: Execution,
    here: InProcess,
    say: Callable[[str], None],
    trusted: Iterable[str] = (),
    objects: Iterable[Any] = (),
) -> None:
    """Makes the runs of jobs: on the cluster that `execution.on` names, or in this process where it names
    none.

    Args:
        logs: the folder for their task files, and for what they print.
        execution: of the caller; how each run is carried out, its own task says.
        here: makes them in this process. What is finished already it finds to be so, or to be another run.
        trusted: whose own code may run. objects: Python objects of the user that take part, if any.
    Raises:
        InputError: Python objects take part; or as `Cluster`. RunsFailed: some failed, and the others ended.
    """
    if execution.on is None:
        here.run(jobs)
        return
    contradictions.refuse_objects(objects)
    for job in jobs:
        job.argv = command(job, logs, trusted)
        if execution.overwrite and job.folder.state != "new":
            with job.folder.lock():
                job.folder.remove()
    here.run([job for job in jobs if job.folder.state == "finished"])
    with connected(execution, logs) as connection:
        if not connection.room:
            say(f"{connection}: none of its nodes has what a run asks for, and one that does is waited for")
        connection.run(jobs, Lines(say, len(jobs)))
    refuse_failed(jobs)


def command(job: Job, logs: Path, trusted: Iterable[str] = ()) -> list[str]:
    """The words behind `bert-ft` that make a job's run on any machine: training from a task file below
    `logs`. The paths of its data and of its checkpoint are absolute."""
    task = job.task
    tree = task.dump()
    execution = task.execution.model_dump(exclude=DRIVER, exclude_defaults=True)
    if execution:
        tree["execution"] = execution
    file = logs.absolute() / f"{job.name}.toml"
    with disk(logs):
        files.write(file, tomli_w.dumps(tree))
    words = ["train", str(file), "--output", str(job.folder.path.absolute())]
    for name in trusted:
        words += ["--trust-remote-code", name]
    return words


class Lines(Watcher):
    """A line for each run that starts, and for each that ends."""

    def __init__(self, say: Callable[[str], None], total: int) -> None:
        self.say, self.total, self.ended_runs = say, total, 0

    def started(self, job: Job) -> None:
        self.say(f"{job.name}: started on {job.node}")

    def ended(self, job: Job) -> None:
        self.ended_runs += 1
        result = f"failed: {job.cause}" if job.cause else table_of(job.folder.results()["metrics"])
        self.say(f"{job.name}: {result}  ({self.ended_runs} of {self.total} runs)")
