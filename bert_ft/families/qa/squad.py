"""Files of questions on contexts: SQuAD JSON (1.1, 2.0, DRCD) and CMRC 2018's own form; and what a cell of
answers holds, whatever file it is of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.formats import chosen, json_rows
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError

KEYS = {"id": "query_id", "question": "query_text"}  # ours -> CMRC 2018's


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
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
        table = json_rows.read(path, wanted, encoding=data.encoding, optional=optional)
        return Raw(table, str(path))
    rows = list(_flat(articles, path))
    if not rows:
        raise InputError("there is no question in it", where=str(path))
    columns = chosen(list(rows[0]), wanted, optional, str(path))
    arrays = {key: json_rows.array([row[key] for row in rows], key, path) for key in columns}
    return Raw(pa.table(arrays), str(path))


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
