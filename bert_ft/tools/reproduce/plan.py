"""The plan of a reproduction: which runs, by whose recipe, and the command that makes each."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config import families
from bert_ft.config.catalog import load_task, suites
from bert_ft.config.references import Reference, Suite
from bert_ft.config.task import CONTROL, Task
from bert_ft.errors import InputError
from bert_ft.modeling import remote_code
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.naming import short_name
from bert_ft.tools.reproduce.verdict import conditions, origin, recipe


@dataclass
class Planned:
    """One run: the command that makes it, and its place."""

    task: Task
    point: dict[str, Any]  # of the grid: key of the recipe -> value
    folder: RunDir
    argv: list[str]
    cause: str = ""  # why it could not be made

    @property
    def command(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(["bert-ft", *self.argv])


@dataclass
class Entry:
    """One task of the plan.

    Attributes:
        base: the task as its file has it.
        references: the published numbers it is held against; `reference` is the one whose recipe is run.
        grid: key of the recipe -> the values searched; empty where nothing is.
    """

    base: Task
    references: list[Reference]
    reference: Reference | None
    grid: dict[str, list[Any]]
    runs: list[Planned] = field(default_factory=list)


@dataclass
class Plan:
    """Everything that is to be run, and where."""

    name: str
    checkpoint: str
    seeds: list[int]
    suite: Suite | None
    folder: Path
    entries: list[Entry]
    trusted: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Planned]:
        return [run for entry in self.entries for run in entry.runs]


def plan(
    name: str | Path,
    checkpoint: str,
    *,
    seeds: int | Sequence[int] = 5,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    reference: str | None = None,
    grid: bool = False,
    save_model: bool = False,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> Plan:
    """The runs of a task or suite; the arguments are those of `reproduce`.

    Raises:
        InputError: no such task or suite, no grid to search, a setting that is no key; another run in the
            place of one; or a control character in a name, so that no command of one line can hold it.
    """
    name, checkpoint, known = str(name), str(checkpoint), suites()
    if name in families.names():
        raise InputError(f"'{name}' is a family, not a task or a suite", remedy="`bert-ft tasks` lists both")
    chosen = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError("seeds are a number of them, or a list of different ones", where="--seeds")
    suite = known.get(name)
    short = short_name(checkpoint)
    words = map(naming.clean, ("reproduce", Path(name).stem, short))
    folder = Path(output) if output is not None else Path("runs") / "-".join(words)
    trusted = remote_code.names(trust_remote_code)
    made = Plan(name, checkpoint, chosen, suite, folder, [], trusted)
    extra = ["--checkpoint", checkpoint] + (["--data-dir", str(data_dir)] if data_dir is not None else [])
    extra += [word for source in trusted for word in ("--trust-remote-code", source)]
    fixed = {"run.checkpoint": checkpoint} | ({} if data_dir is None else {"run.data_dir": data_dir})
    for task in suite.tasks if suite else [name]:
        entry = _entry(load_task(task), checkpoint, reference, grid)
        made.entries.append(entry)
        points = [
            dict(zip(entry.grid, values, strict=True)) for values in itertools.product(*entry.grid.values())
        ]
        for seed, point in itertools.product(chosen, points):
            told = {f"recipe.{key}": value for key, value in point.items()} | settings
            changes = (recipe(entry.reference) if entry.reference else {}) | told
            bound = entry.base.override(changes | fixed | {"run.seed": seed}, where=f"task {entry.base.name}")
            run = RunDir(folder / naming.run_name(entry.base, bound, told))
            sets = [word for key, value in changes.items() for word in ("--set", f"{key}={_toml(value)}")]
            argv = [
                "train",
                task,
                *extra,
                "--seed",
                str(seed),
                "--output",
                str(run.path),
                *sets,
                *["--no-save-model"] * (not save_model),
            ]
            if odd := next((word for word in argv if CONTROL.search(word)), None):
                raise InputError(
                    f"{odd!r} holds a control character, so that no command of one line can hold it",
                    where=f"task {entry.base.name}",
                    remedy="rename it",
                )
            entry.runs.append(Planned(bound, point, run, argv))
            if run.task_toml.is_file() and (
                other := files.difference(_identity(run.task()), _identity(bound))
            ):
                raise InputError(
                    "another run lies here; it differs in",
                    details=other,
                    where=str(run.path),
                    remedy="choose another place with --output DIR",
                )
    if reference is not None and not any(entry.references for entry in made.entries):
        sources = sorted({r.source for entry in made.entries for r in entry.base.reference})
        raise InputError(
            f"no published number whose source holds '{reference}'",
            where="--reference",
            remedy="known: " + "; ".join(sources),
        )
    return made


def _entry(base: Task, checkpoint: str, wanted: str | None, search: bool) -> Entry:
    """The task with its published numbers; the recipe is that of the one which most can be compared with."""
    name = origin(checkpoint)[0]
    found = [r for r in base.reference if wanted is None or wanted.casefold() in r.source.casefold()]
    mine = [r for r in found if short_name(r.checkpoint) == name]
    references = mine if mine or wanted is None else found  # asked for by name: whatever its checkpoint

    def grid(reference: Reference | None) -> dict[str, list[Any]]:
        own = reference.recipe.get("grid", base.recipe.grid) if reference else base.recipe.grid
        return dict(own) if search else {}

    def lacking(reference: Reference) -> tuple[int, bool]:
        first = {f"recipe.{key}": values[0] for key, values in grid(reference).items()}
        task = base.override(recipe(reference) | first | {"run.checkpoint": checkpoint})
        return len(
            conditions(reference, base, task, grid(reference))
        ), reference.split not in base.data.evaluation_sets

    chosen = min(references, key=lacking, default=None)
    if search and not grid(chosen):
        raise InputError(
            "neither the task nor the reference says what was searched",
            where=f"task {base.name}",
            remedy="give the task a [recipe.grid], or leave out --grid",
        )
    return Entry(base, references, chosen, grid(chosen))


def _identity(task: Task) -> dict[str, Any]:
    """What makes two runs the same one, on whatever machine they were made."""
    tree = task.dump()
    del tree["reference"]
    tree["data"].pop("labels", None)  # a run has those that it found
    tree["run"] = {"seed": task.run.seed, "checkpoint": short_name(task.run.checkpoint or "")}
    return tree


def _toml(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
