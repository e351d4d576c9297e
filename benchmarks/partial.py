"""Training a part of a network: what it reaches with few rows, what a step of it costs.

    python benchmarks/partial.py quality --data ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2 --output FILE
    python benchmarks/partial.py cost --checkpoint .demo/all-MiniLM-L6-v2 --output FILE

`quality` trains MRPC's first rows of the seeded shuffle with five seeds a recipe; the rates were set before anything of the
table was measured, and the last weights are scored. `cost` times training steps on random tokens, all variants of a round one
after another, each in a process of its own: CPU seconds of the steps, and the peak of its memory above that of the
process before its first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory import peak_mb

SEEDS = (1, 2, 3, 4, 5)
SHARED: dict[str, Any] = {"batch_size": 16, "learning_rate": 2e-4, "warmup_ratio": 0.1, "keep": "last", "max_length": 128,
                          "eval_every": 10_000, "data.original.test": None, "precision": "fp32"}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "all of it": {},
    "without Adam's bias correction": {"bias_correction": False},
    "highest 2 layers drawn anew": {"reinitialize": 2},
    "average of the weights, 0.95": {"ema": 0.95},
    "low-rank changes of rank 8": {"lora": {}, "learning_rate": 1e-3},
    "biases": {"train_only": "biases", "learning_rate": 1e-3},
    "head (encoder frozen)": {"freeze": "encoder", "learning_rate": 1e-3},
    "20 epochs, rate 2e-5": {"epochs": 20, "learning_rate": 2e-5},
    "mrpc-small-data: that, and 2 layers drawn anew": {
        "epochs": 20,
        "learning_rate": 2e-5,
        "reinitialize": 2,
    },
}
COSTS = {
    "all of it": {},
    "low-rank changes": {"lora": {}},
    "biases": {"train_only": "biases"},
    "norms": {"train_only": "norms"},
    "head": {"freeze": "encoder"},
}
SHAPES = {"MiniLM": (6, 384, 12), "BERT-base": (12, 768, 12)}


def run_one(kind: str, **arguments: Any) -> dict[str, float]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "one", kind, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def quality_of(data: str, checkpoint: str, seed: int, recipe: dict[str, Any]) -> dict[str, float]:
    """Scores of one run on MRPC's validation set, its CPU seconds and its peak of memory."""
    import bert_ft

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = bert_ft.finetune("mrpc", checkpoint, data_dir=data, seed=seed, output=f"{folder}/run", quiet=True,
                               save_model=False, check=False, **(SHARED | recipe))  # fmt: skip
        trained = sum(row["trained"] for row in run.results["parameters"])
        return {
            **{f"{key}": 100 * value for key, value in run.metrics["validation"].items()},
            "seconds": time.process_time() - start,
            "peak": peak_mb(),
            "trained": trained,
        }


def cost_of(shape: str, recipe: dict[str, Any], steps: int, rows: int, length: int) -> dict[str, float]:
    """CPU seconds of a step and the memory that the steps need, dropout on."""
    import torch
    import transformers

    from bert_ft.config.recipe import Recipe
    from bert_ft.engine import optimization, partial
    from bert_ft.kernels import cpu, padding_free

    transformers.logging.set_verbosity_error()
    layers, width, heads = SHAPES[shape]
    config = transformers.BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                                     intermediate_size=4 * width)  # fmt: skip
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(config)
    padding_free.unpad(network)
    parsed = Recipe.model_validate(recipe)
    partial.fit(network, parsed, [])
    optimizer = optimization.optimizer(network, parsed)
    tokens = torch.randint(1000, 30000, (rows, length))
    lengths = torch.linspace(length // 4, length, rows).int()
    inputs = {"input_ids": tokens, "attention_mask": (torch.arange(length) < lengths[:, None]).int()}
    labels = torch.zeros(rows, dtype=torch.long)
    network.train()
    before = peak_mb()
    with cpu.lean(network, True):
        for step in range(steps + 1):
            if step == 1:  # the first makes the optimizer's state
                start = time.process_time()
            torch.nn.functional.cross_entropy(network(**inputs).logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {"step": (time.process_time() - start) / steps, "memory": peak_mb() - before, "peak": peak_mb()}


def quality(data: str, checkpoint: str, rows: int, epochs: int, names: Sequence[str]) -> str:
    lines = ["| trained | parameters | accuracy | F1 | CPU s | peak MB |", "|---|---:|---:|---:|---:|---:|"]
    for name in names:
        recipe = {"limit_train": rows, "epochs": epochs, **RECIPES[name]}
        found = [
            run_one("quality_of", data=data, checkpoint=checkpoint, seed=s, recipe=recipe) for s in SEEDS
        ]
        print(name, found, file=sys.stderr, flush=True)
        spread = [
            f"{statistics.fmean(one[key] for one in found):.1f} ± {statistics.stdev(one[key] for one in found):.1f}"
            for key in ("accuracy", "f1")
        ]
        middle = [statistics.median(one[key] for one in found) for key in ("seconds", "peak")]
        lines.append(
            f"| {name} | {found[0]['trained']:,.0f} | {' | '.join(spread)} | {middle[0]:.0f} | {middle[1]:.0f} |"
        )
    return "\n".join(lines)


def cost(rounds: int, steps: int, rows: int, length: int) -> str:
    lines = [
        "| shape | trained | CPU s a step | share of all of it | memory, MB | share |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for shape in SHAPES:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in COSTS}
        for _ in range(rounds):
            for name, recipe in COSTS.items():
                found[name].append(
                    run_one("cost_of", shape=shape, recipe=recipe, steps=steps, rows=rows, length=length)
                )
                print(shape, name, found[name][-1], file=sys.stderr, flush=True)
        for name, times in found.items():
            shares = {
                key: [one[key] / whole[key] for one, whole in zip(times, found["all of it"], strict=True)]
                for key in ("step", "peak")
            }
            middle = {key: statistics.median(one[key] for one in times) for key in ("step", "peak")}
            lines.append(
                f"| {shape} | {name} | {middle['step']:.2f} | {ranged(shares['step'])} | {middle['peak']:.0f} | "
                f"{ranged(shares['peak'])} |"
            )
    return "\n".join(lines)


def ranged(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(globals()[sys.argv[2]](**json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("quality", "cost"))
    parser.add_argument("--data", default="../shared/data/glue")
    parser.add_argument("--checkpoint", default=".demo/all-MiniLM-L6-v2")
    parser.add_argument("--train-rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    table = (
        quality(options.data, options.checkpoint, options.train_rows, options.epochs, options.only)
        if options.what == "quality"
        else cost(options.rounds, options.steps, options.rows, options.length)
    )
    print(table)
    if options.output:
        options.output.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
