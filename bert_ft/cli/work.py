"""The commands that work on data and models: train, check, evaluate, predict."""

from __future__ import annotations

import sys
from pathlib import Path
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
    fail,
    note,
    own_data,
    pair,
    print_json,
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
    batch_size: Annotated[int | None, typer.Option(help="Rows an optimizer step, over all processes.")] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after N optimizer steps.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a row; longer rows are truncated, and counted.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate: K runs, each row held out once; mean and spread.")
    ] = None,
    limit_train: Annotated[int | None, typer.Option(help="The first N training rows after the seeded shuffle.")] = None,
    sets: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Insist that an interrupted run lies there.")] = False,
    save_every: Annotated[str, typer.Option(help="Steps (500) or minutes (10min) between two checkpoints.")] = "10min",
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep them when the run succeeds.")
    ] = False,
    save_model: Annotated[bool, typer.Option(help="Whether the run keeps its model.")] = True,
    log_with: Annotated[str | None, typer.Option(help="Tracker: tensorboard, wandb, ... (accelerate's).")] = None,
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
        "recipe.learning_rate": learning_rate, "recipe.batch_size": batch_size, "recipe.epochs": epochs,
        "recipe.max_steps": max_steps, "recipe.max_length": max_length, "data.limit_train": limit_train,
    }  # fmt: skip
    settings |= {key: value for key, value in flags.items() if value is not None}
    own_data(settings, regression, multi_label, text=text, text_pair=text_pair, label=label, tokens=tokens, tags=tags)
    from bert_ft.finetuning import finetune
    from bert_ft.rundir import first_process

    run = finetune(task, checkpoint, output=output, overwrite=overwrite, check=check, seed=seed, data_dir=data_dir, train=train or None,
                   validation=validation, test=test, folds=folds, log_with=log_with, resume=resume, save_every=save_every,
                   keep_checkpoints=keep_checkpoints, save_model=save_model, signals=True,
                   trust_remote_code=trust_remote_code, **settings)  # fmt: skip
    if first_process():
        shown = run.metrics
        if "spread" in run.results:  # of cross-validation
            shown = {"mean of folds": shown["validation"], "spread": run.results["spread"]["validation"]}
        print_metrics(run.results if as_json else shown, as_json)
        note(f"run folder: {run.path}")


@app.command()
def check(
    task: TaskName,
    checkpoint: Checkpoint = None,
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
    sets: Sets = None,
    limit: Annotated[int, typer.Option(min=0, max=100, help="Examples a finding.")] = 3,
    trust_remote_code: TrustRemoteCode = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where there is a fault or a warning.")] = False,
    as_json: Json = False,
) -> None:
    """Look for faults in a task's data: overlap of train and test, wrong labels, broken texts, ...; a checkpoint's
    tokenizer adds lengths and unknown tokens.

    \b
    bert-ft check rte --checkpoint google-bert/bert-base-uncased
    bert-ft check classification --train reviews.csv --text review --label stars --validation 10% --strict
    """
    from bert_ft.tools import check as checking

    settings = settings_of(sets)
    own_data(settings, regression, multi_label, text=text, text_pair=text_pair, label=label, tokens=tokens, tags=tags)
    report = checking.check(task, checkpoint, data_dir=data_dir, train=train or None, validation=validation, test=test,
                            trust_remote_code=trust_remote_code, **settings)  # fmt: skip
    if as_json:
        print_json(report.dump(limit))
    else:
        checking.show(report, limit, width=None if sys.stdout.isatty() else 200)
    if strict and not report.clean:
        raise SystemExit(1)


@app.command()
def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a model folder or hub id (with --task).")
    ],
    data: Annotated[str | None, typer.Option("--data", help="Other labelled rows: a file.")] = None,
    task: Annotated[str | None, typer.Option(help="The task to evaluate on; a run's own by default.")] = None,
    data_dir: DataDir = None,
    sets: Sets = None,
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Compute a run's metrics again, on its own or on other rows.

    \b
    bert-ft evaluate runs/mrpc-bert-base-uncased-seed42 --data new.csv
    bert-ft evaluate runs/mnli-bert-base-uncased-seed42 --task ax
    """
    from bert_ft import model
    from bert_ft.remote_code import names
    from bert_ft.run import Run
    from bert_ft.run import evaluate as compute
    from bert_ft.rundir import RunDir, first_process
    from bert_ft.task import load_task

    settings, is_run = settings_of(sets), RunDir(run).state in ("finished", "unfinished")
    trusted = names(trust_remote_code)
    if not is_run and task is None and data is None:
        model.load_folder(run, trusted=trusted)  # what it lacks comes first
        fail("which rows? a bare model needs --task TASK or --data FILE", 2)
    bound = load_task(task).override(settings) if task is not None else None
    if is_run:
        whole = Run(run, trust_remote_code=trusted)
        whole.task = whole.task.override(settings)
        metrics = compute(whole, data, task=bound, data_dir=data_dir)
    else:
        if bound is None and settings:
            bound = model.load_folder(run, trusted=trusted).adapter.task.override(settings)
        loaded = model.load_folder(run, bound, trusted)
        for line in loaded.notes:
            note(line)
        metrics = compute(loaded, data, data_dir=data_dir)
    if first_process():
        print_metrics(metrics, as_json)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, a model folder or a hub id.")],
    source: Annotated[str, typer.Argument(metavar="FILE", help="Rows to answer; - is standard input.")] = "-",
    output: Annotated[str, typer.Option("--output", "-o", help="File of the answers; - is standard output.")] = "-",
    read_as: Annotated[
        str | None,
        typer.Option("--from", help="jsonl, csv, tsv, txt (a text a line) or parquet; else the suffix says."),
    ] = None,
    write_as: Annotated[
        str | None, typer.Option("--to", help="jsonl, csv, tsv or parquet; else the suffix says.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=COLUMN", help="Where a role stands: text=review, question=q, ..."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="For this call: delimiter=;, quoting=false, eval_tokens=1024, ..."
        ),
    ] = None,
    keep_bad: Annotated[
        bool,
        typer.Option("--keep-bad", help="Pass rows at fault through with an `error`, instead of leaving them out."),
    ] = False,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas", help="csv, tsv: a ' before each cell that a spreadsheet would run as a formula."
        ),
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, or checkpoint: compute in the type of the model's saved numbers.")
    ] = "float32",
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """Answer the rows of a file or of standard input; rows stream, so any number of them will do.

    \b
    bert-ft predict runs/sst2-bert-base-uncased-seed42 reviews.csv -o answered.csv --column text=review
    echo "a warm and funny film" | bert-ft predict runs/sst2-bert-base-uncased-seed42 --from txt
    """
    from bert_ft import run as runs
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.model import FORM
    from bert_ft.tools.predict import predict as answer

    named = dict(pair(item, "--column") for item in columns or [])
    loaded = runs.load(run, trust_remote_code=trust_remote_code, dtype=dtype)
    model = getattr(loaded, "model", loaded)
    for line in model.notes:
        note(line)
    settings = settings_of(sets)
    if strange := sorted(settings.keys() - (known := {f"data.{key}" for key in FORM} | {"batching.eval_tokens"})):
        raise InputError(
            f"'{strange[0]}' is nothing that predicting has", where="--set", remedy=did_you_mean(strange[0], known)
        )
    model.adapter.task = model.adapter.task.override(settings)
    found = answer(model, source, output, read_as=read_as, write_as=write_as, columns=named,
                   keep_bad=keep_bad, escape_formulas=escape_formulas, tell=note)  # fmt: skip
    if found.bad:
        note(
            f"{len(found.bad):,} of {found.rows:,} rows are at fault"
            + (", and kept with their error" if keep_bad else ", and left out")
        )
        raise SystemExit(0 if keep_bad else 2)


@app.command("launch-config")
def launch_config(
    name: Annotated[
        str | None, typer.Argument(help="one_machine, several_machines or fsdp; all of them by default.")
    ] = None,
) -> None:
    """Print where a configuration of accelerate for several processes lies.

    \b
    accelerate launch --config_file "$(bert-ft launch-config one_machine)" -m bert_ft train mrpc -c ORG/NAME
    """
    from bert_ft.errors import InputError, did_you_mean

    files = {file.stem: file for file in sorted((Path(__file__).parents[1] / "launch").glob("*.yaml"))}
    if name is not None and name not in files:
        raise InputError(f"no configuration '{name}'", remedy=did_you_mean(name, files))
    print("\n".join(str(file) for stem, file in files.items() if name in (None, stem)))
