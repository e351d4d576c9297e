"""Texts and labels as canonical rows: from whatever holds them, and from raw inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Label
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data import lists, soft
from bert_ft.data.checks import labels
from bert_ft.data.rows import Canonical, Rows
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families import soft_labels

TOO_MANY = "is this the label column? --regression predicts numbers; data.labels names them as classes"
TYPES = {"regression": pa.float64(), "multi_label_classification": pa.list_(pa.string())}


def canonical(raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> Canonical:
    """Returns the columns text, text_pair (where the task has one) and label, checked; `labelled`: each row
    must have a label.

    Raises:
        InputError: the first cell that is no text, no number or no label, with its place.
    """
    table = raw.table
    data = task.data
    out = {
        role: cells.texts(table[columns[role]], columns[role], raw.where)
        for role in ("text", "text_pair")
        if role in columns
    }
    name = columns["label"]
    codes = raw.class_names.get(name)
    notes: list[str] = []
    used = raw.used
    if name not in table.column_names:
        out["label"] = pa.nulls(len(table), TYPES.get(data.problem_type, pa.string()))
    else:
        column = table[name]
        if data.skip_labels:
            column, used, notes = _skip(column, task, used, raw.rows(), labelled)
        unused = 0 if used is None else int((~used).sum())
        if used is not None:
            column = pac.if_else(pa.array(used), column, pa.scalar(None, column.type))
        if data.problem_type == "regression":
            out["label"] = _numbers(column, name, task, raw.where, labelled)
        elif data.problem_type == "multi_label_classification":
            column, more = lists.in_texts(column, data.label_delimiter, unused)
            out["label"], last = cells.name_sets(column, codes, data, name, raw.where, unused)
            notes += [*more, *last]
        else:
            column, more = lists.of_one(column, name, raw.where, unused)
            out["label"] = _names(column, name, codes, task, raw.where, labelled)
            notes += more
    if data.soft:
        notes += soft_labels.add(out, raw, task, used)
    if labelled:
        missing = pac.is_null(out["label"])
        missing = missing if used is None else pac.and_(missing, pa.array(used))
        remedy = f"give column '{name}' a value there, or remove the rows"
        if voted := ", ".join(f"'{column}'" for column in soft.present(raw, data)):
            own = f"a label in '{name}', or " if name in table.column_names else ""
            remedy = f"give them {own}a vote or a distribution in {voted}, or remove the rows"
        cells.refuse(missing, raw.where, f"{pac.sum(missing)} rows have no label", remedy, one="no label")
    names = [data.label_names.get(name, name) for name in codes or []]
    findings = labels.without_names(out["label"], data) if task.data.problem_type != "regression" else []
    order = list(dict.fromkeys(names))
    return Canonical(pa.table(out), notes, order, findings, used)


def _skip(
    column: pa.ChunkedArray, task: Task, used: np.ndarray | None, here: Rows, labelled: bool
) -> tuple[pa.ChunkedArray, np.ndarray | None, list[str]]:
    """The labels and whether each row is used (N,), without those that have one of `data.skip_labels`; and
    the note on them. Where no row would be left, and none needs a label, all stay without one."""
    skipped = lists.is_only(column, task.data.skip_labels, task.data.label_delimiter)
    rest = ~skipped if used is None else used & ~skipped
    rows = np.flatnonzero(skipped)
    if not len(rows):
        return column, used, []
    if not labelled and not rest.any():
        unlabelled = pac.if_else(pa.array(skipped), pa.scalar(None, column.type), column)
        return unlabelled, used, ["no row has a label but those of data.skip_labels"]
    count = "1 row is" if len(rows) == 1 else f"{len(rows):,} rows are"
    note = f"{count} left out, by data.skip_labels; the first: {here.place(int(rows[0]))}"
    return column, rest, [note]


def _numbers(column: pa.ChunkedArray, name: str, task: Task, where: str, labelled: bool) -> pa.ChunkedArray:
    """(N,) float64; nulls where the hub hides the scores of a test set."""
    numbers = cells.numbers(column, name, where)
    if task.run.data_dir is not None:  # as STS-B is on the hub, so that both give the same rows
        numbers = cells.numbers(numbers.cast(pa.float32()), name, where)
    hidden = not labelled and pac.all(pac.equal(numbers, -1)).as_py()
    return pa.nulls(len(numbers), pa.float64()) if hidden else numbers


def _names(
    column: pa.ChunkedArray, name: str, codes: list[str] | None, task: Task, where: str, labelled: bool
) -> pa.ChunkedArray:
    """(N,) strings; null where a row without a need for one has no label."""
    names = cells.names(column, codes, task.data, name, where)
    empty = pac.equal(names, "")
    if labelled:
        cells.refuse(
            empty,
            where,
            f"column '{name}' has an empty label",
            'remove the row, or name it: data.label_names = { "" = "none" }',
        )
    return pac.if_else(empty, None, names)


def find_labels(train: Rows, task: Task) -> list[Label]:
    """Returns the label names in order: the task's own, else the source's, else those of the training rows,
    sorted; none for numbers.

    Raises:
        InputError: labels that look like numbers to predict.
    """
    if task.data.problem_type == "regression":
        return []
    if task.data.labels is not None:
        return list(task.data.labels)
    if train.label_order:
        return list(train.label_order)
    found: list[Any] = soft_labels.names(train)
    fraction = next((name for name in found if re.fullmatch(r"-?\d*\.\d*[1-9]\d*", name)), "")
    if fraction and re.fullmatch(r"[\d.-]+", "".join(found)):
        raise InputError(
            f"the labels are numbers with a fraction, such as {fraction}",
            where=train.where,
            remedy="--regression predicts numbers; data.labels names them as classes",
        )
    if set(found) <= {"True", "False"}:
        return [name == "True" for name in found]
    if len(found) > max(100, len(train) // 2):
        message = f"{len(found):,} different labels in {len(train):,} rows"
        raise InputError(message, where=train.where, remedy=TOO_MANY)
    if all(re.fullmatch("0|-?[1-9][0-9]*", name) for name in found):
        return sorted(int(name) for name in found)  # 2 before 10
    return found


def of_inputs(inputs: Sequence[Any], problem_type: str) -> Rows:
    """Returns texts, or pairs of texts, as rows without labels. Raises InputError: an input that is
    neither."""
    pairs = bool(inputs) and isinstance(inputs[0], (list, tuple))
    kind = TYPES.get(problem_type, pa.string())
    for number, item in enumerate(inputs):
        texts = item if pairs and isinstance(item, (list, tuple)) and len(item) == 2 else [item]
        if len(texts) != 1 + pairs or not all(isinstance(text, str) for text in texts):
            message = "a text, or a (text, text_pair), is wanted for every input"
            raise InputError(message, where=f"input {number + 1}")
    parts = list(zip(*inputs, strict=True)) if pairs else [inputs]
    columns = [pa.array(part, pa.string()) for part in parts]
    named = dict(zip(("text", "text_pair"), columns, strict=False))
    return Rows(pa.table({**named, "label": pa.nulls(len(inputs), kind)}), "inputs")
