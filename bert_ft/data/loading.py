"""From a task's `[data]` to canonical rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from bert_ft.config.schema import Data
from bert_ft.config.task import Task
from bert_ft.data import formats, sources
from bert_ft.data.rows import Canonical, Rows, Splits
from bert_ft.data.splitting import has_classes, split_off
from bert_ft.errors import InputError


class Family(Protocol):
    """What reading and checking need of an adapter."""

    roles: ClassVar[Mapping[str, bool]]
    target: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]
    readers: ClassVar[Mapping[str, sources.Reader]]

    @classmethod
    def canonical(
        cls, raw: sources.Raw, task: Task, columns: Mapping[str, str], labelled: bool
    ) -> Canonical: ...

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Any]: ...


def load(
    task: Task,
    family: type[Family],
    objects: Mapping[str, Any] | None = None,
    *,
    training: bool = True,
    others: bool = False,
) -> Splits:
    """Reads every split of a task as canonical rows of its family.

    Args:
        objects: Python objects in place of files: set name -> Dataset, pandas frame, dict of lists or list of
            dicts.
        training: whether the training rows are wanted; without them `train` is the first other set.
        others: whether `Rows.others` is wanted, where the family has a canonical row for each raw one.
    Raises:
        InputError: a file, row or column that is at fault, with its place and the remedy.
    """
    data = local_layout(task)
    objects = objects or {}
    columns = {
        role: data.columns.get(role, role)
        for role, needed in family.roles.items()
        if needed or role in data.columns
    }
    if unknown := set(data.columns) - set(family.roles):
        raise InputError(
            f"data.columns: the {task.family} family has no '{sorted(unknown)[0]}'",
            remedy="it has " + ", ".join(family.roles),
        )
    if data.group is not None:
        columns["group"] = data.group
    bound = task.model_copy(update={"data": data})
    notes: list[str] = []

    def rows(name: str, split: str, labelled: bool) -> Rows:
        # a group only says which training rows stay together
        spare = [*([] if labelled else [family.target]), *([] if name == "train" else ["group"])]
        optional = tuple([columns[role] for role in spare if role in columns] + [formats.OTHERS] * others)
        if name in objects:
            raw = sources.of_object(objects[name], list(columns.values()), optional, f"{name} rows")
        else:
            wanted = sources.Selection(
                data, list(columns.values()), optional, task.run.data_dir, family.readers
            )
            raw = sources.read(split, wanted)
        canonical = family.canonical(raw, bound, columns, labelled)
        table = canonical.table
        if not len(table):
            raise InputError("no rows", where=raw.where)
        if data.group in raw.table.column_names and "group" not in table.column_names:
            table = table.append_column("group", raw.table[data.group].cast(pa.string()))
        notes.extend(f"{name}: {note}" for note in [*raw.notes, *canonical.notes])
        rest = raw.table.drop_columns(
            [column for column in raw.table.column_names if column in columns.values()]
        )
        return Rows(table, raw.where, others=rest if others and len(rest) == len(table) else None)

    if not training:
        evaluation = {name: rows(name, split, True) for name, split in data.evaluation_sets.items()}
        test = {name: rows(name, split, False) for name, split in data.test_sets.items()}
        return Splits(next(iter({**evaluation, **test}.values())), evaluation, test, notes)
    if not data.train:
        raise InputError(
            "the task has no training split",
            where=f"task {task.name}",
            remedy=f"it is for another task's model: bert-ft evaluate RUN --task {task.name}",
        )
    train = rows("train", data.train, True)
    if data.validation is not None:
        train, held_out = split_off(train, family.target, data)
        evaluation = {"validation": held_out}
        how = ""
        if data.group:
            how = f"by {data.group}, "
        elif has_classes(train, family.target):
            how = "stratified, "
        notes.append(
            f"validation: {len(held_out):,} of {len(train) + len(held_out):,} training rows held out "
            f"({data.validation}, {how}split_seed {data.split_seed})"
        )
    else:
        evaluation = {name: rows(name, split, True) for name, split in data.evaluation_sets.items()}
    test = {name: rows(name, split, False) for name, split in data.test_sets.items()}
    return Splits(train, evaluation, test, notes)


def local_layout(task: Task) -> Data:
    """The `[data]` that is read: with --data-dir the original distribution's files, columns and label
    names."""
    data = task.data
    original = task.data.original
    if task.run.data_dir is None:
        return data
    if original is None:
        raise InputError(
            "this task does not say what its original files are called",
            where=f"task {task.name}",
            remedy="name the files: --train FILE --validation FILE",
        )
    return data.model_copy(
        update={
            "train": original.train or "",
            "evaluate": original.evaluate,
            "test": original.test,
            "columns": original.columns,
            "label_names": original.label_names,
        }
    )
