"""Tables and charts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """A table of the page. `bars`: column -> the value of a full bar; `shades`: shares of 1 for the cells
    that have one."""

    title: str
    columns: Sequence[str]
    rows: list[list[Any]]
    note: str = ""
    bars: dict[int, float] = field(default_factory=dict)
    shades: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass
class Chart:
    """A chart of the page: SVG, which is trusted to hold nothing active."""

    title: str
    svg: str
    note: str = ""
