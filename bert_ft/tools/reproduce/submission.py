"""`bert-ft reproduce submission`: the zip that a benchmark's server takes, from the test predictions of
finished runs.

What the server wants of each file stands in the suite (`tasks/suites/glue.toml`): file names, rows, ranges.
It wants the labels as the original files have them, which the tasks know (`data.original.label_names`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config.catalog import load_suite, load_task, suites
from bert_ft.config.references import Submission
from bert_ft.errors import InputError, did_you_mean
from bert_ft.files import write
from bert_ft.prepared import prepare_for
from bert_ft.run import Run


@dataclass
class Entry:
    """A file of the zip. `run` is None where it was filled in; `note` says what was done to the
    predictions."""

    file: str
    rows: int
    run: str | None
    note: str = ""


def submission(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    suite: str = "glue",
    fill: bool = False,
    data_dir: str | Path | None = None,
) -> list[Entry]:
    """Writes the zip and returns its files.

    Args:
        runs: finished runs of the suite's tasks, one a task, with predictions of their test sets.
        fill: answers the test rows of a missing task with the most frequent label of its training rows.
        data_dir: folder of the benchmark's original files, for the rows that a run did not predict (GLUE's
            AX, which the model of MNLI answers); the run's own by default.
    Raises:
        InputError: a task without a run, or with several; a run of another task, or without the test
            predictions that the server wants: all rows, labels it knows.
    """
    files = load_suite(suite).submission
    if not files:
        with_one = [name for name, other in suites().items() if other.submission]
        raise InputError(
            f"the suite '{suite}' has no server to submit to", remedy=did_you_mean(suite, with_one)
        )
    found = _by_task(runs, {wanted.task for wanted in files.values()}, suite)
    missing = list(dict.fromkeys(wanted.task for wanted in files.values() if wanted.task not in found))
    if missing and not fill:
        raise InputError(
            f"no run of {', '.join(missing)}",
            where=f"submission to {suite}",
            remedy="--fill answers their rows with the most frequent label of the training rows",
        )
    entries, archive = [], io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, wanted in files.items():
            if wanted.task in found:
                run = found[wanted.task]
                values, note = _answers(run, name, wanted, data_dir)
                entries.append(Entry(name, len(values), str(run.path), note))
            else:
                values = [wanted.majority] * wanted.rows
                entries.append(
                    Entry(name, len(values), None, f"no run of {wanted.task}: all filled in, {values[0]}")
                )
            member = zipfile.ZipInfo(name)  # with no time of day: the same runs give the same bytes
            member.external_attr = 0o644 << 16
            lines = "".join(f"{index}\t{value}\n" for index, value in enumerate(values))
            packed.writestr(member, f"index\tprediction\n{lines}", zipfile.ZIP_DEFLATED)
    write(reading.path(output), archive.getvalue())
    return entries


def _by_task(folders: Sequence[str | Path], tasks: set[str], suite: str) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for run in map(Run, folders):
        name = run.task.name
        if name not in tasks:
            raise InputError(
                f"'{name}' is no task of the submission to {suite}",
                where=str(run.path),
                remedy="it takes runs of " + ", ".join(sorted(tasks)),
            )
        if name in found:
            raise InputError(
                f"two runs of {name}: {found[name].path} and {run.path}",
                where=f"submission to {suite}",
                remedy="name the one to submit",
            )
        found[name] = run
    return found


def _answers(run: Run, name: str, wanted: Submission, data_dir: str | Path | None) -> tuple[list[str], str]:
    """The predictions as the server writes them, and what was done to them."""
    where = f"{run.path}, {wanted.of or wanted.set}"
    lines = run.predictions(wanted.set) if wanted.of is None else _predicted(run, wanted, data_dir)
    if len(lines) != wanted.rows:
        raise InputError(
            f"{len(lines):,} predictions, but {name} has {wanted.rows:,} rows",
            where=where,
            remedy="the server wants the benchmark's own test rows, all of them in their order",
        )
    predictions = [line["prediction"] for line in lines]
    if wanted.range is not None:
        low, high = wanted.range
        if None in predictions:
            raise InputError(
                "a prediction is not a number", where=where, remedy="the training has gone astray"
            )
        outside = sum(not low <= value <= high for value in predictions)
        clipped = [f"{min(max(value, low), high):.3f}" for value in predictions]
        return clipped, f"{outside:,} of {len(lines):,} clipped to {low:g} to {high:g}" * bool(outside)
    data_ = load_task(wanted.of or wanted.task).data
    spelled = {str(label): str(label) for label in data_.labels or []}
    spelled |= {label: code for code, label in (data_.original.label_names if data_.original else {}).items()}
    if strange := set(map(str, predictions)) - spelled.keys():
        raise InputError(
            f"the server does not know the label '{min(strange)}'",
            where=where,
            remedy=did_you_mean(min(strange), spelled),
        )
    return [spelled[str(label)] for label in predictions], ""


def _predicted(run: Run, wanted: Submission, data_dir: str | Path | None) -> list[dict[str, Any]]:
    """The answers of a run's model to the test rows of another task, with the run's own lengths and
    options."""
    place = str(Path(data_dir).expanduser().resolve()) if data_dir is not None else run.task.run.data_dir
    spec = run.task.run.model_copy(update={"data_dir": place})
    bound = run.task.model_copy(update={"data": load_task(str(wanted.of)).data, "run": spec})
    adapter = run.model.adapter
    rows = prepare_for(adapter, bound, training=False).splits.test[wanted.set]
    return list(adapter.lines(run.model.infer(rows), rows))
