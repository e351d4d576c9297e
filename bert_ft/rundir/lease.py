"""The lease of a run: how workers of several machines keep out of each other's way.

A lock of the kernel is exact on one machine; that of another machine may not be seen, or may outlive it. A
worker of a cluster therefore holds a lease in its place, a file `.lease-N` in the run's folder:

- Its holder counts up in it, four times in its time. Clocks of two machines are never compared: another
  worker takes over once it has seen, by its own clock, no change for the whole time that the file says.
- To take over is to create `.lease-(N+1)`, which only one can, and then to take the older file away by its
  name. If that turns out to be another than the one that was watched, it is put back.
- A holder looks for its file by that name after each count. One that could not count up in time (it was
  stopped, or its disk was away) does so before it writes anything else. Where it is gone, the process ends on
  the spot.

What remains: a process that is stopped between that look and the very write that follows it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from bert_ft import files
from bert_ft.errors import InputError, disk

VARIABLE = "BERT_FT_LEASE"
"""Environment variable of a process whose runs are held by a lease: its seconds."""
SECONDS = 20.0
NAME = re.compile(r"\.lease-(\d+)")
HELD = "another command is working on this run"
LARGEST = 10_000  # bytes of a lease
LOST = 75  # exit code of a worker whose run another one has taken over

Seen = dict[int, bytes]
"""Number -> content of the leases' files in a folder: one, or more where somebody died while taking over."""
_seen: dict[Path, tuple[Seen, float]] = {}
"""What this process last saw of the leases in a folder, and since when they have been the same."""


def clock() -> float:
    """Seconds, also those that the machine slept, where it can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def requested() -> float | None:
    """The seconds of the leases that this process's runs are held by; None where locks hold them."""
    text = os.environ.get(VARIABLE, "")
    return float(text) if text else None


def alive(folder: Path, now: Callable[[], float] = clock) -> bool:
    """Whether a run is held by a lease. One that does not change is held until this process has seen it the
    same for its whole time: at the first look, always."""
    return _alive(folder, _files(folder), now)


def _alive(folder: Path, found: Seen, now: Callable[[], float]) -> bool:
    if not found:
        _seen.pop(folder, None)
        return False
    before, since = _seen.setdefault(folder, (found, now()))
    if found != before:
        _seen[folder] = found, now()
        return True
    told = [_fields(content).get("seconds") for content in found.values()]
    return now() - since < max(seconds if isinstance(seconds, float) else SECONDS for seconds in told)


def holder(folder: Path) -> str:
    """Who holds the newest lease, in words."""
    found = _files(folder)
    fields = _fields(found[max(found)]) if found else {}
    return f"process {fields.get('process', '?')} on {fields.get('node', '?')}"


def _files(folder: Path) -> Seen:
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if match := NAME.fullmatch(entry.name):
            with suppress(FileNotFoundError):
                found[int(match[1])] = _content(entry)
    return found


def _content(entry: Path) -> bytes:
    """What a lease's file says; nothing where it is none of ours, but a pipe, a device or a large file."""
    descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return stream.read(LARGEST) if regular else b""


def _fields(content: bytes) -> dict[str, object]:
    with suppress(ValueError, RecursionError):  # it is being written, or another program wrote it
        value = json.loads(content)
        return value if isinstance(value, dict) else {}
    return {}


class Lease:
    """A lease that this process holds.

    Args:
        file: its own, which nobody else writes. seconds: how long it stands without being renewed.
    """

    def __init__(self, file: Path, seconds: float, now: Callable[[], float] = clock) -> None:
        self.file, self.seconds, self.now = file, seconds, now
        self.owner = secrets.token_hex(8)
        self.count = 0
        self.renewed = now()
        self.writing = threading.Lock()
        self._write(create=True)

    def renew(self) -> bool:
        """Counts up, and returns whether the lease is still this process's."""
        with self.writing:
            began = self.now()
            try:
                if not self._mine():
                    return False
                self._write()
                if not self._mine():  # it was taken away before that was written
                    return False
            except FileNotFoundError:
                return False
            self.renewed = began
        return True

    def _mine(self) -> bool:
        return _fields(self.file.read_bytes()).get("owner") == self.owner

    def guard(self) -> None:
        """What is called before anything is written: ends the process where the lease may be lost, and is."""
        if self.now() - self.renewed > self.seconds / 2 and not self.renew():
            self.end()

    def end(self) -> NoReturn:
        """Ends this process on the spot: an exception would clean up, and so write."""
        message = f"{HELD}: it has taken over, since this process stood still for too long"
        print(f"bert-ft: {self.file.parent}: {message}", file=sys.stderr, flush=True)
        os._exit(LOST)

    def keep(self, stop: threading.Event) -> None:
        """Renews it until `stop`; what a thread does."""
        while not stop.wait(self.seconds / 4):
            with suppress(OSError):  # a disk that is away for a moment; `guard` asks again before a write
                if not self.renew():
                    self.end()

    def release(self) -> None:
        """Gives it back, if it is still this process's."""
        if self.renew():
            self.file.unlink(missing_ok=True)

    def _write(self, create: bool = False) -> None:
        self.count += 1
        told = {"owner": self.owner, "count": self.count, "seconds": self.seconds}
        told |= {"process": os.getpid(), "node": platform.node()}
        flags = os.O_WRONLY | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
        with os.fdopen(os.open(self.file, flags, 0o666), "wb") as stream:
            stream.write(json.dumps(told).encode().ljust(200) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def take(folder: Path, seconds: float) -> Lease:
    """A lease of a run's folder.

    Raises:
        InputError: another worker holds one.
    """
    watched = first = _files(folder)
    while _alive(folder, watched, clock):
        if watched != first:
            raise _refusal(folder)
        time.sleep(min(0.5, seconds / 8))
        watched = _files(folder)
    number = max(watched, default=0) + 1
    with disk(folder):
        try:
            lease = Lease(folder / f".lease-{number}", seconds)
        except FileExistsError:
            raise _refusal(folder) from None
        others = sorted(_files(folder).keys() - {number})
        if not all(_taken_away(folder / f".lease-{each}", watched.get(each)) for each in others):
            lease.release()
            raise _refusal(folder)
    return lease


def _taken_away(file: Path, watched: bytes | None) -> bool:
    """Takes away the file of a lease if it is the one that was watched, as it was; returns whether it is
    gone."""
    aside = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    with suppress(FileNotFoundError):
        file.rename(aside)  # from here on its holder can't count up
        if aside.read_bytes() != watched:
            aside.rename(file)
            return False
        aside.unlink()
    return True


def _refusal(folder: Path) -> InputError:
    return InputError(
        f"{HELD}: {holder(folder)}",
        where=str(folder),
        remedy="wait for it, or choose another place with --output DIR",
    )


@contextmanager
def held(folder: Path, seconds: float | None) -> Iterator[bool]:
    """Inside, this process holds a lease of the folder; its value is whether it does: without `seconds` only
    where somebody else's lies there, who may be dead. Errors as of `take`."""
    if seconds is None and not _files(folder):
        yield False
        return
    lease, stop = take(folder, seconds or SECONDS), threading.Event()
    thread = threading.Thread(target=lease.keep, args=(stop,), daemon=True)
    thread.start()
    files.GUARDS.append(lease.guard)
    try:
        yield True
    finally:
        files.GUARDS.remove(lease.guard)
        stop.set()
        thread.join()
        lease.release()
