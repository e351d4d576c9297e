"""What answers are made with, as a few values that are equal where the answers would be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bert_ft.modeling.model import Model
from bert_ft.tools.predict.files import Options

ELSEWHERE = ("transformers_version", "name_or_path")
"""What a config says that changes no answer; as what begins with a _."""


def made_by(model: Model, options: Options, how: Mapping[str, Any]) -> dict[str, Any]:
    """The model and the settings that answers are made with.

    Args:
        model: as it was loaded, before it answered anything.
        options: of `predict`; the format of the answers is said by their name.
        how: what else the call asks for: the type that is computed in.
    """
    asked = {key: value for key, value in options.items() if value not in (None, False, {})}
    asked.pop("write_as", None)
    if caution := options.get("caution"):
        asked["caution"] = asdict(caution)
    task = model.adapter.task.dump()
    task["run"].pop("trust_remote_code", None)  # what was allowed changes no answer
    return {
        "model": _digest_of(model),
        "task": hashlib.sha256(_json(task)).hexdigest(),
        "settings": {**asked, **{key: value for key, value in how.items() if value is not None}},
    }


def _digest_of(model: Model) -> str:
    """sha256 of all that answers depend on: numbers, config, tokenizer, labels, and what was tuned."""
    total = hashlib.sha256()
    file = getattr(model.network, "file", None)
    if isinstance(file, Path):  # an exported graph
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        import torch

        for name, value in sorted(model.network.state_dict().items()):
            if not isinstance(value, torch.Tensor):
                total.update(_json([name, value]))
                continue
            total.update(_json([name, str(value.dtype), list(value.shape)]))
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = model.network.config.to_dict()
    config = {key: value for key, value in config.items() if key not in ELSEWHERE and not key.startswith("_")}
    total.update(_json([config, list(model.adapter.names), model.adapter.tuned]))
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    total.update(_json(sorted(model.tokenizer.get_vocab().items()) if backend is None else backend.to_str()))
    return total.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
