"""From a task to its rows and the adapter that reads them: the one way to both, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import baselines
from bert_ft.baselines import Baselines
from bert_ft.config import few_rows
from bert_ft.config.schema import RunSpec
from bert_ft.config.task import Task
from bert_ft.data import left_out, loading, splitting
from bert_ft.data.rows import Rows, Splits, fingerprint
from bert_ft.families.base import Adapter
from bert_ft.modeling import calibrating, pretrained


@dataclass(frozen=True)
class Prepared:
    """Rows and adapter of one task.

    Attributes:
        task: with its labels, where it has some.
        adapter: under that task, its labels in the order of the head that will be trained.
        splits: the rows of every set; those of training after `data.limit_train`.
        notes: what was done to the rows while they were read, a line each.
        fingerprint: sha256 of all rows before that limit; empty where nothing is trained on them.
        settled: whether the number of rows settled how they are trained on, since the recipe left it open.
    """

    task: Task
    adapter: Adapter
    splits: Splits
    notes: tuple[str, ...]
    fingerprint: str = ""
    settled: bool = False

    @property
    def scored(self) -> dict[str, Rows]:
        """Name -> rows of every set but that of training."""
        return {**self.splits.evaluation, **self.splits.test}

    @cached_property
    def baselines(self) -> Baselines:
        """What simple methods reach on its sets."""
        return baselines.measure(self.adapter, self.splits.train, self.scored)

    def seeded(self, seed: int) -> Prepared:
        """The same rows for a training with another seed."""
        task = self.task.override({"run.seed": seed})
        return replace(self, task=task, adapter=self.adapter.rebound(task))

    def identity(self) -> dict[str, str | None]:
        """What a run depends on beside its task: fingerprints of its rows and its checkpoint's weights, whose
        files are read for it."""
        return {"data": self.fingerprint, "checkpoint": pretrained.fingerprint(self.task.run.checkpoint)}


def read(
    task: Task,
    family: type[Adapter],
    rows: Mapping[str, Any] | None = None,
    *,
    training: bool = True,
    others: bool = False,
    lenient: bool = False,
) -> Prepared:
    """Reads a task's sets and finds its labels; neither prepares the adapter to train nor checks the rows.

    Args:
        rows: Python objects in place of files, as `loading.load` takes them; the other arguments as there.
    """
    splits = loading.load(task, family, rows, training=training, others=others, lenient=lenient)
    adapter = family(task, family.find_labels(splits.train, task) if splits.labels is None else splits.labels)
    return Prepared(task, adapter, splits, tuple(splits.notes))


def prepare(
    task: Task,
    family: type[Adapter],
    rows: Mapping[str, Any] | None = None,
    *,
    model: Any = None,
    trusted: Sequence[str] = (),
) -> Prepared:
    """Reads a task's sets, finds their labels, refuses rows that can't be trained on or scored, and readies
    the adapter to encode them.

    Args:
        model: the network of the user's own that is trained in place of the task's checkpoint: its head has
            the order of the labels.
        trusted: whose own code may run, as `remote_code.names` returns it.
    Raises:
        InputError: whatever is wrong with the rows, the labels, or the checkpoint's configuration.
    """
    prepared = read(task, family, rows)
    for name, part in prepared.splits.all().items():
        prepared.adapter.check(name, part)
    adapter = prepared.adapter.rebound(task.override({"data.labels": prepared.adapter.labels or None}))
    adapter = in_head_order(adapter, task.run, model, trusted)
    train = splitting.limit(prepared.splits.train, task.data.limit_train, task.run.seed)
    notes = list(prepared.notes)
    task, line = few_rows.settled(adapter.task, len(train), adapter.windowed)
    adapter = adapter.rebound(task)
    if line:
        notes.append(line)
    if task.recipe.both_orders:
        train = splitting.both_orders(train)
        notes.append(f"train: each pair also in reverse order, {len(train):,} rows in all")
    adapter.prepare(train)
    if task.execution.save_model:
        calibrating.refuse(adapter, prepared.splits.evaluation[task.best_metric[0]])
    return Prepared(
        adapter.task,
        adapter,
        replace(prepared.splits, train=train),
        tuple(notes),
        prepared.splits.fingerprint(),
        bool(line) and task.recipe.method == "fine-tuning",
    )


def prepare_for(
    adapter: Adapter, task: Task, rows: Mapping[str, Any] | None = None, *, training: bool = True
) -> Prepared:
    """Reads a task's sets for the adapter of a trained model, which has its labels already; refuses rows that
    it can't score. Without `training` the training rows are not read."""
    splits = loading.load(task, adapter.reading, rows, training=training)
    result = Prepared(task, adapter, splits, tuple(splits.notes))
    for name, part in result.scored.items():
        adapter.check(name, part)
    return result


def folded(
    task: Task, family: type[Adapter], rows: Mapping[str, Any] | None = None
) -> tuple[Task, Rows, str]:
    """(the task with nothing but its training rows, and the metric that picks the best step of a fold; those
    rows, in their order; their fingerprint) of a cross-validation. A list of rows to leave out
    (`data.without`) is of each fold's training alone: it changes the fingerprint, and no rows."""
    task = task.override(
        {
            "data.evaluate": "validation",
            "data.validation": None,
            "data.test": None,
            "metric.best": task.best_metric[1],
        }
    )
    splits = read(fold(task, 1).override({"data.without": None}), family, rows).splits
    parts = [splits.train, *splits.evaluation.values()]
    order = np.argsort(np.concatenate([part.numbers for part in parts if part.numbers is not None]))
    table = pa.concat_tables([part.table for part in parts]).take(pa.array(order))
    whole = replace(splits.train, table=table, numbers=None)
    sets = {"train": whole}
    if task.data.without is not None:
        listed = left_out.read(task.data.without, whole, left_out.roles(family))
        sets["trained on"] = listed.without(whole)[0]
    return task, whole, fingerprint(sets)


def fold(task: Task, number: int) -> Task:
    """The task of one fold of a cross-validation, whose run keeps no model."""
    short = {"execution.save_model": False, "execution.baselines": False}
    return task.override({**short, "data.validation": f"{number}/{task.run.folds}", "run.folds": None})


def in_head_order(adapter: Adapter, run: RunSpec, model: Any, trusted: Sequence[str]) -> Adapter:
    """The adapter with its labels in the order of the head that will be trained, where one fits the task."""
    if model is not None:
        return pretrained.in_order_of(adapter, model.config, own=True)
    return pretrained.in_order_of_checkpoint(adapter, run, trusted)
