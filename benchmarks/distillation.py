"""Distillation: what a model of two layers reaches with the probabilities of its teacher for unlabelled rows.

    python benchmarks/distillation.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --measured FILE.jsonl --output FILE.md

SST-2: the checkpoint is trained on some labelled rows, by the two commands of docs/soft-labels.md it answers rows whose
labels nobody looks at, and its first two layers, with a new head, are trained

- labels:      on the labelled rows, three epochs
- as long:     on the labelled rows, for as many steps as the others take
- soft:        on the labelled rows and the teacher's probabilities for the others, one epoch
- hard:        the same with the teacher's answers in the place of its probabilities

All are scored on SST-2's dev set as the last step leaves them: nothing is chosen on it. Each training is a process of
its own with one thread. What `--measured` holds already is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ARMS = ("labels", "as long", "soft", "hard")
LAYERS = 2
BATCH = 32
STUDENT = {"learning_rate": 1e-4, "batch_size": BATCH, "max_length": 64, "keep": "last", "eval_every": 10**6}
# no temperature: it would be fitted to the labels that the students are scored on
TEACHER = {"epochs": 3, "batch_size": BATCH, "max_length": 64, "keep": "last", "calibration": "none"}


def rows(data: Path, part: str) -> list[list[str]]:
    lines = (data / "glue" / "SST-2" / f"{part}.tsv").read_text(encoding="utf-8").split("\n")[1:]
    return [line.split("\t") for line in lines if line]


def write(path: Path, header: list[str], table: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *table])


def command(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "bert_ft", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def settings(values: dict[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def train(folder: Path, checkpoint: Path, rows: list[Path], seed: int, values: dict[str, Any]) -> Path:
    """The run of `bert-ft train` on these files; trained before, it is not trained again."""
    files = [part for file in rows for part in ("--train", file)]
    command(
        "train", "classification", *files, "--validation", folder.parent / "dev.csv", "--checkpoint", checkpoint,
        "--output", folder, "--seed", seed, "--no-check", "--no-baselines", "--quiet", *settings(values),
    )  # fmt: skip
    return folder


def shortened(checkpoint: str, folder: Path) -> Path:
    """The checkpoint's first layers, as a checkpoint."""
    if not folder.is_dir():
        import transformers

        network = transformers.AutoModel.from_pretrained(checkpoint, num_hidden_layers=LAYERS)
        network.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def prepare(work: Path, data: Path, checkpoint: str, labelled: int, unlabelled: int) -> None:
    """The files of all trainings: the rows, the teacher's answers, and the student's checkpoint."""
    table = rows(data, "train")
    order = np.random.default_rng(0).permutation(len(table))[: labelled + unlabelled]
    chosen = [table[i] for i in order]
    write(work / "labelled.csv", ["text", "label"], chosen[:labelled])
    write(work / "unlabelled.csv", ["text"], [row[:1] for row in chosen[labelled:]])
    write(work / "dev.csv", ["text", "label"], rows(data, "dev"))
    teacher = train(work / "teacher", Path(checkpoint), [work / "labelled.csv"], 42, TEACHER)
    if not (work / "soft.jsonl").is_file():
        command("predict", teacher, work / "unlabelled.csv", "--probabilities", "-o", work / "soft.jsonl")
    answers = [json.loads(line) for line in (work / "soft.jsonl").read_text(encoding="utf-8").splitlines()]
    hard = [[row["text"], max(row["probabilities"], key=row["probabilities"].get)] for row in answers]
    write(work / "hard.csv", ["text", "label"], hard)
    shortened(checkpoint, work / "student")


def measure(work: Path, arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Accuracy of one student on the dev set."""
    files = [work / "labelled.csv"]
    values: dict[str, Any] = dict(STUDENT, epochs=3) if arm == "labels" else dict(STUDENT, max_steps=steps)
    if arm in ("soft", "hard"):
        files.append(work / ("soft.jsonl" if arm == "soft" else "hard.csv"))
    if arm == "soft":
        values["soft"] = "probabilities"
    start = time.perf_counter()
    run = train(work / f"{arm.replace(' ', '-')}-{seed}", work / "student", files, seed, values)
    results = json.loads((run / "results.json").read_text())
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": 100 * results["metrics"]["validation"]["accuracy"],
        "steps": results["steps"],
        "seconds": round(time.perf_counter() - start, 1),
    }


def page(measured: list[dict[str, Any]], teacher: float, options: argparse.Namespace) -> str:
    lines = [
        "# Distillation: two layers learn from six",
        "",
        f"`{' '.join(['python', *sys.argv])}`",
        "",
        f"SST-2, {options.labelled:,} labelled training rows and {options.unlabelled:,} more whose labels are not read; "
        f"accuracy on the 872 rows of dev, as the last step leaves the model. The teacher, all-MiniLM-L6-v2 trained on "
        f"the labelled rows for three epochs, has {teacher:.1f}. The students are its checkpoint's first {LAYERS} of 6 "
        "layers with a new head. fp32, one thread.",
        "",
        "| student learns from | steps | accuracy of each seed | mean | against the labels alone, seed by seed |",
        "|---|---:|---|---:|---|",
    ]
    names = {
        "labels": "the labelled rows, three epochs",
        "as long": "the labelled rows, as many steps as below",
        "soft": "these, and the teacher's probabilities of the others",
        "hard": "these, and the teacher's answers in the place of its probabilities",
    }
    of = {arm: {m["seed"]: m for m in measured if m["arm"] == arm} for arm in ARMS}
    for arm in ARMS:
        if found := [of[arm][seed] for seed in sorted(of[arm])]:
            values = [m["accuracy"] for m in found]
            gains = [
                m["accuracy"] - of["labels"][m["seed"]]["accuracy"]
                for m in found
                if m["seed"] in of["labels"]
            ]
            gain = "" if arm == "labels" else ", ".join(f"{gain:+.1f}" for gain in gains)
            each = ", ".join(f"{value:.1f}" for value in values)
            lines.append(
                f"| {names[arm]} | {found[0]['steps']:,} | {each} | {statistics.mean(values):.1f} | {gain} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that has glue/SST-2/train.tsv and dev.tsv"
    )
    parser.add_argument("--checkpoint", default=".demo/all-MiniLM-L6-v2")
    parser.add_argument("--labelled", type=int, default=2000)
    parser.add_argument("--unlabelled", type=int, default=15000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--work", type=Path, default=Path("distillation"), help="folder of the runs")
    parser.add_argument("--measured", type=Path, help="JSON lines of what is measured")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    options.work.mkdir(parents=True, exist_ok=True)
    prepare(options.work, options.data, options.checkpoint, options.labelled, options.unlabelled)
    file = options.measured or options.work / "measured.jsonl"
    measured = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    steps = -(-(options.labelled + options.unlabelled) // BATCH)
    for seed in range(1, options.seeds + 1):
        for arm in options.arms:
            if any((m["arm"], m["seed"]) == (arm, seed) for m in measured):
                continue
            measured.append(measure(options.work, arm, seed, steps))
            with file.open("a") as stream:
                stream.write(json.dumps(measured[-1]) + "\n")
            print(measured[-1], flush=True)
    teacher = json.loads((options.work / "teacher" / "results.json").read_text())
    text = page(measured, 100 * teacher["metrics"]["validation"]["accuracy"], options)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
