"""`bert-ft curve`: how many labels are enough?"""

from __future__ import annotations

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
    fail,
    note,
    print_json,
    print_line,
    print_table,
)
from bert_ft.cli.settings import OWN_DATA, SET, settings_command

Shares = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHARE...", help="Parts of the training rows: 10% of them, or 200 rows; 5% 10% 25% 50% 100%."
    ),
]
More = Annotated[list[str] | None, typer.Argument(metavar="[SHARE...]", help="The shares behind the first.")]


@settings_command(
    app,
    OWN_DATA,
    "run.data_dir",
    "recipe.max_steps",
    SET,
    "execution.save_every",
    "execution.on",
    "execution.per_run",
)
def curve(
    task: TaskName,
    more: More = None,
    checkpoint: Checkpoint = None,
    shares: Shares = None,
    seeds: Annotated[str, typer.Option(help='How many (3), or which ("1,2,3").')] = "3",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder of runs and page; runs/curve-<task>-<checkpoint>."),
    ] = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    *,
    settings: dict[str, Any],
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Train on parts of the rows and say what twice as many labels would add.

    One run for each part and seed, a power law with its band through the scores, and a sentence of what they
    say; test sets are left alone. The same command again trains what is missing; with more shares or seeds,
    those alone.

    \b
    bert-ft curve sst2 --checkpoint google-bert/bert-base-uncased --shares 5% 10% 25% 50% 100%
    bert-ft curve classification --train reviews.csv --text review --label stars --validation 20% -c ORG/NAME
    """
    from bert_ft.tools.curve import page
    from bert_ft.tools.curve.curve import SHARES
    from bert_ft.tools.curve.curve import curve as measure

    if more and not shares:
        fail(f"'{more[0]}': parts of the rows are named behind --shares, as in --shares 10% 50% 100%", 2)
    try:
        numbers: int | list[int] = [int(n) for n in seeds.split(",") if n] if "," in seeds else int(seeds)
    except ValueError:
        fail(f"--seeds {seeds}: a number of seeds is wanted, or a list of them: --seeds 1,2,3", 2)
    named = [
        share for words in [*(shares or []), *(more or [])] for share in words.split(",") if share.strip()
    ]
    result = measure(
        task,
        checkpoint,
        shares=named or SHARES,
        seeds=numbers,
        output=output,
        train=train or None,
        validation=validation,
        signals=True,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    if as_json:
        print_json(result.results)
        return
    table = page.table(result.results)
    print_table([dict(zip(table.columns, map(str, row), strict=True)) for row in table.rows])
    print_line(table.note)
    for line in result.statement:
        print_line(line)
    note(f"below {result.path}: results.json, points.csv, curve.html")
