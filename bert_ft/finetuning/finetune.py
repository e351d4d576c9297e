"""finetune(): task + checkpoint + recipe -> run, the whole trip from top to bottom."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import families, files
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.data import loading, overrides, splitting
from bert_ft.data.checks import findings, texts
from bert_ft.errors import InputError, machine
from bert_ft.finetuning.cross_validation import cross_validate
from bert_ft.finetuning.experiment import Custom, check_best
from bert_ft.finetuning.train_run import train_run
from bert_ft.modeling import pretrained, remote_code
from bert_ft.run import Run
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir, is_finished


def finetune(
    task: str | Path | Task,
    checkpoint: str | Path | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    check: bool = True,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    folds: int | None = None,
    adapter: type[families.Adapter] | None = None,
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    metrics: Mapping[str, Any] | Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    model: Any = None,
    tokenizer: Any = None,
    log_with: Any = None,
    resume: bool = False,
    save_every: int | str = "10min",
    keep_checkpoints: bool = False,
    save_model: bool = True,
    signals: bool = False,
    quiet: bool = False,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> Run:
    """Fine-tunes a checkpoint on a task and gives the finished run.

    Args:
        task: a built-in task ("sst2"), a TOML file, a `Task`, or a family ("classification") for data of
            one's own.
        checkpoint: hub id, folder, or an earlier run; the task's own by default.
        output: the run folder; `runs/<task>-<checkpoint>[-changed keys]-seed<k>` by default.
        overwrite: replaces a run that lies there.
        check: tells faults of the data, a line each, before training (`bert-ft check` tells more).
        data_dir: folder of the benchmark's original files.
        train, validation, test: a file, or rows (Dataset, pandas frame, dict of lists, list of dicts);
            validation and test also as a mapping of name -> one of these; validation also as a share of the
            training rows, "10%".
        folds: cross-validates over k folds of the training rows (stratified, or whole groups of
            `data.group`): k runs below one folder, whose own results are their mean and spread; no model is
            kept.
        adapter: an `Adapter` subclass in place of the family's.
        loss: `loss(logits, batch) -> (B,)` losses a row, or their mean; `batch["labels"]` are the labels.
        metrics: name -> `f(predictions, references)`, or `evaluate.Metric` objects; beside the task's.
        callbacks: `bert_ft.Callback` objects.
        model: a `transformers` model with the head already on it, in place of the checkpoint's weights.
        log_with: trackers for `accelerate.Accelerator(log_with=...)`: "tensorboard", "wandb", ...
        resume: insists that an interrupted run lies there; without it one is resumed where there is one.
        save_every: steps, or minutes ("10min"), between two checkpoints of the training's state.
        keep_checkpoints: keeps them when the run succeeds.
        save_model: False leaves `model/` out: for suites of which only the numbers are wanted.
        signals: SIGINT and SIGTERM save the state and leave; the command line's way.
        trust_remote_code: names the checkpoint ("ORG/NAME", or "./FOLDER") whose own code may run, and any
            other repository that its code comes from. What a file says of it is not obeyed.
        settings: any other key of the task: `learning_rate=5e-5`, or `**{"data.validation": "10%"}`.
    Raises:
        InputError: whatever the user can mend, in one message; MachineError: a disk that can't be written.
    """
    began = time.perf_counter()
    base = load_task(task)
    custom = Custom(
        adapter,
        loss,
        metrics,
        callbacks,
        model,
        tokenizer,
        log_with,
        save_every,
        keep_checkpoints,
        save_model,
        signals,
        quiet,
        remote_code.names(trust_remote_code),
    )
    if not re.fullmatch(r"[1-9]\d*|\d+(\.\d+)?min", str(save_every)):
        remedy = "steps (500) or minutes (10min)"
        raise InputError(f"'{save_every}' is no interval", where="--save-every", remedy=remedy)
    sets = overrides.sets(train, validation, test, settings)
    task = overrides.bound(
        base,
        sets,
        settings,
        checkpoint=checkpoint,
        seed=seed,
        data_dir=data_dir,
        folds=folds,
        custom=custom.names() or None,
    )
    check_best(task, custom)

    from bert_ft import display

    show = display.Display(quiet or not files.first_process())
    folder = RunDir(output if output is not None else Path("runs") / naming.run_name(base, task, settings))
    if output is None and "IPython" in sys.modules and not overwrite:
        folder = naming.numbered(folder, resume)
    if resume and overwrite:
        raise InputError(
            "--resume goes on with the very run that --overwrite replaces", remedy="leave one of them out"
        )
    if resume and folder.state not in ("unfinished", "finished"):
        remedy = "leave out --resume"
        raise InputError("there is no interrupted run to resume", where=str(folder.path), remedy=remedy)
    here = Path(task.run.checkpoint or "").expanduser()
    if (
        task.run.checkpoint
        and here.exists()
        and folder.path.resolve() in (here.resolve(), *here.resolve().parents)
    ):
        raise InputError(
            "the checkpoint lies in the run folder that is to be written",
            where=task.run.checkpoint,
            remedy="choose another place with --output DIR",
        )
    if model is not None and task.run.save_dtype != "float32":
        raise InputError(
            "a model object has no file whose type could be taken",
            where="run.save_dtype",
            remedy="leave it out: the model is saved in float32",
        )
    for key in ("class_weights", "label_smoothing"):
        if loss is not None and getattr(task.recipe, key):
            raise InputError(
                "a loss of your own does not know it", where=f"recipe.{key}", remedy="leave it out"
            )
    family = custom.adapter or families.find(task.family)
    if task.run.folds is not None:
        if model is not None or sets.keys() - {"train"}:
            what = "a model object" if model is not None else "a validation or test set"
            raise InputError(
                f"folds are held out of the training rows, each with a fresh model: {what} can't be given "
                "too",
                where="folds",
                remedy="leave one of them out",
            )
        objects = overrides.objects(sets)

        def fold(part: Task, path: Path) -> Run:
            same = vars(custom) | {"save_model": False, "overwrite": overwrite, "check": check}
            return finetune(part, output=path, train=objects.get("train"), **same)

        return cross_validate(task, family, objects, folder, fold, overwrite=overwrite, show=show)
    splits = loading.load(task, family, overrides.objects(sets))
    adapter_ = family(task, family.find_labels(splits.train, task))
    for name, rows in splits.all().items():
        adapter_.check(name, rows)
    fingerprint = splits.fingerprint()  # of all the rows: what evaluate() reads again
    splits.train = splitting.limit(splits.train, task.data.limit_train, task.run.seed)
    adapter_.prepare(splits.train)
    task = task.override({"data.labels": adapter_.labels or None})
    adapter_.task = task

    identity = {"data": fingerprint, "checkpoint": pretrained.fingerprint(task.run.checkpoint)}
    with folder.lock():
        if is_finished(folder, task, identity, overwrite):
            show.say(f"{folder.path} is finished already: nothing to do (--overwrite trains it again)")
            return Run(folder.path)
        if overwrite and files.first_process():
            folder.clear("checkpoints")
        if check and files.first_process():
            splits.notes += findings.lines(texts.of_rows(adapter_, splits.all()))
        with machine():
            return train_run(task, adapter_, splits, folder, identity, custom, began)
