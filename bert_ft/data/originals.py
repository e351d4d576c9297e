"""A benchmark's own files, as its authors distribute them: what `[data.original]` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Original
from bert_ft.data.formats import OTHERS, chosen, delimited
from bert_ft.data.formats.encodings import decode
from bert_ft.errors import InputError, row_fault


@dataclass
class Texts:
    """The columns of one split, and what a person should know of how they were read."""

    table: pa.Table
    where: str
    notes: list[str] = field(default_factory=list)


def place(folder: Path, split: str, original: Original) -> Path:
    """The file or folder of a split: below one of the distribution's folders, or in `folder` itself.

    Raises:
        InputError: it is not there.
    """
    inner = [original.folder] if isinstance(original.folder, str) else original.folder
    places = [folder / name / split for name in inner if name] + [folder / split]
    for path in places:
        if path.is_file() or (original.label_folders and path.is_dir()):
            return path
    names = [f"no '{path.relative_to(folder)}'" for path in places]
    remedy = "name the folder of the original distribution, or the one above it, with --data-dir"
    raise InputError(" and ".join(names), where=str(folder), remedy=remedy)


def read(path: Path, wanted: list[str], optional: tuple[str, ...], original: Original) -> Texts:
    """The wanted columns of one file.

    Raises:
        InputError: whatever is wrong with it, with its place.
    """
    if original.label_folders:
        table = _folders(path, original)
    elif original.pattern is not None:
        table = lines(path, original.pattern, original.encoding)
    else:
        return _delimited(path, wanted, optional, original)
    return Texts(table.select(chosen(table.column_names, wanted, optional, str(path))), str(path))


def lines(path: Path, pattern: str, encoding: str) -> pa.Table:
    """A row a line: the named groups of a pattern, an RE2 expression that has to match the whole line; empty
    lines are no rows.

    Raises:
        InputError: a pattern that can't be read, or a line that it does not match, with its number.
    """
    text = pa.array(decode(path, encoding).replace("\r\n", "\n").split("\n"), pa.string())
    filled = pac.not_equal(pac.utf8_trim_whitespace(text), "")
    found = _extracted(text, pattern)
    odd = pac.and_(filled, pac.is_null(found))
    numbers = np.cumsum(filled.to_numpy(False))
    for at in np.flatnonzero(odd.to_numpy(False)).tolist():
        fault = InputError(
            f"the line is not as the pattern says: {text[at].as_py()[:80]!r}",
            where=f"{path}, line {at + 1}",
            remedy=f"pattern: {pattern}",
        )
        row_fault(fault, int(numbers[at]))
    rows = found.drop_null()
    if not len(rows):
        raise InputError("the file is empty", where=str(path))
    return pa.table({kind.name: rows.field(k) for k, kind in enumerate(rows.type)})


def parted(texts: list[str], pattern: str) -> list[dict[str, str] | None]:
    """The named groups of a pattern in each text; None where it does not match the whole."""
    result: list[dict[str, str] | None] = _extracted(pa.array(texts, pa.string()), pattern).to_pylist()
    return result


def _extracted(texts: pa.Array, pattern: str) -> pa.Array:
    try:
        return pac.extract_regex(texts, f"^(?:{pattern})$")
    except pa.ArrowInvalid as error:
        raise InputError(f"this pattern can't be read: {error}", where="data.pattern") from None


def of_files(folder: Path, split: str, original: Original) -> Texts:
    """A row a line of several files, each of which has the lines of one label; a split is a part of each:
    "0%:80%".

    Raises:
        InputError: a file that is not there.
    """
    start, end = (float(edge.rstrip("%")) / 100 for edge in split.split(":"))
    texts: list[str] = []
    labels: list[str] = []
    for label, name in original.label_files.items():
        path = place(folder, name, original)
        whole = [line for line in decode(path, original.encoding).split("\n") if line.strip()]
        part = whole[int(len(whole) * start) : int(len(whole) * end)]
        texts += [line.strip() for line in part]
        labels += [label] * len(part)
    where = f"{path.parent} [{split}]"
    return Texts(_labelled(texts, labels), where)


def _labelled(texts: list[str], labels: list[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})


def _folders(path: Path, original: Original) -> pa.Table:
    """A row a file, in folders that are called as their label, in the order of the labels and names."""
    texts: list[str] = []
    labels: list[str] = []
    for label, name in original.label_folders.items():
        if not (path / name).is_dir():
            raise InputError(f"there is no folder '{name}'", where=str(path))
        found = [decode(file, original.encoding) for file in _files(path / name)]
        texts += found
        labels += [label] * len(found)
    return _labelled(texts, labels)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.iterdir()) if file.suffix == ".txt" and file.is_file())


def _delimited(path: Path, wanted: list[str], optional: tuple[str, ...], original: Original) -> Texts:
    """A table, whose columns may be called otherwise in another file of the distribution."""
    skipped: list[int] | None = [] if original.skip_ragged else None
    changes = bool(original.rename or original.join or original.only)
    table = delimited.read(
        path,
        wanted,
        delimiter=original.delimiter,
        quoting=original.quoting,
        encoding=original.encoding,
        names=original.names,
        optional=(*wanted, OTHERS) if changes else optional,
        skipped=skipped,
    ).table
    if not original.quoting:
        # without quotes an empty cell can only be an empty text
        table = pa.table({name: table[name].fill_null("") for name in table.column_names})
    if changes:
        table = table.rename_columns([original.rename.get(name, name) for name in table.column_names])
        for name, parts in original.join.items():
            if set(parts) <= set(table.column_names):
                texts = pac.binary_join_element_wise(*(table[part] for part in parts), " ")
                table = table.append_column(name, texts)
        for name, value in original.only.items():
            if name in table.column_names:
                table = table.filter(pac.equal(table[name], value))
        table = table.select(chosen(table.column_names, wanted, optional, str(path)))
    notes = []
    if skipped:
        count = f"{len(skipped)} rows with too few or too many cells are left out"
        notes.append(f"{count}; the first is row {skipped[0]}")
    return Texts(table, str(path), notes)
