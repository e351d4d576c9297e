"""finetune(): a task and a checkpoint become a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import imports
from bert_ft.config.task import Task
from bert_ft.errors import within
from bert_ft.families import Adapter
from bert_ft.finetuning.experiment import Experiment, UserObjects
from bert_ft.run import Run
from bert_ft.rundir.intermediate import REMEDY


def finetune(
    task: str | Path | Task,
    checkpoint: str | Path | None = None,
    *,
    output: str | Path | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    adapter: type[Adapter] | None = None,
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    metrics: Mapping[str, Any] | Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    model: Any = None,
    tokenizer: Any = None,
    **settings: Any,
) -> Run:
    """Fine-tunes a checkpoint on a task and returns the finished run.

    Args:
        task: a built-in task ("sst2"), a TOML file, a `Task`, or a family ("classification") for your own
            data.
        checkpoint: hub id, folder, or an earlier run; the task's own by default.
        output: the run folder; `runs/<task>-<checkpoint>[-changed keys]-seed<k>` by default.
        train, validation, test: a file, or rows (Dataset, pandas frame, dict of lists, list of dicts);
            validation and test also as a mapping of name -> one of these; validation also as a share of the
            training rows, "10%".
        adapter: an `Adapter` subclass in place of the family's.
        loss: `loss(logits, batch) -> (B,)` losses a row, or their mean; `batch["labels"]` are the labels.
        metrics: name -> `f(predictions, references)`, or `evaluate.Metric` objects; beside the task's.
        callbacks: `bert_ft.Callback` objects.
        model: a `transformers` model with the head already on it, in place of the checkpoint's weights.
        tokenizer: its tokenizer.
        settings: any key of the task, by its own name or with its table: `learning_rate=5e-5`, `seed=1`,
            `data_dir="glue"`, `**{"data.validation": "10%"}`. `folds=5` cross-validates (stratified, or whole
            groups of `data.group`): five runs below one folder, whose own results are their mean and spread.
            `intermediate="mnli"` trains the checkpoint on that task first, in a run of its own beside this
            one.
            Keys of `[execution]` say how the run is carried out and are no part of it: `overwrite`, `resume`,
            `check`, `baselines`, `save_every`, `keep_checkpoints`, `save_model`, `log_with`, `signals`,
            `quiet`.
            `trust_remote_code="ORG/NAME"` (or "./FOLDER") names the checkpoint whose own code may run, and
            any other repository that its code comes from; what a file says about this is ignored.
    Raises:
        InputError: whatever the user can mend, in one message; MachineError: a disk that can't be written.
    """
    experiment = Experiment.create(
        task,
        checkpoint,
        output=output,
        train=train,
        validation=validation,
        test=test,
        objects=UserObjects(adapter, loss, metrics, callbacks, model, tokenizer),
        settings=settings,
    )
    # torch is loaded from here on: what the call says is sound
    imports.libraries()
    from bert_ft.finetuning.cross_validation import cross_validate
    from bert_ft.finetuning.train_run import train_run

    for before in experiment.intermediate():
        with within(f"the run on {before.task.name} that comes first", REMEDY):
            train_run(before)
        experiment = experiment.after_intermediate()
    return train_run(experiment) if experiment.task.run.folds is None else cross_validate(experiment)
