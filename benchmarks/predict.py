"""`bert-ft predict` against `transformers.pipeline`: CPU seconds on rows of SST-2, in turn, and memory that stays.

    python benchmarks/predict.py --data ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/predict.md

Every measurement is a process of its own, of one thread. Speed: the checkpoint with a head, from JSONL to JSONL, loading not
counted; the pipeline gets the rows as they are, and sorted by length, which it does not do itself, by several sizes of
batches. Memory: one layer of the checkpoint, 20,000 and 1,000,000 rows, peak of the process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

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

OURS = {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"dtype": "int8"}}


def prepare(folder: Path, data: Path, checkpoint: str, rows: int) -> None:
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
    for count in (rows, 20_000, 1_000_000):
        with (folder / f"{count}.jsonl").open("w") as stream:
            for k in range(count):
                stream.write(json.dumps({"text": texts[k % len(texts)]}) + "\n")


def measure(what: str, folder: Path) -> dict[str, Any]:
    import bert_ft
    from bert_ft.tools.predict import files

    kind, way, count = what.split(":")
    source, target = folder / f"{count}.jsonl", folder / f"{kind}-{way}.jsonl"
    if kind.startswith("pipeline"):
        from transformers import pipeline

        answer = pipeline(
            "text-classification", str(folder / "whole"), device="cpu", truncation=True, top_k=None
        )
        start = time.process_time()
        texts = [json.loads(line)["text"] for line in source.open()]
        order = (
            sorted(range(len(texts)), key=lambda k: len(texts[k]))
            if kind == "pipeline sorted"
            else range(len(texts))
        )
        found = dict(zip(order, answer([texts[k] for k in order], batch_size=int(way)), strict=True))
        with target.open("w") as stream:
            for number, text in enumerate(texts):
                probabilities = {p["label"]: p["score"] for p in found[number]}
                stream.write(json.dumps({"text": text, "probabilities": probabilities}) + "\n")
    else:
        model = bert_ft.load(folder / ("whole" if kind == "ours" else "layer"), **OURS[way])
        start = time.process_time()
        files.predict(model, str(source), str(target))
    seconds = time.process_time() - start
    return {"seconds": seconds, "peak_mb": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--no-memory", action="store_true", help="without the million rows")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    folder = Path(tempfile.mkdtemp(prefix="predict-"))
    prepare(folder, options.data, options.checkpoint, options.rows)

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

    names = [
        f"pipeline:{options.batch_sizes[-1]}",
        *(f"pipeline sorted:{size}" for size in options.batch_sizes),
    ]
    names += [f"ours:{way}" for way in OURS]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            seconds[name].append(run(f"{name}:{options.rows}")["seconds"])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in names if "sorted" in name), key=median.__getitem__)

    def answers(name: str) -> list[dict[str, float]]:
        return [
            json.loads(line)["probabilities"] for line in (folder / f"{name.replace(':', '-')}.jsonl").open()
        ]

    theirs = answers(best)
    lines = []
    for name in names:
        pairs = list(zip(answers(name), theirs, strict=True))
        furthest = max(abs(a[label] - b[label]) for a, b in pairs for label in a)
        assert furthest < 1e-5 or name in ("ours:bfloat16", "ours:int8"), (name, furthest)
        changed = sum(max(a, key=a.__getitem__) != max(b, key=b.__getitem__) for a, b in pairs)
        cells = [_said(name), f"{median[name]:.1f}"]
        for other in (best, names[0]):
            ratios = [a / b for a, b in zip(seconds[other], seconds[name], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {' | '.join(cells)} | {furthest:.1e}, {changed} |")
    of_memory = ""
    if not options.no_memory:
        few, many = (run(f"memory:float32:{count}")["peak_mb"] for count in (20_000, 1_000_000))
        of_memory = f"Peak memory with one layer: {few:.0f} MB for 20,000 rows, {many:.0f} MB for 1,000,000 ({many - few:+.0f} MB).\n\n"
    import torch
    import transformers

    text = f"""# Prediction: files in, files out

`python benchmarks/predict.py`: {options.rows:,} training rows of SST-2, JSONL to JSONL, all-MiniLM-L6-v2 with a head

| | CPU seconds (median) | times as fast as the pipeline at its best, sorted | as unsorted | difference of a probability, answers that change |
|---|---:|---:|---:|---:|
{chr(10).join(lines)}

{of_memory}torch {torch.__version__}, transformers {transformers.__version__}, one thread, {options.rounds} rounds in turn
"""
    print(text)
    if options.output:
        options.output.write_text(text)


def _said(name: str) -> str:
    kind, way = name.split(":")
    if kind == "ours":
        return "`bert-ft predict`" + ("" if way == "float32" else f", `--dtype {way}`")
    return f"`transformers.{kind.replace(' ', '`, ') if ' ' in kind else kind + '`'}, batch_size {way}"


if __name__ == "__main__":
    main()
