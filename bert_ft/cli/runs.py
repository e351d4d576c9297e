"""`bert-ft runs`: list the runs below a folder."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from bert_ft.cli.options import Json, app, note, print_json, print_table


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the run folders lie.")] = "runs",
    sort: Annotated[str, typer.Option(help="Column to sort by; of values the highest first.")] = "run",
    task: Annotated[str | None, typer.Option(help="Only the runs of this task.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Only the runs whose checkpoint's name holds this.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only finished, unfinished or unreadable ones.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs below a folder with their metrics.

    \b
    bert-ft runs --task mrpc --state finished --sort value
    """
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.rundir.folder import RunDir

    columns = ("run", "task", "checkpoint", "seed", "state", "metric", "value", "seconds")
    states = ("finished", "unfinished", "unreadable")
    for option, given, valid in (("--sort", sort, columns), ("--state", state or "finished", states)):
        if given not in valid:
            raise InputError(f"there is no '{given}'", where=option, remedy=did_you_mean(given, valid))
    rows: list[dict[str, Any]] = []
    for file in sorted(Path(folder).rglob("task.toml")):
        run = RunDir(file.parent)
        if run.state == "foreign" and not (run.results_json.exists() or run.environment_json.exists()):
            continue  # a task file in a project's folder
        rows.append(dict.fromkeys(columns) | {"run": str(run.path), "state": "unreadable"})
        try:
            spec = run.task()
            rows[-1] |= {"task": spec.name, "checkpoint": spec.run.checkpoint, "seed": spec.run.seed}
            if run.state == "finished":
                results, (name, metric) = run.results(), spec.best_metric
                rows[-1] |= {
                    "seed": results.get("seed", spec.run.seed),
                    "metric": f"{name}/{metric}",
                    "value": results["metrics"].get(name, {}).get(metric),
                    "seconds": results.get("timing", {}).get("train_seconds"),
                }
            rows[-1]["state"] = "unreadable" if run.state == "foreign" else run.state
        except InputError as error:
            note(*error.lines)
    everything = len(rows)
    rows = [
        row
        for row in rows
        if task in (None, row["task"])
        and state in (None, row["state"])
        and (checkpoint or "") in (row["checkpoint"] or "")
    ]
    sortable = [row for row in rows if row[sort] is not None]
    sortable.sort(key=itemgetter(sort), reverse=sort == "value")
    rows = sortable + [row for row in rows if row[sort] is None]
    if as_json:
        print_json(rows)
    elif not rows:
        if everything:
            note(f"none of {everything} runs below {folder} is of that kind")
        else:
            note(f"no runs below {folder}; `bert-ft train` makes one")
    else:
        print_table(
            [
                {key: "" if v is None else f"{v:.4f}" if key == "value" else str(v) for key, v in row.items()}
                for row in rows
            ]
        )
