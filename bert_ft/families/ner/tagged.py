"""Rows of tagged words from whatever holds them: lists of words with tags or codes, or texts with character
spans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.task import Task
from bert_ft.data.columns import is_text, names, refuse
from bert_ft.data.rows import Rows
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner import schemes, words
from bert_ft.families.ner.options import Options


def canonical(
    raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool
) -> tuple[dict[str, Any], list[str]]:
    """The columns tokens and tags (lists of strings; IOB2, or null where there are none), and what to tell of
    them.

    Raises:
        InputError: columns of another kind, a row without words or tags, or with a tag too many; with its
            place.
    """
    here = Rows(raw.table, raw.where)
    name = columns["tokens"]
    given = raw.table[columns["tags"]] if columns["tags"] in raw.table.column_names else None
    untold = list[str]()
    if given is not None and given.null_count:
        if labelled:
            refuse(
                pac.is_null(given),
                here.place,
                f"{given.null_count} rows have no tags",
                f"give '{columns['tags']}' a value there, or remove the rows",
            )
        if given.null_count < len(given):
            untold = [f"{given.null_count:,} of {len(given):,} rows have no tags, so that none is scored"]
        given = None
    if given is None and labelled:
        raise InputError(f"no column '{columns['tags']}'", where=raw.where, remedy="name it: --tags COLUMN")
    notes: list[str] = []
    if pa.types.is_string(raw.table[name].type) or pa.types.is_large_string(raw.table[name].type):
        lists, found, notes = _of_text(raw.table[name], given, here)
    else:
        lists = _lists(raw.table[name], name, here)
        found = None if given is None else _lists(given, columns["tags"], here)
    offsets = lists.offsets.to_numpy()

    def place(word: int) -> str:
        row = int(np.searchsorted(offsets, word, "right")) - 1
        return here.place(row, word - int(offsets[row]))

    texts = lists.flatten()
    if not pa.types.is_string(texts.type):
        raise InputError(f"column '{name}' holds lists of {texts.type}, not of words", where=raw.where)
    refuse(pac.is_null(texts), place, "a word is null")
    if not (sizes := np.diff(offsets)).all():
        notes.append(
            f"{(sizes == 0).sum():,} rows have no words; the first: {here.place(int(np.argmin(sizes)))}"
        )
    if found is None:
        return {"tokens": lists, "tags": pa.nulls(len(lists), pa.list_(pa.string()))}, untold + notes
    if len(odd := np.flatnonzero(np.diff(found.offsets.to_numpy()) != sizes)):
        row = int(odd[0])
        message = f"{sizes[row]} words and {len(found[row])} tags"
        raise InputError(message, where=here.place(row), remedy="a tag is wanted for every word")
    found = _named(found, raw.class_names.get(columns["tags"]), task, columns["tags"], raw.where, place)
    assert isinstance(task.options, Options)
    read, scheme, wrong = schemes.to_iob2(found, task.options.scheme, place)
    if scheme:
        notes.append("tags are IOB2" if scheme == "IOB2" else f"tags are {scheme}, read as IOB2")
    if wrong:
        tag = found.flatten()[wrong[0]]
        first = f"{tag} at {place(wrong[0])}"
        notes.append(
            f"{len(wrong):,} tags break {scheme} and are read by conlleval's rules; the first: {first}"
        )
    return {"tokens": lists, "tags": read}, notes


def flat(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The items of a list column, behind one another, and (N + 1,) int64 offsets of the rows; a null row has
    none."""
    whole = column.combine_chunks()
    lengths = pac.fill_null(pac.list_value_length(whole), 0).to_numpy()
    return whole.flatten(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _lists(column: pa.ChunkedArray, name: str, here: Rows) -> pa.ListArray:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"column '{name}' holds {kind}, not lists",
            where=here.where,
            remedy="name the columns of words and tags: --tokens COLUMN --tags COLUMN",
        )
    refuse(pac.is_null(column), here.place, f"no '{name}'", "a list is wanted; [] where it is empty")
    values, offsets = flat(column)
    values = values.cast(pa.string()) if is_text(values.type) else values
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _of_text(
    texts: pa.ChunkedArray, given: Any, here: Rows
) -> tuple[pa.ListArray, pa.ListArray | None, list[str]]:
    refuse(pac.is_null(texts), here.place, "no text")
    marks = [[] for _ in texts] if given is None else given.to_pylist()
    try:
        spans = [[(mark["start"], mark["end"], mark["label"]) for mark in row] for row in marks]
    except (TypeError, KeyError):
        raise InputError(
            f"raw text needs spans (start, end, label), not {given.type}",
            where=here.where,
            remedy="or give lists of words with their tags: --tokens COLUMN --tags COLUMN",
        ) from None
    found, labels, notes = words.tag(texts.to_pylist(), spans, here.place)
    offsets = pa.array(found.offsets, pa.int32())
    tagged = None if given is None else pa.ListArray.from_arrays(offsets, pa.array(labels, pa.string()))
    return pa.ListArray.from_arrays(offsets, pa.array(found.words, pa.string())), tagged, notes


def _named(
    lists: pa.ListArray,
    codes: list[str] | None,
    task: Task,
    name: str,
    where: str,
    place: Callable[[int], str],
) -> pa.ListArray:
    """Tags as strings: codes by the source's own names or by `data.label_names`."""
    values = lists.flatten()
    mapping = task.data.label_names
    refuse(pac.is_null(values), place, "a word has no tag")
    if pa.types.is_integer(values.type):
        if not codes and not mapping:
            raise InputError(
                f"column '{name}' holds numbers",
                where=place(0),
                remedy='name them: data.label_names = { "0" = "O", "1" = "B-PER", ... }',
            )
        known = pa.array([str(k) for k in range(len(codes))] if codes else list(mapping))
        strange = pac.invert(pac.is_in(values.cast(pa.string()), value_set=known))
        refuse(strange, place, lambda k: f"the tag {values[k]} has no name", "see data.label_names")
    elif not pa.types.is_string(values.type):
        raise InputError(f"column '{name}' holds lists of {values.type}, not of tags", where=place(0))
    values = names(pa.chunked_array([values]), codes, task.data, name, where, place).combine_chunks()
    return pa.ListArray.from_arrays(lists.offsets, values)
