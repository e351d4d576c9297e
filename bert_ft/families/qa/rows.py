"""Questions, contexts and answers as canonical rows, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from bert_ft.data.rows import Canonical
from bert_ft.errors import InputError
from bert_ft.families.qa.squad import pairs

LISTED = 50  # ids that a note names
NOTES = {
    "mended": "answers had a wrong answer_start; mended, as their text occurs once in the context",
    "found": "answers have no answer_start; found, as their text occurs once in the context",
    "lost": "answers are not where they should be, and occur never or several times in the context: good for "
    "scoring, not for training",
}
"""What is said of answers whose place in the context is not the one that the data gives."""


def canonical(table: pa.Table, columns: Mapping[str, str], where: str, labelled: bool) -> Canonical:
    """Checked rows and what was mended: id, question, context (strings), answers (list of strings),
    answer_starts.

    `answer_starts` are characters (code points) of the context; -1 where an answer was not found. A wrong or
    absent one is put right only where the text occurs exactly once in the context. `answers` is null where a
    row has none.

    Raises:
        InputError: the first question without id, text or context, with an id that is there twice, or with
            answers that are none.
    """
    cells = {
        role: table[column].to_pylist() for role, column in columns.items() if column in table.column_names
    }
    ids = [None if key is None else str(key) for key in cells["id"]]
    seen: dict[str, int] = {}
    answers: list[list[str] | None] = []
    starts: list[list[int] | None] = []
    counted = {kind: dict[str, int]() for kind in NOTES}
    for row, key in enumerate(ids):
        place = _Question(key or "", f"{where}, row {row + 1}")
        place.check_id(cells["question"][row], seen)
        seen[place.key] = row
        for role in ("question", "context"):
            place.check_text(role, cells[role][row])
        golds = place.read_answers(cells["answers"][row]) if "answers" in cells else None
        if golds is None:
            if labelled:
                place.fail("has no answers", "an empty list [] says that there is none in the context")
            answers.append(None)
            starts.append(None)
            continue
        located = [_locate(text, start, cells["context"][row]) for text, start in golds]
        for _, kind in located:
            if kind:
                counted[kind][place.key] = counted[kind].get(place.key, 0) + 1
        answers.append([text for text, _ in golds])
        starts.append([start for start, _ in located])
    out = {
        "id": pa.array(ids, pa.string()),
        "question": pa.array(cells["question"], pa.string()),
        "context": pa.array(cells["context"], pa.string()),
        "answers": pa.array(answers, pa.list_(pa.string())),
        "answer_starts": pa.array(starts, pa.list_(pa.int64())),
    }
    notes = [_note(questions, NOTES[kind]) for kind, questions in counted.items() if questions]
    return Canonical(pa.table(out), notes)


@dataclass(frozen=True)
class _Question:
    """A question and its place, for what may be wrong with it."""

    key: str
    where: str

    def fail(self, what: str, remedy: str = "") -> NoReturn:
        raise InputError(f"question '{self.key}' {what}", where=self.where, remedy=remedy)

    def check_id(self, question: Any, seen: Mapping[str, int]) -> None:
        """Refuses a question without an id, or with one that is there already, in row `seen[id]`."""
        remedy = "give each question an id of its own"
        if not self.key.strip():
            raise InputError(f"a question has no id: {str(question)[:80]!r}", where=self.where, remedy=remedy)
        if self.key in seen:
            self.fail(f"is there twice, first in row {seen[self.key] + 1}", remedy)

    def check_text(self, role: str, text: Any) -> None:
        """Refuses a question or a context that is no text, or a blank one."""
        if not isinstance(text, str):
            self.fail(f"has no {role}: {text!r} is no text")
        if not text.strip():
            self.fail(f"has an empty {role}")

    def read_answers(self, cell: Any) -> list[tuple[str, int | None]] | None:
        """What `pairs` returns; a cell that it can't read is refused."""
        try:
            return pairs(cell)
        except (ValueError, AttributeError, TypeError) as error:
            self.fail(
                f"has answers that can't be read: {error}",
                'as in [{"text": "...", "answer_start": 17}], or {"text": [...], "answer_start": [...]}',
            )


def _locate(text: str, start: int | None, context: str) -> tuple[int, str]:
    """Where an answer begins in its context, -1 where that can't be said; and the note that this needs, a key
    of `NOTES`, or ""."""
    if start is not None and text.strip() and context.startswith(text, start):
        return start, ""
    place = _only(text, context)
    if place < 0:
        return place, "lost"
    return place, "found" if start is None else "mended"


def _only(text: str, context: str) -> int:
    """Where the text begins in the context if it is there exactly once, else -1."""
    first = context.find(text) if text.strip() else -1
    return first if context.find(text, first + 1) < 0 else -1


def _note(questions: dict[str, int], text: str) -> str:
    """`questions`: id -> how many of its answers are concerned."""
    names = ", ".join(list(questions)[:LISTED])
    if len(questions) > LISTED:
        names += f" and {len(questions) - LISTED} more"
    return f"{sum(questions.values()):,} {text} (questions {names})"
