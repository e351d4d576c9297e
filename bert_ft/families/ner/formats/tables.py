"""CSV and TSV: a word a row, or a sentence a row with its words and tags in a cell each."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft.config.schema import Data
from bert_ft.data import lists
from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.formats import OTHERS, chosen, delimited
from bert_ft.data.formats.encodings import decode
from bert_ft.data.formats.quotes import Remarks
from bert_ft.data.formats.records import QUOTES, UNEVEN, records, uneven
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import Asked

SENTENCE = ("Sentence #", "sentence_id", "sentence_idx", "sent_id")
PAIRS = (("Word", "Tag"), ("words", "labels"), ("word", "tag"), ("token", "tag"), ("Token", "Tag"))
"""Names of the words and the tags beside a column of sentences."""
NUMBER = re.compile(r"-?\d{1,9}")
LIST = re.compile(r"\s*(?:array\()?[\[(].*[\])]\s*", re.DOTALL)
HOW = (
    "name the column of the sentences' ids: --set 'data.columns.sentence=COLUMN'; or put a blank line behind "
    "each sentence"
)


@dataclass
class Table:
    """A table's cells, a column at a time.

    Attributes:
        lines: where each row begins.
        breaks: numbers of the rows that a blank line stands before.
        remarks: what there is to know of its quotes.
    """

    columns: dict[str, list[str | None]]
    lines: list[int] = field(default_factory=list)
    breaks: set[int] = field(default_factory=set)
    remarks: Remarks = field(default_factory=Remarks)


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """The sentences of a CSV file, told by its tags: lists in cells, tags parted by blanks, or a word a row.

    A word a row needs to know where sentences end: by `data.columns.sentence`, whose cells may be empty below
    the first of a sentence, or one of `SENTENCE`; without one by blank lines.

    Returns:
        list columns under the wanted names, and `file` and `line`; texts as strings where there are no tags.
    Raises:
        InputError: a cell that can't be read, a word whose sentence is not known.
    """
    asked = Asked(path, wanted, data, optional)
    table = _cells(decoded(path, data), asked)
    raw = _sentences(table, asked)
    raw.notes += [note for note in (table.remarks.note(),) if note]
    raw.findings += table.remarks.findings(str(path))
    return raw


def _sentences(table: Table, asked: Asked) -> Raw:
    path = asked.path
    data = asked.data
    words, tags = asked.words, asked.tags
    id_column = data.columns.get("sentence") or next((n for n in SENTENCE if n in table.columns), None)
    for pair in PAIRS if id_column and not {words, tags} & set(data.columns.values()) else ():
        if set(pair) <= set(table.columns) and words not in table.columns and tags not in table.columns:
            words, tags = pair
    _choose(table, {asked.words: words, asked.tags: tags}, asked)
    ids = table.columns.get(id_column) if id_column and id_column != words else None
    layout = _layout(table, words, tags, ids, explicit="sentence" in data.columns, asked=asked)
    if layout == "words":
        return _words(table, words, tags, ids, asked)
    columns: dict[str, Any] = {
        name: cells
        for name, cells in table.columns.items()
        if name in asked.wanted or OTHERS in asked.optional
    }
    if layout == "lists":
        lists = [
            _list(cell, words, f"{path}, line {n}")
            for cell, n in zip(table.columns[words], table.lines, strict=True)
        ]
        lines = [[line] * max(len(row or ()), 1) for line, row in zip(table.lines, lists, strict=True)]
        columns[asked.words] = pa.array(lists, pa.list_(pa.string()))
        if tags in table.columns:
            columns[asked.tags] = _tags(table.columns[tags], tags, table.lines, path)
        columns["file"] = pa.array([str(path)] * len(lines)).dictionary_encode()
        columns["line"] = pa.array(lines, pa.list_(pa.int32()))
    return Raw(pa.table({name: pa.array(column) for name, column in columns.items()}), str(path))


def is_table(text: str, data: Data, delimiter: str) -> bool:
    """Whether the first line of a text is a header: it names the columns that the task names, or one of
    sentences."""
    names = [data.columns[role] for role in ("tokens", "tags") if role in data.columns]
    header = text.partition("\n")[0].rstrip("\r").split(delimiter)
    named = any(not name.lstrip("-").isdigit() and name in header for name in names)
    numbered = bool(names) and all(name.lstrip("-").isdigit() for name in names)
    return named or (not numbered and len(header) > 2 and any(name in header for name in SENTENCE))


def decoded(path: Path, data: Data) -> str:
    """The text of a table."""
    return decode(path, data.encoding)


def _cells(text: str, asked: Asked) -> Table:
    data = asked.data
    delimiter = delimited.delimiter_of(data.delimiter, asked.path.suffix.lower().lstrip("."))
    header: list[str] = []
    rows: list[list[str | None]] = []
    table = Table({})
    every = records(delimited.lines_of(text), delimiter, data.quoting, header=True, remarks=table.remarks)
    for line, cells, fault in every:
        place = f"{asked.path}, line {line}"
        if fault:
            raise InputError(fault, where=place, remedy=QUOTES)
        if not any(cell is not None for cell in cells):  # also ",,", as spreadsheets write it
            table.breaks.add(len(rows))
            continue
        if not header:
            first = [cell or "" for cell in cells]
            header = _header(first, asked)
            if header == first:
                continue
        if len(cells) != len(header):
            raise InputError(uneven(len(cells), len(header)), where=place, remedy=UNEVEN)
        else:
            rows.append(cells)
            table.lines.append(line)
    if not rows:
        raise InputError("no rows below the header", where=str(asked.path))
    chosen(header, [], (), str(asked.path))
    counts = Counter(header)
    table.columns = {
        name: list(column)
        for name, column in zip(header, zip(*rows, strict=True), strict=True)
        if counts[name] == 1
    }
    return table


def _header(first: list[str], asked: Asked) -> list[str]:
    """The names of the columns: the first line, unless the task names them (`data.names`), or by number."""
    names = [name for name in (asked.words, asked.tags) if name in asked.wanted]
    if asked.data.names is not None and asked.words not in first:
        return list(asked.data.names)
    if all(NUMBER.fullmatch(name) for name in names) and not set(names) & set(first):
        return [str(number) for number in range(len(first))]
    return first


def _choose(table: Table, renamed: dict[str, str], asked: Asked) -> None:
    wanted = [renamed.get(name, name) for name in asked.wanted]
    optional = [renamed.get(name, name) for name in asked.optional]
    chosen(list(table.columns), wanted, optional, str(asked.path))


def _layout(
    table: Table, words: str, tags: str, ids: list[str | None] | None, *, explicit: bool, asked: Asked
) -> str:
    """What a row is: "words" (one of them), "lists" (a sentence of words and tags), "texts" (without tags).

    Raises:
        InputError: a word a row, and nothing says where a sentence ends.
    """
    spoken = [cell for cell in table.columns[words] if cell]
    given = [cell for cell in table.columns.get(tags, []) if cell]
    if given and all(map(LIST.fullmatch, given)):
        return "lists"
    parted = any(len(cell.split()) > 1 for cell in given)
    alone = not any(len(cell.split()) > 1 for cell in spoken)
    if ids is not None and not parted and (given or explicit or alone):
        return "words"
    if not given:
        return "lists" if spoken and all(map(LIST.fullmatch, spoken)) else "texts"
    if parted or not alone:
        return "lists"
    inner = table.breaks - {0, len(table.lines)}
    if not inner:
        raise InputError(
            f"a word a row ('{spoken[0] if spoken else ''}'), and nothing says where a sentence ends",
            where=f"{asked.path}, line {table.lines[0]}",
            remedy=HOW,
        )
    return "words"


def _words(table: Table, words: str, tags: str, ids: list[str | None] | None, asked: Asked) -> Raw:
    """The sentences of a table with a word a row."""
    starts = [0]
    current = ids[0] if ids else None
    seen = {current}
    again = []
    if ids and not current:
        raise InputError(
            "the first word has no sentence", where=f"{asked.path}, line {table.lines[0]}", remedy=HOW
        )
    for row in range(1, len(table.lines)):
        if row in table.breaks if ids is None else ids[row] and ids[row] != current:
            current = ids[row] if ids else None
            again += [len(starts)] if ids and current in seen else []
            seen.add(current)
            starts.append(row)
    offsets = pa.array([*starts, len(table.lines)], pa.int32())

    def lists(cells: list[Any], kind: Any) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(cells, kind))

    columns: dict[str, pa.Array] = {
        # an empty cell of a table is no word that the tokenizer can see, but a row of its tag
        asked.words: lists([cell or "" for cell in table.columns[words]], pa.string())
    }
    if tags in table.columns:
        columns[asked.tags] = lists([cell and cell.strip() for cell in table.columns[tags]], pa.string())
    for name in asked.wanted:
        if name not in columns and name in table.columns:
            columns[name] = pa.array([table.columns[name][start] for start in starts], pa.string())
    columns["file"] = pa.array([str(asked.path)] * len(starts)).dictionary_encode()
    columns["line"] = lists(table.lines, pa.int32())
    message = "sentences whose id stands further above too; each is read as a sentence of its own"
    places = [f"{asked.path}, line {table.lines[starts[k]]}" for k in again[:KEPT]]
    examples = [str(ids[starts[k]]) for k in again[:KEPT]] if ids else []
    findings = [Finding("sentences", "warning", "", len(again), message, examples, places)] if again else []
    return Raw(pa.table(columns), str(asked.path), findings=findings)


def _tags(cells: list[str | None], name: str, lines: list[int], path: Path) -> pa.Array:
    lists = [_list(cell, name, f"{path}, line {line}") for cell, line in zip(cells, lines, strict=True)]
    items = [item for row in lists for item in row or ()]
    if items and all(NUMBER.fullmatch(item) for item in items):
        return pa.array(
            [None if row is None else [int(item) for item in row] for row in lists], pa.list_(pa.int64())
        )
    return pa.array(lists, pa.list_(pa.string()))


def _list(cell: str | None, name: str, where: str) -> list[str] | None:
    """The strings of a list as JSON, Python, pandas or NumPy write it, or parted by blanks; None where the
    cell is empty.

    Raises:
        InputError: a list that can't be read, or was shortened.
    """
    if cell is None:
        return None
    if not LIST.fullmatch(cell):
        return cell.split()
    found, rest = lists.items(lists.between_brackets(cell))
    if ("...", False) in found:
        raise InputError(
            f"the list in '{name}' was shortened when it was written: it holds '...'",
            where=where,
            remedy="write it whole, as JSON: df.to_json(orient='records', lines=True)",
        )
    if rest:
        raise InputError(
            f"'{name}' holds a list that can't be read: {rest[:40]!r}",
            where=where,
            remedy='write lists as JSON, ["EU", "rejects"], or the whole file as JSONL',
        )
    if 0 < sum(quoted for _, quoted in found) < len(found):
        raise InputError(f"'{name}' holds words with quotes and without: {cell[:60]!r}", where=where)
    return [text for text, _ in found]
