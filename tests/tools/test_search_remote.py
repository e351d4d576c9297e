"""A search whose runs are made elsewhere: the study hears of each evaluation by the run's log, and ends what it gives up."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import optuna
import pyte
import pytest
from rich.console import Console

from bert_ft.config.task import Task
from bert_ft.display import Display, UnderWay, live_region
from bert_ft.errors import InputError
from bert_ft.jobs.base import Job
from bert_ft.jobs.cluster import Remote
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.search import storage
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
    task = Task().override({"recipe.epochs": 0.5, "run.folds": folds})
    job = Job(task, RunDir(tmp_path / "trial-0"))
    run = RunDir(job.folder.path / "fold-1") if folds else job.folder
    run.path.mkdir(parents=True)
    run.start(task.override({"recipe.epochs": epochs}), {})  # as the number of its rows has settled it
    trial_ = Trial(job.folder.path, {}, False, pruning)
    reports = Reports(job, trial_, Display(quiet=True), UnderWay(None))
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


def test_a_path_is_no_storage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a path is no storage") as caught:
        storage.opened(tmp_path / "study.db")
    assert "sqlite:///FILE.db" in caught.value.remedy


def test_a_terminal_shows_the_trials_under_way(tmp_path: Path) -> None:
    """As an emulated screen has it: a line each, told by threads of their own, which goes when its trial ends; hostile
    output of a run does nothing. Lines that are said meanwhile stay above."""
    screen = pyte.Screen(90, 12)
    stream = pyte.Stream(screen)
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=90, height=12)

    def lines() -> list[str]:
        stream.feed(text.getvalue().replace("\n", "\r\n"))
        text.seek(0), text.truncate()
        return [line.rstrip() for line in screen.display if line.strip()]

    with live_region(console) as live:
        under_way = UnderWay(live)
        threads = [
            threading.Thread(
                target=under_way.shows, args=(f"trial-{k}", f"node-{k}", f"step {k}/9", 100.0 * k)
            )
            for k in range(3)
        ]
        for thread in threads:
            thread.start()
            thread.join()
        expected = ["trial-0 on node-0: step 0/9 (0 s)", "trial-1 on node-1: step 1/9 (2 min)",
                    "trial-2 on node-2: step 2/9 (3 min)"]  # fmt: skip
        assert lines() == expected
        console.print("trial 1 complete")
        under_way.left = "1 of 3 trials, about 4 min left"
        under_way.ended("trial-1")
        assert lines() == ["trial 1 complete", expected[0], expected[2], under_way.left]
        under_way.shows("trial-0", "node-0", "\x1b[2J\x1b]0;own\x07gone", 7000)
        assert any("gone (1.9 h)" in line for line in lines()) and screen.title == ""
        assert "trial 1 complete" in lines()
    assert lines() == ["trial 1 complete"]
