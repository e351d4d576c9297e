"""`bert-ft search`: look for a good recipe."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import typer

from bert_ft.cli.options import (
    Checkpoint,
    Json,
    TaskName,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    note,
    pair,
    print_json,
    print_line,
    print_table,
)
from bert_ft.cli.settings import OWN_DATA, SET, settings_command

Trials = Annotated[
    int, typer.Option(min=1, help="Of the whole search, over all calls and all processes that share it.")
]
Timeout = Annotated[
    str | None, typer.Option(help="Seconds, 10min or 2h after which this call begins no other trial.")
]
Space = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUES", help="1e-5..1e-4, 1e-5..1e-4:log, 2..5:1 (LOW..HIGH:STEP), or 16,32."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="postgresql://USER@HOST/DATABASE (its password from PGPASSWORD or ~/.pgpass), grpc://HOST:PORT "
        "of Optuna's proxy, or another URL of Optuna's; an SQLite file in the search's folder by default."
    ),
]
Prune = Annotated[bool, typer.Option(help="End trials that fall behind the others.")]
Pruner = Annotated[
    str,
    typer.Option(
        help="How: median, below the median of the others at the same share of an epoch; asha, outside of "
        "the best quarter at each rung (successive halving)."
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="The search's folder; runs/search-<task>-<checkpoint> by default."),
]


@settings_command(
    app, OWN_DATA, "run.data_dir", SET, "execution.save_every", "execution.on", "execution.per_run"
)
def search(
    task: TaskName,
    checkpoint: Checkpoint = None,
    trials: Trials = 20,
    timeout: Timeout = None,
    space: Space = None,
    storage: Storage = None,
    prune: Prune = True,
    pruner: Pruner = "median",
    output: Output = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws, and of every trial.")] = None,
    *,
    settings: dict[str, Any],
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Search the recipe that does best on the validation set, with Optuna; best.toml has it.

    The space is recipe.search of the task, else its grid with learning rate, batch size and epochs. The same
    command goes on where it was; started several times at once, it shares the trials. The best score is the
    best of many on this very set, so that it leans high: report what a fresh seed or a test set gives.

    \b
    bert-ft search mrpc --checkpoint google-bert/bert-base-uncased --trials 30
    bert-ft search rte -c ORG/NAME --space learning_rate=1e-5..1e-4:log --space batch_size=16,32 --timeout 2h
    bert-ft train runs/search-rte-NAME/best.toml --seed 1 --output runs/rte-tuned
    """
    from bert_ft.tools.search.search import search as run_search

    result = run_search(
        task,
        checkpoint,
        trials=trials,
        timeout=timeout,
        space=_space(space),
        storage=storage,
        pruner=pruner if prune else None,
        output=output,
        seed=seed,
        train=train or None,
        validation=validation,
        signals=True,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    results = result.results()
    if as_json:
        print_json(results)
    else:
        _print_trials(results, result.command)
        note(f"search folder: {result.path}")


def _print_trials(results: dict[str, Any], command: str) -> None:
    """The trials as a table, and the best of them with the command that trains it."""
    from bert_ft.report.rendering import show
    from bert_ft.tools.search import page

    table = page.table(results)
    if table.rows:
        print_table([dict(zip(table.columns, map(show, row), strict=True)) for row in table.rows])
    if best := results["best"]:
        recipe = show(best["recipe"])
        print_line(f"{results['metric']} {show(best['value'])} with {recipe} (trial {best['trial']})")
        print_line(results["caution"])
        note(command)


def _space(items: list[str] | None) -> dict[str, Any]:
    """`LOW..HIGH`, `LOW..HIGH:log`, `LOW..HIGH:STEP` or values between commas, as `recipe.search` has
    them."""
    space: dict[str, Any] = {}
    for key, text in (pair(item, "--space") for item in items or []):
        try:
            space[key] = tomllib.loads(f"values = {_as_toml(text)}")["values"]
        except (ValueError, RecursionError):  # no TOML
            space[key] = [value.strip() for value in text.split(",")]
    return space


def _as_toml(text: str) -> str:
    low, dots, high = text.partition("..")
    if not dots:
        return f"[{text}]"
    high, _, step = high.partition(":")
    if not step:
        return f"{{low={low}, high={high}}}"
    return f"{{low={low}, high={high}, {'log=true' if step == 'log' else f'step={step}'}}}"
