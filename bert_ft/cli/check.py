"""`bert-ft check`: look for faults in a task's data."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from bert_ft.cli.options import (
    Checkpoint,
    Json,
    TaskName,
    TestRows,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    fail,
    note,
    print_json,
)
from bert_ft.cli.settings import OWN_DATA, SET, settings_command


@settings_command(app, OWN_DATA, "run.data_dir", SET)
def check(
    task: TaskName,
    checkpoint: Checkpoint = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    test: TestRows = None,
    *,
    settings: dict[str, Any],
    run: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="RUN", help="A run of --folds of these rows: labels that are likely wrong."
        ),
    ] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --with: all of them as CSV, for train --without.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=100, help="Examples a finding.")] = 3,
    trust_remote_code: TrustRemoteCode = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where there is a fault or a warning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look for faults in a task's data: overlap of train and test, wrong labels, broken texts, ...; a
    checkpoint's tokenizer adds lengths and unknown tokens.

    \b
    bert-ft check rte --checkpoint google-bert/bert-base-uncased
    bert-ft check classification --train reviews.csv --text review --label stars --validation 10% --strict
    bert-ft check sst2 --with runs/folds --export suspects.csv
    """
    from bert_ft.display import watching
    from bert_ft.tools import check as checking
    from bert_ft.tools import wrong_labels

    if export is not None and run is None:
        fail("--export writes the labels that are likely wrong, by the folds of a run: --with RUN", 2)
    if export is not None and not export.lower().endswith(".csv"):
        fail(f"--export {export}: it is a CSV file, such as suspects.csv", 2)
    with watching():
        report = checking.check(
            task,
            checkpoint,
            train=train or None,
            validation=validation,
            test=test,
            run=run,
            trust_remote_code=trust_remote_code,
            **settings,
        )
    if as_json:
        print_json(report.dump(limit))
    else:
        checking.show(report, limit, width=None if sys.stdout.isatty() else 200)
    if not report.readable:
        raise SystemExit(2)
    if export is not None:
        suspects = report.suspects or []
        wrong_labels.export(export, suspects)
        note(
            f"{len(suspects):,} labels in {export}: delete the lines of those that are right; train "
            f"--without {export} leaves the rows of the others out"
        )
    if strict and not report.clean:
        raise SystemExit(1)
