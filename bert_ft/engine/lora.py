"""Low-rank changes of a network's weights (Hu et al. 2021), through `peft`: put in, taken out, kept apart.

With peft's own defaults what a head needs beside its last layer stays random, frozen and unsaved: DeBERTa's
pooler, XLNet's whole head, ModernBERT's `head.*` over a bare encoder. So peft only brings the layers here;
what is trained and what is saved beside them is said by `bert_ft.engine.partial`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bert_ft import reading
from bert_ft.config.recipe import Lora
from bert_ft.engine import parameters
from bert_ft.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LONGEST = 10_000_000  # bytes of such a config
READ = {
    *("r", "lora_alpha", "target_modules", "modules_to_save", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "use_dora", "fan_in_fan_out"),
}
"""Keys of peft's config that are read."""
PASSED = {
    *("peft_type", "peft_version", "task_type", "revision", "base_model_name_or_path", "inference_mode"),
    *("auto_mapping", "lora_dropout", "init_lora_weights"),
}
"""Those that say nothing about trained weights."""
PREFIX = "base_model.model."  # of every name in peft's files
ATTENTION = (
    *("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj", "q", "v"),
    *("in_proj", "Wqkv", "qkv_proj", "query_key_value", "query_global", "value_global"),
)
"""What queries and values are called, alone or in one matrix with the keys; Hu et al. change these two."""


@dataclass(frozen=True)
class Change:
    """What a training with low-rank changes has learned, apart from the weights that it began with.

    Attributes:
        tensors: name in peft's file -> the matrices of the changes, and all weights that were trained whole.
        config: peft's, with the modules that are saved whole.
    """

    tensors: dict[str, Any]
    config: Any

    def save(self, folder: Path, checkpoint: str, revision: str | None) -> None:
        """Writes it as `peft.PeftModel.from_pretrained` reads it; `checkpoint` is what it changes."""
        from safetensors.torch import save_file

        self.config.base_model_name_or_path = checkpoint
        self.config.revision = revision
        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / WEIGHTS, metadata={"format": "pt"})


def inject(network: Any, lora: Lora, new: Iterable[str]) -> list[str]:
    """Puts a low-rank change beside the weights that a recipe names; returns what is to be told.

    Args:
        new: names of weights that are new. Their modules are trained whole, and get no change.
    Raises:
        InputError: no `peft`, a network that has an adapter, or one that has no such modules.
    """
    peft = _peft()
    if is_in(network) or hasattr(network, "peft_config"):
        raise InputError(
            "the model has an adapter already",
            where="recipe.lora",
            remedy="leave out lora, or give the model without it (merge_and_unload)",
        )
    names = _targets(network, lora.targets, {name.rpartition(".")[0] for name in new})
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=names
    )
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with _quiet():
        peft.LoraModel(network, {"default": config}, "default")
    for parameter in trained:  # peft freezes all but its own
        parameter.requires_grad_(True)
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in names)
    return [f"low-rank changes of {len(names)} modules ({', '.join(kinds)}), rank {lora.rank}"]


def _targets(network: Any, targets: str | Sequence[str], whole: set[str]) -> list[str]:
    """The names of the linear modules of a network's layers that are changed. Raises InputError: none is."""
    import torch

    where = parameters.depths(network)
    inside = {name.rpartition(".")[0] for name, depth in where.of.items() if 0 < depth <= where.layers}
    linear = [
        name
        for name, module in network.named_modules()
        if name in inside - whole and isinstance(module, torch.nn.Linear)
    ]
    if targets == "all-linear":
        names = linear
    elif targets == "attention":
        names = [name for name in linear if name.rpartition(".")[2] in ATTENTION] or linear
    else:
        names = [name for name in linear if any(_ends(name, end) for end in targets)]
        if unknown := [end for end in targets if not any(_ends(name, end) for name in linear)]:
            kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise InputError(
                f"no linear module of the layers is called '{unknown[0]}'",
                where="recipe.lora.targets",
                remedy=f"they are called {kinds}",
            )
    if not names:
        message = f"{type(network).__name__} has no linear modules in its layers"
        raise InputError(message, where="recipe.lora", remedy="leave out lora")
    return names


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def is_in(network: Any) -> bool:
    """Whether a network has low-rank changes."""
    return any(hasattr(module, "lora_A") for module in network.modules())


def of(network: Any) -> Change:
    """What has been learned, copied from a network with its changes in.

    Raises:
        InputError: a weight of the network itself is trained, which peft's files have no place for.
    """
    import dataclasses

    peft = _peft()
    changes = peft.get_peft_model_state_dict(network)
    tensors = {PREFIX + name: tensor.detach().cpu().clone() for name, tensor in changes.items()}
    whole = dict.fromkeys(
        name.rpartition(".")[0]
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and ".lora_" not in name
    )
    if "" in whole:
        raise InputError(
            "a weight that is trained stands in no module, so that an adapter's file has no place for it",
            where="recipe.lora.save",
            remedy='save = "merged"',
        )
    for module in whole:
        for name, tensor in network.get_submodule(module).state_dict().items():
            tensors[f"{PREFIX}{module}.{name}"] = tensor.detach().cpu().clone()
    config = dataclasses.replace(
        network.peft_config["default"], modules_to_save=list(whole), inference_mode=True
    )
    return Change(tensors, config)


def remove(network: Any, merge: bool) -> None:
    """Takes the low-rank changes out of a network, in place: added to its weights, or dropped."""
    for name, module in [*network.named_modules()]:
        if hasattr(module, "lora_A"):
            if merge:
                module.merge()
            network.set_submodule(name, module.get_base_layer())
    vars(network).pop("peft_config", None)


def applied(network: Any, folder: Path) -> Any:
    """A network with the change that lies in a folder added to its weights.

    Nothing but `READ` is taken from the folder's config, which may come from anybody: peft's has keys that
    name modules to import.

    Raises:
        InputError: no `peft`, a change of another form, or one that does not fit the network.
    """
    from safetensors.torch import load_file

    peft = _peft()
    stated = json.loads(reading.text(folder / CONFIG, LONGEST))
    usual = peft.LoraConfig().to_dict()
    strange = [key for key in stated.keys() - READ - PASSED if stated[key] and stated[key] != usual.get(key)]
    if strange or not _names(stated.get("target_modules")) or not _names(stated.get("modules_to_save") or []):
        what = f"{min(strange)} = {stated[min(strange)]!r:.80}" if strange else "target_modules are no names"
        raise InputError(
            f"this adapter is of a form that is not read here: {what}",
            where=str(folder / CONFIG),
            remedy="merge it into its base with peft, and take the model that this makes",
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the weights of this adapter can't be read: {str(error).splitlines()[0]:.300}",
            where=str(folder / WEIGHTS),
            remedy="copy the file again",
        ) from None
    try:
        config = peft.LoraConfig(**{key: stated[key] for key in READ & stated.keys()})
        with _quiet():
            model = peft.PeftModel(network, config)
        result = peft.set_peft_model_state_dict(model, tensors)
        expected = peft.get_peft_model_state_dict(model).keys()
        if result.unexpected_keys or expected != tensors.keys():
            odd = min([*result.unexpected_keys, *(expected ^ tensors.keys())])
            raise ValueError(f"{odd} is in one of the two alone")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the adapter does not fit its base: {str(error).splitlines()[0]:.300}",
            where=str(folder),
            remedy=f"base_model_name_or_path in its {CONFIG} has to name the checkpoint that it changes",
        ) from None
    return model.merge_and_unload()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what peft's use of `transformers` is warned of, which nobody here can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise InputError(
            "low-rank changes need the package peft, which is not installed",
            where="recipe.lora",
            remedy="pip install 'bert-ft[peft]'",
        ) from None
    return peft
