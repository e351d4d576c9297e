"""The command line: a short function a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from typing import NoReturn

# isort: off
from bert_ft.cli import compare, runs, report, tasks, cache  # noqa: F401 - importing them adds their commands,
from bert_ft.cli import reproduce, search, curve, train, check, evaluate, predict, export, embed, push, launch  # noqa: F401 - in the help's order
from bert_ft.cli import app as _app  # noqa: F401 - another name: `app` is what holds the commands

# isort: on
from bert_ft.cli.options import app, fail, note

DEBUG = "--debug"
NO_FILE = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What is wrong with a file that the user named: it is not there, can't be read, or can't have this name."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command. Exit codes: 0 done; 2 the user's input is at fault; 1 anything else; 130 after
    Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in arguments
    if nul := [argument for argument in arguments if "\0" in argument]:
        fail(f"{nul[0]}: no argument can hold a NUL character", 2)
    _open_streams()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.setLogRecordFactory(_Line)
    warnings.formatwarning = _warning
    try:
        app(
            [argument for argument in arguments if argument != DEBUG],
            prog_name="bert-ft",
            standalone_mode=True,
        )
    except SystemExit as left:
        if left.code == 130:  # typer's way to leave after Ctrl-C
            note("bert-ft: interrupted")
        raise
    except BrokenPipeError:
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        from bert_ft.errors import BertFtError, no_memory, shown

        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # so that the launcher's last lines name the cause
            from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

            ErrorHandler().record_exception(error)
        error = no_memory(error) or error
        if isinstance(error, BertFtError):
            first, *more = error.lines
            fail(first, error.exit_code, *more)
        if isinstance(error, OSError) and error.filename is not None and error.errno in NO_FILE:
            fail(f"{shown(error.filename)}: {error.strerror}", 2)
        if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":  # files are in UTF-8
            character = error.object[error.start]
            fail(
                f"standard output is in {error.encoding}, which has no {character!a}",
                2,
                "  set PYTHONIOENCODING=utf-8 (or PYTHONUTF8=1), or name a file to write to",
            )
        message = " ".join(str(error).split())
        fail(
            f"{type(error).__name__}: {message}",
            1,
            "  this is a fault of bert-ft or of the machine; --debug shows where",
        )
    raise SystemExit(0)


def _open_streams() -> None:
    """A process may be started with its output closed, as by `>&-`: then there is none to write to, and what
    libraries print would get into the file that is opened next."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it stays open
        note("bert-ft: standard output is closed: what is printed there is lost")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


class _Line(logging.LogRecord):
    """What a library logs: it may quote a file, and is one line all the same."""

    def getMessage(self) -> str:
        from bert_ft.errors import shown

        return shown(super().getMessage())


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A library's warning, in the same way; without the line of its source."""
    from bert_ft.errors import shown

    return f"{shown(filename)}:{lineno}: {category.__name__}: {shown(message)}\n"
