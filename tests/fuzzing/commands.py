"""Files at fault, through the command line: a mutant is handed to `bert-ft` in a process of its own, forked.

    python -m tests.fuzzing.commands --number 200 --seed 0 --checkpoint FOLDER --faults FOLDER

The files are those of `mutants`, and those that only a command reads: checkpoints, states, a search's study, the caches.
A command may do its work (exit code 0) or refuse (2) in one message, or in the findings of `check`. Another code, a
traceback, a control character on what it prints, no message, more than one, more than SECONDS or a gigabyte beyond what the
good file takes are faults, and the files are kept in `--faults`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from bert_ft import cli, imports
from tests.fuzzing import mutants
from tests.fuzzing.mutants import ROWS, _jsonl, _table, mutated

SECONDS = 30  # of a processor
LONGEST = 300  # seconds of a process that waits for something
MEGABYTES = 1000
OURS = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]|\r")  # colours and bars, where a library draws one
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
QUICK = ["--max-steps", "1", "--max-length", "24", "--no-baselines"]


@dataclass(frozen=True)
class Command:
    """A command, and good files for it.

    Attributes:
        argv: the words behind `bert-ft`; FILE stands for the mutant.
        files: name -> content, below the working directory; the first is changed, the others lie beside it.
        of: a folder that is copied there first ("run", "unfinished", "search", ...); then the first is one of its files.
    """

    argv: list[str]
    files: Mapping[str, bytes]
    of: str = ""


@dataclass
class Outcome:
    """What became of the mutants of a command."""

    read: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


@dataclass
class Ended:
    """A process that ended: its exit code (of one that was stopped below 0), what it printed, seconds of a processor and
    peak MB."""

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float

    def fault(self, least: float) -> str:
        """What is wrong with it; empty: nothing. `least`: the MB that the good file takes."""
        printed = OURS.sub("", self.out + self.err).replace("\n", "")
        messages = [line for line in self.err.splitlines() if line.startswith("bert-ft: ")]
        if self.code < 0:
            return f"more than {SECONDS} s of a processor, or {LONGEST} s ({self.code})"
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if self.code not in (0, 2):
            return f"exit code {self.code}: {(messages or [self.err[-200:]])[-1][:200]}"
        if OBEYED.search(printed):
            return f"a control character: {OBEYED.search(printed)!r}"
        if self.code == 2 and not printed.strip():
            return "exit code 2 without a word"
        if len(messages) > 1:
            return f"{len(messages)} messages: {messages}"
        if self.megabytes > least + MEGABYTES:
            return f"{self.megabytes:.0f} MB"
        return ""


def run(argv: list[str], folder: Path) -> Ended:
    """Runs `bert-ft` in a folder, with caches of its own, in a process that is forked from this one: that has torch
    imported already, which takes most of the time of a command."""
    start = time.monotonic()
    if not (pid := os.fork()):
        _be(argv, folder)
    while (ended := os.wait4(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() - start > LONGEST:
            os.kill(pid, signal.SIGKILL)
            ended = os.wait4(pid, 0)
            break
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(ended[1])
    seconds = ended[2].ru_utime + ended[2].ru_stime
    read = [(folder / name).read_text(errors="replace") for name in (".out", ".err")]
    return Ended(code, *read, seconds, ended[2].ru_maxrss / 1024)


def _be(argv: list[str], folder: Path) -> NoReturn:
    """What the forked process does: the command line, from its arguments to its exit code."""
    code: object = 1
    try:
        os.chdir(folder)
        os.environ |= {"BERT_FT_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        for number, name in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["bert-ft", *argv]
        cli.main(argv)
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


# --- what is read -----------------------------------------------------------------------------------------------------


def _of_data() -> dict[str, Command]:
    """Files of data: `check` and `train` read each format."""
    tasks = {"words": "ner", "spans": "ner", "squad": "qa", "questions": "qa"}
    more = {"numbers": ["--regression"], "sets": ["--multi-label"], "votes": ["--set", "soft=votes"]}
    readers = mutants.of_files()
    result = {}
    formats = list(readers)
    for name in formats[formats.index("rows left out") + 1 :]:
        tasks[name] = "ner"
    for name, reader in readers.items():
        if name in ("task", "rows left out"):
            continue
        task = tasks.get(name, "classification")
        both = ["--train", "FILE", "--validation", "FILE", *more.get(name, [])]
        result[f"check {name}"] = Command(["check", task, *both], reader.files)
        if name in ("csv", "jsonl", "parquet", "json", "sets", "spans", "squad", "CoNLL columns", "BioC"):
            argv = ["train", task, "-c", "CHECKPOINT", *both, "-o", "out", *QUICK]
            result[f"train {name}"] = Command(argv, reader.files)
    rows = {"rows.csv": readers["csv"].files["rows.csv"]}
    result["tasks show"] = Command(["tasks", "show", "FILE"], dict(readers["task"].files))
    argv = ["train", "FILE", "-c", "CHECKPOINT", "-o", "out", *QUICK]
    result["train task"] = Command(argv, dict(readers["task"].files) | rows)
    argv = ["train", "classification", "-c", "CHECKPOINT", "--train", "rows.csv", "--validation", "rows.csv", "--without", "FILE",
            "-o", "out", *QUICK]  # fmt: skip
    without = _table([{"row": "train, row 1", "fingerprint": _fingerprint(ROWS[0]), "label": "good"}], ",")
    result["train --without"] = Command(argv, {"out.csv": without} | rows)
    return result


def _fingerprint(row: dict[str, str]) -> str:
    """As a list of rows that are left out of training names a row."""
    import pyarrow as pa

    from bert_ft.data import left_out
    from bert_ft.data.rows import Rows
    from bert_ft.families.classification.adapter import Classification

    return left_out.fingerprints(Rows(pa.Table.from_pylist([row]), ""), left_out.roles(Classification))[0]


def _of_folders(folders: Mapping[str, Path]) -> dict[str, Command]:
    """Files of a run, a checkpoint, a sentence-transformers folder, a search, a curve and a cache."""
    lines = [{"row": i, "prediction": "good"} for i in range(len(ROWS))]
    rows = {
        "csv": _table(ROWS, ","),
        "jsonl": _jsonl(ROWS),
        "tsv": _table(ROWS, "\t"),
        "txt": b"a warm film\nflat\n" * 9,
    }
    result = {
        f"predict {kind}": Command(["predict", "run", "FILE", "-o", "out.jsonl"], {f"rows.{kind}": content}, "run/")
        for kind, content in rows.items()
    }  # fmt: skip
    result["compare lines"] = Command(["compare", "run", "FILE"], {"other.jsonl": _jsonl(lines)}, "run/")
    result["compare table"] = Command(["compare", "run", "FILE"], {"other.csv": _table(lines, ",")}, "run/")
    csv = {"rows.csv": rows["csv"]}
    given = ["classification", "-c", "CHECKPOINT", "--train", "rows.csv", "--validation", "rows.csv"]
    # the search is of the rows in the folder where it was made
    absolute = [str(folders["search"].parent / word) if word == "rows.csv" else word for word in given]
    each: list[tuple[str, str, list[str]]] = [
        ("run", "task.toml", ["evaluate", "run"]),
        ("run", "task.toml", ["runs", "."]),
        ("run", "results.json", ["report", "run"]),
        ("run", "results.json", ["runs", ".", "--json"]),
        ("run", "environment.json", ["report", "run"]),
        ("run", "log.jsonl", ["report", "run"]),
        ("run", "predictions/validation.jsonl", ["report", "run"]),
        ("run", "predictions/validation.jsonl", ["compare", "run", "run", "--show-flips", "2"]),
        ("run", "predictions/validation.rows.parquet", ["evaluate", "run"]),
        ("run", "model/config.json", ["predict", "run", "rows.csv"]),
        ("run", "model/tokenizer_config.json", ["predict", "run", "rows.csv"]),
        ("run", "model/tokenizer.json", ["predict", "run", "rows.csv"]),
        ("run", "model/model.safetensors", ["predict", "run", "rows.csv"]),
        ("vectors", "modules.json", ["embed", "vectors", "rows.csv", "-o", "out.npy"]),
        ("vectors", "1_Pooling/config.json", ["embed", "vectors", "rows.csv", "-o", "out.npy"]),
        ("vectors", "config_sentence_transformers.json", ["embed", "vectors", "rows.csv", "-o", "out.npy"]),
        ("unfinished", "checkpoints/step-1/state.json", ["train", *given, "-o", "unfinished", "--save-every", "1", *QUICK]),
        ("unfinished", "checkpoints/step-1/state.safetensors", ["train", *given, "-o", "unfinished", "--save-every", "1", *QUICK]),
        ("unfinished", "checkpoints/step-1/checksums.json", ["train", *given, "-o", "unfinished", "--save-every", "1", *QUICK]),
        ("folds", "fold-1/predictions/validation.jsonl", ["check", *given[:1], *given[3:], "--with", "folds"]),
        ("folds", "results.json", ["check", *given[:1], *given[3:], "--with", "folds"]),
        ("search", "study.db", ["search", *absolute, "-o", "search", "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1"]),
    ]  # fmt: skip
    for of, place, argv in each:
        name = f"{argv[0]}: {of}/{place}"
        file = folders[of] / place
        result[name] = Command(argv, {f"{of}/{place}": file.read_bytes()} | csv, of)
    return result


def prepare(folder: Path, checkpoint: str) -> dict[str, Path]:
    """A finished run, an unfinished one, one of folds, a sentence-transformers folder and a search, each in a folder."""
    (folder / "rows.csv").write_bytes(_table(ROWS, ","))
    given = ["classification", "-c", checkpoint, "--train", "rows.csv", "--validation", "rows.csv"]
    saved = ["--save-every", "1", "--keep-checkpoints"]
    for argv in (
        ["train", *given, "-o", "run", *QUICK],
        ["train", *given, "-o", "unfinished", *QUICK, *saved],
        ["train", *given[:-2], "-o", "folds", "--folds", "2", *QUICK],
        ["search", *given, "-o", "search", "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1"],
    ):  # fmt: skip
        done = run(argv, folder)
        assert done.code == 0, done
    (folder / "unfinished" / "results.json").unlink()
    vectors = Path(shutil.copytree(checkpoint, folder / "vectors"))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (vectors / "1_Pooling").mkdir(exist_ok=True)
    size = json.loads((vectors / "config.json").read_text())["hidden_size"]
    for name, value in {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: "}, "default_prompt_name": "query", "similarity_fn_name": "cosine",
        },
    }.items():  # fmt: skip
        (vectors / name).write_text(json.dumps(value))
    return {name: folder / name for name in ("run", "unfinished", "folds", "search", "vectors")}


def commands(folders: Mapping[str, Path]) -> dict[str, Command]:
    """Every command that is tried, by a name for it."""
    return _of_data() | _of_folders(folders)


# --- trying -----------------------------------------------------------------------------------------------------------


def lay(command: Command, folders: Mapping[str, Path], folder: Path, content: bytes) -> None:
    """Makes the folder that a command works in, with this content of the file that is changed."""
    if of := command.of.rstrip("/"):
        shutil.copytree(folders[of], folder / of)
    main, *beside = command.files
    for name in [*beside, main]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if name == main else command.files[name])


def try_one(
    command: Command, folders: Mapping[str, Path], checkpoint: str, content: bytes, folder: Path
) -> Ended:
    """Has a command read this content; what the process did."""
    lay(command, folders, folder, content)
    names = {"FILE": next(iter(command.files)), "CHECKPOINT": checkpoint}
    return run([names.get(word, word) for word in command.argv], folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=200, help="of mutants, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", required=True, help="a small one")
    parser.add_argument("--commands", nargs="*", default=[])
    parser.add_argument("--faults", type=Path, required=True)
    options = parser.parse_args()
    checkpoint = str(Path(options.checkpoint).resolve())
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    imports.libraries()
    options.faults.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        folders = prepare(Path(work), checkpoint)
        every = commands(folders)
        chosen = {k: v for k, v in every.items() if not options.commands or k in options.commands}
        outcomes = {name: Outcome() for name in chosen}
        least: dict[str, float] = {}
        for turn in range(-(-options.number // len(chosen))):
            for number, (name, command) in enumerate(list(chosen.items())):
                if turn * len(chosen) + number >= options.number:
                    break
                good = next(iter(command.files.values()))
                if name not in least:
                    with tempfile.TemporaryDirectory() as folder:
                        ended = try_one(command, folders, checkpoint, good, Path(folder))
                    least[name] = -1 if ended.code else ended.megabytes
                    if ended.code:
                        print(
                            f"{name}: not tried, since the good file is not read: {ended.err[-300:]}",
                            file=sys.stderr,
                            flush=True,
                        )
                if least[name] < 0:
                    continue
                content = mutated(good, np.random.default_rng([options.seed, turn, *name.encode()]))
                with tempfile.TemporaryDirectory() as folder:
                    ended = try_one(command, folders, checkpoint, content, Path(folder))
                outcome = outcomes[name]
                outcome.slowest = max(outcome.slowest, ended.seconds)
                if fault := ended.fault(least[name]):
                    outcome.faults.append(fault)
                    file = Path(next(iter(command.files))).name
                    kept = (
                        options.faults / f"{re.sub('[^a-zA-Z0-9]+', '-', name)}-{options.seed}-{turn}-{file}"
                    )
                    kept.write_bytes(content)
                    kept.with_name(f"{kept.name}.err").write_text(ended.err)
                    print(f"{name} {turn}: {fault}", file=sys.stderr, flush=True)
                elif ended.code:
                    outcome.refused += 1
                else:
                    outcome.read += 1
    print("| command | mutants | done | refused | faults | slowest, s |\n|---|---:|---:|---:|---:|---:|")
    for name, found in outcomes.items():
        tried = found.read + found.refused + len(found.faults)
        if tried:
            print(
                f"| {name} | {tried} | {found.read} | {found.refused} | {len(found.faults)} | {found.slowest:.1f} |"
            )


if __name__ == "__main__":
    main()
