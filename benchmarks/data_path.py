"""The rest of the way: tokenizing, collating, evaluating, and the memory evaluation takes. SST-2's rows, interleaved.

    python benchmarks/data_path.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2

Prints a Markdown table of medians and ratios (usual way / ours); `--output FILE` also writes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pac
from memory import peak_mb

ROWS, EVALUATED = 20_000, 1_000


def setup(data: Path, checkpoint: str, n: int) -> tuple[Any, Any]:
    """(model, the first n training rows of SST-2)."""
    import bert_ft
    from bert_ft.modeling import loading
    from bert_ft.prepared import prepare

    task = bert_ft.load_task("sst2").override(
        {"run.data_dir": str(data / "glue"), "run.checkpoint": checkpoint}
    )
    prepared = prepare(task, bert_ft.Classification)
    import numpy as np

    rows = prepared.splits.train.take(np.arange(n))
    return loading.build(prepared.task, prepared.adapter, "fp32")[0], rows


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(name: str, usual: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> str:
    """A table row: both medians and the median of the pairs' ratios."""
    usual(), ours()  # warm both up
    both = [(timed(usual), timed(ours)) for _ in range(rounds)]
    ratios = [a / b for a, b in both]
    a, b = (statistics.median(times) for times in zip(*both, strict=True))
    return f"| {name} | {a:.3f} | {b:.3f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"


def measure(data: Path, checkpoint: str, rounds: int) -> list[str]:
    import datasets
    import numpy as np
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from bert_ft.engine import batches

    datasets.disable_progress_bars()
    model, rows = setup(data, checkpoint, ROWS)
    table = datasets.Dataset(rows.table)
    folder = tempfile.mkdtemp()

    def mapped() -> Any:
        def encode(batch: dict[str, Any]) -> Any:
            return model.tokenizer(batch["text"], truncation=True, max_length=128)

        return table.map(encode, batched=True, cache_file_name=f"{folder}/{time.time_ns()}.arrow")

    def flat() -> Any:
        features = model.adapter.encode(rows, model.tokenizer, 128)
        for key, column in features.tokens.items():
            np.save(f"{folder}/{key}.npy", column)
        return features

    features, encoded = flat(), mapped().select_columns(["input_ids", "token_type_ids", "attention_mask"])
    collator = DataCollatorWithPadding(model.tokenizer)
    chosen = [np.random.default_rng(i).permutation(ROWS)[:32] for i in range(100)]
    few = rows.take(np.arange(EVALUATED))
    few_features = model.adapter.encode(few, model.tokenizer, 128)
    few_encoded = encoded.select(range(EVALUATED))

    def trainer(size: int) -> Callable[[], Any]:
        from bert_ft.kernels.padding_free import restore

        arguments = TrainingArguments(
            folder, per_device_eval_batch_size=size, report_to=[], disable_tqdm=True
        )

        def predict() -> Any:
            model.plain()
            restore(model.network)
            return Trainer(model.network, arguments, collator).predict(few_encoded)

        return predict

    def ours() -> Any:
        from bert_ft.kernels.last_layer import narrow
        from bert_ft.kernels.padding_free import unpad

        model.unpadding = unpad(model.network)
        model.narrowing = narrow(model.network)
        return model.infer(few, [(few, few_features)])

    return [
        pairs(f"tokenize and store {ROWS:,} rows: datasets.map / ours", mapped, flat, rounds),
        pairs(
            "collate 100 random batches of 32: Arrow rows and collator / ours",
            lambda: [collator([encoded[int(i)] for i in part]) for part in chosen],
            lambda: [batches.collate(features, part, 0, torch.device("cpu")) for part in chosen],
            rounds,
        ),
        pairs(
            f"evaluate {EVALUATED:,} rows: Trainer, batch 8 (its default) / ours", trainer(8), ours, rounds
        ),
        pairs(f"evaluate {EVALUATED:,} rows: Trainer, batch 32 / ours", trainer(32), ours, rounds),
    ]


def peak(data: Path, checkpoint: str, n: int) -> float:
    """Peak memory in MB of reading all rows and evaluating the first n, as `bert-ft evaluate` does."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import bert_ft
    from bert_ft.modeling import loading
    from bert_ft.prepared import prepare

    folder = tempfile.mkdtemp()
    labels = dict(enumerate(bert_ft.load_task("sst2").data.labels))
    AutoModelForSequenceClassification.from_pretrained(checkpoint, id2label=labels).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    task = bert_ft.load_task("sst2").override({"run.data_dir": str(data / "glue"), "run.checkpoint": folder})
    model = loading.load_folder(folder, task)
    rows = prepare(task, bert_ft.Classification).splits.train
    longest = pac.binary_length(rows.table["text"]).to_numpy().argsort()[-64:]
    model.infer(rows.take(longest))  # so that the first batch is no surprise
    before = peak_mb()
    part = rows.part(0, n)
    model.score(model.infer(part), part)
    after = peak_mb()
    print(f"{n} rows: {before:.0f} MB before, {after:.0f} MB after", file=sys.stderr)
    return after


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(options.data, options.checkpoint, options.peak)))
        return
    lines = ["| work | usual (s) | ours (s) | ratio |", "|---|---|---|---|"]
    lines += measure(options.data, options.checkpoint, options.rounds)
    peaks: dict[int, list[float]] = {2_000: [], 20_000: []}
    for n in list(peaks) * options.rounds:
        command = [sys.executable, __file__, "--data", str(options.data), "--checkpoint", options.checkpoint]
        done = subprocess.run([*command, "--peak", str(n)], check=True, stdout=subprocess.PIPE, text=True)
        peaks[n].append(float(done.stdout.strip().splitlines()[-1]))
    few, many = (statistics.median(of) for of in peaks.values())
    spread = max(max(of) - min(of) for of in peaks.values())
    lines += ["", f"Peak memory of an evaluation: {few:.0f} MB for 2,000 rows, {many:.0f} MB for 20,000 ({many - few:+.0f} "
              f"MB; medians of {options.rounds} processes each, which differ by up to {spread:.0f} MB)."]  # fmt: skip
    text = "\n".join([*lines, ""])
    print(text)
    if options.output:
        command = "`python benchmarks/data_path.py`"
        options.output.write_text(f"# Tokenizing, collating, evaluating, side by side\n\n{command}\n\n{text}")


if __name__ == "__main__":
    main()
