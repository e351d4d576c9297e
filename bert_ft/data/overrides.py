"""Files and Python objects that take the place of a task's own sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config.task import Task
from bert_ft.data.sources import OBJECT
from bert_ft.errors import InputError

KEYS = {"train": "data.train", "validation": "data.evaluate", "test": "data.test"}


def sets(
    train: Any, validation: Any, test: Any, settings: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """train, validation, test -> name -> file or rows; a `DatasetDict` as `train` brings all its splits.
    Validation as a share of the training rows, "10%", is no set: it goes into the settings."""
    given = {"train": train, "validation": validation, "test": test}
    if settings is not None and isinstance(validation, str) and validation.endswith("%"):
        settings["data.validation"] = given.pop("validation")
    if isinstance(train, Mapping) and "train" in train and _is_set(train["train"]):
        given |= {name: train[name] for name in given if name in train}
    named = {}
    for name, value in given.items():
        if value is not None:
            several = isinstance(value, Mapping) and value and all(map(_is_set, value.values()))
            named[name] = dict(value) if several else {name: value}
    return named


def bound(
    base: Task, named: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], **run: Any
) -> Task:
    """The task of one call: its sets and settings, and those keys of `[run]` that are not None.

    Raises:
        InputError: files beside a folder of original ones, whose columns and labels are another's.
    """
    files = [name for name, parts in named.items() if any(map(_files, parts.values()))]
    if run.get("data_dir") and files:
        raise InputError(
            "--data-dir reads all of the task's sets, so that a file can't be given too",
            where=f"--{files[0]}",
            remedy="leave one of them out, or name all files",
        )
    keys = {f"run.{key}": value for key, value in run.items() if value is not None}
    name, slash, metric = (base.metric.best or "").partition("/")
    best = (
        {"metric.best": metric} if slash and "validation" in named and name not in named["validation"] else {}
    )
    return base.override({**best, **changes(named), **settings, **keys})


def changes(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the task's `[data]` says with these sets in it."""
    if not named:
        return {}
    out: dict[str, Any] = {"run.data_dir": None}
    for name, parts in named.items():
        places = {part: _place(value) for part, value in parts.items()}
        out[KEYS[name]] = places[name] if list(places) == [name] else places
    if "validation" in named:
        out["data.validation"] = None
    if "train" in named and "test" not in named:
        out["data.test"] = None
    return out


def objects(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> rows of the sets that are no files."""
    return {name: rows for parts in named.values() for name, rows in parts.items() if not _files(rows)}


def _place(value: Any) -> str:
    """The file of a set, or its files joined by "+"."""
    return "+".join(str(reading.path(file, "the rows").resolve()) for file in _files(value)) or OBJECT


def _files(value: Any) -> list[Path]:
    """The files that a value names; none where it is rows."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return list(map(Path, several)) if all(isinstance(part, (str, Path)) for part in several) else []


def _is_set(value: Any) -> bool:
    """Whether a mapping's value is a set of rows of its own (a file, a table, a list of dicts) and not a
    column."""
    if isinstance(value, (str, Path, Mapping)) or hasattr(value, "column_names") or hasattr(value, "iloc"):
        return not hasattr(value, "str")  # a pandas Series is a column
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
