"""The scored sets of a run, each as its family shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bert_ft import families
from bert_ft.config.task import SET_NAME, Task
from bert_ft.errors import InputError
from bert_ft.report.scored_set import Scored
from bert_ft.rundir.folder import RunDir


def scored(folder: RunDir, task: Task, results: Mapping[str, Any]) -> list[Scored]:
    """The sets of a run that have predictions and metrics, that which picks the best step first."""
    report = Scored if "adapter" in task.run.custom else families.known(task.family).report(task)
    # of folds each row once, by the model that did not see it
    names = (
        ["out_of_fold"]
        if task.run.folds
        else sorted(results["metrics"], key=lambda name: name != task.best_metric[0])
    )
    if strange := [name for name in names if not SET_NAME.fullmatch(name)]:  # a name of another file, perhaps
        raise InputError(f"'{strange[0]}' can't name a set", where=str(folder.results_json))
    return [report(folder, task, name, results) for name in names if folder.prediction_file(name).is_file()]
