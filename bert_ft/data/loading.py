"""From a task's `[data]` to canonical rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data, Label, Original
from bert_ft.config.task import Task
from bert_ft.data import formats, left_out, soft, sources
from bert_ft.data.columns import codes, flat
from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.rows import Canonical, Rows, Splits, in_part
from bert_ft.data.splitting import has_classes, split_off
from bert_ft.errors import InputError, collecting


class Family(Protocol):
    """What reading and checking need of an adapter."""

    roles: ClassVar[Mapping[str, bool]]
    spare: ClassVar[tuple[str, ...]]
    group_by: ClassVar[str | None]
    target: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]
    readers: ClassVar[Mapping[str, sources.Reader]]
    soft_targets: ClassVar[bool]

    @classmethod
    def canonical(
        cls, raw: sources.Raw, task: Task, columns: Mapping[str, str], labelled: bool
    ) -> Canonical: ...

    @classmethod
    def has_labels(cls, task: Task) -> bool: ...

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]: ...

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Any]: ...


def load(
    task: Task,
    family: type[Family],
    objects: Mapping[str, Any] | None = None,
    *,
    training: bool = True,
    others: bool = False,
    lenient: bool = False,
) -> Splits:
    """Reads every split of a task as canonical rows of its family.

    Args:
        objects: Python objects in place of files: set name -> Dataset, pandas frame, dict of lists or list of
            dicts.
        training: whether the training rows are wanted; without them `train` is the first other set.
        others: whether `Rows.others` is wanted, where the family has a canonical row for each raw one.
        lenient: rows that can't be read are findings, and left out: for whoever wants to know them all.
    Raises:
        InputError: a file, row or column that is at fault, with its place and the remedy.
    """
    reader = (_Lenient if lenient else _Reader)(task, family, objects or {}, others)
    data = reader.data
    if training and not data.train:
        raise InputError(
            "the task has no training split",
            where=f"task {task.name}",
            remedy=f"it is for another task's model: bert-ft evaluate RUN --task {task.name}",
        )
    labels = None
    train = reader.rows("train", data.train, labelled=True) if training else None
    listed = None
    if train is not None and data.without is not None:
        if family.has_labels(task):
            labels = family.find_labels(train, task)  # those of what is scored
        listed = left_out.read(data.without, train, left_out.roles(family))
    if train is not None and data.validation is not None:
        if "/" in data.validation and family.has_labels(task):
            labels = family.find_labels(train, task)  # each fold has the labels of all
        try:
            train, held_out = split_off(train, family.target, data, family.has_labels(task))
        except InputError as error:
            if isinstance(reader, _Lenient) and reader.faults:
                raise reader.gravest(error) from None
            family.find_labels(train, task)  # labels that are none say more than what follows from them
            raise
        evaluation = {"validation": held_out}
        reader.notes += _held_out(train, held_out, family.target, data, family.has_labels(task))
    else:
        evaluation = {name: reader.rows(name, split, True) for name, split in data.evaluation_sets.items()}
    if train is not None and listed is not None:
        train, note = listed.without(train)
        reader.notes.append(note)
    test = {name: reader.rows(name, split, labelled=False) for name, split in data.test_sets.items()}
    first = train if train is not None else next(iter({**evaluation, **test}.values()))
    return Splits(first, evaluation, test, reader.notes, reader.findings, labels)


class _Reader:
    """Reads the sets of one task; `notes` says what was done to their rows, `findings` what may be wrong."""

    def __init__(self, task: Task, family: type[Family], objects: Mapping[str, Any], others: bool) -> None:
        self.data = data = local_layout(task)
        self.task = task.model_copy(update={"data": data})
        self.family = family
        self.objects = objects
        self.others = others
        self.notes: list[str] = []
        self.findings: list[Finding] = []
        self.columns = {
            role: data.columns.get(role, role)
            for role, needed in family.roles.items()
            if needed or role in data.columns or role in family.spare
        }
        if unknown := set(data.columns) - set(family.roles):
            raise InputError(
                f"data.columns: the {task.family} family has no '{sorted(unknown)[0]}'",
                remedy="it has " + ", ".join(family.roles),
            )
        if data.group is not None:
            self.columns["group"] = data.group
        soft.refuse(task, family.soft_targets)

    def rows(self, name: str, split: str, labelled: bool) -> Rows:
        """The canonical rows of a set; `labelled`: each has to have its target."""
        names = list(dict.fromkeys([*self.columns.values(), *(self.data.soft or [])]))
        raw, canonical = self.read(name, split, labelled, names)
        if name == "train":
            soft.require(raw, self.data)
        table = canonical.table
        if not len(table):
            raise InputError("no rows", where=raw.where)
        group = self.data.group
        if group in raw.table.column_names and "group" not in table.column_names:
            table = table.append_column("group", raw.table[group].cast(pa.string()))
        self.notes.extend(f"{name}: {note}" for note in [*raw.notes, *canonical.notes])
        self.findings.extend(replace(found, set=name) for found in [*raw.findings, *canonical.findings])
        # a title that no family needs says which rows hang together, and stays what it is
        used = set(names) - {self.columns[role] for role in self.family.spare if role == "title"}
        rest = raw.table.drop_columns([column for column in raw.table.column_names if column in used])
        others = rest if self.others and len(rest) == len(table) else None
        numbers = raw.numbers if raw.numbers is not None and len(raw.numbers) == len(table) else None
        rows = Rows(table, raw.where, numbers, others, canonical.label_order, raw.parts)
        if canonical.used is None:
            return rows
        if not canonical.used.any():
            raise InputError("every row is left out", where=raw.where, remedy="; ".join(canonical.notes))
        return rows.take(np.flatnonzero(canonical.used))

    def read(self, name: str, split: str, labelled: bool, names: list[str]) -> tuple[sources.Raw, Canonical]:
        """The raw and the canonical rows of a set."""
        raw = self._raw(name, split, labelled, names)
        try:
            return raw, self.family.canonical(raw, self.task, self.columns, labelled)
        except InputError as error:
            if raw.parts and (match := _by_number(error.where, raw)):
                file, number = in_part(raw.parts, raw.where, int(match[1]))
                error = InputError(
                    error.message, where=f"{file}, row {number}{match[2] or ''}", remedy=error.remedy
                )
            raise error from None

    def _raw(self, name: str, split: str, labelled: bool, names: list[str]) -> sources.Raw:
        # a group only says which training rows stay together
        # and a row with a distribution needs no label
        unlabelled = not labelled or bool(self.data.soft)
        spare = [*([self.family.target] if unlabelled else []), *([] if name == "train" else ["group"])]
        spare += [role for role in self.family.spare if role not in self.data.columns]
        optional = [self.columns[role] for role in spare if role in self.columns] + (self.data.soft or [])
        if self.others:
            optional.append(formats.OTHERS)
        if name in self.objects:
            return sources.of_object(self.objects[name], names, tuple(optional), f"{name} rows")
        selection = sources.Selection(
            self.data, names, tuple(optional), self.task.run.data_dir, self.family.readers
        )
        return sources.read(split, selection)


@dataclass(frozen=True)
class _Fault:
    """What is wrong with one row."""

    place: str
    message: str
    remedy: str


class _Lenient(_Reader):
    """Goes on behind rows that can't be read, and has findings for them."""

    def __init__(self, task: Task, family: type[Family], objects: Mapping[str, Any], others: bool) -> None:
        super().__init__(task, family, objects, others)
        self.faults: list[_Fault] = []  # of the set that is read

    def rows(self, name: str, split: str, labelled: bool) -> Rows:
        self.faults = []
        try:
            rows = super().rows(name, split, labelled)
        except InputError as error:
            raise self.gravest(error) from None
        self.findings += _unreadable(name, self.faults)
        return rows

    def gravest(self, error: InputError) -> InputError:
        """Returns what to raise where an error may come of rows that were left out: the first one's fault."""
        if not self.faults:
            return error
        more = len(self.faults) - 1
        rows = "1 more row" if more == 1 else f"{more:,} more rows"
        also = f" (and {rows} that can't be read)" if more else ""
        first = self.faults[0]
        return InputError(first.message + also, where=first.place, remedy=first.remedy)

    def read(self, name: str, split: str, labelled: bool, names: list[str]) -> tuple[sources.Raw, Canonical]:
        with collecting() as faults:
            try:
                raw = self._raw(name, split, labelled, names)
            finally:
                self.faults = [_Fault(e.where, e.message, e.remedy) for e in faults.errors]
            total = len(raw.table) + len(faults.rows)
            numbers = np.setdiff1d(np.arange(total), np.array(faults.rows, int) - 1)
            raw.numbers = numbers if len(numbers) == len(raw.table) else None
            rounds = 20 if total > 10_000 else 200
            for _ in range(rounds):
                if 2 * len(self.faults) > total:  # what is left says nothing of the set
                    break
                try:
                    return raw, self.family.canonical(raw, self.task, self.columns, labelled)
                except InputError as error:
                    self._leave_out(error, raw)
        raise InputError("too many rows can't be read", where=raw.where)

    def _leave_out(self, error: InputError, raw: sources.Raw) -> None:
        """Takes the rows that an error is about out of the raw ones; raises it where it is about none."""
        rows: dict[int, str] = {}
        for place, message in error.each or [(error.where, error.message)]:
            if (row := _row_at(place, raw)) is not None:
                rows.setdefault(row, message)
        if not rows:
            raise error
        here = raw.rows()
        for row, message in rows.items():
            place = here.place(row) if _by_number(error.where, raw) else error.where
            self.faults.append(_Fault(place, message, error.remedy))
        rest = np.delete(np.arange(len(raw.table)), list(rows))
        raw.numbers = rest if raw.numbers is None else raw.numbers[rest]
        raw.table = raw.table.take(pa.array(rest))
        raw.used = None if raw.used is None else raw.used[rest]


def _by_number(place: str, raw: sources.Raw) -> re.Match[str] | None:
    return re.fullmatch(re.escape(raw.where) + r", row (\d+)(, word \d+)?", place)


def _row_at(place: str, raw: sources.Raw) -> int | None:
    """The raw row that stands at a place: where the rows say so themselves, by that (`rows.PLACES`)."""
    match = re.fullmatch(r"(.*), (line|row) (\d+)(, word \d+)?", place)
    if match is None:
        return None
    columns = raw.table.column_names
    if match[2] in columns:
        files = raw.table["file"].to_pylist() if "file" in columns else [match[1]] * len(raw.table)
        for row, (file, own) in enumerate(zip(files, raw.table[match[2]].to_pylist(), strict=True)):
            if file == match[1] and int(match[3]) in (own if isinstance(own, list) else [own]):
                return row
    by_number = _by_number(place, raw)
    row = int(by_number[1]) - 1 if by_number else len(raw.table)
    return row if row < len(raw.table) else None


def _unreadable(name: str, faults: Iterable[_Fault]) -> Iterator[Finding]:
    """A finding for each kind of fault, with the places of all its rows."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        kinds.setdefault((fault.message, fault.remedy), []).append(fault.place)
    for (message, remedy), places in kinds.items():
        text = f"rows that can't be read: {message}"
        remedies = [remedy, *[""] * (len(places) - 1)]
        yield Finding("unreadable", "fault", name, len(places), text, remedies[:KEPT], places[:KEPT])


def _held_out(train: Rows, held_out: Rows, target: str, data: Data, labelled: bool) -> list[str]:
    """The notes on a validation set that was held out of the training rows."""
    how = ""
    if data.group:
        how = f"by {data.group}, so that none is on both sides, "
    elif has_classes(train, target):
        how = "stratified, "
    notes = [
        f"validation: {len(held_out):,} of {len(train) + len(held_out):,} training rows held out "
        f"({data.validation}, {how}split_seed {data.split_seed})"
    ]
    if not labelled:
        return notes
    (there, at_rest), (held, _) = (flat(rows.table[target]) for rows in (train, held_out))
    names = pac.unique(there)
    if "/" in str(data.validation):
        unseen = pac.unique(held.filter(pac.invert(pac.is_in(held, names)))).drop_null().to_pylist()
        verb = "1 label is" if len(unseen) == 1 else f"{len(unseen):,} labels are"
        if unseen:
            notes.append(f"validation: {verb} in this fold alone, and can't be learned: {_some(unseen)}")
        return notes
    alone = names.filter(pac.invert(pac.is_in(names, pac.unique(held)))).drop_null().to_pylist()
    units = "rows"
    if data.group:
        units = "groups"
        groups = codes(train.table["group"])[at_rest]
        numbers = codes(there)
        of = {name: groups[numbers == numbers[there.index(name).as_py()]] for name in alone}
        alone = [name for name in alone if len(np.unique(of[name])) == 1]
    if alone and len(names) > 2:
        what = "1 label stays" if len(alone) == 1 else f"{len(alone):,} labels stay"
        notes.append(f"validation: {what} in training, with too few {units} to hold any out: {_some(alone)}")
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def with_group(task: Task, family: type[Family]) -> Task:
    """The task of a new run, which says by what rows are held out where its family does: what an earlier run
    held out row by row stays as its task has it."""
    data = task.data
    holds_out = data.validation is not None or task.run.folds is not None
    if not holds_out or data.group is not None or family.group_by is None:
        return task
    columns = data.columns if task.run.data_dir is None or data.original is None else data.original.columns
    return task.override({"data.group": columns.get(family.group_by, family.group_by)})


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
    original = _named(original, data.name, task.name)
    return data.model_copy(
        update={
            "original": original,
            "train": original.train or "",
            "evaluate": original.evaluate,
            "test": original.test,
            "columns": original.columns,
            "label_names": original.label_names,
        }
    )


def _named(original: Original, name: str | None, task: str) -> Original:
    """`[data.original]` with data.name in the place of each "{name}": files, folders and values of one
    configuration, such as a language."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return value.replace("{name}", name or "") if isinstance(value, str) else value

    tree = original.model_dump()
    if named(tree) == tree:
        return original
    if not name:
        remedy = "set data.name, such as --set data.name=en"
        raise InputError(
            "the files of this task are those of one configuration", where=f"task {task}", remedy=remedy
        )
    return Original.model_validate(named(tree))
