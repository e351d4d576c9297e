"""BRAT standoff: a text in NAME.txt, its annotations in NAME.ann; two such files, or a folder of them."""

from __future__ import annotations

from pathlib import Path

from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import DISCONTINUOUS, Asked, Collected, same_surface

Spans = list[dict[str, object]]


def read(asked: Asked) -> Raw:
    """A row a text, whole. Lines that begin with T are spans; relations, events, attributes and notes are
    left out, and spans of several parts.

    Raises:
        InputError: annotations without their text, a line in another form, a span whose text is not the one
            that stands beside it.
    """
    path = asked.path
    collected = Collected(asked)
    if path.is_dir():
        texts = sorted(path.rglob("*.txt"))
        alone = sorted(set(path.rglob("*.ann")) - {text.with_suffix(".ann") for text in texts})
        if alone or not texts:
            raise InputError(
                f"no text beside '{alone[0].name}'" if alone else "no texts (*.txt) in this folder",
                where=str(path),
                remedy="a folder is read as BRAT's, NAME.ann beside NAME.txt; files that are called as their "
                "splits are (train.conll, ...) are read with --set data.path=DIR",
            )
    else:
        texts = [path.with_suffix(".txt")]
        if not texts[0].is_file():
            raise InputError("no text beside it", where=str(path), remedy=f"BRAT has one: {texts[0].name}")
    for file in texts:
        beside = file.with_suffix(".ann")
        text = decode(file, asked.data.encoding)
        spans = _spans(beside, text, collected) if beside.is_file() else None
        collected.total = 0  # each file has one row
        collected.add(text, spans, file)
    collected.total = len(texts)
    return collected.raw()


def _spans(file: Path, text: str, collected: Collected) -> Spans:
    spans = []
    for number, line in enumerate(decode(file, collected.asked.data.encoding).split("\n"), 1):
        place = f"{file}, line {number}"
        line = line.rstrip("\r")
        if not line.strip():
            continue
        if not line.startswith("T"):
            collected.left.add("relations, events, attributes and notes", place)
            continue
        _, _, rest = line.partition("\t")
        head, _, surface = rest.partition("\t")
        kind, _, limits = head.partition(" ")
        if ";" in limits:
            collected.left.add(DISCONTINUOUS, place)
            continue
        numbers = limits.split(" ")
        if len(numbers) != 2 or not all(
            part.isascii() and part.isdigit() and len(part) < 10 for part in numbers
        ):
            raise InputError(
                f"no span: {line[:60]!r}",
                where=place,
                remedy="BRAT writes T1, a tab, PER 0 4, a tab, the text",
            )
        start, end = map(int, numbers)
        if not same_surface(text[start:end], surface):
            raise InputError(
                f"the span {start} to {end} is {text[start:end]!r:.60} in the text, and "
                f"{surface!r:.60} beside it",
                where=place,
                remedy="offsets count characters (code points) of the .txt as it was annotated: line ends of "
                "another system (\\r\\n) and another encoding move them",
            )
        spans.append({"start": start, "end": end, "label": kind})
    return spans
