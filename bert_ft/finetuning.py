"""finetune(): task + checkpoint + recipe -> run, the whole trip from top to bottom."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ft import adapters, data, environment, pretrained, remote_code, rundir, saving, weights
from bert_ft.data import checks, given
from bert_ft.errors import InputError, did_you_mean, machine
from bert_ft.folds import cross_validate
from bert_ft.report import page, scored
from bert_ft.run import Run
from bert_ft.rundir import RunDir
from bert_ft.task import Task, load_task


@dataclass
class Custom:
    """What a call brings that is not in the task: the user's own objects in place of ours, and what is kept and told."""

    adapter: type[adapters.Adapter] | None
    loss: Callable[[Any, Mapping[str, Any]], Any] | None
    metrics: Mapping[str, Any] | Sequence[Any]
    callbacks: Sequence[Any]
    model: Any
    tokenizer: Any
    log_with: Any
    save_every: int | str
    keep_checkpoints: bool
    save_model: bool
    signals: bool
    quiet: bool
    trust_remote_code: tuple[str, ...]

    def names(self) -> list[str]:
        """Which of them change what is trained: the run's task.toml alone can't repeat it."""
        given = {"adapter": self.adapter, "loss": self.loss, "metrics": self.metrics, "model": self.model}
        return [name for name, value in given.items() if value]

    def scorers(self) -> dict[str, Callable[[Any, Any], dict[str, float]]]:
        """Name -> function of (predictions, references) that gives metrics by name. A single one bears the name it was
        given, of several each its own."""

        def scorer(name: str, metric: Any) -> Callable[[Any, Any], dict[str, float]]:
            def score(predictions: Any, references: Any) -> dict[str, float]:
                compute = getattr(metric, "compute", None)
                value = metric(predictions, references) if compute is None else compute(
                    predictions=predictions, references=references)  # fmt: skip
                if not isinstance(value, Mapping) or (len(value) == 1 and isinstance(self.metrics, Mapping)):
                    value = {name: next(iter(value.values())) if isinstance(value, Mapping) else value}
                return {key: float("nan") if number is None else float(number) for key, number in value.items()}

            return score

        given = self.metrics if isinstance(self.metrics, Mapping) else {
            str(getattr(metric, "name", getattr(metric, "__name__", "custom"))): metric for metric in self.metrics}  # fmt: skip
        return {name: scorer(name, metric) for name, metric in given.items()}


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
    adapter: type[adapters.Adapter] | None = None,
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
        task: a built-in task ("sst2"), a TOML file, a `Task`, or a family ("classification") for data of one's own.
        checkpoint: hub id, folder, or an earlier run; the task's own by default.
        output: the run folder; `runs/<task>-<checkpoint>[-changed keys]-seed<k>` by default.
        overwrite: replaces a run that lies there.
        check: tells faults of the data, a line each, before training (`bert-ft check` tells more).
        data_dir: folder of the benchmark's original files.
        train, validation, test: a file, or rows (Dataset, pandas frame, dict of lists, list of dicts); validation and
            test also as a mapping of name -> one of these; validation also as a share of the training rows, "10%".
        folds: cross-validates over k folds of the training rows (stratified, or whole groups of `data.group`): k runs
            below one folder, whose own results are their mean and spread; no model is kept.
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
        trust_remote_code: names the checkpoint ("ORG/NAME", or "./FOLDER") whose own code may run, and any other repository
            that its code comes from. What a file says of it is not obeyed.
        settings: any other key of the task: `learning_rate=5e-5`, or `**{"data.validation": "10%"}`.
    Raises:
        InputError: whatever the user can mend, in one message; MachineError: a disk that can't be written.
    """
    began = time.perf_counter()
    base = load_task(task)
    custom = Custom(adapter, loss, metrics, callbacks, model, tokenizer, log_with, save_every, keep_checkpoints,
                    save_model, signals, quiet, remote_code.names(trust_remote_code))  # fmt: skip
    if not re.fullmatch(r"[1-9]\d*|\d+(\.\d+)?min", str(save_every)):
        remedy = "steps (500) or minutes (10min)"
        raise InputError(f"'{save_every}' is no interval", where="--save-every", remedy=remedy)
    sets = given.sets(train, validation, test, settings)
    task = given.bound(base, sets, settings, checkpoint=checkpoint, seed=seed, data_dir=data_dir, folds=folds,
                       custom=custom.names() or None)  # fmt: skip
    _check_best(task, custom)

    from bert_ft import progress

    show = progress.Display(quiet or not rundir.first_process())
    folder = RunDir(output if output is not None else Path("runs") / rundir.run_name(base, task, settings))
    if output is None and "IPython" in sys.modules and not overwrite:
        folder = rundir.numbered(folder, resume)
    if resume and overwrite:
        raise InputError("--resume goes on with the very run that --overwrite replaces", remedy="leave one of them out")
    if resume and folder.state not in ("unfinished", "finished"):
        remedy = "leave out --resume"
        raise InputError("there is no interrupted run to resume", where=str(folder.path), remedy=remedy)
    here = Path(task.run.checkpoint or "").expanduser()
    if task.run.checkpoint and here.exists() and folder.path.resolve() in (here.resolve(), *here.resolve().parents):
        raise InputError("the checkpoint lies in the run folder that is to be written", where=task.run.checkpoint,
                         remedy="choose another place with --output DIR")  # fmt: skip
    if model is not None and task.run.save_dtype != "float32":
        raise InputError("a model object has no file whose type could be taken", where="run.save_dtype",
                         remedy="leave it out: the model is saved in float32")  # fmt: skip
    for key in ("class_weights", "label_smoothing"):
        if loss is not None and getattr(task.recipe, key):
            raise InputError("a loss of your own does not know it", where=f"recipe.{key}", remedy="leave it out")
    family = custom.adapter or adapters.find(task.family)
    if task.run.folds is not None:
        if model is not None or sets.keys() - {"train"}:
            what = "a model object" if model is not None else "a validation or test set"
            raise InputError(f"folds are held out of the training rows, each with a fresh model: {what} can't be given too",
                             where="folds", remedy="leave one of them out")  # fmt: skip
        objects = given.objects(sets)

        def fold(part: Task, path: Path) -> Run:
            same = vars(custom) | {"save_model": False, "overwrite": overwrite, "check": check}
            return finetune(part, output=path, train=objects.get("train"), **same)

        return cross_validate(task, family, objects, folder, fold, overwrite=overwrite, show=show)
    splits = data.load(task, family, given.objects(sets))
    adapter_ = family(task, family.find_labels(splits.train, task))
    for name, rows in splits.all().items():
        adapter_.check(name, rows)
    fingerprint = splits.fingerprint()  # of all the rows: what evaluate() reads again
    splits.train = data.limit(splits.train, task.data.limit_train, task.run.seed)
    adapter_.prepare(splits.train)
    task = task.override({"data.labels": adapter_.labels or None})
    adapter_.task = task

    identity = {"data": fingerprint, "checkpoint": pretrained.fingerprint(task.run.checkpoint)}
    with folder.lock():
        if rundir.is_finished(folder, task, identity, overwrite):
            show.say(f"{folder.path} is finished already: nothing to do (--overwrite trains it again)")
            return Run(folder.path)
        if overwrite and rundir.first_process():
            folder.clear("checkpoints")
        if check and rundir.first_process():
            splits.notes += checks.lines(checks.of_rows(adapter_, splits.all()))
        with machine():
            return _train(task, adapter_, splits, folder, identity, custom, began)


def _train(
    task: Task, adapter: adapters.Adapter, splits: data.Splits, folder: RunDir, identity: dict[str, str | None],
    custom: Custom, began: float,
) -> Run:  # fmt: skip
    from accelerate.utils import set_seed

    from bert_ft import model as models
    from bert_ft import progress
    from bert_ft.engine import training
    from bert_ft.engine.checkpoints import Checkpoints

    model, notes = models.build(task, adapter, task.recipe.precision, network=custom.model, tokenizer=custom.tokenizer,
                                log_with=custom.log_with, folder=folder.path,
                                texts=checks.first_texts(splits.train, adapter.texts),
                                trusted=custom.trust_remote_code)  # fmt: skip
    model.scorers = list(custom.scorers().values())
    if custom.loss is not None:
        adapter.loss = custom.loss  # type: ignore[method-assign, assignment]
    accelerator = model.accelerator
    main = accelerator.is_main_process
    show = progress.Display(custom.quiet or not main)
    store = Checkpoints(folder.checkpoints, str(custom.save_every), accelerator, folder.log_size, show.say,
                        task.recipe.keep == "best")  # fmt: skip
    if main:
        now = environment.describe(accelerator, identity, pretrained.commit(task.run), task.run.seed)
        now["trusted_remote_code"] = list(custom.trust_remote_code)
        found = store.newest() if folder.state == "unfinished" else None
        folder.start(task, now) if found is None else folder.resume(task, found[1]["log"], now)
    accelerator.wait_for_everyone()
    show.say(f"{task.title or task.name}  ·  {task.run.checkpoint}  ·  {environment.device_line(accelerator)}", "bold")
    notes = splits.notes + remote_code.notes(task.run) + notes
    for note in notes:
        show.say(note)
    features = model.encode(splits.train)
    blocks = {name: list(model.blocks(rows)) for name, rows in {**splits.evaluation, **splits.test}.items()}
    counts = {"train": features.counts}
    for name, parts in blocks.items():
        counts[name] = {key: sum(part.counts[key] for _, part in parts) for key in parts[0][1].counts}
    for name, counted in counts.items():
        show.say(progress.count_line(name, counted, task.recipe.max_length))
        if unread := progress.unread(name, counted):
            show.say(unread, "yellow")
            notes.append(unread)
    if adapter.labels:
        kinds = "/".join(sorted({type(label).__name__ for label in adapter.labels}))
        names = ", ".join(adapter.names[:20]) + " ..." * (len(adapter.names) > 20)
        show.say(f"{len(adapter.labels)} labels ({kinds}): {names}")

    size = sum(p.numel() * p.element_size() for p in model.network.parameters()) / 2**20
    stays = size * custom.save_model
    show.say(f"disk: up to {8 * size + stays:,.0f} MB while training, {stays:,.0f} MB after")

    chosen_by, latest, inference = task.best_metric[0], dict[str, Any](), {"rows": 0, "seconds": 1e-9}

    def inferred(sets: Mapping[str, data.Rows]) -> Iterator[tuple[str, data.Rows, dict[str, Any]]]:
        """Predictions set by set; first comes the one that thresholds are tuned on, which hold for all. What the weights
        as they are have predicted already is not computed again."""
        for name in sorted(sets, key=lambda name: name != chosen_by):
            if name not in latest:
                start = time.perf_counter()
                latest[name] = model.infer(sets[name], blocks[name])
                inference["seconds"] += time.perf_counter() - start
                inference["rows"] += len(sets[name])
                if name == chosen_by:
                    adapter.tune(latest[name], sets[name])
            yield name, sets[name], latest[name]

    def evaluate(network: Any) -> training.Metrics:
        metrics = {}
        latest.clear()
        for name, rows, predictions in inferred(splits.evaluation):
            metrics[name] = model.score(predictions, rows)
            for warning in adapter.warnings(predictions, rows):
                show.say(f"{name}: {warning}", "yellow")
        return {name: metrics[name] for name in splits.evaluation}

    def log(entry: dict[str, Any]) -> None:
        if "out_of_memory" in entry:
            show.say(f"step {entry['step']}: out of memory; {entry['out_of_memory']}, the batch size stays")
        if main:
            folder.append_log({**entry, "seconds": round(time.perf_counter() - began, 3)})
        if custom.log_with is not None:
            flat = {f"{n}/{k}": v for n, values in entry.get("evaluation", {}).items() for k, v in values.items()}
            accelerator.log({k: v for k, v in entry.items() if isinstance(v, (int, float))} | flat, step=entry["step"])

    if custom.log_with is not None:
        plain = {k: v for k, v in task.recipe.model_dump().items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("bert-ft", plain)
    set_seed(task.run.seed, device_specific=True)  # dropout draws from here on
    with store.signals(custom.signals):
        state = training.train(
            model.network, adapter, features, task, accelerator, pad=model.tokenizer.pad_token_id,
            evaluate=evaluate, log=log, checkpoints=store, callbacks=[show, *custom.callbacks],
            sharing=model.sharing,
        )  # fmt: skip
    if custom.callbacks:  # one may have changed the weights
        latest.clear()
    if told := progress.stalled([line["loss"] for line in folder.log() if "loss" in line]):
        show.say(told, "yellow")
        notes.append(told)
    if task.recipe.keep == "best" and state.best_step != state.step:
        store.load_best(model.network, state.best_step)
        latest.clear()
        show.say(f"the weights of step {state.best_step} are kept: the best {task.best_metric[1]}")
    if dtype := pretrained.save_dtype(
        task.run, custom.trust_remote_code
    ):  # what is scored below is what the saved model gives
        weights.rounded(model.network, dtype)
        latest.clear()
    final: dict[str, dict[str, float]] = {}
    for name, rows, predictions in inferred({**splits.evaluation, **splits.test}):
        final[name] = model.score(predictions, rows)
        notes += [f"{name}: {warning}" for warning in adapter.warnings(predictions, rows)]
        if main:
            rundir.write_jsonl(folder.prediction_file(name), adapter.lines(predictions, rows))
            if final[name]:
                scored.keep(folder, name, rows.table)
            for suffix, value in adapter.files(predictions, rows).items():
                rundir.write_json(folder.predictions / f"{name}{suffix}.json", value)
    if custom.log_with is not None:
        accelerator.end_training()
    model.network = accelerator.unwrap_model(model.network, keep_fp32_wrapper=False)
    model.describe()
    whole = store.whole(model.network) if custom.save_model else None
    if main:
        if custom.model is not None and model.unpadding is not None:
            model.unpadding.remove()  # the user's own model leaves as it came
        if custom.save_model:
            saving.save_model(folder.model, model.network, model.tokenizer, whole, dtype)
        results = {
            "task": task.name, "family": task.family, "checkpoint": task.run.checkpoint, "seed": task.run.seed,
            "recipe": task.recipe.model_dump(exclude=task.recipe.SPACES),
            "metrics": {name: final[name] for name in blocks if final[name]},
            "counts": counts,
            "best_step": state.best_step if task.recipe.keep == "best" else state.step, "steps": state.step,
            "micro_batches": state.micro_batches,
            "timing": {
                "train_seconds": round(state.seconds, 3),
                "train_samples_per_second": round(state.rows / state.seconds, 2),
                "eval_samples_per_second": round(inference["rows"] / inference["seconds"], 2),
                "first_step_seconds": round((state.first_step or began) - began, 3),
            },
            "tuned": adapter.tuned, "notes": notes,
            "version": environment.version("bert-ft"),
        }  # fmt: skip
        page.leave(folder, results, show.say)
        if not custom.keep_checkpoints:
            folder.clear("checkpoints")
        rundir.write_json(folder.results_json, results)
    accelerator.wait_for_everyone()
    run = Run(folder.path)
    run.__dict__["model"] = model  # it is loaded already
    return run


def _check_best(task: Task, custom: Custom) -> None:
    best, names = task.best_metric[1], [*task.metric.compute, *custom.scorers()]
    if best not in names:
        raise InputError(f"metric.best = '{best}' is not computed", remedy=did_you_mean(best, names))
