"""The commands that show what there is: runs, tasks, the cache."""

from __future__ import annotations

import sys
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from bert_ft.cli.options import Json, app, cache_app, note, print_json, print_line, print_table, tasks_app


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the run folders lie.")] = "runs",
    sort: Annotated[str, typer.Option(help="Column to sort by; of values the highest first.")] = "run",
    task: Annotated[str | None, typer.Option(help="Only the runs of this task.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Only the runs whose checkpoint's name holds this.")] = None,
    state: Annotated[str | None, typer.Option(help="Only finished, unfinished or unreadable ones.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs below a folder with their metrics.

    \b
    bert-ft runs --task mrpc --state finished --sort value
    """
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.rundir import RunDir

    columns = ("run", "task", "checkpoint", "seed", "state", "metric", "value", "seconds")
    states = ("finished", "unfinished", "unreadable")
    for option, given, known in (("--sort", sort, columns), ("--state", state or "finished", states)):
        if given not in known:
            raise InputError(f"there is no '{given}'", where=option, remedy=did_you_mean(given, known))
    found: list[dict[str, Any]] = []
    for file in sorted(Path(folder).rglob("task.toml")):
        run = RunDir(file.parent)
        if run.state == "foreign" and not (run.results_json.exists() or run.environment_json.exists()):
            continue  # a task file in a project's folder
        found.append(dict.fromkeys(columns) | {"run": str(run.path), "state": "unreadable"})
        try:
            made = run.task()
            found[-1] |= {"task": made.name, "checkpoint": made.run.checkpoint, "seed": made.run.seed}
            if run.state == "finished":
                results, (name, metric) = run.results(), made.best_metric
                found[-1] |= {"metric": f"{name}/{metric}", "value": results["metrics"].get(name, {}).get(metric),
                              "seconds": results.get("timing", {}).get("train_seconds")}  # fmt: skip
            found[-1]["state"] = "unreadable" if run.state == "foreign" else run.state
        except InputError as error:
            note(*error.lines)
    everything = len(found)
    found = [row for row in found if task in (None, row["task"]) and state in (None, row["state"])
             and (checkpoint or "") in (row["checkpoint"] or "")]  # fmt: skip
    have = sorted((row for row in found if row[sort] is not None), key=itemgetter(sort), reverse=sort == "value")
    found = have + [row for row in found if row[sort] is None]
    if as_json:
        print_json(found)
    elif not found:
        told = f"none of {everything} runs below {folder} is of that kind" if everything else f"no runs below {folder}"
        note(told + "; `bert-ft train` makes one" * (not everything))
    else:
        print_table(
            [
                {key: "" if v is None else f"{v:.4f}" if key == "value" else str(v) for key, v in row.items()}
                for row in found
            ]
        )


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The HTML file; RUN/report.html for a single run.")
    ] = None,
) -> None:
    """Write the report of a run anew, or one of several runs side by side; those that can't be read are told and left out.

    \b
    bert-ft report runs/mrpc-bert-base-uncased-seed1 runs/mrpc-bert-base-uncased-seed2 -o mrpc.html
    """
    from bert_ft import rundir
    from bert_ft.errors import InputError
    from bert_ft.report import page
    from bert_ft.run import Run

    if len(runs) > 1 and output is None:
        raise InputError(
            "several runs share one report", where="bert-ft report", remedy="name its file: -o report.html"
        )
    views: list[page.View] = []
    for run in runs:
        try:
            view = page.view_of(Run(run).dir)
        except InputError as error:
            if len(runs) == 1:
                raise
            note(*error.lines)
        else:
            views.append(view)
    if not views:
        raise InputError("none of these runs can be read", where="bert-ft report")
    target = Path(output) if output is not None else rundir.RunDir(views[0].path).report_html
    rundir.write(target, page.html(views))
    print_line(target)
    if len(views) < len(runs):
        note(f"{len(runs) - len(views)} of {len(runs)} runs can't be read, and are left out")
        raise SystemExit(2)


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context, as_json: Json = False) -> None:
    """List the built-in tasks, and the suites of them."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.task import builtin, load_task, suites

    found = [load_task(path) for path in builtin().values()]
    rows = [
        {
            "task": t.name,
            "family": t.family,
            "metrics": ", ".join(t.metric.compute),
            "references": str(len(t.reference)),
            "title": t.title,
        }
        for t in found
    ]
    rows += [{"task": s.name, "family": "suite", "metrics": "the mean of " + ", ".join(s.tasks), "references": "",
              "title": s.title} for s in suites().values()]  # fmt: skip
    print_json(rows) if as_json else print_table(rows)


@tasks_app.command("show")
def tasks_show(task: Annotated[str, typer.Argument(help="Built-in task or TOML file.")], as_json: Json = False) -> None:
    """Print a task as it is read: every default filled in."""
    import tomli_w

    from bert_ft.errors import UNSEEN
    from bert_ft.task import load_task

    tree = load_task(task).dump()
    if as_json:
        print_json(tree)
        return
    text = tomli_w.dumps({key: value for key, value in tree.items() if key != "run"})
    # what can't be seen in its strings as an escape of TOML; the line breaks are between them
    text = UNSEEN.sub(lambda match: "\n" if match[0] == "\n" else f"\\U{ord(match[0]):08x}", text)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "toml", background_color="default"))
    else:
        print(text, end="")


@tasks_app.command("copy")
def tasks_copy(
    task: Annotated[str, typer.Argument(help="Built-in task.")],
    to: Annotated[str | None, typer.Argument(metavar="FILE", help="<task>.toml here by default.")] = None,
) -> None:
    """Write a built-in task's file here, with the rows that ship beside it, to edit and train: bert-ft train FILE.toml."""
    from bert_ft import rundir
    from bert_ft.errors import InputError
    from bert_ft.task import find, load_task

    source, target = find(task), Path(to or f"{task}.toml")
    if target.is_dir():
        target = target / f"{task}.toml"
    data = source.resolve().with_suffix("")
    pairs = [(source, target)]
    if load_task(source).data.path == str(data):  # rows of our own, which the file names by a relative path
        pairs += [(file, target.parent / data.name / file.name) for file in sorted(data.iterdir())]
    for _, place in pairs:
        if place.exists():
            raise InputError("there is a file already", where=str(place), remedy="name another one")
    for file, place in pairs:
        rundir.write(place, file.read_text(encoding="utf-8"))
    print_line(target)


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context, as_json: Json = False) -> None:
    """Show where the cache of tokenized rows lies ($BERT_FT_CACHE) and how big it is."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.engine import features

    kept, place = features.kept(), str(features.root())
    total = sum(entry["bytes"] for entry in kept)
    if as_json:
        print_json({"folder": place, "bytes": total, "entries": kept})
        return
    if kept:
        print_table([{"entry": e["entry"], "rows": f"{e['rows']:,}", "tokens": f"{e['tokens']:,}", "size": _size(e["bytes"]),
                 "made": f"{datetime.fromtimestamp(e['made']):%Y-%m-%d %H:%M}"} for e in kept])  # fmt: skip
    print_line(f"{place}: {len(kept)} entries, {_size(total)}")


@cache_app.command("clear")
def cache_clear(as_json: Json = False) -> None:
    """Empty the cache of tokenized rows; what is needed again is made again."""
    from bert_ft.engine import features

    place, freed = str(features.root()), features.clear()
    print_json({"folder": place, "freed": freed}) if as_json else print_line(f"{place}: {_size(freed)} freed")


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
