"""CoNLL-U: ten columns parted by tabs, a word's number in the first (universaldependencies.org/format)."""

from __future__ import annotations

import re

import pyarrow as pa

from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import Asked, LeftOut, word_lists

WIDTH = 10
FORM = 1
UPOS = 3
MISC = 9
ENTITY = ("Entity", "entity", "NER", "ner", "NE", "name")  # keys of MISC by which corpora name entities
WORD = re.compile("[1-9][0-9]*")
RANGE = re.compile("[1-9][0-9]*-[1-9][0-9]*")
EMPTY = re.compile(r"[0-9]+\.[1-9][0-9]*")
LINE = re.compile(r"^(?!#).*\S.*$", re.MULTILINE)
FIRST = re.compile(r"(?:0\.1|1|1-[1-9][0-9]*)(?:\t[^\t]*){9}")


def matches(text: str) -> bool:
    """Whether the first line that is no comment is that of a CoNLL-U file."""
    line = LINE.search(text)
    return line is not None and FIRST.fullmatch(line[0].rstrip("\r")) is not None


def read(text: str, asked: Asked) -> Raw:
    """The sentences: FORM as the words; as tags the column that --tags numbers, or the key of MISC that it
    names; by default one of `ENTITY`, or UPOS. Multiword tokens and empty nodes are no words, and are left
    out. `document` counts "# newdoc" lines.

    Raises:
        InputError: a line that is no CoNLL-U, a column that is not there.
    """
    left = LeftOut()
    sentences: list[list[list[str]]] = [[]]
    lines: list[list[int]] = [[]]
    documents = [0]
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{asked.path}, line {number}"
        line = line.rstrip("\r")
        if not line.strip():
            if sentences[-1]:
                sentences.append([])
                lines.append([])
                documents.append(documents[-1])
        elif line.startswith("#"):
            left.add("comment lines", place)
            documents[-1] += line.startswith("# newdoc")
        elif _is_word(cells := line.split("\t"), len(sentences[-1]), place, left):
            sentences[-1].append(cells)
            lines[-1].append(number)
    if not sentences[-1]:
        del sentences[-1], lines[-1], documents[-1]
    if not sentences:
        raise InputError("no words", where=str(asked.path), remedy="; ".join(left.notes()))
    words = _column(sentences, asked.data.columns.get("tokens", str(FORM)), asked)
    tags, note = _tags(sentences, asked)
    columns = word_lists(list(zip(words, tags, strict=True)), lines, asked)
    if not asked.labelled and all(tag == "_" for sentence in tags for tag in sentence):
        del columns[asked.tags]
    if documents[-1]:
        columns["document"] = pa.array(documents, pa.int32())
    for name in asked.wanted:
        if name not in columns and name not in asked.optional:
            columns[name] = pa.array(_column(sentences, name, asked))
    return Raw(pa.table(columns), str(asked.path), notes=[note, *left.notes()])


def _is_word(cells: list[str], before: int, place: str, left: LeftOut) -> bool:
    if len(cells) != WIDTH:
        raise InputError(
            f"{len(cells)} columns where CoNLL-U has {WIDTH}",
            where=place,
            remedy="they are parted by tabs; empty ones hold an underscore",
        )
    if RANGE.fullmatch(cells[0]):
        left.add("lines of multiword tokens (1-2), whose words follow,", place)
        return False
    if EMPTY.fullmatch(cells[0]):
        left.add("empty nodes (4.1)", place)
        return False
    if not WORD.fullmatch(cells[0]) or int(cells[0][:9]) != before + 1:
        raise InputError(
            f"the number '{cells[0]}' where the word {before + 1} of a sentence is expected",
            where=place,
            remedy="a blank line stands behind each sentence; if this is no CoNLL-U, number the columns: "
            "--tokens 1 --tags 9, and leave the first column out of the file",
        )
    return True


def _tags(sentences: list[list[list[str]]], asked: Asked) -> tuple[list[list[str]], str]:
    """The tags, and a note on what they are."""
    if "tags" in asked.data.columns:
        name = asked.data.columns["tags"]
        return _column(sentences, name, asked), f"CoNLL-U: the tags are '{name}'"
    for key in ENTITY:
        values = _of_misc(sentences, key)
        if any(value is not None for sentence in values for value in sentence):
            tags = [[value or "O" for value in sentence] for sentence in values]
            if any("(" in tag or ")" in tag for sentence in tags for tag in sentence):
                raise InputError(
                    f"{key} of MISC is in brackets (CorefUD), which can nest, and is not read",
                    where=str(asked.path),
                    remedy=f"--tags {UPOS} reads UPOS; for entities write {key}=B-PER, {key}=I-PER",
                )
            return tags, f"CoNLL-U: the tags are {key} of MISC (UPOS: --tags {UPOS})"
    return _column(sentences, str(UPOS), asked), "CoNLL-U: the tags are UPOS, since MISC names no entities"


def _column(sentences: list[list[list[str]]], name: str, asked: Asked) -> list[list[str]]:
    """The column that a number or a key of MISC names."""
    if not name.lstrip("-").isdigit():
        values = _of_misc(sentences, name)
        if all(value is None for sentence in values for value in sentence):
            raise InputError(
                f"no word has '{name}' in MISC",
                where=str(asked.path),
                remedy=f"name a key of MISC, or number the column: --tokens {FORM} --tags {UPOS}",
            )
        return [[value or "O" for value in sentence] for sentence in values]
    if not -WIDTH <= int(name[:9]) < WIDTH:
        raise InputError(f"no column '{name}': CoNLL-U has {WIDTH}", where=str(asked.path))
    cells = [[cells[int(name)] for cells in sentence] for sentence in sentences]
    if asked.labelled and all(cell == "_" for sentence in cells for cell in sentence):
        raise InputError(
            f"column {name} is '_' in each line",
            where=str(asked.path),
            remedy=f"number the column of the tags: --tags {UPOS} is UPOS, {UPOS + 1} XPOS, {MISC} MISC",
        )
    return cells


def _of_misc(sentences: list[list[list[str]]], key: str) -> list[list[str | None]]:
    return [
        [
            next(
                (item[len(key) + 1 :] for item in cells[MISC].split("|") if item.startswith(f"{key}=")), None
            )
            for cells in sentence
        ]
        for sentence in sentences
    ]
