"""The command line: a short function a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from bert_ft.cli import judge, look, reproduce, search, work  # noqa: F401 - importing them adds their commands
from bert_ft.cli.options import app, fail, note

DEBUG = "--debug"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command. Exit codes: 0 done; 2 the user's input is at fault; 1 anything else; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in arguments
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app([argument for argument in arguments if argument != DEBUG], prog_name="bert-ft", standalone_mode=True)
    except SystemExit as left:
        if left.code == 130:  # typer's way to leave after Ctrl-C
            note("bert-ft: interrupted")
        raise
    except BrokenPipeError:
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        from bert_ft.errors import BertFtError

        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # so that the launcher's last lines name the cause
            from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

            ErrorHandler().record_exception(error)
        if isinstance(error, BertFtError):
            fail(str(error), error.exit_code)
        fail(f"{type(error).__name__}: {error}\n  this is a fault of bert-ft or of the machine; --debug shows where", 1)
    raise SystemExit(0)
