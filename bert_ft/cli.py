"""The command line: a short function a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from datetime import datetime
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
cache_app = typer.Typer(help="The cache of tokenized rows: what it holds; `clear` empties it.")
app.add_typer(cache_app, name="cache")

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of a table.")]
DataDir = Annotated[
    str | None, typer.Option(help="Folder of the benchmark's original files (DIR/MRPC/train.tsv, ...).")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the task, as in TOML.")]
TaskName = Annotated[str, typer.Argument(help="Built-in task, TOML file, or 'classification' for data of your own.")]
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", "-c", help="Hub id, folder, or an earlier run.")]
TrainRows = Annotated[
    list[str] | None, typer.Option(help="Training rows: CSV, TSV, JSON, JSONL, Parquet or Arrow; may be repeated.")
]
ValidationRows = Annotated[str | None, typer.Option(help='Validation rows, or a share of the training rows ("10%").')]
TestRows = Annotated[str | None, typer.Option(help="Test rows; may have no labels.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text.")]
PairColumn = Annotated[str | None, typer.Option(help="Column of the second text of a pair.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the label.")]
Regression = Annotated[bool, typer.Option("--regression", help="The label is a number to predict.")]
DEBUG = "--debug"


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
    regression: Regression = False,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="A row has a set of labels; --set label_delimiter=, splits a cell.")
    ] = False,
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
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint on a task; the run folder has it all.

    \b
    bert-ft train mrpc --checkpoint google-bert/bert-base-uncased
    bert-ft train classification --train reviews.csv --text review --label stars --validation 10% -c ORG/NAME
    """
    settings = _settings(sets)
    flags = {
        "recipe.learning_rate": learning_rate, "recipe.batch_size": batch_size, "recipe.epochs": epochs,
        "recipe.max_steps": max_steps, "recipe.max_length": max_length, "data.limit_train": limit_train,
    }  # fmt: skip
    settings |= {key: value for key, value in flags.items() if value is not None}
    validation = _own(settings, validation, regression, text=text, text_pair=text_pair, label=label)
    if multi_label:
        settings["data.problem_type"] = "multi_label_classification"
    if trust_remote_code:
        settings["run.trust_remote_code"] = True
    from bert_ft.finetuning import finetune
    from bert_ft.rundir import first_process

    run = finetune(task, checkpoint, output=output, overwrite=overwrite, check=check, seed=seed, data_dir=data_dir, train=train or None,
                   validation=validation, test=test, folds=folds, log_with=log_with, resume=resume, save_every=save_every,
                   keep_checkpoints=keep_checkpoints, save_model=save_model, signals=True, **settings)  # fmt: skip
    if first_process():
        shown = run.metrics
        if "spread" in run.results:  # of cross-validation
            shown = {"mean of folds": shown["validation"], "spread": run.results["spread"]["validation"]}
        _print_metrics(run.results if as_json else shown, as_json)
        _note(f"run folder: {run.path}")


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
    regression: Regression = False,
    sets: Sets = None,
    limit: Annotated[int, typer.Option(min=0, max=100, help="Examples a finding.")] = 3,
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

    settings = _settings(sets)
    validation = _own(settings, validation, regression, text=text, text_pair=text_pair, label=label)
    report = checking.check(task, checkpoint, data_dir=data_dir, train=train or None, validation=validation, test=test,
                            **settings)  # fmt: skip
    if as_json:
        print(json.dumps(report.dump(limit), indent=2, ensure_ascii=False))
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
    as_json: Json = False,
) -> None:
    """Compute a run's metrics again, on its own or on other rows.

    \b
    bert-ft evaluate runs/mrpc-bert-base-uncased-seed42 --data new.csv
    bert-ft evaluate runs/mnli-bert-base-uncased-seed42 --task ax
    """
    from bert_ft import model
    from bert_ft.run import Run
    from bert_ft.run import evaluate as compute
    from bert_ft.rundir import RunDir, first_process
    from bert_ft.task import load_task

    bound = load_task(task).override(_settings(sets)) if task is not None else None
    if RunDir(run).state in ("finished", "unfinished"):
        metrics = compute(Run(run), data, task=bound, data_dir=data_dir)
    else:
        loaded = model.load_folder(run, bound)
        if bound is None and data is None:
            _fail("which rows? a bare model needs --task TASK or --data FILE", 2)
        metrics = compute(loaded, data, data_dir=data_dir)
    if first_process():
        _print_metrics(metrics, as_json)


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
    keep_bad: Annotated[
        bool,
        typer.Option("--keep-bad", help="Pass rows at fault through with an `error`, instead of leaving them out."),
    ] = False,
) -> None:
    """Answer the rows of a file or of standard input; rows stream, so any number of them will do.

    \b
    bert-ft predict runs/sst2-bert-base-uncased-seed42 reviews.csv -o answered.csv --column text=review
    echo "a warm and funny film" | bert-ft predict runs/sst2-bert-base-uncased-seed42 --from txt
    """
    from bert_ft import run as runs
    from bert_ft.tools.predict import predict as answer

    named = dict(_pair(item, "--column") for item in columns or [])
    loaded = runs.load(run)
    found = answer(getattr(loaded, "model", loaded), source, output, read_as=read_as, write_as=write_as, columns=named,
                   keep_bad=keep_bad, tell=_note)  # fmt: skip
    if found.bad:
        _note(
            f"{len(found.bad):,} of {found.rows:,} rows are at fault"
            + (", and kept with their error" if keep_bad else ", and left out")
        )
        raise SystemExit(0 if keep_bad else 2)


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
    """List the built-in tasks, and the suites of them."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.task import builtin, load_task, suites

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
    rows += [{"task": s.name, "family": "suite", "metrics": "the mean of " + ", ".join(s.tasks), "references": "",
              "title": s.title} for s in suites().values()]  # fmt: skip
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


@app.command("launch-config")
def launch_config(
    name: Annotated[
        str | None, typer.Argument(help="one_machine, several_machines, fsdp or cpu; all of them by default.")
    ] = None,
) -> None:
    """Print where a configuration of accelerate for several processes lies.

    \b
    accelerate launch --config_file "$(bert-ft launch-config one_machine)" -m bert_ft train mrpc -c ORG/NAME
    """
    from bert_ft.errors import InputError, did_you_mean

    files = {file.stem: file for file in sorted((Path(__file__).parent / "launch").glob("*.yaml"))}
    if name is not None and name not in files:
        raise InputError(f"no configuration '{name}'", remedy=did_you_mean(name, files))
    print("\n".join(str(file) for stem, file in files.items() if name in (None, stem)))


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context, as_json: Json = False) -> None:
    """Show where the cache of tokenized rows lies ($BERT_FT_CACHE) and how big it is."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.engine import features

    kept, place = features.kept(), str(features.root())
    total = sum(entry["bytes"] for entry in kept)
    if as_json:
        print(json.dumps({"folder": place, "bytes": total, "entries": kept}, indent=2))
        return
    if kept:
        _table([{"entry": e["entry"], "rows": f"{e['rows']:,}", "tokens": f"{e['tokens']:,}", "size": _size(e["bytes"]),
                 "made": f"{datetime.fromtimestamp(e['made']):%Y-%m-%d %H:%M}"} for e in kept])  # fmt: skip
    print(f"{place}: {len(kept)} entries, {_size(total)}")


@cache_app.command("clear")
def cache_clear(as_json: Json = False) -> None:
    """Empty the cache of tokenized rows; what is needed again is made again."""
    from bert_ft.engine import features

    place, freed = str(features.root()), features.clear()
    print(json.dumps({"folder": place, "freed": freed}) if as_json else f"{place}: {_size(freed)} freed")


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"


def _settings(sets: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; a value is read as TOML where it is that, and as a string otherwise."""
    settings: dict[str, Any] = {}
    for key, text in (_pair(item, "--set") for item in sets or []):
        try:
            settings[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = text
    return settings


def _pair(item: str, option: str) -> tuple[str, str]:
    key, equals, text = item.partition("=")
    if not equals:
        example = {"--set": "learning_rate=5e-5", "--column": "text=review"}[option]
        _fail(f"{option} {item}: KEY=VALUE is wanted, as in {option} {example}", 2)
    return key.strip(), text


def _own(settings: dict[str, Any], validation: str | None, regression: bool, **columns: str | None) -> str | None:
    """Adds what the flags say about data of one's own to the settings; gives the validation rows that are a file."""
    settings |= {f"data.columns.{role}": column for role, column in columns.items() if column}
    if regression:
        settings |= {"data.problem_type": "regression", "metric.compute": ["pearson", "spearmanr"]}
    if validation is not None and validation.endswith("%"):
        settings["data.validation"], validation = validation, None
    return validation


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
    rank = os.environ.get("RANK", "0")
    _note(f"bert-ft: {message}" if rank == "0" else f"bert-ft (process {rank}): {message}")
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

        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # so that the launcher's last lines name the cause
            from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

            ErrorHandler().record_exception(error)
        if isinstance(error, BertFtError):
            _fail(str(error), error.exit_code)
        _fail(
            f"{type(error).__name__}: {error}\n  this is a fault of bert-ft or of the machine; --debug shows where", 1
        )
    raise SystemExit(0)
