"""Finding the adapter of a family: a built-in one, or one of the entry-point group `bert_ft.families`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from bert_ft.adapters.base import Adapter, Features
from bert_ft.errors import InputError, did_you_mean

FAMILIES = {
    "classification": "bert_ft.adapters.classification:Classification",
    "ner": "bert_ft.adapters.ner:Ner",
    "qa": "bert_ft.adapters.qa:ExtractiveQa",
}


def find(family: str) -> type[Adapter]:
    """The adapter class of a family.

    Raises:
        InputError: no family of that name is built in or installed.
    """
    if family in FAMILIES:
        module, _, name = FAMILIES[family].partition(":")
        found: type[Adapter] = getattr(import_module(module), name)
        return found
    installed = {point.name: point for point in entry_points(group="bert_ft.families")}
    if family not in installed:
        raise InputError(f"unknown family '{family}'", remedy=did_you_mean(family, [*FAMILIES, *installed]))
    loaded: type[Adapter] = installed[family].load()
    return loaded


__all__ = ["Adapter", "Features", "find"]
