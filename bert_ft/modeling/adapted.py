"""A folder with low-rank changes alone (`recipe.lora.save = "adapter"`): written with config and tokenizer,
read together with the checkpoint that they change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert_ft import reading
from bert_ft.engine import lora
from bert_ft.errors import InputError
from bert_ft.modeling import remote_code, saving, weights
from bert_ft.modeling.loading_errors import loading_errors

LONGEST = 10_000_000  # bytes of an adapter_config.json
BASE = "base_model_name_or_path"


def base_of(where: str | Path) -> tuple[str, str | None] | None:
    """The checkpoint that a folder's adapter changes, and its revision; None for what is no such folder.

    Raises:
        InputError: it does not say, or the folder that it names is not there.
    """
    config = _config(Path(where))
    if config is None:
        return None
    base, revision = config.get(BASE), config.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, (str, type(None))):
        raise InputError(
            "this adapter does not say which checkpoint it changes",
            where=str(where),
            remedy=f"set {BASE} in its {lora.CONFIG}",
        )
    here = Path(base).expanduser()
    if (here / "task.toml").is_file() and (here / "model").is_dir():
        return str(here / "model"), revision
    if not here.is_dir() and (base.startswith((".", "/", "~")) or base.count("/") > 1):
        raise InputError(
            f"the checkpoint that this adapter changes is not there: {base}",
            where=str(where),
            remedy=f"set {BASE} in its {lora.CONFIG} to where it lies now, or to its name on the hub",
        )
    return base, revision


def _config(folder: Path) -> dict[str, Any] | None:
    file = folder / lora.CONFIG
    if not file.is_file() or any(folder.glob("model*.safetensors")):
        return None  # a whole model that an adapter's file lies beside
    try:
        config = json.loads(reading.text(file, LONGEST))
    except ValueError as error:
        raise InputError(f"not a JSON file: {error}", where=str(file)) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise InputError(
            f"an adapter of the kind {kind!r:.80} is not read here, but low-rank changes (LORA)",
            where=str(file),
            remedy="merge it into its base with peft, and take the model that this makes",
        )
    return config


@contextmanager
def plain(where: str, trusted: Sequence[str] = ()) -> Iterator[str]:
    """A checkpoint as it is; of a folder with an adapter, a temporary one with its base and the changes
    merged.

    Args:
        where: a folder or a hub id.
        trusted: what this call names to run code from, as `remote_code.names` returns it.
    Raises:
        InputError: no such base, another one than the adapter was trained on, or no adapter that fits it.
    """
    base = base_of(where)
    if base is None:
        yield where
        return
    with tempfile.TemporaryDirectory(prefix="bert-ft-") as folder, saving.quiet():
        _merged(Path(where), *base, trusted).save_pretrained(folder)
        yield folder


def _merged(folder: Path, base: str, revision: str | None, trusted: Sequence[str]) -> Any:
    import torch
    import transformers

    with loading_errors(str(folder)):
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=remote_code.allowed(str(folder), "main", trusted)
        )
    stated = getattr(config, "bert_ft", None)
    known = stated.get("base_sha256") if isinstance(stated, dict) else None
    if known is not None and weights.digest(Path(base)) not in (None, known):
        raise InputError(
            "the weights of the base are not those that this adapter was trained on",
            where=base,
            remedy=f"put the weights back that {folder} was trained on, or train again",
        )
    head = weights.task_head(str((config.architectures or ["?"])[0]))
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    with loading_errors(base):
        network = auto.from_pretrained(
            base,
            config=config,
            revision=revision or "main",
            trust_remote_code=remote_code.allowed(base, revision or "main", trusted),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
    return lora.applied(network, folder)


def save(path: Path, change: lora.Change, network: Any, checkpoint: str, commit: str | None) -> None:
    """Writes the changes of a network, and its config, into a folder.

    Args:
        checkpoint: a folder or hub id: what they change; `commit` the hub's, of a hub id.
    """
    here = Path(checkpoint).is_dir()
    change.save(path, str(Path(checkpoint).resolve()) if here else checkpoint, commit)
    config = network.config
    config.architectures = [type(network).__name__]
    config.bert_ft = config.bert_ft | {"base_sha256": weights.digest(Path(checkpoint))}
    config.save_pretrained(path)
