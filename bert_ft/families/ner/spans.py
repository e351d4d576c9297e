"""JSON and JSONL of words with tags, or of raw text with character spans in the forms that annotation tools
export."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data
from bert_ft.data.formats import json_rows
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats import bioc, label_studio
from bert_ft.families.ner.formats.collected import (
    NOT_ANNOTATED,
    Asked,
    Collected,
    LeftOut,
    of_token_spans,
    same_surface,
)

READ = ("text", "data", "answer", "label", "labels", "spans", "entities", "annotations", "completions")
KEYS = READ[3:]
GLINER = ("tokenized_text", "ner")
UNACCEPTED = ("reject", "ignore")  # answers that Prodigy writes
PAIRS = re.compile(r"\s*\[\s*(?:\[|null)")  # spaCy's, of a whole document
UTF16 = "rows whose offsets count UTF-16 units, as browsers do, are read so"

Mark = tuple[Any, ...]
"""(start, end, type[, surface])"""


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """Rows of words and tags as they are; rows of text as strings under the words' name, with `SPANS` (ends
    exclusive) under the tags'.

    The text is under `data.columns.tokens`, or "text". Spans are under `data.columns.tags`, or one of `KEYS`:
    lists [start, end, type] (Doccano); objects with start, end and label (Prodigy), start_offset and
    end_offset (Doccano), or a value (Label Studio); or {type: {surface: [[start, end], ...]}} with inclusive
    ends (CLUENER). Also pairs ["text", {"entities": [[start, end, type], ...]}] (spaCy), these under
    "annotations" (the NER annotator of the browser), spans of words with inclusive ends (GLiNER), and BioC.

    Raises:
        InputError: a row in none of these forms, a span whose text is not the surface that stands beside it.
    """
    asked = Asked(path, wanted, data, optional)
    text = decode(path, data.encoding, lenient=True)
    if (pairs := _pairs(text, path)) is not None:
        return _of_pairs(pairs, asked)
    if path.suffix.lower() == ".json" and '"passages"' in text:
        value = _document(text, path)
        if isinstance(value, dict) and isinstance(value.get("documents"), list):
            return bioc.of_json(value, asked)
    rows = json_rows.of_text(text, path)
    for words in dict.fromkeys((asked.words, GLINER[0])):
        spoken = next((row[words] for row in rows if row.get(words)), None)
        if isinstance(spoken, list) and not isinstance(spoken[0], dict):
            return _of_words(rows, words, asked)
    return _of_texts(rows, asked)


# --- rows of words


def _of_words(rows: list[dict[str, Any]], words: str, asked: Asked) -> Raw:
    """Lists of words with tags, or with spans of words."""
    tags = asked.tags if words == asked.words and any(asked.tags in row for row in rows) else GLINER[1]
    if not any(tags in row for row in rows):
        tags = asked.tags
    renamed = {asked.words: words, asked.tags: tags}
    left = LeftOut()
    spanned = next((row[tags] for row in rows if row.get(tags)), None)
    if isinstance(spanned, list) and isinstance(spanned[0], list):
        rows = [
            row | {tags: _of_spans(row, words, tags, f"{asked.path}, row {number}", left)}
            for number, row in enumerate(rows, 1)
        ]
    table = json_rows.table(
        rows,
        asked.path,
        [renamed.get(name, name) for name in asked.wanted],
        tuple(renamed.get(name, name) for name in asked.optional),
    )
    back = {found: name for name, found in renamed.items()}
    table = table.rename_columns([back.get(name, name) for name in table.column_names])
    kept = [_kept(row, number, asked, left) for number, row in enumerate(rows, 1)]
    if not all(kept):
        if not any(kept):
            raise InputError("no row is left", where=str(asked.path), remedy="; ".join(left.notes()))
        numbers = np.flatnonzero(kept)
        table = table.take(pa.array(numbers))
        table = table.append_column("file", pa.array([str(asked.path)] * len(numbers)).dictionary_encode())
        table = table.append_column("row", pa.array(numbers + 1, pa.int32()))
    return Raw(table, str(asked.path), notes=left.notes())


def _kept(row: dict[str, Any], number: int, asked: Asked, left: LeftOut) -> bool:
    """Whether the answer of a row, which Prodigy writes, is that it is right."""
    if (answer := row.get("answer")) not in UNACCEPTED:
        return True
    left.add(f"rows whose answer is {answer!r:.40}", f"{asked.path}, row {number}")
    return False


def _of_spans(row: dict[str, Any], words: str, tags: str, where: str, left: LeftOut) -> list[str] | None:
    spans = row.get(tags)
    if spans is None:
        return None
    for span in spans if isinstance(spans, list) else [spans]:
        if not _is_span(span) or len(span) != 3:
            raise InputError(
                f"no span: {span!r:.80}",
                where=where,
                remedy="a span of words is the first word, the last and a type",
            )
    plain = [(first, last + 1, kind) for first, last, kind in spans]
    return of_token_spans(len(row.get(words) or []), plain, where, left)


# --- rows of text


def _of_texts(rows: list[dict[str, Any]], asked: Asked) -> Raw:
    collected = Collected(asked)
    missing = []
    units = 0
    for number, row in enumerate(rows, 1):
        where = f"{asked.path}, row {number}"
        if isinstance(row, reading.Row) and (faults := _faults(row, asked)):
            raise InputError("'{}' {}".format(*min(faults.items())), where=where)
        if row.get("answer") in UNACCEPTED:
            collected.skip(f"rows whose answer is {row['answer']!r:.40}")
            continue
        text = _text(row, asked, where)
        key = next((key for key in (asked.tags, *KEYS) if key in row), None)
        marks: list[Mark] | None = [] if "annotation_id" in row or row.get("answer") == "accept" else None
        if key is not None and label_studio.is_export(row, key):
            items, skipped = label_studio.results(row[key], where)
            if skipped:
                collected.skip(label_studio.CANCELLED)
                continue
            marks = _marks(items and label_studio.labels(items, where, collected.left), where)
        elif key is not None:
            marks = _marks(row[key], where)
        elif marks is None:
            missing.append(where)
        if marks and _utf16(text, marks):
            units += 1
            marks = _of_utf16(text, marks)
        collected.add(text, None if marks is None else [_checked(mark, text, where) for mark in marks])
    if missing and asked.labelled:
        raise InputError(
            f"{len(missing)} rows have no tags",
            where=missing[0],
            remedy=f"give '{asked.tags}' a value there ([] where no entity is), or remove the rows",
        )
    for name in asked.wanted:
        if name not in (asked.words, asked.tags):
            column = json_rows.table(rows, asked.path, [name], asked.optional)
            if column.num_columns:
                values = column[name].to_pylist()
                collected.others[name] = [values[number - 1] for _, number in collected.places]
    return collected.raw([f"{units:,} {UTF16}"] if units else None)


def _faults(row: reading.Row, asked: Asked) -> dict[str, str]:
    return {key: fault for key, fault in row.faults.items() if key in (asked.words, asked.tags, *READ)}


def _text(row: dict[str, Any], asked: Asked, where: str) -> str:
    inner = row["data"] if isinstance(row.get("data"), dict) else row
    text = inner.get(asked.words) if isinstance(inner.get(asked.words), str) else inner.get("text")
    if not isinstance(text, str):
        raise InputError(
            f"no '{asked.words}' (a list of words) and no 'text'"
            if asked.words not in row
            else f"'{asked.words}' is neither a list of words nor a text: {row[asked.words]!r:.60}",
            where=where,
            remedy="name the keys: --tokens KEY --tags KEY; this row has " + ", ".join(list(row)[:20]),
        )
    if not text.isascii() and reading.HALF.search(text):
        # says which byte it is, where it is not an escape that stands there
        decode(asked.path, asked.data.encoding)
        raise InputError("the text holds half a surrogate pair", where=where)
    return text


def _marks(value: Any, where: str) -> list[Mark] | None:
    """(start, end, type[, surface]) of each span of a row; None where nobody has annotated it."""
    try:
        return _read_marks(value, where)
    except (AttributeError, TypeError, ValueError, KeyError):
        raise InputError(
            f"no spans: {value!r:.80}", where=where, remedy="a span is a start, an end and a type"
        ) from None


def _read_marks(value: Any, where: str) -> list[Mark] | None:
    if value is None:
        return None
    if isinstance(value, dict):  # CLUENER
        return [
            (start, end + 1, kind, surface)
            for kind, places in value.items()
            for surface, limits in places.items()
            for start, end in limits
        ]
    return [_mark(item, where) for item in value]


def _mark(item: Any, where: str) -> Mark:
    if isinstance(item, dict):
        item = item.get("value", item)
        start = _first(item, ("start", "start_offset", "start_idx"))
        end = _first(item, ("end", "end_offset", "end_idx"))
        if start is None or end is None:
            raise InputError(
                f"no span: without a start and an end; it has {', '.join(map(str, item)):.80}",
                where=where,
                remedy="a span is an object with start, end (exclusive) and label, or a list of these",
            )
        if "end_idx" in item and item.get("end") is None and isinstance(end, int):  # CMeEE's is inclusive
            end += 1
        label = item.get("label") or label_studio.label(item, where) or item.get("type")
        return (start, end, label, item.get("text", item.get("entity")))
    return tuple(item) if isinstance(item, list) else (item,)


def _first(item: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _is_span(mark: Any) -> bool:
    return (
        isinstance(mark, (list, tuple))
        and len(mark) >= 3
        and type(mark[0]) is int
        and type(mark[1]) is int
        and isinstance(mark[2], str)
        and (mark[2].isascii() or not reading.HALF.search(mark[2]))
    )


def _checked(mark: Mark, text: str, where: str) -> dict[str, Any]:
    if not _is_span(mark):
        raise InputError(f"no span: {mark!r:.80}", where=where, remedy="a span is a start, an end and a type")
    start, end, label, surface = (*mark, None)[:4]
    if isinstance(surface, str) and start >= 0 and not same_surface(text[start:end], surface):
        raise InputError(
            f"the span {start} to {end} is {text[start:end]!r:.60} in the text, and {surface!r:.60} beside "
            "it",
            where=where,
            remedy="what counts are the offsets, in characters (code points), not bytes or UTF-16 units; if "
            'they are right, as Label Studio has them with granularity="word", take "text" out of the spans',
        )
    return {"start": start, "end": end, "label": label}


def _utf16(text: str, marks: list[Mark]) -> bool:
    """Whether the surfaces of a row stand in the text where offsets in UTF-16 units say, and not where
    offsets in characters do."""
    if not text or max(text) <= "\uffff" or not all(_is_span(mark) and len(mark) > 3 for mark in marks):
        return False
    if not all(isinstance(mark[3], str) for mark in marks):
        return False
    return not _fits(text, marks) and _fits(text, _of_utf16(text, marks))


def _fits(text: str, marks: list[Mark]) -> bool:
    return all(mark[0] >= 0 and same_surface(text[mark[0] : mark[1]], mark[3]) for mark in marks)


def _of_utf16(text: str, marks: list[Mark]) -> list[Mark]:
    """The marks in characters. An offset within a character, or outside the text, becomes -1."""
    ends = accumulate((1 + (character > "\uffff") for character in text), initial=0)
    at = {units: number for number, units in enumerate(ends)}
    return [(at.get(mark[0], -1), at.get(mark[1], -1), *mark[2:]) for mark in marks]


# --- pairs


def _pairs(text: str, path: Path) -> list[Any] | None:
    """The pairs (text, annotations) of a file of them, null where nobody has annotated one; None where it is
    of another form."""
    whole = path.suffix.lower() == ".json"
    if whole and PAIRS.match(text):
        value = _document(text, path)
        if isinstance(value, list) and any(map(_is_pair, value)):
            return value
    if whole and '"classes"' in text:
        value = _document(text, path)
        if isinstance(value, dict) and isinstance(value.get("annotations"), list):
            return list(value["annotations"])
    if not whole and text.lstrip().startswith("["):
        return [_line(line, number, path) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return None


def _document(text: str, path: Path) -> Any:
    try:
        return json_rows.loads(text)
    except json.JSONDecodeError:
        return None  # the reader of rows says what is wrong


def _line(line: str, number: int, path: Path) -> Any:
    try:
        return json_rows.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from None


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)


def _of_pairs(pairs: list[Any], asked: Asked) -> Raw:
    collected = Collected(asked)
    for number, pair in enumerate(pairs, 1):
        where = f"{asked.path}, row {number}"
        if pair is None:
            collected.skip(NOT_ANNOTATED)
            continue
        if fault := next(reading.faults(pair), ""):
            raise InputError(f"this row holds {fault}", where=where)
        if not _is_pair(pair) or not (pair[1] is None or isinstance(pair[1], dict)):
            raise InputError(
                f"no pair of a text and its spans: {pair!r:.80}",
                where=where,
                remedy='a row is ["a text", {"entities": [[start, end, type], ...]}]',
            )
        text, rest = pair
        marks = _marks((rest or {}).get("entities"), where)
        collected.add(text, None if marks is None else [_checked(mark, text, where) for mark in marks])
    return collected.raw()
