"""Wrong labels that were planted: how many of them `bert-ft check --with RUN` finds, and what training without them
gives back.

    python benchmarks/wrong_labels.py --work FOLDER
    python benchmarks/wrong_labels.py --work FOLDER --sets SST-2 --noise "10 %" --seeds 3

Needs the extra `cleanlab`. `FOLDER` keeps the runs and `measured.jsonl`: what is in it is not measured again.

Sets, each with clean rows to score on:

- SST-2, 4,000 rows, fine-tuned; and "features": the encoder stays, a head is fitted to its features;
- sources (of sentences of STS-B, six labels) and emotion (six labels), 4,000 rows each, features;
- WNUT 2017 (words), the first 1,000 sentences, features, 3 folds.

Planted: so many of the rows get a label drawn from the others. Asymmetric: every wrong label of a class is one and the
same other class; of two classes, one alone is mistaken. Of words: so many of the entities lose their tags, or get those
of another type, half and half; asymmetric: all of them lose their tags.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from few_rows import SETS as TEXTS  # `python benchmarks/wrong_labels.py` has its own folder on the path

ROWS = 4000
NOISE = {"5 %": (0.05, False), "10 %": (0.10, False), "10 %, asymmetric": (0.10, True)}
FINE_TUNED = {"epochs": 1, "learning_rate": 1e-4, "keep": "last", "max_length": 64, "eval_every": 10**6}
FEATURES = {"method": "features", "max_length": 64}
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
    folds: int = 5


def texts(name: str) -> Callable[[Path], tuple[Columns, Columns]]:
    def read(data: Path) -> tuple[Columns, Columns]:
        (inputs, labels), (others, answers) = (TEXTS[name](data, part) for part in ("train", "dev"))
        some = np.sort(np.random.default_rng(0).permutation(len(labels))[:ROWS])
        train = {"text": [inputs[i] for i in some], "label": labels[some].astype(str).tolist()}
        return train, {"text": list(others), "label": answers.astype(str).tolist()}

    return read


def words(data: Path) -> tuple[Columns, Columns]:
    def read(file: Path) -> Columns:
        parts = [
            part.split("\n") for part in file.read_text(encoding="utf-8").replace("\t\n", "\n").split("\n\n")
        ]
        rows = [[line.split("\t") for line in part if "\t" in line] for part in parts]
        rows = [row for row in rows if row]
        return {
            "tokens": [[w for w, _ in row] for row in rows],
            "tags": [[t.strip() for _, t in row] for row in rows],
        }

    train = read(data / "wnut17" / "wnut17train.conll")
    return {key: column[:1000] for key, column in train.items()}, read(data / "wnut17" / "emerging.dev.conll")


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
    "SST-2": Set("classification", "accuracy", FINE_TUNED, texts("sst2"), plant_labels),
    "SST-2, features": Set("classification", "accuracy", FEATURES, texts("sst2"), plant_labels),
    "sources": Set("classification", "accuracy", FEATURES, texts("sources"), plant_labels),
    "emotion": Set("classification", "accuracy", FEATURES, texts("emotion"), plant_labels),
    "WNUT": Set("ner", "f1", FEATURES, words, plant_tags, 3),
}


def trained(of: Set, train: Columns, folder: Path, checkpoint: str, **settings: Any) -> Any:
    import bert_ft

    return bert_ft.finetune(
        of.family, checkpoint, train=train, output=folder, quiet=True, check=False, baselines=False,
        **of.settings, **settings,
    )  # fmt: skip


def planted(clean: Columns, noisy: Columns) -> set[tuple[int, int | None]]:
    """(row, word) of every label that was changed."""
    if "label" in clean:
        return {
            (i, None) for i, (a, b) in enumerate(zip(clean["label"], noisy["label"], strict=True)) if a != b
        }
    rows = enumerate(zip(clean["tags"], noisy["tags"], strict=True))
    return {(i, j) for i, (a, b) in rows for j in range(len(a)) if a[j] != b[j]}


def of_list(found: list[tuple[int, int | None]], wrong: set[tuple[int, int | None]]) -> dict[str, Any]:
    """How many of what was planted a ranked list has."""
    right = np.cumsum([place in wrong for place in found])
    n = len(wrong)
    precision = {
        f"precision at {k}": float(right[k - 1] / k) if k <= len(right) else None for k in (50, 100, 200)
    }
    at = float(right[min(n, len(right)) - 1] / n) if len(right) else 0.0
    whole = float(right[-1]) if len(right) else 0.0
    return {"planted": n, "listed": len(found), **precision, "recall at planted": at,
            "precision": whole / max(1, len(found)), "recall": whole / n}  # fmt: skip


def without(columns: Columns, rows: set[int]) -> Columns:
    return {
        key: [value for i, value in enumerate(column) if i not in rows] for key, column in columns.items()
    }


def measure(
    name: str, noise: str, data: Path, work: Path, checkpoint: str, seeds: int, trainings: bool
) -> dict[str, Any]:
    """What the list of one set has of what was planted, and the metric on clean rows of models trained on
    the noisy rows, without what the list names, without what was planted, and on the true labels."""
    from bert_ft.tools import wrong_labels
    from bert_ft.tools.check import check

    of = SETS[name]
    clean, held = of.read(data)
    share, asymmetric = NOISE[noise]
    noisy = of.plant(clean, share, asymmetric, np.random.default_rng(1))
    folder = work / name.replace(", ", "-") / noise.replace(" %", "").replace(", ", "-")
    run = trained(of, noisy, folder / "folds", checkpoint, folds=of.folds)
    wrong = planted(clean, noisy)
    found = [(one.row, one.item) for one in run.scored().suspects()]
    result = {"set": name, "noise": noise, "metric": of.metric, "folds": run.metrics["validation"][of.metric]}
    result |= of_list(found, wrong)
    if not trainings:
        return result
    listed = folder / "suspects.csv"
    wrong_labels.export(listed, check(of.family, train=noisy, validation=held, run=run.path).suspects or [])
    ways = {
        "noisy": (noisy, {}),
        "without the list": (noisy, {"without": str(listed)}),
        "without the planted": (without(noisy, {row for row, _ in wrong}), {}),
        "true labels": (clean, {}),
    }
    for way, (train, settings) in ways.items():
        where = folder.parent if way == "true labels" else folder
        scores = [
            trained(of, train, where / f"{way}-{seed}", checkpoint, validation=held, seed=seed, save_model=False,
                    **settings).metrics["validation"][of.metric]
            for seed in range(1 if of.settings.get("method") else seeds)
        ]  # fmt: skip
        result[way] = scores
    return result


def by_vectors(name: str, data: Path, checkpoint: str, draws: int) -> list[dict[str, Any]]:
    """The same of a logistic regression on the encoder's vectors in the place of runs: texts are encoded once,
    so that every noise has several draws. The list is that of the family's own measure."""
    from types import SimpleNamespace

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    import bert_ft
    from bert_ft.families.wrong_labels import of_classes

    of = SETS[name]
    clean, held = of.read(data)
    embedder = bert_ft.Embedder.load(checkpoint, normalize=True)
    x, scored = (embedder.vectors(part["text"])[0] for part in (clean, held))
    model = LogisticRegression(C=10, max_iter=200)

    def accuracy(labels: list[str], rows: list[int]) -> float:
        return float(model.fit(x[rows], np.array(labels)[rows]).score(scored, held["label"]))

    everything = list(range(len(x)))
    result = []
    for noise, (share, asymmetric) in NOISE.items():
        for draw in range(draws):
            noisy = of.plant(clean, share, asymmetric, np.random.default_rng(draw))
            split = StratifiedKFold(5, shuffle=True, random_state=draw)
            p = cross_val_predict(model, x, noisy["label"], cv=split, method="predict_proba")
            names = sorted(set(noisy["label"]))
            lines = [
                {
                    "label": label,
                    "prediction": names[q.argmax()],
                    "probabilities": dict(zip(names, q, strict=True)),
                }
                for label, q in zip(noisy["label"], p, strict=True)
            ]
            of_run = SimpleNamespace(
                lines=lines, names=names, column=lambda key, of=lines: [one[key] for one in of]
            )
            found = [(one.row, one.item) for one in of_classes(of_run)]
            wrong = planted(clean, noisy)
            right = float(np.mean([one["label"] == one["prediction"] for one in lines]))
            line = {
                "set": f"{name}, vectors",
                "noise": noise,
                "metric": of.metric,
                "folds": right,
                "draw": draw,
            }
            ways = {
                "noisy": accuracy(noisy["label"], everything),
                "without the list": accuracy(
                    noisy["label"], sorted({*everything} - {row for row, _ in found})
                ),
                "without the planted": accuracy(
                    noisy["label"], sorted({*everything} - {row for row, _ in wrong})
                ),
                "true labels": accuracy(clean["label"], everything),
            }
            result.append(line | of_list(found, wrong) | {way: [score] for way, score in ways.items()})
    return result


def averaged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for the draws of each set and noise: means, and of the trainings every score."""
    result = []
    for key in dict.fromkeys((line["set"], line["noise"]) for line in lines):
        these = [line for line in lines if (line["set"], line["noise"]) == key]
        mean = dict(these[0])
        for name, value in these[0].items():
            values = [line[name] for line in these]
            if isinstance(value, list):
                mean[name] = [score for each in values for score in each]
            elif isinstance(value, (int, float)) and None not in values:
                mean[name] = type(value)(np.mean(values))
        result.append(mean)
    return result


def table(lines: list[dict[str, Any]]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def several(scores: list[float]) -> str:
        if not scores:
            return "-"
        mean = f"{100 * np.mean(scores):.1f}"
        ends = f" ({100 * min(scores):.1f} to {100 * max(scores):.1f})"
        return mean + ends if len(scores) > 1 else mean

    counted = [
        "precision at 50",
        "precision at 100",
        "precision at 200",
        "recall at planted",
        "precision",
        "recall",
    ]
    ways = ["noisy", "without the list", "without the planted", "true labels"]
    first = ["| set | planted | wrong labels | folds' metric | listed | " + " | ".join(counted) + " |"]
    first.append("|---|---|---:|---:|---:|" + "---:|" * len(counted))
    second = [
        "| set | planted | metric on clean rows | " + " | ".join(ways) + " |",
        "|---|---|---|" + "---:|" * 4,
    ]
    for line in averaged(lines):
        head = f"| {line['set']} | {line['noise']} | "
        cells = " | ".join(share(line[key]) for key in counted)
        first.append(f"{head}{line['planted']:,} | {line['folds']:.3f} | {line['listed']:,} | {cells} |")
        if "noisy" in line:
            cells = " | ".join(several(line.get(way, [])) for way in ways)
            second.append(f"{head}{line['metric']} | {cells} |")
    return "\n".join([*first, "", *second])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default="../shared/data")
    parser.add_argument("--checkpoint", default=".demo/all-MiniLM-L6-v2")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--vectors", nargs="*", default=[], help="sets that are measured by vectors, too")
    parser.add_argument("--draws", type=int, default=5, help="of the labels that are wrong, by vectors")
    parser.add_argument("--noise", nargs="*", default=list(NOISE), choices=list(NOISE))
    parser.add_argument("--seeds", type=int, default=1, help="of the trainings that are not fits of a head")
    parser.add_argument("--list-only", action="store_true", help="no training but the folds")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    measured = options.work / "measured.jsonl"
    measured.parent.mkdir(parents=True, exist_ok=True)
    for name in options.vectors:
        if not measured.exists() or f"{name}, vectors" not in measured.read_text():
            lines = by_vectors(name, options.data, options.checkpoint, options.draws)
            with measured.open("a") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in lines)
    for name in options.sets:
        for noise in options.noise:
            lines = (
                [json.loads(line) for line in measured.read_text().splitlines()] if measured.exists() else []
            )
            if any((line["set"], line["noise"]) == (name, noise) for line in lines):
                continue
            places = (options.data, options.work, options.checkpoint)
            found = measure(name, noise, *places, options.seeds, not options.list_only)
            with measured.open("a") as stream:
                stream.write(json.dumps(found) + "\n")
    print(table([json.loads(line) for line in measured.read_text().splitlines()]))


if __name__ == "__main__":
    main()
