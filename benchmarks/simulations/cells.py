"""What a simulation comes to: tables of cells whose truth is known, and which of them keep what is promised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Rate:
    """A share of the draws, in per cent, and the bounds that it must keep.

    Attributes:
        percent: nan where the product gives no number in this cell; shown as "declined".
        draws: behind it. low, high: its bounds; None: there is none, it is only told.
    """

    percent: float
    draws: int
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float:
        """Two standard errors of the simulation, in per cent."""
        share = min(max(self.percent / 100, 1 / self.draws), 1 - 1 / self.draws)
        return 200 * (share * (1 - share) / self.draws) ** 0.5

    @property
    def kept(self) -> bool:
        """Whether it lies inside its bounds, but for the error of the simulation; a number that is declined
        does."""
        low, high = self.low, self.high
        return not (
            (low is not None and self.percent + self.error < low)
            or (high is not None and self.percent - self.error > high)
        )

    def __str__(self) -> str:
        if self.percent != self.percent:
            return "declined"
        return f"{self.percent:.1f} %" if self.kept else f"**{self.percent:.1f} %**"


@dataclass
class Simulated:
    """A table: rows of conditions and rates.

    Attributes:
        text: what was drawn, and what a column says, in Markdown.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    @property
    def rates(self) -> Iterable[Rate]:
        """The rates that have a bound."""
        cells = (cell for row in self.rows for cell in row if isinstance(cell, Rate))
        return [cell for cell in cells if cell.low is not None or cell.high is not None]

    def markdown(self) -> list[str]:
        """Its chapter, line by line."""
        table = [self.columns, ["---"] * len(self.columns), *self.rows]
        lines = [f"| {' | '.join(map(str, row))} |" for row in table]
        return [f"### {self.title}", "", self.text, "", *lines, ""]
