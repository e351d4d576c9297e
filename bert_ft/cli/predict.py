"""`bert-ft predict`: answer the rows of a file, or of many files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bert_ft.cli.options import Int8, Onnx, TrustRemoteCode, app, computing, note, pair, settings_of

if TYPE_CHECKING:
    from bert_ft.tools.predict.files import Options
    from bert_ft.tools.predict.folders import Plan

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="File of rows, a folder of such, or a glob in quotes; - is standard input."
    ),
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", help="File of the answers, of many files a folder; - is standard output."),
]
ReadAs = Annotated[
    str | None,
    typer.Option("--from", help="jsonl, csv, tsv, txt (a text a line) or parquet; else the suffix says."),
]
WriteAs = Annotated[
    str | None, typer.Option("--to", help="jsonl, csv, tsv or parquet; else the suffix says.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="ROLE=COLUMN", help="Where a role stands: text=review, question=q, ..."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="For this call: delimiter=;, quoting=false, eval_tokens=256, ..."
    ),
]
KeepBad = Annotated[
    bool,
    typer.Option(
        "--keep-bad", help="Pass rows at fault through with an `error`, instead of leaving them out."
    ),
]
EscapeFormulas = Annotated[
    bool,
    typer.Option(
        "--escape-formulas",
        help="csv, tsv, for a spreadsheet: a ' before each cell that it would run as a formula, and the mark "
        "by which it knows UTF-8.",
    ),
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="WHERE", help="Of many files: ray, or ray://HOST:PORT, a cluster of Ray."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="On a cluster: how many, each with the model; by default one a GPU, or else a CPU."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="auto: as the run was scored, by its recipe's precision; float32; bfloat16: faster on CPUs with "
        "instructions for it, and other in the third digit; checkpoint: the type of the model's saved "
        "numbers; or int8, as --int8.",
    ),
]


@app.command()
def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, a model folder or a hub id.")
    ],
    source: Source = "-",
    output: Output = "-",
    read_as: ReadAs = None,
    write_as: WriteAs = None,
    columns: Columns = None,
    sets: Sets = None,
    keep_bad: KeepBad = False,
    escape_formulas: EscapeFormulas = False,
    abstain_below: Annotated[
        float | None,
        typer.Option(metavar="P", help="Leave an answer open whose probability is less; one label a row."),
    ] = None,
    label_sets: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="The labels that hold the right one in this share of rows, or more."
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Probabilities alone, in one column: train --set soft=probabilities."
        ),
    ] = False,
    dtype: Dtype = "auto",
    onnx: Onnx = False,
    int8: Int8 = False,
    on: On = None,
    workers: Workers = None,
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """Answer the rows of a file, of standard input or of many files; rows stream, so any number will do.

    Of a folder or a glob each file has answers of its own, under its own name. The same command again answers
    what is missing, or was made from other rows, other settings or another model; started several times at
    once, it shares the files.

    \b
    bert-ft predict runs/sst2-bert-base-uncased-seed42 reviews.csv -o answered.csv --column text=review
    bert-ft predict runs/sst2-bert-base-uncased-seed42 "reviews/**/*.parquet" -o answered
    bert-ft predict runs/sst2-bert-base-uncased-seed42 reviews -o answered --on ray --workers 8
    echo "a warm and funny film" | bert-ft predict runs/sst2-bert-base-uncased-seed42 --from txt
    """
    from bert_ft import imports
    from bert_ft import run as runs
    from bert_ft.tools.predict import folders

    roles = dict(pair(item, "--column") for item in columns or [])
    settings = settings_of(sets)
    _refuse_others(settings)
    _refuse_elsewhere(source, on, workers)
    how = computing(onnx, int8, dtype)
    plan = folders.plan(source, output, read_as, write_as) if folders.is_many(source) else None
    imports.libraries()
    from bert_ft.tools.predict.caution import Caution

    load = {"folder": run, "trust_remote_code": trust_remote_code, "settings": settings, **how}
    loaded = runs.load(**load)
    for line in getattr(loaded, "model", loaded).notes:
        note(line)
    if how["dtype"] == "int8":
        from bert_ft.tools import int8 as cost

        note(cost.line(loaded))
    options: Options = {
        "read_as": read_as,
        "write_as": write_as,
        "columns": roles,
        "keep_bad": keep_bad,
        "escape_formulas": escape_formulas,
        "caution": Caution.of(loaded, abstain_below, label_sets),
        "probabilities": probabilities,
    }
    if plan is not None:
        raise SystemExit(_answer_files(loaded, load, plan, options, on, workers))
    raise SystemExit(_answer_file(loaded, source, output, options))


def _answer_file(loaded: Any, source: str, output: str, options: Options) -> int:
    """Answers one file, or standard input; returns the exit code."""
    from bert_ft.display import not_read
    from bert_ft.tools.predict import files
    from bert_ft.tools.predict.progress import of_one

    model = getattr(loaded, "model", loaded)
    with of_one(source, output, options.get("read_as")) as advance:
        outcome = files.predict(model, source, output, tell=note, advance=advance, **options)
    for line in not_read(outcome.counts, model.max_length):
        note(line)
    if not outcome.bad:
        return 0
    what = "kept with their error" if options["keep_bad"] else "left out"
    note(f"{len(outcome.bad):,} of {outcome.rows:,} rows are at fault, and {what}")
    return 0 if options["keep_bad"] else 2


def _answer_files(
    loaded: Any, load: dict[str, Any], plan: Plan, options: Options, on: str | None, most: int | None
) -> int:
    """Answers a folder or a glob, here or on a cluster; returns the exit code.

    Args:
        load: what `loaded` was loaded with. on, most: the cluster, and how many of its workers at most.
    """
    import os

    from bert_ft.display import not_read
    from bert_ft.tools.predict import many
    from bert_ft.tools.predict.identity import made_by

    model = getattr(loaded, "model", loaded)
    how = {"dtype": load["dtype"], "onnx": load["onnx"]}
    answering = many.Answering(model, plan.output, made_by(model, options, how), options)
    answering.refuse(plan.items)
    if on is None:
        summary = many.answer_all(answering, plan, note)
    else:
        from bert_ft.tools.predict import on_ray

        work = on_ray.Work(load, plan.output, answering.records.made_by, how, options, os.getcwd())
        summary = on_ray.answer_all(on, plan, work, most, note)
    for line in (*not_read(summary.read, model.max_length), *summary.lines(options["keep_bad"])):
        note(line)
    return summary.exit_code(options["keep_bad"])


def _refuse_elsewhere(source: str, on: str | None, workers: int | None) -> None:
    """Raises InputError: a cluster for what is no many files, or workers without a cluster."""
    from bert_ft.errors import InputError
    from bert_ft.tools.predict.folders import is_many

    if on is not None and not is_many(source):
        message = "one file is answered by one process; a cluster answers a folder, or a glob"
        raise InputError(message, where=f"--on {on}", remedy="leave out --on")
    if workers is not None and on is None:
        remedy = "--on ray; or start the same command several times: they share the files"
        raise InputError("workers are those of a cluster", where="--workers", remedy=remedy)


def _refuse_others(settings: dict[str, Any]) -> None:
    """Raises InputError for a setting that predicting can't follow."""
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.modeling.saved_task import FORM

    valid = {f"data.{key}" for key in FORM} | {"batching.eval_tokens"}
    for key in sorted(settings.keys() - valid):
        raise InputError(f"'{key}' is no setting of predict", where="--set", remedy=did_you_mean(key, valid))
