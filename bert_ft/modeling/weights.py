"""What becomes of a checkpoint's tensors: which are the head's, which have no place, in which type they are
stored."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError

TASK_HEADS = (
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "MultipleChoice",
    "NextSentencePrediction",
)
HARMLESS = re.compile(r"(^|\.)(pooler|position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias)(\.|$)")
"""Tensors that other heads use, and buffers that are computed anew."""
SHOWN = 8  # names in a line
HEADER = 100_000_000  # bytes: safetensors' own bound


def task_head(architecture: str) -> str | None:
    """Which task an architecture's head is for ("SequenceClassification"); None for a bare or a pretraining
    model."""
    name = architecture.removesuffix("Simple")  # XLM's and FlauBERT's plain head for answers
    return next((head for head in TASK_HEADS if name.endswith(head)), None)


def head_names(model: Any) -> list[str]:
    """The parameters of a model that are no part of its encoder, as the library's own headless class has
    them.

    The prefix of names is not enough: T5's model for question answering holds its stacks under no prefix at
    all.
    """
    import torch
    from transformers import AutoModel

    prefix = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    if any(name.startswith(prefix) for name in names):
        return [name for name in names if not name.startswith(prefix)]
    with torch.device("meta"):
        encoder = AutoModel.from_config(model.config)  # type: ignore[no-untyped-call]
    inside = {name for name, _ in encoder.named_parameters()}
    return [name for name in names if name not in inside]


def without_place(model: Any, unexpected: Iterable[str], architecture: str) -> tuple[list[str], list[str]]:
    """Of the tensors that a file has and a model has not: those that belong into its encoder, and the
    harmless ones.

    They belong into the encoder if they lie in a part that the encoder has as it was built: not in a
    pretraining head, nor in a decoder that this head leaves out. `architecture` is the class that saved the
    file: a headless one, or one of T5's, has the encoder's parts at the top, any other has them under the
    encoder's prefix.
    """
    base = model.base_model
    prefix = f"{model.base_model_prefix}."
    top = task_head(architecture) is None and not re.search(r"For[A-Z]|LMHead", architecture)
    inside: list[str] = []
    if base is model:
        top = True
        children = {name for name, _ in model.named_children()} - {
            name.partition(".")[0] for name in head_names(model)
        }
    else:
        children = {name for name, _ in base.named_children()}
    for name in unexpected:
        if name.startswith(prefix) or top:
            part = name.removeprefix(prefix).partition(".")[0]
            inside += [name] if part in {*children, "pooler"} else []
    harmless = [name for name in inside if HARMLESS.search(name)]
    return [name for name in inside if not HARMLESS.search(name)], harmless


def stored_dtype(folder: Path | None, config: Any) -> str | None:
    """The type that most of a checkpoint's numbers are stored in ("float16"), read from the heads of its
    safetensors files; of other files as the config says, None where it does not. A broken file is left to
    whoever loads it."""
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    counts: Counter[str] = Counter()
    for file in sorted(folder.glob("*.safetensors")) if folder is not None else ():
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError), file.open("rb") as stream:
            header = json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), HEADER)))
            for name, tensor in header.items():
                if name != "__metadata__" and tensor["dtype"] in names:
                    begin, end = tensor["data_offsets"]
                    counts[names[tensor["dtype"]]] += end - begin
    if counts:
        return counts.most_common(1)[0][0]
    dtype = getattr(config, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def digest(folder: Path) -> str | None:
    """sha256 of a folder's weight files; None where there are none."""
    files = (
        sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]) if folder.is_dir() else []
    )
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest() if files else None


def is_stored(dtype: str) -> bool:
    """Whether a model is to compute in the type its numbers are stored in: dtype="checkpoint"; not for
    "auto" (as its recipe's precision says), "float32", "bfloat16" (autocast over float32 weights) and "int8"
    (`kernels/int8.py`).

    Raises:
        InputError: any other name.
    """
    if dtype not in ("auto", "float32", "bfloat16", "checkpoint", "int8"):
        names = "auto, float32, bfloat16, int8 and checkpoint"
        message = f"'{dtype}' is none of {names} (the type of the file's numbers)"
        raise InputError(message, where="dtype", remedy='dtype="float32", or leave it out')
    return dtype == "checkpoint"


def settings(dtype: str) -> dict[str, str]:
    """The keys of a task that `dtype` stands for."""
    precision = {"float32": "fp32", "bfloat16": "bf16"}.get(dtype)
    return {} if precision is None else {"recipe.precision": precision}


def rounded(model: Any, dtype: str) -> None:
    """Rounds what is saved of a model, in place and kept in float32, to the numbers that another type has."""
    import torch

    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(getattr(torch, dtype)))


def listed(names: Sequence[str]) -> str:
    """Names in one line, at most `SHOWN` of them."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
