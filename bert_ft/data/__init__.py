"""From a task's `[data]` to canonical rows, one Arrow table a split, with a fingerprint of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from bert_ft.data import sources
from bert_ft.errors import InputError
from bert_ft.task import Data, Task


@dataclass
class Rows:
    """The canonical rows of one split, in the order of its source."""

    table: pa.Table
    where: str
    numbers: np.ndarray | None = None  # row i stands at numbers[i] of the source, where it isn't row i

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at `indices`, in that order."""
        numbers = indices if self.numbers is None else self.numbers[indices]
        return Rows(self.table.take(pa.array(indices)), self.where, numbers)

    def place(self, index: int) -> str:
        """Where row `index` stands, for a message: the first row below a header is row 1."""
        return f"{self.where}, row {(index if self.numbers is None else int(self.numbers[index])) + 1}"


@dataclass
class Splits:
    """All rows of a run, and what was done to them that the user should know."""

    train: Rows
    evaluation: dict[str, Rows]
    test: dict[str, Rows]
    notes: list[str] = field(default_factory=list)

    def all(self) -> dict[str, Rows]:
        """Name -> rows of every set."""
        return {"train": self.train, **self.evaluation, **self.test}

    def fingerprint(self) -> str:
        """`fingerprint` of every set."""
        return fingerprint(self.all())


def fingerprint(sets: Mapping[str, Rows]) -> str:
    """sha256 over canonical rows: equal data has equal fingerprints, whatever file it was in."""
    digest = hashlib.sha256()
    for name, rows in sets.items():
        digest.update(name.encode())
        for column in rows.table.column_names:
            digest.update(column.encode())
            sink = pa.BufferOutputStream()
            # one chunk, copied: neither the file's row groups nor a slice's offset may show in the bytes
            array = pa.concat_arrays(rows.table[column].chunks or [pa.array([], rows.table[column].type)])
            batch = pa.record_batch([array], names=[column])
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            digest.update(sink.getvalue())
    return digest.hexdigest()


class Family(Protocol):
    """What reading needs of an adapter."""

    roles: ClassVar[Mapping[str, bool]]
    target: ClassVar[str]

    @classmethod
    def canonical(cls, raw: sources.Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> pa.Table: ...


def load(
    task: Task, family: type[Family], objects: Mapping[str, Any] | None = None, *, training: bool = True
) -> Splits:
    """Reads every split of a task as canonical rows of its family.

    Args:
        objects: Python objects in place of files: set name -> Dataset, pandas frame, dict of lists or list of dicts.
        training: whether the training rows are wanted; without them `train` is the first evaluation set.
    Raises:
        InputError: a file, row or column that is at fault, with its place and the remedy.
    """
    data, objects = local_layout(task), objects or {}
    columns = {role: data.columns.get(role, role) for role, needed in family.roles.items()
               if needed or role in data.columns}  # fmt: skip
    if unknown := set(data.columns) - set(family.roles):
        raise InputError(f"data.columns: the {task.family} family has no '{sorted(unknown)[0]}'",
                         remedy="it has " + ", ".join(family.roles))  # fmt: skip
    bound = task.model_copy(update={"data": data})

    def rows(name: str, split: str, labelled: bool) -> Rows:
        optional = () if labelled else (columns[family.target],)
        if name in objects:
            raw = sources.of_object(objects[name], list(columns.values()), optional, f"{name} rows")
        else:
            raw = sources.read(data, split, columns, optional, task.run.data_dir)
        table = family.canonical(raw, bound, columns, labelled)
        if not len(table):
            raise InputError("no rows", where=raw.where)
        return Rows(table, raw.where)

    if not training:
        evaluation = {name: rows(name, split, True) for name, split in data.evaluation_sets.items()}
        return Splits(next(iter(evaluation.values())), evaluation, {})
    if not data.train:
        raise InputError("the task has no training split", where=f"task {task.name}")
    notes: list[str] = []
    train = rows("train", data.train, True)
    if data.validation is not None:
        train, held_out = split_off(train, family.target, float(data.validation[:-1]) / 100, data)
        evaluation = {"validation": held_out}
        stratified = "stratified, " * pa.types.is_string(train.table[family.target].type)
        notes.append(
            f"validation: {len(held_out):,} of {len(train) + len(held_out):,} training rows held out "
            f"({data.validation}, {stratified}split_seed {data.split_seed})"
        )
    else:
        evaluation = {name: rows(name, split, True) for name, split in data.evaluation_sets.items()}
    test = {name: rows(name, split, False) for name, split in data.test_sets.items()}
    return Splits(train, evaluation, test, notes)


def local_layout(task: Task) -> Data:
    """The `[data]` that is read: with --data-dir the original distribution's files, columns and label names."""
    data, original = task.data, task.data.original
    if task.run.data_dir is None:
        return data
    if original is None:
        raise InputError("this task does not say what its original files are called", where=f"task {task.name}",
                         remedy="name the files: --train FILE --validation FILE")  # fmt: skip
    return data.model_copy(update={"train": original.train or "", "evaluate": original.evaluate, "test": original.test,
                                   "columns": original.columns, "label_names": original.label_names})  # fmt: skip


def split_off(rows: Rows, target: str, share: float, data: Data) -> tuple[Rows, Rows]:
    """(the rest, the held-out share): stratified by label where there are labels, and a function of the seed alone."""
    from sklearn.model_selection import train_test_split

    indices, labels = np.arange(len(rows)), rows.table[target]
    classes = (
        labels.dictionary_encode().combine_chunks().indices.to_numpy() if pa.types.is_string(labels.type) else None
    )
    try:
        rest, held = train_test_split(indices, test_size=share, random_state=data.split_seed, stratify=classes)
    except ValueError as error:
        raise InputError(f'validation = "{data.validation}" of {len(rows)} rows can\'t be held out: {error}',
                         where=rows.where, remedy="give a validation file, or a larger share") from None  # fmt: skip
    return rows.take(np.sort(rest)), rows.take(np.sort(held))


def limit(rows: Rows, n: int | None, seed: int) -> Rows:
    """The first `n` rows after the seeded shuffle."""
    if n is None or n >= len(rows):
        return rows
    return rows.take(np.random.default_rng([seed, 0x11317]).permutation(len(rows))[:n])
