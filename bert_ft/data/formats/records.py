"""What a table in CSV or TSV holds, a row at a time: every cell is the text that stands there.

A quote means something only around a whole cell. One that opens a cell and can't be the first of such a pair
is text: nobody who quotes cells writes it, and everybody does who joins texts by tabs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bert_ft.data.formats import chosen
from bert_ft.data.formats.quotes import Remarks
from bert_ft.errors import InputError

Quoting = bool | Literal["backslash", "strict"]
"""Whether cells may be quoted, and how a quote within them is written: twice, or behind a backslash;
"strict": a quote that opens a cell is never text."""

Record = tuple[int, list[str | None], str]
"""(the line where a row begins, its cells, what is wrong with it); None is an empty cell without quotes."""

UNEVEN = "quote cells that hold the delimiter; quotes that are plain text want --set quoting=false"
QUOTES = "write a quote within a quoted cell twice; where quotes are plain text: --set quoting=false"
DELIMITERS = ",;\t|，；"
BACKSLASH = 'quotes are escaped by backslashes (\\"), which --set quoting=backslash reads'


@dataclass(frozen=True)
class Table:
    """A table as it is read.

    Attributes:
        columns: their names.
        header: how many lines they take; 0 in a table without a header line.
        rows: those below it, as they are asked for.
        first: the first line, as it stands.
    """

    columns: list[str]
    header: int
    rows: Iterator[Record]
    first: str = ""

    def select(self, wanted: Sequence[str], optional: Sequence[str], where: str) -> list[str]:
        """Returns what `formats.chosen` does; where a column is missing and the header looks like a row, the
        error says how a table without a header line is read."""
        try:
            return chosen(self.columns, wanted, optional, where)
        except InputError as error:
            if error.message.startswith("no column") and "did you mean" not in error.remedy:
                error.remedy += self._remedy(wanted)
            raise

    def _remedy(self, wanted: Sequence[str]) -> str:
        """How a table is read whose columns are not those that are wanted."""
        for delimiter in DELIMITERS:
            if set(self.first.rstrip("\r\n").split(delimiter)) >= set(wanted):
                value = "'delimiter=\"\\t\"'" if delimiter == "\t" else f'"delimiter={delimiter}"'
                return f"; its columns are parted by another character: --set {value}"
        return (
            "; where the first line is no header, give the columns by number, from 0 (--text 1 --label 0), "
            'or by name: --set \'data.names=["label", "text"]\''
        )


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
    by_name = bool(names) and bool(wanted) and wanted[0] not in header
    if by_name or (names is None and _numbered(wanted, header)):
        remaining.put_back(taken)
        if names is None:
            names = [str(number) for number in range(len(_single(taken[0], delimiter) if fault else cells))]
        width = len(names)
        below = records(remaining, delimiter, quoting, width=width, remarks=remarks)
        return Table(list(names), 0, _below(below, width), taken[0])
    if fault:
        raise InputError(f"the header can't be read: {fault}", where=where, remedy=QUOTES)
    if cells == [None]:
        raise InputError("the first line is empty", where=where, remedy="it has to name the columns")
    first_line = 1 + len(taken)
    below = records(remaining, delimiter, quoting, first=first_line, width=len(cells), remarks=remarks)
    return Table(header, len(taken), _below(below, len(cells)), taken[0])


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


def _numbered(wanted: Sequence[str], header: Sequence[str]) -> bool:
    """Whether columns are asked for by number, from 0, of a table whose first line is a row: not where that
    line counts the columns itself."""
    if not wanted or not all(re.fullmatch("0|[1-9][0-9]*", name) for name in wanted):
        return False
    counted = [int(name) for name in header if re.fullmatch("0|[1-9][0-9]*", name)]
    counts = len(counted) > 1 and counted == list(range(counted[0], counted[0] + len(counted)))
    return not (counts and set(wanted) <= set(header)) and max(map(int, wanted)) < len(header)


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
    remarks = remarks or Remarks()
    number = first
    while (line := next(remaining, None)) is not None:
        if not quoting or '"' not in line:
            plain = [cell or None for cell in line.rstrip("\r\n").split(delimiter)]
            width = len(plain) if header and width is None and plain != [None] else width
            if quoting and plain != [None]:
                remarks.seen.add(plain)
            yield number, plain, ""
            number += 1
            continue
        taken: list[str] = []
        cells, fault = _quoted(line, _noting(remaining, taken), delimiter, quoting == "backslash")
        if width is not None and quoting is True and (fault or taken):
            several = [line, *(each for each in taken if each.rstrip("\r\n"))]
            whole = [row for each in several if len(row := _single(each, delimiter)) == width]
            mostly_rows = len(whole) > len(several) / 2
            if fault and any('\\"' in each for each in several):
                fault = f"{fault}; {BACKSLASH}"
            elif len(_single(line, delimiter)) == width and mostly_rows:
                # nobody who quotes cells has tabs in them, unless what stands there can't be rows
                by_tabs = delimiter == "\t" and width > 1 and remarks.seen.fit(whole) is not False
                if fault or by_tabs:
                    cells, fault = _single(line, delimiter), ""
                    remarks.literal.append(number)
                    remaining.put_back(taken)
                    taken = []
                elif width > 1:
                    remarks.suspects.append((number, line.rstrip("\r\n"), whole))
            if fault and mostly_rows:  # the others are rows, and read as such
                remaining.put_back(taken)
                taken = []
        if not fault and cells != [None]:
            remarks.seen.add(cells)
        width = len(cells) if header and width is None and not fault else width
        yield number, cells, fault
        number += 1 + len(taken)


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
