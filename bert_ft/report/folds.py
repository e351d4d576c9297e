"""What the folds of a cross-validation come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_ft.config.task import Task
from bert_ft.data.rows import Rows
from bert_ft.files import read_jsonl
from bert_ft.report import choices
from bert_ft.rundir import environment
from bert_ft.rundir.folder import RunDir


def out_of_fold(runs: Sequence[RunDir], held_out: list[Rows]) -> Iterator[dict[str, Any]]:
    """The line of every training row, by the model that did not see it, in their order."""
    lines: list[tuple[int, int, dict[str, Any]]] = []
    for number, (run, rows) in enumerate(zip(runs, held_out, strict=True), 1):
        assert rows.numbers is not None
        predictions = read_jsonl(run.prediction_file("validation"))
        lines += [(row, number, line) for row, line in zip(rows.numbers.tolist(), predictions, strict=True)]
    for row, number, line in sorted(lines, key=lambda entry: entry[0]):
        yield {**line, "row": row, "fold": number}


def results(task: Task, runs: Sequence[RunDir], rows: int) -> dict[str, Any]:
    """`results.json` of a cross-validation: mean (`metrics`) and sample standard deviation (`spread`) over
    the folds, and every value (`per_fold`)."""
    each = [run.results() for run in runs]
    first = each[0]
    scored = [results["metrics"]["validation"] for results in each]
    values = {metric: [scores[metric] for scores in scored] for metric in scored[0]}
    # an undefined value becomes nan
    numbers = {metric: np.array(scores, float) for metric, scores in values.items()}
    means = {metric: float(scores.mean()) for metric, scores in numbers.items()}
    made = [choices.of_run(results, run.task(), run.log()) for results, run in zip(each, runs, strict=True)]
    return {
        **{key: first[key] for key in ("task", "family", "checkpoint", "seed", "recipe")},
        "folds": len(runs),
        "metrics": {"validation": means},
        "spread": {"validation": {metric: float(scores.std(ddof=1)) for metric, scores in numbers.items()}},
        "per_fold": {"validation": values},
        "chosen": choices.dumped(choices.of_folds(made, means)),
        "counts": {"train": {"rows": rows}},
        "timing": {"train_seconds": round(sum(results["timing"]["train_seconds"] for results in each), 3)},
        "version": environment.version("bert-ft"),
    }
