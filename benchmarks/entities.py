"""NER's own work: the entity score against seqeval, and features with labels against the usual `datasets.map` alignment.

    python benchmarks/entities.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2

Both sides are timed in turn and their results compared. Prints a Markdown table of medians and ratios (usual way / ours);
`--output FILE` also writes it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from data_path import pairs

FILES = ("wnut17/wnut17train.conll", "wnut17/emerging.dev.conll", "wikigold/wikigold.conll.txt",
         *(f"btc/{section}.conll" for section in "abefgh"))  # fmt: skip


def sentences(data: Path) -> tuple[Any, Any]:
    """(adapter, the rows of WNUT-17, WikiGold and BTC behind one another, all types as they are)."""
    import bert_ft
    from bert_ft.data.loading import load
    from bert_ft.families.ner.adapter import Ner

    file = "+".join(str(data / name) for name in FILES)
    task = bert_ft.load_task("ner").override({"data.train": file, "data.evaluate": file})
    rows = load(task, Ner).train
    return Ner(task, Ner.find_labels(rows, task)), rows


def scoring(rows: Any, n: int, rounds: int) -> list[str]:
    """`n` sentences; the predictions are the gold tags with one word in ten tagged at random."""
    from seqeval.metrics import accuracy_score, classification_report

    from bert_ft.metrics import entities

    tags = rows.table["tags"].to_pylist()
    gold = (tags * -(-n // len(tags)))[:n]
    chance, names = np.random.default_rng(0), sorted({tag for sentence in tags for tag in sentence})
    noise = iter(chance.integers(0, 10 * len(names), sum(map(len, gold))).tolist())
    found = [[names[k] if (k := next(noise)) < len(names) else tag for tag in sentence] for sentence in gold]
    (g, p), offsets, known = entities.flat(gold, found)

    def usual() -> dict[str, Any]:
        """What the hub's `seqeval` metric calls."""
        return classification_report(gold, found, output_dict=True) | {
            "accuracy": accuracy_score(gold, found)
        }

    def named() -> dict[str, Any]:
        """As `compute_metrics` of `transformers`' run_ner: ids to names first."""
        sides = [
            [[known[k] for k in ids[a:b]] for a, b in pairwise(offsets.tolist())]
            for ids in (g.tolist(), p.tolist())
        ]
        report = classification_report(*sides, output_dict=True)
        return report | {"accuracy": accuracy_score(*sides)}

    def lists() -> dict[str, Any]:
        (g, p), offsets, known = entities.flat(gold, found)
        return entities.score(g, p, offsets, known)

    def arrays() -> dict[str, Any]:
        return entities.score(g, p, offsets, known)

    mine, report = lists(), usual()
    assert mine == arrays()
    assert report == named()
    for name, row in mine.items():
        expected = report[name or "micro avg"]
        assert all(
            abs(row[key] - expected[key.replace("f1", "f1-score")]) < 1e-12
            for key in ("precision", "recall", "f1")
        )
    assert abs(mine[""]["accuracy"] - report["accuracy"]) < 1e-12
    words = sum(map(len, gold))
    return [
        pairs(f"scores of {what}: {n:,} sentences, {words:,} words: seqeval / ours", theirs, ours, rounds)
        for what, theirs, ours in (
            ("tag ids, as in evaluation", named, arrays),
            ("lists of tags", usual, lists),
        )
    ]


def features(adapter: Any, rows: Any, checkpoint: str, rounds: int) -> str:
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    usual_tokenizer, our_tokenizer = (AutoTokenizer.from_pretrained(checkpoint) for _ in range(2))
    ids = {name: k for k, name in enumerate(adapter.names)}
    columns = {"tokens": rows.table["tokens"].to_pylist(),
               "ner_tags": [[ids[tag] for tag in tags] for tags in rows.table["tags"].to_pylist()]}  # fmt: skip
    table, folder = datasets.Dataset.from_dict(columns), tempfile.mkdtemp()

    def align(batch: dict[str, Any]) -> Any:
        """As in `transformers`' run_ner and its course."""
        encoded = usual_tokenizer(batch["tokens"], truncation=True, max_length=512, is_split_into_words=True)
        labels = []
        for i, tags in enumerate(batch["ner_tags"]):
            previous, row = None, []
            for word in encoded.word_ids(batch_index=i):
                row.append(-100 if word is None or word == previous else tags[word])
                previous = word
            labels.append(row)
        encoded["labels"] = labels
        return encoded

    def mapped() -> Any:
        return table.map(align, batched=True, remove_columns=table.column_names,
                         cache_file_name=f"{folder}/{time.time_ns()}.arrow")  # fmt: skip

    def flat() -> Any:
        made = adapter.encode(rows, our_tokenizer, 512)
        for name, column in (made.tokens | made.targets | {"offsets": made.offsets}).items():
            np.save(f"{folder}/{name}.npy", column)
        return made

    ours, theirs = flat(), mapped()
    for name, column in (("input_ids", ours.tokens["input_ids"]), ("labels", ours.targets["labels"])):
        assert [column[a:b].tolist() for a, b in pairwise(ours.offsets)] == list(theirs[name]), name
    return pairs(
        f"features with labels of {len(rows):,} sentences, stored: datasets.map / ours", mapped, flat, rounds
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=50_000, help="that the metric scores")
    parser.add_argument("--limit", type=int, help="rows that are encoded, for a quick look")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    adapter, rows = sentences(options.data)
    part = rows.part(0, options.limit or len(rows))
    lines = ["| work | usual (s) | ours (s) | ratio |", "|---|---|---|---|"]
    lines += scoring(rows, options.sentences, options.rounds)
    lines.append(features(adapter, part, options.checkpoint, options.rounds))
    text = "\n".join([*lines, ""])
    print(text)
    if options.output:
        options.output.write_text(
            f"# Entity scores and aligned features, side by side\n\n`python benchmarks/entities.py`\n\n{text}"
        )


if __name__ == "__main__":
    main()
