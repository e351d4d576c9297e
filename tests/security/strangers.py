"""Harmless stand-ins of what a stranger's files could hold: code that leaves a mark when it is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification
Path({mark!r}).write_text("code of a checkpoint was run")
class StrangerConfig(BertConfig):
    model_type = "stranger"
class StrangerForSequenceClassification(BertForSequenceClassification):
    config_class = StrangerConfig
"""


def rewrite(file: Path, **changes: Any) -> None:
    """Changes keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def with_code(source: Path, target: Path, mark: Path, code_of: str = "", **changes: Any) -> Path:
    """A copy of a checkpoint that only its own code can load: `modeling_stranger.py`, which leaves the mark.

    Args:
        code_of: another repository that it names for its code.
    """
    shutil.copytree(source, target)
    if not code_of:
        (target / "modeling_stranger.py").write_text(CODE.format(mark=str(mark)))
    prefix = f"{code_of}--" if code_of else ""
    auto_map = {"AutoConfig": f"{prefix}modeling_stranger.StrangerConfig",
                "AutoModelForSequenceClassification": f"{prefix}modeling_stranger.StrangerForSequenceClassification"}  # fmt: skip
    rewrite(target / "config.json", model_type="stranger", auto_map=auto_map, **changes)
    return target
