"""Files at fault, looked for by what they reach: atheris, a coverage-guided engine, beside the mutants by chance.

    python -m pip install atheris==3.0.0      (in an environment of its own: CI does not need it)
    python -m tests.fuzzing.guided --seconds 120 --faults FOLDER [READER ...]

It knows which lines of bert-ft a file has reached, keeps those that reached new ones, and changes them further. The readers
and the judge are those of `mutants`; each reader has a process of its own, since the engine never returns.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TEXT = ["csv", "jsonl", "squad", "spans", "task", "CoNLL columns", "CoNLL-U", "WebAnno TSV 3", "BRAT standoff", "BioC", "PubTator",
        "Label Studio", "CSV, a word a row"]  # fmt: skip
FAULT = "a file at fault: "


def engine(name: str, seconds: int, corpus: Path, faults: Path) -> None:
    """Has the engine look for files of a reader; ends this process."""
    import atheris

    with atheris.instrument_imports(include=["bert_ft"]):
        from tests.fuzzing import mutants

        reader = mutants.of_files()[name]
        mutants.good(reader)  # what is imported while it is read, too
    main, *beside = reader.files
    folder = Path(tempfile.mkdtemp())
    for each in beside:
        (folder / each).write_bytes(reader.files[each])
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "good").write_bytes(reader.files[main])
    told: set[str] = set()

    def one(content: bytes) -> None:
        (folder / main).write_bytes(content)
        _, fault = mutants.judged(reader, folder / main)
        if fault and fault not in told:
            told.add(fault)
            (faults / f"{name.replace('/', '-')}-guided-{len(told)}-{main}").write_bytes(content)
            print(f"{FAULT}{fault}", file=sys.stderr, flush=True)

    options = [
        f"-max_total_time={seconds}",
        "-timeout=0",
        "-rss_limit_mb=4000",
        "-max_len=20000",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def figures(name: str, seconds: int, faults: Path) -> str:
    """A line of the table: runs, coverage of the good file and at the end, files kept, faults."""
    with tempfile.TemporaryDirectory() as corpus:
        command = [
            sys.executable,
            "-m",
            "tests.fuzzing.guided",
            "--engine",
            corpus,
            "--seconds",
            str(seconds),
            "--faults",
            str(faults),
            name,
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        kept = len(list(Path(corpus).iterdir())) - 1
    covered = [int(number) for number in re.findall(r"^#\d+\s.*cov: (\d+)", done.stderr, re.MULTILINE)]
    runs = re.findall(r"number_of_executed_units:\s*(\d+)", done.stderr)
    found = re.findall(f"^{FAULT}(.*)", done.stderr, re.MULTILINE)
    for fault in found:
        print(f"{name}: {fault}", file=sys.stderr, flush=True)
    if not covered or not runs:
        (faults / f"{name.replace('/', '-')}-engine.txt").write_text(done.stderr)
        return f"| {name} | the engine ended with {done.returncode} | | | | {len(found)} |"
    return f"| {name} | {int(runs[-1]):,} | {covered[0]:,} | {covered[-1]:,} | {kept:,} | {len(found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="*", default=TEXT, metavar="READER")
    parser.add_argument("--seconds", type=int, default=120, help="a reader")
    parser.add_argument("--faults", type=Path, required=True)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.faults.mkdir(parents=True, exist_ok=True)
    if options.engine is not None:
        engine(options.readers[0], options.seconds, options.engine, options.faults)
    print(
        "| reader | files tried | edges of the good file | at the end | kept | faults |\n|---|---:|---:|---:|---:|---:|"
    )
    for name in options.readers:
        print(figures(name, options.seconds, options.faults), flush=True)


if __name__ == "__main__":
    main()
