"""Few labelled rows: what each method reaches, and in what time, beside SetFit.

    python benchmarks/few_rows.py --rows 8 --draws 10 --setfit ENV/bin/python --measured FILE.jsonl --output FILE.md
    python benchmarks/few_rows.py --total 200 --draws 5 --methods default features contrastive --measured FILE.jsonl
    python benchmarks/few_rows.py --total 1000 --draws 5 --methods "SetFit 1.2, 20 pairs a row" --setfit ENV/bin/python \
        --workers 14 --measured FILE.jsonl     # on a GPU: scores alone, the draws side by side
    python benchmarks/few_rows.py --full sst2 mrpc --measured FILE.jsonl

All methods of a draw get the same rows and are scored on the same ones, each with one thread in a process of its own.
Seconds are CPU seconds from the checkpoint on disk to the trained model, without imports and without the scoring. What
`--measured` holds already is not measured again. ENV is an environment of its own with `setfit==1.2.0`, which needs
transformers below 5.

Sets: SST-2; emotion (six labels); the source of a sentence of STS-B (six labels: video captions, image captions,
headlines, news, two forums).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SCORED = 1000  # rows, at most
EMOTIONS = ("anger", "fear", "joy", "love", "sadness", "surprise")
SOURCES = ("MSRvid", "images", "headlines", "MSRpar", "deft-forum", "deft-news")
METHODS: dict[str, dict[str, Any]] = {
    "features": {"method": "features"},
    "contrastive": {"method": "contrastive"},
    "default": {},
    "three epochs": {"epochs": 3},
}
# its defaults take all pairs, of which 200 rows have thousands of batches: 20 pairs of each kind a row are its paper's
SETFIT = {
    "SetFit 1.2": {},
    "SetFit 1.2, 20 pairs a row": {"num_iterations": 20},
    # for 1,000 rows, of which 20 pairs take 44 to 67 minutes a draw
    "SetFit 1.2, 10 pairs a row": {"num_iterations": 10},
    "SetFit 1.2, 5 pairs a row": {"num_iterations": 5},
}

Table = tuple[list[str], np.ndarray]


def sst2(data: Path, part: str) -> Table:
    lines = (data / "glue" / "SST-2" / f"{part}.tsv").read_text(encoding="utf-8").split("\n")[1:]
    cells = [line.split("\t") for line in lines if line]
    return [text for text, _ in cells], np.array([int(label) for _, label in cells])


def emotion(data: Path, part: str) -> Table:
    name = {"train": "train.txt", "dev": "test.txt"}[part]
    cells = [line.split(";") for line in (data / "emotion" / name).read_text(encoding="utf-8").split("\n")]
    cells = [cell for cell in cells if len(cell) == 2 and cell[1] in EMOTIONS]
    return [text for text, _ in cells], np.array([EMOTIONS.index(label) for _, label in cells])


def sources(data: Path, part: str) -> Table:
    lines = (data / "glue" / "STS-B" / f"{part}.tsv").read_text(encoding="utf-8").split("\n")[1:]
    cells = [line.split("\t") for line in lines if line]
    texts = {cell[7]: SOURCES.index(cell[2]) for cell in cells if cell[2] in SOURCES}
    return list(texts), np.array(list(texts.values()))


SETS = {"sst2": sst2, "emotion": emotion, "sources": sources}


def drawn(name: str, data: Path, seed: int, per_label: int, total: int) -> tuple[Table, Table]:
    """(rows to train on, rows to score): so many of each label, or so many in all."""
    texts, labels = SETS[name](data, "train")
    random = np.random.default_rng(seed)
    if total:
        rows = random.permutation(len(labels))[:total]
    else:
        rows = np.concatenate(
            [random.permutation(np.flatnonzero(labels == c))[:per_label] for c in np.unique(labels)]
        )
    scored, answers = SETS[name](data, "dev")
    taken = (
        np.random.default_rng(0).permutation(len(scored))[:SCORED]
        if len(scored) > SCORED
        else range(len(scored))
    )
    return (([texts[i] for i in rows], labels[rows]), ([scored[i] for i in taken], answers[list(taken)]))


def ours(
    checkpoint: str, settings: dict[str, Any], train: Table, scored: Table, seed: int
) -> dict[str, float]:
    """Accuracy and CPU seconds of one training of ours; the one evaluation in it is on a single row."""
    import bert_ft

    def rows(table: Table) -> dict[str, list[str]]:
        return {"text": table[0], "label": [str(label) for label in table[1]]}

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = bert_ft.finetune(
            "classification", checkpoint, train=rows(train), validation={key: column[:1] for key, column in
            rows(train).items()}, output=f"{folder}/run", seed=seed, quiet=True, check=False, keep="last",
            eval_every=10**6, **settings,
        )  # fmt: skip
        seconds = time.process_time() - start
        answers = [answer["prediction"] for answer in run.predict(scored[0])]
        return {"accuracy": _accuracy(answers, scored), "seconds": seconds, "steps": run.results["steps"]}


def setfit(
    checkpoint: str, settings: dict[str, Any], train: Table, scored: Table, seed: int
) -> dict[str, float]:
    """The same of SetFit, in its own environment."""
    import transformers
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        model = SetFitModel.from_pretrained(checkpoint)
        arguments = TrainingArguments(
            output_dir=folder, seed=seed, report_to="none", save_strategy="no", **settings
        )
        rows = Dataset.from_dict({"text": train[0], "label": [int(label) for label in train[1]]})
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        trainer.train()
        seconds = time.process_time() - start
        answers = [str(int(answer)) for answer in model.predict(scored[0])]
        return {"accuracy": _accuracy(answers, scored), "seconds": seconds}


def _accuracy(answers: Sequence[Any], scored: Table) -> float:
    return 100 * float(np.mean([str(a) == str(b) for a, b in zip(answers, scored[1], strict=True)]))


def full(checkpoint: str, data: str, name: str, settings: dict[str, Any]) -> dict[str, float]:
    """A GLUE task with all of its rows: the score, and the seconds of the training (features once computed:
    of the fit) and of the whole."""
    import bert_ft

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = bert_ft.finetune(name, checkpoint, data_dir=f"{data}/glue", output=f"{folder}/run", quiet=True,
                               check=False, **{"data.original.test": None}, **settings)  # fmt: skip
        return {
            "accuracy": 100 * run.results["metrics"]["validation"]["accuracy"],
            "seconds": time.process_time() - start,
            "training": run.results["timing"]["train_seconds"],
        }


def each(job: dict[str, Any]) -> None:
    """Prints what every draw of a job gives, a line each. One that is not counted comes first: what libraries
    import and compile at their first call is not of a training."""
    import torch

    torch.set_num_threads(1)
    if job["full"]:
        print(json.dumps(full(job["checkpoint"], job["data"], job["set"], job["settings"])), flush=True)
        return
    measure = setfit if job["method"] in SETFIT else ours
    for number, seed in enumerate([job["seeds"][0], *job["seeds"]]):
        train, scored = drawn(job["set"], Path(job["data"]), seed, job["rows"], job["total"])
        if number:
            print(json.dumps(measure(job["checkpoint"], job["settings"], train, scored, seed)), flush=True)
        else:
            some = [*range(0, len(train[0]), max(1, len(train[0]) // 12))]
            few = [train[0][i] for i in some], train[1][some]
            short = {} if job["method"] == "features" else {"max_steps": 1}
            measure(job["checkpoint"], job["settings"] | short, few, few, seed)


def measured(
    jobs: Sequence[dict[str, Any]], file: Path, python: str, workers: int = 1
) -> list[dict[str, Any]]:
    """What each draw of the jobs gave, from the file where it is in it. With several `workers` each draw has a process
    of its own, and their seconds are those of a crowd."""
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    keys = ("set", "method", "rows", "total", "full")
    found = {(*(line[key] for key in keys), line["seed"]): line for line in known}
    parts = []
    for job in jobs:
        todo = [seed for seed in job["seeds"] if (*(job[key] for key in keys), seed) not in found]
        parts += (
            [job | {"seeds": [seed]} for seed in todo]
            if workers > 1
            else [job | {"seeds": todo}] * bool(todo)
        )
    with ThreadPoolExecutor(workers) as pool:
        for line in itertools.chain.from_iterable(pool.map(lambda job: _draws(job, file, python), parts)):
            found[(*(line[key] for key in keys), line["seed"])] = line
    return [found[(*(job[key] for key in keys), seed)] for job in jobs for seed in job["seeds"]]


def _draws(job: dict[str, Any], file: Path, python: str) -> list[dict[str, Any]]:
    """What the draws of a job give, measured in a process of their own and written to the file."""
    command = [python if job["method"] in SETFIT else sys.executable, __file__, "each", json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        lines = (line for line in child.stdout if line.startswith('{"accuracy"'))
        for seed, line in zip(job["seeds"], lines, strict=False):
            key = {name: job[name] for name in ("set", "method", "rows", "total", "full")}
            result.append(key | {"seed": seed} | json.loads(line))
            with file.open("a") as stream:
                stream.write(json.dumps(result[-1]) + "\n")
            print(result[-1], file=sys.stderr, flush=True)
    if child.returncode:
        raise SystemExit(child.returncode)
    return result


def table(lines: Sequence[dict[str, Any]]) -> str:
    result = [
        "| set | rows | method | draws | accuracy | standard error | CPU s |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    kinds = dict.fromkeys((line["set"], line["rows"], line["total"], line["method"]) for line in lines)
    for name, rows, total, method in kinds:
        these = [
            line
            for line in lines
            if (line["set"], line["rows"], line["total"], line["method"]) == (name, rows, total, method)
        ]
        scores = [line["accuracy"] for line in these]
        error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
        size = f"{total:,}" if total else f"{rows} a label"
        seconds = statistics.median(line["seconds"] for line in these)
        extra = (
            f" (training {statistics.median(line['training'] for line in these):.1f})"
            if "training" in these[0]
            else ""
        )
        result.append(
            f"| {name} | {'all' if these[0]['full'] else size} | {method} | {len(these)} | "
            f"{statistics.fmean(scores):.1f} | {error:.1f} | {seconds:.0f}{extra} |"
        )
    return "\n".join(result)


def main() -> None:
    if sys.argv[1:2] == ["each"]:
        each(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--checkpoint", default=".demo/all-MiniLM-L6-v2")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--rows", type=int, default=8, help="of each label")
    parser.add_argument("--total", type=int, default=0, help="rows in all, in the place of --rows")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--methods", nargs="*", default=["SetFit 1.2", "contrastive", "features"])
    parser.add_argument(
        "--full", nargs="*", default=[], help="GLUE tasks with all of their rows, in the place of draws"
    )
    parser.add_argument("--setfit", default="", help="the Python of an environment with setfit")
    parser.add_argument("--workers", type=int, default=1, help="draws that are measured side by side")
    parser.add_argument("--measured", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shared = {
        "checkpoint": str(Path(options.checkpoint).resolve()),
        "data": str(Path(options.data).resolve()),
    }
    sizes = {"rows": 0 if options.total or options.full else options.rows, "total": options.total}
    seeds = [0] if options.full else list(range(options.draws))
    jobs = [
        {"set": name, "seeds": seeds, "method": method, "full": bool(options.full), **sizes, **shared,
         "settings": (METHODS | SETFIT)[method]}
        for name in options.full or options.sets
        for method in options.methods
        if options.setfit or method not in SETFIT
    ]  # fmt: skip
    text = table(measured(jobs, options.measured, options.setfit, options.workers))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
