"""Kills every writer with SIGKILL, starts it again, and compares what it leaves with one that was left alone.

    python -m tests.faults.kills --number 1000 --seed 0

A kill comes at the n-th event of a writer's files (a write is done by half then), n drawn over all that a whole run has,
or after a time drawn over a whole run. Then every reader has to read what is there or say what is missing, nothing half
written may be left to see, and the same command has to end with the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError
from tests.faults.children import ALWAYS, Child, End, Fault, importing, preloaded, scratch
from tests.faults.writers import HubProcess, Stage, Writer, listing, writers

BY_TIME = 0.25  # of the kills
READERS = 2  # after each kill, drawn among the writer's
REFUSED = "(refused)"


@dataclass
class Tally:
    """What became of a writer's kills."""

    kills: int = 0
    at: Counter[str] = field(default_factory=Counter)  # "write" or "time"
    reads: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Campaign:
    """The kills of all writers.

    Args:
        kept: where the place of a trial with a fault is kept; None: nowhere.
    """

    def __init__(self, stage: Stage, kept: Path | None = None) -> None:
        self.stage, self.kept = stage, kept
        self.writers = writers(stage)

    def whole(self, name: str) -> tuple[dict[str, str], int, float]:
        """What a writer leaves that is left alone, its events, and its seconds; done twice, which has to be equal."""
        writer = self.writers[name]
        found = []
        for number in range(2):
            hub = self._start(name)
            count = Fault(self.stage.place, ALWAYS)
            end = self._alone(writer, name, count) if number else importing(writer.work, self.stage.logs)
            assert end.code == 0, f"{name}: {end.shown}"
            if writer.beside is not None:
                assert (beside := Child(writer.beside, self.stage.logs).wait()).code == 0, beside.shown
            found.append(self._listing(hub))
        if found[0] != found[1]:
            differing = sorted(
                key for key in found[0].keys() | found[1].keys() if found[0].get(key) != found[1].get(key)
            )
            raise AssertionError(f"{name}: two runs that are left alone differ in {differing}")
        return found[1], end.events, end.seconds

    def _alone(self, writer: Writer, name: str, fault: Fault | None) -> End:
        return Child(writer.work, self.stage.logs, fault).wait()

    def _start(self, name: str) -> HubProcess | None:
        self.stage.empty()
        self.writers[name].start()
        if name != "push":
            return None
        shutil.rmtree(self.stage.folder / "hub", ignore_errors=True)
        hub = HubProcess(self.stage.folder / "hub", self.stage.logs)
        hub.start()
        return hub

    def _listing(self, hub: HubProcess | None) -> dict[str, str]:
        if hub is not None:
            hub.stop()
        found = listing(self.stage.place)
        if hub is not None:
            found |= {f"hub/{name}": digest for name, digest in listing(hub.folder / "served").items()}
        return found

    def trials(self, name: str, kills: int, seed: int) -> Tally:
        """Kills a writer so often."""
        start, tally, number = time.monotonic(), Tally(), 0
        expected, events, seconds = self.whole(name)
        while tally.kills < kills:
            draw = random.Random(f"{seed} {name} {number}")
            hub = self._start(name)
            faults = self._trial(self.writers[name], draw, events, seconds, tally)
            left = self._listing(hub)
            if not faults and left != expected:
                keys = sorted(
                    key for key in left.keys() | expected.keys() if left.get(key) != expected.get(key)
                )
                what = [
                    f"{key} ({'more' if key not in expected else 'less' if key not in left else 'other'})"
                    for key in keys
                ]
                faults = [f"differs: {', '.join(what)}"]
            if faults:
                tally.faults += [f"{name} {number}: {fault}" for fault in faults]
                for fault in tally.faults[-len(faults) :]:
                    print(fault, file=sys.stderr, flush=True)
                if self.kept is not None:
                    place = self.kept / f"{name.replace(' ', '-')}-{seed}-{number}"
                    shutil.rmtree(place, ignore_errors=True)
                    shutil.copytree(self.stage.place, place, symlinks=True)
            number += 1
            if number > 4 * kills + 20:
                raise AssertionError(f"{name}: it is hardly ever killed ({tally.kills} of {number})")
        tally.seconds = time.monotonic() - start
        return tally

    def _trial(
        self, writer: Writer, draw: random.Random, events: int, seconds: float, tally: Tally
    ) -> list[str]:
        """Kills, reads, starts again; what is wrong then."""
        faults: list[str] = []
        for _ in range(draw.choice((1, 1, 1, 2))):  # some are killed again while they go on
            by_time = draw.random() < BY_TIME
            at = draw.randint(1, max(1, events))
            child = Child(writer.work, self.stage.logs, None if by_time else Fault(self.stage.place, at))
            beside = None if writer.beside is None else Child(writer.beside, self.stage.logs)
            if by_time:
                time.sleep(draw.uniform(0, 1.2 * seconds))
                child.kill()
            end = child.wait()
            if beside is not None and (other := beside.wait()).code != 0:
                faults.append(f"the process beside it: {other.shown[-600:]}")
            if not end.is_killed:
                if end.code != 0:
                    faults.append(f"it could not go on: {end.shown[-600:]}")
                break
            tally.kills += 1
            where = "time" if by_time else f"event {at} of {events}"
            tally.at["time" if by_time else "event"] += 1
            if writer.read:
                chosen = draw.sample(list(writer.read), min(READERS, len(writer.read)))
                told = Child(all_of(chosen), self.stage.logs).wait()
                tally.reads += len(chosen)
                tally.refused += told.shown.count(REFUSED)
                if told.code != 0:
                    faults.append(f"killed at {where}, read: {told.code}: {told.shown[-600:]}")
        again = Child(writer.work, self.stage.logs).wait()
        if again.code != 0:
            faults.append(f"the same command again: {again.code}: {again.shown[-600:]}")
        if writer.beside is not None and (other := Child(writer.beside, self.stage.logs).wait()).code != 0:
            faults.append(f"the process beside it again: {other.shown[-600:]}")
        return faults


def all_of(readers: list[Callable[[], Any]]) -> Callable[[], None]:
    """Work that reads, or is told in one message what is missing."""

    def work() -> None:
        for read in readers:
            try:
                read()
            except SystemExit as left:
                if left.code not in (0, None, 2):
                    raise RuntimeError(f"exit code {left.code}") from left
                if left.code == 2:
                    print(REFUSED)
            except InputError as error:
                print(error)
                print(REFUSED)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=1000, help="of kills, in all")
    parser.add_argument("--each", type=int, help="of kills of each writer, instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", nargs="*", default=[])
    parser.add_argument("--kept", type=Path, help="a folder for the places of trials with a fault")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    preloaded("tests.faults.kills")
    with scratch() as folder:
        campaign = Campaign(Stage(folder), options.kept)
        chosen = {
            name: writer
            for name, writer in campaign.writers.items()
            if not options.writers or name in options.writers
        }
        total = sum(writer.share for writer in chosen.values())
        found: dict[str, Any] = {}
        print(
            "| writer | kills | at an event | at a time | readers | refused | faults | seconds |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        )
        for name, writer in chosen.items():
            kills = options.each or max(1, round(options.number * writer.share / total))
            tally = campaign.trials(name, kills, options.seed)
            found[name] = {"kills": tally.kills, "faults": tally.faults}
            print(
                f"| {name} | {tally.kills} | {tally.at['event']} | {tally.at['time']} | {tally.reads} | {tally.refused} | "
                f"{len(tally.faults)} | {tally.seconds:.0f} |",
                flush=True,
            )
        if options.json:
            print(json.dumps(found))
    raise SystemExit(any(tally["faults"] for tally in found.values()))


if __name__ == "__main__":
    main()
