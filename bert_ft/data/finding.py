"""A finding: one thing that a person should know about one set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["fault", "warning", "note"]
KEPT = 100  # examples that a finding keeps


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know about one set.

    Attributes:
        check: the name of the check.
        severity: fault (can't be learned from or scored), warning (numbers may mislead), note (worth
            knowing).
        set: the set it is about; empty until the set that was read has its name.
        count: of the rows, labels or columns that the message names.
        message: a noun phrase that goes on where the count ends, in the plural: "rows without text".
        examples: the first of them, at most `KEPT`, shortened.
        places: where each example stands ("FILE, row N"); empty where examples have no place.
    """

    check: str
    severity: Severity
    set: str
    count: int
    message: str
    examples: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    @property
    def phrase(self) -> str:
        """The message, in the number of the count: "rows ..." or "row ..."."""
        return re.sub(r"^(\w+)s\b", r"\1", self.message) if self.count == 1 else self.message

    @property
    def statement(self) -> str:
        """The count and the message."""
        return f"{self.count:,} {self.phrase}"
