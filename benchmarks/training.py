"""Whole epochs of training: `transformers.Trainer` against bert-ft, same rows, same batch size, interleaved.

    python benchmarks/training.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --set sst2 rte squad

Every measurement is a process of its own: seconds of the training loop (no loading, no evaluation), its peak memory,
and the share of the floor: forward + backward flops on real tokens over the rate of a large product of float32
here, by `torch.mm` (MKL's) and by oneDNN.
Prints a Markdown table of medians and ratios; `--output FILE` also writes it.

- default: Trainer as it is, dynamic padding, random order
- grouped: Trainer with train_sampling_strategy="group_by_length" (another order of the rows than the recipe's)
- padded:  bert-ft with batching.unpad = false and batching.first_token = false
- ours:    bert-ft as it is, random order, fp32
- default-bf16, grouped-bf16: `Trainer` with bf16=True; ours-bf16: training steps in bf16, as `precision = "bf16-steps"` has them
- before: ours in fp32 as the working tree `--before DIR` has it, an older commit say
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory import peak_mb

SETS = {
    "sst2": (6400, 32, 128),
    "rte": (640, 16, 256),
    "squad": (320, 8, 384),
}  # rows, batch size, max_length
FLOORS = ("mm", "onednn")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VARIANTS = ("default", "grouped", "padded", "ours", "default-bf16", "grouped-bf16", "ours-bf16", "before")


def rows_of(name: str, data: Path, n: int) -> list[dict[str, Any]]:
    """The first n rows of a file, as text, text_pair, label."""
    if name == "squad":  # is the question answerable? question and context, as in extractive QA
        articles = json.loads((data / "squad/dev-v2.0-half.json").read_text())["data"]
        rows = [
            {"text": q["question"], "text_pair": p["context"], "label": str(q["is_impossible"])}
            for a in articles for p in a["paragraphs"] for q in p["qas"]
        ]  # fmt: skip
        return rows[:: max(1, len(rows) // n)][:n]
    from bert_ft import load_task
    from bert_ft.data.loading import load
    from bert_ft.families.classification.adapter import Classification

    task = load_task(name if name == "sst2" else "mrpc").override({"run.data_dir": str(data / "glue")})
    if name == "rte":
        return rte(data, n)
    return load(task, Classification).train.table.slice(0, n).to_pylist()


def rte(data: Path, n: int) -> list[dict[str, Any]]:
    lines = (data / "glue/RTE/train.tsv").read_text().splitlines()[1 : n + 1]
    return [dict(zip(("text", "text_pair", "label"), line.split("\t")[1:], strict=True)) for line in lines]


def prepare(
    name: str, data: Path, checkpoint: str, scale: float, precision: str = "fp32"
) -> tuple[Any, Any, Any]:
    """(task, model, features) of a set."""
    import bert_ft
    from bert_ft.data import sources
    from bert_ft.data.rows import Rows
    from bert_ft.modeling import loading

    n, batch_size, max_length = SETS[name]
    rows = rows_of(name, data, int(n * scale))
    columns = list(rows[0])
    task = bert_ft.load_task("classification").override(
        {
            "batch_size": batch_size,
            "max_length": max_length,
            "epochs": 1,
            "run.checkpoint": checkpoint,
            "log_every": 50,
        }
    )
    labels = sorted({row["label"] for row in rows})
    adapter = bert_ft.Classification(task, labels)
    table = Rows(sources.of_object(rows, columns, (), name).table, name)
    adapter.prepare(table)
    of_steps = {"steps": True} if precision == "bf16-steps" else {}  # older trees do not know it
    built, _ = loading.build(task, adapter, precision, **of_steps)
    return task, built, built.encode(table)


def measure(
    variant: str, name: str, data: Path, checkpoint: str, scale: float, clock: Callable[[], float]
) -> dict[str, float]:
    """One epoch in this process; its seconds by the clock."""
    import numpy as np
    import torch
    import transformers.optimization  # noqa: F401 - the schedules, which Trainer has imported, too

    from bert_ft.engine import batches, loop

    variant, _, half = variant.partition("-")
    is_ours = variant in ("padded", "ours", "before")
    task, built, features = prepare(
        name, data, checkpoint, scale, "bf16-steps" if half and is_ours else "fp32"
    )
    assert not is_ours or (getattr(built.accelerator, "step_dtype", None) is not None) == bool(half), (
        "this CPU is not good at bf16"
    )
    if is_ours:
        if variant == "padded":
            built.plain()
        start = clock()
        loop.train(
            built, features, evaluate=lambda: {"validation": {"accuracy": 0.0}}, log=lambda entry: None
        )
    else:
        built.plain()
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        rows = [
            {key: column[a:b].tolist() for key, column in features.tokens.items()} | {"labels": int(label)}
            for a, b, label in zip(
                features.offsets, features.offsets[1:], features.values["labels"], strict=False
            )
        ]
        extra = {"train_sampling_strategy": "group_by_length"} if variant == "grouped" else {}
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            num_train_epochs=1,
            per_device_train_batch_size=task.recipe.batch_size,
            learning_rate=task.recipe.learning_rate,
            report_to=[],
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=bool(half),
            disable_tqdm=True,
            logging_steps=50,
            seed=42,
            **extra,
        )
        trainer = Trainer(
            built.network, arguments, DataCollatorWithPadding(built.tokenizer), train_dataset=rows
        )
        start = clock()
        trainer.train()
    seconds = clock() - start
    plan = batches.Plan(len(features), task.recipe.batch_size, 1, 42)
    padded = sum(len(rows) * int(features.lengths[rows].max()) for _, rows in plan.batches())
    peak = peak_mb()
    config = built.network.config
    h, i, layers, lengths = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        features.lengths.astype(np.float64),
    )
    flops = 3 * layers * (2 * (4 * h * h + 2 * h * i) * lengths.sum() + 4 * h * (lengths**2).sum())
    return {
        "seconds": seconds,
        "peak_mb": peak,
        "waste": padded / float(lengths.sum()),
        **{f"floor_{way}": flops / rate(way, h, i, clock) for way in FLOORS},
    }


def rate(way: str, h: int, i: int, clock: Callable[[], float]) -> float:
    """flops a second, by the clock, of the feed-forward layer's matrix product on this machine, now."""
    import torch

    from bert_ft.kernels import products

    if way == "onednn" and not products.runs():
        return math.nan
    a, b = torch.randn(512, h), torch.randn(h, i)
    product = {
        "mm": lambda: torch.mm(a, b),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], ""),
    }[way]
    times = []
    for _ in range(30):
        start = clock()
        product()
        times.append(clock() - start)
    return 2 * 512 * h * i / statistics.median(times)


def of_pairs(runs: list[dict[str, float]], others: list[dict[str, float]]) -> str:
    """The median of the pairs' ratios of seconds, and their range."""
    ratios = [run["seconds"] / other["seconds"] for run, other in zip(runs, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS), dest="sets")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["default", "grouped", "ours"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each set's rows")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU seconds, where others share the cores"
    )
    parser.add_argument("--batch", type=int, help="rows a step, in the place of each set's")
    parser.add_argument("--before", type=Path, help="a working tree, for the variant `before`")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch:
        SETS.update({name: (n, options.batch, length) for name, (n, _, length) in SETS.items()})
    if ("before" in options.variants) != (options.before is not None):
        parser.error("--before DIR and the variant `before` belong together")
    if options.one:
        print(
            json.dumps(
                measure(*options.one, options.data, options.checkpoint, options.scale, CLOCKS[options.clock])
            )
        )
        return
    beside = [variant for variant in ("ours", "ours-bf16") if variant in options.variants]
    lines = [
        f"| rows | variant | seconds (median) | {''.join(f'seconds / seconds of {each}, median of pairs | ' for each in beside)}"
        "peak MB | share of the fp32 floor by `torch.mm` | by oneDNN |",
        "|---" * (6 + len(beside)) + "|",
    ]
    for name in options.sets:
        found: dict[str, list[dict[str, float]]] = {v: [] for v in options.variants}
        for _ in range(options.rounds):
            for variant in options.variants:
                command = [
                    sys.executable,
                    __file__,
                    "--data",
                    str(options.data),
                    "--checkpoint",
                    options.checkpoint,
                    "--scale",
                    str(options.scale),
                    "--clock",
                    options.clock,
                    *(["--batch", str(options.batch)] if options.batch else []),
                    *(
                        ["--before", str(options.before), "--variants", variant]
                        if variant == "before"
                        else []
                    ),
                    "--one",
                    variant,
                    name,
                ]
                tree = {"PYTHONPATH": str(options.before.resolve())} if variant == "before" else {}
                done = subprocess.run(
                    command, capture_output=True, text=True, check=True, env=os.environ | tree
                )
                found[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(name, variant, found[variant][-1], file=sys.stderr, flush=True)
        for variant in options.variants:
            seconds = statistics.median(run["seconds"] for run in found[variant])
            ratios = " | ".join(of_pairs(found[variant], found[each]) for each in beside)
            peak = statistics.median(run["peak_mb"] for run in found[variant])
            floors = " | ".join(
                f"{statistics.median(run[f'floor_{way}'] / run['seconds'] for run in found[variant]):.2f}"
                for way in FLOORS
            )
            n, batch_size, _ = SETS[name]
            lines.append(
                f"| {name}, {int(n * options.scale)} rows, batch {batch_size} | {variant} | {seconds:.1f} | {ratios} | {peak:.0f} | {floors} |"
            )
    import torch
    import transformers

    waste = f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, fp32 where no other is named, {options.rounds} interleaved rounds"
    text = "\n".join([*lines, "", waste, ""])
    print(text)
    if options.output:
        options.output.write_text(
            "# Training: whole epochs, side by side\n\n`python benchmarks/training.py`\n\n" + text
        )


if __name__ == "__main__":
    main()
