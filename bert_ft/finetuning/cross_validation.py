"""Cross-validation: k ordinary runs below one folder, each held-out row predicted once, mean and spread over
the folds."""

from __future__ import annotations

from dataclasses import replace

from bert_ft import files
from bert_ft.data import splitting
from bert_ft.data.rows import Rows
from bert_ft.display import Display
from bert_ft.families import soft_labels
from bert_ft.finetuning.experiment import Experiment
from bert_ft.finetuning.train_run import finished, train_run
from bert_ft.jobs import remote
from bert_ft.jobs.base import Job
from bert_ft.jobs.local import InProcess
from bert_ft.modeling import pretrained
from bert_ft.pages import run_page
from bert_ft.prepared import fold, folded
from bert_ft.report import choices, folds, scored_set
from bert_ft.run import Run
from bert_ft.rundir.folder import RunDir, is_finished


def cross_validate(experiment: Experiment) -> Run:
    """Trains `run.folds` folds of the training rows and returns the run that sums them up.

    Fold i is the run `<folder>/fold-<i>` of the task with `data.validation = "i/k"`; one that is finished is
    not repeated. `results.json` has the mean over the folds (`metrics`), the sample standard deviation
    (`spread`) and every value (`per_fold`); `predictions/out_of_fold.jsonl` has every training row once, by
    the model that did not see it.
    """
    folder = experiment.folder
    execution = experiment.execution
    family = experiment.family
    task, rows, data = folded(experiment.task, family, experiment.rows)
    labels = family.find_labels(rows, task)  # of all rows: a fold may lack a rare one
    experiment = replace(experiment, task=task.override({"data.labels": labels or None}))
    identity = {"data": data, "checkpoint": pretrained.fingerprint(task.run.checkpoint)}
    with folder.lock():
        if is_finished(folder, experiment.task, identity, execution.overwrite):
            finished(experiment)
            return Run(folder.path)
        _train_folds(experiment, rows, {f"{key}_fingerprint": value for key, value in identity.items()})
    return Run(folder.path)


def _train_folds(experiment: Experiment, rows: Rows, fingerprints: dict[str, str | None]) -> None:
    """Trains the folds into the locked folder, and writes what they come to."""
    task = experiment.task
    folder = experiment.folder
    execution = experiment.execution
    numbers = range(1, (task.run.folds or 0) + 1)
    first = files.first_process()
    display = Display(execution.quiet or not first)
    if first:
        folder.start(task, dict(fingerprints))
    display.say(
        f"{len(numbers)} folds of {len(rows):,} rows; no model is saved: train without folds to get one",
        "bold",
    )
    jobs = [Job(fold(task, i), RunDir(folder.path / f"fold-{i}")) for i in numbers]
    here = InProcess(lambda job: train_run(experiment.fold(job)))
    remote.run(jobs, folder.path / "logs", execution, here, display.say, experiment.trusted)
    runs = [job.folder for job in jobs]
    if not first:
        return
    _remove_others(folder, runs)
    target = experiment.family.target
    held_out = [splitting.split_off(rows, target, fold(task, i).data)[1] for i in numbers]
    files.write_jsonl(folder.prediction_file("out_of_fold"), folds.out_of_fold(runs, held_out))
    scored_set.keep(folder, "out_of_fold", rows.table)
    results = folds.results(task, runs, len(rows)) | soft_labels.dumped({"out_of_fold": rows})
    files.write_json(folder.environment_json, runs[0].environment() | fingerprints)
    files.write_json(folder.results_json, results)
    run_page.leave(folder, results, display.say)
    spread = results["spread"]["validation"]
    for metric, mean in results["metrics"]["validation"].items():
        display.say(f"{metric}: {mean:.4f} ± {spread[metric]:.4f} over {len(runs)} folds")
    for line in choices.of_run(results, task).lines():
        display.say(line)


def _remove_others(folder: RunDir, runs: list[RunDir]) -> None:
    """Deletes the folds of an earlier run that had more of them."""
    for path in set(folder.path.glob("fold-*")) - {run.path for run in runs}:
        other = RunDir(path)
        if other.state in ("finished", "unfinished") and not path.is_symlink():
            other.remove()
