"""What each family reaches with a small checkpoint on real data, rows and epochs sized to two CPU cores.

    python benchmarks/families.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/families.md

NER: three seeds each. QA: SQuADShifts for training (published as test sets: no number for a paper), the first questions of
SQuAD's dev set for evaluation; and half of SQuAD 2.0's dev set, split by article. GoEmotions: several labels a row.
Every run is the ordinary `bert_ft.finetune` in a process of its own with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

QUESTIONS = 200  # of SQuAD's dev set


def runs(data: Path, work: Path) -> dict[str, tuple[int, dict[str, Any]]]:
    """Name -> (seeds, arguments of `finetune`)."""
    small = {"learning_rate": 3e-4, "epochs": 2, "limit_train": 1500, "keep": "last"}
    squad = {"learning_rate": 1e-4, "epochs": 1, "batch_size": 16, "limit_train": 400}
    shifts = [str(data / "squadshifts" / name) for name in ("new_wiki_v1.0.json", "reddit_v1.0.json")]
    half = str(data / "squad" / "dev-v2.0-half.json")
    return {
        "wnut17": (3, {"task": "wnut17", "data_dir": str(data), "data.test": None} | small),
        "wikigold": (3, {"task": "wikigold", "data_dir": str(data)} | small),
        "btc": (3, {"task": "btc", "data_dir": str(data)} | small),
        "squadshifts to squad": (1, {"task": "squad", "train": shifts, "validation": str(part(data, work))} | squad),
        "squad_v2, by article": (1, {"task": "squad_v2", "train": half, "data.validation": "15%", "group": "title"} | squad),
        "goemotions": (1, {"task": "goemotions", "data_dir": str(data), "limit_train": 3000, "data.original.test": None,
                           "learning_rate": 3e-4, "epochs": 1, "keep": "last"}),
    }  # fmt: skip


def part(data: Path, work: Path) -> Path:
    """The first articles of SQuAD's dev set, until there are enough questions."""
    whole, articles, count = json.loads((data / "squad" / "dev-v1.1.json").read_text()), [], 0
    for article in whole["data"]:
        if count < QUESTIONS:
            articles.append(article)
            count += sum(len(paragraph["qas"]) for paragraph in article["paragraphs"])
    (work / "dev.json").write_text(json.dumps(whole | {"data": articles}))
    return work / "dev.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        import bert_ft

        start = time.perf_counter()
        run = bert_ft.finetune(
            checkpoint=options.checkpoint, save_model=False, quiet=True, **json.loads(options.one)
        )
        print(
            json.dumps(
                {
                    "metrics": run.metrics,
                    "counts": run.results["counts"],
                    "seconds": time.perf_counter() - start,
                }
            )
        )
        return
    work = Path(tempfile.mkdtemp(prefix="families-"))

    def one(name: str, seed: int, arguments: dict[str, Any]) -> dict[str, Any]:
        whole = json.dumps(
            arguments | {"seed": seed, "output": str(work / f"{name}-{seed}".replace(" ", "_"))}
        )
        command = [
            sys.executable,
            __file__,
            "--data",
            str(options.data),
            "--checkpoint",
            options.checkpoint,
            "--one",
            whole,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        print(name, seed, found, file=sys.stderr, flush=True)
        return found

    wanted = {
        k: v
        for k, v in runs(options.data.resolve(), work).items()
        if options.only is None or k.split()[0].strip(",") in options.only
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        started = {
            name: [pool.submit(one, name, 42 + k, arguments) for k in range(seeds)]
            for name, (seeds, arguments) in wanted.items()
        }
        found = {name: [future.result() for future in futures] for name, futures in started.items()}
    lines = [
        "| task | rows: train, set | set | metric | mean | spread | of each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in found.items():
        for set_name, metrics in results[0]["metrics"].items():
            counts = results[0]["counts"]
            rows = f"{counts['train']['rows']:,}, {counts[set_name]['rows']:,}"
            for metric in metrics:
                values = [result["metrics"][set_name][metric] for result in results]
                spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
                each = ", ".join(f"{value:.4f}" for value in values) if len(values) > 1 else ""
                lines.append(
                    f"| {name} | {rows} | {set_name} | {metric} | {statistics.fmean(values):.4f} | {spread} | {each} |"
                )
    import torch
    import transformers

    arguments = "\n".join(
        f"- {name}: {json.dumps({k: v for k, v in a.items() if k not in ('task', 'data_dir', 'train', 'validation')})}"
        for name, (_, a) in wanted.items()
    )
    text = "\n".join(["# Families: what a small checkpoint reaches", "", "`python benchmarks/families.py`: all-MiniLM-L6-v2, which saw SQuAD's training questions when it was made. Fractions of 1, SQuAD's of 100; "
                      "seeds 42, 43, 44; the last weights. No published number is meant to be reached here.", "", *lines, "", "Settings beside the tasks' own:", arguments, "",
                      f"torch {torch.__version__}, transformers {transformers.__version__}, CPU, fp32, one thread", ""])  # fmt: skip
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
