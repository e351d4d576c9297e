"""JSON and JSONL of words with tags, or of raw text with character spans in the forms that annotation tools
export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.formats import json_rows
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError

READ = ("text", "data", "answer", "label", "labels", "spans", "entities", "annotations")
KEYS = READ[3:]
SPANS = pa.list_(pa.struct({"start": pa.int64(), "end": pa.int64(), "label": pa.string()}))


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """Rows of words and tags as they are; rows of text as strings under the words' name, with `SPANS` (ends
    exclusive) under the tags'.

    The text is under `data.columns.tokens`, or "text". Spans are under `data.columns.tags`, or one of `KEYS`:
    lists [start, end, type] (Doccano); objects with start, end and label (Prodigy), start_offset and
    end_offset (Doccano), or a value (Label Studio); or {type: {surface: [[start, end], ...]}} with inclusive
    ends (CLUENER).

    Raises:
        InputError: a row in none of these forms, a span whose text is not the surface that stands beside it.
    """
    rows = json_rows.objects(path, data.encoding)
    words, tags = (data.columns.get(role, role) for role in ("tokens", "tags"))
    spoken = next((row[words] for row in rows if row.get(words)), None)
    if isinstance(spoken, list) and not isinstance(spoken[0], dict):
        return Raw(json_rows.table(rows, path, wanted, optional), str(path))
    texts = []
    spans = []
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if faults := {
            key: fault for key, fault in getattr(row, "faults", {}).items() if key in (words, tags, *READ)
        }:
            raise InputError("'{}' {}".format(*min(faults.items())), where=where)
        if row.get("answer", "accept") != "accept":  # Prodigy's
            raise InputError(
                f"this row's answer is '{row['answer']}'", where=where, remedy="export accepted rows only"
            )
        inner = row["data"] if isinstance(row.get("data"), dict) else row
        text = inner.get(words) if isinstance(inner.get(words), str) else inner.get("text")
        if not isinstance(text, str):
            raise InputError(
                f"no '{words}' (a list of words) and no 'text'",
                where=where,
                remedy="name the keys: --tokens KEY --tags KEY",
            )
        if reading.HALF.search(text):
            decode(path, data.encoding)  # says which byte it is, where it is not an escape that stands there
            raise InputError("the text holds half a surrogate pair", where=where)
        key = next((key for key in (tags, *KEYS) if key in row), None)
        texts.append(text)
        spans.append(
            None if key is None else [_checked(mark, text, where) for mark in _marks(row[key], where)]
        )
    columns = {words: pa.array(texts, pa.string()), tags: pa.array(spans, SPANS)}
    for name in wanted:
        if name not in columns:
            columns[name] = json_rows.table(rows, path, [name])[name]
    return Raw(pa.table(columns), str(path))


def _marks(value: Any, where: str) -> list[tuple[Any, ...]]:
    """(start, end, type[, surface]) of each span of a row."""
    try:
        return _read_marks(value, where)
    except (AttributeError, TypeError, ValueError):
        raise InputError(
            f"no spans: {value!r:.80}", where=where, remedy="a span is a start, an end and a type"
        ) from None


def _read_marks(value: Any, where: str) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):  # CLUENER
        return [
            (start, end + 1, kind, surface)
            for kind, places in value.items()
            for surface, limits in places.items()
            for start, end in limits
        ]
    if value and isinstance(value[0], dict) and "result" in value[0]:  # Label Studio: one or more annotators
        valid = [each for each in value if not each.get("was_cancelled")]
        if len(valid) != 1:
            message = f"{len(valid)} annotations of one text"
            raise InputError(message, where=where, remedy="export one annotation of each text")
        value = valid[0]["result"]
    return [_mark(item) for item in value or []]


def _mark(item: Any) -> tuple[Any, ...]:
    if isinstance(item, dict):
        item = item.get("value", item)
        label = item.get("label") or next(iter(item.get("labels") or []), None)
        return (
            item.get("start", item.get("start_offset")),
            item.get("end", item.get("end_offset")),
            label,
            item.get("text"),
        )
    return tuple(item) if isinstance(item, list) else (item,)


def _checked(mark: tuple[Any, ...], text: str, where: str) -> dict[str, Any]:
    start, end, label, surface = (*mark, None, None, None)[:4]
    if (
        type(start) is not int
        or type(end) is not int
        or not isinstance(label, str)
        or reading.HALF.search(label)
    ):
        raise InputError(f"no span: {mark!r:.80}", where=where, remedy="a span is a start, an end and a type")
    if surface is not None and start >= 0 and text[start:end] != surface:
        raise InputError(
            f"the span {start} to {end} is {text[start:end]!r:.60} in the text, and {surface!r:.60} beside "
            "it",
            where=where,
            remedy="offsets count characters (code points), not bytes or UTF-16 units",
        )
    return {"start": start, "end": end, "label": label}
