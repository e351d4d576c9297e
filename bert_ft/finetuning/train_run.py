"""One run, from its experiment to its folder: five values, and a function between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelerate.utils import set_seed

from bert_ft.config.task import Task
from bert_ft.data.checks import findings, texts
from bert_ft.display import Display, stalled, watching
from bert_ft.engine import lora, methods, partial
from bert_ft.engine.checkpoints import Checkpoints
from bert_ft.engine.surroundings import one_at_a_time
from bert_ft.errors import machine
from bert_ft.families.features import Features
from bert_ft.files import first_process
from bert_ft.finetuning.evaluator import Evaluator
from bert_ft.finetuning.experiment import Experiment
from bert_ft.finetuning.recorder import Recorder
from bert_ft.finetuning.results import Trained, complete, write_model, write_predictions, write_results
from bert_ft.modeling import contradictions, loading, pretrained, remote_code, scorers, weights
from bert_ft.modeling.model import Model
from bert_ft.prepared import Prepared
from bert_ft.run import Run
from bert_ft.rundir import environment
from bert_ft.rundir.folder import is_finished

AGAIN = 1000  # how far the seed of a second try lies from that of the first


def train_run(experiment: Experiment) -> Run:
    """Trains what an experiment asks for, unless this very run is finished already, and returns the run. Of
    several threads one trains at a time, the others wait."""
    folder = experiment.folder
    execution = experiment.execution
    prepared = experiment.prepare()
    with one_at_a_time(), folder.lock():
        identity = prepared.identity()
        if is_finished(folder, prepared.task, identity, execution.overwrite):
            finished(experiment)
            return Run(folder.path)
        if execution.overwrite and first_process():
            folder.clear("checkpoints")
        if first_process():
            of_rows = texts.of_rows(prepared.adapter, prepared.splits.all()) if execution.check else []
            lines = [*findings.lines(prepared.splits.findings), *findings.lines(of_rows)]
            prepared = replace(prepared, notes=(*prepared.notes, *lines))
        with machine(), watching(execution.quiet or not first_process()):
            for seed, last in _seeds(experiment, prepared):
                if (model := _tried(experiment, prepared, identity, seed, last)) is not None:
                    break
    return Run(folder.path, model=model)


def _tried(
    experiment: Experiment, prepared: Prepared, identity: dict[str, str | None], seed: int, last: bool
) -> Model | None:
    """The trained model; None where it collapsed and another try comes, for which its memory is free."""
    model, notes = build_model(experiment, prepared.seeded(seed))
    with partial.restored(model):
        notes += partial.fit(model.network, prepared.task.recipe, model.new)
        return model if _train_and_write(experiment, prepared, identity, model, notes, last) else None


def _seeds(experiment: Experiment, prepared: Prepared) -> list[tuple[int, bool]]:
    """The run's seed, and whether no other follows; and that of a second try, for the rare training on few
    rows that fails (Mosbach et al. 2021). Where the recipe is the user's own, what it comes to is theirs to
    see; callbacks see one training."""
    seed = prepared.task.run.seed
    objects = experiment.objects
    if not prepared.settled or objects.callbacks or objects.model is not None:
        return [(seed, True)]
    folder = experiment.folder
    resumed = folder.state == "unfinished" and not experiment.execution.overwrite
    second = resumed and folder.environment().get("seed") == seed + AGAIN
    return [(seed + AGAIN, True)] if second else [(seed, False), (seed + AGAIN, True)]


def finished(experiment: Experiment) -> None:
    """Shows that there is nothing to do, but to make the pages of a run that was ended before them."""
    folder = experiment.folder
    display = Display(experiment.execution.quiet or not first_process())
    if made := first_process() and not folder.report_html.is_file():
        complete(folder, folder.results(), experiment.execution.keep_checkpoints, display.say)
    what = "its pages are made" if made else "nothing to do"
    display.say(f"{folder.path} is finished already: {what} (--overwrite trains it again)")


def _train_and_write(
    experiment: Experiment,
    prepared: Prepared,
    identity: dict[str, str | None],
    model: Model,
    notes: Sequence[str],
    last: bool,
) -> bool:
    """Trains a model into the run's folder; returns whether that is the run's result. Unless it is the `last`
    try, a model whose predictions are all the same is not."""
    recorder = Recorder(experiment, prepared, model)
    checkpoints = start_folder(experiment, prepared.task, identity, recorder)
    for note in [*prepared.notes, *remote_code.notes(prepared.task.run), *notes]:
        recorder.note(note)
    seeds = prepared.task.run.seed, model.adapter.task.run.seed
    if seeds[0] != seeds[1]:
        message = f"the training with seed {seeds[0]} collapsed: this is a second one, with seed {seeds[1]}"
        recorder.note(message, "yellow")

    features = model.encode(prepared.splits.train)
    evaluator = Evaluator(model, prepared, recorder.say, experiment.folder)
    counts = {"train": features.counts, **evaluator.counts}
    recorder.describe(prepared, counts)
    of_training = model.adapter.encoded("train", prepared.splits.train, [features])
    for line in findings.lines([*of_training, *evaluator.findings]):
        recorder.note(line, "yellow")

    # on every process, since all of them compute its vectors
    if experiment.execution.baselines and (said := prepared.baselines.line(*prepared.task.best_metric)):
        recorder.say(said)
    trained = train(experiment, model, features, evaluator, recorder, checkpoints)

    if not last and evaluator.collapse() is not None:
        recorder.end_trackers()
        if recorder.main:
            experiment.folder.clear("checkpoints")
        model.accelerator.wait_for_everyone()
        return False
    metrics = write_predictions(experiment, evaluator, recorder)
    recorder.end_trackers()
    write_model(experiment, model, checkpoints, trained)
    if recorder.main:
        write_results(experiment, prepared, trained.state, metrics, counts, evaluator, recorder)
    model.accelerator.wait_for_everyone()
    model.accelerator.free_memory()  # of the optimizer's state, twice the weights: the run may be kept
    return True


def build_model(experiment: Experiment, prepared: Prepared) -> tuple[Model, list[str]]:
    """The model that is trained, and what the user should know about its weights and its tokenizer."""
    objects = experiment.objects
    model, notes = loading.build(
        prepared.task,
        prepared.adapter,
        experiment.folder.precision(prepared.task.recipe.precision, experiment.execution.overwrite),
        network=objects.model,
        tokenizer=objects.tokenizer,
        log_with=experiment.execution.log_with,
        folder=experiment.folder.path,
        texts=texts.first_texts(prepared.splits.train, prepared.adapter.texts),
        trusted=experiment.trusted,
        training=True,
        steps=True,
    )
    model.scorers = list(scorers.of(objects.metrics).values())
    contradictions.refuse_sharded(prepared.task, model.accelerator)
    return model, notes


def start_folder(
    experiment: Experiment, task: Task, identity: dict[str, str | None], recorder: Recorder
) -> Checkpoints:
    """Writes what is known before training, or takes the folder of an interrupted run back to its newest
    checkpoint; returns the store of the training's state."""
    folder = experiment.folder
    accelerator = recorder.accelerator
    checkpoints = Checkpoints(
        folder.checkpoints,
        str(experiment.execution.save_every),
        accelerator,
        folder.log_size,
        recorder.say,
        task.recipe.keep == "best",
    )
    if recorder.main:
        now = environment.describe(accelerator, identity, pretrained.commit(task.run), recorder.seed)
        now["trusted_remote_code"] = list(experiment.trusted)
        newest = checkpoints.newest() if folder.state == "unfinished" else None
        if newest is None:
            folder.start(task, now)
        else:
            folder.resume(task, newest[1]["log"], now)
    accelerator.wait_for_everyone()
    device = environment.device_line(accelerator)
    recorder.say(f"{task.title or task.name}  ·  {task.run.checkpoint}  ·  {device}", "bold")
    return checkpoints


def train(
    experiment: Experiment,
    model: Model,
    features: Features,
    evaluator: Evaluator,
    recorder: Recorder,
    checkpoints: Checkpoints,
) -> Trained:
    """Trains the model; it ends with the weights that the run keeps, in the type that they are saved in."""
    task = model.adapter.task
    callbacks = experiment.objects.callbacks
    recorder.start_trackers()
    set_seed(task.run.seed + model.accelerator.process_index)  # dropout draws from here on
    with checkpoints.signals(experiment.execution.signals):
        state = methods.train(
            model,
            features,
            evaluate=evaluator,
            log=recorder.log,
            checkpoints=checkpoints,
            callbacks=[recorder.display, *callbacks],
            loss=experiment.objects.loss,
        )
    if callbacks:  # one may have changed the weights
        evaluator.forget()
    losses = [line["loss"] for line in experiment.folder.log() if "loss" in line]
    if line := stalled(losses):
        recorder.note(line, "yellow")
    if task.recipe.keep == "best" and state.best_step != state.step:
        checkpoints.load_best(model.network, state.best_step)
        evaluator.forget()
        recorder.say(
            f"the weights of step {state.best_step} are kept: they have the best {task.best_metric[1]}"
        )
    change = None
    if task.recipe.lora is not None:  # what is scored from here on is what is saved
        change = lora.of(model.network) if task.recipe.saves_adapter else None
        lora.remove(model.network, merge=True)
        evaluator.forget()
    dtype = pretrained.save_dtype(task.run, experiment.trusted)
    if dtype is not None:  # what is scored from here on is what the saved model answers
        weights.rounded(model.network, dtype)
        evaluator.forget()
    return Trained(state, dtype, change)
