"""Which reader a file has: by its suffix, and of column files by what stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bert_ft.config.schema import Data
from bert_ft.data.formats.encodings import decode
from bert_ft.data.sources import Raw, Reader
from bert_ft.families.ner import conll, spans
from bert_ft.families.ner.formats import bioc, brat, conllu, pubtator, tables, webanno
from bert_ft.families.ner.formats.collected import Asked

COLUMN_FILES = (
    ".conll", ".txt", ".tsv", ".conllu", ".iob", ".iob2", ".bio", ".bioes", ".bmes", ".train", ".dev",
    ".test", ".testa", ".testb", ".annotated",
)  # fmt: skip
"""Suffixes of files with a word a line."""


def columns(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """A file with a word a line: CoNLL, CoNLL-U, WebAnno TSV 3; a table with a header; PubTator; or a text
    that has BRAT's annotations beside it."""
    asked = Asked(path, wanted, data, optional)
    if path.suffix.lower() == ".txt" and path.with_suffix(".ann").is_file():
        return brat.read(asked)
    text = decode(path, data.encoding)
    if text.startswith(webanno.HEADER):
        return webanno.read(text, asked)
    if pubtator.matches(text):
        return pubtator.read(text, asked)
    if path.suffix.lower() == ".conllu" or conllu.matches(text):
        return conllu.read(text, asked)
    if path.suffix.lower() == ".tsv" and tables.is_table(text, data, data.delimiter or "\t"):
        return tables.read(path, wanted, data, optional)
    return conll.read(text, path, wanted, data, optional)


def standoff(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """A text with BRAT's annotations, or a folder of such."""
    return brat.read(Asked(path, wanted, data, optional))


def xml(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """BioC."""
    return bioc.of_xml(Asked(path, wanted, data, optional))


READERS: Mapping[str, Reader] = (
    dict.fromkeys(COLUMN_FILES, columns)
    | dict.fromkeys((".json", ".jsonl"), spans.read)
    | {".csv": tables.read, ".ann": standoff, ".xml": xml, "/": standoff}
)
"""Suffix -> its reader; "/" is a folder."""
