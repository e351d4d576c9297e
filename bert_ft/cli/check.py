"""bert-ft check."""

from __future__ import annotations

import sys
from typing import Annotated

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
    TestRows,
    TextColumn,
    TokensColumn,
    TrainRows,
    TrustRemoteCode,
    ValidationRows,
    app,
    own_data,
    print_json,
    settings_of,
)


@app.command()
def check(
    task: TaskName,
    checkpoint: Checkpoint = None,
    data_dir: DataDir = None,
    train: TrainRows = None,
    validation: ValidationRows = None,
    test: TestRows = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    tokens: TokensColumn = None,
    tags: TagsColumn = None,
    regression: Regression = False,
    multi_label: MultiLabel = False,
    sets: Sets = None,
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
    report = checking.check(
        task,
        checkpoint,
        data_dir=data_dir,
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
    if strict and not report.clean:
        raise SystemExit(1)
