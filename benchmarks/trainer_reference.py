"""A reference of our own making: STS-B, measured with `transformers.Trainer` over several seeds, without bert-ft.

    python benchmarks/trainer_reference.py --data ../shared/data/glue --checkpoint .demo/all-MiniLM-L6-v2

Each seed draws its own 2,000 of the 5,749 training rows, its own head, order and dropout, as a bert-ft run with
`limit_train = 2000` does. Trains as `Trainer` is by default, but for the recipe below and without dropout; scores the last weights on dev with
scipy. Writes the task file that `bert-ft reproduce` judges by (benchmarks/stsb-2000.toml).
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROWS, LENGTH, EPOCHS, BATCH, RATE, WARMUP, DECAY = 2000, 128, 3, 16, 2e-4, 0.1, 0.01
HERE = Path(__file__).parent
TASK = """\
# bert-ft reproduce benchmarks/stsb-2000.toml --checkpoint .demo/all-MiniLM-L6-v2 --data-dir path/to/glue --seeds 5
# STS-B with 2,000 training rows, and what transformers.Trainer reaches on it: written by {script}.
title = "STS-B, 2,000 training rows (measured here)"
extends = "stsb"

[data]
limit_train = {rows}

[recipe]
learning_rate = {rate}
batch_size = {batch}
epochs = {epochs}
max_length = {length}
warmup_ratio = {warmup}
weight_decay = {decay}
dropout = 0.0
keep = "last"
"""
REFERENCE = """
[[reference]]
checkpoint = "sentence-transformers/all-MiniLM-L6-v2"
split = "validation"
metric = "{metric}"
value = {mean:.2f}
std = {std:.2f}
statistic = "mean"
runs = {runs}
recipe = {{ learning_rate = {rate}, batch_size = {batch}, epochs = {epochs}, max_length = {length}, warmup_ratio = {warmup}, weight_decay = {decay}, dropout = 0.0, keep = "last" }}
confidence = "C"
source = "{script}, benchmarks/results/trainer-stsb.md"
note = "{limits}"
"""


def read(file: Path) -> list[tuple[str, str, float]]:
    """(sentence1, sentence2, score) of a TSV of STS-B."""
    with file.open(encoding="utf-8") as stream:
        lines = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(line["sentence1"], line["sentence2"], float(line["score"])) for line in lines]


def measure(data: Path, checkpoint: str, seed: int) -> dict[str, float]:
    """Trains with a seed; gives Pearson's and Spearman's correlation on dev, in points."""
    from datasets import Dataset
    from scipy.stats import pearsonr, spearmanr
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint,
        num_labels=1,
        problem_type="regression",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    def encoded(rows: list[tuple[str, str, float]]) -> Dataset:
        first, second, scores = zip(*rows, strict=True)
        texts = tokenizer(list(first), list(second), truncation=True, max_length=LENGTH)
        return Dataset.from_dict({**texts, "labels": scores})

    train = encoded(read(data / "STS-B/train.tsv")).shuffle(seed).select(range(ROWS))
    dev = encoded(read(data / "STS-B/dev.tsv"))
    steps = EPOCHS * -(-ROWS // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, learning_rate=RATE, per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, weight_decay=DECAY,
            warmup_steps=round(WARMUP * steps), seed=seed, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, collator, train_dataset=train, processing_class=tokenizer)
        trainer.train()
        output = trainer.predict(dev)
    found, gold = output.predictions.reshape(-1), output.label_ids
    return {"pearson": 100 * pearsonr(found, gold)[0], "spearmanr": 100 * spearmanr(found, gold)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds STS-B/")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    options = parser.parse_args()
    start, found = time.perf_counter(), []
    for seed in options.seeds:
        found.append(measure(options.data, options.checkpoint, seed))
        print(seed, found[-1], flush=True)
    minutes = (time.perf_counter() - start) / 60
    values = {"script": "benchmarks/trainer_reference.py", "rows": ROWS, "rate": RATE, "batch": BATCH, "epochs": EPOCHS,
              "length": LENGTH, "warmup": WARMUP, "decay": DECAY, "runs": len(found)}  # fmt: skip
    versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "scipy"))
    limits = f"{versions}; {platform.system()}, CPU, fp32; seeds {', '.join(map(str, options.seeds))}"
    text, table = TASK.format(**values), []
    for metric in found[0]:
        each = [one[metric] for one in found]
        mean, std = statistics.fmean(each), statistics.stdev(each)
        text += REFERENCE.format(metric=metric, mean=mean, std=std, limits=limits, **values)
        table.append(
            f"| {metric} | {' | '.join(f'{value:.2f}' for value in each)} | {mean:.2f} ± {std:.2f} |"
        )
    (HERE / "stsb-2000.toml").write_text(text)
    head = f"| metric | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean ± std |"
    told = f"""# STS-B with `transformers.Trainer`, {ROWS:,} training rows a seed, dev

`python benchmarks/trainer_reference.py`: all-MiniLM-L6-v2, {EPOCHS} epochs, batch {BATCH}, learning rate {RATE}, warmup \
{WARMUP:.0%}, weight decay {DECAY}, no dropout, last weights, 1,500 dev rows, correlations times 100. {limits}. {minutes:.0f} minutes.

{head}
|{"---|" * (len(found) + 2)}
"""
    (HERE / "results/trainer-stsb.md").write_text(told + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
