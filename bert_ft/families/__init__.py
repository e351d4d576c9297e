"""The families of tasks, a wing each; `find` gives the adapter class of one by its name.

Nothing is imported here before it is used: the `options` of a wing are read with each task, and an adapter
needs numpy and Arrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bert_ft.config import families as registry

if TYPE_CHECKING:
    from bert_ft.families.base import Adapter
    from bert_ft.families.features import Features

__all__ = ["Adapter", "Features", "find", "known"]


def find(family: str) -> type[Adapter]:
    """Returns the adapter class of a family, a built-in one or one of the entry-point group
    `bert_ft.families`.

    Raises:
        InputError: no family of that name is built in or installed.
    """
    adapter: type[Adapter] = registry.find(family)
    return adapter


def known(family: str) -> type[Adapter]:
    """Returns the adapter class of a family as `find` does; for a family that is not installed here `Adapter`
    itself, whose class attributes are what holds for any."""
    from bert_ft.families.base import Adapter

    return find(family) if family in registry.names() else Adapter


def __getattr__(name: str) -> Any:
    homes = {"Adapter": "base", "Features": "features"}
    if name not in homes:
        raise AttributeError(f"module 'bert_ft.families' has no attribute '{name}'")
    return getattr(import_module(f"bert_ft.families.{homes[name]}"), name)
