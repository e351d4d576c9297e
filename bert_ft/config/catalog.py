"""Finding tasks and suites by name, and reading their files."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config import families
from bert_ft.config.paths import LONGEST_FILE, anchor
from bert_ft.config.references import Suite
from bert_ft.config.schema import Execution
from bert_ft.config.task import Task, validated
from bert_ft.errors import InputError, did_you_mean

REFERENCES = ".references.toml"
"""How the name ends of a file that holds the published numbers (`[[reference]]`) of the task beside it."""
FROZEN = "frozen"
"""The table of a file that measures a frozen encoder (`config/frozen.py`); the folder of built-in ones."""


def tasks_root() -> Path:
    """The folder of built-in tasks: the checkout's own, else the one that ships inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "tasks"
    return (
        checkout
        if (package.parent / "pyproject.toml").is_file() and checkout.is_dir()
        else package / "_tasks"
    )


def builtin() -> dict[str, Path]:
    """Name -> file of every built-in task."""
    files = {file: file.relative_to(tasks_root()).parts for file in sorted(tasks_root().rglob("*.toml"))}
    return {
        file.stem: file
        for file, parts in files.items()
        if parts[0] not in ("suites", FROZEN) and not file.name.endswith(REFERENCES)
    }


def frozen() -> dict[str, Path]:
    """Name -> file of every built-in measurement of a frozen encoder."""
    files = sorted((tasks_root() / FROZEN).glob("*.toml"))
    return {file.stem: file for file in files if not file.name.endswith(REFERENCES)}


def references_file(task: Path) -> Path:
    """Where the published numbers of a task file lie: beside it, mnli.references.toml for mnli.toml."""
    return task.with_suffix(REFERENCES)


def find(name: str) -> Path:
    """The TOML file of a task, or of a measurement of a frozen encoder: a path, or the name of a built-in
    one."""
    path = reading.path(name, "the task")
    if path.suffix == ".toml":
        if not os.path.isfile(path):  # Path.is_file raises where the name is too long for a file
            raise InputError(
                "no such task file", where=name, remedy="`bert-ft tasks` lists the built-in tasks"
            )
        return path
    known = builtin() | frozen()
    if name in families.names():
        raise InputError(
            f"'{name}' is a family, not a task: it has no file", remedy="`bert-ft tasks` lists the tasks"
        )
    if name not in known:
        remedy = did_you_mean(name, [*known, *families.names()])
        remedy += "  (`bert-ft tasks` lists them; a .toml file works too)"
        raise InputError(f"unknown task '{name}'", remedy=remedy)
    return known[name]


def load_task(name: str | Path | Task) -> Task:
    """A task by built-in name, TOML file, or family name (an empty task of that family, for data of one's
    own).

    Raises:
        InputError: no such task, not TOML, an unknown key, or a value out of range; with file and key.
    """
    if isinstance(name, Task):
        return name
    if str(name) in families.names():
        return Task(name=f"own-{name}", title="own data", family=str(name))
    path = find(str(name))
    tree = read(path)
    if FROZEN in tree:
        raise InputError(
            "this measures a frozen encoder, and trains nothing",
            where=str(path),
            remedy=f"bert-ft reproduce {name} --checkpoint CHECKPOINT",
        )
    _refuse_call_only(tree.get("execution"), str(path))
    if tree["name"] in families.names():
        raise InputError(
            f"'{tree['name']}' is the name of a family, so no task can bear it",
            where=str(path),
            remedy="rename the file, or set `name`",
        )
    return validated(tree, str(path))


def read(path: Path) -> dict[str, Any]:
    """The tree of a task file, with its name, that of the task it extends, and the published numbers beside
    it. Raises InputError: a file that can't be read."""
    tree = _read(path, ())
    tree.setdefault("name", path.stem)
    return tree


def _refuse_call_only(execution: Any, where: str) -> None:
    """Refuses what only a call may say: a file may come from anybody."""
    keys = execution.keys() & Execution.CALL_ONLY if isinstance(execution, dict) else set()
    if keys:
        key = min(keys)
        raise InputError(
            f"a file can't set execution.{key}",
            where=where,
            remedy=f"say it in the call: {key}=... in Python, --{key.replace('_', '-')} on the command line",
        )


def suites() -> dict[str, Suite]:
    """Name -> suite of every built-in one."""
    paths = sorted((tasks_root() / "suites").glob("*.toml"))
    return {
        path.stem: Suite.model_validate({"name": path.stem} | tomllib.loads(path.read_text()))
        for path in paths
    }


def load_suite(name: str) -> Suite:
    """A suite by its name. Raises InputError: there is none of that name."""
    if name not in (known := suites()):
        raise InputError(f"unknown suite '{name}'", remedy=did_you_mean(name, known))
    return known[name]


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tree of a task file, with that of the task it extends and the published numbers beside each; of a
    variant's own numbers, those of the other task are no part."""
    path = path.resolve()
    if path in seen:
        raise InputError(
            "`extends` runs in a circle", where=str(path), remedy="give the variant a name of its own"
        )
    if path.name.endswith(REFERENCES):
        task = path.name.removesuffix(REFERENCES) + ".toml"
        raise InputError(
            "this file holds the published numbers of a task, and no task",
            where=str(path),
            remedy=f"name the task's file: {task}",
        )
    tree = _toml(path)
    _add_references(tree, path)
    if "extends" in tree:
        parent = str(tree.pop("extends"))
        near = reading.inside(
            parent if parent.endswith(".toml") else f"{parent}.toml", path.parent, f"{path}, extends"
        )
        base = _read(near if near.is_file() else find(parent.rpartition("/")[2]), (*seen, path))
        base.pop("name", None)  # a variant bears its own file's name
        tree = _merge(base, tree)
    anchor(tree.get("data"), path.parent, path)
    return tree


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(reading.text(path, LONGEST_FILE))
    except RecursionError:
        raise InputError(
            "not a TOML file that can be read: it is nested too deeply", where=str(path)
        ) from None
    except ValueError as error:  # beside its own, that of a number with too many digits
        raise InputError(f"not a TOML file: {error}".partition("; use sys.")[0], where=str(path)) from None


def _add_references(tree: dict[str, Any], path: Path) -> None:
    """Adds the published numbers that lie in a file beside the task's to those in the task's own."""
    file = references_file(path)
    if not os.path.exists(file):  # Path.exists raises where the name is too long for a file
        return
    beside = _toml(file)
    for key in beside.keys() - {"reference"}:
        raise InputError(
            f"'{key}' is no [[reference]], and a file of references holds nothing else",
            where=str(file),
            remedy=f"move it to {path.name}",
        )
    if FROZEN not in tree:
        validated(beside, str(file))  # so that a fault is told with the file that has it
    own = tree.get("reference", [])
    if isinstance(own, list):  # else the task's own fault, which is told below
        tree["reference"] = [*own, *beside.get("reference", [])]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in top.items():
        # these are one value, not a table of keys
        whole = key in ("evaluate", "test", "class_weights", "search")
        tables = isinstance(value, dict) and isinstance(both.get(key), dict) and not whole
        both[key] = _merge(both[key], value) if tables else value
    return both
