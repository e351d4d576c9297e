"""Two commands of every pair of kinds on one folder at once.

    python -m tests.faults.pairs --seed 0

The second begins at a moment drawn over the first. Each ends rightly or is refused in one message, and afterwards the
folder is what it is where one command had it alone.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

from tests.faults.children import Child, Fault, command, importing, preloaded, scratch
from tests.faults.writers import HubProcess, Stage, listing, pushing

READS = ("evaluate", "predict", "runs")
TRAINS = ("train", "resume")
OWN_FOLDERS = ("search", "reproduce")


class Pairs:
    """The kinds of commands, and the folder that they are given."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.folder = stage.place / "run"
        self.kinds = self._kinds()
        self._interrupted()
        self._benchmark()
        self.stage.empty()
        assert importing(self.kinds["resume"](), stage.logs).code == 0
        self.expected = self._run_files()
        for name in ("evaluate", "predict", "report", "export", "runs"):
            end = importing(self.kinds[name](), stage.logs)
            assert end.code == 0, f"{name}: {end.shown}"
        self.answers = (stage.place / "answers.csv").read_bytes()
        self.seconds: dict[str, float] = {}

    def _kinds(self) -> dict[str, Callable[[], Callable[[], Any]]]:
        """Name -> what gives a command's work on the folder."""
        stage = self.stage
        given, place = stage.given, stage.place
        return {
            "train": lambda: command(*stage.training(self.folder, "--overwrite")),
            "resume": lambda: command(*stage.training(self.folder)),
            "evaluate": lambda: command("evaluate", self.folder),
            "predict": lambda: command("predict", self.folder, given / "in" / "0.csv", "-o", place / "answers.csv"),
            "report": lambda: command("report", self.folder),
            "export": lambda: command("export", self.folder),
            "push": lambda: pushing(stage),
            "search": lambda: command(
                "search", *stage.task("--validation", given / "validation.csv"), "-o", place / "search", "--trials",
                "2", "--no-prune", "--space", "learning_rate=1e-3,2e-3",
            ),
            "reproduce": lambda: command(
                "reproduce", "rte", "--checkpoint", given / "bert-base-cased", "--data-dir", given / "glue", "--seeds",
                "2", "--max-steps", "4", "--set", "max_length=32", "-o", place / "reproduced",
            ),
            "runs": lambda: command("runs", place),
        }  # fmt: skip

    def _interrupted(self) -> None:
        """`given/half`: a training that was killed."""
        self.stage.empty()
        end = Child(self.kinds["resume"](), self.stage.logs, Fault(self.stage.place, 110)).wait()
        assert end.is_killed and (self.folder / "checkpoints" / "step-6").is_dir(), end.shown
        self.folder.rename(self.stage.given / "half")

    def _benchmark(self) -> None:
        """`given/glue`: RTE of a few rows, and the checkpoint under a published one's name."""
        given = self.stage.given
        shutil.copytree(given / "checkpoint", given / "bert-base-cased")
        (given / "glue" / "RTE").mkdir(parents=True)
        for file, count in (("train", 24), ("dev", 12), ("test", 8)):
            lines = [
                f"{i}\ta good film {i}\ta film\t{('entailment', 'not_entailment')[i * i // 3 % 2]}"
                for i in range(count)
            ]
            header = "index\tsentence1\tsentence2\tlabel"
            if file == "test":
                header, lines = header.removesuffix("\tlabel"), [line.rpartition("\t")[0] for line in lines]
            (given / "glue" / "RTE" / f"{file}.tsv").write_text("\n".join([header, *lines]) + "\n")

    def _run_files(self) -> dict[str, str]:
        files = listing(self.folder)
        others = (
            "onnx",
            "pushed.jsonl",
            "report.html",
        )  # what others write; a report of an export has its table
        return {name: digest for name, digest in files.items() if not name.startswith(others)}

    def start(self, state: str) -> None:
        """Puts the folder into this state: "finished" or "half"."""
        self.stage.empty()
        shutil.copytree(self.stage.given / ("run" if state == "finished" else "half"), self.folder)

    def pair(self, first: str, second: str, state: str, draw: random.Random) -> tuple[str, list[str]]:
        """Both at once: how they ended, and what is wrong with it."""
        faults: list[str] = []
        self.start(state)
        hub = HubProcess(self.stage.folder / "hub", self.stage.logs) if "push" in (first, second) else None
        if hub is not None:
            shutil.rmtree(hub.folder, ignore_errors=True)
            hub.start()
        children = [Child(self.kinds[first](), self.stage.logs)]
        time.sleep(draw.uniform(0, 1.0))
        children.append(Child(self.kinds[second](), self.stage.logs))
        ends = [child.wait() for child in children]
        for name, end in zip((first, second), ends, strict=True):
            told = [line for line in end.shown.splitlines() if line.startswith("bert-ft: ")]
            if end.code == 0:
                continue
            if end.code not in (1, 2) or not end.is_told or len(told) != 1:
                faults.append(f"{name} ended with {end.code}: {end.shown[-900:]}")
        answers = self.stage.place / "answers.csv"
        if answers.exists() and answers.read_bytes() != self.answers:
            faults.append("other answers")
        faults += self._afterwards(first, second, state)
        if hub is not None:
            hub.stop()
        outcome = ", ".join("ended" if end.code == 0 else "refused" for end in ends)
        return outcome, faults

    def _afterwards(self, first: str, second: str, state: str) -> list[str]:
        """Each of the two again, alone, and what the folder is then."""
        faults = []
        for name in dict.fromkeys((first, second)):
            if name in READS or (state == "half" and name not in (*TRAINS, *OWN_FOLDERS)):
                continue
            end = Child(self.kinds[name](), self.stage.logs).wait()
            if end.code != 0:
                faults.append(f"{name} again: {end.code}: {end.shown[-900:]}")
        if state == "finished" or {first, second} & {*TRAINS}:
            left = self._run_files()
            if left != self.expected:
                keys = sorted(
                    k for k in left.keys() | self.expected.keys() if left.get(k) != self.expected.get(k)
                )
                faults.append(f"differs: {keys}")
        return faults


def wanted(first: str, second: str, state: str) -> bool:
    """Whether there is something to see: one of the two writes; into an interrupted run only a training does."""
    return bool({first, second} - {*READS}) and (state == "finished" or bool({first, second} & {*TRAINS}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--of", help="pairs of this kind alone")
    options = parser.parse_args()
    preloaded("tests.faults.pairs")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    failed = 0
    with scratch() as folder:
        pairs = Pairs(Stage(folder))
        names = [name for name in pairs.kinds if not options.kinds or name in options.kinds]
        print(
            "| pair | state of the run | times | both ended | one refused | both refused | faults |\n|---|---|---:|---:|---:|---:|---:|"
        )
        for first, second in combinations_with_replacement(names, 2):
            for state in ("finished", "half"):
                if not wanted(first, second, state) or options.of not in (None, first, second):
                    continue
                outcomes: Counter[int] = Counter()
                found = 0
                for number in range(options.times):
                    draw = random.Random(f"{options.seed} {first} {second} {state} {number}")
                    order = (first, second) if draw.random() < 0.5 else (second, first)
                    outcome, faults = pairs.pair(*order, state, draw)
                    outcomes[outcome.count("refused")] += 1
                    found += bool(faults)
                    for fault in faults:
                        print(f"{order}, {state}, {number}: {fault}", file=sys.stderr, flush=True)
                failed += found
                print(
                    f"| {first}, {second} | {state} | {options.times} | {outcomes[0]} | {outcomes[1]} | {outcomes[2]} | {found} |",
                    flush=True,
                )
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
