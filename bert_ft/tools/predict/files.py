"""Files in, files out: rows stream through a trained model in windows, so memory does not grow with their
number.

The columns of the input are kept, in their order; the answer's columns come behind them. A row that can't be
read, or that the model can't take, is told with its line and left out, or passed through with its `error`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bert_ft import reading
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.modeling.model import Model
from bert_ft.tools.predict.cells import changed, unwritable, without_formula
from bert_ft.tools.predict.readers import WINDOW, Line, format_of, reading_rows
from bert_ft.tools.predict.writers import printable, writing_rows


@dataclass
class Outcome:
    """What became of the rows."""

    rows: int = 0
    bad: list[str] = field(default_factory=list)  # one line each: where, and what is wrong
    broken: int = 0  # rows of a TSV with a line break in a cell


def predict(
    model: Model,
    source: str = "-",
    target: str = "-",
    *,
    read_as: str | None = None,
    write_as: str | None = None,
    columns: dict[str, str] | None = None,
    keep_bad: bool = False,
    escape_formulas: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Answers every row of a file, or of standard input, in the order of the rows.

    Args:
        source, target: a file, or "-" for standard input and output.
        read_as, write_as: one of `FORMATS`; by default what the file's suffix says, otherwise jsonl.
        columns: role (text, text_pair, question, context) -> column; a role's own name by default. Encoding,
            delimiter and quoting of tables are those of the model's task.
        keep_bad: rows at fault are written with an `error` and no answer, instead of being left out.
        escape_formulas: in tables, a ' stands before each cell that a spreadsheet would run as a formula.
        tell: takes one line for each row at fault.
    Raises:
        InputError: no such file, or none of the wanted columns; a column that is there twice, or called as an
            answer's.
    """
    for role in columns or {}:
        if role not in model.adapter.inputs:
            raise InputError(
                f"there is no role '{role}'",
                where="--column",
                remedy=did_you_mean(role, model.adapter.inputs),
            )
    reading.path(source), reading.path(target)
    read_as = format_of(source, read_as)
    write_as = format_of(target, write_as, read_as if read_as in ("csv", "tsv") else "jsonl")
    names = {
        role: (columns or {}).get(role, model.adapter.task.data.columns.get(role, role))
        for role in model.adapter.inputs
    }
    if escape_formulas and write_as not in ("csv", "tsv"):
        raise InputError(
            f"{write_as} holds no formulas", where="--escape-formulas", remedy="it is for --to csv and tsv"
        )
    found = Outcome()

    def judge(row: dict[str, Any]) -> str:
        return _unfit(row, model.adapter, names) or ("" if write_as == "jsonl" else unwritable(row, write_as))

    def answered(stream: Iterable[Line]) -> Iterator[dict[str, Any]]:
        lines = iter(stream)
        while window := list(islice(lines, WINDOW)):
            judged = [(where, row, wrong or judge(row or {})) for where, row, wrong in window]
            try:
                rows = model.rows([row for _, row, wrong in judged if not wrong], names)
            except InputError:  # of one row at least
                judged = [(where, row, wrong or _refused(row, model, names)) for where, row, wrong in judged]
                rows = model.rows([row for _, row, wrong in judged if not wrong], names)
            answers = iter(model.answer(rows) if len(rows) else ())
            for where, row, wrong in judged:
                found.rows += 1
                found.broken += read_as == "tsv" and any("\n" in str(value) for value in (row or {}).values())
                if not wrong and row is not None:
                    # what a row has of the model's inputs it keeps as it was
                    answer = {
                        key: value for key, value in next(answers).items() if key not in model.adapter.inputs
                    }
                    answer |= {"error": None} if keep_bad else {}
                    if clash := answer.keys() & row.keys():
                        raise InputError(
                            f"the rows have a column '{min(clash)}' of their own, as the answers do",
                            where=where,
                            remedy="give it another name",
                        )
                    yield row | answer
                    continue
                found.bad.append(f"{where}: {wrong}")
                tell(found.bad[-1])
                if keep_bad:
                    yield {**printable(row or {}), "error": wrong}

    needed = [name for role, name in names.items() if model.adapter.inputs[role]]
    if read_as == "txt" and len(needed) > 1:
        raise InputError(
            f"a line of text can't hold {' and '.join(needed)}", where=source, remedy="--from jsonl, or csv"
        )
    with (
        reading_rows(source, read_as, needed, model.adapter.task) as stream,
        writing_rows(target, write_as, tell) as write,
    ):
        rows = answered(stream)
        if escape_formulas:
            rows = (changed(row, without_formula) for row in rows)
        write(rows)
    if found.broken:
        tell(
            f"{found.broken:,} rows hold line breaks within quotes; where each line is a row: --set "
            "quoting=false"
        )
    return found


def _unfit(row: dict[str, Any], adapter: Adapter, names: dict[str, str]) -> str:
    """What is wrong with a row that could be read."""
    for role, needed in adapter.inputs.items():
        value = row.get(names[role])
        if value is None and needed:
            return f"no '{names[role]}'"
        if value is not None and not isinstance(value, str) and needed:
            return f"'{names[role]}' is {type(value).__name__}, not text"
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return f"'{names[role]}' holds half a surrogate pair"
    return ""


def _refused(row: dict[str, Any] | None, model: Model, names: dict[str, str]) -> str:
    """What the adapter says of one row."""
    try:
        model.rows([row], names)
    except InputError as error:
        return error.message
    return ""
