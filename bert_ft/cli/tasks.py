"""`bert-ft tasks`: list the built-in tasks; show or copy one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bert_ft.cli.options import Json, print_json, print_line, print_table, tasks_app


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context, as_json: Json = False) -> None:
    """List the built-in tasks, the measurements of frozen encoders, and the suites."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.config import frozen
    from bert_ft.config.catalog import builtin, load_task, suites
    from bert_ft.config.catalog import frozen as measurements

    loaded = [load_task(path) for path in builtin().values()]
    rows = [
        {
            "task": t.name,
            "family": t.family,
            "metrics": ", ".join(t.metric.compute),
            "references": str(len(t.reference)),
            "title": t.title,
        }
        for t in loaded
    ]
    rows += [
        {
            "task": m.name,
            "family": f"frozen {m.measure.measure}",
            "metrics": ", ".join(m.metrics),
            "references": str(len(m.references)),
            "title": m.task.title,
        }
        for m in map(frozen.load, measurements().values())
    ]
    rows += [
        {
            "task": s.name,
            "family": "suite",
            "metrics": "the mean of " + ", ".join(s.tasks),
            "references": "",
            "title": s.title,
        }
        for s in suites().values()
    ]
    print_json(rows) if as_json else print_table(rows)


@tasks_app.command("show")
def tasks_show(
    task: Annotated[str, typer.Argument(help="Built-in task or TOML file.")], as_json: Json = False
) -> None:
    """Print a task as it is read: every default filled in, and its published numbers, which lie in a file of
    their own beside the task's."""
    import tomli_w

    from bert_ft.config import frozen
    from bert_ft.config.catalog import load_task
    from bert_ft.errors import UNSEEN

    tree = frozen.load(task).dump() if frozen.is_frozen(task) else load_task(task).dump()
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
    """Write a built-in task's file here, with the published numbers and the rows that ship beside it, to edit
    and train: bert-ft train FILE.toml."""
    from bert_ft import files, reading
    from bert_ft.config import frozen
    from bert_ft.config.catalog import find, load_task, references_file
    from bert_ft.errors import InputError

    source, target = find(task), reading.path(to or f"{task}.toml")
    if target.is_dir():
        target = target / f"{task}.toml"
    data = source.resolve().with_suffix("")
    pairs = [(source, target)]
    if (references := references_file(source)).is_file():
        pairs.append((references, references_file(target)))
    rows = frozen.load(source).task.data if frozen.is_frozen(source) else load_task(source).data
    if rows.path == str(data):  # rows of our own, which the file names by a relative path
        pairs += [(file, target.parent / data.name / file.name) for file in sorted(data.iterdir())]
    for _, place in pairs:
        if place.exists():
            raise InputError("there is a file already", where=str(place), remedy="name another one")
    for file, place in pairs:
        files.write(place, file.read_text(encoding="utf-8"))
    print_line(target)
