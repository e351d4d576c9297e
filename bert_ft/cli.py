"""The command line: a short function a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="bert-ft",
    help="Fine-tune BERT-like encoders on GLUE-style tasks and on your own data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich's own help takes twice the time
    pretty_exceptions_enable=False,
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
)
tasks_app = typer.Typer(help="List the built-in tasks; `show` or `copy` one.", no_args_is_help=False)
app.add_typer(tasks_app, name="tasks")

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of a table.")]
DataDir = Annotated[
    str | None, typer.Option(help="Folder of the benchmark's original files (DIR/MRPC/train.tsv, ...).")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the task, as in TOML.")]
DEBUG = "--debug"


@app.command()
def train(
    task: Annotated[
        str, typer.Argument(help="Built-in task, TOML file, or a family for data of your own: classification, ner.")
    ],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="Hub id, folder, or an earlier run.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The run folder; runs/<name> by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that lies there.")] = False,
    data_dir: DataDir = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Training rows: CSV, TSV, JSON, JSONL, Parquet, Arrow, CoNLL columns; may be repeated."),
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help='Validation rows, or a share of the training rows ("10%").')
    ] = None,
    test: Annotated[str | None, typer.Option(help="Test rows; may have no labels.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    tokens: Annotated[str | None, typer.Option(help="ner: column of the words (a number in a column file).")] = None,
    tags: Annotated[str | None, typer.Option(help="ner: column of the tags; in a column file -1 is the last.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number to predict.")] = False,
    seed: Annotated[int | None, typer.Option(help="Head, data order and dropout follow from it.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows an optimizer step, over all processes.")] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after N optimizer steps.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a row; longer rows are truncated, and counted.")
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
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint on a task; the run folder has it all.

    \b
    bert-ft train mrpc --checkpoint google-bert/bert-base-uncased
    bert-ft train classification --train reviews.csv --text review --label stars --validation 10% -c ORG/NAME
    bert-ft train ner --train train.conll --validation dev.conll -c ORG/NAME
    """
    settings = _settings(sets)
    flags = {
        "recipe.learning_rate": learning_rate, "recipe.batch_size": batch_size, "recipe.epochs": epochs,
        "recipe.max_steps": max_steps, "recipe.max_length": max_length, "data.limit_train": limit_train,
    }  # fmt: skip
    settings |= {key: value for key, value in flags.items() if value is not None}
    if validation is not None and validation.endswith("%"):
        settings["data.validation"], validation = validation, None
    columns = {"text": text, "text_pair": text_pair, "label": label, "tokens": tokens, "tags": tags}
    settings |= {f"data.columns.{role}": column for role, column in columns.items() if column}
    if regression:
        settings |= {"data.problem_type": "regression", "metric.compute": ["pearson", "spearmanr"]}
    if trust_remote_code:
        settings["run.trust_remote_code"] = True
    from bert_ft.finetuning import finetune
    from bert_ft.rundir import first_process

    run = finetune(task, checkpoint, output=output, overwrite=overwrite, seed=seed, data_dir=data_dir, train=train or None,
                   validation=validation, test=test, log_with=log_with, resume=resume, save_every=save_every,
                   keep_checkpoints=keep_checkpoints, save_model=save_model, signals=True, **settings)  # fmt: skip
    if first_process():
        _print_metrics(run.results if as_json else run.metrics, as_json)
        _note(f"run folder: {run.path}")


@app.command()
def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a model folder or hub id (with --task).")
    ],
    data: Annotated[str | None, typer.Option("--data", help="Other labelled rows: a file.")] = None,
    task: Annotated[str | None, typer.Option(help="The task to evaluate a bare model on.")] = None,
    data_dir: DataDir = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Compute a run's metrics again, on its own or on other rows.

    \b
    bert-ft evaluate runs/mrpc-bert-base-uncased-seed42 --data new.csv
    """
    from bert_ft import model
    from bert_ft.run import Run
    from bert_ft.run import evaluate as compute
    from bert_ft.rundir import RunDir
    from bert_ft.task import load_task

    if RunDir(run).state in ("finished", "unfinished"):
        metrics = compute(Run(run), data, data_dir=data_dir)
    else:
        bound = load_task(task).override(_settings(sets)) if task is not None else None
        loaded = model.load_folder(run, bound)
        if bound is None and data is None:
            _fail("which rows? a bare model needs --task TASK or --data FILE", 2)
        metrics = compute(loaded, data, data_dir=data_dir)
    _print_metrics(metrics, as_json)


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the run folders lie.")] = "runs",
    as_json: Json = False,
) -> None:
    """List the runs below a folder with their metrics."""
    from bert_ft.errors import InputError
    from bert_ft.rundir import RunDir

    found: list[dict[str, Any]] = []
    for file in sorted(Path(folder).rglob("task.toml")):
        run = RunDir(file.parent)
        row = dict.fromkeys(("run", "task", "checkpoint", "seed", "state", "metric", "value", "seconds"))
        found.append(row | {"run": str(run.path), "state": "unreadable"})
        try:
            task = run.task()
            found[-1] |= {"task": task.name, "checkpoint": task.run.checkpoint, "seed": task.run.seed}
            if run.state == "finished":
                results, (name, metric) = run.results(), task.best_metric
                found[-1] |= {"metric": f"{name}/{metric}", "value": results["metrics"].get(name, {}).get(metric),
                              "seconds": results["timing"]["train_seconds"]}  # fmt: skip
            found[-1]["state"] = run.state
        except InputError as error:
            _note(str(error))
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        _note(f"no runs below {folder}; `bert-ft train` makes one")
    else:
        _table(
            [
                {key: "" if v is None else f"{v:.4f}" if key == "value" else str(v) for key, v in row.items()}
                for row in found
            ]
        )


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context, as_json: Json = False) -> None:
    """List the built-in tasks."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.task import builtin, load_task

    found = [load_task(path) for path in builtin().values()]
    rows = [
        {
            "task": t.name,
            "family": t.family,
            "metrics": ", ".join(t.metric.compute),
            "references": str(len(t.reference)),
            "title": t.title,
        }
        for t in found
    ]
    print(json.dumps(rows, indent=2)) if as_json else _table(rows)


@tasks_app.command("show")
def tasks_show(task: Annotated[str, typer.Argument(help="Built-in task or TOML file.")], as_json: Json = False) -> None:
    """Print a task as it is read: every default filled in."""
    import tomli_w

    from bert_ft.task import load_task

    tree = load_task(task).dump()
    if as_json:
        print(json.dumps(tree, indent=2))
        return
    text = tomli_w.dumps({key: value for key, value in tree.items() if key != "run"})
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "toml", background_color="default"))
    else:
        print(text, end="")


@tasks_app.command("copy")
def tasks_copy(
    task: Annotated[str, typer.Argument(help="Built-in task.")],
    to: Annotated[str | None, typer.Argument(metavar="FILE", help="<task>.toml here by default.")] = None,
) -> None:
    """Write a built-in task's file here, to edit and train: bert-ft train FILE.toml."""
    from bert_ft import rundir
    from bert_ft.errors import InputError
    from bert_ft.task import find

    source, target = find(task), Path(to or f"{task}.toml")
    if target.is_dir():
        target = target / f"{task}.toml"
    if target.exists():
        raise InputError("there is a file already", where=str(target), remedy="name another one")
    rundir.write(target, source.read_text(encoding="utf-8"))
    print(target)


def _settings(sets: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; a value is read as TOML where it is that, and as a string otherwise."""
    settings: dict[str, Any] = {}
    for item in sets or []:
        key, equals, text = item.partition("=")
        if not equals:
            _fail(f"--set {item}: KEY=VALUE is wanted, as in --set learning_rate=5e-5", 2)
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text
    return settings


def _print_metrics(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _table([{"set": name, "metric": metric, "value": "undefined" if value is None else f"{value:.4f}"}
            for name, values in result.items() for metric, value in values.items()])  # fmt: skip


def _table(rows: list[dict[str, str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for column in rows[0]:
        table.add_column(
            column, justify="right" if column in ("value", "seconds", "seed", "references") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row.values()))
    # a pipe has no width: give every row its line
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    _note(f"bert-ft: {message}")
    raise SystemExit(code)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command. Exit codes: 0 done; 2 the user's input is at fault; 1 anything else; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in arguments
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app([argument for argument in arguments if argument != DEBUG], prog_name="bert-ft", standalone_mode=True)
    except SystemExit as left:
        if left.code == 130:  # typer's way to leave after Ctrl-C
            _note("bert-ft: interrupted")
        raise
    except BrokenPipeError:
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        from bert_ft.errors import BertFtError

        if isinstance(error, BertFtError):
            _fail(str(error), error.exit_code)
        _fail(
            f"{type(error).__name__}: {error}\n  this is a fault of bert-ft or of the machine; --debug shows where", 1
        )
    raise SystemExit(0)
