"""A trained model as a folder that `from_pretrained` of any version reads: weights, config, tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.errors import disk
from bert_ft.families import fast_tokenizer
from bert_ft.modeling import saved_format
from bert_ft.rundir import folder


def save_model(
    path: Path,
    model: Any,
    tokenizer: Any,
    weights: dict[str, Any] | None = None,
    dtype: str | None = None,
    instead: Callable[[Path], None] | None = None,
) -> None:
    """Writes `model/` as `from_pretrained` loads it: beside it first, then renamed. `weights` are those of a
    sharded model; `dtype` is the type they are written in, the model's own by default; `instead` writes
    something else than the whole weights, with the config."""
    with disk(path):
        if hasattr(model, "merge_and_unload"):  # LoRA: merged, it is a plain model that loads anywhere
            model = copy.deepcopy(model).merge_and_unload()
        files.clear(path, folder.FOLDERS["model"])
        with files.folder_beside(path) as temporary, quiet():
            if instead is not None:
                instead(temporary)
            else:
                model.save_pretrained(
                    temporary, state_dict=weights if dtype is None else _cast(model, weights, dtype)
                )
            if dtype is not None:  # it has written the type of the model that it was given
                previous = model.config.dtype
                model.config.dtype = dtype
                model.config.save_pretrained(temporary)
                model.config.dtype = previous
            saved_format.complete_config(temporary, model.config)
            _save_tokenizer(temporary, tokenizer)
            # safetensors writes for nobody but its user, whatever the umask says
            for file in temporary.iterdir():
                file.chmod((temporary / "config.json").stat().st_mode)


def save_beside(path: Path, model: Any, tokenizer: Any) -> None:
    """Writes what stands beside a model's weights, its config and its tokenizer, into a folder."""
    model.config.save_pretrained(path)
    saved_format.complete_config(path, model.config)
    _save_tokenizer(path, tokenizer)


def _cast(model: Any, weights: dict[str, Any] | None, dtype: str) -> dict[str, Any]:
    import torch

    tensors = model.state_dict() if weights is None else weights
    kind = getattr(torch, dtype)
    return {
        name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def _save_tokenizer(path: Path, tokenizer: Any) -> None:
    """A tokenizer's files as every version of `transformers` reads them, without padding or truncation of
    their own."""
    with fast_tokenizer.whole(tokenizer):
        tokenizer.save_pretrained(path)
    saved_format.complete_tokenizer(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Turns the progress bars of `transformers` off inside; afterwards they are as they were."""
    from transformers import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
