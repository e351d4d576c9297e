"""The scored sets of a run, each as its kind of task shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bert_ft.config.task import SET_NAME, Task
from bert_ft.errors import InputError
from bert_ft.families.classification.report import Classes, Numbers, Sets
from bert_ft.families.ner.report import Entities
from bert_ft.families.qa.report import Answers
from bert_ft.report.scored_set import Scored
from bert_ft.rundir.folder import RunDir

KINDS: dict[str, type[Scored]] = {
    "single_label_classification": Classes, "multi_label_classification": Sets, "regression": Numbers,
    "ner": Entities, "qa": Answers,
}  # fmt: skip
"""Family, or problem type of a classification -> what it shows; others show their metrics alone."""


def scored(folder: RunDir, task: Task, results: Mapping[str, Any]) -> list[Scored]:
    """The sets of a run that have predictions and metrics, that which picks the best step first."""
    kind = task.data.problem_type if task.family == "classification" else task.family
    known = Scored if "adapter" in task.run.custom else KINDS.get(kind, Scored)
    # of folds each row once, by the model that did not see it
    names = (
        ["out_of_fold"]
        if task.run.folds
        else sorted(results["metrics"], key=lambda name: name != task.best_metric[0])
    )
    if strange := [name for name in names if not SET_NAME.fullmatch(name)]:  # a name of another file, perhaps
        raise InputError(f"'{strange[0]}' can't name a set", where=str(folder.results_json))
    return [known(folder, task, name, results) for name in names if folder.prediction_file(name).is_file()]
