"""Files that are written: whole or not there at all, and never through a link that somebody else may have made."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bert_ft.errors import InputError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
"""The names of what is being written; one that a killed process left bears such a name too."""


def refuse_link(path: Path) -> None:
    """Raises InputError where a link, a pipe or a device stands in the place of a file or folder that is to be written."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing there; or its folder can't be read, which writing tells
    if stat.S_ISLNK(mode):
        raise InputError("this is a link, which is neither written through nor replaced", where=str(path),
                         remedy="name the file that is meant, or remove the link")  # fmt: skip
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError("this is no file, so it is not written", where=str(path), remedy="name another one")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new and empty file in the folder of `path`, which takes its place at the end; after an error it is gone.

    It is created exclusively under a name that nobody can foresee, with the permissions of any new file.

    Raises:
        InputError: `path` is a link, a pipe or a device.
    """
    refuse_link(path)
    temporary = _temporary(path)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    except OSError as error:
        error.filename = str(path)  # the name that a person knows
        raise
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """As `beside`, a new folder: at the end its entries are those of the folder `path`, whose other ones stay."""
    refuse_link(path)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            for entry in temporary.iterdir():
                entry.replace(path / entry.name)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def opened(path: Path, mode: str = "a") -> IO[Any]:
    """The file open for writing in place, appended to ("a", "ab") or emptied ("wb").

    Raises:
        InputError: it is a link, a pipe or a device, or has a second name elsewhere (a hard link).
    """
    refuse_link(path)
    how = os.O_TRUNC if mode.startswith("w") else os.O_APPEND
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (how & os.O_APPEND), 0o666)
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(descriptor)
        raise InputError("this file has a second name elsewhere (a hard link), so it is not written in place",
                         where=str(path), remedy="copy it: cp FILE COPY && mv COPY FILE")  # fmt: skip
    if how == os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8")


def clear(folder: Path, ours: re.Pattern[str]) -> None:
    """Deletes what bears a name of ours in a folder, and the folder once it is empty; anything else stays.

    Raises:
        InputError: the folder is a link.
    """
    refuse_link(folder)
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not ours.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)  # of a link the link itself
    if not any(folder.iterdir()):
        folder.rmdir()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
