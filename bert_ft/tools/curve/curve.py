"""`bert-ft curve`: how many labels are enough? One run for each part of the training rows and each seed, and
a law through their scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ft import families, files, reading
from bert_ft.config.catalog import load_task
from bert_ft.config.schema import Execution
from bert_ft.config.task import Task
from bert_ft.data import loading, overrides
from bert_ft.display import Display, table_of
from bert_ft.errors import InputError
from bert_ft.finetuning.finetune import finetune
from bert_ft.jobs.base import Job, Watcher
from bert_ft.jobs.local import InProcess
from bert_ft.prepared import read
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir
from bert_ft.tools import repeated
from bert_ft.tools.curve import page
from bert_ft.tools.curve.results import Point, results_of
from bert_ft.tools.curve.sizes import Size, refuse_missing_labels, sizes

SHARES = ("5%", "10%", "25%", "50%", "100%")
OWN = ("results.json", "points.csv", "curve.html")  # what a curve writes; the first is written first
FEWEST_SEEDS = 2


def curve(
    task: str | Path | Task,
    checkpoint: str | None = None,
    *,
    shares: Sequence[str | int] = SHARES,
    seeds: int | Sequence[int] = 3,
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    train: Any = None,
    validation: Any = None,
    quiet: bool = False,
    **settings: Any,
) -> Curve:
    """Trains on parts of the training rows with several seeds, puts a power law with its band through the
    scores, and says what twice the rows would add, as far as they tell.

    A seed's smaller parts lie within its larger ones (`data.limit_train`). Test sets are left alone. The same
    call again trains what is missing; with more shares or seeds, those alone.

    Args:
        task, checkpoint, train, validation: as for `finetune`.
        shares: parts of the training rows: shares of them ("10%"), or numbers of rows (200).
        seeds: how many (1, 2, ...), or which; at least two.
        output: what is below it is the runs, `results.json`, `points.csv` and `curve.html`;
            `runs/curve-<task>-<checkpoint>` by default.
        settings: of every run: `finetune`'s other arguments, and keys of the task.
    Raises:
        InputError: parts that are no parts of the rows, twice the same, or without a row of some label; fewer
            than two seeds; something else lies in the folder; or what a run can't be trained for.
    """
    repeated.refuse_launched("curve", "start it without the launcher")
    options = repeated.options(settings, "curve", "train that run by itself")
    numbers = _numbers(seeds)
    for key in ("limit_train", "data.limit_train", "seed", "run.seed", "folds", "run.folds"):
        if settings.get(key) is not None:
            other = "--seeds" if "seed" in key else "--shares" if "limit" in key else "--seeds, without folds"
            raise InputError(f"`{key}` is not for a curve", where="curve", remedy=f"use {other}")
    sets = overrides.sets(train, validation, None)
    run_keys = {"checkpoint": checkpoint, "data_dir": data_dir}
    base = load_task(task)
    bound = repeated.without_tests(overrides.bound(base, sets, settings, **run_keys))
    family = options.get("adapter") or families.find(bound.family)
    bound = loading.with_group(bound, family)
    parts = ("curve", bound.name, naming.short_name(bound.run.checkpoint or "model"))
    folder = reading.path(output if output is not None else Path("runs") / "-".join(map(naming.clean, parts)))
    repeated.refuse_others(folder, OWN, "points", "curve")
    prepared = read(bound, family, overrides.objects(sets))
    total = len(prepared.splits.train)
    requested = sizes(shares, total)
    refuse_missing_labels(prepared, requested[0], numbers)
    points = [
        Point(size, seed, _job(base, bound, settings, folder, size, seed))
        for size in requested
        for seed in numbers
    ]
    display = Display(quiet)
    execution = repeated.execution(options)
    training = _Training(train, validation, options, display, points[0].job)
    _make([point.job for point in points], folder, execution, training, overrides.objects(sets))
    return Curve(folder, results_of(bound, points, total))


def _make(
    jobs: Sequence[Job], folder: Path, execution: Execution, training: _Training, rows: Mapping[str, Any]
) -> None:
    """Makes the runs, here or on a cluster. `rows`: those of the sets that are Python objects."""
    here, say = InProcess(training), training.display.say
    if execution.on is None:
        here.run(jobs, _Told(training.display, len(jobs)))
    else:
        repeated.run_remote(jobs, folder / "logs", execution, here, training.options, rows, say)


def _numbers(seeds: int | Sequence[int]) -> list[int]:
    """The seeds themselves."""
    numbers = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    if len(set(numbers)) < len(numbers):
        raise InputError("a seed is named twice", where="seeds", remedy="leave it out")
    if len(numbers) < FEWEST_SEEDS:
        raise InputError(
            f"a curve needs at least {FEWEST_SEEDS} seeds, since their spread says how sure it is",
            where="seeds",
            remedy="--seeds 3",
        )
    return numbers


def _job(base: Task, bound: Task, settings: Mapping[str, Any], folder: Path, size: Size, seed: int) -> Job:
    """The run of one part and one seed."""
    task = bound.override({"data.limit_train": size.rows, "run.seed": seed})
    name = naming.run_name(base, task, {**settings, "data.limit_train": size.rows})
    return Job(task, RunDir(folder / name))


@dataclass
class _Training:
    """Trains a run of the curve in this process; what is finished is found to be so."""

    train: Any
    validation: Any
    options: Mapping[str, Any]
    display: Display
    first: Job

    def __call__(self, job: Job) -> None:
        own = {"check": job is self.first and job.task.execution.check, **self.options}
        own["callbacks"] = [self.display, *self.options.get("callbacks", ())]
        own["quiet"] = True
        finetune(
            job.task,
            output=job.folder.path,
            train=self.train,
            validation=self.validation,
            save_model=False,
            baselines=False,
            **own,
        )


class _Told(Watcher):
    """A line for each run that ends."""

    def __init__(self, display: Display, total: int) -> None:
        self.display, self.total, self.done = display, total, 0

    def ended(self, job: Job) -> None:
        self.done += 1
        scores = table_of(job.folder.results()["metrics"])
        self.display.say(f"{job.name}: {scores}  ({self.done} of {self.total} runs)")


class Curve:
    """A learning curve.

    Attributes:
        path: its folder: a run folder for each part and seed, `results.json`, `points.csv`, `curve.html`.
        results: the content of `results.json`: `points` (rows, share, seed, value and run of each), `sizes`
            (mean and spread over the seeds), `law` (the fitted law, its band and the gain of twice the rows;
            null where none is fitted), `statement`, the sentences that say what follows from it.
    """

    def __init__(self, path: Path, results: dict[str, Any]) -> None:
        self.path = path
        self.results = results = files.finite(results)
        files.write_json(path / "results.json", results)
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(results["points"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(results["points"])
        files.write(path / "points.csv", stream.getvalue())
        files.write(path / "curve.html", page.html(path, results))

    @property
    def statement(self) -> list[str]:
        """What the scores say of twice the rows, or why they say nothing; and what its interval holds."""
        return list(self.results["statement"])

    def _repr_html_(self) -> str:
        return page.html(self.path, self.results, whole=False)

    def __repr__(self) -> str:
        return f"Curve({str(self.path)!r}: {self.results['statement'][0]})"
