"""What a cell of answers holds, whatever file it is of; and the notes on what is read otherwise than it
stands."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from bert_ft import reading

LISTED = 50  # ids that a note names
NOTES = {
    "mended": "answers had a wrong answer_start; mended, as their text occurs once in the context",
    "found": "answers have no answer_start; found, as their text occurs once in the context",
    "lost": "answers are not where they should be, and occur never or several times in the context: good for "
    "scoring, not for training",
    "column": "answers have their answer_start in a column of its own; read",
    "number": "answers are numbers, not texts; read as the text of the number",
    "blank": "answers are empty texts, the only ones of their questions; read as no answer",
    "empty": "questions are empty texts; kept, as the official scripts score every question",
    "html": "answers are read as `text` and `answer_start` of `context`; what KorQuAD 2.0 has of the HTML "
    "page (`html_answer_text`, `html_answer_start`, `raw_html`) is left out",
}
"""What is said of answers that are read otherwise than they stand in the data."""

Note = Callable[[str], None]
"""Takes a key of `NOTES`."""


class Tally:
    """Counts what was read otherwise than it stands, by question."""

    def __init__(self) -> None:
        self._counts = {kind: dict[str, int]() for kind in NOTES}

    def of(self, question: str) -> Note:
        """What counts for this question id."""

        def add(kind: str) -> None:
            self._counts[kind][question] = self._counts[kind].get(question, 0) + 1

        return add

    def notes(self) -> list[str]:
        """A line for each kind that was counted."""
        return [_line(counts, NOTES[kind]) for kind, counts in self._counts.items() if counts]


def _line(counts: Mapping[str, int], text: str) -> str:
    """`counts`: id -> how many of its answers are concerned."""
    names = ", ".join(list(counts)[:LISTED])
    if len(counts) > LISTED:
        names += f" and {len(counts) - LISTED} more"
    return f"{sum(counts.values()):,} {text} (questions {names})"


def pairs(
    cell: Any, note: Note = lambda kind: None, starts: Any = None, impossible: Any = None
) -> list[tuple[str, int | None]] | None:
    """(text, answer_start) of every gold answer of a question, the start None where none is given; an empty
    list where it has no answer, None where the cell is empty.

    Args:
        cell: a list of {"text", "answer_start"}, the hub's {"text": [...], "answer_start": [...]}, a list of
            texts, or (in CSV) one text or any of these as JSON or as Python writes it.
        note: is told what is read otherwise than it stands.
        starts: where the answers begin, of a column of its own: a number, or a list of them.
        impossible: what the question's `is_impossible` says.
    Raises:
        ValueError: it is something else.
    """
    golds = _golds(cell, note)
    if is_true(impossible):
        if any(text.strip() for text, _ in golds or []):
            raise ValueError("is_impossible is true, and yet there are answers")
        return []
    if golds is None:  # -1 beside an empty cell says that there is no answer
        return [] if str(starts).strip() in ("-1", "-1.0") else None
    if golds and not any(text.strip() for text, _ in golds):
        for _ in golds:
            note("blank")
        return []
    if starts is not None and golds and all(start is None for _, start in golds):
        given = [start_of(value) for value in _listed(starts)]
        if len(given) != len(golds):
            raise ValueError(f"{len(golds)} answer texts have {len(given)} answer_starts")
        golds = [(text, start) for (text, _), start in zip(golds, given, strict=True)]
        for _ in golds:
            note("column")
    return golds


def _golds(cell: Any, note: Note) -> list[tuple[str, int | None]] | None:
    if isinstance(cell, str):
        literal = _literal(cell) if cell.lstrip().startswith(("[", "{")) else None
        cell = literal if _is_form(literal) else [cell] if cell.strip() else []
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):  # pandas' empty cell
        return None
    if isinstance(cell, Mapping):
        cell = _of_columns(cell)
    elif isinstance(cell, (int, float)) and not isinstance(cell, bool):
        cell = [cell]
    golds = []
    for item in cell:
        text, start = (
            (item.get("text"), item.get("answer_start")) if isinstance(item, Mapping) else (item, None)
        )
        golds.append((_text(text, note), start_of(start)))
    return golds


def _of_columns(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers of {"text": [...], "answer_start": [...]}, or of a single one."""
    texts = cell.get("text")
    starts = cell.get("answer_start")
    if texts is not None and not isinstance(texts, (list, tuple)):
        texts = [texts]
        starts = [starts]
    starts = [None] * len(texts or []) if starts is None else _listed(starts)
    if texts is None or len(texts) != len(starts):
        raise ValueError(f"{len(texts or [])} answer texts have {len(starts)} answer_starts")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _text(value: Any, note: Note) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        note("number")
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"an answer is {value!r}, not a text")
    if reading.HALF.search(value):
        raise ValueError("an answer holds half a surrogate pair")
    return value


def start_of(value: Any) -> int | None:
    """Where an answer begins; None where the cell is empty, or -1, which stands for no place.

    Raises:
        ValueError: it is no whole number of 0 or more, nor the text of one.
    """
    given = value
    if isinstance(value, str) and not isinstance(value, reading.Huge):
        if not value.strip():
            return None
        try:
            value = float(value)
        except ValueError:
            value = given
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"answer_start is {given!r}, not a whole number")
    if value < -1:
        raise ValueError(f"answer_start is {value}: an offset is 0 or more, and -1 where there is none")
    return None if value == -1 else value


def is_true(value: Any) -> bool:
    """Whether a cell says yes: true, 1, or the text of one."""
    return str(value).strip().lower() in ("true", "1", "1.0", "yes")


def _listed(value: Any) -> list[Any]:
    """A list, also one that is written as text; anything else as the only item of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _literal(value)
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_form(value: Any) -> bool:
    """Whether a value that stood in a cell as text is a list of answers, or an object of them, and not the
    answer itself ("[1]")."""
    if isinstance(value, Mapping):
        return "text" in value
    return isinstance(value, list) and all(isinstance(item, (str, Mapping)) for item in value)


def _literal(text: str) -> Any:
    """The value of a list or an object as JSON or as Python writes it, NumPy's arrays in it as lists; None
    where the text is neither.

    Raises:
        ValueError: NumPy has written texts without commas between them, which can't be told apart.
    """
    try:
        return reading.strict(text)
    except json.JSONDecodeError:
        pass
    try:
        tree = _Arrays().visit(ast.parse(text.strip(), mode="eval"))
        value = ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)]
    kinds = [kind for kind in kinds if kind != tokenize.NL]
    if any(kind == after == tokenize.STRING for kind, after in pairwise(kinds)):
        raise ValueError("texts without commas between them, as NumPy prints them: write JSON")
    return value


class _Arrays(ast.NodeTransformer):
    """`array([...], dtype=object)` as `[...]`, `np.int64(3)` as `3`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.args[0] if len(node.args) == 1 else node
