"""`bert-ft reproduce`: measure published numbers again; a group, whose own command needs no word of its
own."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bert_ft.cli import submission
from bert_ft.cli.options import Json, TrustRemoteCode, app, fail, note, print_json, print_line, print_table
from bert_ft.cli.settings import SET, settings_command

OWN = "task"  # the word that may be left out


class _Group(TyperGroup):
    """What names no subcommand is a task or suite to reproduce."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        named = arguments and arguments[0] in self.commands
        return super().parse_args(context, arguments if named else [OWN, *arguments])


reproduce_app = typer.Typer(cls=_Group, no_args_is_help=False)
app.add_typer(reproduce_app, name="reproduce", help="Measure published numbers again, with a verdict.")
settings_command(reproduce_app, "run.data_dir")(submission.submission)


def _seeds(text: str) -> int | list[int]:
    """How many seeds an option says, or which."""
    try:
        return [int(n) for n in text.split(",") if n] if "," in text else int(text)
    except ValueError:
        fail(f"--seeds {text}: a number of seeds is wanted, or a list of them: --seeds 1,2,3", 2)


@settings_command(
    reproduce_app,
    "run.data_dir",
    "recipe.max_steps",
    "data.limit_train",
    "run.intermediate",
    SET,
    "execution.on",
    "execution.per_run",
    name=OWN,
)
def reproduce(
    name: Annotated[
        str, typer.Argument(help="Task, TOML file, suite (glue), or measurement (stsbenchmark).")
    ],
    checkpoint: Annotated[str, typer.Option("--checkpoint", "-c", help="Hub id, folder, or an earlier run.")],
    seeds: Annotated[str, typer.Option(help='How many (5), or which ("1,2,3").')] = "5",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder of runs and tables; runs/reproduce-<name>-<checkpoint>."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Words of a source: the published numbers that are meant.")
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search the paper's grid, selecting on validation only.")
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="Points that a reproduced number may differ by: 1; frozen 0.0001."),
    ] = None,
    *,
    settings: dict[str, Any],
    save_model: Annotated[bool, typer.Option(help="Whether the runs keep their models.")] = False,
    soup: Annotated[
        bool, typer.Option("--soup", help="Average the seeds' weights greedily, as validation allows.")
    ] = False,
    trust_remote_code: TrustRemoteCode = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the commands, one a line, and run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a task or suite over several seeds by its published recipe, or measure the vectors of a frozen
    encoder, and say whether the number was reached.

    Verdicts: reproduced, below, above (reached, where the source gives no spread), inconclusive (with how
    many seeds in all would decide), or not comparable, naming the condition. The same command again collects
    finished runs and goes on with the others.

    \b
    bert-ft reproduce rte --checkpoint google-bert/bert-base-cased --seeds 5
    bert-ft reproduce glue --checkpoint google-bert/bert-base-cased --plan > commands.txt
    bert-ft reproduce stsbenchmark --checkpoint sentence-transformers/all-MiniLM-L6-v2
    """
    options: dict[str, Any] = {
        "seeds": _seeds(seeds),
        "output": output,
        "reference": reference,
        "grid": grid,
        "save_model": save_model or soup,
        "trust_remote_code": trust_remote_code,
        **settings,
    }
    if plan:
        if options.pop("on", None) or options.pop("per_run", None):
            fail("--plan runs nothing: leave out --on and --per-run", 2)
        from bert_ft.config.frozen import is_frozen

        if is_frozen(name):
            fail("--plan: a frozen encoder is measured by this command itself: leave out --plan", 2)
        from bert_ft.tools.reproduce.plan import plan as make

        runs = make(name, checkpoint, **options).runs
        if as_json:
            print_json([run.command for run in runs])
        for run in () if as_json else runs:
            print_line(run.command)
        return
    from bert_ft.tools.reproduce.reproduce import reproduce as measure

    outcome = measure(name, checkpoint, margin=margin, soup=soup, signals=True, **options)
    if as_json:
        print_json(outcome.results)
    else:
        print_table(outcome.table)
        for line in (*outcome.suite_lines, *outcome.notes):
            print_line(line)
    _close(outcome)
    if outcome.failed:
        raise SystemExit(1)


def _close(outcome: Any) -> None:
    """Says where all of it is, where the causes of other numbers are listed, and what failed."""
    from bert_ft.tools.reproduce.verdict import DIFFERENT

    note(f"below {outcome.folder}: results.json, table.md, page.html")
    if any(each["verdict"] in DIFFERENT for each in outcome.verdicts):
        note("what the usual libraries compute otherwise, measured: docs/why-numbers-differ.md")
    for run in outcome.failed:
        note(f"failed: {run.folder.path.name}: {run.cause}")
