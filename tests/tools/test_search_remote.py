"""A search whose runs are made elsewhere: the study hears of each evaluation by the run's log, and ends what it gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from bert_ft.config.task import Task
from bert_ft.jobs.base import Job
from bert_ft.jobs.cluster import Remote
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.search.remote import Reports
from bert_ft.tools.search.study import Pruning, Trial


class Stopped(Remote):
    count = 0

    def stop(self) -> None:
        self.count += 1


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize(
    ("scores", "epochs", "told", "pruned"),
    [([0.9, 0.9, 0.8], 1.5, 3, False), ([0.1, 0.9, 0.9], 1.5, 1, True), ([0.1], 0.5, 1, False)],
)
def test_the_study_hears_of_each_evaluation_once(
    scores: list[float], epochs: float, told: int, pruned: bool, folds: int | None, tmp_path: Path
) -> None:
    """A run is given up between two evaluations, and never at its last, as in one process."""
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    study.add_trial(optuna.create_trial(value=0.5, intermediate_values={500: 0.5, 1000: 0.5, 1500: 0.5}))
    trial = study.ask()
    before = study.get_trials(deepcopy=False)[trial.number]
    pruning = Pruning(trial, before, ("validation", "accuracy"))
    task = Task().override({"recipe.epochs": epochs, "run.folds": folds})
    job = Job(task, RunDir(tmp_path / "trial-0"))
    run = RunDir(job.folder.path / "fold-1") if folds else job.folder
    run.path.mkdir(parents=True)
    lines = list[str]()
    reports = Reports(job, Trial(job.folder.path, {}, False, pruning), lines.append)
    running: Any = Stopped(job, None, None, tmp_path / "log.txt")
    reports.look([running])
    for number, score in enumerate(scores, 1):
        run.append_log({"step": 5 * number, "loss": 1.0})
        entry = {"step": 5 * number, "epoch": number / 2, "evaluation": {"validation": {"accuracy": score}}}
        run.append_log(entry)
        reports.look([running])
        reports.look([running])
    reports.read()
    values = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    assert values == {500 * (i + 1): score for i, score in enumerate(scores[:told])}
    assert reports.pruned == pruned and running.count == pruned
