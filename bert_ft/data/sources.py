"""From where the user's rows lie (hub, folder, file, Python object) to one raw Arrow table a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import reading
from bert_ft.config.schema import Data, Original
from bert_ft.data import hub, originals
from bert_ft.data.finding import Finding
from bert_ft.data.formats import arrow, chosen, delimited, json_rows
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError, did_you_mean, end_of_file

OBJECT = "(Python object)"  # stands in a task where a file would be named
TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (*TABLES, ".json", ".jsonl", ".parquet", ".arrow")
LARGEST_LIST = 10_000_000  # bytes of a saved data set's list of its files
ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train",), "test": ("test",)}


@dataclass
class Raw:
    """The selected columns of one split as they came.

    Attributes:
        where: where they came from.
        class_names: column -> the names of its integer codes.
        notes: what a person should know: a line each.
        findings: what may be wrong with it, of a set that has no name yet.
        used: as `Canonical` has it.
        numbers: as `Rows` has them.
        parts: as `Rows` has them.
    """

    table: pa.Table
    where: str
    class_names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    used: np.ndarray | None = None
    numbers: np.ndarray | None = None
    parts: list[tuple[str, int]] = field(default_factory=list)

    def rows(self) -> Rows:
        """The rows as they came, which know where they stand."""
        return Rows(self.table, self.where, self.numbers, parts=self.parts)


Reader = Callable[[Path, list[str], Data, tuple[str, ...]], Raw]
"""(file, required columns, the task's [data], columns that may be missing) -> these columns."""


@dataclass(frozen=True)
class Selection:
    """What is read of a split, wherever it lies.

    Attributes:
        columns: the required ones.
        optional: columns that may be missing; `formats.OTHERS` adds every column nobody asked for.
        data_dir: the folder that holds the benchmark's original files.
        readers: file suffix -> reader of the family's own formats; "/" is a folder's.
    """

    data: Data
    columns: list[str]
    optional: tuple[str, ...]
    data_dir: str | None
    readers: Mapping[str, Reader]


def read(split: str, selection: Selection) -> Raw:
    """Reads one split: a file, or the name of a split in `data.path`; several are joined by "+", as in
    `datasets`."""
    data = selection.data
    if len(parts := files(split)) > 1:
        raws = []
        counts = []
        for part in parts:
            raws.append(read(part, selection))
            counts.append((raws[-1].where, end_of_file(len(raws[-1].table))))
        try:
            table = pa.concat_tables([raw.table for raw in raws], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"the files have different columns: {error}", where=split) from None
        where = " + ".join(raw.where for raw in raws)
        if any(raw.class_names != raws[0].class_names for raw in raws):
            remedy = "convert the codes to names, or the files to ones with the same features"
            raise InputError(
                "the files name the codes of their labels differently", where=where, remedy=remedy
            )
        notes = [note for raw in raws for note in raw.notes]
        findings = [finding for raw in raws for finding in raw.findings]
        used = [np.ones(len(raw.table), bool) if raw.used is None else raw.used for raw in raws]
        all_used = None if all(raw.used is None for raw in raws) else np.concatenate(used)
        return Raw(table, where, raws[0].class_names, notes, findings, all_used, parts=counts)
    if selection.data_dir is not None and data.original is not None:
        return _original(Path(selection.data_dir), split, selection, data.original)
    if Path(split).suffix.lower() in (*SUFFIXES, *selection.readers) or Path(split).is_absolute():
        return _file(reading.path(Path(data.path or ".", split)), selection)
    if split == OBJECT:
        raise InputError(
            "the rows of this set were Python objects, which a task file can't hold",
            remedy="pass them again: finetune(train=, validation=), run.evaluate(rows)",
        )
    if data.path is None:
        raise InputError(
            f"no data for '{split}'",
            remedy="name a file (--train, --validation, --test), or set data.path to a "
            "folder or hub id; --validation 10% holds training rows out",
        )
    path = reading.path(data.path, "data.path")
    if path.is_file():
        if split != "train":
            raise InputError(
                f"a single file has no split '{split}'",
                where=str(path),
                remedy='hold some rows out: --set data.validation="10%"',
            )
        return _file(path, selection)
    if path.is_dir():
        return _folder(path, split, selection)
    if path.is_absolute() or data.path.startswith("."):
        raise InputError("no such file or folder", where=data.path)
    return _hub(split, selection)


def files(split: str) -> list[str]:
    """The files that `a.conll+b.conll` names; a hub split ("train+test") and one file stay whole."""
    parts = split.split("+")
    whole = len(parts) == 1 or Path(split).exists() or not all(Path(part).suffix for part in parts)
    return [split] if whole else parts


def _file(path: Path, selection: Selection) -> Raw:
    """One CSV, TSV, JSON, JSONL, Parquet or Arrow file, or one that a reader of the family knows."""
    if path.is_dir() and "/" in selection.readers:
        return selection.readers["/"](path, selection.columns, selection.data, selection.optional)
    if path.is_dir():
        raise InputError(
            "this is a folder, not a file",
            where=str(path),
            remedy="read a folder's splits with --set data.path=DIR",
        )
    if not path.is_file():
        raise InputError("not a regular file" if path.exists() else "no such file", where=str(path))
    if (suffix := path.suffix.lower()) not in (valid := dict.fromkeys((*selection.readers, *SUFFIXES))):
        raise InputError(
            f"a '{suffix}' file can't be read",
            where=str(path),
            remedy="use one of " + ", ".join(name for name in valid if name != "/"),
        )
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path))
    data = selection.data
    columns = selection.columns
    optional = selection.optional
    if data.pattern is not None:
        table = originals.lines(path, data.pattern, data.encoding)
        return Raw(table.select(chosen(table.column_names, columns, optional, str(path))), str(path))
    if suffix in selection.readers:
        return selection.readers[suffix](path, columns, data, optional)
    if suffix in TABLES:
        read = delimited.read(
            path,
            columns,
            delimiter=data.delimiter,
            quoting=data.quoting,
            encoding=data.encoding,
            names=data.names,
            optional=optional,
        )
        return Raw(read.table, str(path), notes=read.notes, findings=read.findings)
    if suffix in (".json", ".jsonl"):
        table = json_rows.read(path, columns, encoding=data.encoding, optional=optional)
    else:
        table, class_names = arrow.read(path, columns, optional=optional)
        return Raw(table, str(path), class_names)
    return Raw(table, str(path))


def _original(folder: Path, split: str, selection: Selection, original: Original) -> Raw:
    if original.label_files:
        found = originals.of_files(folder, split, original)
        return Raw(found.table, found.where)
    path = originals.place(folder, split, original)
    if original.suffix in selection.readers:
        return selection.readers[original.suffix](path, selection.columns, selection.data, selection.optional)
    if path.suffix.lower() in (*selection.readers, ".json", ".jsonl") and original.pattern is None:
        return _file(path, selection)
    found = originals.read(path, selection.columns, selection.optional, original)
    return Raw(found.table, found.where, notes=found.notes)


def _folder(path: Path, split: str, selection: Selection) -> Raw:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = _saved(path)
        return of_object(
            _pick(saved, split, str(path)), selection.columns, selection.optional, f"{path} [{split}]"
        )
    for stem in ALIASES.get(split, (split,)):
        for suffix in dict.fromkeys((*selection.readers, *SUFFIXES)):
            if suffix != "/" and (file := path / f"{stem}{suffix}").is_file():
                return _file(file, selection)
    if (path / "README.md").is_file():  # a data set cloned or downloaded from the hub
        return _hub(split, selection)
    names = sorted(p.name for p in path.iterdir() if p.suffix in (*SUFFIXES, *selection.readers))
    remedy = f"it holds {', '.join(names) or 'no data file'}; name the file in the task: {split}.csv, ..."
    raise InputError(f"no file for the split '{split}'", where=str(path), remedy=remedy)


def _saved(path: Path) -> Any:
    """The `DatasetDict` of a folder that `save_to_disk` wrote, whose files all lie in it."""
    import datasets

    listing = path / "dataset_dict.json"
    folders = [path]
    try:
        if listing.is_file():
            splits = reading.strict(reading.text(listing, LARGEST_LIST))["splits"]
            folders = [reading.inside(str(split), path, str(listing)) for split in splits]
        for folder in folders:
            state = folder / "state.json"
            for item in reading.strict(reading.text(state, LARGEST_LIST))["_data_files"]:
                if not (file := reading.inside(str(item["filename"]), folder, str(state))).is_file():
                    raise InputError(
                        "it names a file that does not exist, or is not a regular file",
                        where=str(state),
                        remedy=str(file),
                    )
        saved = datasets.load_from_disk(str(path))
    except (LookupError, TypeError, ValueError, OSError) as error:  # Arrow's own are among them
        message = f"`save_to_disk` did not write this folder: {type(error).__name__}: {error}"
        raise InputError(message, where=str(path)) from None
    return datasets.DatasetDict({"train": saved}) if isinstance(saved, datasets.Dataset) else saved


def _hub(split: str, selection: Selection) -> Raw:
    import datasets
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    data = selection.data
    where = " ".join(filter(None, [data.path, data.name, f"[{split}]"]))
    assert data.path is not None
    # a folder may change meanwhile
    load = hub.dataset.__wrapped__ if Path(data.path).is_dir() else hub.dataset
    try:
        loaded = load(data.path, data.name, data.revision).as_dataset(split=split)
    except (RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        if isinstance(error, GatedRepoError) or "gated" in str(error):
            remedy = "request access on its page, then run `hf auth login`"
            raise InputError("this data set is gated", where=where, remedy=remedy) from None
        if "Revision" in str(error):
            raise InputError(
                f"no revision '{data.revision}'", where=where, remedy="the usual one is main"
            ) from None
        raise InputError(
            "no such data set on the hub, or no access to it",
            where=where,
            remedy="check the id; a local folder or file needs a path that exists; --data-dir reads "
            "a benchmark's original files",
        ) from None
    except (ValueError, RuntimeError) as error:
        # an unknown configuration or split; the message lists those that exist
        first, *rest = str(error).splitlines()
        remedy = " ".join(rest[:2])
        if not remedy and "scripts" in first:
            remedy = 'read the hub\'s Parquet copy with data.revision = "refs/convert/parquet"'
        raise InputError(first, where=where, remedy=remedy) from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise InputError("the YAML at the head of its README can't be read", where=where) from None
        if Path(data.path).is_dir() and isinstance(error, FileNotFoundError):
            message = f"a data file that its README names does not exist: {error}"
            raise InputError(message, where=where) from None
        # below the hub's client; its name differs by version
        transport = type(error).__module__.startswith("httpx")
        if not transport and not isinstance(error, (OSError, HfHubHTTPError)):
            raise
        message = (
            "the hub can't be reached, or the connection was lost, and this data set is not in the cache "
            f"({type(error).__name__})"
        )
        remedy = "try again when you are online, or read local files with --data-dir or --train"
        raise InputError(message, where=where, remedy=remedy) from None
    return of_object(loaded, selection.columns, selection.optional, where)


def _of_frame(frame: Any, columns: list[str], required: list[str]) -> pa.Table:
    """These columns of a pandas frame; mixed types are a fault only in a required one."""
    arrays = {}
    for column in columns:
        try:
            arrays[column] = pa.Table.from_pandas(frame[[column]], preserve_index=False).column(0)
        except (pa.ArrowException, TypeError, ValueError):
            if column in required:
                raise
    return pa.table(arrays)


def _columns(rows: list[Any]) -> dict[str, list[Any]]:
    """The columns of a list of dicts, also those that only later rows have."""
    return {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}


def _of_lists(
    columns: Mapping[Any, Any], required: list[str], optional: tuple[str, ...], where: str
) -> pa.Table:
    """These columns of a dict of lists; what Arrow can't hold is a fault only in a required one."""
    named = {str(key): value for key, value in columns.items()}
    arrays = {}
    for column in chosen([str(key) for key in columns], required, optional, where):
        try:
            arrays[column] = pa.array(list(named[column]))
        except (ValueError, TypeError, OverflowError):
            if column in required:
                raise
    return pa.table(arrays)


def _pick(splits: Mapping[str, Any], split: str, where: str) -> Any:
    for name in ALIASES.get(split, (split,)):
        if name in splits:
            return splits[name]
    raise InputError(
        f"no split '{split}'", where=where, remedy=did_you_mean(split, [str(key) for key in splits])
    )


def of_object(rows: Any, required: list[str], optional: tuple[str, ...], where: str) -> Raw:
    """The columns of a `datasets.Dataset` (also a streamed one), a pandas frame, an Arrow table, a dict of
    lists, or a list of dicts.

    Raises:
        InputError: rows that are none of these, or lack a required column.
    """
    features = rows.features or {} if hasattr(rows, "features") and hasattr(rows, "with_format") else {}
    types: dict[str, Any] = {column: features.get(column) for column in required}
    kinds = {column: getattr(kind, "feature", kind) for column, kind in types.items()}  # of a list's items
    names = {column: list(kind.names) for column, kind in kinds.items() if hasattr(kind, "str2int")}
    if features and hasattr(rows, "num_rows"):
        selected = chosen(rows.column_names, required, optional, where)
        return Raw(rows.select_columns(selected).with_format("arrow")[:], where, names)
    try:
        if isinstance(rows, pa.Table):
            table = rows
        elif hasattr(rows, "iloc"):
            rows = rows.set_axis([str(name) for name in rows.columns], axis=1)
            table = _of_frame(rows, chosen(list(rows.columns), required, optional, where), required)
        else:
            table = _of_lists(
                rows if isinstance(rows, Mapping) else _columns(list(rows)), required, optional, where
            )
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # Arrow's own are among them
        remedy = "pass a Dataset, a pandas frame, a dict of lists or a list of dicts"
        raise InputError(f"these rows can't be read: {error}", where=where, remedy=remedy) from None
    return Raw(table.select(chosen(table.column_names, required, optional, where)), where, names)
