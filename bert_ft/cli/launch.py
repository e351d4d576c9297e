"""`bert-ft launch-config`: where the configurations for several processes lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bert_ft.cli.options import app


@app.command("launch-config")
def launch_config(
    name: Annotated[
        str | None, typer.Argument(help="one_machine, several_machines or fsdp; all of them by default.")
    ] = None,
) -> None:
    """Print where a configuration of accelerate for several processes lies.

    \b
    accelerate launch --config_file "$(bert-ft launch-config one_machine)" -m bert_ft train mrpc -c ORG/NAME
    """
    from bert_ft.errors import InputError, did_you_mean

    files = {file.stem: file for file in sorted((Path(__file__).parents[1] / "launch").glob("*.yaml"))}
    if name is not None and name not in files:
        raise InputError(f"no configuration '{name}'", remedy=did_you_mean(name, files))
    print("\n".join(str(file) for stem, file in files.items() if name in (None, stem)))
