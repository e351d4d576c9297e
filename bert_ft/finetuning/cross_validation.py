"""Cross-validation: k ordinary runs below one folder, each held-out row predicted once, mean and spread over
the folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import display, files
from bert_ft.config.task import Task
from bert_ft.data import loading, splitting
from bert_ft.data.rows import Rows, Splits, fingerprint
from bert_ft.families.base import Adapter
from bert_ft.modeling import pretrained
from bert_ft.pages import run_page
from bert_ft.report import scored_set
from bert_ft.run import Run
from bert_ft.rundir import environment
from bert_ft.rundir.folder import RunDir, is_finished


def cross_validate(
    task: Task,
    family: type[Adapter],
    objects: Mapping[str, Any],
    folder: RunDir,
    train: Callable[[Task, Path], Run],
    *,
    overwrite: bool,
    show: display.Display,
) -> Run:
    """Trains a task on `run.folds` folds of its training rows and gives the run that sums them up.

    Fold i is the run `<folder>/fold-<i>` of the task with `data.validation = "i/k"`; one that is finished is
    not repeated. `results.json` has the mean over the folds (`metrics`), the sample standard deviation
    (`spread`) and every value (`per_fold`); `predictions/out_of_fold.jsonl` has every training row once, by
    the model that did not see it.

    Args:
        objects: Python objects in place of files, as `loading.load` takes them.
        train: trains a fold's task into a folder.
    """
    k = task.run.folds or 0
    task = task.override(
        {
            "data.evaluate": "validation",
            "data.validation": None,
            "data.test": None,
            "metric.best": task.best_metric[1],
        }
    )
    rows = _whole(loading.load(_fold(task, 1), family, objects))
    task = task.override(
        {"data.labels": family.find_labels(rows, task) or None}
    )  # a fold may lack a rare one
    checkpoint = pretrained.fingerprint(task.run.checkpoint)
    identity = {"data": fingerprint({"train": rows}), "checkpoint": checkpoint}
    first = files.first_process()
    with folder.lock():
        if is_finished(folder, task, identity, overwrite):
            show.say(f"{folder.path} is finished already: nothing to do (--overwrite trains it again)")
            return Run(folder.path)
        now = {f"{key}_fingerprint": value for key, value in identity.items()}
        if first:
            folder.start(task, now)
        show.say(f"{k} folds of {len(rows):,} rows; no model is kept: train without folds for one", "bold")
        if task.recipe.keep == "best":
            show.say(
                "each fold's best epoch is chosen on its held-out rows, so that the scores lean high; "
                'recipe.keep = "last" does without'
            )
        runs = [train(_fold(task, i), folder.path / f"fold-{i}") for i in range(1, k + 1)]
        if first:
            for old in set(folder.path.glob("fold-*")) - {run.path for run in runs}:
                if (other := RunDir(old)).state in ("finished", "unfinished") and not old.is_symlink():
                    other.remove()
            held = [splitting.split_off(rows, family.target, _fold(task, i).data)[1] for i in range(1, k + 1)]
            files.write_jsonl(folder.prediction_file("out_of_fold"), _out_of_fold(runs, held))
            scored_set.keep(folder, "out_of_fold", rows.table)
            results = _results(task, runs, len(rows))
            files.write_json(folder.environment_json, runs[0].environment | now)
            run_page.leave(folder, results, show.say)
            files.write_json(folder.results_json, results)
            for metric, mean in results["metrics"]["validation"].items():
                show.say(
                    f"{metric}: {mean:.4f} ± {results['spread']['validation'][metric]:.4f} over {k} folds"
                )
    return Run(folder.path)


def _fold(task: Task, number: int) -> Task:
    return task.override({"data.validation": f"{number}/{task.run.folds}", "run.folds": None})


def _whole(splits: Splits) -> Rows:
    """The training rows as they were before a fold was held out."""
    parts = [splits.train, splits.evaluation["validation"]]
    order = np.argsort(np.concatenate([part.numbers for part in parts if part.numbers is not None]))
    return Rows(pa.concat_tables([part.table for part in parts]).take(pa.array(order)), splits.train.where)


def _out_of_fold(runs: list[Run], held: list[Rows]) -> Iterator[dict[str, Any]]:
    lines: list[tuple[int, int, dict[str, Any]]] = []
    for number, (run, rows) in enumerate(zip(runs, held, strict=True), 1):
        assert rows.numbers is not None
        lines += [
            (row, number, line) for row, line in zip(rows.numbers.tolist(), run.predictions(), strict=True)
        ]
    for row, number, line in sorted(lines, key=lambda entry: entry[0]):
        yield {**line, "row": row, "fold": number}


def _results(task: Task, runs: list[Run], rows: int) -> dict[str, Any]:
    first = runs[0].results
    values = {
        metric: [run.metrics["validation"][metric] for run in runs]
        for metric in runs[0].metrics["validation"]
    }
    numbers = {metric: np.array(found, float) for metric, found in values.items()}  # an undefined one is nan
    return {
        **{key: first[key] for key in ("task", "family", "checkpoint", "seed", "recipe")},
        "folds": len(runs),
        "metrics": {"validation": {metric: float(found.mean()) for metric, found in numbers.items()}},
        "spread": {"validation": {metric: float(found.std(ddof=1)) for metric, found in numbers.items()}},
        "per_fold": {"validation": values},
        "counts": {"train": {"rows": rows}},
        "timing": {"train_seconds": round(sum(run.results["timing"]["train_seconds"] for run in runs), 3)},
        "version": environment.version("bert-ft"),
    }
