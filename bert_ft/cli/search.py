"""The command that looks for a good recipe."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

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
    TextColumn,
    TokensColumn,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    note,
    own_data,
    pair,
    print_json,
    print_line,
    print_table,
    settings_of,
)


@app.command()
def search(
    task: TaskName,
    checkpoint: Checkpoint = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Of the whole search, over all calls and all processes that share it.")
    ] = 20,
    timeout: Annotated[
        str | None, typer.Option(help="Seconds, 10min or 2h after which this call begins no other trial.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES", help="1e-5..1e-4, 1e-5..1e-4:log, 2..5:1 (LOW..HIGH:STEP), or 16,32."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="URL of an Optuna storage; an SQLite file in the search's folder by default."),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            help="End a trial that is below the median of the others at the same share of an epoch."
        ),
    ] = True,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="The search's folder; runs/search-<task>-<checkpoint> by default."
        ),
    ] = None,
    data_dir: DataDir = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    tokens: TokensColumn = None,
    tags: TagsColumn = None,
    regression: Regression = False,
    multi_label: MultiLabel = False,
    seed: Annotated[int | None, typer.Option(help="Of the draws, and of every trial.")] = None,
    sets: Sets = None,
    save_every: Annotated[
        str, typer.Option(help="Steps (500) or minutes (10min) between two checkpoints.")
    ] = "10min",
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
    settings = settings_of(sets)
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
    from bert_ft.tools.search.search import search as look

    found = look(
        task,
        checkpoint,
        trials=trials,
        timeout=timeout,
        space=_space(space),
        storage=storage,
        pruner="median" if prune else None,
        output=output,
        seed=seed,
        data_dir=data_dir,
        train=train or None,
        validation=validation,
        save_every=save_every,
        signals=True,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    results = found.results()
    if as_json:
        print_json(results)
        return
    from bert_ft.report.rendering import show
    from bert_ft.tools.search import page

    table = page.table(results)
    if table.rows:
        print_table([dict(zip(table.columns, map(show, row), strict=True)) for row in table.rows])
    if best := results["best"]:
        print_line(
            f"{results['metric']} {show(best['value'])} with {show(best['recipe'])} (trial {best['trial']})"
        )
        print_line(results["caution"])
        note(found.command)
    note(f"search folder: {found.path}")


def _space(given: list[str] | None) -> dict[str, Any]:
    """`LOW..HIGH`, `LOW..HIGH:log`, `LOW..HIGH:STEP` or values between commas, as `recipe.search` has
    them."""
    space: dict[str, Any] = {}
    for key, text in (pair(item, "--space") for item in given or []):
        low, dots, high = text.partition("..")
        high, _, how = high.partition(":")
        body = (
            f"[{text}]"
            if not dots
            else f"{{low={low}, high={high}"
            + (how and (", log=true" if how == "log" else f", step={how}"))
            + "}"
        )
        try:
            space[key] = tomllib.loads(f"values = {body}")["values"]
        except (ValueError, RecursionError):  # no TOML
            space[key] = [value.strip() for value in text.split(",")]
    return space
