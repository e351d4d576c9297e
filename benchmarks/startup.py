"""From the start of a fresh process to the end of its first optimizer step: `bert-ft train` and a plain `Trainer` script, in turn.

    python benchmarks/startup.py --data ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/startup.md

Both learn the same 1,000 rows of SST-2 from a CSV file, 32 a step, with 200 rows for validation. Each process is ended
after its first step; caches (bytecode, rows read or tokenized) are warm, as in all calls but the first.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS, VALIDATION, BATCH = 1000, 200, 32
OURS, MORE, THEIRS = "bert-ft", "bert-ft with baselines", "Trainer"


def prepare(folder: Path, data: Path) -> None:
    """`train.csv` and `validation.csv`: the first rows of SST-2's training file."""
    with (data / "SST-2" / "train.tsv").open(encoding="utf-8") as stream:
        rows = [
            line.rstrip("\n").split("\t")
            for _, line in zip(range(1 + ROWS + VALIDATION), stream, strict=False)
        ][1:]
    for name, part in (("train", rows[:ROWS]), ("validation", rows[ROWS:])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["text", "label"], *part])


def ends_after_a_step() -> None:
    """Ends this process after an optimizer step, with what it took on its last line."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def end(*_: Any) -> None:
        used = os.times()
        found = {
            "wall": time.time() - float(os.environ["STARTED"]),
            "cpu": sum(used[:4]),
            "modules": len(sys.modules),
        }
        os.write(1, f"\n{json.dumps(found)}\n".encode())
        os._exit(0)

    register_optimizer_step_post_hook(end)


def ours(folder: Path, checkpoint: str, *more: str) -> None:
    """The command, with what `Trainer` does not do left out: what simple methods reach on the same rows."""
    from bert_ft.cli import main as command

    sys.argv = ["bert-ft", "train", "classification", "--train", str(folder / "train.csv"),
                "--validation", str(folder / "validation.csv"), "--batch-size", str(BATCH), "--epochs", "1",
                "--checkpoint", checkpoint, "--output", str(folder / "run"), "--overwrite", *(more or ["--no-baselines"])]  # fmt: skip
    ends_after_a_step()
    command()


def theirs(folder: Path, checkpoint: str) -> None:
    """As its documentation has it: rows tokenized by `map`, padded batch by batch."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation")}
    rows = load_dataset("csv", data_files=files, cache_dir=str(folder / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=5e-5,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    ends_after_a_step()
    trainer.train()


def run(what: str, folder: Path, checkpoint: str) -> dict[str, Any]:
    """One process: its wall and CPU seconds and its modules."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "STARTED": str(time.time()),
        "HF_HUB_OFFLINE": "1",
        "BERT_FT_CACHE": str(folder / "features"),
    }
    command = [sys.executable, __file__, "--one", what, str(folder), "--checkpoint", checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(what, found, file=sys.stderr, flush=True)
    return found


def shown(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def page(rounds: Sequence[dict[str, dict[str, Any]]]) -> str:
    import torch
    import transformers

    lines = []
    for what, unit in (("cpu", "CPU seconds"), ("wall", "wall seconds")):
        for way in rounds[0]:
            ratios = [one[way][what] / one[THEIRS][what] for one in rounds]
            beside = "" if way == THEIRS else shown(ratios)
            lines.append(f"| {unit} | {way} | {shown([one[way][what] for one in rounds])} | {beside} |")
    command = " ".join(["python benchmarks/startup.py", *sys.argv[1:]])
    conditions = (
        f"{ROWS:,} rows of SST-2 from CSV, {VALIDATION} more for validation, batch {BATCH}; {len(rounds)} rounds of fresh "
        f"processes in turn, caches warm, {torch.get_num_threads()} thread(s); medians, with the range. "
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}."
    )
    return "\n".join([
        "# Start-up: from the start of a process to the end of its first optimizer step", "", f"`{command}`", "",
        conditions, "", f"| | | | / {THEIRS} |", "|---|---|---|---|", *lines, "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    ways = {OURS: ours, MORE: lambda *place: ours(*place, "--baselines"), THEIRS: theirs}
    if options.one:
        ways[options.one[0]](Path(options.one[1]), options.checkpoint)
        raise SystemExit("no step was made")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.data)
        for what in ways:  # the caches
            run(what, folder, options.checkpoint)
        rounds = [
            {what: run(what, folder, options.checkpoint) for what in ways} for _ in range(options.pairs)
        ]
    text = page(rounds)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
