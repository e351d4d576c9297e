"""WebAnno TSV 3, which WebAnno and INCEpTION export: a word a line, its layers' features in columns."""

from __future__ import annotations

import re
from itertools import pairwise

import pyarrow as pa

from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import Asked, LeftOut, of_token_spans, word_lists

HEADER = "#FORMAT=WebAnno TSV 3"
WORD = re.compile(r"(\d+)-(\d+)")
PART = re.compile(r"\d+-\d+(?:\.\d+)+")
BAR = re.compile(r"(?<!\\)\|")
NUMBERED = re.compile(r"(.*)(?<!\\)\[(\d+)\]", re.DOTALL)
ESCAPE = re.compile(r"\\(->|[\\\[\]|_;*])")
WITHOUT = 2  # the column of the words, whose cells are read as tags and left out
FIXED = 3  # columns before those of the layers: the word's number, its characters, the word


def read(text: str, asked: Asked) -> Raw:
    """The sentences. --tags names a feature ("value") or a layer and a feature ("NamedEntity|value"); without
    it the feature is `value` of the layer NamedEntity, or the only one there is.

    Raises:
        InputError: a line in another form, a feature that is not there or not plain.
    """
    left = LeftOut()
    layers: list[str] = []
    words: list[list[str]] = [[]]
    cells: list[list[str]] = [[]]
    lines: list[list[int]] = [[]]
    feature = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        place = f"{asked.path}, line {number}"
        if line.startswith("#"):
            layers += [line] if line[1:3] == "T_" else []
        elif not line.strip():
            if words[-1]:
                words.append([])
                cells.append([])
                lines.append([])
        else:
            feature = feature or _column(layers, asked)
            parts = line.split("\t")
            if PART.fullmatch(parts[0]):
                left.add("parts of words (1-2.1), with their annotations,", place)
                continue
            if not WORD.fullmatch(parts[0]) or len(parts) <= feature:
                raise InputError(
                    f"no line of WebAnno TSV 3: {line[:60]!r}",
                    where=place,
                    remedy="it begins 1-1, a tab, 0-4, a tab, the word, and has a column for each feature",
                )
            words[-1].append(_plain(parts[2]))
            cells[-1].append(parts[feature])
            lines[-1].append(number)
    if not words[-1]:
        del words[-1], cells[-1], lines[-1]
    if not words:
        raise InputError("no words", where=str(asked.path), remedy="; ".join(left.notes()))
    tags = [
        ["O"] * len(row)
        if feature == WITHOUT
        else of_token_spans(
            len(row), _spans(row, f"{asked.path}, line {at[0]}"), f"{asked.path}, line {at[0]}", left
        )
        for row, at in zip(cells, lines, strict=True)
    ]
    columns = word_lists(list(zip(words, tags, strict=True)), lines, asked)
    if feature == WITHOUT:
        del columns[asked.tags]
    return Raw(pa.table(columns), str(asked.path), notes=left.notes())


def _column(layers: list[str], asked: Asked) -> int:
    """The number of the column of the feature that is asked for; `WITHOUT` where there is none, and need not
    be."""
    features: dict[str, int] = {}
    at = FIXED
    for line in layers:
        kind, _, declared = line[1:].partition("=")
        name, *names = declared.split("|")
        if kind == "T_RL":  # and the word that governs
            at += len(names)
            continue
        for feature in names:
            if kind == "T_SP" and not feature.startswith("ROLE_"):
                features[f"{name.rpartition('.')[2]}|{feature}"] = at
            at += 1
        at += not names
    if not features and not asked.labelled:
        return WITHOUT
    wanted = asked.data.columns.get("tags")
    found = [name for name in features if wanted is None or wanted in (name, name.partition("|")[2])]
    if wanted is None:
        found = [name for name in found if name in ("NamedEntity|value", "NamedEntity|entity")] or found
    if len(found) != 1:
        what = "may be the tags" if wanted is None else f"are called '{wanted}'"
        valid = ", ".join(f"--tags '{name}'" for name in found or features)
        raise InputError(
            f"{len(found)} features {what}",
            where=str(asked.path),
            remedy=f"name one: {valid}" if valid else "its head (#T_SP=...) names none",
        )
    return features[found[0]]


def _spans(cells: list[str], place: str) -> list[tuple[int, int, str]]:
    """(first word, word behind the last, type) of the annotations of a sentence's words."""
    spans: list[tuple[int, int, str]] = []
    numbered: dict[tuple[str, str], list[int]] = {}
    for word, cell in enumerate(cells):
        for value in [] if cell == "_" else BAR.split(cell):
            match = NUMBERED.fullmatch(value)
            label = _plain(match[1] if match else value)
            if label == "*":
                raise InputError("an annotation has no value", where=place, remedy="give each one a value")
            if match:
                numbered.setdefault((label, match[2]), []).append(word)
            else:
                spans.append((word, word + 1, label))
    for (label, _), words in numbered.items():
        if any(b - a != 1 for a, b in pairwise(words)):
            raise InputError(f"an annotation ({label}) has a gap", where=place)
        spans.append((words[0], words[-1] + 1, label))
    return spans


def _plain(text: str) -> str:
    """A cell without its escapes."""
    return ESCAPE.sub(r"\1", text)
