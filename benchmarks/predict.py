"""`bert-ft predict` against `transformers.pipeline`: seconds on 5,000 SST-2 rows, interleaved, and memory that stays.

    python benchmarks/predict.py --data ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/predict.md

Every measurement is a process of its own. Speed: the checkpoint with a head, from JSONL to JSONL, loading not counted;
the pipeline has batch_size 32. Memory: one layer of the checkpoint, 20,000 and 1,000,000 rows, peak of the process.
"""

from __future__ import annotations

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


def prepare(folder: Path, data: Path, checkpoint: str) -> None:
    """Two models (the whole checkpoint, and one layer of it) with a head, and the files they answer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from bert_ft import load_task
    from bert_ft.data.loading import load
    from bert_ft.families.classification.adapter import Classification

    for name, more in (("whole", {}), ("layer", {"num_hidden_layers": 1})):
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2, **more)
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(checkpoint, model_max_length=128).save_pretrained(folder / name)
    texts = (
        load(load_task("sst2").override({"run.data_dir": str(data)}), Classification)
        .train.table["text"]
        .to_pylist()
    )
    for count in (ROWS, 20_000, 1_000_000):
        with (folder / f"{count}.jsonl").open("w") as stream:
            for k in range(count):
                stream.write(json.dumps({"text": texts[k % len(texts)]}) + "\n")


def measure(what: str, folder: Path) -> dict[str, Any]:
    import bert_ft
    from bert_ft.tools.predict import files

    kind, _, count = what.partition(":")
    source, target = folder / f"{count}.jsonl", folder / f"{kind}.out.jsonl"
    if kind == "pipeline":
        from transformers import pipeline

        answer = pipeline(
            "text-classification", str(folder / "whole"), device="cpu", truncation=True, top_k=None
        )
        start = time.perf_counter()
        texts = [json.loads(line)["text"] for line in source.open()]
        with target.open("w") as stream:
            for text, found in zip(texts, answer(texts, batch_size=32), strict=True):
                stream.write(
                    json.dumps({"text": text, "probabilities": {p["label"]: p["score"] for p in found}})
                    + "\n"
                )
    else:
        model = bert_ft.load(folder / ("whole" if kind == "ours" else "layer"))
        start = time.perf_counter()
        files.predict(model, str(source), str(target))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    folder = Path(tempfile.mkdtemp(prefix="predict-"))
    prepare(folder, options.data, options.checkpoint)

    def run(what: str) -> dict[str, Any]:
        command = [
            sys.executable,
            __file__,
            "--data",
            str(options.data),
            "--checkpoint",
            options.checkpoint,
            "--one",
            what,
        ]
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        print(what, found, file=sys.stderr, flush=True)
        return found

    pairs = [(run(f"pipeline:{ROWS}"), run(f"ours:{ROWS}")) for _ in range(options.rounds)]
    theirs, ours = (
        [json.loads(line)["probabilities"] for line in (folder / f"{k}.out.jsonl").open()]
        for k in ("pipeline", "ours")
    )
    furthest = max(abs(a[label] - b[label]) for a, b in zip(theirs, ours, strict=True) for label in a)
    assert furthest < 1e-5, furthest
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    memory = [run(f"memory:{count}")["peak_mb"] for count in (20_000, 1_000_000)]
    import torch
    import transformers

    text = f"""# Prediction: files in, files out

`python benchmarks/predict.py`: {ROWS:,} training rows of SST-2, JSONL to JSONL, all-MiniLM-L6-v2 with a head

| | seconds (median) | times the speed of the pipeline |
|---|---|---|
| `transformers.pipeline`, batch_size 32 | {statistics.median(a["seconds"] for a, _ in pairs):.1f} | |
| `bert-ft predict` | {statistics.median(b["seconds"] for _, b in pairs):.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |

Largest difference of a probability: {furthest:.1e}. Peak memory with one layer: {memory[0]:.0f} MB for 20,000 rows, {memory[1]:.0f} MB for 1,000,000 ({memory[1] - memory[0]:+.0f} MB).

torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, fp32, {options.rounds} interleaved rounds
"""
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
