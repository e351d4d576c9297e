"""bert-ft: fine-tune BERT-like encoders. The public names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_ft import metrics
    from bert_ft.adapters import Adapter, Features
    from bert_ft.adapters.classification import Classification
    from bert_ft.adapters.qa import ExtractiveQa
    from bert_ft.engine.training import Callback
    from bert_ft.errors import InputError, MachineError
    from bert_ft.finetuning import finetune
    from bert_ft.run import Run, evaluate, load
    from bert_ft.schema import Recipe, Reference
    from bert_ft.task import Task, load_task
    from bert_ft.tools.compare import compare
    from bert_ft.tools.reproduce import reproduce
    from bert_ft.tools.search import search

_HOMES = {
    "finetune": "finetuning", "load": "run", "evaluate": "run", "Run": "run",
    "load_task": "task", "Task": "task", "Recipe": "schema", "Reference": "schema",
    "Adapter": "adapters", "Features": "adapters", "Classification": "adapters.classification",
    "ExtractiveQa": "adapters.qa",
    "Callback": "engine.training", "InputError": "errors", "MachineError": "errors",
    "compare": "tools.compare", "reproduce": "tools.reproduce", "search": "tools.search",
}  # fmt: skip

__all__ = [
    "Adapter", "Callback", "Classification", "ExtractiveQa", "Features", "InputError", "MachineError", "Recipe",
    "Reference", "Run", "Task", "compare", "evaluate", "finetune", "load", "load_task", "metrics", "reproduce", "search",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("bert_ft.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'bert_ft' has no attribute '{name}'")
    return getattr(import_module(f"bert_ft.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
