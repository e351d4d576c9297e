"""`bert-ft evaluate`: compute a run's metrics again, on its own or on other rows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bert_ft.cli.options import Int8, Json, Onnx, TrustRemoteCode, app, computing, fail, note, print_metrics
from bert_ft.cli.settings import SET, settings_command


@settings_command(app, "run.data_dir", SET)
def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A run folder, or a model folder or hub id (with --task)."
        ),
    ],
    data: Annotated[str | None, typer.Option("--data", help="Other labelled rows: a file.")] = None,
    task: Annotated[str | None, typer.Option(help="The task to evaluate on; a run's own by default.")] = None,
    onnx: Onnx = False,
    int8: Int8 = False,
    *,
    settings: dict[str, Any],
    trust_remote_code: TrustRemoteCode = None,
    as_json: Json = False,
) -> None:
    """Compute a run's metrics again, on its own or on other rows.

    \b
    bert-ft evaluate runs/mrpc-bert-base-uncased-seed42 --data new.csv
    bert-ft evaluate runs/mnli-bert-base-uncased-seed42 --task ax
    """
    from bert_ft.config.catalog import load_task
    from bert_ft.files import first_process
    from bert_ft.modeling import loading
    from bert_ft.modeling.remote_code import names
    from bert_ft.run import Run
    from bert_ft.run import evaluate as compute
    from bert_ft.rundir.folder import RunDir

    how = computing(onnx, int8)
    data_dir = settings.pop("data_dir", None)
    is_run = RunDir(run).state in ("finished", "unfinished")
    trusted = names(trust_remote_code)
    if not is_run and task is None and data is None:
        loading.load_folder(run, trusted=trusted)  # what it lacks comes first
        fail("which rows? a bare model needs --task TASK or --data FILE", 2)
    bound = load_task(task).override(settings) if task is not None else None
    if onnx and not is_run:
        fail(f"{run}: --onnx answers for a run, and this is none", 2)
    if is_run:
        whole = Run(run, trust_remote_code=trusted, **how)
        whole.task = whole.task.override(settings)
        if whole.int8:
            _tell(whole)
        elif bound is None and first_process():
            for line in whole.model.notes:
                note(line)
        metrics = compute(whole, data, task=bound, data_dir=data_dir)
    else:
        if bound is None and settings:
            bound = loading.load_folder(run, trusted=trusted).adapter.task.override(settings)
        loaded = loading.load_folder(run, bound, trusted, int8=int8)
        for line in loaded.notes:
            note(line)
        metrics = compute(loaded, data, data_dir=data_dir)
    if first_process():
        print_metrics(metrics, as_json)


def _tell(run: Any) -> None:
    """Says what 8 bits are here, and what they cost the run."""
    from bert_ft.files import first_process
    from bert_ft.tools import int8

    lines = [*run.model.notes, int8.line(run)]
    if first_process():
        note(*lines)
