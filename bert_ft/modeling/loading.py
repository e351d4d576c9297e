"""From a task or a saved folder to a model that is ready to train or to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import families
from bert_ft.config.task import Task
from bert_ft.engine import lora, partial
from bert_ft.engine.accelerator import accelerator
from bert_ft.engine.last_linear import LastLinear
from bert_ft.engine.surroundings import own_random
from bert_ft.errors import InputError
from bert_ft.families.base import Adapter
from bert_ft.modeling import mean_layer, pretrained, token_types, vocabulary
from bert_ft.modeling.encoder import evaluate_only
from bert_ft.modeling.loading_errors import loading_errors
from bert_ft.modeling.model import Model
from bert_ft.modeling.saved_task import labels_of, passed_over, task_of, tuned_of
from bert_ft.rundir.folder import RunDir


def build(
    task: Task,
    adapter: Adapter,
    precision: str,
    *,
    network: Any = None,
    tokenizer: Any = None,
    log_with: Any = None,
    folder: Path | None = None,
    fit: bool = False,
    texts: Sequence[str] = (),
    trusted: Sequence[str] = (),
    stored: bool = False,
    training: bool = False,
    steps: bool = False,
) -> tuple[Model, list[str]]:
    """Loads the task's checkpoint under its adapter.

    Args:
        fit: rows are cut to as many tokens as the checkpoint has positions for; otherwise a `max_length`
            beyond that is refused.
        texts: those that the tokenizer is tried on.
        trusted: what this call names to run code from, as `remote_code.names` returns it.
        stored: the model computes in the type of the file's numbers, not in float32.
        training: the checkpoint is that which a run starts from, not what one has left.
        steps: steps of a training follow.
    Returns:
        The model, and what the user should know about its weights and its tokenizer.
    Raises:
        InputError: a checkpoint, tokenizer or length that do not fit each other or the task.
    """
    from accelerate.utils import set_seed

    from bert_ft.kernels import cpu
    from bert_ft.modeling import requirements

    cpu.keep_freed(False)
    cpu.few_kernels(32)
    device = accelerator(precision, log_with, folder, steps and task.recipe.method != "features")
    set_seed(task.run.seed)  # before the model: the new head comes from the seed
    notes: list[str] = []
    of_tokenizer: list[str] = []
    new = frozenset[str]()
    checkpoint = task.run.checkpoint
    if tokenizer is None:
        if checkpoint is None:
            raise InputError(
                "no checkpoint", remedy="name one: --checkpoint ORG/NAME, a folder, or an earlier run"
            )
        tokenizer, of_tokenizer = vocabulary.load(task.run, checkpoint, texts, trusted)
    if network is None:
        assert checkpoint is not None
        network, notes, new = pretrained.load_model(task.run, checkpoint, adapter, trusted, stored)
    else:
        notes = pretrained.bind_head(network, adapter)
    notes = [
        *of_tokenizer,
        *token_types.set_types(tokenizer, network, pairs=sum(adapter.inputs.values()) > 1),
        *notes,
    ]
    if (known := requirements.positions(network)) is not None and fit:
        task = task.override({"recipe.max_length": min(known, task.recipe.max_length)})
        adapter = adapter.rebound(task)
    if known is not None and task.recipe.max_length > known:
        message = f"max_length = {task.recipe.max_length}, but the checkpoint has {known} positions"
        remedy = f"use --set max_length={known}, or a checkpoint for longer texts"
        raise InputError(message, where="recipe.max_length", remedy=remedy)
    if training and task.recipe.method != "fine-tuning":
        notes = [*notes, *mean_layer.add(network, adapter)]
    if training and mean_layer.is_in(network) and LastLinear(network, adapter).per_token:
        notes = [*notes, *mean_layer.drop(network)]
    if task.batching.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    model = Model(network, tokenizer, device, task.recipe.max_length, adapter=adapter, new=new)
    batching = task.batching
    notes += model.settle(adapter, batching.unpad, batching.first_token, where=str(checkpoint))
    return model, notes


@own_random()
def load_folder(
    folder: str,
    task: Task | None = None,
    trusted: Sequence[str] = (),
    stored: bool = False,
    settings: Mapping[str, Any] | None = None,
    int8: bool = False,
) -> Model:
    """A saved model, with what its config says about family, labels and length (or with a task's own);
    `trusted` and `stored` as for `build`, `settings` are keys of the task that hold for this model alone,
    `int8` as for `in_int8`."""
    evaluate_only()
    where = pretrained.locate(folder)
    config = pretrained.load_config(where, trusted=trusted)
    fit = task is None
    task = task or task_of(config, where)
    if settings:
        task = task.override(dict(settings))
    labels: list[Any] = task.data.labels or []
    if not labels and families.find(task.family).has_labels(task):
        labels = labels_of(config, where)
    adapter = families.find(task.family)(task, labels, tuned_of(config, where))
    adapter = pretrained.in_order_of(adapter, config)
    bound = _in_float32(task.override({"run.checkpoint": where}), int8)
    bound, without_gpu = _as_can_be(bound)
    model, notes = build(bound, adapter, bound.recipe.precision, fit=fit, trusted=trusted, stored=stored)
    untrained = [note for note in notes if note.startswith(("new weights", "the head is replaced"))]
    if any(note.startswith("new weights") for note in untrained):
        raise InputError(
            "this checkpoint has no trained head for the task, so its answers would be random: "
            + "; ".join(untrained),
            where=where,
            remedy=f"fine-tune it first: bert-ft train TASK --checkpoint {where}; then load the run",
        )
    model.notes = [*passed_over(config), *without_gpu]
    return in_int8(model) if int8 else model


def in_int8(model: Model) -> Model:
    """The model itself, whose linear layers compute in 8 bits from now on; a note says so.

    Raises:
        InputError: it is not on a CPU or can't have such layers.
    """
    from bert_ft.kernels import int8

    model.notes = [*model.notes, int8.quantize(model.network)]
    return model


def _in_float32(task: Task, requested: bool) -> Task:
    """The task with float32 around layers of 8 bits, where these are requested."""
    return task.override({"recipe.precision": "fp32"}) if requested else task


def _as_can_be(task: Task) -> tuple[Task, list[str]]:
    """The task of a trained model with answers in float32 where fp16 can't be had, and a note of that."""
    import torch

    if task.recipe.precision != "fp16" or torch.cuda.is_available():
        return task, []
    note = "trained in fp16, answers in fp32: there is no CUDA device"
    return task.override({"recipe.precision": "fp32"}), [note]


@own_random()
def load_unfinished(folder: RunDir, task: Task, trusted: Sequence[str] = (), int8: bool = False) -> Model:
    """The model of a run that was interrupted: its best weights so far, or those of its newest checkpoint.
    `task` is the run's, as far as the call leaves it; `trusted` as for `build`, `int8` as for `in_int8`."""
    from safetensors.torch import load_file

    saved = [
        *folder.checkpoints.glob("best-*.safetensors"),
        *folder.checkpoints.glob("step-*[0-9]/state.safetensors"),
    ]
    if not saved:
        raise InputError(
            "this run was interrupted before it saved any weights",
            where=str(folder.path),
            remedy="finish it: run the same command or call again",
        )
    task, without_gpu = _as_can_be(_in_float32(task, int8))
    adapter = families.find(task.family)(task, task.data.labels or [])
    adapter = pretrained.in_order_of_checkpoint(adapter, task.run, trusted)
    model, _ = build(task, adapter, task.recipe.precision, trusted=trusted, training=True)
    partial.fit(model.network, task.recipe, model.new)  # the names of its weights follow from the recipe
    best = max(saved, key=lambda file: (file.stem.startswith("best"), file.stat().st_mtime))
    with loading_errors(str(best)):
        whole = load_file(best)
    model.network.load_state_dict(
        {
            name.removeprefix("model."): tensor
            for name, tensor in whole.items()
            if best.stem != "state" or name.startswith("model.")
        }
    )
    lora.remove(model.network, merge=True)
    model.notes = [*model.notes, *without_gpu]
    return in_int8(model) if int8 else model
