"""`bert-ft report`: write the report of a run anew, or one of several."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import app, note, print_line


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The HTML file; RUN/report.html for a single run.")
    ] = None,
) -> None:
    """Write the report of a run anew, or one of several runs side by side; those that can't be read are told
    and left out.

    \b
    bert-ft report runs/mrpc-bert-base-uncased-seed1 runs/mrpc-bert-base-uncased-seed2 -o mrpc.html
    """
    from bert_ft import files, reading
    from bert_ft.errors import InputError
    from bert_ft.pages import run_page
    from bert_ft.run import Run
    from bert_ft.rundir.folder import RunDir

    if len(runs) > 1 and output is None:
        raise InputError(
            "several runs share one report", where="bert-ft report", remedy="name its file: -o report.html"
        )
    views: list[run_page.View] = []
    for run in runs:
        try:
            view = run_page.view_of(Run(run).dir)
        except InputError as error:
            if len(runs) == 1:
                raise
            note(*error.lines)
        else:
            views.append(view)
    if not views:
        raise InputError("none of these runs can be read", where="bert-ft report")
    target = reading.path(output) if output is not None else RunDir(views[0].path).report_html
    files.write(target, run_page.html(views))
    print_line(target)
    if len(views) < len(runs):
        note(f"{len(runs) - len(views)} of {len(runs)} runs can't be read, and are left out")
        raise SystemExit(2)
