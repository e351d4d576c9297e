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
from bert_ft.errors import InputError, did_you_mean
from bert_ft.jobs.base import Job
from bert_ft.modeling import adapted, pretrained, remote_code, scorers
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

    def names(self) -> list[str]:
        """Those that change what is trained, so that the run's task.toml alone can't repeat it."""
        return [name for name in ("adapter", "loss", "metrics", "model") if getattr(self, name)]


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
        bound = overrides.bound(base, sets, keys, checkpoint=checkpoint, custom=objects.names() or None)
        folder = RunDir(output if output is not None else Path("runs") / naming.run_name(base, bound, keys))
        if output is None and "IPython" in sys.modules and not bound.execution.overwrite:
            folder = naming.numbered(folder, bound.execution.resume)
        family = objects.adapter or families.find(bound.family)
        bound = loading.with_group(bound, family)
        result = cls(bound, family, overrides.objects(sets), objects, folder, trusted, began)
        result._refuse_contradictions(sets)
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
        """The experiment of one fold: the same but for its task and folder; no model is kept."""
        task = job.task.override({"execution.save_model": False})
        return replace(self, task=task, folder=job.folder, began=time.perf_counter())

    def _refuse_contradictions(self, sets: Mapping[str, Any]) -> None:
        task = self.task
        objects = self.objects
        folder = self.folder
        best = task.best_metric[1]
        names = [*task.metric.compute, *scorers.of(objects.metrics)]
        if best not in names:
            raise InputError(
                f"metric.best = '{best}' is not one of the metrics that are computed",
                remedy=did_you_mean(best, names),
            )
        if task.execution.resume and task.execution.overwrite:
            raise InputError(
                "--resume continues a run that --overwrite would replace", remedy="leave one of them out"
            )
        if task.execution.resume and folder.state not in ("unfinished", "finished"):
            raise InputError(
                "there is no interrupted run to resume", where=str(folder.path), remedy="leave out --resume"
            )
        here = Path(task.run.checkpoint or "").expanduser()
        inside = folder.path.resolve() in (here.resolve(), *here.resolve().parents)
        if task.run.checkpoint and here.exists() and inside:
            raise InputError(
                "the checkpoint is in the folder that this run would be written to",
                where=task.run.checkpoint,
                remedy="choose another place with --output DIR",
            )
        if objects.model is not None and task.run.save_dtype != "float32":
            raise InputError(
                "the type is that of the checkpoint's file, and a model object has no file",
                where="run.save_dtype",
                remedy="leave it out; the model is then saved in float32",
            )
        if task.recipe.lora is not None and task.recipe.lora.save == "adapter":
            self._refuse_adapter()
        if objects.model is not None and task.run.intermediate is not None:
            raise InputError(
                "a model object can't be trained on another task first",
                where="run.intermediate",
                remedy="give the checkpoint in its place",
            )
        for key in ("class_weights", "label_smoothing"):
            if objects.loss is not None and getattr(task.recipe, key):
                raise InputError(
                    "a loss function of your own does not use this setting",
                    where=f"recipe.{key}",
                    remedy="leave it out",
                )
        if task.run.folds is not None and (objects.model is not None or sets.keys() - {"train"}):
            other = "a model object" if objects.model is not None else "a validation or test set"
            raise InputError(
                f"each fold holds out training rows and trains a new model, so {other} can't be given too",
                where="folds",
                remedy="leave one of them out",
            )

    def _refuse_adapter(self) -> None:
        """Refuses to save low-rank changes where what they change can't be named, or not in their type."""
        if self.objects.model is not None:
            message = "an adapter names the checkpoint that it changes, and a model object is none"
        elif self.task.run.save_dtype != "float32":
            message = "an adapter is saved in float32, whatever run.save_dtype says"
        elif adapted.base_of(pretrained.locate(str(self.task.run.checkpoint))):
            message = "the checkpoint is an adapter itself, and peft reads none of an adapter"
        else:
            return
        raise InputError(message, where="recipe.lora.save", remedy='save = "merged"')
