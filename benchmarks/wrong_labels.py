"""Wrong labels that were planted: how many of them `bert-ft check --with RUN` finds, and what training without them
gives back.

    python benchmarks/wrong_labels.py --work FOLDER --output FILE.md
    python benchmarks/wrong_labels.py --work FOLDER --sets sst2 --seeds 3

Needs the extra `cleanlab`. `FOLDER` keeps the runs: what is finished there is not trained again.

Sets (a clean one to score on beside each):

- SST-2, 4,000 rows, fine-tuned;
- the sources of STS-B's sentences (six labels) and emotion (six labels), 4,000 rows each, the encoder's features with
  a head fitted to them;
- WNUT 2017 (words), all 3,394 sentences, fine-tuned.

Planted: so many of the rows get a label drawn from the others. Asymmetric: every wrong label of a class is one and the
same other class (of two classes, one alone is mistaken). Of words: so many of the entities lose their tags, or get
another type; asymmetric: all of them lose their tags.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from few_rows import SETS as TEXTS  # `python benchmarks/wrong_labels.py` has its own folder on the path

ROWS = 4000
FOLDS = 5
NOISE = {"5 %": (0.05, False), "10 %": (0.10, False), "10 %, asymmetric": (0.10, True)}
FINE_TUNED = {"epochs": 1, "learning_rate": 1e-4, "keep": "last", "max_length": 64, "eval_every": 10**6}
FEATURES = {"method": "features", "max_length": 64}
WORDS = FINE_TUNED | {"epochs": 3, "learning_rate": 3e-4}
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Set:
    """A data set and how it is trained; `plant(columns, share, asymmetric, random)` returns its columns with
    wrong labels in them."""

    family: str
    metric: str
    settings: dict[str, Any]
    read: Callable[[Path], tuple[Columns, Columns]]
    plant: Callable[[Columns, float, bool, np.random.Generator], Columns]


def texts(name: str) -> Callable[[Path], tuple[Columns, Columns]]:
    def read(data: Path) -> tuple[Columns, Columns]:
        (inputs, labels), (others, answers) = (TEXTS[name](data, part) for part in ("train", "dev"))
        some = np.sort(np.random.default_rng(0).permutation(len(labels))[:ROWS])
        train = {"text": [inputs[i] for i in some], "label": labels[some].astype(str).tolist()}
        return train, {"text": list(others), "label": answers.astype(str).tolist()}

    return read


def words(data: Path) -> tuple[Columns, Columns]:
    def read(file: Path) -> Columns:
        parts = [part.split("\n") for part in file.read_text(encoding="utf-8").replace("\t\n", "\n").split("\n\n")]
        rows = [[line.split("\t") for line in part if "\t" in line] for part in parts]
        rows = [row for row in rows if row]
        return {"tokens": [[w for w, _ in row] for row in rows], "tags": [[t.strip() for _, t in row] for row in rows]}

    return read(data / "wnut17" / "wnut17train.conll"), read(data / "wnut17" / "emerging.dev.conll")


def plant_labels(columns: Columns, share: float, asymmetric: bool, random: np.random.Generator) -> Columns:
    names, codes = np.unique(columns["label"], return_inverse=True)
    number = round(share * len(codes))
    mistaken = np.flatnonzero(codes == 1) if asymmetric and len(names) == 2 else np.arange(len(codes))
    rows = random.permutation(mistaken)[:number]
    shift = 1 if asymmetric else random.integers(1, len(names), number)
    codes[rows] = (codes[rows] + shift) % len(names)
    return columns | {"label": names[codes].tolist()}


def plant_tags(columns: Columns, share: float, asymmetric: bool, random: np.random.Generator) -> Columns:
    tags = [list(row) for row in columns["tags"]]
    kinds = sorted({tag[2:] for row in tags for tag in row if tag != "O"})
    starts = [(i, j) for i, row in enumerate(tags) for j, tag in enumerate(row) if tag.startswith("B-")]
    for place in random.permutation(len(starts))[: round(share * len(starts))]:
        i, j = starts[place]
        lost = asymmetric or random.random() < 0.5
        other = random.choice([kind for kind in kinds if kind != tags[i][j][2:]])
        end = j + 1
        while end < len(tags[i]) and tags[i][end].startswith("I-"):
            end += 1
        tags[i][j:end] = ["O" if lost else f"{tag[:2]}{other}" for tag in tags[i][j:end]]
    return columns | {"tags": tags}


SETS = {
    "sst2": Set("classification", "accuracy", FINE_TUNED, texts("sst2"), plant_labels),
    "sources": Set("classification", "accuracy", FEATURES, texts("sources"), plant_labels),
    "emotion": Set("classification", "accuracy", FEATURES, texts("emotion"), plant_labels),
    "wnut": Set("ner", "f1", WORDS, words, plant_tags),
}


def trained(of: Set, train: Columns, folder: Path, checkpoint: str, **settings: Any) -> Any:
    import bert_ft

    return bert_ft.finetune(
        of.family, checkpoint, train=train, output=folder, quiet=True, check=False, baselines=False,
        **of.settings, **settings,
    )  # fmt: skip


def folds(of: Set, noisy: Columns, folder: Path, checkpoint: str) -> Any:
    return trained(of, noisy, folder / "folds", checkpoint, folds=FOLDS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default="../shared/data")
    parser.add_argument("--checkpoint", default=".demo/all-MiniLM-L6-v2")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--noise", nargs="*", default=list(NOISE))
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    for name in options.sets:
        of = SETS[name]
        clean, held = of.read(options.data)
        for noise in options.noise:
            share, asymmetric = NOISE[noise]
            noisy = of.plant(clean, share, asymmetric, np.random.default_rng(1))
            folder = options.work / name / noise.replace(" %", "").replace(", ", "-")
            run = folds(of, noisy, folder, options.checkpoint)
            print(name, noise, run.metrics, flush=True)


if __name__ == "__main__":
    main()
