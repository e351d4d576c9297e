"""What the quotes of a table may be: around a cell, or text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bert_ft.data.finding import KEPT, Finding
from bert_ft.errors import shown

NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*")


class Seen:
    """What stood in the columns of the rows so far: whether other cells look like theirs.

    Attributes:
        rows: how many.
        values: of each column, the texts in it; None where there are too many for a label's.
        numeric: of each column, whether every cell is a number.
    """

    most = 50  # texts of a column that may hold labels

    def __init__(self) -> None:
        self.rows = 0
        self.values: list[set[str | None] | None] = []
        self.numeric: list[bool] = []

    def add(self, cells: Sequence[str | None]) -> None:
        """Takes in a row."""
        if not self.rows:
            self.values = [set() for _ in cells]
            self.numeric = [True for _ in cells]
        self.rows += 1
        for place, cell in enumerate(cells[: len(self.values)]):
            if (known := self.values[place]) is not None:
                known.add(cell)
                if len(known) > self.most:
                    self.values[place] = None
            if self.numeric[place] and not NUMBER.fullmatch(cell or ""):
                self.numeric[place] = False

    def fit(self, rows: Sequence[Sequence[str | None]]) -> bool | None:
        """Whether these are rows like the ones so far, by the columns of labels and numbers; None where
        nothing tells."""
        likely: bool | None = None
        for place, column in enumerate(zip(*rows, strict=True)):
            known = self.values[place] if self.rows >= 5 and place < len(self.values) else None
            if known is not None and len(known) <= max(2, self.rows / 3):
                fits = known.issuperset(column)
                if not fits and self.rows < 20:  # others may come
                    continue
            elif self.rows >= 5 and place < len(self.numeric) and self.numeric[place]:
                fits = all(NUMBER.fullmatch(cell or "") for cell in column)
            elif len(column) > 2 and len(set(column)) <= len(column) / 2:
                fits = True  # they repeat themselves, as labels do
            else:
                continue
            if not fits:
                return False
            likely = True
        return likely


@dataclass
class Remarks:
    """What a person should know of the quotes of a table.

    Attributes:
        literal: the lines with a cell whose first quote is text.
        suspects: the lines where a quoted cell begins that holds several lines, of which most could be rows;
            what stands there; and the cells of these lines.
        seen: what stood in the columns of all rows.
    """

    literal: list[int] = field(default_factory=list)
    suspects: list[tuple[int, str, list[list[str | None]]]] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    def note(self) -> str:
        """Returns what was done, "" where nothing was."""
        if not self.literal:
            return ""
        count = len(self.literal)
        rows = "1 row has a cell" if count == 1 else f"{count:,} rows have a cell"
        return (
            f"{rows} that begins with a quote which does not enclose it, and is read as it stands (with "
            f"quoting=strict: to the next quote); the first: line {self.literal[0]}"
        )

    def findings(self, where: str) -> list[Finding]:
        """Returns what may be wrong, once all rows are read."""
        doubtful = [(line, text) for line, text, rows in self.suspects if self.seen.fit(rows)]
        if not doubtful:
            return []
        message = (
            "cells with line breaks and delimiters within quotes, whose lines look like rows of their own: "
            "is a quote left open? --set quoting=false reads quotes as text"
        )
        examples = [shown(text) for _, text in doubtful[:KEPT]]
        places = [f"{where}, line {line}" for line, _ in doubtful[:KEPT]]
        return [Finding("quotes", "warning", "", len(doubtful), message, examples, places)]

    def lines(self, where: str) -> list[str]:
        """Returns all of it, a line each."""
        found = self.findings(where)
        doubtful = [f"{each.count:,} {each.phrase}; the first: {each.places[0]}" for each in found]
        return [line for line in (self.note(), *doubtful) if line]
