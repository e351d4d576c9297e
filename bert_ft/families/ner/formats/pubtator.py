"""PubTator: a title and an abstract a document, and a line for each annotation."""

from __future__ import annotations

import re
from typing import Any

from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import Asked, Collected, same_surface

HEAD = re.compile(r"^\ufeff?\s*\d+\|t\|")
PART = re.compile(r"(\d+)\|([ta])\|(.*)")


def matches(text: str) -> bool:
    """Whether a text is a file of this form: its first line is a title."""
    return HEAD.match(text) is not None


def read(text: str, asked: Asked) -> Raw:
    """A row a document: title and abstract, with a blank between them, which the offsets count.

    Raises:
        InputError: a line of another form, a span whose text is not what stands beside it.
    """
    collected = Collected(asked)
    parts: dict[str, str] = {}
    spans: list[dict[str, Any]] = []
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")
    for number, line in enumerate([*lines, ""], 1):
        place = f"{asked.path}, line {number}"
        if not line.strip():
            if parts:
                collected.add(" ".join(parts.values()), spans)
            parts, spans = {}, []
        elif match := PART.fullmatch(line):
            parts[match[2]] = match[3]
        else:
            cells = line.split("\t")
            if len(cells) < 5 or not (cells[1].isdigit() and cells[2].isdigit()):
                if len(cells) != 4:
                    remedy = "ID|t|TITLE, ID|a|ABSTRACT, then ID, start, end, text and type between tabs"
                    raise InputError(f"no line of PubTator: {line[:60]!r}", where=place, remedy=remedy)
                collected.left.add("relations", place)
                continue
            spans.append(_span(cells, " ".join(parts.values()), place))
    return collected.raw()


def _span(cells: list[str], text: str, place: str) -> dict[str, Any]:
    start = int(cells[1])
    end = int(cells[2])
    if not same_surface(text[start:end], cells[3]):
        message = (
            f"the span {start} to {end} is {text[start:end]!r:.60} in the text, and {cells[3]!r:.60} here"
        )
        raise InputError(message, where=place, remedy="offsets count from the title's first character")
    return {"start": start, "end": end, "label": cells[4]}
