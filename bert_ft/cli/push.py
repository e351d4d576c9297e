"""`bert-ft push`: a run's model on the hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from bert_ft.cli.options import Json, app, note, print_json, print_line, print_table


@app.command()
def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run that kept its model.")],
    repo: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="The repository; created where there is none.")
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may see it; private by default.")
    ] = False,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="PART", help="Also predictions, or report (it quotes texts); may be repeated."
        ),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be pushed, and push nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Push a run's model and its card to the hub, in one commit; no data and no predictions unless asked.

    \b
    bert-ft push runs/mrpc-bert-base-uncased-seed42 me/mrpc-bert --dry-run
    """
    from bert_ft.tools.push import push

    done = push(run, repo, public=public, more=more or (), message=message, dry_run=dry_run)
    if as_json:
        print_json(asdict(done))
        return
    rows = [{"file": name, "bytes": f"{size:,}"} for name, size in done.files.items()]
    print_table(rows + [{"file": name, "bytes": "removed there"} for name in done.removed])
    seen = "private" if done.private else "everybody sees it"
    if dry_run:
        note(f"{repo} ({seen}): nothing was pushed")
    elif not done.changed:
        note(f"{repo} ({seen}) has all this already")
    else:
        note(f"{repo} ({seen}): commit {done.commit}")
    if done.url:
        print_line(done.url)
