"""Many files of rows answered by `bert-ft predict`: one command, two that share the folder, and two that are killed.

    python benchmarks/many_files.py --checkpoint .demo/all-MiniLM-L6-v2 --reviews .demo/film-reviews \
        --output benchmarks/results/many-files.md

The checkpoint's first two layers are fine-tuned briefly. Every process has one thread. While two commands work, a third
process opens each file of answers as soon as it can be seen. Peak memory is `VmHWM` of a command, read until it ends. With
`--on ray` the workers are Ray's, and workers are killed in the place of commands; run it where no network is reached:
`unshare -n sh -c 'ip link set lo up && exec python ...'`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
BAD = 1000  # one row of so many has no text


def trained(work: Path, checkpoint: Path, reviews: Path) -> Path:
    """A run of the checkpoint's first two layers."""
    from transformers import AutoModel, AutoTokenizer

    import bert_ft

    model = AutoModel.from_pretrained(checkpoint)
    model.config.num_hidden_layers = 2
    model.encoder.layer = model.encoder.layer[:2]
    model.save_pretrained(work / "two-layers")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(work / "two-layers")
    rows = pd.read_csv(reviews / "train.csv").head(2000)
    bert_ft.finetune(
        "classification", str(work / "two-layers"), train=rows, validation=reviews / "validation.csv", epochs=1, max_length=64,
        learning_rate=2e-4, output=work / "run", baselines=False, quiet=True,
    )  # fmt: skip
    return work / "run"


def write_files(folder: Path, reviews: Path, files: int, rows: int) -> int:
    """Parquet files of short rows, all of them different; returns how many rows have no text."""
    words = " ".join(pd.read_csv(reviews / "train.csv")["text"]).split()
    draw, bad = random.Random(0), 0
    folder.mkdir()
    for number in range(files):
        texts: list[str | None] = []
        for row in range(rows):
            start = draw.randrange(len(words) - 8)
            texts.append(f"{' '.join(words[start : start + draw.randint(1, 3)])} {number * rows + row}")
            if draw.randrange(BAD) == 0:
                texts[-1], bad = None, bad + 1
        ids = range(number * rows, (number + 1) * rows)
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / f"part-{number:04}.parquet")
    return bad


@dataclass
class Command:
    """`bert-ft predict` in a process of its own."""

    arguments: list[str]
    process: subprocess.Popen[str]
    began: float
    peak: float = 0.0  # MB
    seconds: float = 0.0
    told: str = ""
    peaks: dict[int, float] = field(default_factory=dict)  # of workers of Ray

    @classmethod
    def start(cls, *arguments: Any) -> Command:
        words = [sys.executable, "-m", "bert_ft", "predict", *map(str, arguments)]
        place = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read once the process has ended
        process = subprocess.Popen(words, stderr=log, text=True, env=place, cwd=ROOT)
        self = cls(words, process, time.monotonic())
        self.log = log  # type: ignore[attr-defined]
        return self

    def look(self) -> bool:
        """Notes the peak so far; whether the command is still there."""
        if peak := peak_of(self.process.pid):
            self.peak = max(self.peak, peak)
        for worker in workers():
            self.peaks[worker] = max(self.peaks.get(worker, 0.0), peak_of(worker))
        if self.process.poll() is None:
            return True
        if not self.seconds:
            self.seconds = time.monotonic() - self.began
            self.log.seek(0)  # type: ignore[attr-defined]
            self.told = self.log.read()  # type: ignore[attr-defined]
        return False

    def wait(self) -> Command:
        while self.look():
            time.sleep(0.05)
        return self


def peak_of(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def cpu_seconds() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def workers() -> list[int]:
    """The processes of Ray that answer."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::Worker"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


class Watch:
    """Opens each file of answers as soon as it can be seen, and notes which were no whole ones, or came twice."""

    def __init__(self, folder: Path, rows: dict[str, int]) -> None:
        self.folder, self.rows, self.ended = folder, rows, False
        self.broken: list[str] = []
        self.numbers: dict[str, set[int]] = {}  # inodes that a name had
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            last = self.ended
            for file in self.folder.glob("*"):
                if file.name.startswith("."):
                    continue
                number = file.stat().st_ino
                if number in self.numbers.setdefault(file.name, set()):
                    continue
                self.numbers[file.name].add(number)
                try:
                    if pq.ParquetFile(file).metadata.num_rows != self.rows.get(file.name):
                        self.broken.append(file.name)
                except (pa.ArrowException, OSError) as error:
                    self.broken.append(f"{file.name}: {error}")
            if last:
                return
            time.sleep(0.02)

    def end(self) -> None:
        self.ended = True
        self.thread.join()


def digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.parquet"))
    }


def killed(
    run: Path, source: Path, out: Path, kills: int, on_ray: bool, moments: list[float]
) -> tuple[int, list[Command]]:
    """Two commands, or two workers of Ray, each of which is killed; a killed command is started again. Returns how many were
    killed, and the commands that ended by themselves."""
    more = ["--on", "ray", "--workers", "2"] if on_ray else []
    alive = [Command.start(run, source, "-o", out, *more) for _ in range(1 if on_ray else 2)]
    began, done, victims = time.monotonic(), list[Command](), 0
    while alive:
        for command in [command for command in alive if not command.look()]:
            alive.remove(command)
            done.append(command)
        if victims < kills and time.monotonic() - began > moments[victims] and alive:
            if on_ray:
                if not (candidates := workers()):
                    continue
                os.kill(candidates[victims % len(candidates)], signal.SIGKILL)
            else:
                command = alive.pop(0)
                command.process.kill()
                command.process.wait()
                alive.append(Command.start(run, source, "-o", out, *more))
            victims += 1
        time.sleep(0.05)
    return victims, done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rows", type=int, default=5000, help="of a file")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--on", choices=["ray"], help="workers of Ray, in the place of two commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="many-files-"))
    run, source = trained(work, options.checkpoint, options.reviews), work / "in"
    bad = write_files(source, options.reviews, options.files, options.rows)
    total = options.files * options.rows
    with_text = {
        file.name: len(pq.read_table(file).to_pandas().dropna()) for file in sorted(source.iterdir())
    }
    assert sum(with_text.values()) == total - bad
    more = ["--on", "ray", "--workers", "2"] if options.on else []

    (work / "single").mkdir()
    single = Command.start(
        run, source / "part-0000.parquet", "-o", work / "single" / "part-0000.parquet"
    ).wait()
    cpu = [cpu_seconds()]
    one = Command.start(run, source, "-o", work / "one").wait()
    cpu.append(cpu_seconds())
    print(one.told[-300:], f"{one.seconds:.1f} s, {one.peak:.0f} MB", file=sys.stderr)
    began = time.monotonic()
    pair = [Command.start(run, source, "-o", work / "two", *more) for _ in range(1 if options.on else 2)]
    while sum(command.look() for command in pair):
        time.sleep(0.05)
    together = time.monotonic() - began
    cpu.append(cpu_seconds())
    print(pair[0].told[-300:], f"{together:.1f} s", file=sys.stderr)
    draw = random.Random(options.seed)
    moments = sorted(draw.uniform(0.2, 0.8) * together for _ in range(options.kills))
    watch = Watch(work / "killed", with_text)
    victims, done = killed(run, source, work / "killed", options.kills, bool(options.on), moments)
    watch.end()
    expected = digests(work / "one")
    told = [
        sum("/in/part-" in line and ": no 'text'" in line for line in command.told.splitlines())
        for command in done
    ]
    written = sum(pq.ParquetFile(file).metadata.num_rows for file in (work / "killed").glob("*.parquet"))
    twice = Counter(len(numbers) for numbers in watch.numbers.values())
    peaks = [command.peak for command in (one, *pair, *done)]
    if options.on:
        peaks = [one.peak, *(peak for command in (*pair, *done) for peak in command.peaks.values())]
    checks = {
        "rows in = rows out + rows told, in each command that ended": all(written + n == total for n in told) and bool(told),
        "the same bytes as one command that is left alone, and as one file alone": (
            digests(work / "killed") == expected == digests(work / "two") and len(expected) == options.files
            and digests(work / "single").items() <= expected.items()
        ),
        "no half file was ever visible": not watch.broken,
        "no file was answered twice": dict(twice) == {1: options.files},
        "nothing is left of what was killed": not list((work / "killed" / ".answered").glob("*.tmp*")),
    }  # fmt: skip
    who = "workers of Ray" if options.on else "commands"
    lines = [
        "# Many files of rows", "",
        f"`python benchmarks/many_files.py --checkpoint .demo/all-MiniLM-L6-v2 --reviews .demo/film-reviews --files {options.files} --rows {options.rows}"
        f"{' --on ray' if options.on else ''} --output benchmarks/results/many-files{'-ray' if options.on else ''}.md`", "",
        f"{options.files} Parquet files of {options.rows:,} short rows, {total:,} in all, {bad:,} of them without a text; the first two layers of "
        f"all-MiniLM-L6-v2, fine-tuned on 2,000 film reviews; one thread a process. {os.cpu_count()} cores ({platform.machine()}), with a load of "
        f"{os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}.", "",
        "| | |", "|---|---|",
        f"| one command | {one.seconds:.1f} s, {total / one.seconds:,.0f} rows a second; {cpu[1] - cpu[0]:.0f} CPU seconds |",
        f"| two {who} | {together:.1f} s, {one.seconds / together:.2f} times as fast{'' if options.on else f'; {cpu[2] - cpu[1]:.0f} CPU seconds together'} |",
        f"| peak memory for one file of them | {single.peak:.0f} MB |",
        f"| peak memory for all, the largest of {len(peaks)} processes | {max(peaks):.0f} MB ({max(peaks) - single.peak:+.0f}) |", "",
        f"Two {who}, killed (SIGKILL) {victims} times at {', '.join(f'{moment:.0f}' for moment in moments)} s"
        f"{'' if options.on else ' and started again'}:", "",
        "| | |", "|---|---|",
        f"| rows in | {total:,} |", f"| rows out | {written:,} |", f"| rows told | {', '.join(f'{n:,}' for n in told)} |",
        *(f"| {check} | {'yes' if kept else '**no**'} |" for check, kept in checks.items()),
    ]  # fmt: skip
    page = "\n".join(lines) + "\n"
    print(page)
    if options.output:
        options.output.write_text(page)
    if all(checks.values()):
        shutil.rmtree(work)
    else:
        print(f"{work}: {watch.broken[:3]} {twice} {told}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
