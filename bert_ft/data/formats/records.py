"""What a table in CSV or TSV holds, a row at a time: every cell is the text that stands there.

A quote means something only around a whole cell. One that opens a cell and can't be the first of such a pair
is text: nobody who quotes cells writes it, and everybody does who joins texts by tabs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.formats import chosen
from bert_ft.errors import InputError, shown

Quoting = bool | Literal["backslash"]
"""Whether cells may be quoted, and how a quote within them is written: twice, or behind a backslash."""

Record = tuple[int, list[str | None], str]
"""(the line where a row begins, its cells, what is wrong with it); None is an empty cell without quotes."""

UNEVEN = "quote cells that hold the delimiter; quotes that are plain text want --set quoting=false"
QUOTES = "write a quote within a quoted cell twice; where quotes are plain text: --set quoting=false"
BACKSLASH = 'quotes are escaped by backslashes (\\"), which --set quoting=backslash reads'


@dataclass
class Remarks:
    """What a person should know of the quotes of a table.

    Attributes:
        literal: the lines with a cell whose first quote is text.
        doubtful: the lines where a quoted cell begins that holds several lines, each of which could be a row,
            and what stands there.
    """

    literal: list[int] = field(default_factory=list)
    doubtful: list[tuple[int, str]] = field(default_factory=list)

    def note(self) -> str:
        """Returns what was done, "" where nothing was."""
        if not self.literal:
            return ""
        count = len(self.literal)
        rows = "1 row has a cell" if count == 1 else f"{count:,} rows have a cell"
        return (
            f"{rows} that begins with a quote which is never closed, or not at its end, and is read as it "
            f"stands; the first: line {self.literal[0]}"
        )

    def lines(self) -> list[str]:
        """Returns all of it, a line each."""
        first = f"; the first: line {self.doubtful[0][0]}" if self.doubtful else ""
        doubtful = [f"{found.count:,} {found.phrase}{first}" for found in self.findings("")]
        return [line for line in (self.note(), *doubtful) if line]

    def findings(self, where: str) -> list[Finding]:
        """Returns what may be wrong."""
        if not self.doubtful:
            return []
        message = (
            "cells with line breaks and delimiters within quotes, each line of which could be a row: "
            "is a quote left open? --set quoting=false reads quotes as text"
        )
        examples = [shown(text) for _, text in self.doubtful[:KEPT]]
        places = [f"{where}, line {line}" for line, _ in self.doubtful[:KEPT]]
        return [Finding("quotes", "warning", "", len(self.doubtful), message, examples, places)]


@dataclass(frozen=True)
class Table:
    """A table as it is read.

    Attributes:
        columns: their names.
        header: how many lines they take; 0 in a table without a header line.
        rows: those below it, as they are asked for.
    """

    columns: list[str]
    header: int
    rows: Iterator[Record]

    def select(self, wanted: Sequence[str], optional: Sequence[str], where: str) -> list[str]:
        """Returns what `formats.chosen` does; where a column is missing and the header looks like a row, the
        error says how a table without a header line is read."""
        try:
            return chosen(self.columns, wanted, optional, where)
        except InputError as error:
            looks_like_a_row = any(len(name) > 40 or name.count(" ") > 3 for name in self.columns)
            if self.header and looks_like_a_row and error.message.startswith("no column"):
                first = "; ".join(shown(name, most=40) for name in self.columns[:4])
                error.remedy = (
                    f"its first line is {first}: where "
                    "that is no header, give the columns by number, from 0 (--text 1 --label 0), or by name: "
                    '--set \'data.names=["label", "text"]\''
                )
            raise


def table(
    lines: Iterable[str],
    where: str,
    *,
    delimiter: str,
    quoting: Quoting = True,
    names: Sequence[str] | None = None,
    wanted: Sequence[str] = (),
    remarks: Remarks | None = None,
) -> Table:
    """Returns the columns and the rows of a table. Empty lines are no rows, except in a table of one column,
    where they are empty cells.

    Args:
        lines: with their ends, as `open(..., newline="")` gives them.
        names: the column names of a table without a header line; they are used only where the first line
            lacks the first of the wanted columns (CoLA: train and dev have no header, test has one).
        wanted: columns that are needed. Where all of them are numbers and none is in the first line, the
            table has no header line, and its columns are numbers, from 0.
        remarks: takes what there is to know of quotes, as the rows are read.
    Raises:
        InputError: there is no header, or it can't be read.
    """
    remaining = _Lines(lines)
    taken: list[str] = []
    first = next(records(_noting(remaining, taken), delimiter, quoting), None)
    if first is None:
        remedy = "it needs a header line and at least one row"
        raise InputError("the file is empty", where=where, remedy=remedy)
    _, cells, fault = first
    header = [cell or "" for cell in cells]
    numbered = bool(wanted) and all(re.fullmatch("0|[1-9][0-9]*", name) for name in wanted)
    if (names is not None and wanted and wanted[0] not in header) or (
        numbered and not set(wanted) & set(header)
    ):
        remaining.put_back(taken)
        if names is None:
            names = [str(number) for number in range(len(_single(taken[0], delimiter) if fault else cells))]
        width = len(names)
        below = records(remaining, delimiter, quoting, width=width, remarks=remarks)
        return Table(list(names), 0, _below(below, width))
    if fault:
        raise InputError(f"the header can't be read: {fault}", where=where, remedy=QUOTES)
    if cells == [None]:
        raise InputError("the first line is empty", where=where, remedy="it has to name the columns")
    first_line = 1 + len(taken)
    below = records(remaining, delimiter, quoting, first=first_line, width=len(cells), remarks=remarks)
    return Table(header, len(taken), _below(below, len(cells)))


class _Lines(Iterator[str]):
    """Lines, of which some can be put back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.remaining = iter(lines)
        self.again = deque[str]()

    def __next__(self) -> str:
        return self.again.popleft() if self.again else next(self.remaining)

    def put_back(self, lines: list[str]) -> None:
        """Gives these lines again, before any other."""
        self.again.extendleft(reversed(lines))


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _below(all_records: Iterator[Record], width: int) -> Iterator[Record]:
    for line, cells, fault in all_records:
        if cells == [None] and width > 1 and not fault:
            continue
        if not fault and len(cells) != width:
            fault = uneven(len(cells), width)
        yield line, cells, fault


def uneven(cells: int, width: int) -> str:
    """Returns what is wrong with a row of so many cells."""
    return f"{cells} cells where the header has {width}"


def records(
    lines: Iterable[str],
    delimiter: str,
    quoting: Quoting = True,
    *,
    first: int = 1,
    width: int | None = None,
    header: bool = False,
    remarks: Remarks | None = None,
) -> Iterator[Record]:
    """What stands in each line, or in several where a quoted cell holds line breaks; an empty line is one
    empty cell.

    Args:
        first: the number of the first line in its file.
        width: the cells of a row; where it is not known no quote is taken as text.
        header: whether the first line that is not empty has as many cells as a row.
        remarks: takes what there is to know of quotes.
    """
    remaining = _Lines(lines)
    number = first
    while (line := next(remaining, None)) is not None:
        if not quoting or '"' not in line:
            plain = [cell or None for cell in line.rstrip("\r\n").split(delimiter)]
            width = len(plain) if header and width is None and plain != [None] else width
            yield number, plain, ""
            number += 1
            continue
        taken: list[str] = []
        cells, fault = _quoted(line, _noting(remaining, taken), delimiter, quoting == "backslash")
        if width is not None and (fault or taken):
            alone = _alone([line, *taken], delimiter, width) if quoting is True else None
            if fault and any('\\"' in each for each in (line, *taken)) and quoting is True:
                fault = f"{fault}; {BACKSLASH}"
            elif alone is not None and (fault or (delimiter == "\t" and width > 1)):
                remaining.put_back(taken)
                taken = []
                cells, fault = alone, ""
                if remarks is not None:
                    remarks.literal.append(number)
            elif alone is not None and width > 1 and remarks is not None:
                remarks.doubtful.append((number, line.rstrip("\r\n")))
        width = len(cells) if header and width is None and not fault else width
        yield number, cells, fault
        number += 1 + len(taken)


def _alone(lines: list[str], delimiter: str, width: int) -> list[str | None] | None:
    """The cells of the first of these lines, where each that is not empty is a whole row by itself; else
    None."""
    first, *others = lines
    if any(len(_single(line, delimiter)) != width for line in others if line.rstrip("\r\n")):
        return None
    cells = _single(first, delimiter)
    return cells if len(cells) == width else None


def _single(line: str, delimiter: str) -> list[str | None]:
    """The cells of one line; a quote that opens a cell and is not closed at its end, in this line, is
    text."""
    line = line.rstrip("\r\n")
    cells: list[str | None] = []
    start = 0
    while True:
        quoted, end = _cell(line, start, delimiter) if line.startswith('"', start) else (None, -1)
        if quoted is None:
            end = line.find(delimiter, start)
            end = len(line) if end < 0 else end
            quoted = line[start:end] or None
        cells.append(quoted)
        if end == len(line):
            return cells
        start = end + len(delimiter)


def _cell(line: str, start: int, delimiter: str) -> tuple[str | None, int]:
    """What stands in the quoted cell that begins at `start`, and where it ends; None where it does not end in
    this line, or not with its closing quote."""
    end = start + 1
    while (end := line.find('"', end)) >= 0 and line.startswith('"', end + 1):
        end += 2
    if end < 0 or not (end + 1 == len(line) or line.startswith(delimiter, end + 1)):
        return None, -1
    return line[start + 1 : end].replace('""', '"'), end + 1


def _quoted(line: str, more: Iterator[str], delimiter: str, backslash: bool) -> tuple[list[str | None], str]:
    """The cells of the row that begins with a line, and what is wrong with it; takes more lines while a quote
    is open."""
    cells: list[str | None] = []
    start = 0
    while True:
        if not line.startswith('"', start):
            end = line.find(delimiter, start)
            if end < 0:
                return [*cells, line[start:].rstrip("\r\n") or None], ""
            cells.append(line[start:end] or None)
            start = end + 1
            continue
        pieces: list[str] = []
        start += 1
        while True:
            end = _stop(line, start, backslash)
            if end < 0:
                pieces.append(line[start:])
                line, start = next(more, ""), 0
                if not line:
                    return (
                        cells,
                        "a quote opens a cell and is never closed, so that all that follows is in it",
                    )
            elif backslash and line[end] == "\\":
                follows = line[end + 1 : end + 2]
                pieces.append(line[start:end] + (follows if follows in ('"', "\\") else f"\\{follows}"))
                start = end + 2
            elif not backslash and line.startswith('"', end + 1):
                pieces.append(line[start : end + 1])
                start = end + 2
            else:
                pieces.append(line[start:end])
                start = end + 1
                break
        cells.append("".join(pieces))
        rest = line[start : start + 40]
        if not rest.rstrip("\r\n"):
            return cells, ""
        if rest[0] != delimiter:
            return cells, f"text stands behind a closing quote: {rest.rstrip()!r}"
        start += 1


def _stop(line: str, start: int, backslash: bool) -> int:
    """Where the next quote stands, or the next backslash where that escapes; -1 for nowhere."""
    quote = line.find('"', start)
    escape = line.find("\\", start) if backslash else -1
    return min(quote, escape) if min(quote, escape) >= 0 else max(quote, escape)
