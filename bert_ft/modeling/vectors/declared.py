"""What a sentence-transformers folder declares of its vectors: `modules.json` and the files that it names.

Nothing of it is code: modules are known by their name, and one that is not known is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import reading
from bert_ft.errors import InputError
from bert_ft.modeling.loading_errors import loading_errors
from bert_ft.modeling.vectors import pooling

LARGEST = 10_000_000  # bytes of one of its JSON files
LONGEST = 10_000  # characters of a prompt: more tokens than any encoder reads
LEGACY = {  # of older files: a key for each pooling, in the order in which they are concatenated
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "Mish", "Softsign")
PLAIN = "--pooling mean (or cls, max) pools the encoder's states without the folder's modules"

Step = Callable[[np.ndarray], np.ndarray]
"""What is done with (N, D) vectors behind pooling."""


@dataclass(frozen=True)
class Declared:
    """What a folder says; nothing where it is a plain checkpoint.

    Attributes:
        encoder: where the encoder's own files lie.
        modules: (kind, its folder) of what comes behind the encoder, in order; None: no modules.json.
        max_length: tokens of a text. lower: whether texts are lower-cased first.
        dimensions: how many numbers of a vector are kept.
        prompts: name -> text. default_prompt: the name of the one that is used where none is named.
        notes: what a person should know.
    """

    encoder: str
    modules: Sequence[tuple[str, str]] | None = None
    max_length: int | None = None
    lower: bool = False
    dimensions: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    notes: Sequence[str] = ()


def read(where: str, revision: str = "main") -> Declared:
    """What a folder or hub id declares.

    Raises:
        InputError: files that can't be read, or whose first module is no encoder.
    """
    named, unknown = _json(where, "modules.json", revision, list)
    if named is None:
        note = (
            f"the cache has no modules.json of {where}, and the hub is not reached: whether it declares a "
            "pooling is not known, so the mean is taken, not normalised; --pooling and --normalize say so"
        )
        return Declared(where, notes=[note] if unknown else [])
    modules = []
    for module in named:
        kind, folder = (module.get(key) if isinstance(module, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise InputError("each module needs a type and a path", where=f"{where}/modules.json")
        if folder:
            reading.inside(folder, Path(where), f"{where}/modules.json")
        modules.append((kind.rpartition(".")[2], folder))
    if not modules or modules[0][0] != "Transformer":
        kind = modules[0][0] if modules else "nothing"
        message = f"the model begins with {kind}, which is no encoder of text"
        raise InputError(message, where=f"{where}/modules.json", remedy="take a model that begins with one")
    first = modules[0][1]
    if first and not Path(where).is_dir():
        message = f"the encoder lies in a folder of its own, {first}"
        raise InputError(message, where=where, remedy="fetch the whole repository, and name its folder here")
    transformer, _ = _json(where, _path(first, "sentence_bert_config.json"), revision, dict)
    general, _ = _json(where, "config_sentence_transformers.json", revision, dict)
    transformer, general = transformer or {}, general or {}
    prompts = general.get("prompts") or {}
    default = general.get("default_prompt_name")
    known = default is None or (isinstance(default, str) and default in prompts)
    if not reading.fits(prompts, {"": ""}) or not known:
        message = "prompts have to be texts by name, and default_prompt_name one of these names"
        raise InputError(message, where=f"{where}/config_sentence_transformers.json")
    if long := [name for name, text in prompts.items() if len(text) > LONGEST]:
        message = f"the prompt '{long[0]}' has {len(prompts[long[0]]):,} characters; {LONGEST:,} are the most"
        raise InputError(message, where=f"{where}/config_sentence_transformers.json")
    return Declared(
        str(Path(where) / first) if first else where,
        modules[1:],
        _whole(transformer, "max_seq_length", where),
        transformer.get("do_lower_case") is True,
        _whole(general, "truncate_dim", where),
        dict(prompts),
        default,
    )


def pooled(declared: Declared, where: str, revision: str = "main") -> tuple[tuple[str, ...], bool]:
    """The names of the pooling, and whether it takes the prompt's tokens.

    Raises:
        InputError: no pooling behind the encoder, or one that is not known.
    """
    if declared.modules is None:
        return ("mean",), True
    kind, folder = declared.modules[0] if declared.modules else ("nothing", "")
    place = f"{where}/modules.json"
    if kind != "Pooling":
        raise InputError(f"behind the encoder comes {kind}, not Pooling", where=place, remedy=PLAIN)
    config, unknown = _json(where, _path(folder, "config.json"), revision, dict)
    if config is None:
        message = "the hub is not reached, and the cache does not have it" if unknown else "no such file"
        raise InputError(message, where=f"{where}/{_path(folder, 'config.json')}", remedy=PLAIN)
    names = config.get("pooling_mode", [name for key, name in LEGACY.items() if config.get(key) is True])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(name in pooling.OF_TEXTS for name in names):
        message = f"the pooling {names!r:.100} is not known"
        raise InputError(message, where=f"{where}/{_path(folder, 'config.json')}", remedy=PLAIN)
    return tuple(names) or ("mean",), config.get("include_prompt") is not False


def steps(declared: Declared, where: str, revision: str = "main") -> list[tuple[str, Step]]:
    """(kind, what it does) of the modules behind pooling: Dense and Normalize.

    Raises:
        InputError: a module that is not known, or one that does not work on a text's vector.
    """
    out: list[tuple[str, Step]] = []
    for kind, folder in (declared.modules or ())[1:]:
        config = _json(where, _path(folder, "config.json"), revision, dict)[0] if folder else None
        config = config or {}
        keys = ("module_input_name", "module_output_name")
        if any(config.get(key) not in (None, "sentence_embedding") for key in keys):
            message = f"its {kind} works on something else than a text's vector"
            raise InputError(message, where=f"{where}/{folder}/config.json", remedy=PLAIN)
        if kind == "Normalize":
            out.append((kind, normalized))
        elif kind == "Dense":
            out.append((kind, _dense(where, folder, config, revision)))
        elif kind != "Dropout":  # which does nothing once a model is trained
            raise InputError(f"its module {kind} is not known", where=f"{where}/modules.json", remedy=PLAIN)
    return out


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(N, D) vectors at length 1; zeros stay zeros."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(1, keepdims=True))
    out: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return out.astype(np.float32)


def _dense(where: str, folder: str, config: dict[str, Any], revision: str) -> Step:
    """A linear layer with its activation."""
    import torch
    from torch import nn

    place = f"{where}/{folder}"
    named = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh")
    activation = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or activation not in ACTIVATIONS or config.get("use_residual"):
        what = "its residual connection" if config.get("use_residual") else f"its activation {named}"
        raise InputError(f"{what} is not known", where=f"{place}/config.json", remedy=PLAIN)
    with loading_errors(place):
        file, _ = _file(where, f"{folder}/model.safetensors", revision)
        if file is not None and file.is_file():
            from safetensors.torch import load_file

            weights = load_file(file)
        else:
            file, _ = _file(where, f"{folder}/pytorch_model.bin", revision)
            if file is None or not file.is_file():
                raise InputError("the module has no weights", where=place, remedy="copy the whole folder")
            weights = torch.load(file, map_location="cpu", weights_only=True)
        matrix = weights["linear.weight"].float()
        bias = weights["linear.bias"].float() if config.get("bias", True) else None
    if matrix.ndim != 2 or (bias is not None and bias.shape != matrix.shape[:1]):
        shapes = [tuple(each.shape) for each in (matrix, bias) if each is not None]
        raise InputError(f"its weights are no linear layer: {shapes}", where=place, remedy=PLAIN)
    layer = getattr(nn, activation)()

    def apply(vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] != matrix.shape[1]:
            message = f"it takes {matrix.shape[1]} numbers, and the vectors have {vectors.shape[1]}"
            raise InputError(message, where=place, remedy=PLAIN)
        with torch.inference_mode():
            out: np.ndarray = layer(nn.functional.linear(torch.from_numpy(vectors), matrix, bias)).numpy()
        return out

    return apply


def _whole(config: dict[str, Any], key: str, where: str) -> int | None:
    value = config.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise InputError(f"'{key}' has to be a whole number above 0, not {value!r:.50}", where=where)


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _json(where: str, name: str, revision: str, kind: type) -> tuple[Any, bool]:
    """The value of a JSON file, None where it is not there; and whether that is not known."""
    file, unknown = _file(where, name, revision)
    if file is None:
        return None, unknown
    try:
        value = reading.strict(reading.text(file, LARGEST))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=f"{where}/{name}") from None
    if not isinstance(value, kind):
        expected = "an object" if kind is dict else "a list"
        raise InputError(f"this has to be {expected}", where=f"{where}/{name}")
    return value, False


def _file(where: str, name: str, revision: str) -> tuple[Path | None, bool]:
    """A file of a folder or hub id, None where it is not there; and whether that is not known, since the hub
    is not reached."""
    if Path(where).is_dir():
        file = Path(where) / name
        try:
            return (file if file.exists() else None), False
        except OSError as error:  # a name that no file can have
            raise InputError(error.strerror or str(error), where=f"{where}/{name}") from None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with loading_errors(where):
        try:
            return Path(hf_hub_download(where, name, revision=revision)), False
        except LocalEntryNotFoundError:
            return None, not _absent(where, name, revision)
        except EntryNotFoundError:
            return None, False


def _absent(where: str, name: str, revision: str) -> bool:
    """Whether the hub's cache remembers that there is no such file."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(where, name, revision=revision)
    return cached is not None and not isinstance(cached, str)
