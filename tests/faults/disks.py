"""Disks at fault under every writer: full, read-only, without sync, rename or locks.

    python -m tests.faults.disks --every 1 --faults full read-only
    unshare -m python -m tests.faults.disks --tmpfs        # a real disk of so many pages, each number of them

A fault begins at the n-th event of a writer's files. The command then has to end in one message, or as if nothing were
wrong; and the same command, on a disk that is well again, with the same files as one that was left alone, byte for byte.
"""

from __future__ import annotations

import argparse
import errno
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.children import (
    ALWAYS,
    CHANGES,
    CREATE,
    FOLDER,
    LOCK,
    RENAME,
    SYNC,
    WRITE,
    Child,
    End,
    Fault,
    preloaded,
    scratch,
)
from tests.faults.kills import Campaign
from tests.faults.writers import Stage

PAGE = 4096


@dataclass(frozen=True)
class Kind:
    """A disk's fault: which events fail, with which error; `once`: the n-th alone, not all that follow."""

    events: int
    error: int
    once: bool = False


KINDS = {
    "full": Kind(CREATE | WRITE | FOLDER, errno.ENOSPC),
    "read-only": Kind(CHANGES, errno.EROFS),
    "quota": Kind(CREATE | WRITE | FOLDER, errno.EDQUOT),
    "no sync": Kind(SYNC, errno.EIO, once=True),
    "write error": Kind(WRITE, errno.EIO, once=True),
    "no rename": Kind(RENAME, errno.EXDEV),
    "no locks": Kind(LOCK, errno.ENOLCK),
    "locks unknown": Kind(LOCK, errno.EOPNOTSUPP),
}


@dataclass
class Found:
    """What became of the trials of a fault."""

    trials: int = 0
    ended: int = 0  # as if nothing were wrong
    said: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Disks(Campaign):
    """The trials of faults that disks have."""

    def events(self, name: str, kind: Kind) -> int:
        """How many events of a kind a whole run has."""
        hub = self._start(name)
        end = Child(
            self.writers[name].work, self.stage.logs, Fault(self.stage.place, ALWAYS, kinds=kind.events)
        ).wait()
        if hub is not None:
            hub.stop()
        assert end.code == 0, end.shown
        return end.events

    def at(self, name: str, what: str, numbers: Iterable[int], expected: dict[str, str]) -> Found:
        """A writer at each of these events."""
        kind, found, writer = KINDS[what], Found(), self.writers[name]
        for number in numbers:
            hub = self._start(name)
            fault = Fault(self.stage.place, number, number if kind.once else ALWAYS, kind.events, kind.error)
            end = Child(writer.work, self.stage.logs, fault).wait()
            faults = self.judged(end, found)
            again = Child(writer.work, self.stage.logs).wait()
            if again.code != 0:
                faults.append(f"the same command again: {again.code}: {again.shown[-800:]}")
            self._compare(name, f"{what} at {number}", self._listing(hub), expected, faults, found)
        return found

    def judged(self, end: End, found: Found) -> list[str]:
        """What is wrong with how a command ended on a disk at fault."""
        found.trials += 1
        if end.code == 0:
            found.ended += 1
            return []
        last = [line for line in end.shown.splitlines() if line.startswith("bert-ft: ")]
        found.said[last[-1].rpartition(": ")[2] if last else ""] += 1
        right = end.code in (1, 2) and end.is_told and len(last) == 1
        return [] if right else [f"ended with {end.code}: {end.shown[-800:]}"]

    def _compare(
        self,
        name: str,
        what: str,
        left: dict[str, str],
        expected: dict[str, str],
        faults: list[str],
        found: Found,
    ) -> None:
        # a cache that could not be written is none, and the command does without
        expected = {
            key: digest for key, digest in expected.items() if not key.startswith("cache/") or key in left
        }
        if left != expected:
            keys = sorted(key for key in left.keys() | expected.keys() if left.get(key) != expected.get(key))
            faults.append(f"differs: {keys}")
        for fault in faults:
            found.faults.append(f"{name}, {what}: {fault}")
            print(found.faults[-1], file=sys.stderr, flush=True)
        if faults and self.kept is not None:
            place = self.kept / f"{name}-{what}".replace(" ", "-")
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.stage.place, place, symlinks=True)

    # --- a real disk --------------------------------------------------------------------------------------------------

    def pages(self, name: str, first: int, every: int, expected: dict[str, str]) -> Found:
        """A writer on a disk with `first`, and `every` more, pages left, until it has had enough of them."""
        found, writer, enough, left = Found(), self.writers[name], 0, first
        while enough < 3:
            resize(self.stage.place, 2**30)
            hub = self._start(name)
            resize(self.stage.place, used(self.stage.place) + left * PAGE)
            end = Child(writer.work, self.stage.logs).wait()
            faults = self.judged(end, found)
            enough = enough + 1 if end.code == 0 else 0
            resize(self.stage.place, 2**30)
            again = Child(writer.work, self.stage.logs).wait()
            if again.code != 0:
                faults.append(f"the same command again: {again.code}: {again.shown[-800:]}")
            self._compare(name, f"{left} pages", self._listing(hub), expected, faults, found)
            left += every
        return found


def resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={max(size, PAGE)}", place], check=True)


def used(place: Path) -> int:
    return shutil.disk_usage(place).used


def _rows(found: dict[tuple[str, str], Found]) -> Iterator[str]:
    yield "| fault | writer | times | ended well | the user saw | faults |\n|---|---|---:|---:|---|---:|"
    for (what, name), each in found.items():
        said = "; ".join(f"{text} ({count})" for text, count in each.said.most_common(4))
        yield f"| {what} | {name} | {each.trials} | {each.ended} | {said} | {len(each.faults)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="of the events, or pages")
    parser.add_argument("--first", type=int, default=0, help="of the pages")
    parser.add_argument("--most", type=int, default=10**9, help="events of a writer, at most")
    parser.add_argument("--faults", nargs="*", default=list(KINDS))
    parser.add_argument("--writers", nargs="*", default=[])
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--tmpfs", action="store_true")
    options = parser.parse_args()
    preloaded("tests.faults.disks")
    found: dict[tuple[str, str], Found] = {}
    with scratch() as folder:
        stage = Stage(folder)
        if options.tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", stage.place], check=True)
            stage.enter()
        campaign = Disks(stage, options.kept)
        for name in campaign.writers:
            if options.writers and name not in options.writers:
                continue
            start, (expected, _, _) = time.monotonic(), campaign.whole(name)
            if options.tmpfs:
                found["pages", name] = campaign.pages(name, options.first, options.every, expected)
            else:
                for what in options.faults:
                    events = campaign.events(name, KINDS[what])
                    every = max(options.every, -(-events // options.most))
                    numbers = range(1, events + 1, every)
                    found[what, name] = campaign.at(name, what, numbers, expected)
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        print("\n".join(_rows(found)))
        if options.tmpfs:
            import os

            os.chdir("/")
            subprocess.run(["umount", stage.place], check=True)
    raise SystemExit(any(each.faults for each in found.values()))


if __name__ == "__main__":
    main()
