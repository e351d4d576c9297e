"""What the commands share: the app, their options, and how they print."""

from __future__ import annotations

import os
import sys
import tomllib
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

WIDEST = 500  # characters of a table's cell
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of a table.")]
TrustRemoteCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-remote-code",
        metavar="NAME",
        help="Run the code that this checkpoint brings: its hub id, or its "
        "folder as ./FOLDER; may be repeated. No file can allow it.",
    ),
]
TaskName = Annotated[
    str,
    typer.Argument(
        help="Built-in task, TOML file, or for data of your own a family: classification, ner, qa."
    ),
]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", "-c", help="Hub id, folder, or an earlier run.")
]
TrainRows = Annotated[
    list[str] | None,
    typer.Option(
        help="Training rows: CSV, TSV, JSON, JSONL, Parquet, Arrow, CoNLL, SQuAD JSON; may be repeated."
    ),
]
ValidationRows = Annotated[
    str | None, typer.Option(help='Validation rows, or a share of the training rows ("10%").')
]
Onnx = Annotated[
    bool, typer.Option("--onnx", help="Answer with onnxruntime and what `bert-ft export` wrote.")
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Linear layers in 8 bits, on a CPU, and what that costs; with --onnx the graph of 8 bits.",
    ),
]
TestRows = Annotated[str | None, typer.Option(help="Test rows; may have no labels.")]


def settings_of(sets: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; a value is read as TOML where it is that, and as a string otherwise. A key that one
    table alone has is told with it: `seed` is `run.seed`, and no option of a command."""
    from bert_ft.config.task import dotted_keys

    homes = [name.rpartition(".") for name in dotted_keys()]
    settings: dict[str, Any] = {}
    for key, text in (pair(item, "--set") for item in sets or []):
        tables = [table for table, _, leaf in homes if leaf == key]
        key = f"{tables[0]}.{key}" if len(tables) == 1 else key
        try:
            settings[key] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # no TOML
            settings[key] = text
    return settings


def pair(item: str, option: str) -> tuple[str, str]:
    """KEY=VALUE as its two parts."""
    key, equals, text = item.partition("=")
    if not equals:
        example = {"--set": "learning_rate=5e-5", "--column": "text=review", "--space": "batch_size=16,32"}[
            option
        ]
        fail(f"{option} {item}: KEY=VALUE is wanted, as in {option} {example}", 2)
    return key.strip(), text


def computing(onnx: bool, int8: bool, dtype: str = "auto") -> dict[str, Any]:
    """What --onnx, --int8 and --dtype ask for, as the `onnx` and `dtype` of `load`."""
    if onnx:
        return {"onnx": "int8" if int8 else "fp32", "dtype": dtype}
    if int8 and dtype not in ("auto", "float32", "int8"):
        fail(f"--int8 and --dtype {dtype}: a model computes in one of them", 2)
    return {"onnx": None, "dtype": "int8" if int8 else dtype}


def print_metrics(result: dict[str, Any], as_json: bool) -> None:
    """Metrics by set, as a table or as JSON."""
    from bert_ft.files import finite

    result = finite(result)
    if as_json:
        print_json(result)
        return
    print_table(
        [
            {"set": name, "metric": metric, "value": "undefined" if value is None else f"{value:.4f}"}
            for name, values in result.items()
            for metric, value in values.items()
        ]
    )


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows of one shape, on standard output. A cell is a text that may come from anywhere, or a list of its
    lines."""
    from rich.console import Console

    # a pipe has no width: give every row its line
    if rows:
        Console(width=None if sys.stdout.isatty() else 200).print(table(rows))


def table(rows: list[dict[str, Any]]) -> Any:
    """The same as a table of `rich`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from bert_ft.errors import shown

    def cell(value: Any) -> Text:
        lines = value if isinstance(value, list) else [value]
        return Text("\n".join(shown(line, most=WIDEST) for line in lines))

    made = Table(box=SIMPLE_HEAD)
    for column in rows[0] if rows else ():
        right = column in ("value", "seconds", "seed", "references")
        made.add_column(cell(column), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row.values()))
    return made


def print_json(value: Any) -> None:
    """A value as JSON, on standard output. What can't be seen is an escape of JSON, so that the value is the
    same."""
    from bert_ft import reading

    print(reading.dumps(value, indent=2))


def print_line(text: object) -> None:
    """A line on standard output; whatever it quotes, it is one."""
    from bert_ft.errors import escaped

    print(escaped(str(text)))


def note(*lines: str) -> None:
    """Lines on standard error; whatever they quote, each is one."""
    from bert_ft.errors import shown

    for line in lines:
        print(shown(line), file=sys.stderr)


def fail(message: str, code: int, *more: str) -> NoReturn:
    """Leaves with a message on standard error, and more lines below it."""
    rank = os.environ.get("RANK", "0")
    note(f"bert-ft: {message}" if rank == "0" else f"bert-ft (process {rank}): {message}", *more)
    raise SystemExit(code)
