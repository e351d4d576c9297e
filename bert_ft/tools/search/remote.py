"""The trials of a search on a cluster: this process draws the recipes, in as many threads as there is room
for runs, and hears of each evaluation through the run's own log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from bert_ft import display
from bert_ft.engine.checkpoints import Interrupted
from bert_ft.errors import InputError
from bert_ft.jobs import local, remote
from bert_ft.jobs.base import Job, Running, Watcher, refuse_failed
from bert_ft.jobs.cluster import Connection, Remote
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.search.study import Trial

PAUSE = 0.2  # seconds between two looks at the threads


class Trainer:
    """Makes the runs of trials over a connection.

    Args:
        logs: as of `jobs.local.Processes`. trusted: whose own code may run. show: what a person sees.
    """

    def __init__(
        self, connection: Connection, logs: Path, trusted: Sequence[str], show: display.Display
    ) -> None:
        self.connection, self.logs, self.trusted, self.show = connection, logs, trusted, show
        self.under_way = display.UnderWay(None)

    def train(self, job: Job, trial: Trial) -> None:
        """Makes the run of a trial.

        Raises:
            TrialPruned: the study gave it up. Interrupted: this command was ended. RunsFailed: it failed.
        """
        if not trial.again and job.folder.state != "new":
            with job.folder.lock():
                job.folder.remove()
        job.argv = remote.command(job, self.logs, self.trusted)
        reports = Reports(job, trial, self.show, self.under_way)
        try:
            self.connection.run([job], reports)
        finally:
            self.under_way.ended(job.name)
        reports.read()
        if reports.pruned:
            raise optuna.TrialPruned
        if self.connection.ended:
            raise Interrupted("SIGINT", 0)
        refuse_failed([job])

    def left(self, trials: Sequence[Mapping[str, Any]], most: int) -> str:
        """How long a search of `most` trials will still take, in words, if those to come take as long as
        those that have ended.

        Args:
            trials: as `Search.trials`.
        """
        seconds = [row["seconds"] for row in trials if row["seconds"] is not None]
        total = (most - len(seconds)) * sum(seconds) / max(1, len(seconds)) / max(1, self.connection.room)
        left = f"{len(seconds)} of {most} trials, about {display.duration(total)} left" if total else ""
        self.under_way.left = left
        return f"; {left}" if left else ""

    def in_threads(self, work: Callable[[], None], most: int, signals: bool) -> None:
        """Does the work in as many threads as the cluster has room for runs, and `most`. What one of them
        raises is raised once all have ended."""
        errors = list[BaseException]()

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        if not self.connection.room:
            raise InputError(f"{self.connection}: none of its nodes has what a run asks for", where="per_run")
        threads = [threading.Thread(target=guarded) for _ in range(min(self.connection.room, most))]
        region = display.live_region(self.show.console)
        with local.ending_with_us([self.connection], signals), region as live:
            self.under_way = display.UnderWay(live)
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(PAUSE)
        if errors:
            raise errors[0]


class Reports(Watcher):
    """Tells the study each evaluation of a trial's run, of the first fold where it has folds, and ends a run
    that the study's pruner gives up.

    Attributes:
        pruned: whether it has.
    """

    def __init__(self, job: Job, trial: Trial, show: display.Display, under_way: display.UnderWay) -> None:
        self.pruning, self.show, self.under_way = trial.pruning, show, under_way
        self.folder = RunDir(job.folder.path / "fold-1") if job.task.run.folds else job.folder
        self.size = -1
        self.pruned = False

    def started(self, job: Job) -> None:
        if self.under_way.live is None:
            self.show.say(f"{job.name}: started on {job.node}")

    def look(self, running: Sequence[Running]) -> None:
        for each in running:
            seconds = time.monotonic() - each.began
            self.under_way.shows(each.job.name, each.job.node, each.last_line(), seconds)
        if self.folder.log_size() != self.size and not self.pruned:
            self.read()
            for each in running:
                if self.pruned and isinstance(each, Remote):
                    each.stop()

    def read(self) -> None:
        """Reads the log as far as it is written."""
        self.size = self.folder.log_size()
        if not self.folder.task_toml.is_file():  # not yet, or it begins anew
            return
        recipe = self.folder.task().recipe  # the run's own: few rows settle what the trial's leaves open
        for entry in self.folder.log():
            if "evaluation" not in entry or self.pruned:
                continue
            last = (
                entry["step"] >= recipe.max_steps
                if recipe.max_steps is not None
                else entry["epoch"] >= recipe.epochs and entry["step"] >= (recipe.min_steps or 1)
            )
            try:
                self.pruning.report(round(1000 * entry["epoch"]), entry["evaluation"], last)
            except optuna.TrialPruned:
                self.pruned = True
