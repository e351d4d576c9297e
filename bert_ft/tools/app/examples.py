"""Inputs to try: rows of the validation set that the model had wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bert_ft.errors import BertFtError
from bert_ft.families.words import joined
from bert_ft.report.rendering import show
from bert_ft.run import Run
from bert_ft.tools.app.phrases import phrase

MOST = 6
SHORT = 60  # characters of a text that are shown


class Example(NamedTuple):
    """A row: what the model reads of it, a value a role; and the line that says how the model was wrong."""

    values: list[str]
    line: Mapping[str, Any]


def of_run(run: Run, roles: Sequence[str]) -> tuple[str, list[Example]]:
    """The name of the scored set, and some of its errors; none where the run keeps no rows, is not finished,
    or is of a family that can't list them."""
    try:
        scored = run.scored()
        lines = scored.errors()[:MOST]
    except BertFtError:
        return "", []
    rows = scored.rows
    if rows is None:
        return "", []
    examples = []
    for line in lines:
        row = {name: rows[name][line["row"]].as_py() for name in rows.column_names}
        if "text" not in row and "tokens" in row:
            row["text"] = joined(row["tokens"])
        values = [str(row.get(role) or "") for role in roles]
        if all(value.strip() for value in values):
            examples.append(Example(values, line))
    return scored.name, examples


def named(example: Example, language: str) -> str:
    """What an example is called: the beginning of its first text, and how the model was wrong."""
    told = {"label": "gold", "prediction": "predicted", "missed": "missed", "wrong": "wrong"}
    wrong = []
    for key, name in told.items():
        value = example.line.get(key)
        if value is None or (key in ("missed", "wrong") and not value):
            continue
        if isinstance(value, list):  # gold answers of a question are often the same
            value = list(dict.fromkeys(value))
        text = show(value) or phrase(language, "nothing")
        wrong.append(phrase(language, name, label=_shortened(text)))
    return " · ".join([_shortened(" ".join(example.values[0].split())), *wrong])


def _shortened(text: str) -> str:
    return f"{text[:SHORT]}…" if len(text) > SHORT else text
