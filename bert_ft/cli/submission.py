"""`bert-ft reproduce submission`: write the zip that GLUE's server takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from bert_ft.cli.options import Json, note, print_json, print_table


def submission(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Finished runs, one a task, with predictions of their test rows."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The zip.")] = "submission.zip",
    fill: Annotated[
        bool,
        typer.Option(
            "--fill", help="Answer a missing task with the most frequent label of its training rows."
        ),
    ] = False,
    *,
    settings: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Write the zip that gluebenchmark.com takes; the run of MNLI answers the diagnostic set too.

    \b
    bert-ft reproduce submission runs/*-bert-base-uncased-seed1 -o glue.zip
    """
    from bert_ft.tools.reproduce.submission import submission as written

    entries = [asdict(entry) for entry in written(runs, output, fill=fill, **settings)]
    if as_json:
        print_json(entries)
    else:
        print_table(
            [
                {name: "" if value is None else str(value) for name, value in entry.items()}
                for entry in entries
            ]
        )
    note(f"written: {output}")
