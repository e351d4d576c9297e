"""How cost grows: CPU seconds and memory against rows and against length, with the slope on log-log paper (1: as the tokens do).

    python benchmarks/scaling.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/scaling.md

- rows: `predict` of a run with two layers, SST-2's training sentences from a file, each size in a process of its own
- length: a training step (forward and backward, dropout on, fp32) of rows of one length, random weights: ModernBERT's shape with its
  windows of 128 tokens and every third layer global, the same with windows alone, and BERT, which looks everywhere
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

import numpy as np

ROWS = (1_000, 3_000, 10_000, 30_000, 67_000)
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
SHAPES = ("modernbert", "modernbert, windows alone", "bert")
WIDTH: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 2000,
    "max_position_embeddings": 2048,
}


def slope(x: list[float], y: list[float]) -> float:
    """Of the line through log x and log y."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def two_layers(checkpoint: str, folder: Path) -> Path:
    """The checkpoint's first two layers under a new head, as a saved model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {0: "negative", 1: "positive"}
    network = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_hidden_layers=2, id2label=names
    )
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def by_rows(data: Path, checkpoint: str, rounds: int) -> list[str]:
    lines = ["| rows | file, MB | CPU seconds | peak MB |", "|---:|---:|---:|---:|"]
    texts = [line.split("\t")[0] for line in (data / "glue/SST-2/train.tsv").read_text().splitlines()[1:]]
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = two_layers(checkpoint, Path(temporary) / "model")
        for count in ROWS:
            file = Path(temporary) / f"{count}.jsonl"
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:count]))
            found = []
            for number in range(rounds):
                output = Path(temporary) / f"{count}-{number}.out.jsonl"
                command = [
                    sys.executable,
                    "-m",
                    "bert_ft",
                    "predict",
                    str(folder),
                    str(file),
                    "-o",
                    str(output),
                ]
                found.append(measured(command))
                assert sum(1 for _ in output.open()) == count
            seconds.append(statistics.median(each["seconds"] for each in found))
            peak = max(each["peak"] for each in found)
            lines.append(f"| {count:,} | {file.stat().st_size / 1e6:.1f} | {seconds[-1]:.1f} | {peak:.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    start = seconds[0] - (seconds[-1] - seconds[0]) * ROWS[0] / (ROWS[-1] - ROWS[0])
    steady = [each - start for each in seconds]
    exponent = slope(list(map(float, ROWS[1:])), steady[1:])
    return [*lines, "", f"Without {start:.1f} s of start-up: slope **{exponent:.2f}**, from 3,000 rows on."]


def measured(command: list[str]) -> dict[str, float]:
    """CPU seconds and peak memory (MB) of a command."""
    code = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, "
        "stderr=subprocess.DEVNULL); used = resource.getrusage(resource.RUSAGE_CHILDREN); print(json.dumps("
        "{'code': done.returncode, 'seconds': used.ru_utime + used.ru_stime, 'peak': used.ru_maxrss / 1024}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    assert found.pop("code") == 0, command
    return found


def network_of(shape: str) -> Any:
    import transformers as tf

    if shape == "bert":
        config = tf.BertConfig(**WIDTH, intermediate_size=1024)
        return tf.BertForSequenceClassification(config)
    settings = WIDTH | {"intermediate_size": 384, "local_attention": 128, "pad_token_id": 0, "cls_token_id": 1,
                        "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "attention_dropout": 0.1}  # fmt: skip
    if shape != "modernbert":
        settings["layer_types"] = ["sliding_attention"] * WIDTH["num_hidden_layers"]
    return tf.ModernBertForSequenceClassification(tf.ModernBertConfig(**settings))


def by_length(rounds: int, tokens: int = 4096) -> list[str]:
    import torch

    from bert_ft.kernels import cpu, padding_free

    torch.set_num_threads(1)
    lines = [
        f"| tokens a row | {' | '.join(f'{shape}, ms a token' for shape in SHAPES)} |",
        "|---:|" + "---:|" * len(SHAPES),
    ]
    found: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for length in LENGTHS:
        for shape in SHAPES:
            torch.manual_seed(0)
            network = network_of(shape)
            handle = padding_free.unpad(network)
            assert handle.active, handle.reason
            rows = max(2, tokens // length)
            ids = torch.randint(3, 2000, (rows, length))
            mask = torch.ones_like(ids)
            mask[0, -1] = 0  # one row is a token shorter: there is something to leave out
            network.train()
            times = []
            with cpu.lean(network, True):
                for _ in range(rounds + 1):
                    start = time.process_time()
                    network(input_ids=ids, attention_mask=mask).logits.sum().backward()
                    network.zero_grad()
                    times.append(time.process_time() - start)
            found[shape].append(1000 * statistics.median(times[1:]) / int(mask.sum()))
        lines.append(f"| {length:,} | {' | '.join(f'{found[shape][-1]:.3f}' for shape in SHAPES)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    slopes = [
        f"{shape} {1 + slope(list(map(float, LENGTHS)), each):.2f} ({1 + slope(list(map(float, LENGTHS[-3:])), each[-3:]):.2f} from 512 on)"
        for shape, each in found.items()
    ]
    return [*lines, "", f"Seconds a row against its length, slopes: **{'; '.join(slopes)}**."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lengths = by_length(options.rounds)
    rows = by_rows(options.data, options.checkpoint, options.rounds)
    import torch
    import transformers

    conditions = (
        f"Medians of {options.rounds} round(s), one thread, fp32; torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )
    text = "\n".join(
        [
            "## Rows: `predict`, two layers",
            "",
            *rows,
            "",
            "## Length: a training step",
            "",
            *lengths,
            "",
            conditions,
            "",
        ]
    )
    print(text)
    if options.output:
        options.output.write_text(f"# How cost grows\n\n`python benchmarks/scaling.py`\n\n{text}")


if __name__ == "__main__":
    main()
