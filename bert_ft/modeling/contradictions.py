"""What a call says that can't be so: two settings that exclude each other, or something that is not there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from bert_ft.config.task import Task
from bert_ft.data.sources import OBJECT
from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics import distributions
from bert_ft.modeling import adapted, pretrained, scorers
from bert_ft.rundir import intermediate
from bert_ft.rundir.folder import RunDir


class Objects(Protocol):
    """The user's own Python objects, as far as they forbid settings."""

    @property
    def adapter(self) -> Any: ...

    @property
    def loss(self) -> Any: ...

    @property
    def metrics(self) -> Any: ...

    @property
    def model(self) -> Any: ...


def refuse(task: Task, folder: RunDir, objects: Objects, sets: Collection[str]) -> None:
    """Refuses a training that contradicts itself, before anything heavy is loaded.

    Args:
        folder: where the run would lie.
        sets: the names of the sets that the call brings.
    Raises:
        InputError: it does.
    """
    if missing := [name for name in task.run.custom if not getattr(objects, name, None)]:
        raise InputError(
            f"the run that this file is of used your own {' and '.join(missing)}, which no file holds",
            where="run.custom",
            remedy=f"give it in Python, bert_ft.finetune(..., {missing[0]}=...), or empty `custom` in [run]",
        )
    named = objects.metrics if isinstance(objects.metrics, Mapping) else {}
    if twice := sorted(named.keys() & set(task.metric.compute)):
        raise InputError(
            f"two metrics are called '{twice[0]}', yours and the task's",
            where="metrics",
            remedy="give yours another name, or leave the task's out of metric.compute",
        )
    best = task.best_metric[1]
    names = [*task.metric.compute, *scorers.of(objects.metrics)]
    names += distributions.NAMES if task.data.soft else []  # which every set of soft targets has
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
    if task.recipe.method != "fine-tuning" and objects.model is not None:
        raise InputError(
            f'the method "{task.recipe.method}" adds to the network, and a model object is left as it is',
            where="recipe.method",
            remedy="give a checkpoint in its place, or leave out method",
        )
    if task.recipe.saves_adapter:
        _refuse_adapter(task, objects)
    _refuse_intermediate(task, folder, objects)
    for key in ("class_weights", "label_smoothing"):
        if objects.loss is not None and getattr(task.recipe, key):
            raise InputError(
                "a loss function of your own does not use this setting",
                where=f"recipe.{key}",
                remedy="leave it out",
            )
    if task.execution.on is not None:
        _refuse_cluster(task, objects)
    if task.run.folds is not None and (objects.model is not None or set(sets) - {"train"}):
        other = "a model object" if objects.model is not None else "a validation or test set"
        raise InputError(
            f"each fold holds out training rows and trains a new model, so {other} can't be given too",
            where="folds",
            remedy="leave one of them out",
        )


def refuse_sharded(task: Task, accelerator: Any) -> None:
    """Refuses what is not done where weights are sharded over processes."""
    for key in ("lora", "ema"):
        if accelerator.is_fsdp2 and getattr(task.recipe, key) is not None:
            raise InputError(
                "this is not done where weights are sharded over processes (FSDP)",
                where=f"recipe.{key}",
                remedy=f"leave out {key}, or start the processes without FSDP",
            )


def _refuse_cluster(task: Task, objects: Objects) -> None:
    """Refuses what no cluster makes: a single run, and one that Python objects take part in."""
    if task.run.folds is None:
        raise InputError(
            "one run is made on this machine; a cluster makes the runs of folds, reproduce, search and curve",
            where="on",
            remedy="leave it out, or --folds 5",
        )
    refuse_objects([*vars(objects).values(), [OBJECT] if task.data.train == OBJECT else []])


def refuse_objects(objects: Iterable[Any]) -> None:
    """Refuses Python objects of the user's, which no command line holds."""
    if any(each is not None and (not hasattr(each, "__len__") or len(each)) for each in objects):
        raise InputError(
            "Python objects (rows, a loss, callbacks, ...) stay in the process that has them",
            where="on",
            remedy='give files and keys of the task in their place, or leave out on="ray"',
        )


def _refuse_intermediate(task: Task, folder: RunDir, objects: Objects) -> None:
    """Refuses what can't be trained on another task first; whatever `intermediate.first` refuses too."""
    first = intermediate.first(task, folder)
    if first is not None and first[0].recipe.saves_adapter and task.recipe.saves_adapter:
        raise InputError(
            f"the run on {first[0].name}, which comes first, is an adapter, and peft reads none of one",
            where="recipe.lora.save",
            remedy='save = "merged"',
        )
    if first is not None and objects.model is not None:
        raise InputError(
            "a model object can't be trained on another task first",
            where="run.intermediate",
            remedy="give the checkpoint in its place",
        )


def _refuse_adapter(task: Task, objects: Objects) -> None:
    """Refuses to save low-rank changes where what they change can't be named, or not in their type."""
    if objects.model is not None:
        message = "an adapter names the checkpoint that it changes, and a model object is none"
    elif task.run.save_dtype != "float32":
        message = "an adapter is saved in float32, whatever run.save_dtype says"
    elif adapted.base_of(pretrained.locate(str(task.run.checkpoint))):
        message = "the checkpoint is an adapter itself, and peft reads none of an adapter"
    else:
        return
    raise InputError(message, where="recipe.lora.save", remedy='save = "merged"')
