"""From a task or a saved folder to a model that is ready to train or to answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_ft import families
from bert_ft.config.task import Task
from bert_ft.engine.accelerator import accelerator
from bert_ft.errors import InputError
from bert_ft.families.base import Adapter
from bert_ft.modeling import pretrained, token_types, vocabulary
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
) -> tuple[Model, list[str]]:
    """Loads the task's checkpoint under its adapter; gives also what the user should know about the weights
    and the tokenizer, which is tried on `texts`. To `fit`, rows are as long as the checkpoint has positions
    for; otherwise a length beyond that is refused. `trusted` is what this call names to run code from
    (`remote_code.names`); `stored`: the model computes in the type of the file's numbers, not in float32."""
    import torch
    from accelerate.utils import set_seed

    from bert_ft.engine import sharing
    from bert_ft.kernels import cpu, padding_free
    from bert_ft.modeling import requirements

    cpu.keep_freed(False)
    device = accelerator(precision, log_with, folder)
    set_seed(task.run.seed)  # before the model: the new head comes from the seed
    notes, of_tokenizer = list[str](), list[str]()
    checkpoint = task.run.checkpoint
    if tokenizer is None:
        if checkpoint is None:
            raise InputError(
                "no checkpoint", remedy="name one: --checkpoint ORG/NAME, a folder, or an earlier run"
            )
        tokenizer, of_tokenizer = vocabulary.load(task.run, checkpoint, texts, trusted)
    if network is None:
        assert checkpoint is not None
        network, notes = pretrained.load_model(task.run, checkpoint, adapter, trusted, stored)
    else:
        notes = pretrained.bind_head(network, adapter)
    notes = [
        *of_tokenizer,
        *token_types.set_types(tokenizer, network, pairs=sum(adapter.inputs.values()) > 1),
        *notes,
    ]
    if (known := requirements.positions(network)) is not None and fit:
        adapter.task = task = task.override({"recipe.max_length": min(known, task.recipe.max_length)})
    if known is not None and task.recipe.max_length > known:
        message = f"max_length = {task.recipe.max_length}, but the checkpoint has {known} positions"
        remedy = f"--set max_length={known}, or a checkpoint for longer texts"
        raise InputError(message, where="recipe.max_length", remedy=remedy)
    if (known := sharing.vocabulary(network)) is not None and len(tokenizer) > known:
        message = f"the tokenizer has {len(tokenizer):,} tokens, the model embeddings for {known:,}"
        raise InputError(
            message, where=str(checkpoint), remedy="put the checkpoint's own tokenizer beside its weights"
        )
    if tokenizer.pad_token_id is None:
        remedy = "name one in its tokenizer_config.json: pad_token, a token that no text has"
        raise InputError("the tokenizer has no padding token", where=str(checkpoint), remedy=remedy)
    rule, told = requirements.settle(network, tokenizer, task.recipe.max_length)
    notes = [*notes, *told]
    if task.batching.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    network.to(device.device)
    model = Model(adapter, network, tokenizer, device)
    reason = "padded: batching.unpad = false"
    if task.batching.unpad:
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        model.unpadding = padding_free.unpad(network, halves.get(device.mixed_precision))
        reason = model.unpadding.reason
    model.sharing, told = sharing.find(network, adapter, tokenizer, task.recipe.max_length, rule)
    return model, [*notes, reason, *told]


def load_folder(
    folder: str, task: Task | None = None, trusted: Sequence[str] = (), stored: bool = False
) -> Model:
    """A saved model, with what its config says about family, labels and length (or with a task's own);
    `trusted` and `stored` as for `build`."""
    # without padding hardly a shape comes twice: oneDNN's own 1,024 kept kernels would be 150 MB and no
    # faster; training does meet them again, in each layer and backwards
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    where = pretrained.locate(folder)
    config = pretrained.load_config(where, trusted=trusted)
    fit, task = task is None, task or task_of(config, where, trusted)
    labels: list[Any] = task.data.labels or []
    if not labels and families.find(task.family).has_labels(task):
        labels = labels_of(config, where)
    adapter = families.find(task.family)(task, labels)
    adapter.tuned = tuned_of(config, where)
    bound = task.override({"run.checkpoint": where})
    model, notes = build(bound, adapter, task.recipe.precision, fit=fit, trusted=trusted, stored=stored)
    if any(note.startswith("new weights") for note in notes):
        raise InputError(
            "this checkpoint has no trained head for the task: " + "; ".join(notes),
            where=where,
            remedy="fine-tune it first: bert-ft train",
        )
    model.notes = passed_over(config)
    return model


def load_unfinished(folder: RunDir, trusted: Sequence[str] = ()) -> Model:
    """The model of a run that was interrupted: its best weights so far, or those of its newest checkpoint;
    `trusted` as for `build`."""
    from safetensors.torch import load_file

    kept = [
        *folder.checkpoints.glob("best-*.safetensors"),
        *folder.checkpoints.glob("step-*[0-9]/state.safetensors"),
    ]
    if not kept:
        raise InputError(
            "this run was interrupted before it kept any weights",
            where=str(folder.path),
            remedy="finish it: the same command or call goes on with it",
        )
    task = folder.task()
    adapter = families.find(task.family)(task, task.data.labels or [])
    model, _ = build(task, adapter, task.recipe.precision, trusted=trusted)
    best = max(kept, key=lambda file: (file.stem.startswith("best"), file.stat().st_mtime))
    with pretrained.told(str(best)):
        whole = load_file(best)
    model.network.load_state_dict(
        {
            name.removeprefix("model."): tensor
            for name, tensor in whole.items()
            if best.stem != "state" or name.startswith("model.")
        }
    )
    return model
