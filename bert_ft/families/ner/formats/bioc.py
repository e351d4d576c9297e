"""BioC, XML or JSON: documents of passages, whose offsets count from the document's start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import DISCONTINUOUS, Asked, Collected, same_surface

DEEPEST = 50  # elements within one another; BioC has a dozen
WITHOUT_TEXT = "passages without text"


@dataclass
class Annotation:
    """Attributes:
    infons: what is said of it, "type" among others.
    locations: (offset, length) of its parts.
    """

    infons: Mapping[str, Any]
    locations: list[tuple[int, int]]
    text: str | None


@dataclass
class Unit:
    """A passage, or a sentence of it."""

    offset: int
    text: str | None
    annotations: list[Annotation] = field(default_factory=list)
    sentences: list[Unit] = field(default_factory=list)
    relations: int = 0


def of_xml(asked: Asked) -> Raw:
    """The passages of an XML file. A document type is allowed, and not loaded; entities of its own are not.

    Raises:
        InputError: no XML, no BioC.
    """
    root = _tree(asked.path)
    if root.tag != "collection":
        raise InputError(
            f"the XML is not BioC: its root is <{root.tag:.40}>",
            where=str(asked.path),
            remedy="of XML only BioC is read: <collection>, <document>, <passage>",
        )
    documents = root.iter("document")
    return _collect(
        (([_of_element(p) for p in d.findall("passage")], len(d.findall("relation"))) for d in documents),
        asked,
    )


def of_json(value: Mapping[str, Any], asked: Asked) -> Raw:
    """The passages of a JSON value."""
    try:
        documents = [
            ([_of_object(p) for p in d["passages"]], len(d.get("relations") or []))
            for d in value["documents"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"no BioC: {error!r:.80}", where=str(asked.path)) from None
    return _collect(iter(documents), asked)


def _collect(documents: Iterator[tuple[list[Unit], int]], asked: Asked) -> Raw:
    """A row a passage, or a sentence where the passage has no text of its own."""
    collected = Collected(asked)
    place = f"{asked.path}, row 1"
    for number, (passages, relations) in enumerate(documents):
        for passage in passages:
            units = passage.sentences if passage.text is None and passage.sentences else [passage]
            annotations = [*passage.annotations, *(a for s in passage.sentences for a in s.annotations)]
            relations += passage.relations + sum(sentence.relations for sentence in passage.sentences)
            read = 0
            for unit in units:
                place = f"{asked.path}, row {collected.total + 1}"
                if not unit.text:
                    collected.skip(WITHOUT_TEXT)
                    continue
                inside = [a for a in annotations if len(units) == 1 or _within(a, unit)]
                read += len(inside)
                spans = [span for a in inside if (span := _span(a, unit, place, collected))]
                collected.add(unit.text, spans, document=number)
            collected.left.add("annotations without a text", place, len(annotations) - read)
        collected.left.add("relations", place, relations)
    return collected.raw()


def _within(annotation: Annotation, unit: Unit) -> bool:
    starts = [start for start, _ in annotation.locations]
    return bool(starts) and unit.offset <= min(starts) < unit.offset + len(unit.text or "")


def _span(annotation: Annotation, unit: Unit, place: str, collected: Collected) -> dict[str, Any] | None:
    if not annotation.locations:
        collected.left.add("annotations without a location", place)
        return None
    if len(annotation.locations) > 1:
        collected.left.add(DISCONTINUOUS, place)
        return None
    key = collected.asked.data.columns.get("tags", "type")
    label = annotation.infons.get(key)
    if not isinstance(label, str):
        raise InputError(
            f"an annotation has no infon '{key}'",
            where=place,
            remedy="name the one that is its type: --tags KEY; it has "
            + (", ".join(map(str, annotation.infons)) or "none"),
        )
    ((start, length),) = annotation.locations
    start -= unit.offset
    surface = annotation.text
    found = (unit.text or "")[max(start, 0) : max(start + length, 0)]
    if surface is not None and not same_surface(found, surface):
        raise InputError(
            f"the span {start} to {start + length} is {found!r:.60} in the passage, and "
            f"{surface!r:.60} beside it",
            where=place,
            remedy="offsets count characters (code points) from the document's start; a passage's own start "
            "is its offset",
        )
    return {"start": start, "end": start + length, "label": label}


# --- XML


def _tree(path: Path) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            message = f"elements more than {DEEPEST} levels deep"
            raise InputError(message, where=f"{path}, {_line()}", remedy="BioC has a dozen at most")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def _line() -> str:
        return f"line {parser.CurrentLineNumber}"

    def refuse(name: str, *_: Any) -> None:
        message = f"the entity '{name:.40}' is declared by the file itself, or is not known"
        raise InputError(message, where=f"{path}, {_line()}", remedy="write the character that it stands for")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse  # a few of them can stand for gigabytes
    parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"no XML: {error}", where=str(path)) from None


def _of_element(element: ElementTree.Element) -> Unit:
    try:
        return Unit(
            int(element.findtext("offset") or 0),
            element.findtext("text"),
            [_annotation(each) for each in element.findall("annotation")],
            [_of_element(sentence) for sentence in element.findall("sentence")],
            len(element.findall("relation")),
        )
    except (ValueError, KeyError) as error:
        raise InputError(f"no BioC passage: {error!r:.80}", where="BioC") from None


def _annotation(element: ElementTree.Element) -> Annotation:
    infons = {infon.attrib["key"]: infon.text for infon in element.findall("infon")}
    locations = [(int(at.attrib["offset"]), int(at.attrib["length"])) for at in element.findall("location")]
    return Annotation(infons, locations, element.findtext("text"))


# --- JSON


def _of_object(value: Mapping[str, Any]) -> Unit:
    text = value.get("text")
    if text is not None and type(text) is not str:
        raise ValueError(f"a text is {type(text).__name__}")
    return Unit(
        int(value.get("offset") or 0),
        text,
        [_of_mapping(each) for each in value.get("annotations") or []],
        [_of_object(sentence) for sentence in value.get("sentences") or []],
        len(value.get("relations") or []),
    )


def _of_mapping(value: Mapping[str, Any]) -> Annotation:
    text = value.get("text")
    locations = [(int(at["offset"]), int(at["length"])) for at in value["locations"]]
    return Annotation(dict(value["infons"]), locations, text if type(text) is str else None)
