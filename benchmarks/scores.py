"""Scores of one seed beside `transformers.Trainer`'s with the same recipe: shown, not judged (one seed decides nothing).

    python benchmarks/scores.py --glue ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2

Both train on the first 2,000 rows (`--rows`) after the seeded shuffle, one epoch of the task's own recipe at learning rate 1e-4,
with dropout; head initialisation and row order come from each side's own seed 42.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SETTINGS = {"epochs": 1, "learning_rate": 1e-4}


def ours(name: str, glue: Path, checkpoint: str, n: int) -> tuple[dict[str, float], float]:
    """(validation metrics, seconds of the whole call)."""
    import bert_ft

    start = time.perf_counter()
    run = bert_ft.finetune(
        name, checkpoint, data_dir=glue, output=Path(tempfile.mkdtemp()) / "run", save_model=False, quiet=True,
        **{**SETTINGS, "limit_train": n, "data.original.test": None},
    )  # fmt: skip
    return run.metrics["validation"], time.perf_counter() - start


def trainers(name: str, glue: Path, checkpoint: str, n: int) -> tuple[dict[str, float], float]:
    """The same through `Trainer`, dynamic padding."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    import bert_ft
    from bert_ft.data.rows import Rows
    from bert_ft.modeling.loading import build
    from bert_ft.prepared import prepare

    start = time.perf_counter()
    changes = {
        **SETTINGS,
        "limit_train": n,
        "batching.unpad": False,
        "run.data_dir": str(glue),
        "run.checkpoint": checkpoint,
    }
    task = bert_ft.load_task(name).override(changes)
    prepared = prepare(task, bert_ft.Classification)
    adapter, splits = prepared.adapter, prepared.splits
    model, _ = build(prepared.task, adapter, "fp32")

    def rows(part: Rows) -> list[dict[str, Any]]:
        features = model.encode(part)
        ends = zip(features.offsets, features.offsets[1:], features.values["labels"].tolist(), strict=False)
        return [{k: c[a:b].tolist() for k, c in features.tokens.items()} | {"labels": y} for a, b, y in ends]

    recipe = task.recipe
    arguments = TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=recipe.batch_size, report_to=[],
        learning_rate=recipe.learning_rate, warmup_steps=recipe.warmup_ratio, weight_decay=recipe.weight_decay,
        save_strategy="no", disable_tqdm=True, seed=42, per_device_eval_batch_size=32, logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model.network, arguments, DataCollatorWithPadding(model.tokenizer), train_dataset=rows(splits.train)
    )
    trainer.train()
    part = splits.evaluation["validation"]
    logits = trainer.predict(rows(part)).predictions
    return adapter.score(
        adapter.decode(logits, SimpleNamespace(values={}), part), part
    ), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "stsb", "mrpc"])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = ["| task | metric (validation, all rows) | bert-ft | Trainer |", "|---|---|---|---|"]
    for name in options.tasks:
        mine, seconds = ours(name, options.glue, options.checkpoint, options.rows)
        theirs, other = trainers(name, options.glue, options.checkpoint, options.rows)
        lines += [f"| {name} | {key} | {mine[key]:.4f} | {theirs[key]:.4f} |" for key in mine]
        lines.append(f"| {name} | seconds, loading and evaluation included | {seconds:.0f} | {other:.0f} |")
        print("\n".join(lines[-3:]), flush=True)
    text = "\n".join([*lines, ""])
    if options.output:
        command = f"`python benchmarks/scores.py`: seed 42, {options.rows:,} training rows, one epoch, learning rate 1e-4, fp32, CPU"
        options.output.write_text(
            f"# Scores of one seed beside Trainer's\n\n{command}; all-MiniLM-L6-v2\n\n{text}"
        )


if __name__ == "__main__":
    main()
