"""`bert-ft predict` with torch, with ONNX and with its int8 graph: CPU seconds on 5,000 SST-2 rows, in turn, and what int8 costs.

    python benchmarks/exported.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/onnx.md

Four runs are trained (SST-2, STS-B, wikiGold, SQuADShifts: labels, numbers of pairs, entities, answers) and exported;
each measurement is a process of its own with one thread, from JSONL to JSONL, loading not counted.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import peak_mb

ROWS = 5000
WAYS = {"torch, fp32": None, "ONNX, fp32": "fp32", "ONNX, int8": "int8"}
RUNS: dict[str, dict[str, Any]] = {
    "sst2": {
        "data_dir": "glue",
        "limit_train": 3200,
        "max_steps": 100,
        "batch_size": 32,
        "learning_rate": 5e-5,
    },
    "stsb": {
        "data_dir": "glue",
        "limit_train": 1600,
        "max_steps": 100,
        "batch_size": 16,
        "learning_rate": 5e-5,
    },
    "wikigold": {"data_dir": ".", "max_steps": 80, "batch_size": 16, "learning_rate": 2e-4},
    "squadshifts": {"task": "qa", "max_steps": 60, "batch_size": 8, "learning_rate": 1e-4, "max_length": 256},
}
SHIFTS = {"train": ("reddit", 1000), "validation": ("new_wiki", 300)}
"""Set -> the part of SQuADShifts that it is taken from, and how many of its questions."""


def questions(file: Path, most: int) -> list[dict[str, Any]]:
    """The first questions of a file of SQuAD 1.1's shape."""
    found = []
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for each in paragraph["qas"]:
                answers = {key: [one[key] for one in each["answers"]] for key in ("text", "answer_start")}
                found.append(
                    {
                        "id": each["id"],
                        "question": each["question"],
                        "context": paragraph["context"],
                        "answers": answers,
                    }
                )
    return found[:most]


def prepare(folder: Path, data: Path, checkpoint: str) -> None:
    """The three runs, exported, and the rows to answer."""
    import bert_ft
    from bert_ft.tools.export.export import export

    for name, settings in RUNS.items():
        more = {"task": name, "max_length": 128} | settings
        if "data_dir" in more:
            more["data_dir"] = str(data / more["data_dir"])
        else:
            for part, (place, most) in SHIFTS.items():
                (file,) = (data / "squadshifts").glob(f"*{place}*.json")
                more[part] = questions(file, most)
        run = bert_ft.finetune(
            more.pop("task"), checkpoint, output=folder / name, quiet=True, baselines=False, **more
        )
        export(run.path, precisions=["int8"], tell=print)
    lines = (data / "glue" / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()[1 : ROWS + 1]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps({"text": line.rpartition("\t")[0]}) + "\n")


def measure(way: str, folder: Path) -> dict[str, Any]:
    import torch

    import bert_ft
    from bert_ft.tools.predict import files

    torch.set_num_threads(1)
    start = time.process_time()
    model = bert_ft.load(folder / "sst2", onnx=WAYS[way]).model
    loaded, loading = peak_mb(), time.process_time() - start
    (folder / f"{way}.jsonl").unlink(missing_ok=True)  # what is answered already is not answered again
    start = time.process_time()
    done = files.predict(
        model, str(folder / "rows.jsonl"), str(folder / f"{way}.jsonl"), columns={"text": "text"}
    )
    assert (done.rows, done.bad) == (ROWS, [])
    return {
        "seconds": time.process_time() - start,
        "loading": loading,
        "loaded_mb": loaded,
        "peak_mb": peak_mb(),
    }


def answers(folder: Path, way: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{way}.jsonl").open(encoding="utf-8")]


def speed(folder: Path, rounds: int) -> str:
    """The table of `predict`, with its answers held against torch's."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(way, found[way][-1], file=sys.stderr, flush=True)
    expected = answers(folder, "torch, fp32")
    lines = []
    for way, several in found.items():
        theirs = answers(folder, way)
        furthest = max(
            abs(a["probabilities"][label] - p)
            for a, b in zip(theirs, expected, strict=True)
            for label, p in b["probabilities"].items()
        )
        others = sum(a["prediction"] != b["prediction"] for a, b in zip(theirs, expected, strict=True))
        assert way != "ONNX, fp32" or (furthest < 1e-4 and not others), (furthest, others)
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["torch, fp32"], several, strict=True)]
        middle = {key: statistics.median(one[key] for one in several) for key in several[0]}
        lines.append(
            f"| {way} | {middle['seconds']:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {middle['loading']:.1f} | {middle['loaded_mb']:.0f} | {middle['peak_mb']:.0f} | {furthest:.1e} | {others} |"
        )
    return "\n".join(lines)


def exported(folder: Path) -> str:
    """A line for each run's graphs, from their parity.json."""
    lines = []
    for name in RUNS:
        told = json.loads((folder / name / "onnx" / "parity.json").read_text(encoding="utf-8"))
        metric, base = told["metric"], told["torch"]
        for precision, one in told["onnx"].items():
            change = one["metrics"][metric] - base["metrics"][metric]
            flips = one["rows_with_another_answer"]
            lines.append(
                f"| {name}, {told['rows']:,} rows | {precision} | {metric} {base['metrics'][metric]:.4f} | "
                f"{one['metrics'][metric]:.4f} ({change:+.4f}) | {one['largest_logit_difference']:.1e} | "
                f"{'–' if flips is None else flips} | {base['bytes'] / 1e6:.1f} → {one['bytes'] / 1e6:.1f} | "
                f"{base['cpu_seconds'] / one['cpu_seconds']:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, help="where the exported runs of an earlier call lie")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    folder = options.runs or Path(tempfile.mkdtemp(prefix="onnx-"))
    if not (folder / "rows.jsonl").is_file():
        prepare(folder, options.data, options.checkpoint)
    from bert_ft.tools.export.graph import versions

    flags = set(Path("/proc/cpuinfo").read_text().split())
    machine = ", ".join(flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in flags)
    text = f"""# ONNX beside torch

`python benchmarks/exported.py`: all-MiniLM-L6-v2 with a head, one thread, CPU seconds, {options.rounds} rounds in turn; this processor has {machine}

{ROWS:,} training rows of SST-2 through `bert-ft predict`, JSONL to JSONL, in batches sorted by length; torch without padding:

| | CPU seconds (median) | times torch's speed | loading | MB once loaded | MB at most | largest difference of a probability | other answers |
|---|---|---|---|---|---|---|---|
{speed(folder, options.rounds)}

What `bert-ft export --int8` says of four runs, on their validation rows:

| run | graph | torch | its own | largest difference of a logit | rows with another answer | MB | times torch's speed |
|---|---|---|---|---|---|---|---|
{exported(folder)}

{", ".join(f"{name} {version}" for name, version in versions().items())}
"""
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
