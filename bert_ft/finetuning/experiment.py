"""An experiment: all that a call says, bound and free of contradictions, before anything heavy is loaded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert_ft import families
from bert_ft.config.catalog import load_task
from bert_ft.config.schema import Execution
from bert_ft.config.task import Task
from bert_ft.data import loading, overrides
from bert_ft.jobs.base import Job
from bert_ft.modeling import contradictions, remote_code
from bert_ft.prepared import Prepared, prepare
from bert_ft.rundir import intermediate, naming
from bert_ft.rundir.folder import RunDir

DEFAULTED = {*Execution.model_fields, "seed", "data_dir", "folds"}
"""Settings that may be None, for the default: a command line passes on what nobody set."""


@dataclass(frozen=True)
class UserObjects:
    """The user's own Python objects, in the place of ours; `finetune` says what each is."""

    adapter: type[families.Adapter] | None = None
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None
    metrics: Mapping[str, Any] | Sequence[Any] = ()
    callbacks: Sequence[Any] = ()
    model: Any = None
    tokenizer: Any = None

    def names(self, recorded: Sequence[str] = ()) -> list[str]:
        """Those that change what is trained, so that the run's task.toml alone can't repeat it; and those
        that the task's file has `recorded`."""
        return [n for n in ("adapter", "loss", "metrics", "model") if n in recorded or getattr(self, n)]


@dataclass(frozen=True)
class Experiment:
    """What one call of `finetune` asks for.

    Attributes:
        task: the bound task: the call's sets, settings and keys of `[run]` and `[execution]` are in it.
        family: the adapter class.
        rows: set name -> rows, of the sets that are Python objects and no files.
        objects: the user's own objects.
        folder: where the run lies.
        trusted: whose own code may run, as `remote_code.names` returns it.
        began: `time.perf_counter()` at the start.
    """

    task: Task
    family: type[families.Adapter]
    rows: Mapping[str, Any]
    objects: UserObjects
    folder: RunDir
    trusted: tuple[str, ...] = ()
    began: float = field(default_factory=time.perf_counter)

    @property
    def execution(self) -> Execution:
        """How it is carried out."""
        return self.task.execution

    @classmethod
    def create(
        cls,
        task: str | Path | Task,
        checkpoint: str | Path | None = None,
        *,
        output: str | Path | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        objects: UserObjects | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Experiment:
        """Binds a call's arguments; those of `finetune`, with the user's objects together.

        Raises:
            InputError: an unknown key, a value out of range, or two that contradict each other.
        """
        began = time.perf_counter()
        base = load_task(task)
        objects = objects or UserObjects()
        keys = {k: v for k, v in (settings or {}).items() if v is not None or k not in DEFAULTED}
        trusted = remote_code.names(keys.pop("trust_remote_code", None))
        sets = overrides.sets(train, validation, test)
        own = objects.names(base.run.custom) or None
        bound = overrides.bound(base, sets, keys, checkpoint=checkpoint, custom=own)
        folder = RunDir(output if output is not None else Path("runs") / naming.run_name(base, bound, keys))
        if output is None and "IPython" in sys.modules and not bound.execution.overwrite:
            folder = naming.numbered(folder, bound.execution.resume)
        bound = loading.with_group(bound, family := objects.adapter or families.find(bound.family))
        result = cls(bound, family, overrides.objects(sets), objects, folder, trusted, began)
        contradictions.refuse(bound, folder, objects, sets)
        return result

    def prepare(self) -> Prepared:
        """Its rows, and the adapter that reads them."""
        return prepare(self.task, self.family, self.rows, model=self.objects.model, trusted=self.trusted)

    def intermediate(self) -> list[Experiment]:
        """The training on another task that comes first, where the task names one."""
        found = intermediate.first(self.task, self.folder)
        trust = {"trust_remote_code": list(self.trusted)} if self.trusted else {}
        return [] if found is None else [Experiment.create(found[0], output=found[1].path, settings=trust)]

    def after_intermediate(self) -> Experiment:
        """The same experiment, from the run that came first on."""
        return replace(
            self, task=intermediate.after(self.task, self.folder), trusted=(), began=time.perf_counter()
        )

    def fold(self, job: Job) -> Experiment:
        """The experiment of one fold: the same but for its task and folder."""
        return replace(self, task=job.task, folder=job.folder, began=time.perf_counter())
