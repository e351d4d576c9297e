"""bert-ft train."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import (
    Checkpoint,
    DataDir,
    Json,
    LabelColumn,
    MultiLabel,
    PairColumn,
    Regression,
    Sets,
    TagsColumn,
    TaskName,
    TestRows,
    TextColumn,
    TokensColumn,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    note,
    own_data,
    print_metrics,
    settings_of,
)


@app.command()
def train(
    task: TaskName,
    checkpoint: Checkpoint = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The run folder; runs/<name> by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that lies there.")] = False,
    check: Annotated[bool, typer.Option(help="Look for faults in the data first, and tell them.")] = True,
    data_dir: DataDir = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    test: TestRows = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    tokens: TokensColumn = None,
    tags: TagsColumn = None,
    regression: Regression = False,
    multi_label: MultiLabel = False,
    seed: Annotated[int | None, typer.Option(help="Head, data order and dropout follow from it.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows an optimizer step, over all processes.")
    ] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after N optimizer steps.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a row; longer rows are truncated, and counted.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate: K runs, each row held out once; mean and spread.")
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(help="The first N training rows after the seeded shuffle.")
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Insist that an interrupted run lies there.")
    ] = False,
    save_every: Annotated[
        str, typer.Option(help="Steps (500) or minutes (10min) between two checkpoints.")
    ] = "10min",
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep them when the run succeeds.")
    ] = False,
    save_model: Annotated[bool, typer.Option(help="Whether the run keeps its model.")] = True,
    log_with: Annotated[
        str | None, typer.Option(help="Tracker: tensorboard, wandb, ... (accelerate's).")
    ] = None,
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint on a task; the run folder has it all.

    \b
    bert-ft train mrpc --checkpoint google-bert/bert-base-uncased
    bert-ft train classification --train reviews.csv --text review --label stars --validation 10% -c ORG/NAME
    bert-ft train ner --train train.conll --validation dev.conll -c ORG/NAME
    """
    settings = settings_of(sets)
    flags = {
        "recipe.learning_rate": learning_rate,
        "recipe.batch_size": batch_size,
        "recipe.epochs": epochs,
        "recipe.max_steps": max_steps,
        "recipe.max_length": max_length,
        "data.limit_train": limit_train,
    }
    settings |= {key: value for key, value in flags.items() if value is not None}
    own_data(
        settings,
        regression,
        multi_label,
        text=text,
        text_pair=text_pair,
        label=label,
        tokens=tokens,
        tags=tags,
    )
    from bert_ft.files import first_process
    from bert_ft.finetuning.finetune import finetune

    run = finetune(
        task,
        checkpoint,
        output=output,
        overwrite=overwrite,
        check=check,
        seed=seed,
        data_dir=data_dir,
        train=train or None,
        validation=validation,
        test=test,
        folds=folds,
        log_with=log_with,
        resume=resume,
        save_every=save_every,
        keep_checkpoints=keep_checkpoints,
        save_model=save_model,
        signals=True,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    if first_process():
        shown = run.metrics
        if "spread" in run.results:  # of cross-validation
            shown = {"mean of folds": shown["validation"], "spread": run.results["spread"]["validation"]}
        print_metrics(run.results if as_json else shown, as_json)
        note(f"run folder: {run.path}")
