"""`bert-ft app`: a page to try a model in."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import TrustRemoteCode, app, note, print_line


@app.command("app")
def try_out(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, a model folder or a hub id.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="A free one by default.")] = 0,
    language: Annotated[
        str | None, typer.Option(help="en or zh; the language of the browser by default.")
    ] = None,
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """A page on this machine to try a model in: type, and look at the answer; Ctrl-C ends it.

    \b
    bert-ft app runs/sst2-bert-base-uncased-seed42
    """
    from bert_ft.errors import InputError, did_you_mean
    from bert_ft.tools.app import phrases, server

    if language is not None and language not in phrases.LANGUAGES:
        remedy = did_you_mean(language, phrases.LANGUAGES)
        raise InputError(f"the page does not speak '{language}'", where="--language", remedy=remedy)

    def started(address: str) -> None:
        note("The page is at the address below, for this machine alone; Ctrl-C ends it.")
        print_line(address)

    server.serve(
        run, port=port, language=language, trust_remote_code=trust_remote_code, started=started, tell=note
    )
