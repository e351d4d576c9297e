"""A job, and who runs jobs.

A reproduction, the folds of a cross-validation and the trials of a search are jobs: runs to be made, each a
task and a folder. Whether this process makes them, other processes of this machine or a cluster is a runner's
business, and nobody else's.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bert_ft.config.task import Task
from bert_ft.errors import BertFtError
from bert_ft.rundir.folder import RunDir


@dataclass(eq=False)
class Job:
    """A run to be made.

    Attributes:
        task: as it is trained, with its checkpoint, its seed and all settings.
        folder: where the run is left; what came of the job is read from there, whoever ran it.
        argv: the words behind `bert-ft` that make the run in any process; empty where Python objects take
            part, which no command line holds.
        cause: why it failed; empty where it did not.
        node: the machine of a cluster that it was last on; empty: this one.
    """

    task: Task
    folder: RunDir
    argv: list[str] = field(default_factory=list)
    cause: str = ""
    node: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages, and its log: the name of its folder."""
        return self.folder.path.name

    @property
    def state(self) -> str:
        """`failed`, or the state of its folder: `finished`, `unfinished`, `new` or `foreign`."""
        return "failed" if self.cause else self.folder.state

    @property
    def command(self) -> str:
        """The command that makes it, as a shell takes it."""
        return shlex.join(["bert-ft", *self.argv])


class Running(Protocol):
    """A job under way."""

    job: Job
    began: float  # by `time.monotonic`

    def last_line(self) -> str:
        """What it printed last; empty before it printed anything."""
        ...


class Watcher:
    """What is told about jobs while they run; each method does nothing until it is overridden."""

    def started(self, job: Job) -> None:
        """A job has begun."""

    def ended(self, job: Job) -> None:
        """A job is finished, by whichever process, or has failed: then it has a `cause`."""

    def look(self, running: Sequence[Running]) -> None:
        """Called a few times a second while jobs run."""


class Runner(Protocol):
    """Who runs jobs. One that fails leaves its `cause`, and the others go on."""

    def run(self, jobs: Sequence[Job], watcher: Watcher | None = None) -> None:
        """Makes every run that is not finished, and returns once all have ended."""
        ...


class RunsFailed(BertFtError):
    """Some of the runs that a result is made of have failed (exit code 1)."""


def refuse_failed(jobs: Sequence[Job]) -> None:
    """Raises RunsFailed where some of the jobs have failed: the causes, which may be of several lines."""
    failed = [job for job in jobs if job.cause]
    if failed:
        raise RunsFailed(
            f"{len(failed)} of {len(jobs)} runs failed",
            details=[line for job in failed for line in f"{job.name}: {job.cause}".splitlines()],
            remedy="the same command again makes those that are missing",
        )
