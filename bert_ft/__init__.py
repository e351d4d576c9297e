"""bert-ft: fine-tune BERT-like encoders. The public names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_ft import metrics
    from bert_ft.config.catalog import load_task
    from bert_ft.config.recipe import Recipe
    from bert_ft.config.references import Reference
    from bert_ft.config.task import Task
    from bert_ft.engine.callbacks import Callback
    from bert_ft.errors import InputError, MachineError
    from bert_ft.families import Adapter, Features
    from bert_ft.families.classification.adapter import Classification
    from bert_ft.families.qa.adapter import ExtractiveQa
    from bert_ft.finetuning.finetune import finetune
    from bert_ft.modeling.vectors.embedder import Embedder
    from bert_ft.run import Run, evaluate, load
    from bert_ft.tools.compare.compare import compare
    from bert_ft.tools.curve.curve import curve
    from bert_ft.tools.embed.embed import embed
    from bert_ft.tools.reproduce.reproduce import reproduce
    from bert_ft.tools.search.search import search


_HOMES = {
    "finetune": "finetuning.finetune", "load": "run", "evaluate": "run", "Run": "run",
    "load_task": "config.catalog", "Task": "config.task", "Recipe": "config.recipe",
    "Reference": "config.references",
    "Adapter": "families", "Features": "families", "Classification": "families.classification.adapter",
    "ExtractiveQa": "families.qa.adapter",
    "Callback": "engine.callbacks", "InputError": "errors", "MachineError": "errors",
    "compare": "tools.compare.compare", "reproduce": "tools.reproduce.reproduce",
    "search": "tools.search.search", "embed": "tools.embed.embed",
    "Embedder": "modeling.vectors.embedder", "curve": "tools.curve.curve",
}  # fmt: skip

__all__ = [
    "Adapter", "Callback", "Classification", "Embedder", "ExtractiveQa", "Features", "InputError",
    "MachineError", "Recipe", "Reference", "Run", "Task", "compare", "curve", "embed", "evaluate", "finetune",
    "load", "load_task", "metrics", "reproduce", "search",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("bert_ft.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'bert_ft' has no attribute '{name}'")
    return getattr(import_module(f"bert_ft.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
