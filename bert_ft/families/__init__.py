"""Finding the adapter of a family: a built-in one, or one of the entry-point group `bert_ft.families`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features

FAMILIES = {
    "classification": "bert_ft.families.classification.adapter:Classification",
    "ner": "bert_ft.families.ner.adapter:Ner",
    "qa": "bert_ft.families.qa.adapter:ExtractiveQa",
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
