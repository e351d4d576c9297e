"""`bert-ft predict`: answer the rows of a file."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import TrustRemoteCode, app, note, pair, settings_of


@app.command()
def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, a model folder or a hub id.")
    ],
    source: Annotated[str, typer.Argument(metavar="FILE", help="Rows to answer; - is standard input.")] = "-",
    output: Annotated[
        str, typer.Option("--output", "-o", help="File of the answers; - is standard output.")
    ] = "-",
    read_as: Annotated[
        str | None,
        typer.Option("--from", help="jsonl, csv, tsv, txt (a text a line) or parquet; else the suffix says."),
    ] = None,
    write_as: Annotated[
        str | None, typer.Option("--to", help="jsonl, csv, tsv or parquet; else the suffix says.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="ROLE=COLUMN", help="Where a role stands: text=review, question=q, ..."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="For this call: delimiter=;, quoting=false, eval_tokens=1024, ...",
        ),
    ] = None,
    keep_bad: Annotated[
        bool,
        typer.Option(
            "--keep-bad", help="Pass rows at fault through with an `error`, instead of leaving them out."
        ),
    ] = False,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas",
            help="csv, tsv: a ' before each cell that a spreadsheet would run as a formula.",
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help="float32, or checkpoint: compute in the type of the model's saved numbers."
        ),
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
    from bert_ft.modeling.saved_task import FORM
    from bert_ft.tools.predict.files import predict as answer

    named = dict(pair(item, "--column") for item in columns or [])
    loaded = runs.load(run, trust_remote_code=trust_remote_code, dtype=dtype)
    model = getattr(loaded, "model", loaded)
    for line in model.notes:
        note(line)
    settings = settings_of(sets)
    if strange := sorted(
        settings.keys() - (known := {f"data.{key}" for key in FORM} | {"batching.eval_tokens"})
    ):
        raise InputError(
            f"'{strange[0]}' is nothing that predicting has",
            where="--set",
            remedy=did_you_mean(strange[0], known),
        )
    model.adapter.task = model.adapter.task.override(settings)
    found = answer(
        model,
        source,
        output,
        read_as=read_as,
        write_as=write_as,
        columns=named,
        keep_bad=keep_bad,
        escape_formulas=escape_formulas,
        tell=note,
    )
    if found.bad:
        note(
            f"{len(found.bad):,} of {found.rows:,} rows are at fault"
            + (", and kept with their error" if keep_bad else ", and left out")
        )
        raise SystemExit(0 if keep_bad else 2)
