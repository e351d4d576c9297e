"""A label that is likely wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong.

    Attributes:
        row: the row of the set, from 0. item: the word of it, where a word has the label.
        label: as it is. suggestion: what models that did not see the row say.
        quality: 0 to 1: how likely the label is right, by them; a measure to rank by.
    """

    row: int
    label: Any
    suggestion: Any
    quality: float
    item: int | None = None
