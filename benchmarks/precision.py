"""Whether training steps in bfloat16, as `precision = "bf16-steps"` has them, end where those in float32
do: the same tasks, rows and seeds in both, in turn.

    python benchmarks/precision.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/precision.md

Scores of the validation set after the last step; the difference is that of the pairs of one seed, with its 95 % interval (t).
CPU seconds of one thread, evaluation included.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "sst2": {"limit_train": 2000, "epochs": 3, "learning_rate": 1e-4, "batch_size": 32},
    "stsb": {"limit_train": 1000, "epochs": 3, "learning_rate": 1e-4, "batch_size": 16},
    "wnut17": {"limit_train": 1000, "epochs": 4, "learning_rate": 2e-4, "batch_size": 16},
}
TITLES = {
    "sst2": ("SST-2, accuracy", "accuracy"),
    "stsb": ("STS-B, Pearson", "pearson"),
    "wnut17": ("WNUT17, F1 of entities", "f1"),
}


def one(name: str, precision: str, seed: int, data: Path, checkpoint: str) -> dict[str, Any]:
    """Score and CPU seconds of a run."""
    import bert_ft

    settings = dict(SETTINGS[name])
    if name == "wnut17":
        files = {
            "train": str(data / "wnut17/wnut17train.conll"),
            "validation": str(data / "wnut17/emerging.dev.conll"),
        }
    else:
        files = {"run.data_dir": str(data / "glue")}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = bert_ft.finetune(
            "ner" if name == "wnut17" else name,
            checkpoint,
            seed=seed,
            precision=precision,
            keep="last",
            output=Path(folder) / "run",
            quiet=True,
            baselines=False,
            check=False,
            **settings,
            **files,
        )
        seconds = time.process_time() - start
        metrics = run.results["metrics"]["validation"]
        environment = json.loads((Path(folder) / "run/environment.json").read_text())
        assert environment["precision"].startswith("fp32" if precision == "fp32" else "bf16"), environment
    return {"score": 100 * metrics[TITLES[name][1]], "seconds": seconds}


def line(name: str, found: dict[str, list[dict[str, Any]]]) -> str:
    from scipy import stats

    scores = {p: [run["score"] for run in runs] for p, runs in found.items()}
    apart = [b - a for a, b in zip(scores["fp32"], scores["bf16-steps"], strict=True)]
    half = stats.t.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / len(apart) ** 0.5
    mean = statistics.mean(apart)
    pairs = zip(found["fp32"], found["bf16-steps"], strict=True)
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    spread = [f"{statistics.mean(s):.2f} ± {statistics.stdev(s):.2f}" for s in scores.values()]
    return (
        f"| {TITLES[name][0]} | {' | '.join(spread)} | {mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}) | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--sets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "| task | fp32 | bf16-steps | bf16 − fp32, 95 % interval | fp32 / bf16, CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for name in options.sets:
        found: dict[str, list[dict[str, Any]]] = {"fp32": [], "bf16-steps": []}
        for seed in range(options.seeds):
            for precision in found:
                run = one(name, precision, seed, options.data, options.checkpoint)
                found[precision].append(run)
                print(name, precision, seed, json.dumps(run), file=sys.stderr, flush=True)
        lines.append(line(name, found))
    import torch
    import transformers

    conditions = (
        f"{options.seeds} seeds, mean ± standard deviation; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, 1 thread. Recipes: {json.dumps(SETTINGS)}, keep = last."
    )
    text = "\n".join([*lines, "", conditions, ""])
    print(text)
    if options.output:
        options.output.write_text(f"# bfloat16 beside float32\n\n`python benchmarks/precision.py`\n\n{text}")


if __name__ == "__main__":
    main()
