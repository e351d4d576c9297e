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
    """
    from bert_ft.tools import check as checking

    report = checking.check(
        task,
        checkpoint,
        train=train or None,
        validation=validation,
        test=test,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    if as_json:
        print_json(report.dump(limit))
    else:
        checking.show(report, limit, width=None if sys.stdout.isatty() else 200)
    if not report.readable:
        raise SystemExit(2)
    if strict and not report.clean:
        raise SystemExit(1)
