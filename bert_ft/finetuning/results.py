"""What a run leaves: predictions, its model, `results.json`, its pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.baselines import Baselines
from bert_ft.engine.checkpoints import Checkpoints, State
from bert_ft.engine.lora import Change
from bert_ft.families import soft_labels
from bert_ft.finetuning.evaluator import Evaluator
from bert_ft.finetuning.experiment import Experiment
from bert_ft.finetuning.recorder import Recorder
from bert_ft.metrics import label_calibration
from bert_ft.modeling import adapted, calibrating, pretrained, saving
from bert_ft.modeling.model import Model
from bert_ft.pages import run_page
from bert_ft.prepared import Prepared
from bert_ft.report import choices, scored_set
from bert_ft.rundir import environment, evaluations
from bert_ft.rundir.folder import RunDir


@dataclass(frozen=True)
class Trained:
    """What a training ends with; the weights that it keeps are in the model, what it tuned is in the adapter.

    Attributes:
        state: how far it came, and where its best step was.
        dtype: the type that the weights are saved in, and were rounded to; None for float32.
        change: what is saved in place of whole weights: low-rank changes, which are in the weights too.
    """

    state: State
    dtype: str | None
    change: Change | None = None


def write_predictions(
    experiment: Experiment, evaluator: Evaluator, recorder: Recorder
) -> dict[str, dict[str, float]]:
    """Predicts every set with the weights that are kept, and writes the predictions.

    Returns:
        set name -> metric -> value; empty for a set without labels.
    """
    adapter = evaluator.adapter
    folder = experiment.folder
    metrics: dict[str, dict[str, float]] = {}
    line = evaluator.calibrate(experiment.execution.save_model)
    if adapter.task.run.calibration in label_calibration.METHODS:  # which can change answers
        recorder.note(line)
    elif line:
        recorder.say(line)
    for name, rows, predictions in evaluator.predicted(evaluator.scored):
        metrics[name] = evaluator.model.score(predictions, rows)
        evaluator.calibration[name] = calibrating.measured(
            adapter, predictions, rows, name == evaluator.chosen_by
        )
        recorder.notes += [f"{name}: {warning}" for warning in adapter.warnings(predictions, rows)]
        if recorder.main:
            files.write_jsonl(folder.prediction_file(name), adapter.lines(predictions, rows))
            if metrics[name]:
                scored_set.keep(folder, name, rows.table)
            for suffix, value in adapter.files(predictions, rows).items():
                files.write_json(folder.predictions / f"{name}{suffix}.json", value)
    return metrics


def write_model(experiment: Experiment, model: Model, checkpoints: Checkpoints, trained: Trained) -> None:
    """Writes `model/` where the run keeps a model; takes our hooks off a network of the user's own."""
    model.network = model.accelerator.unwrap_model(model.network, keep_fp32_wrapper=False)
    model.describe()
    saves = experiment.execution.save_model
    # every process takes part, where the model is sharded
    whole = checkpoints.whole(model.network) if saves else None
    if not model.accelerator.is_main_process:
        return
    if experiment.objects.model is not None:
        model.plain()
    if saves:
        instead = None if trained.change is None else partial(_write_change, model, trained.change)
        saving.save_model(
            experiment.folder.model, model.network, model.tokenizer, whole, trained.dtype, instead
        )


def _write_change(model: Model, change: Change, folder: Path) -> None:
    run = model.adapter.task.run
    checkpoint = pretrained.locate(str(run.checkpoint))
    adapted.save(folder, change, model.network, checkpoint, pretrained.commit(run))


def write_results(
    experiment: Experiment,
    prepared: Prepared,
    state: State,
    metrics: dict[str, dict[str, float]],
    counts: dict[str, dict[str, int]],
    evaluator: Evaluator,
    recorder: Recorder,
) -> None:
    """Writes `results.json`, with which the run is finished, and then its pages: a run that ends in one of
    them is complete but for these, which `complete` makes."""
    task = prepared.task
    folder = experiment.folder
    beside = prepared.baselines if experiment.execution.baselines else Baselines()
    if line := beside.unbeaten(*task.best_metric, metrics):
        recorder.note(line, "yellow")
    results: dict[str, Any] = {
        "task": task.name,
        "family": task.family,
        "checkpoint": task.run.checkpoint,
        "seed": recorder.seed,
        "recipe": task.recipe.model_dump(exclude=task.recipe.SPACES),
        "metrics": {name: metrics[name] for name in evaluator.scored if metrics[name]},
        "counts": counts,
        "best_step": state.best_step if task.recipe.keep == "best" else state.step,
        "steps": state.step,
        "micro_batches": state.micro_batches,
        "timing": {
            "train_seconds": round(state.seconds, 3),
            "train_samples_per_second": round(state.rows / state.seconds, 2),
            "eval_samples_per_second": round(evaluator.rows / evaluator.seconds, 2),
            "first_step_seconds": round((state.first_step or experiment.began) - experiment.began, 3),
        },
        "parameters": recorder.parameters,
        "tuned": evaluator.adapter.tuned,
        "chosen": choices.dumped(evaluator.chosen(metrics, state.best_step)),
        **beside.dumped(),
        **soft_labels.dumped(prepared.splits.all()),
        "calibration": {name: found for name, found in evaluator.calibration.items() if found},
        "notes": recorder.notes,
        "version": environment.version("bert-ft"),
    }
    for line in choices.of_run(results, task).lines():
        recorder.say(line)
    files.write_json(folder.results_json, results)
    complete(folder, results, experiment.execution.keep_checkpoints, recorder.say)


def complete(folder: RunDir, results: dict[str, Any], keep: bool, say: Callable[..., None]) -> None:
    """Deletes what only the training of a finished run needed, unless told to `keep` it, and then writes its
    pages: a run that has its report is complete."""
    evaluations.drop(folder)
    if not keep:
        folder.clear("checkpoints")
    run_page.leave(folder, results, say)
