"""The registry of families: the built-in ones, and those of installed packages.

It lies below the families and imports none of them before it is asked for one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bert_ft.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from bert_ft.config.schema import Options

BUILTIN = {
    "classification": "bert_ft.families.classification.adapter:Classification",
    "ner": "bert_ft.families.ner.adapter:Ner",
    "qa": "bert_ft.families.qa.adapter:ExtractiveQa",
}
"""Name -> the adapter's class. Beside the adapter's module lies `options`, which has the family's `Options`:
a task is read without the adapter, which needs numpy and Arrow."""

DEFAULT = next(iter(BUILTIN))
GROUP = "bert_ft.families"


def names() -> list[str]:
    """The names of all families, the built-in ones first."""
    return [*BUILTIN, *installed()]


def installed() -> dict[str, EntryPoint]:
    """Name -> entry point of the families that installed packages bring."""
    return _installed(tuple(sys.path))


@cache
def _installed(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Those on `sys.path` as it is, the cache's key: with another path they are looked for anew."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILTIN}


def find(family: str) -> Any:
    """Returns the adapter class of a family.

    Raises:
        InputError: no family of that name is built in or installed, or the package that brings it is broken.
    """
    if family in BUILTIN:
        module, _, name = BUILTIN[family].partition(":")
        return getattr(import_module(module), name)
    points = installed()
    if family not in points:
        raise InputError(f"unknown family '{family}'", remedy=did_you_mean(family, names()))
    try:
        return points[family].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the family '{family}' can't be loaded: {error}",
            where=points[family].value,
            remedy="install its package again, with what it needs",
        ) from error


def options_of(family: str, tables: Iterable[str] = ()) -> type[Options]:
    """Returns the class of a family's options.

    Args:
        tables: the names of the tables that a task has. A family that is neither built in nor installed (a
            class given to `finetune`, say) may extend any built-in one, and then has that one's table;
            without one it is taken as the default family.
    """
    if family not in BUILTIN and family not in installed():
        family = next((name for name in BUILTIN if name in tables), DEFAULT)
    if family in BUILTIN:
        package = BUILTIN[family].partition(":")[0].rpartition(".")[0]
        options: type[Options] = import_module(f"{package}.options").Options
        return options
    brought: type[Options] = find(family).Options
    return brought
