"""Parquet and Arrow files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from bert_ft import reading
from bert_ft.data.formats import chosen
from bert_ft.errors import InputError


def read(
    path: Path, wanted: list[str], *, optional: tuple[str, ...] = ()
) -> tuple[pa.Table, dict[str, list[str]]]:
    """The columns of a Parquet or Arrow file whose values are what their types say, and the names of the
    codes in them that `datasets` wrote into its metadata.

    Raises:
        InputError: no such file, a wanted column that is missing or can't be read.
    """
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            dataset = pq.ParquetDataset(path)
            names = chosen(dataset.schema.names, wanted, optional, str(path))
            # what nobody asked for by name can be vectors or images, and a few kB of them gigabytes
            asked = {*wanted, *optional}
            names = [name for name in names if name in asked or not _large(dataset.schema.field(name).type)]
            # a name with a dot would be a field within another
            table = dataset.read(None if any("." in name for name in names) else names)
        else:
            table = _ipc(path)
            names = chosen(table.column_names, wanted, optional, str(path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a {path.suffix[1:].lower()} file: {error}", where=str(path)) from None
    table = table.select(names)
    for name in table.column_names:
        try:
            table[name].validate(full=True)  # its texts are UTF-8, its offsets within
        except pa.ArrowInvalid as error:
            if name in wanted:
                raise InputError(f"column '{name}' can't be read: {error}", where=str(path)) from None
            table = table.drop_columns([name])
    return table, _class_names(table.schema, wanted)


def _class_names(schema: pa.Schema, columns: list[str]) -> dict[str, list[str]]:
    """Column -> the names of its codes, by the features that `datasets` keeps in a file's metadata."""
    try:
        features = reading.strict((schema.metadata or {})[b"huggingface"].decode())["info"]["features"]
    except (LookupError, TypeError, ValueError):
        return {}
    out = {}
    present = [name for name in columns if schema.get_all_field_indices(name)]
    for column in present if isinstance(features, dict) else ():
        held = schema.field(column).type
        while pa.types.is_list(held) or pa.types.is_large_list(held):
            held = held.value_type
        if not pa.types.is_integer(held):
            continue
        kind = features.get(column)
        if isinstance(kind, list) and len(kind) == 1:  # a list, as older releases wrote it
            kind = kind[0]
        kind = kind.get("feature", kind) if isinstance(kind, dict) else {}
        names = kind.get("names") if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            out[column] = names
    return out


def _large(kind: pa.DataType) -> bool:
    """Whether a type is none of those that a column can be compared by, but lists, structures or bytes."""
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _ipc(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:  # `datasets` writes the streaming format
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()
