"""The lease of a run: how workers of several machines keep out of each other's way.

A lock of the kernel is exact on one machine; that of another machine may not be seen, or may outlive it. A
worker of a cluster therefore holds a lease in its place, a file `.lease-N` in the run's folder:

- Its holder counts up in it, four times in its time. Clocks of two machines are never compared: another
  worker takes over once it has seen, by its own clock, no change for the whole time that the file says.
- To take over is to create `.lease-(N+1)`, which only one can, and then to remove the older file.
- A holder that could not count up in time (it was stopped, or its disk was away) writes nothing before it has
  seen that its file is still there. Where it is not, it ends on the spot.

What remains: a process that is stopped between that look and the very write that follows it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
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
LOST = 75  # exit code of a worker whose run another one has taken over

_seen: dict[Path, tuple[bytes, float]] = {}
"""What this process last saw of the lease in a folder, and since when it has been the same."""


def clock() -> float:
    """Seconds, also those that the machine slept, where it can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def requested() -> float | None:
    """The seconds of the leases that this process's runs are held by; None where locks hold them."""
    text = os.environ.get(VARIABLE, "")
    return float(text) if text else None


def newest(folder: Path) -> Path | None:
    """The file of the newest lease in a folder; None where there is none."""
    with suppress(OSError):
        found = [
            (int(match[1]), entry) for entry in folder.iterdir() if (match := NAME.fullmatch(entry.name))
        ]
        return max(found)[1] if found else None
    return None


def alive(folder: Path, now: Callable[[], float] = clock) -> bool:
    """Whether a run is held by a lease. One that does not change is held until this process has seen it the
    same for its whole time: at the first look, always."""
    content = _content(folder)
    if content is None:
        _seen.pop(folder, None)
        return False
    before, since = _seen.setdefault(folder, (content, now()))
    if content != before:
        _seen[folder] = content, now()
        return True
    seconds = _fields(content).get("seconds")
    return now() - since < (seconds if isinstance(seconds, float) else SECONDS)


def holder(folder: Path) -> str:
    """Who holds the newest lease, in words."""
    fields = _fields(_content(folder) or b"")
    return f"process {fields.get('process', '?')} on {fields.get('node', '?')}"


def _content(folder: Path) -> bytes | None:
    """Name and content of the newest lease's file."""
    while (file := newest(folder)) is not None:
        with suppress(FileNotFoundError):
            return file.name.encode() + file.read_bytes()
    return None


def _fields(content: bytes) -> dict[str, object]:
    with suppress(ValueError):  # it is being written, or another program wrote it
        value = json.loads(content[content.index(b"{") :])
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
                if _fields(self.file.read_bytes()).get("owner") != self.owner:
                    return False
                self._write()
            except FileNotFoundError:
                return False
            self.renewed = began
        return True

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
    held = _content(folder)
    while alive(folder):
        if _content(folder) not in (held, None):
            raise _refusal(folder)
        time.sleep(min(0.5, seconds / 8))
    last = newest(folder)
    number = int(last.name.rpartition("-")[2]) if last else 0
    with disk(folder):
        try:
            lease = Lease(folder / f".lease-{number + 1}", seconds)
        except FileExistsError:
            raise _refusal(folder) from None
        if newest(folder) != lease.file:  # one that came before saw an older state than this one
            lease.release()
            raise _refusal(folder)
        for entry in [entry for entry in folder.iterdir() if NAME.fullmatch(entry.name)]:
            if entry != lease.file:
                entry.unlink(missing_ok=True)
    return lease


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
    if seconds is None and newest(folder) is None:
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
