"""The rows of a file of another model's answers, whatever its form, their columns called by their roles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ft import families
from bert_ft.config.schema import Data
from bert_ft.config.task import Task
from bert_ft.data.formats import encodings, json_rows
from bert_ft.data.soft import PREFIX
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, did_you_mean
from bert_ft.report.scored_set import Scored
from bert_ft.tools.predict.readers import format_of, reading_rows

ROLES = ("prediction", "probabilities", "row", "id")
ANSWER, PROBABILITIES = "prediction", "probabilities"
TEXTS = ("text", "text_pair", "question", "context", "tokens")
ZERO_SHOT = {"labels", "scores"}  # what the zero-shot pipeline of `transformers` gives, beside `sequence`
NAME_IT = "name it: --column prediction=COLUMN"
Row = dict[str, Any]
Placed = tuple[str, Row]
"""(where it stands, a row of the file)"""


@dataclass
class Form:
    """What a file holds.

    Attributes:
        rows: each with its place, its columns called by their roles.
        others: columns that have no role here. of_label: whether the answers stand in `label`.
        notes: what there is to know of it.
    """

    rows: list[Placed]
    others: list[str] = field(default_factory=list)
    of_label: bool = False
    notes: list[str] = field(default_factory=list)


def read(path: Path, columns: Mapping[str, str], first: Scored) -> Form:
    """The rows of a file, for the set of a run.

    Args:
        columns: role -> column, as far as they are given.
    Raises:
        InputError: the file can't be read, or has no column of answers.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    encoding = _encoding(path, first.task.data.encoding)
    notes = [] if encoding == "utf-8" else [f"{path} is read as {encoding}, the encoding of the run's data"]
    if (answers := _official(path, encoding, first)) is not None:
        return Form([(f"{path}, id '{key}'", {"id": key, ANSWER: said}) for key, said in answers.items()])
    if (tagged := _tagged(path, encoding, first)) is not None:
        return Form(
            [*_sentences(tagged, families.find(first.task.family).target)], notes=notes + tagged.notes
        )
    rows = list(_rows(path, columns, encoding))
    if not rows:
        raise InputError("the file is empty", where=str(path))
    form = _named(rows, path, columns, first)
    form.notes = notes + form.notes
    return form


# --- bytes to rows


def _encoding(path: Path, own: str) -> str:
    """UTF-8 where the bytes are that, as of what `predict` writes, else the encoding of the run's data."""
    if path.suffix.lower() == ".parquet":
        return "utf-8"
    try:
        encodings.decode(path, "utf-8")
        return "utf-8"
    except InputError as error:
        fault = error
    with suppress(InputError):
        encodings.decode(path, own)
        return encodings.known(own)
    raise InputError(fault.message, where=fault.where, remedy="save the file as UTF-8")


def _official(path: Path, encoding: str, first: Scored) -> dict[str, Any] | None:
    """The answers of a file as SQuAD's script takes it, {id: answer}; None where it is no such file."""
    ids = {str(line["id"]) for line in first.lines if "id" in line}
    if path.suffix.lower() != ".json" or not ids:
        return None
    try:
        value = json_rows.loads(encodings.decode(path, encoding))
    except json.JSONDecodeError:  # JSON lines, perhaps
        return None
    if not isinstance(value, dict) or not value:
        return None
    strange = any(isinstance(said, (list, dict)) for said in value.values()) or ANSWER in value
    if strange and not ids & value.keys():
        return None
    _refuse_faults(value, str(path))
    return value


def _rows(path: Path, columns: Mapping[str, str], encoding: str) -> Iterator[Placed]:
    if path.suffix.lower() in (".json", ".jsonl"):
        for where, value in _values(path, encodings.decode(path, encoding)):
            row = _of_value(value)
            _refuse_faults(row, where)
            yield where, row
        return
    kind = format_of(str(path), None)
    needed = [columns.get(ANSWER, ANSWER)] if kind == "txt" else list(columns.values())
    task = Task(data=Data(encoding=encoding))
    with reading_rows(str(path), kind, needed, task) as found:
        for where, each, fault in found:
            if fault or each is None:
                raise InputError(fault, where=where)
            yield where, each


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The values of a JSON document that is a list or an object of lists, or of JSON lines."""
    if path.suffix.lower() == ".json":
        value = None
        with suppress(json.JSONDecodeError):
            value = json_rows.loads(text)
        if not (isinstance(value, list) and any(not isinstance(item, dict) for item in value)):
            value = json_rows.of_text(text, path)
        yield from ((f"{path}, row {number}", item) for number, item in enumerate(value, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, json_rows.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error.msg}", where=where) from None


def _of_value(value: Any) -> Row:
    """An object is a row; what a pipeline says of each label is probabilities, anything else an answer."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(item, (dict, list)) for item in value):
        return {PROBABILITIES: value}
    return {ANSWER: value}


def _refuse_faults(row: Row, where: str) -> None:
    for name, fault in getattr(row, "faults", {}).items():
        raise InputError(f"'{name}' {fault}", where=where)


def _tagged(path: Path, encoding: str, first: Scored) -> Raw | None:
    """The rows of a file in a form of the family's own, such as a word a line; None of every other. A table
    and a text with an answer a line have no blank lines between rows, as sentences of words have."""
    family = families.find(first.task.family)
    suffix = path.suffix.lower()
    if suffix not in family.readers or suffix in (".csv", ".json", ".jsonl", ".parquet"):
        return None
    if suffix in (".txt", ".tsv"):
        lines = encodings.decode(path, encoding).strip().splitlines()
        if all(line.strip() for line in lines):
            return None
    return family.readers[suffix](path, ["tokens", family.target], Data(encoding=encoding), ())


def _sentences(raw: Raw, target: str) -> Iterator[Placed]:
    """Words and tags of each sentence."""
    places = raw.rows()
    both = zip(raw.table["tokens"].to_pylist(), raw.table[target].to_pylist(), strict=True)
    for i, (words, said) in enumerate(both):
        yield places.place(i), {"tokens": words, ANSWER: said}


# --- columns to roles


def _named(rows: list[Placed], path: Path, columns: Mapping[str, str], first: Scored) -> Form:
    present = list(dict.fromkeys(name for _, row in rows for name in row))
    if missing := [column for column in columns.values() if column not in present]:
        raise InputError(
            f"no column '{missing[0]}'", where=str(path), remedy=did_you_mean(missing[0], present)
        )
    roles = {role: columns.get(role) or _called([role], present) for role in ROLES}
    for role in TEXTS:
        own = first.task.data.columns.get(role, role)
        roles[role] = _called([role, own, *(["sequence"] if role == "text" else [])], present)
    each = [name for name in present if name.startswith(PREFIX)]
    zero_shot = set(present) >= ZERO_SHOT and not roles[ANSWER]
    label = _called(["label"], present)
    of_label = not (roles[ANSWER] or roles[PROBABILITIES] or each or zero_shot)
    if of_label and label is None:
        raise InputError("no column 'prediction'", where=rows[0][0], remedy=NAME_IT)
    if of_label:
        roles[ANSWER] = label
    result = []
    for where, row in rows:
        named = {role: row[column] for role, column in roles.items() if column is not None and column in row}
        if each and not roles[PROBABILITIES]:
            named[PROBABILITIES] = {name.removeprefix(PREFIX): row.get(name) for name in each}
        elif zero_shot and not roles[PROBABILITIES]:
            named[PROBABILITIES] = _zero_shot(row, where)
        result.append((where, named))
    taken = {*roles.values(), *each, label, *(ZERO_SHOT if zero_shot else ())}
    others = [name for name in present if name not in taken]
    notes = []
    if of_label:
        more = f"; other columns: {', '.join(others[:5])} (--column prediction=COLUMN)" if others else ""
        notes.append(f"the answers of {path} are read from its column '{label}'{more}")
    return Form(result, others, of_label, notes)


def _called(names: list[str], present: list[str]) -> str | None:
    """The column of the first of these names that there is; as it is written, or else in any case."""
    folded = {column.casefold(): column for column in reversed(present)}
    exact = next((name for name in names if name in present), None)
    return exact or next((folded[name.casefold()] for name in names if name.casefold() in folded), None)


def _zero_shot(row: Row, where: str) -> Any:
    """{"labels": [...], "scores": [...]} as a list of {"label", "score"}."""
    labels, scores = ([] if row.get(key) is None else row[key] for key in ("labels", "scores"))
    try:
        labels, scores = (
            json_rows.loads(side) if isinstance(side, str) else side for side in (labels, scores)
        )
        return [{"label": label, "score": p} for label, p in zip(labels, scores, strict=True)]
    except (TypeError, ValueError):
        raise InputError("'labels' and 'scores' are not lists of one length", where=where) from None
