"""A clock that jumps in mid-run, a year forward and a year back, at every few looks at it.

python -m tests.faults.clocks
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.children import Child, preloaded, scratch
from tests.faults.kills import Campaign
from tests.faults.writers import Stage

YEAR = 365 * 24 * 3600
EACH = (1, 3, 7, 20)  # looks at the clock between two jumps
NEGATIVE = re.compile(r"(?<![\w.])-\d[\d.,]* ?(?:s|seconds|min|h)\b|-\d+:\d\d")
WRITERS = ("training", "training, of folds", "predict, files", "search", "embed, .npy", "row cache", "push")


def jumping(work: Callable[[], Any], each: int, looks: Path) -> Callable[[], None]:
    """Work whose clock jumps at every so many looks; how many there were is written into a file at its end."""

    def jump() -> None:
        shim = ctypes.CDLL(None)
        shim.faults_clock.argtypes = [ctypes.c_long, ctypes.c_long]
        shim.faults_clock(YEAR, each)
        try:
            work()
        finally:
            looks.write_text(str(shim.faults_looks()))

    return jump


def seconds_of(folder: Path) -> Iterator[tuple[str, float]]:
    """Every number of a file that is called one of seconds, or a rate."""
    for file in sorted({*folder.rglob("*.json"), *folder.rglob("*.jsonl")}):
        for line in [file.read_text()] if file.suffix == ".json" else file.read_text().splitlines():
            yield from ((f"{file.name}: {key}", value) for key, value in _numbers(json.loads(line)))


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, name)
    elif isinstance(value, (int, float)) and "second" in name:
        yield name, value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writers", nargs="*", default=WRITERS)
    options = parser.parse_args()
    preloaded("tests.faults.clocks")
    failed = False
    with scratch() as folder:
        campaign = Campaign(Stage(folder))
        stage = campaign.stage
        print("| writer | looks at the clock | numbers of seconds | faults |\n|---|---:|---:|---|")
        for name in options.writers:
            expected, _, _ = campaign.whole(name)
            faults: list[str] = []
            seen = count = 0
            for each in EACH:
                hub = campaign._start(name)
                looks = folder / "looks"
                end = Child(jumping(campaign.writers[name].work, each, looks), stage.logs).wait()
                numbers = list(seconds_of(stage.place))
                seen, count = seen + int(looks.read_text()), count + len(numbers)
                faults += [] if end.code == 0 else [f"{end.code}: {end.shown[-500:]}"]
                faults += [f"{where} is {value}" for where, value in numbers if not 0 <= value < 3600]
                faults += [f"shown: {found}" for found in NEGATIVE.findall(end.shown)]
                if campaign._listing(hub) != expected:
                    faults.append("differs")
            failed |= bool(faults)
            print(f"| {name} | {seen} | {count} | {'; '.join(faults) or 'none'} |", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
