"""Files and Python objects that take the place of a task's own sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config.task import Task
from bert_ft.data.sources import OBJECT
from bert_ft.errors import InputError

SHARE = re.compile(r"[\d.]+(/\d+)?")
KEYS = {"train": "data.train", "validation": "data.evaluate", "test": "data.test"}


def sets(train: Any, validation: Any, test: Any) -> dict[str, dict[str, Any]]:
    """train, validation, test -> name -> file or rows, of those that are not None; a `DatasetDict` as `train`
    brings all its splits. Validation may also be a share of the training rows, "10%"."""
    values = {"train": train, "validation": validation, "test": test}
    if isinstance(train, Mapping) and "train" in train and _is_set(train["train"]):
        values |= {name: train[name] for name in values if name in train}
    named = {}
    for name, value in values.items():
        if value is not None:
            is_named_sets = isinstance(value, Mapping) and value and all(map(_is_set, value.values()))
            named[name] = dict(value) if is_named_sets else {name: value}
    return named


def bound(
    base: Task, named: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], **run: Any
) -> Task:
    """The task of one call: its sets and settings, and those keys of `[run]` that are not None.

    Raises:
        InputError: files beside a folder of original ones, whose columns and labels are another's.
    """
    files = [name for name, parts in _without_share(named).items() if any(map(_files, parts.values()))]
    keys = {f"run.{key}": value for key, value in run.items() if value is not None}
    changed = {**settings, **keys}
    if files and (changed.get("run.data_dir") or changed.get("data_dir")):
        raise InputError(
            "--data-dir brings all of the task's sets, so a file can't be given too",
            where=f"--{files[0]}",
            remedy="leave one of them out, or name all files",
        )
    name, slash, metric = (base.metric.best or "").partition("/")
    renamed = bool(slash) and "validation" in named and name not in named["validation"]
    best = {"metric.best": metric} if renamed else {}
    return base.override({**best, **changes(named), **changed})


def changes(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the task's `[data]` says with these sets in it."""
    without_share = _without_share(named)
    result: dict[str, Any] = {"run.data_dir": None} if without_share else {}
    for name, parts in without_share.items():
        places = {part: _place(value) for part, value in parts.items()}
        result[KEYS[name]] = places[name] if list(places) == [name] else places
    if "validation" in named:
        result["data.validation"] = _share(named)
    if "train" in named and "test" not in named:
        result["data.test"] = None
    return result


def objects(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> rows of the sets that are no files."""
    return {name: rows for parts in named.values() for name, rows in parts.items() if not _files(rows)}


def _share(named: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The part of the training rows that is the validation set, "10%" or "2/5"; None where it is a set of its
    own."""
    value = named.get("validation", {}).get("validation")
    if isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str) or (not SHARE.fullmatch(value) and not value.endswith("%")):
        return None
    if value[-1] == "%" or not os.path.exists(value):
        return _held_out(value)
    return None


def _held_out(value: str) -> str:
    """Returns a part of the training rows as a task file has it.

    Raises:
        InputError: a number that could be a share, or a count of rows.
    """
    number = re.fullmatch(r"\d*\.?\d+", value)
    if number is None:
        return value
    percent = f"{100 * float(value):g}%" if 0 < float(value) < 1 else f"{float(value):g}%"
    remedy = f"write a share of the training rows as --validation {percent}, or a fold as --validation 1/5"
    raise InputError(f"--validation {value} is neither a file nor a share", remedy=remedy)


def _without_share(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The sets but a validation set that is a share of the training rows."""
    share = _share(named)
    return {name: parts for name, parts in named.items() if name != "validation" or share is None}


def _place(value: Any) -> str:
    """The file of a set, or its files joined by "+"."""
    return "+".join(os.path.abspath(reading.path(file, "the rows")) for file in _files(value)) or OBJECT


def _files(value: Any) -> list[Path]:
    """The files that a value names; none where it is rows."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return list(map(Path, values)) if all(isinstance(part, (str, Path)) for part in values) else []


def _is_set(value: Any) -> bool:
    """Whether a mapping's value is a set of rows of its own (a file, a table, a list of dicts) and not a
    column."""
    if isinstance(value, (str, Path, Mapping)) or hasattr(value, "column_names") or hasattr(value, "iloc"):
        return not hasattr(value, "str")  # a pandas Series is a column
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
