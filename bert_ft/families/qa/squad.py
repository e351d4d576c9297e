"""Files of questions on contexts: SQuAD JSON and what is like it (CMRC 2018, DRCD, KorQuAD 1.0 and 2.0, MRQA,
Haystack, simpletransformers), in one document or an object a line; and flat rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.formats import chosen, json_rows
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.qa.answers import Note, Tally, pairs, start_of
from bert_ft.metrics.squad import tokens

IDS = ("id", "query_id", "qid", "guid")
"""What SQuAD, CMRC 2018, MRQA and KLUE call the id of a question; the first that is there counts."""
QUESTIONS = ("question", "query_text")
OWN = ("id", "question", "context", "answers", "title")
FORMS = (
    "SQuAD's form is data, paragraphs, context, qas, answers; rows have id, question, context, answers "
    "(--set data.columns.ROLE=KEY where they are called otherwise)"
)


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """The questions of a nested file as rows: id, question, context, answers, title, and what else is wanted
    of the keys of an article, a paragraph or a question; other JSON as `json_rows` reads it.

    `answers` are {"text": [...], "answer_start": [...]} as on the hub; null where the question has no such
    key.
    """
    tree = _parsed(path, data.encoding)
    document = isinstance(tree, dict) and isinstance(tree.get("data"), list) and "id" not in tree
    items = tree["data"] if document else [tree] if _is_nested(tree) else tree
    if document and not items:
        raise InputError("there is no question in it", where=str(path))
    if not isinstance(items, list) or not any(map(_is_nested, items)):
        return _flat(path, items if document else None, wanted, data, optional)
    tally = Tally()
    rows = list(_Nested(wanted, tally).rows(items, "data" if document else "", path))
    if not rows:
        raise InputError("there is no question in it", where=str(path))
    available = [key for key in rows[0] if key in OWN or any(row[key] is not None for row in rows)]
    columns = chosen(available, wanted, optional, str(path))
    arrays = {key: json_rows.array([row[key] for row in rows], key, path) for key in columns}
    return Raw(pa.table(arrays), str(path), notes=tally.notes())


def _parsed(path: Path, encoding: str) -> Any:
    """The document, or the list of the objects of a file of one a line; None where it is no JSON, which its
    reader tells."""
    text = decode(path, encoding, lenient=True)
    if path.suffix.lower() != ".jsonl":
        try:
            return reading.loads(text)
        except json.JSONDecodeError:
            if text.lstrip().startswith("["):
                return None
    try:
        return [reading.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError:
        return None


def _is_nested(item: Any) -> bool:
    return isinstance(item, dict) and ("paragraphs" in item or "qas" in item or "header" in item)


def _flat(
    path: Path, items: list[Any] | None, wanted: list[str], data: Data, optional: tuple[str, ...]
) -> Raw:
    """Rows of a question each; `items` where they are a part of the document."""
    answers = data.columns.get("answers", "answers")
    try:
        if items is None:
            return Raw(json_rows.read(path, wanted, encoding=data.encoding, optional=optional), str(path))
        if not all(isinstance(item, dict) for item in items):
            raise InputError("'data' holds something else than objects", where=str(path))
        return Raw(json_rows.table(items, path, wanted, optional), str(path))
    except InputError as error:
        if error.message.startswith("no key"):
            error.remedy = f"{error.remedy}; {FORMS}" if error.remedy else FORMS
        if not error.message.startswith(f"'{answers}' "):
            raise
    # answers of several forms, or numbers among texts, which a column can't hold
    tally = Tally()
    rows = json_rows.objects(path, data.encoding) if items is None else items
    rows = [_alike(row, answers, tally.of(str(row.get(data.columns.get("id", "id"))))) for row in rows]
    return Raw(json_rows.table(rows, path, wanted, optional), str(path), notes=tally.notes())


def _alike(row: dict[str, Any], answers: str, note: Note) -> dict[str, Any]:
    """The row with its answers in the hub's form, where they can be read."""
    if isinstance(row, reading.Row):  # its faults are told
        return row
    try:
        return row | {answers: _hub_form(pairs(row.get(answers), note))}
    except (ValueError, AttributeError, TypeError):
        return row


# --- nested


class _Nested:
    """Reads the questions of articles and paragraphs.

    Attributes:
        wanted: the columns that are asked for. tally: counts what is read otherwise than it stands.
        place: of what is being read, for a message.
    """

    def __init__(self, wanted: list[str], tally: Tally) -> None:
        self.wanted = wanted
        self.tally = tally
        self.place = ""

    def rows(self, items: list[Any], prefix: str, path: Path) -> Iterator[dict[str, Any]]:
        """A dict a question. Raises InputError: a part that lacks something, or holds what can't be read."""
        try:
            for article, paragraph in self._paragraphs(items, prefix):
                context = paragraph["context_text" if "context_text" in paragraph else "context"]
                place = self.place
                for number, question in enumerate(paragraph["qas"]):
                    self.place = f"{place}.qas[{number}]"
                    yield self._row(context, (article, paragraph, question))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            message = f"no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
            raise InputError(message, where=f"{path}, {self.place}", remedy=_remedy(message)) from None

    def _paragraphs(self, items: list[Any], prefix: str) -> Iterator[tuple[Any, Any]]:
        """(article, paragraph) of each context; a paragraph that stands alone is its own article."""
        for number, item in enumerate(items):
            self.place = f"{prefix}[{number}]"
            if "header" in item and "qas" not in item:  # the first line of MRQA
                continue
            if "paragraphs" not in item and ("qas" in item or "context" in item or "context_text" in item):
                yield item, item
                continue
            place = self.place
            for n, paragraph in enumerate(item["paragraphs"]):
                self.place = f"{place}.paragraphs[{n}]"
                yield item, paragraph

    def _row(self, context: Any, parts: tuple[Any, Any, Any]) -> dict[str, Any]:
        question = parts[-1]
        for part in parts:
            if twice := getattr(part, "keys_twice", ()):
                raise ValueError(f"the key '{min(twice)}' is there twice")
        # MRQA's `id` is that of the source
        names = ("qid", *IDS) if "detected_answers" in question else IDS
        key = _first(question, names)
        self.place += f" (question '{key}')"
        fault = next(reading.faults(key), "")  # of a number with more digits than Python reads
        row = {"id": key if key is None or fault else str(key), "question": _first(question, QUESTIONS)}
        row |= {"context": context, "answers": _answers(question, context, self.tally.of(str(key)))}
        row |= {name: _first_of(parts, name) for name in ("title", *self.wanted) if name not in row}
        for name, value in row.items():
            if fault := next(reading.faults(value), ""):
                raise ValueError(f"'{name}' holds {fault}")
        return row


def _answers(question: Mapping[str, Any], context: str, note: Note) -> dict[str, list[Any]] | None:
    """The gold answers of a question in the hub's form; None where it says nothing of them."""
    if "detected_answers" in question:
        return _hub_form(_detected(question, context))
    cell = question.get("answers", question.get("answer"))
    if isinstance(cell, Mapping) and "html_answer_text" in cell:
        note("html")
    return _hub_form(pairs(cell, note, impossible=question.get("is_impossible")))


def _hub_form(golds: list[tuple[str, int | None]] | None) -> dict[str, list[Any]] | None:
    if golds is None:
        return None
    return {"text": [text for text, _ in golds], "answer_start": [start for _, start in golds]}


def _detected(question: Mapping[str, Any], context: str) -> list[tuple[str, int | None]]:
    """MRQA's answers: first those that have a place, as the context has them, then the others."""
    golds: list[tuple[str, int | None]] = []
    for answer in question["detected_answers"]:
        start, last = answer["char_spans"][0]
        text = context[start_of(start) : last + 1]
        if not text.strip():
            raise ValueError(f"the char_spans {answer['char_spans'][0]} of an answer are outside the context")
        golds.append((text, start))
    normal = {tokens(text) for text, _ in golds}
    others = pairs(question.get("answers")) or []
    return golds + [(text, start) for text, start in others if tokens(text) not in normal]


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of the names that is there and not null."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def _first_of(parts: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((part[name] for part in reversed(parts) if part.get(name) is not None), None)


def _remedy(message: str) -> str:
    if "is_impossible" in message:
        return "leave its answers empty, or set is_impossible to false"
    return FORMS
