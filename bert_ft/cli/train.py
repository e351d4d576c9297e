"""`bert-ft train`: fine-tune a checkpoint on a task."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bert_ft.cli.options import (
    Checkpoint,
    Json,
    TaskName,
    TestRows,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    note,
    print_metrics,
)
from bert_ft.cli.settings import OWN_DATA, SET, settings_command

RECIPE = (
    "recipe.learning_rate",
    "recipe.batch_size",
    "recipe.epochs",
    "recipe.max_steps",
    "recipe.max_length",
    "data.limit_train",
)


@settings_command(
    app,
    OWN_DATA,
    "data.without",
    "run.data_dir",
    "run.seed",
    *RECIPE,
    "run.folds",
    "run.intermediate",
    SET,
    "execution",
)
def train(
    task: TaskName,
    checkpoint: Checkpoint = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The run folder; runs/<name> by default.")
    ] = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    test: TestRows = None,
    *,
    settings: dict[str, Any],
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint on a task; the run folder has it all.

    \b
    bert-ft train mrpc --checkpoint google-bert/bert-base-uncased
    bert-ft train classification --train reviews.csv --text review --label stars --validation 10% -c ORG/NAME
    bert-ft train ner --train train.conll --validation dev.conll -c ORG/NAME
    """
    from bert_ft.files import first_process
    from bert_ft.finetuning.finetune import finetune

    run = finetune(
        task,
        checkpoint,
        output=output,
        train=train or None,
        validation=validation,
        test=test,
        signals=True,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    if first_process():
        shown = run.metrics
        if "spread" in run.results:  # of cross-validation
            shown = {"mean of folds": shown["validation"], "spread": run.results["spread"]["validation"]}
        print_metrics(run.results if as_json else shown, as_json)
        if not settings.get("quiet"):
            note(f"run folder: {run.path}")
