"""A file of rows, answered as `bert-ft predict` does."""

from __future__ import annotations

from pathlib import Path

from bert_ft.errors import BertFtError, InputError
from bert_ft.modeling.model import Model
from bert_ft.tools.app.answers import fragment
from bert_ft.tools.predict.files import predict
from bert_ft.tools.predict.readers import format_of


def columns(model: Model) -> list[str]:
    """The columns that a file of rows must have, as the model's task calls them."""
    names = model.adapter.task.data.columns
    return [names.get(role, role) for role, needed in model.adapter.inputs.items() if needed]


def answer(model: Model, source: str, language: str) -> tuple[str, str | None]:
    """What became of the rows as HTML, and the file of the answers, beside the source; None where nothing
    could be answered."""
    path = Path(source)
    told: list[str] = []
    try:
        kind = format_of(source, None)
        kind = kind if kind in ("csv", "tsv", "parquet") else "jsonl"
        target = path.with_name(f"{path.stem}-answers.{kind}")
        outcome = predict(model, source, str(target), tell=told.append)
    except BertFtError as error:
        lines = [_named(line, path) for line in (_message(error), *error.details)]
        return fragment("fault", language, lines=lines), None
    bad = [_named(line, path) for line in outcome.bad]
    remarks = [_named(line, path) for line in told if line not in outcome.bad]
    return fragment("outcome", language, rows=outcome.rows, bad=bad, remarks=remarks), str(target)


def _message(error: BertFtError) -> str:
    """What is wrong; of what can be mended in the file, the remedy too."""
    first = f"{error.where}: {error.message}" if error.where else error.message
    helps = isinstance(error, InputError) and error.remedy and "--" not in error.remedy
    return f"{first} ({error.remedy})" if helps else first


def _named(line: str, path: Path) -> str:
    """A line about the file under the name that the user knows: it lies in a folder for uploads."""
    return line.replace(str(path), path.name)
