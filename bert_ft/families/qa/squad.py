"""Questions on contexts: SQuAD JSON (1.1, 2.0, DRCD), CMRC 2018's own form, and flat rows in any file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.formats import chosen, json_rows
from bert_ft.data.formats.delimited import decode
from bert_ft.data.rows import Canonical
from bert_ft.errors import InputError

LISTED = 50  # ids that a note names
NOTES = {
    "mended": "answers had a wrong answer_start; mended, as their text occurs once in the context",
    "found": "answers have no answer_start; found, as their text occurs once in the context",
    "lost": "answers are not where they should be, and occur never or several times in the context: good for "
    "scoring, not for training",
}
"""What is said of answers whose place in the context is not the one that the data gives."""
KEYS = {"id": "query_id", "question": "query_text"}  # ours -> CMRC 2018's


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> pa.Table:
    """The questions of a nested file as rows: id, question, context, answers, title; other JSON as
    `json_rows` reads it.

    `answers` are {"text": [...], "answer_start": [...]} as on the hub; null where the question has no such
    key.
    """
    try:
        tree = reading.loads(decode(path, data.encoding, lenient=True))
    except json.JSONDecodeError:
        tree = None  # JSON lines, or a fault that their reader tells
    if isinstance(tree, dict) and isinstance(tree.get("data"), list) and "id" not in tree:
        articles = tree["data"]
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict) and "context_text" in tree[0]:
        articles = [{"title": part.get("title"), "paragraphs": [part]} for part in tree]
    else:
        return json_rows.read(path, wanted, encoding=data.encoding, optional=optional)
    rows = list(_flat(articles, path))
    if not rows:
        raise InputError("there is no question in it", where=str(path))
    columns = chosen(list(rows[0]), wanted, optional, str(path))
    return pa.table({key: json_rows.array([row[key] for row in rows], key, path) for key in columns})


def _flat(articles: list[Any], path: Path) -> Iterator[dict[str, Any]]:
    place = ""
    try:
        for a, article in enumerate(articles):
            place = f"data[{a}]"
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f"data[{a}].paragraphs[{p}]"
                context = paragraph["context"] if "context" in paragraph else paragraph["context_text"]
                for q, question in enumerate(paragraph["qas"]):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    for part in (article, paragraph, question):
                        if twice := getattr(part, "keys_twice", ()):
                            raise ValueError(f"the key '{min(twice)}' is there twice")
                    row = {key: question.get(key, question.get(other)) for key, other in KEYS.items()}
                    place += f" (question '{row['id']}')"
                    found = pairs(question.get("answers"))
                    if found and question.get("is_impossible"):
                        raise ValueError("is_impossible is true, and yet there are answers")
                    answers = found and {"text": [t for t, _ in found], "answer_start": [s for _, s in found]}
                    empty: dict[str, list[Any]] = {"text": [], "answer_start": []}
                    row |= {"context": context, "answers": empty if found == [] else answers}
                    for key, value in row.items():
                        if fault := next(reading.faults(value), ""):
                            raise ValueError(f"'{key}' holds {fault}")
                    yield row | {"title": article.get("title")}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
        raise InputError(
            message, where=f"{path}, {place}", remedy="SQuAD's form: data, paragraphs, context, qas, answers"
        ) from None


def pairs(cell: Any) -> list[tuple[str, int | None]] | None:
    """(text, answer_start) of every gold answer of a question; None where the cell is empty.

    A cell is a list of {"text", "answer_start"}, the hub's {"text": [...], "answer_start": [...]}, a list of
    texts, or (in CSV) one text or any of these as JSON.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(cell, str):
        try:
            parsed = reading.strict(cell) if cell.lstrip().startswith(("[", "{")) else None
        except json.JSONDecodeError:
            parsed = None
        cell = parsed if isinstance(parsed, (list, dict)) else [cell] if cell.strip() else []
    if cell is None:
        return None
    if isinstance(cell, Mapping):
        texts = cell.get("text")
        starts = cell.get("answer_start")
        if isinstance(texts, str):
            texts = [texts]
            starts = [starts]
        starts = [None] * len(texts or []) if starts is None else starts
        if texts is None or len(texts) != len(starts):
            raise ValueError(f"{len(texts or [])} answer texts have {len(starts)} answer_starts")
        cell = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    found = [
        (item, None) if isinstance(item, str) else (item.get("text"), item.get("answer_start"))
        for item in cell
    ]
    for text, start in found:
        if not isinstance(text, str):
            raise ValueError(f"an answer is {text!r}, not a text")
        if reading.HALF.search(text):
            raise ValueError("an answer holds half a surrogate pair")
        if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
            raise ValueError(f"answer_start is {start!r}, not a whole number")
        if start is not None and start < 0:
            raise ValueError(f"answer_start is {start}: an offset is 0 or more")
    return found


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
