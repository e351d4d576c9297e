"""How far answering has come, for a person at a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from bert_ft import display
from bert_ft.errors import InputError
from bert_ft.tools.predict.folders import Item
from bert_ft.tools.predict.readers import format_of, rows_of


def of_one(source: str, target: str, read_as: str | None) -> AbstractContextManager[Callable[[int], None]]:
    """A bar of the rows of one file; none where the terminal shows answers, or is typed into."""
    seen = sys.stderr.isatty() and not (target == "-" and sys.stdout.isatty())
    if not seen or (source == "-" and sys.stdin.isatty()):
        return nullcontext(lambda rows: None)
    return display.counting(_rows(source, read_as), "rows")


class FilesProgress(display.FilesBar):
    """A bar of many files.

    Args:
        read_as: the format of all of them, where the suffix does not say.
    """

    def __init__(self, items: Sequence[Item], read_as: str | None = None) -> None:
        super().__init__(len(items), sum(item.size for item in items))
        self.read_as = read_as

    def of(self, item: Item) -> Callable[[int], None]:
        """What takes how many more rows of a file are answered."""
        total = self.live and _rows(item.source, self.read_as)
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            self.advance(rows, item.size * min(1.0, done / total) if total else 0)

        return advance

    def ended_with(self, item: Item, answered: bool) -> None:
        """A file is done."""
        self.ended(item.size, answered)


def _rows(source: str, read_as: str | None) -> int | None:
    """About how many rows a file has; None where that can't be said."""
    try:
        return rows_of(source, format_of(source, read_as))
    except (InputError, OSError):
        return None
