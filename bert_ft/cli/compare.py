"""`bert-ft compare`: compare runs, or groups of them."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import Json, app, pair, print_json, print_line, print_table

VERSUS = "vs"


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders; those that differ in the seed alone count as one group. Behind the first, "
            "also files of another model's predictions.",
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="The scored set; the one that picked the best step by default.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; may be repeated.")] = None,
    show_flips: Annotated[
        int, typer.Option(min=0, metavar="N", help="Show N rows that turned wrong and N that turned right.")
    ] = 0,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=COLUMN",
            help="Where a file has what: prediction=answer; also probabilities, row (from 0), id.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs, or groups of seeds, with the first: differences, their intervals, tests, and rows that
    flip. `errors` is the change in what the metric falls short of its best by.

    \b
    bert-ft compare runs/mrpc-bert-base-uncased-seed1 runs/mrpc-roberta-base-seed1 --show-flips 5
    bert-ft compare runs/mrpc-bert-base-uncased-seed* runs/mrpc-roberta-base-seed*
    bert-ft compare before/mrpc-seed* vs after/mrpc-seed*     # groups of one's own: RUN... vs RUN...
    bert-ft compare runs/mrpc-roberta-base-seed1 zero-shot.csv --column prediction=answer
    """
    from bert_ft.errors import shown
    from bert_ft.report.rendering import show
    from bert_ft.tools.compare.compare import compare as compared

    groups: list[list[str]] = [[]]
    for run in runs:
        if run == VERSUS:
            groups.append([])
        else:
            groups[-1].append(run)
    roles = dict(pair(item, "--column") for item in columns or [])
    result = compared(
        *(groups if len(groups) > 1 else runs), split=split, metrics=metric or (), columns=roles
    )
    if as_json:
        print_json(result.dump(show_flips))
        return
    for group in result.groups:
        for line in (f"{group.name}  {group}", *(f"   {line}" for line in group.differs)):
            print_line(line)
    for table in result.tables(show_flips):
        print()
        print_line(table.title)
        ours = "metric" in table.columns  # cells of ours have line breaks that are meant
        cells = [
            [str(cell).split("\n") if ours else shown(show(cell), most=200) for cell in row]
            for row in table.rows
        ]
        print_table([dict(zip(table.columns, row, strict=True)) for row in cells])
    for line in result.lines():
        print_line(line)
