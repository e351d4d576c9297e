"""Checkpoints: a hub id, a folder or an earlier run becomes a model with the task's head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.config.schema import Label, RunSpec
from bert_ft.errors import InputError
from bert_ft.families.base import Adapter, problem_type
from bert_ft.modeling import adapted, remote_code, weights
from bert_ft.modeling.loading_errors import loading_errors


def locate(checkpoint: str) -> str:
    """The folder of a checkpoint (of a run: its model), or the hub id as it is."""
    path = reading.path(checkpoint, "the checkpoint")
    if (path / "task.toml").is_file() and not (path / "config.json").is_file():
        if not (path / "model").is_dir():
            remedy = "finish it, or name another checkpoint"
            raise InputError("this run has no model yet", where=checkpoint, remedy=remedy)
        return str(path / "model")
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise InputError("a checkpoint is a folder or a hub id, but this is a file", where=checkpoint)
    if checkpoint.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", checkpoint):
        remedy = "a checkpoint is a folder, a run or a hub id (org/name)"
        raise InputError("no such folder", where=checkpoint, remedy=remedy)
    return checkpoint


def fingerprint(checkpoint: str | None) -> str | None:
    """sha256 of a folder's weight files, and of those that its adapter changes; None for a hub id, whose
    commit the environment records once it is loaded."""
    if checkpoint is None:
        return None
    folder = locate(checkpoint)
    own = weights.digest(Path(folder))
    base = adapted.base_of(folder)
    return own if base is None else f"{own}, of {fingerprint(base[0])}"


def commit(run: RunSpec) -> str | None:
    """The hub's commit that a hub id was loaded from; None for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if run.checkpoint is None or Path(where := locate(run.checkpoint)).is_dir():
        return None
    file = try_to_load_from_cache(where, "config.json", revision=run.revision)
    return Path(file).parent.name if isinstance(file, str) else None


def load_config(where: str, revision: str = "main", trusted: Sequence[str] = ()) -> Any:
    """The config of a checkpoint (a folder or hub id); `trusted` is what `remote_code.names` returns for this
    call."""
    from transformers import AutoConfig

    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise InputError(
            "the folder has no config.json, so it is not a checkpoint",
            where=where,
            remedy="a checkpoint's folder has config.json, its weights and its tokenizer: copy them all",
        )
    with loading_errors(where):
        trust = remote_code.allowed(where, revision, trusted)
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=trust)
    # others may be programs that the hub serves
    if config._attn_implementation not in (None, "eager", "sdpa"):
        config._attn_implementation = None
    return config


def load_model(
    run: RunSpec, checkpoint: str, adapter: Adapter, trusted: Sequence[str] = (), stored: bool = False
) -> tuple[Any, list[str], frozenset[str]]:
    """The model with the head of the adapter's family, what the user should know about its weights, and the
    names of those that are new.

    Whatever of the checkpoint has a place in the model is kept, as `from_pretrained` keeps it. A task head
    that fits the task's labels by name is kept too, in the checkpoint's label order, which is the adapter's
    (`in_order_of`); a task head of another kind is initialised anew from torch's random state.

    Args:
        stored: computes in the type that the file's numbers have; in float32 otherwise, whatever the file
            has.
    Raises:
        InputError: the file lacks weights of the encoder, or has some that the model has no place for.
    """
    import torch
    import transformers

    where = locate(checkpoint)
    config = load_config(where, run.revision or "main", trusted)
    options: dict[str, Any] = {"revision": run.revision or "main"}
    auto = getattr(transformers, adapter.head)
    with loading_errors(where):
        options["trust_remote_code"] = remote_code.allowed(where, options["revision"], trusted)
        architecture = _architecture(config)
        kind = weights.task_head(architecture)
        keeps_head = _has_head(config, adapter) and _keeps_head(config, adapter)
        old_head = _head_of(config)
        dtype = weights.stored_dtype(_folder(where, run), config)
        config.update({"problem_type": None} | adapter.config())
        if adapter.task.recipe.dropout is not None:
            _set_dropout(config, adapter.task.recipe.dropout)
        options |= {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
        options["dtype"] = getattr(torch, dtype) if stored and dtype else torch.float32
        with adapted.plain(where, trusted) as source:
            model, info = auto.from_pretrained(source, **options)
    head = weights.head_names(model)
    new = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if encoder := [key for key in new if key not in head and "pooler" not in key]:
        lost = f"{len(encoder)} weights of the encoder; the first is {encoder[0]}"
        message = f"the checkpoint ({architecture}) lacks {lost}"
        raise InputError(message, where=where, remedy="use a BERT-like encoder")
    notes = _placed(model, info["unexpected_keys"], architecture, where)
    # of an unknown class's head that came whole nothing says what it is for
    unknown = not hasattr(transformers, architecture) and not set(head) & set(new)
    if not keeps_head and (kind is not None or unknown):
        _new_head(model, head)
        new = sorted({*new, *head})
        notes.append(
            f"the head is replaced, the encoder kept: the checkpoint's head ({architecture}) {old_head}"
        )
    if new:
        notes.append(f"new weights, not pretrained: {weights.listed(new)}")
    if dtype not in (None, "float32") and not stored:
        notes.append(f"the checkpoint's weights are stored in {dtype}; here they are float32")
    return model, notes, frozenset(new)


def _folder(where: str, run: RunSpec) -> Path | None:
    """The folder that a checkpoint's files lie in: its own, or that of its commit in the hub's cache."""
    if Path(where).is_dir():
        return Path(where)
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(where, "config.json", revision=run.revision)
    return Path(file).parent if isinstance(file, str) else None


def save_dtype(run: RunSpec, trusted: Sequence[str] = ()) -> str | None:
    """The type that a run's weights are saved in where it is not float32: that of the checkpoint's file, if
    asked for."""
    if run.save_dtype == "float32" or run.checkpoint is None:
        return None
    where = locate(run.checkpoint)
    config = load_config(where, run.revision or "main", trusted)
    dtype = weights.stored_dtype(_folder(where, run), config)
    return None if dtype == "float32" else dtype


def load_encoder(run: RunSpec, checkpoint: str, trusted: Sequence[str] = ()) -> tuple[Any, list[str]]:
    """The encoder of a checkpoint in float32, without any head (of a model with a decoder, the encoder
    alone), and what the user should know about its weights. Whatever head the checkpoint has is left out.

    Raises:
        InputError: the file lacks weights of the encoder, or has some that the model has no place for.
    """
    import torch
    from transformers import AutoModel

    where, revision = locate(checkpoint), run.revision or "main"
    config = load_config(where, revision, trusted)
    old = _architecture(config)
    # what is missing is drawn, and then refused or not used
    with loading_errors(where), torch.random.fork_rng(devices=[]), adapted.plain(where, trusted) as source:
        model, info = AutoModel.from_pretrained(
            source,
            config=config,
            revision=revision,
            trust_remote_code=remote_code.allowed(where, revision, trusted),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    network = without_decoder(model)
    parts = {id(parameter) for parameter in network.parameters()}
    own = {name for name, parameter in model.named_parameters() if id(parameter) in parts}
    fresh = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    if lacking := sorted(key for key in fresh & own if "pooler" not in key):
        message = f"the checkpoint ({old}) lacks {len(lacking)} weights of the encoder, {lacking[0]} first"
        raise InputError(message, where=where, remedy="is this an encoder of the BERT kind?")
    _placed(model, info["unexpected_keys"], old, where)
    dtype = weights.stored_dtype(_folder(where, run), config)
    notes = list[str]()
    if dtype not in (None, "float32"):
        notes.append(f"the checkpoint's weights are stored in {dtype}; here they are float32")
    return network, notes


def without_decoder(model: Any) -> Any:
    """The encoder of a headless model that has a decoder as well; any other as it is."""
    return model.get_encoder() if model.config.is_encoder_decoder and hasattr(model, "decoder") else model


def _placed(model: Any, unexpected: Iterable[str], old: str, where: str) -> list[str]:
    """Notes on the tensors that the model has no place for; refuses them where they are the encoder's."""
    lost, harmless = weights.without_place(model, unexpected, old)
    if lost:
        message = (
            f"the model has no place for {len(lost)} weights of the checkpoint ({old}): "
            f"{weights.listed(sorted(lost))}"
        )
        remedy = "config.json does not match the weights, or this version of transformers no longer uses them"
        raise InputError(message, where=where, remedy=remedy)
    return (
        [f"weights of the checkpoint that this head does not use: {weights.listed(sorted(harmless))}"]
        if harmless
        else []
    )


def bind_head(network: Any, adapter: Adapter) -> list[str]:
    """Names the logits of a model of the user's own: by its config's label names where they are the task's,
    else in the task's order; returns notes on what was done.

    Raises:
        InputError: a head of another size.
    """
    import torch

    config = network.config
    expected = adapter.config()
    notes: list[str] = []
    dtype = next(network.parameters()).dtype
    if dtype in (torch.float16, torch.bfloat16):
        network.float()
        notes.append(f"the model's weights were {dtype}; they are trained in float32".replace("torch.", ""))
    size = expected.get("num_labels", 0)
    if getattr(config, "num_labels", size) != size:
        raise InputError(
            f"the model's head has {config.num_labels} labels, but the task has {size}",
            where="model",
            remedy=f"from_pretrained(..., num_labels={size})",
        )
    config.problem_type = config.problem_type or expected.get("problem_type")
    if _keeps_head(config, adapter):
        return notes
    config.update(expected)
    return [*notes, "the model's own head is trained, with its labels in the order of the task"]


def _head_of(config: Any) -> str:
    """What the checkpoint's head is for, in words."""
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    kind = problem_type(config) if "SequenceClassification" in str(config.architectures) else ""
    labels = ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
    return " ".join(filter(None, ["is for", kind, f"of {labels}"]))


def in_order_of(adapter: Adapter, config: Any, own: bool = False) -> Adapter:
    """The adapter with its labels in the order of the head that a config describes; the adapter as it is
    where that head is not for its task. It must not be prepared yet: what it prepares may follow that order.

    Args:
        own: the config is that of the user's own model; where it names no problem type, it has the task's.
    """
    order = _head_order(config, adapter, own)
    if order is None or order == adapter.labels:
        return adapter
    return type(adapter)(adapter.task, order, adapter.tuned)


def in_order_of_checkpoint(adapter: Adapter, run: RunSpec, trusted: Sequence[str] = ()) -> Adapter:
    """As `in_order_of`, of the head of the checkpoint that a run starts from."""
    if run.checkpoint is None:
        return adapter
    config = load_config(locate(run.checkpoint), run.revision or "main", trusted)
    return in_order_of(adapter, config) if _has_head(config, adapter) else adapter


def _has_head(config: Any, adapter: Adapter) -> bool:
    """Whether a checkpoint may bring a head of the family's kind."""
    old = _architecture(config)
    return old == "?" or f"AutoModelFor{weights.task_head(old)}" == adapter.head


def _architecture(config: Any) -> str:
    return str(config.architectures[0]) if config.architectures else "?"


def _head_order(config: Any, adapter: Adapter, own: bool = False) -> list[Label] | None:
    """The adapter's labels in the order of the head that a config describes; None where that head is for
    another task."""
    needed = adapter.config()
    if needed.get("problem_type") is None and "id2label" not in needed:
        # a head for answers has one shape, whatever a config says of labels (BART's: three)
        return list(adapter.labels)
    if needed.get("num_labels", config.num_labels) != config.num_labels:
        return None
    kind = needed.get("problem_type")
    if kind is not None and kind != (config.problem_type or kind if own else problem_type(config)):
        return None
    if "id2label" not in needed:
        return list(adapter.labels)
    names = [config.id2label[i] for i in range(config.num_labels)]
    if set(names) != set(adapter.names):
        return None
    return [adapter.labels[adapter.names.index(name)] for name in names]


def _keeps_head(config: Any, adapter: Adapter) -> bool:
    """Whether the head that a config describes is for this task; the adapter has its labels in that head's
    order (`in_order_of`)."""
    order = _head_order(config, adapter)
    assert order is None or order == adapter.labels, "the labels are in another order than the head's"
    return order is not None


def _new_head(model: Any, names: list[str]) -> None:
    """Initialises the modules of these parameters as `transformers` would, in their order: the seed
    decides."""
    for module in dict.fromkeys(model.get_submodule(name.rpartition(".")[0]) for name in names):
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False
        module._is_hf_initialized = False
        model._init_weights(module)


def _set_dropout(config: Any, rate: float) -> None:
    for key in config.to_dict():
        if "dropout" in key and isinstance(getattr(config, key), (float, int, type(None))):
            setattr(config, key, rate)
