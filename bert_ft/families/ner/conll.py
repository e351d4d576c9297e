"""Column files: a word a line with its columns, a blank line behind each sentence, -DOCSTART- before each
document."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, shown

WIDTHS = (
    "columns are parted by tabs, or by spaces; where each sentence has a number of columns of its own, as in "
    "CoNLL-2012, give those of words and tags from the left: --tokens 3 --tags 10"
)
DEFAULTS = {"tokens": 0, "tags": -1}
COMMENT = "^#(?:[ \t#]|(?:begin|end)(?:[ \t]|$))"  # GermEval, KLUE, MultiCoNER, CoNLL-2012
BOUNDARY = "^#(?:begin|end) document"  # CoNLL-2012's
PREFIXED = re.compile(r"O|[A-Za-z][-_]\S+")
NAME = re.compile(
    "(?:tokens?|words?|forms?|tags?|labels?|ner|ner[-_]?tags?|iob|bio"
    "|pos|pos[-_]?tags?|upos|xpos|chunks?|chunk[-_]?tags?"
    "|lemmas?|ids?|index|idx|entity|entities|types?|sentences?(?:[-_ ]?(?:id|idx|#))?|sent[-_]?ids?)",
    re.IGNORECASE,
)
BARE = re.compile(r"[^\W\d][\w-]*")


def read(text: str, path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """The sentences of a column file.

    Columns are parted by tabs where the first line has one, otherwise by spaces. `data.columns` gives their
    numbers ("0" is the first, "-1" the last); without it words are the first and tags the last. An empty cell
    between tabs is a word like any other. A line before a sentence that matches `COMMENT` is a comment where
    its last column is no tag.

    Returns:
        list columns of strings under the wanted names; `document` (int32) where the file has -DOCSTART- or
        "#begin document" lines; `file` and `line` (list of int32), where each word stands.
    Raises:
        InputError: a line with another number of columns, a column that is not there, a line that may be a
            comment or a word.
    """
    lines = pa.array(text.replace("\r\n", "\n").split("\n"), pa.string())
    bare = pac.ascii_trim_whitespace(lines)
    boundary = _mask(pac.match_substring_regex(lines, BOUNDARY))
    docstart = _mask(pac.starts_with(lines, "-DOCSTART-"))
    gap = docstart | boundary | _mask(pac.equal(bare, ""))
    docstart |= boundary & _mask(pac.starts_with(lines, "#begin"))
    hashed = _mask(pac.starts_with(lines, "#"))
    if gap.all():
        raise InputError("no sentences", where=str(path), remedy="a word a line is wanted, with its tag")
    candidate = ~gap & _mask(pac.match_substring_regex(lines, COMMENT))
    plain = next(mask for mask in (~gap & ~hashed, ~gap & ~candidate, ~gap) if mask.any())
    first = int(np.argmax(plain))
    tabbed = "\t" in lines[first].as_py()
    header = _header(lines[first].as_py(), "\t" if tabbed else None)
    gap[first] |= bool(header)
    if gap.all():
        raise InputError("no words below the header", where=f"{path}, line {first + 1}")
    cells = pac.split_pattern(
        lines if tabbed else pac.replace_substring_regex(bare, "[ \t]+", " "), "\t" if tabbed else " "
    )
    widths = pac.list_value_length(cells).to_numpy()
    width = int(widths[first])
    roles = {data.columns.get(role, role): (role, default) for role, default in DEFAULTS.items()}
    numbers = {
        name: header.index(name) if name in header else _number(name, *roles.get(name, ("", 0)), width)
        for name in wanted
    }
    if all(data.columns.get(role, "").isdigit() for role in DEFAULTS):
        widths = _uneven(widths, width, gap | candidate, max(n or 0 for n in numbers.values()))
    tag = numbers.get(data.columns.get("tags", "tags"))
    used = ~gap & ~_comments(cells, widths, width, tag, gap, candidate, path)
    if (odd := used & (widths != width)).any():
        line = int(np.argmax(odd))
        message = f"{widths[line]} columns where the other lines have {width}: {lines[line].as_py()[:60]!r}"
        remedy = WIDTHS
        if hashed[line]:
            remedy = "a comment stands before a sentence, and begins with '# '; elsewhere delete it"
        raise InputError(message, where=f"{path}, line {line + 1}", remedy=remedy)
    rows = np.flatnonzero(used)
    starts = np.flatnonzero(np.diff(np.cumsum(gap)[rows], prepend=-1))
    offsets = pa.array(np.append(starts, len(rows)), pa.int32())
    kept = cells.filter(pa.array(used))
    out = {}
    for name, number in numbers.items():
        role = roles.get(name, ("",))[0]
        if number is None or (role == "tags" and width == 1):
            if name in optional or (name == "document" and docstart.any()):
                continue
            raise _missing(name, width, lines[first].as_py(), path)
        column = pac.list_element(kept, number)
        if role == "tokens" and "tokens" not in data.columns:
            _refuse_numbered(column, starts, path)
        out[name] = pa.ListArray.from_arrays(
            offsets, pac.ascii_trim_whitespace(column) if role == "tags" else column
        )
    if docstart.any():
        out["document"] = pa.array(np.cumsum(docstart)[rows[starts]], pa.int32())
    here = pa.DictionaryArray.from_arrays(np.zeros(len(starts), np.int32), [str(path)])
    out |= {"file": here, "line": pa.ListArray.from_arrays(offsets, pa.array(rows + 1, pa.int32()))}
    notes = _notes(~gap & ~used | boundary, path)
    if header:
        notes.append(f"the first line is a header and left out: {shown(lines[first].as_py(), most=60)}")
    return Raw(pa.table(out), str(path), notes=notes)


def _header(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line, where each is the name of a column; else none."""
    cells = [cell.strip() for cell in line.strip().split(delimiter)]
    return cells if len(cells) > 1 and all(map(NAME.fullmatch, cells)) else []


def _uneven(widths: np.ndarray, width: int, apart: np.ndarray, needed: int) -> np.ndarray:
    """The widths of lines, where the columns that are needed are given from the left: a sentence of another
    width has that of the file, if all its lines have it.

    Args:
        apart: lines that are no words.
    """
    out = widths.copy()
    limits = np.flatnonzero(np.diff(np.concatenate([[True], apart, [True]]).astype(np.int8)))
    for start, stop in limits.reshape(-1, 2).tolist():
        inner = widths[start:stop]
        if inner[0] > needed and (inner == inner[0]).all():
            out[start:stop] = width
    return out


def _mask(values: Any) -> np.ndarray:
    mask: np.ndarray = values.to_numpy(zero_copy_only=False)
    return mask


def _notes(comments: np.ndarray, path: Path) -> list[str]:
    if not comments.any():
        return []
    first = int(np.argmax(comments)) + 1
    return [f"{comments.sum():,} comment lines are left out; the first: {path}, line {first}"]


def _comments(
    cells: Any,
    widths: np.ndarray,
    width: int,
    tag: int | None,
    gap: np.ndarray,
    candidate: np.ndarray,
    path: Path,
) -> np.ndarray:
    """Which lines are comments.

    Args:
        tag: the column of the tags; None: there is none.
        candidate: lines that begin as comments do.
    Raises:
        InputError: a line that may be a comment or a word.
    """
    other = np.flatnonzero(candidate)
    comment = np.zeros(len(gap), bool)
    unsure = np.zeros(len(gap), bool)
    if not len(other):
        return comment
    verdict = _verdicts(cells, widths == width, tag, candidate) if width > 1 else lambda cell: "word"
    for line, parts in zip(other.tolist(), cells.filter(pa.array(candidate)).to_pylist(), strict=True):
        same = widths[line] == width
        if same and line and not (gap[line - 1] or comment[line - 1] or unsure[line - 1]):
            continue  # behind a word no comment stands
        number = tag if same and tag is not None else -1
        found = verdict(parts[number].strip()) if not same or tag is not None else "word"
        if same:
            comment[line] = found == "comment"
            unsure[line] = found == "unsure"
        else:  # a line with fewer columns whose last is a tag is rather a broken one
            unsure[line] = found == "word" and 1 < widths[line] < width
            comment[line] = not unsure[line]
    # of each line, the last one up to it that is no comment
    latest = np.maximum.accumulate(np.where(comment, -1, np.arange(len(gap))))
    before = (latest < 0) | gap[latest]
    unsure |= comment & ~before & (widths == width)
    if unsure.any():
        line = int(np.argmax(unsure))
        shown = " ".join(cells[line].as_py())
        raise InputError(
            f"this line may be a comment or a word: {shown[:60]!r}",
            where=f"{path}, line {line + 1}",
            remedy="delete it if it is a comment; if it is a word, no other line has its "
            "tag: give such a file as CSV or JSONL, where no line is a comment",
        )
    out: np.ndarray = comment & before
    return out


def _verdicts(cells: Any, whole: np.ndarray, tag: int | None, candidate: np.ndarray) -> Callable[[str], str]:
    """What the last cell of a line tells, by the tags of the lines that are no comments: "word", "comment" or
    "unsure"."""
    rest = cells.filter(pa.array(whole & ~candidate))
    column = pac.list_element(rest, tag) if tag is not None and len(rest) else pa.array([], pa.string())
    tags = set(pac.unique(pac.ascii_trim_whitespace(column)).to_pylist())
    types = {name[2:] for name in tags if PREFIXED.fullmatch(name)}
    bare = any(not PREFIXED.fullmatch(name) for name in tags)

    def verdict(cell: str) -> str:
        if cell in tags or cell == "O":
            return "word"
        if PREFIXED.fullmatch(cell):
            return "word" if not tags or cell[2:] in types else "unsure"
        return "unsure" if bare and BARE.fullmatch(cell) else "comment"

    return verdict


def _number(name: str, role: str, default: int, width: int) -> int | None:
    """The column that a name means; None where the file has none of it."""
    if name == role:
        number = default
    elif name.lstrip("-").isdigit():
        number = int(name)
    else:
        return None
    return number % width if -width <= number < width else None


def _missing(name: str, width: int, line: str, path: Path) -> InputError:
    remedy = "0 is the first column, -1 the last: --tokens 0 --tags 3"
    if width == 1 and ("," in line or ";" in line):
        remedy = "if its columns are parted by commas or semicolons, call the file .csv (--set 'delimiter=;')"
    return InputError(f"no column '{name}': the file has {width}", where=str(path), remedy=remedy)


def _refuse_numbered(column: Any, starts: np.ndarray, path: Path) -> None:
    """Raises InputError where the words are 1, 2, 3, ... in every sentence: a column of numbers, as GermEval
    has it."""
    sizes = np.diff(np.append(starts, len(column)))
    if sizes.max(initial=0) < 2:
        return
    counted = pa.array(np.arange(1, len(column) + 1) - np.repeat(starts, sizes)).cast(pa.string())
    if pac.all(pac.equal(column, counted)).as_py():
        raise InputError(
            "the first column numbers the words: 1, 2, 3, ...",
            where=str(path),
            remedy="name the columns of the words and of the tags: --tokens 1 --tags 2",
        )
