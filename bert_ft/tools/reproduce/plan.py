"""The plan of a reproduction: which runs, by whose recipe, and the command that makes each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ft import files, reading
from bert_ft.config import families
from bert_ft.config.catalog import load_task, suites
from bert_ft.config.references import Reference, Suite
from bert_ft.config.task import CONTROL, Task
from bert_ft.errors import InputError
from bert_ft.jobs.base import Job
from bert_ft.modeling import remote_code
from bert_ft.rundir import intermediate, naming
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.naming import short_name
from bert_ft.tools.reproduce.conditions import conditions, origin, recipe


@dataclass(eq=False)
class Planned(Job):
    """A run of the plan: the command that makes it, and its place.

    Attributes:
        point: of the grid: key of the recipe -> value.
    """

    point: dict[str, Any] = field(default_factory=dict)


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
    name, checkpoint = str(name), str(checkpoint)
    if name in families.names():
        raise InputError(f"'{name}' is a family, not a task or a suite", remedy="`bert-ft tasks` lists both")
    numbers = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError("seeds are a number of them, or a list of different ones", where="--seeds")
    suite = suites().get(name)
    words = map(naming.clean, ("reproduce", Path(name).stem, short_name(checkpoint)))
    folder = reading.path(output) if output is not None else Path("runs") / "-".join(words)
    trusted = remote_code.names(trust_remote_code)
    entries = list[Entry]()
    for source in suite.tasks if suite else [name]:
        base = load_task(source)
        first = settings.get("run.intermediate", settings.get("intermediate", base.run.intermediate))
        entry = _entry(base, checkpoint, reference, grid, first)
        call = _Call(source, checkpoint, data_dir, folder, settings, save_model, trusted)
        values = itertools.product(*entry.grid.values())
        points = [dict(zip(entry.grid, point, strict=True)) for point in values]
        entry.runs = [call.planned(entry, seed, point) for seed, point in itertools.product(numbers, points)]
        entries.append(entry)
    if reference is not None and not any(entry.references for entry in entries):
        sources = sorted({published.source for entry in entries for published in entry.base.reference})
        raise InputError(
            f"no published number whose source holds '{reference}'",
            where="--reference",
            remedy="known: " + "; ".join(sources),
        )
    return Plan(name, checkpoint, numbers, suite, folder, entries, trusted)


@dataclass
class _Call:
    """What all runs of a task have in common: the arguments of `plan`, and the task as they name it."""

    source: str
    checkpoint: str
    data_dir: str | Path | None
    folder: Path
    settings: Mapping[str, Any]
    save_model: bool
    trusted: tuple[str, ...]

    def planned(self, entry: Entry, seed: int, point: dict[str, Any]) -> Planned:
        """The run of one seed at one point of the grid; errors as of `plan`."""
        own = {**{f"recipe.{key}": value for key, value in point.items()}, **self.settings}
        changes = (recipe(entry.reference) if entry.reference else {}) | own
        fixed: dict[str, Any] = {"run.checkpoint": self.checkpoint, "run.seed": seed}
        if self.data_dir is not None:
            fixed["run.data_dir"] = self.data_dir
        task = entry.base.override(changes | fixed, where=f"task {entry.base.name}")
        run = RunDir(self.folder / naming.run_name(entry.base, task, own))
        task = intermediate.after(task, run)
        argv = self._argv(seed, run, changes)
        if odd := next((word for word in argv if CONTROL.search(word)), None):
            raise InputError(
                f"{odd!r} holds a control character, so that no command of one line can hold it",
                where=f"task {entry.base.name}",
                remedy="rename it",
            )
        if run.task_toml.is_file() and (changed := files.difference(_identity(run.task()), _identity(task))):
            raise InputError(
                "this folder holds another run, which differs in",
                details=changed,
                where=str(run.path),
                remedy="choose another place with --output DIR",
            )
        return Planned(task, run, argv, point=point)

    def _argv(self, seed: int, run: RunDir, changes: Mapping[str, Any]) -> list[str]:
        words = ["train", self.source, "--checkpoint", self.checkpoint]
        if self.data_dir is not None:
            words += ["--data-dir", str(self.data_dir)]
        for name in self.trusted:
            words += ["--trust-remote-code", name]
        words += ["--seed", str(seed), "--output", str(run.path), "--no-baselines"]
        for key, value in changes.items():
            words += ["--set", f"{key}={_toml(value)}"]
        return words if self.save_model else [*words, "--no-save-model"]


def _entry(
    base: Task, checkpoint: str, requested: str | None, search: bool, first: str | None = None
) -> Entry:
    """The task with its published numbers; the recipe is that of the one which most can be compared with.
    `first`: the task that the checkpoint is trained on before."""
    name = origin(checkpoint)[0]
    published = [
        reference
        for reference in base.reference
        if requested is None or requested.casefold() in reference.source.casefold()
    ]
    own = [reference for reference in published if short_name(reference.checkpoint) == name]
    # one that is asked for by name is taken whatever its checkpoint
    references = own if own or requested is None else published

    def grid(reference: Reference | None) -> dict[str, list[Any]]:
        values = reference.recipe.get("grid", base.recipe.grid) if reference else base.recipe.grid
        return dict(values) if search else {}

    def lacking(reference: Reference) -> tuple[int, bool]:
        point = {f"recipe.{key}": values[0] for key, values in grid(reference).items()}
        task = base.override(recipe(reference) | point | {"run.checkpoint": checkpoint})
        unmet = conditions(reference, base, task, grid(reference), first)
        return len(unmet), reference.split not in base.data.evaluation_sets

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
    tree["data"].pop("labels", None)  # a run has those of its training rows
    tree["run"] = {"seed": task.run.seed, "checkpoint": short_name(task.run.checkpoint or "")}
    return tree


def _toml(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
