"""Code that a checkpoint brings, and that `transformers` would import: only what this very call names.

No file has a say in it: neither a task's nor a run's `[run] trust_remote_code`, nor anything in a
checkpoint's config.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_ft.config.schema import RunSpec
from bert_ft.errors import InputError

Names = str | Path | Sequence[str | Path] | None
"""What a call names: hub ids (ORG/NAME) and folders; None: nothing."""


def names(value: Any) -> tuple[str, ...]:
    """The hub ids and folders that a call names; a folder given as a `Path` as an absolute path.

    Raises:
        InputError: it says yes without saying to what.
    """
    values = value if isinstance(value, (list, tuple)) else [] if value in (None, False) else [value]
    if not all(isinstance(name, (str, Path)) and str(name) for name in values):
        raise InputError(
            "it takes the name of the repository whose code may run, not a plain yes",
            where="trust_remote_code",
            remedy='trust_remote_code="ORG/NAME", or "./FOLDER"',
        )
    return tuple(str(name.expanduser().resolve()) if isinstance(name, Path) else name for name in values)


def allowed(where: str, revision: str, trusted: Sequence[str]) -> bool:
    """Whether `transformers` may import the code that comes with a checkpoint; False where none comes.

    Args:
        where: its folder, or its hub id.
        trusted: what this call names.
    Raises:
        InputError: it names something, but not all that the code comes from.
    """
    if not trusted or not (sources := list(dict.fromkeys(_sources(where, revision)))):
        return False
    if missing := [source for source in sources if not any(_same(source, name) for name in trusted)]:
        raise InputError(
            f"its code would come from {', '.join(missing)}, which this call does not name",
            where=where,
            remedy=f"read it, then {option(*missing)}",
        )
    return True


def notes(run: RunSpec) -> list[str]:
    """What a person should know of what the task's file says."""
    note = (
        "run.trust_remote_code = true in the task's file is ignored: only the command or call itself can "
        "name whose code may run"
    )
    return [note] if run.trust_remote_code else []


def option(*sources: str) -> str:
    """The option of the command line that names these. Folders bear a sign that they are folders."""
    return " ".join(f"--trust-remote-code {shlex.quote(_marked(source))}" for source in sources)


def _sources(where: str, revision: str) -> Iterator[str]:
    """The checkpoint itself and the other repositories that its code would come from; nothing where none
    would."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils.import_utils import is_peft_available
    from transformers.utils.peft_utils import find_adapter_config_file

    config, _ = PreTrainedConfig.get_config_dict(where, revision=revision)
    references: list[str] = []
    for tree in (config, get_tokenizer_config(where, revision=revision)):
        classes = tree.get("auto_map") or {}
        for value in classes.values() if isinstance(classes, dict) else classes:
            references += [
                one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)
            ]
    if not references:
        return
    yield where
    yield from (reference.split("--")[0] for reference in references if "--" in reference)
    if is_peft_available() and (file := find_adapter_config_file(where, revision=revision)):
        base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if isinstance(base, str):  # a hub's adapter takes the code of its base
            yield base


def _same(source: str, name: str) -> bool:
    """Whether a name is this source. A folder has to be named as one (./FOLDER): one that came into the
    working directory may look like a hub id."""
    if not Path(source).is_dir():
        return name == source
    folder = Path(source).resolve()
    path = Path(name).expanduser().resolve()
    return _marked(name) == name and path in (folder, *([folder.parent] if folder.name == "model" else []))


def _marked(source: str) -> str:
    """A name with the sign of a folder, where it is one."""
    unmarked = Path(source).is_dir() and not source.startswith(("./", "../", "/", "~"))
    return f"./{source}" if unmarked else source
