"""Files in, files out: rows stream through a trained model in windows, so memory does not grow with their
number.

The columns of the input are kept, in their order; the answer's columns come behind them. A row that can't be
read, or that the model can't take, is told with its line and left out, or passed through with its `error`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

from bert_ft import files, reading
from bert_ft.data.columns import LONGEST
from bert_ft.data.formats.quotes import Remarks
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families import listing
from bert_ft.families.base import Adapter
from bert_ft.modeling.model import Model
from bert_ft.reading import HALF
from bert_ft.tools.predict.caution import Caution
from bert_ft.tools.predict.cells import changed, unwritable, without_formula
from bert_ft.tools.predict.readers import WINDOW, Line, format_of, reading_rows, refuse_tagged
from bert_ft.tools.predict.writers import printable, writing_rows


@dataclass
class Outcome:
    """What became of the rows."""

    rows: int = 0
    bad: list[str] = field(default_factory=list)  # one line each: where, and what is wrong
    broken: int = 0  # rows of a TSV with a line break in a cell
    counts: Counter[str] = field(default_factory=Counter)  # of the rows that were encoded, as `Features` has


@dataclass(frozen=True)
class Form:
    """How the rows of a file are read and written.

    Attributes:
        names: role -> column. needed: the columns that a row has to have.
        read_as, write_as: of `FORMATS`.
    """

    names: dict[str, str]
    needed: list[str]
    read_as: str
    write_as: str


class Options(TypedDict, total=False):
    """What `predict` can be asked for of any file, as it describes it."""

    read_as: str | None
    write_as: str | None
    columns: dict[str, str] | None
    keep_bad: bool
    escape_formulas: bool
    caution: Caution | None
    probabilities: bool


def form_of(model: Model, source: str, target: str, **options: Unpack[Options]) -> Form:
    """How a file will be read and written, without opening it; arguments and errors as of `predict`."""
    columns = options.get("columns")
    inputs = model.adapter.inputs
    for role in columns or {}:
        if role not in inputs:
            raise InputError(
                f"there is no role '{role}'", where="--column", remedy=did_you_mean(role, inputs)
            )
    reading.path(source)
    if target != "-" and reading.path(target).is_dir():
        raise InputError(
            "this is a folder; the answers of one file need a file", where=target, remedy="name a file in it"
        )
    read_as = format_of(source, options.get("read_as"))
    write_as = format_of(target, options.get("write_as"), read_as if read_as in ("csv", "tsv") else "jsonl")
    if options.get("escape_formulas") and write_as not in ("csv", "tsv"):
        raise InputError(
            f"{write_as} holds no formulas", where="--escape-formulas", remedy="it is for --to csv and tsv"
        )
    if options.get("probabilities"):
        _refuse_probabilities(model.adapter, options.get("caution"))
    own = model.adapter.task.data.columns
    names = {role: (columns or {}).get(role, own.get(role, role)) for role in inputs}
    needed = [name for role, name in names.items() if inputs[role]]
    if read_as == "txt" and len(needed) > 1:
        raise InputError(
            f"a line of text can't hold {' and '.join(needed)}", where=source, remedy="--from jsonl, or csv"
        )
    return Form(names, needed, read_as, write_as)


def predict(
    model: Model,
    source: str = "-",
    target: str = "-",
    *,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda rows: None,
    place: Callable[[Path], AbstractContextManager[Path]] = files.beside,
    outcome: Outcome | None = None,
    **options: Unpack[Options],
) -> Outcome:
    """Answers every row of a file, or of standard input, in the order of the rows.

    Args:
        source, target: a file, or "-" for standard input and output.
        tell: takes one line for each row at fault, and what there is to know of the rows.
        advance: takes how many more rows are answered.
        place: gives the file that is written until it is whole, as a context at whose end it takes its name.
        outcome: where is noted what becomes of the rows, as it does; by default a new one.
        options: read_as, write_as: one of `FORMATS`; by default what the file's suffix says, otherwise jsonl.
            columns: role (text, text_pair, question, context) -> column; a role's own name by default.
            Encoding, delimiter and quoting of tables are those of the model's task.
            keep_bad: rows at fault are written with an `error` and no answer, instead of being left out.
            escape_formulas: of tables for a spreadsheet: a ' stands before each cell that it would run as a
            formula, and a file begins with the mark by which it knows UTF-8.
            caution: which answers are left open, and which labels may be right beside them.
            probabilities: a row's answer is its probabilities alone, in one column: what `data.soft` names to
            train another model.
    Raises:
        InputError: no such file, or none of the wanted columns; a column that is there twice, or called as an
            answer's; lines that are words with their tags.
    """
    form = form_of(model, source, target, **options)
    if form.read_as == "txt" and options.get("read_as") is None and ".txt" in model.adapter.readers:
        refuse_tagged(source, model.adapter.task.data.encoding, model.adapter.names)
    answering = _Answering(
        model,
        form,
        options.get("keep_bad", False),
        options.get("caution"),
        options.get("probabilities", False),
        tell,
        advance,
        Outcome() if outcome is None else outcome,
    )
    remarks, reader = Remarks(), model.adapter.readers.get(".json")
    safe = options.get("escape_formulas", False)
    with (
        _own_words(model.adapter.inputs),
        reading_rows(source, form.read_as, form.needed, model.adapter.task, remarks, reader) as lines,
        writing_rows(target, form.write_as, tell, place, safe) as write,
    ):
        rows = answering.rows(lines)
        if safe:
            rows = (changed(row, without_formula) for row in rows)
        write(rows)
        for line in remarks.lines(source):
            tell(line)
        if broken := answering.outcome.broken:
            tell(
                f"{broken:,} rows hold line breaks within quotes; where each line is a row: --set "
                "quoting=false"
            )
    return answering.outcome


@contextmanager
def _own_words(inputs: Mapping[str, bool]) -> Iterator[None]:
    """Inside, what a reader says of columns is said in the options of this command."""
    try:
        yield
    except InputError as error:
        role = next(role for role, needed in inputs.items() if needed)
        error.remedy = error.remedy.replace("(--text 1 --label 0)", f"(--column {role}=1)")
        raise


def _refuse_probabilities(adapter: Adapter, caution: Caution | None) -> None:
    """Raises InputError: answers that are no probabilities of labels, or that are to say more."""
    where = "--probabilities"
    if not adapter.soft_targets or adapter.task.data.problem_type == "regression":
        raise InputError(
            "this model gives no probabilities of labels",
            where=where,
            remedy="leave it out: answers have scores",
        )
    if caution is not None:
        remedy = "leave out --abstain-below and --label-sets, or --probabilities"
        raise InputError("an answer of probabilities alone is never left open", where=where, remedy=remedy)


@dataclass
class _Answering:
    """The way of rows through the model, a window at a time: judged, answered, and put together again."""

    model: Model
    form: Form
    keep_bad: bool
    caution: Caution | None
    probabilities: bool
    tell: Callable[[str], None]
    advance: Callable[[int], None]
    outcome: Outcome

    def rows(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """The rows that are written, in the order of those that are read."""
        while window := list(islice(lines, WINDOW)):
            judged = [(where, row, fault or self._fault(row or {})) for where, row, fault in window]
            try:
                rows = self.model.rows([row for _, row, fault in judged if not fault], self.form.names)
            except InputError:  # of one row at least
                judged = [(where, row, fault or self._refused(row)) for where, row, fault in judged]
                rows = self.model.rows([row for _, row, fault in judged if not fault], self.form.names)
            answers = iter(self._answers(rows) if len(rows) else ())
            for where, row, fault in judged:
                self.outcome.rows += 1
                if self.form.read_as == "tsv":
                    self.outcome.broken += any("\n" in str(value) for value in (row or {}).values())
                if row is not None and not fault:
                    yield self._answered(where, row, next(answers))
                    continue
                self.outcome.bad.append(f"{where}: {fault}")
                self.tell(self.outcome.bad[-1])
                if self.keep_bad:
                    yield {**printable(row or {}), "error": fault}
            self.advance(len(window))

    def _answers(self, rows: Rows) -> Iterable[dict[str, Any]]:
        predictions = self.model.infer(rows, self.model.blocks(rows, self.outcome.counts))
        if not self.probabilities:
            return self.model.adapter.decode_raw(predictions, rows)
        # of many labels too: they are to be learned
        return listing.whole(self.model.adapter.names, predictions["probabilities"])

    def _answered(self, where: str, row: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The row with its answer behind it. What it has of the model's inputs it keeps as it was."""
        answer = {key: value for key, value in answer.items() if key not in self.model.adapter.inputs}
        if self.caution is not None:
            answer = self.caution.applied(answer)
        if self.probabilities:
            found = answer["probabilities"]
            # one column also in a table, whatever the labels are
            answer = {
                "probabilities": found if self.form.write_as in ("jsonl", "parquet") else reading.dumps(found)
            }
        elif (
            self.form.write_as != "jsonl"
            and "probabilities" in answer
            and listing.is_cut(len(self.model.adapter.names))
        ):
            # other labels in each row: no columns
            answer["probabilities"] = reading.dumps(answer["probabilities"])
        if self.keep_bad:
            answer["error"] = None
        if clash := answer.keys() & row.keys():
            raise InputError(
                f"the rows have a column '{min(clash)}' of their own, as the answers do",
                where=where,
                remedy="give it another name",
            )
        return row | answer

    def _fault(self, row: dict[str, Any]) -> str:
        """What is wrong with a row that could be read."""
        fault = _unfit(row, self.model.adapter, self.form.names)
        return fault or ("" if self.form.write_as == "jsonl" else unwritable(row, self.form.write_as))

    def _refused(self, row: dict[str, Any] | None) -> str:
        """What the adapter says of one row."""
        try:
            self.model.rows([row], self.form.names)
        except InputError as error:
            return error.message
        return ""


def _unfit(row: dict[str, Any], adapter: Adapter, names: dict[str, str]) -> str:
    """What is wrong with a row that could be read."""
    for role, needed in adapter.inputs.items():
        value = row.get(names[role])
        if value is None and needed:
            return f"no '{names[role]}'"
        if value is not None and not isinstance(value, str) and needed:
            return f"'{names[role]}' is {type(value).__name__}, not text"
        if not isinstance(value, str):
            continue
        if len(value) > LONGEST // 4 and (size := len(value.encode("utf-8", "replace"))) > LONGEST:
            return f"'{names[role]}' holds a text of {size / 1e6:,.0f} MB: is a quote never closed?"
        if HALF.search(value):
            return f"'{names[role]}' holds half a surrogate pair"
    return ""
