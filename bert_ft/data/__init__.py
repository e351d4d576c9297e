"""From a task's `[data]` to canonical rows, one Arrow table a split, with a fingerprint of them all."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from bert_ft.data import formats, sources
from bert_ft.data.columns import codes
from bert_ft.errors import InputError
from bert_ft.schema import Data
from bert_ft.task import Task

PLACES = ("file", "line")
"""Columns that say where a row stands (a string, and a list of line numbers by item), and are no part of the data."""


@dataclass
class Rows:
    """The canonical rows of one split, in the order of its source."""

    table: pa.Table
    where: str
    numbers: np.ndarray | None = None  # row i stands at numbers[i] of the source, where it isn't row i
    others: pa.Table | None = None  # the columns of the source that have no role, where they were asked for

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at `indices`, in that order."""
        numbers = indices if self.numbers is None else self.numbers[indices]
        others = None if self.others is None else self.others.take(pa.array(indices))
        return Rows(self.table.take(pa.array(indices)), self.where, numbers, others)

    def part(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, without a copy."""
        numbers = np.arange(start, min(stop, len(self))) if self.numbers is None else self.numbers[start:stop]
        return Rows(self.table.slice(start, stop - start), self.where, numbers)

    def place(self, index: int, item: int | None = None) -> str:
        """Where row `index` (or an item of it, such as a word) stands, for a message: the first row below a header is
        row 1; in a file that says so in `PLACES`, its line."""
        if "line" in self.table.column_names and (lines := self.table["line"][index].as_py()):
            return f"{self.table['file'][index]}, line {lines[item or 0]}"
        row = f"{self.where}, row {self.number(index)}"
        return row if item is None else f"{row}, word {item + 1}"

    def number(self, index: int) -> int:
        """The number of row `index` in its source, from 1."""
        return (index if self.numbers is None else int(self.numbers[index])) + 1


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
            if column in PLACES:
                continue
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
    """What reading and checking need of an adapter."""

    roles: ClassVar[Mapping[str, bool]]
    target: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]
    readers: ClassVar[Mapping[str, sources.Reader]]

    @classmethod
    def canonical(cls, raw: sources.Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> pa.Table: ...

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
        objects: Python objects in place of files: set name -> Dataset, pandas frame, dict of lists or list of dicts.
        training: whether the training rows are wanted; without them `train` is the first other set.
        others: whether `Rows.others` is wanted, where the family has a canonical row for each raw one.
    Raises:
        InputError: a file, row or column that is at fault, with its place and the remedy.
    """
    data, objects = local_layout(task), objects or {}
    columns = {role: data.columns.get(role, role) for role, needed in family.roles.items()
               if needed or role in data.columns}  # fmt: skip
    if unknown := set(data.columns) - set(family.roles):
        raise InputError(f"data.columns: the {task.family} family has no '{sorted(unknown)[0]}'",
                         remedy="it has " + ", ".join(family.roles))  # fmt: skip
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
            wanted = sources.Wanted(data, list(columns.values()), optional, task.run.data_dir, family.readers)
            raw = sources.read(split, wanted)
        table = family.canonical(raw, bound, columns, labelled)
        if not len(table):
            raise InputError("no rows", where=raw.where)
        if data.group in raw.table.column_names and "group" not in table.column_names:
            table = table.append_column("group", raw.table[data.group].cast(pa.string()))
        metadata = dict(table.schema.metadata or {})
        notes.extend(f"{name}: {note}" for note in [*raw.notes, *json.loads(metadata.pop(b"notes", b"[]"))])
        table = table.replace_schema_metadata(metadata or None)
        rest = raw.table.drop_columns([column for column in raw.table.column_names if column in columns.values()])
        return Rows(table, raw.where, others=rest if others and len(rest) == len(table) else None)

    if not training:
        evaluation = {name: rows(name, split, True) for name, split in data.evaluation_sets.items()}
        test = {name: rows(name, split, False) for name, split in data.test_sets.items()}
        return Splits(next(iter({**evaluation, **test}.values())), evaluation, test, notes)
    if not data.train:
        raise InputError("the task has no training split", where=f"task {task.name}",
                         remedy=f"it is for another task's model: bert-ft evaluate RUN --task {task.name}")  # fmt: skip
    train = rows("train", data.train, True)
    if data.validation is not None:
        train, held_out = split_off(train, family.target, data)
        evaluation = {"validation": held_out}
        how = f"by {data.group}, " if data.group else "stratified, " * _has_classes(train, family.target)
        notes.append(
            f"validation: {len(held_out):,} of {len(train) + len(held_out):,} training rows held out "
            f"({data.validation}, {how}split_seed {data.split_seed})"
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


def split_off(rows: Rows, target: str, data: Data) -> tuple[Rows, Rows]:
    """(the rest, the rows that `data.validation` holds out): by whole groups, or stratified by label; a function of the
    seed alone."""
    from sklearn import model_selection as sk

    held_out, indices = str(data.validation), np.arange(len(rows))
    classes = codes(rows.table[target]) if _has_classes(rows, target) else None
    groups = None if data.group is None else codes(rows.table["group"])
    kind = groups is not None, classes is not None
    folds = {(False, False): sk.KFold, (False, True): sk.StratifiedKFold,
             (True, False): sk.GroupKFold, (True, True): sk.StratifiedGroupKFold}  # fmt: skip
    shares = {(False, False): sk.ShuffleSplit, (False, True): sk.StratifiedShuffleSplit}
    try:
        if "/" in held_out:
            part, of = map(int, held_out.split("/"))
            if part > of:
                raise ValueError(f"there is no fold {part} of {of}")
            parts = folds[kind](of, shuffle=True, random_state=data.split_seed)
        else:
            part, share = 1, float(held_out[:-1]) / 100
            parts = shares.get(kind, sk.GroupShuffleSplit)(1, test_size=share, random_state=data.split_seed)
        with warnings.catch_warnings():  # a class of fewer rows than folds is as even as it can be
            warnings.simplefilter("ignore")
            rest, held = list(parts.split(indices, classes, groups))[part - 1]
        if not len(held):  # scikit-learn can leave one without a group
            raise ValueError("the groups are too few for so many folds")
    except ValueError as error:
        remedy = "fewer folds" if "/" in held_out else "give a validation file, or a larger share"
        raise InputError(f'validation = "{held_out}" of {len(rows)} rows can\'t be held out: {error}',
                         where=rows.where, remedy=remedy) from None  # fmt: skip
    return rows.take(np.sort(rest)), rows.take(np.sort(held))


def _has_classes(rows: Rows, target: str) -> bool:
    return target in rows.table.column_names and pa.types.is_string(rows.table[target].type)


def with_notes(table: pa.Table, notes: Sequence[str]) -> pa.Table:
    """The table with lines that a person should read: what was detected, mended or left out while reading it."""
    metadata = dict(table.schema.metadata or {})
    return table.replace_schema_metadata(metadata | {b"notes": json.dumps(list(notes)).encode()} if notes else metadata)


def limit(rows: Rows, n: int | None, seed: int) -> Rows:
    """The first `n` rows after the seeded shuffle."""
    if n is None or n >= len(rows):
        return rows
    return rows.take(np.random.default_rng([seed, 0x11317]).permutation(len(rows))[:n])
