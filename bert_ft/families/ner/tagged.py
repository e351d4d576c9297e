"""Rows of tagged words from whatever holds them: lists of words with tags or codes, or texts with character
spans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.task import Task
from bert_ft.data.columns import is_text, names, refuse
from bert_ft.data.finding import Finding
from bert_ft.data.rows import Rows
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner import schemes, spelling, words
from bert_ft.families.ner.options import Options

MANY = 10  # words with a tag from which on the number of their types says something
OTHER = ("other", "none", "null", "nil", "out", "outside", "na", "n/a")
"""Tags, in lower case, that can hardly be types."""


def canonical(
    raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool, unspaced: bool
) -> tuple[dict[str, Any], list[str], list[Finding]]:
    """The columns tokens and tags (lists of strings; IOB2, or null where there are none); where raw text has
    spans that its words can't express also learned and missed, as `words.Tagged` has them; what to tell of
    them; and the findings.

    Args:
        unspaced: how raw text is cut into words, as `words.split` takes it.
    Raises:
        InputError: columns of another kind, a row without words or tags, or with a tag too many; with its
            place.
    """
    here = raw.rows()
    name = columns["tokens"]
    kind = raw.table[name].type
    given, untold = _given(raw, columns["tags"], labelled, here)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if text:
        found, notes, findings = _of_text(raw.table[name], given, here, task, unspaced)
        lists = found.pop("tokens")
    else:
        lists = _lists(raw.table[name], name, here, task)
        found = {} if given is None else {"tags": _lists(given, columns["tags"], here, task)}
        notes, findings = [], []
    original = task.data.original if task.run.data_dir is not None else None
    if original is not None and (original.word_start or original.word_end):
        lists, more = _bare(lists, original.word_start, original.word_end)
        notes += more
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
    if not found:
        return {"tokens": lists, "tags": pa.nulls(len(lists), pa.list_(pa.string()))}, untold + notes, []
    kind = found["tags"].type.value_type
    if pa.types.is_nested(kind):
        raise InputError(
            f"column '{columns['tags']}' holds lists of {kind}, not of tags",
            where=here.place(0),
            remedy="a tag is wanted for every word; spans of words are read as GLiNER has them: "
            '"tokenized_text", and "ner" with [first, last, type]',
        )
    if not text and (filler := _filler(found["tags"])):
        if labelled:
            raise InputError(
                f"no word has a tag: '{filler}' stands at each of them",
                where=place(0),
                remedy="name the column of the tags: --tags COLUMN; words that are part of no entity have O",
            )
        notes.append(f"'{filler}' stands at each word, so that there are no tags and none is scored")
        return {"tokens": lists, "tags": pa.nulls(len(lists), pa.list_(pa.string()))}, untold + notes, []
    missed = {"missed": found.pop("missed")} if "missed" in found else {}
    codes = raw.class_names.get(columns["tags"])
    for role, tags in found.items():
        if len(odd := np.flatnonzero(np.diff(tags.offsets.to_numpy()) != sizes)):
            row = int(odd[0])
            message = f"{sizes[row]} words and {len(tags[row])} tags"
            raise InputError(message, where=here.place(row), remedy="a tag is wanted for every word")
        found[role] = _named(tags, codes, task, columns["tags"], raw.where, place)
    if text:  # IOB2 already
        read = {role: schemes.to_iob2(tags, "IOB2", place)[0] for role, tags in found.items()}
        return {"tokens": lists, **read, **missed}, notes, findings
    tags, more, beside = _in_iob2(found["tags"], task, place)
    findings += [*beside, *_suspicious(texts, tags, columns, "line" in raw.table.column_names)]
    return {"tokens": lists, "tags": tags}, notes + more, findings


def _filler(tags: pa.ListArray) -> str:
    """What stands at each word where nobody has tagged any; "" where there are tags."""
    values = pac.unique(tags.flatten()).to_pylist() if is_text(tags.type.value_type) else []
    return str(values[0]) if values in (["_"], ["-"]) else ""


def _in_iob2(
    tags: pa.ListArray, task: Task, place: Callable[[int], str]
) -> tuple[pa.ListArray, list[str], list[Finding]]:
    """Tags of any spelling and scheme as IOB2, what to tell of them, and the findings."""
    assert isinstance(task.options, Options)
    given, notes, findings = spelling.read(tags, task.options.spelling, place)
    read, scheme, wrong = schemes.to_iob2(given, task.options.scheme, place)
    if scheme:
        notes.append("tags are IOB2" if scheme == "IOB2" else f"tags are {scheme}, read as IOB2")
    if wrong:
        first = f"{tags.flatten()[wrong[0]]} at {place(wrong[0])}"
        notes.append(
            f"{len(wrong):,} tags break {scheme} and are read by conlleval's rules; the first: {first}"
        )
    return read, notes, findings


def _suspicious(
    words: pa.Array, tags: pa.ListArray, columns: Mapping[str, str], numbered: bool
) -> list[Finding]:
    """The finding of tags that can hardly be tags: nearly each is of a type of its own, or they have more
    values than the words. Tags without O are as usual as words (parts of speech); `numbered`: the file's
    columns have no names."""
    values = tags.flatten()
    inside = values.filter(pac.not_equal(values, "O"))
    types = pac.unique(pac.utf8_slice_codeunits(inside, 2))
    outside = len(inside) < len(values)
    many = len(inside) >= MANY
    what = ""
    if outside and many and len(types) * 2 > len(inside):
        what = "which have nearly as many types as there are of them"
    elif (many or not outside) and len(types) > len(pac.unique(words)):
        what = "which have more types than there are different words"
    elif not outside and (other := [kind for kind in types.to_pylist() if kind.lower() in OTHER]):
        message = (
            f"words with a tag, none of them O: if '{other[0]}' is for words outside, "
            f'data.label_names = {{ "{other[0]}" = "O" }}'
        )
        return [Finding("tags", "warning", "", len(inside), message)]
    if not what:
        return []
    names = columns["tokens"], columns["tags"]
    tokens, given = ("0", "-1") if numbered and names == ("tokens", "tags") else names
    message = (
        f"words with a tag, {what}: are --tokens and --tags swapped (--tokens {given} --tags {tokens})? If "
        'words outside have another tag, name it: data.label_names = { OTHER = "O" }'
    )
    return [Finding("tags", "warning", "", len(inside), message)]


def _given(raw: Raw, name: str, labelled: bool, here: Rows) -> tuple[pa.ChunkedArray | None, list[str]]:
    """The column of the tags, None where there is none or a row has none, and what to tell of that."""
    given = raw.table[name] if name in raw.table.column_names else None
    untold = list[str]()
    if given is not None and given.null_count:
        if labelled:
            refuse(
                pac.is_null(given),
                here.place,
                f"{given.null_count} rows have no tags",
                f"give '{name}' a value there, or remove the rows",
            )
        if given.null_count < len(given):
            untold = [f"{given.null_count:,} of {len(given):,} rows have no tags, so that none is scored"]
        given = None
    if given is None and labelled:
        raise InputError(f"no column '{name}'", where=raw.where, remedy="name it: --tags COLUMN")
    return given, untold


def _bare(lists: pa.ListArray, start: str, end: str) -> tuple[pa.ListArray, list[str]]:
    """Words without what a distribution writes before and behind each, and what to tell of it."""
    texts = lists.flatten()
    cut = pac.replace_substring_regex(texts, f"(?s)^(?:{start})(.+?)(?:{end})$", r"\1")
    if not (changed := pac.sum(pac.not_equal(cut, texts)).as_py()):
        return lists, []
    what = " and ".join(filter(None, [start and f"begin with {start}", end and f"end in {end}"]))
    note = f"{changed:,} of {len(texts):,} words {what}, which these files add and is cut off"
    return pa.ListArray.from_arrays(lists.offsets, cut), [note]


def flat(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The items of a list column, behind one another, and (N + 1,) int64 offsets of the rows; a null row has
    none."""
    whole = column.combine_chunks()
    lengths = pac.fill_null(pac.list_value_length(whole), 0).to_numpy()
    return whole.flatten(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def missed(table: pa.Table) -> list[str]:
    """The types of the spans that no tag stands for."""
    return flat(table["missed"])[0].to_pylist() if "missed" in table.column_names else []


def _lists_wanted(task: Task) -> str:
    """The remedy where words and tags are no lists."""
    if {"tokens", "tags"} <= set(task.data.columns):
        return (
            "lists of words and of tags are wanted: JSONL and Parquet hold them, or a file of a word a line"
        )
    return "name the columns that hold lists of words and of tags: --tokens COLUMN --tags COLUMN"


def _lists(column: pa.ChunkedArray, name: str, here: Rows, task: Task) -> pa.ListArray:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"column '{name}' holds {kind}, not lists", where=here.where, remedy=_lists_wanted(task)
        )
    refuse(pac.is_null(column), here.place, f"no '{name}'", "a list is wanted; [] where it is empty")
    values, offsets = flat(column)
    values = values.cast(pa.string()) if is_text(values.type) else values
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _of_text(
    texts: pa.ChunkedArray, given: pa.ChunkedArray | None, here: Rows, task: Task, unspaced: bool
) -> tuple[dict[str, pa.ListArray], list[str], list[Finding]]:
    """The words of raw text as the column tokens, with `tags`, `learned` and `missed` where spans are given,
    the last two only if a span is missed; what to tell, and the findings."""
    refuse(pac.is_null(texts), here.place, "no text")
    marks = [[] for _ in texts] if given is None else given.to_pylist()
    names = task.data.label_names
    try:
        spans = [
            [(mark["start"], mark["end"], names.get(mark["label"], mark["label"])) for mark in row]
            for row in marks
        ]
    except (TypeError, KeyError):
        raise InputError(
            f"raw text needs spans (start, end, label), not {given.type if given is not None else ''}",
            where=here.where,
            remedy=_lists_wanted(task),
        ) from None
    found, notes, findings = words.tag(texts.to_pylist(), spans, here.place, unspaced)
    offsets = pa.array(found.words.offsets, pa.int32())
    columns: dict[str, Sequence[str] | np.ndarray] = {"tokens": found.words.words}
    if given is not None:
        columns["tags"] = found.tags
    if findings:
        columns["learned"] = found.learned
    lists = {
        role: pa.ListArray.from_arrays(offsets, pa.array(values, pa.string()))
        for role, values in columns.items()
    }
    if findings:
        lists["missed"] = pa.array(found.missed, pa.list_(pa.string()))
    return lists, notes, findings


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
