"""`bert-ft check TASK --with RUN`: labels of training rows that are likely wrong, by the folds of a run."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config.task import Task
from bert_ft.data import left_out
from bert_ft.data.checks.columns import plain
from bert_ft.data.checks.findings import excerpt
from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError, disk
from bert_ft.families.base import Adapter
from bert_ft.prepared import folded
from bert_ft.report.scored_set import Scored, consistent
from bert_ft.run import Run
from bert_ft.tools.predict import cells

MOST = 60  # characters of a label in a line
AGAIN = "train folds of these very rows: bert-ft train ... --folds 5 -o FOLDER; then check ... --with FOLDER"


def find(
    folder: str | Path, task: Task, family: type[Adapter], objects: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The training rows of a task whose labels are likely wrong, the likeliest first, by the folds of the run
    in `folder`: place, fingerprint, texts (and word, where a word has the label), label, suggestion, quality.

    Raises:
        InputError: a run without folds, of other rows or another task, or that kept no probabilities;
            cleanlab is not installed.
    """
    run = Run(folder)
    if run.task.run.folds is None:
        raise InputError(
            "this run has no folds, and a model that learned a label says little of whether it is right",
            where=str(folder),
            remedy=AGAIN,
        )
    scored = run.scored("out_of_fold")
    rows = _rows(run, task, family, objects, scored)
    with consistent(run.path), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that labels of a single row are not doubted
        suspects = scored.suspects()
    names = left_out.fingerprints(rows, left_out.roles(family))
    texts = {role: plain(rows.table[role]) for role in family.texts if role in rows.table.column_names}
    result = []
    for one in suspects:
        line: dict[str, Any] = {
            left_out.PLACE: rows.place(one.row, one.item),
            left_out.COLUMN: names[one.row],
        }
        line |= {role: column[one.row].as_py() for role, column in texts.items()}
        if one.item is not None:
            line["word"] = rows.table[family.texts[0]][one.row][one.item].as_py()
        line |= {"label": one.label, "suggestion": one.suggestion, "quality": one.quality}
        result.append(line)
    return result


def _rows(run: Run, task: Task, family: type[Adapter], objects: Mapping[str, Any], scored: Scored) -> Rows:
    """The training rows as they are now, once they are those that the run's folds were taken of."""
    bound = task.override({"run.folds": run.task.run.folds, "data.without": None})
    kinds = [(of.family, of.data.problem_type) for of in (run.task, task)]
    message = f"this run is of another task: {run.task.name}, and not {task.name}"
    if kinds[0] == kinds[1] and scored.rows is not None:
        rows = folded(bound, family, objects)[1]
        roles = left_out.roles(family)
        with consistent(run.path):
            then = left_out.fingerprints(Rows(scored.rows, str(run.path)), roles)
        now = left_out.fingerprints(rows, roles)
        if now == then:
            return rows
        if run.task.name == task.name:
            changed = f"{len(set(now) - set(then)):,} of which it did not see"
            message = (
                f"the rows are not those of this run, but {len(now):,} rows (it had {len(then):,}), {changed}"
            )
    raise InputError(message, where=str(run.path), remedy=AGAIN)


def finding(suspects: list[dict[str, Any]], texts: tuple[str, ...]) -> list[Finding]:
    """The rows, or words, in short; none where none is suspected."""
    if not suspects:
        return []
    examples, places = [], []
    for one in suspects[:KEPT]:
        said = [excerpt(_cell(one[key]), most=MOST) for key in ("label", "suggestion")]
        text = " | ".join(_cell(one[role]) for role in texts if role in one)
        what = f"{one['word']}: " if "word" in one else ""
        examples.append(excerpt(f"{what}{said[0]} → {said[1]}?  {text}"))
        places.append(f"{one['place']} ({one['quality']:.3f})")
    unit = "words" if "word" in suspects[0] else "rows"
    message = f"{unit} with a label that is likely wrong (label → what models that did not learn it say)"
    return [Finding("wrong labels", "warning", "train", len(suspects), message, examples, places)]


def export(file: str | Path, suspects: list[dict[str, Any]]) -> None:
    """Writes them as CSV that a spreadsheet opens without harm, and that `data.without` takes."""
    path = Path(file)
    columns = list(suspects[0]) if suspects else [left_out.PLACE, left_out.COLUMN]
    lines = ([cells.without_formula(_cell(one[column])) for column in columns] for one in suspects)
    with (
        disk(path),
        files.beside(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as stream,
    ):
        csv.writer(cells.CsvLines(stream), lineterminator=cells.CsvLines.END).writerows([columns, *lines])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
