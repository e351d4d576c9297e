"""Questions, contexts and answers as canonical rows, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from bert_ft.config.task import Task
from bert_ft.data.rows import Canonical
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.qa.answers import Note, Tally, pairs

BESIDE = ("answer_start", "is_impossible")
"""Roles that say more of the answers, in columns of their own."""


def canonical(table: pa.Table, columns: Mapping[str, str], where: str, labelled: bool) -> Canonical:
    """Checked rows and what was mended: id, question, context (strings), answers (list of strings),
    answer_starts; article (string) where every row has a title.

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
    tally = Tally()
    all_blank = not any(isinstance(text, str) and text.strip() for text in cells["question"])
    none = [None] * len(ids)
    for row, key in enumerate(ids):
        place = _Question(key or "", f"{where}, row {row + 1}")
        place.check_id(cells["question"][row], seen)
        seen[place.key] = row
        note = tally.of(place.key)
        place.check_text("context", cells["context"][row])
        if place.check_text("question", cells["question"][row], blank=not all_blank):
            note("empty")
        beside = {role: cells.get(role, none)[row] for role in BESIDE}
        golds = place.read_answers(cells.get("answers", none)[row], note, beside)
        if golds is None:
            if labelled:
                place.fail("has no answers", "an empty list [] says that there is none in the context")
            answers.append(None)
            starts.append(None)
            continue
        located = [_locate(text, start, cells["context"][row]) for text, start in golds]
        for _, kind in located:
            if kind:
                note(kind)
        answers.append([text for text, _ in golds])
        starts.append([start for start, _ in located])
    out = {
        "id": pa.array(ids, pa.string()),
        "question": pa.array(cells["question"], pa.string()),
        "context": pa.array(cells["context"], pa.string()),
        "answers": pa.array(answers, pa.list_(pa.string())),
        "answer_starts": pa.array(starts, pa.list_(pa.int64())),
    }
    titles = cells.get("title", none)
    if all(isinstance(title, str) and title.strip() for title in titles):
        out["article"] = pa.array(titles, pa.string())
    return Canonical(pa.table(out), tally.notes())


def refuse_one_context(raw: Raw, task: Task, context: str) -> None:
    """Refuses rows on one context, the column `context`, of which whole contexts are held out."""
    held_out = task.data.validation is not None or task.run.folds is not None
    if held_out and task.data.group == context and len(raw.table[context].unique()) == 1:
        raise InputError(
            "all questions are on one context, and whole contexts are held out",
            where=raw.where,
            remedy="give a validation file, or hold out single questions: --set group=id",
        )


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

    def check_text(self, role: str, text: Any, blank: bool = False) -> bool:
        """Refuses a question or a context that is no text, or a blank one unless `blank` allows it; returns
        whether it is blank."""
        if not isinstance(text, str):
            self.fail(f"has no {role}: {text!r} is no text")
        if not blank and not text.strip():
            self.fail(f"has an empty {role}")
        return not text.strip()

    def read_answers(
        self, cell: Any, note: Note, beside: Mapping[str, Any]
    ) -> list[tuple[str, int | None]] | None:
        """What `pairs` returns; a cell that it can't read is refused. `beside`: role -> cell of `BESIDE`."""
        try:
            return pairs(cell, note, beside["answer_start"], beside["is_impossible"])
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
