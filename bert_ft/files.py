"""Files that are written: whole or not there at all, and never through a link that somebody else may have
made."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bert_ft import reading
from bert_ft.errors import InputError, disk, no_locks

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp(\.older)?")
"""The names of what is being written; one that a killed process left bears such a name too, and is known by
that no process holds its lock."""
CREATE_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
GUARDS: list[Callable[[], None]] = []
"""What is called before a file is written, replaced or deleted: a worker whose run another one has taken over
ends there."""


def guard() -> None:
    """Calls the guards; for who writes by other ways than those of this module."""
    for each in GUARDS:
        each()


def refuse_link(path: Path) -> None:
    """Raises InputError where a link, a pipe or a device is in the place of a file or folder that is to be
    written."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing there; or its folder can't be read, which fails when it is written
    if stat.S_ISLNK(mode):
        raise InputError(
            "this is a link; links are neither followed nor replaced when a file is written",
            where=str(path),
            remedy="name the file that it points to, or remove the link",
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError("this is not a regular file", where=str(path), remedy="write to another file")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new and empty file in the folder of `path`, which takes its place at the end; after an error it is
    gone.

    It is created exclusively under a name that nobody can foresee, with the permissions of any new file.

    Raises:
        InputError: `path` is a link, a pipe or a device.
    """
    guard()
    refuse_link(path)
    with _held_beside(path, lambda new: os.open(new, CREATE_NEW, 0o666)) as temporary:
        yield temporary
        guard()
        temporary.replace(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """As `beside`, a new folder: at the end its entries are those of the folder `path`, whose other ones
    stay."""

    def make(new: Path) -> int:
        new.mkdir()
        return os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    guard()
    refuse_link(path)
    with _held_beside(path, make) as temporary:
        yield temporary
        guard()
        if path.is_dir():
            for entry in temporary.iterdir():
                entry.replace(path / entry.name)
        else:
            temporary.rename(path)


@contextmanager
def _held_beside(path: Path, make: Callable[[Path], int]) -> Iterator[Path]:
    """What `make` creates beside `path` and opens, locked inside and gone at the end; what killed processes
    left of the same kind is gone before."""
    sweep(path.parent, re.compile(re.escape(_stem(path)) + r"[0-9a-f]{16}\.tmp(\.older)?"))
    while True:
        temporary = path.with_name(f"{_stem(path)}{secrets.token_hex(8)}.tmp")
        try:
            descriptor = make(temporary)
        except OSError as error:
            error.filename = str(path)  # the name that a person knows
            raise
        _lock(descriptor, wait=True)
        if temporary.exists():  # else it was swept away before it was locked
            break
        os.close(descriptor)
    try:
        yield temporary
    finally:
        os.close(descriptor)
        remove(temporary)


def sweep(folder: Path, names: re.Pattern[str]) -> None:
    """Deletes the files and folders of these names that no process holds."""
    with suppress(OSError):  # a folder that is not there yet, or can't be read
        for entry in list(os.scandir(folder)):
            if not names.fullmatch(entry.name) or entry.is_symlink():
                continue
            with suppress(OSError):
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if _lock(descriptor):
                        remove(Path(entry.path))
                finally:
                    os.close(descriptor)


def _lock(descriptor: int, wait: bool = False) -> bool:
    """Locks what is open until it is closed, and returns whether that could be done: not where another
    process holds it, or the file system has no locks."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


def hold(folder: Path) -> int:
    """A descriptor that keeps a folder from being swept until it is closed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    _lock(descriptor, wait=True)
    return descriptor


def remove(path: Path) -> None:
    """Deletes a file, a folder with all that is in it, or a link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def opened(path: Path, mode: str = "a") -> IO[Any]:
    """The file open for writing in place, appended to ("a", "ab") or emptied ("wb").

    Raises:
        InputError: it is a link, a pipe or a device, or has a second name elsewhere (a hard link).
    """
    guard()
    refuse_link(path)
    how = os.O_TRUNC if mode.startswith("w") else os.O_APPEND
    descriptor = os.open(
        path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (how & os.O_APPEND), 0o666
    )
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(descriptor)
        raise InputError(
            "this file has a second name elsewhere (a hard link), so it can't be written safely",
            where=str(path),
            remedy="copy it: cp FILE COPY && mv COPY FILE",
        )
    if how == os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8")


def clear(folder: Path, ours: re.Pattern[str]) -> None:
    """Deletes what bears a name of ours in a folder, and the folder once it is empty; anything else stays.

    Raises:
        InputError: the folder is a link.
    """
    guard()
    refuse_link(folder)
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not ours.fullmatch(entry.name):
            continue
        remove(entry)  # of a link the link itself
    if not any(folder.iterdir()):
        folder.rmdir()


def _stem(path: Path) -> str:
    """How the names of what is written in the place of `path` begin."""
    return f".{path.name[:40]}."


LARGEST = 100_000_000  # bytes of one of a run's JSON files, or of a line of its logs and predictions


def locked(file: Path, wait: bool = False) -> IO[str] | None:
    """The file, locked until it is closed or the process ends; None where another has it and is not waited
    for.

    Raises:
        MachineError: the file system has no locks.
    """
    import fcntl

    with disk(file):
        stream = opened(file)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        stream.close()
        return None
    except OSError as error:
        stream.close()
        raise no_locks(file.parent, error) from None
    return stream


def fill(stream: IO[str], path: Path, text: str) -> None:
    """Makes a text the content of a file that is open and locked. It is written at once, so that a full disk
    is told here and not, once more, where the file is closed."""
    with disk(path):
        os.ftruncate(stream.fileno(), 0)
        os.write(stream.fileno(), text.encode())


def write(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Writes a file whole, a text, its lines or bytes: to a temporary neighbour, synced, renamed. A link is
    refused."""
    parts = [content] if isinstance(content, (str, bytes)) else content
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary, temporary.open("wb") as stream:
            stream.writelines(part.encode() if isinstance(part, str) else part for part in parts)
            stream.flush()
            os.fsync(stream.fileno())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """An undefined metric (nan) is null: JSON has no nan."""
    write(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of one object a line, whole or not there."""
    write(path, (json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path, growing: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a file of one a line; of one that is still `growing`, without a last line that is not
    ended yet.

    Raises:
        InputError: a line that is no object, with its number.
    """
    with path.open(encoding="utf-8") as stream:
        try:
            for number, line in enumerate(iter(lambda: stream.readline(LARGEST), ""), 1):
                if not line.strip():
                    continue
                try:
                    value = reading.strict(line)
                except ValueError as error:
                    if growing and not line.endswith("\n") and len(line) < LARGEST:
                        return
                    raise InputError(f"not JSON: {error}", where=f"{path}, line {number}") from None
                if not isinstance(value, dict):
                    raise InputError(
                        f"expected a JSON object, got {type(value).__name__}", where=f"{path}, line {number}"
                    )
                yield value
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8: {error}", where=str(path)) from None


def finite(value: Any) -> Any:
    """The value with nan and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` of every value that differs between two trees."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_short(a)} -> {_short(b)}")
    return lines


def _short(value: Any) -> str:
    text = "(none)" if value is None else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def first_process() -> bool:
    """Whether this is the process that writes and prints; a launcher (torchrun, accelerate) says so before
    torch does."""
    return os.environ.get("RANK", "0") == "0"
