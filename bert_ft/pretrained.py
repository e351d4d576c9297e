"""Checkpoints: a hub id, a folder or an earlier run becomes a tokenizer and a model with the task's head."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from bert_ft.adapters.base import Adapter
from bert_ft.data import hub
from bert_ft.errors import InputError
from bert_ft.rundir import quiet
from bert_ft.schema import RunSpec

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
                "spm.model")  # fmt: skip


def locate(checkpoint: str) -> str:
    """The folder of a checkpoint (of a run: its model), or the hub id as it is."""
    path = Path(checkpoint).expanduser()
    if (path / "task.toml").is_file():
        if not (path / "model").is_dir():
            remedy = "finish it, or name another checkpoint"
            raise InputError("this run has no model yet", where=checkpoint, remedy=remedy)
        return str(path / "model")
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise InputError("a checkpoint is a folder or a hub id, this is a file", where=checkpoint)
    if checkpoint.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", checkpoint):
        remedy = "a checkpoint is a folder, a run or a hub id (org/name)"
        raise InputError("no such folder", where=checkpoint, remedy=remedy)
    return checkpoint


def fingerprint(checkpoint: str | None) -> str | None:
    """sha256 of a folder's weight files; None for a hub id, whose commit the environment records once it is loaded."""
    if checkpoint is None:
        return None
    folder = Path(locate(checkpoint))
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]) if folder.is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if files else None


def commit(run: RunSpec) -> str | None:
    """The hub's commit that a hub id was loaded from; None for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if run.checkpoint is None or Path(where := locate(run.checkpoint)).is_dir():
        return None
    file = try_to_load_from_cache(where, "config.json", revision=run.revision)
    return Path(file).parent.name if isinstance(file, str) else None


def load_tokenizer(run: RunSpec, checkpoint: str) -> Any:
    """The checkpoint's own fast tokenizer."""
    from transformers import AutoTokenizer

    where = locate(checkpoint)
    if Path(where).is_dir() and not any((Path(where) / name).is_file() for name in VOCABULARIES):
        _refuse_letters(where)
        remedy = "copy tokenizer.json and tokenizer_config.json of the pretrained checkpoint into it"
        raise InputError("the folder has no tokenizer", where=where, remedy=remedy)
    with told(where):
        return AutoTokenizer.from_pretrained(
            where, revision=run.revision or "main", trust_remote_code=run.trust_remote_code
        )


def _refuse_letters(where: str) -> None:
    """Refuses a tokenizer that needs no file, since it reads characters or bytes: those have no Rust form."""
    from transformers import AutoTokenizer

    with told(where), suppress(OSError, ValueError, KeyError, TypeError):
        name = type(AutoTokenizer.from_pretrained(where)).__name__
        raise InputError(f"its tokenizer ({name}) reads characters or bytes, and has no fast (Rust) form", where=where,
                         remedy="take a checkpoint with a tokenizer.json")  # fmt: skip


def load_model(run: RunSpec, checkpoint: str, adapter: Adapter) -> tuple[Any, list[str]]:
    """The model with the head of the adapter's family, and what the user should know about its weights.

    A head that fits the task's labels by name is kept (in the checkpoint's label order, which the adapter takes over);
    any other is initialised anew from torch's random state.
    """
    import transformers
    from transformers import AutoConfig

    where = locate(checkpoint)
    options: dict[str, Any] = {"revision": run.revision or "main", "trust_remote_code": run.trust_remote_code}
    auto = getattr(transformers, adapter.head)
    with told(where):
        config = AutoConfig.from_pretrained(where, **options)
        old = config.architectures[0] if config.architectures else "?"
        # a token classifier's weights may bear the names of a sequence classifier's
        kept = (old == "?" or adapter.head.removeprefix("AutoModel") in old) and _keeps_head(config, adapter)
        before = _head_of(config)
        config.update({"problem_type": None} | adapter.config())
        if adapter.task.recipe.dropout is not None:
            _set_dropout(config, adapter.task.recipe.dropout)
        options |= {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = auto.from_pretrained(where, **options)
    notes, body = list[str](), f"{model.base_model_prefix}."
    fresh = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    encoder = [key for key in fresh if key.startswith(body) and "pooler" not in key]
    if encoder:
        message = f"the checkpoint ({old}) lacks {len(encoder)} weights of the encoder, {encoder[0]} first"
        raise InputError(message, where=where, remedy="is this an encoder of the BERT kind?")
    head = [name for name, _ in model.named_parameters() if not name.startswith(body)]
    if not kept and not set(head) <= set(fresh):  # a part of another head came with the checkpoint
        _new_head(model, head)
        fresh = sorted({*fresh, *head})
    if not kept and re.search("For(SequenceClassification|TokenClassification|QuestionAnswering)", old):
        notes.append(f"the head is replaced, the encoder kept: the checkpoint's head ({old}) {before}")
    if fresh:
        notes.append(f"new weights, not pretrained: {', '.join(fresh)}")
    return model, notes


def bind_head(network: Any, adapter: Adapter) -> list[str]:
    """Names the logits of a model of the user's own: by its config's label names where they are the task's, else in the
    task's order; gives what was done.

    Raises:
        InputError: a head of another size.
    """
    config, wanted = network.config, adapter.config()
    size = wanted.get("num_labels", 0)
    if getattr(config, "num_labels", size) != size:
        raise InputError(f"the model's head has {config.num_labels} labels, the task {size}", where="model",
                         remedy=f"from_pretrained(..., num_labels={size})")  # fmt: skip
    config.problem_type = config.problem_type or wanted.get("problem_type")
    if _keeps_head(config, adapter):
        return []
    config.update(wanted)
    return ["the model's own head is trained, its labels in the order of the task"]


def problem_type(config: Any) -> str:
    """What a sequence classification head is for; where the config does not say, as `transformers` takes it."""
    return str(config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification"))


def _head_of(config: Any) -> str:
    """What the checkpoint's head is for, in words."""
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    kind = problem_type(config) if "SequenceClassification" in str(config.architectures) else ""
    return " ".join(filter(None, ["is for", kind, f"of {', '.join(names[:5])}" + ", ..." * (len(names) > 5)]))


def _keeps_head(config: Any, adapter: Adapter) -> bool:
    """Whether a head for this task may be in the checkpoint; its label order then is the order of the run."""
    wanted = adapter.config()
    if wanted.get("num_labels", config.num_labels) != config.num_labels:
        return False
    if wanted.get("problem_type") not in (None, problem_type(config)):
        return False
    if "id2label" not in wanted:
        return True
    names = [config.id2label[i] for i in range(config.num_labels)]
    if set(names) != set(adapter.names):
        return False
    adapter.labels = [adapter.labels[adapter.names.index(name)] for name in names]
    return True


def _new_head(model: Any, names: list[str]) -> None:
    """Initialises the modules of these parameters as `transformers` would, in their order: the seed decides."""
    for module in dict.fromkeys(model.get_submodule(name.rpartition(".")[0]) for name in names):
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False
        module._is_hf_initialized = False
        model._init_weights(module)


def _set_dropout(config: Any, rate: float) -> None:
    for key in config.to_dict():
        if "dropout" in key and isinstance(getattr(config, key), (float, int, type(None))):
            setattr(config, key, rate)


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turns what goes wrong while loading into one message; `transformers` prints nothing of its own meanwhile."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from transformers import logging

    level = logging.get_verbosity()
    logging.set_verbosity(50)  # nothing but our own message
    try:
        with quiet(), nullcontext() if Path(where).is_dir() else hub.reached():
            yield
    except InputError:
        raise
    except ImportError as error:
        named = re.search(r"""(?:pip3? install|install|named|requires the) [`'"]*([\w-]+)""", str(error))
        if named is None:
            raise InputError(f"a package is missing: {_first_line(error)}", where=where) from None
        message, remedy = f"it needs the package '{named[1].lower()}'", f"pip install {named[1].lower()}"
        raise InputError(message, where=where, remedy=remedy) from None
    except UnpicklingError:
        message = "the weight file is corrupt, or holds more than weights"
        raise InputError(message, where=where, remedy="copy it again, or get it as model.safetensors") from None
    except (SafetensorError, EOFError) as error:
        message = f"the weight file is corrupt ({error})"
        raise InputError(message, where=where, remedy="download or copy it again") from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        message, remedy = _explained(error, where)
        raise InputError(message, where=where, remedy=remedy) from None
    finally:
        logging.set_verbosity(level)


def _explained(error: Exception, where: str) -> tuple[str, str]:
    """(message, remedy) for what `transformers` and the hub's client raise."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            return "this checkpoint is gated", "ask for access, then `hf auth login`"
        if isinstance(cause, RepositoryNotFoundError):
            remedy = "check the id (org/name); a folder needs a path that exists"
            return "no such checkpoint on the hub, or no access to it", remedy
        if isinstance(cause, RevisionNotFoundError):
            return "no such revision of this checkpoint", "run.revision is a branch, tag or commit; main by default"
        cause = cause.__cause__ or cause.__context__
    if not Path(where).is_dir() and isinstance(error, OSError):
        message = "the hub can't be reached, or broke off, and its cache lacks this checkpoint; or it is no checkpoint"
        return message, "check the id; try again once the hub is there, or give a folder"
    if "trust_remote_code" in str(error):
        message = "this checkpoint brings its own code, which runs only if you say so"
        return message, "read it, then --trust-remote-code"
    remedy = "is it the folder of an encoder that this version of transformers knows?"
    return f"it can't be loaded: {_first_line(error)}", remedy


def _first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip()
