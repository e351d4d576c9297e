"""Tags in another spelling than B-PER become that: B_PER, PER-B, b-per, "(PERSON*", "-" for outside, types
that are called as a scheme's letters. What they mean is told from the tags of a file alone, and only where
one reading makes sense."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bert_ft.data.finding import Finding
from bert_ft.errors import InputError
from bert_ft.families.ner import schemes
from bert_ft.metrics.entities import ALIASES

OUTSIDE = ("O", "o", "-", "_", "0", "*")
"""What stands for no entity: the first of them that a file has."""
BRACKETS = re.compile(r"\((?P<kind>[^()*]+)(\*\)?|\))|\*\)?|-")
OPENED = re.compile(r"\(+[^()*\s]")
IN_FULL = re.compile(
    r"(?P<head>(?i:begin|beginning|inside|intermediate|end|single|last|unit)[-_ :/.]|[BIESLU] )(?P<type>.+)"
    r"|(?P<kind>.+)(?P<tail> [BIESLU])"
)
KEY = "ner.spelling"
BROKEN = 0.1  # share of the tags that may break every scheme, if read so


class Spelling(NamedTuple):
    """Where a tag has its letter, and what is between that and the type."""

    name: str
    pattern: re.Pattern[str]
    attached: bool


class Spelled(NamedTuple):
    """Tags as B-PER and O, what to tell of them, and the findings."""

    tags: pa.ListArray
    notes: list[str]
    findings: list[Finding]


def _spellings() -> dict[str, Spelling]:
    letters = "".join(ALIASES)
    found = {}
    for between in ("-", "_", ":", "/", ".", ""):
        mark = re.escape(between)
        forms = {f"PREFIX{between}TYPE": f"(?P<letter>[{letters}]){mark}(?P<kind>.+)"}
        if between:
            forms[f"TYPE{between}PREFIX"] = f"(?P<kind>.+){mark}(?P<letter>[{letters}])"
        for name, pattern in forms.items():
            found[name] = Spelling(name, re.compile(pattern), not between)
    return found


SPELLINGS = _spellings()


def read(tags: pa.ListArray, spelling: str | None, place: Callable[[int], str]) -> Spelled:
    """Tags in the spelling that `schemes` reads.

    Args:
        tags: lists of strings without nulls, not a slice of another array.
        spelling: one of `SPELLINGS`, or "TYPE", for tags that are no more than a type; None finds it out.
        place: flat word number -> where the word stands, for a message.
    Raises:
        InputError: brackets that do not close, a tag that is not in the spelling.
    """
    coded = tags.flatten().dictionary_encode()
    names = coded.dictionary.to_pylist()
    ids = coded.indices.to_numpy()
    outside = _outside(names)
    inner = [name for name in names if name != outside]
    typed = any(OPENED.match(name) for name in inner)
    if typed and any("*" in name for name in names) and spelling is None:
        out = _of_brackets(names, ids, tags.offsets.to_numpy(), place)
        note = f"tags are brackets ({next(name for name in inner if '(' in name)}), read as IOB2"
        return Spelled(pa.ListArray.from_arrays(tags.offsets, pa.array(out, pa.string())), [note], [])
    follows = np.zeros(len(ids), bool)  # words with the tag of the word before, in one sentence
    follows[1:] = ids[1:] == ids[:-1]
    starts = tags.offsets.to_numpy()[:-1]
    follows[starts[starts < len(ids)]] = False
    repeated = {names[k] for k in np.unique(ids[follows]).tolist()}
    findings: list[Finding] = []
    new: dict[str, str] | None = None
    notes = []
    if spelling is not None:
        new = _by_name(inner, spelling, lambda name: place(int(np.argmax(ids == names.index(name)))))
    elif inner:
        spelling, new, findings = _found(tags, names, inner, outside, repeated)
    if new and any(name != tag for name, tag in new.items()) and spelling != "TYPE":
        name, tag = next((name, tag) for name, tag in new.items() if name != tag)
        notes.append(f"tags are {spelling} ({name}), read as {tag}")
    if outside not in (None, "O"):
        notes.append(f"'{outside}' is read as O: no word is part of an entity there")
        new = {**{name: name for name in inner}, **(new or {}), str(outside): "O"}
    if new is None:
        return Spelled(tags, notes, findings)
    table = pa.array([new.get(name, name) for name in names], pa.string())
    return Spelled(pa.ListArray.from_arrays(tags.offsets, table.take(coded.indices)), notes, findings)


def _outside(names: Sequence[str]) -> str | None:
    """The tag that stands for no entity."""
    found = next((name for name in OUTSIDE if name in names), None)
    return None if found == "0" and all(name.isdigit() for name in names) else found


def _by_name(inner: Sequence[str], spelling: str, place: Callable[[str], str]) -> dict[str, str]:
    """Tag -> its usual spelling, of a spelling that the user names."""
    if spelling == "TYPE":
        return {name: f"I-{name}" for name in inner}
    new = {}
    for name in inner:
        match = SPELLINGS[spelling].pattern.fullmatch(name) or _lower(SPELLINGS[spelling]).fullmatch(name)
        if match is None:
            remedy = 'mend it there, or name another spelling; "TYPE" is tags without letters of a scheme'
            raise InputError(
                f"tag '{name}' is not {spelling}, as {KEY} says", where=place(name), remedy=remedy
            )
        new[name] = f"{match['letter'].upper()}-{match['kind']}"
    return new


def _lower(spelling: Spelling) -> re.Pattern[str]:
    letters = "".join(ALIASES)
    return re.compile(spelling.pattern.pattern.replace(f"[{letters}]", f"[{letters.lower()}]"))


def _found(
    tags: pa.ListArray, names: list[str], inner: list[str], outside: str | None, repeated: set[str]
) -> tuple[str | None, dict[str, str] | None, list[Finding]]:
    """The spelling of a set's tags with what it makes of them, where that is plain; what may be meant by
    bare letters."""
    if any(SPELLINGS["PREFIX-TYPE"].pattern.fullmatch(name) for name in inner):
        return None, None, []
    letters = [name for name in inner if name in ALIASES]
    if letters:
        return _of_letters(inner, letters, repeated)
    for spelling, new, heads in _matching(inner):
        if len(new) == len(inner) and _plain(tags, names, new, heads, outside, repeated, spelling.attached):
            return spelling.name, new, []
    return None, None, []


Heads = dict[str, set[str]]
"""Type -> the letters that stand at it."""


def _matching(inner: Sequence[str]) -> Iterator[tuple[Spelling, dict[str, str], Heads]]:
    """Each spelling that some tags can have, in capitals or not, with what it makes of these."""
    for spelling in SPELLINGS.values():
        for pattern in (spelling.pattern, _lower(spelling)):
            matches = {name: match for name in inner if (match := pattern.fullmatch(name))}
            new = {name: f"{match['letter'].upper()}-{match['kind']}" for name, match in matches.items()}
            heads = defaultdict(set)
            for tag in new.values():
                heads[tag[2:]].add(tag[0])
            if new:
                yield spelling, new, heads


def doubts(name: str, types: Sequence[str]) -> Iterator[Finding]:
    """The finding of types that may be a scheme's letters with a type, of the set `name`."""
    for spelling, new, heads in _matching(types):
        shared = any(len(of) > 1 and of & {"B", "I"} for of in heads.values())
        one = len(new) == len(types) and len({tag[0] for tag in new.values()} | {"B", "I"}) == 2
        if (shared or one) and not spelling.attached:
            message = (
                f"tags perhaps written {spelling.name}, read as types of their own: {KEY} = "
                f'"{spelling.name}" takes the letter for the scheme\'s, '
                '"TYPE" keeps them and this warning away'
            )
            yield Finding("tags", "warning", name, len(new), message, sorted(new)[:10])
            return


def written_out(name: str, types: Sequence[str]) -> Iterator[Finding]:
    """The finding of types that may be a scheme's letter written in full, or parted by a blank."""
    matches = {kind: match for kind in types if (match := IN_FULL.fullmatch(kind))}
    if matches:
        kind, match = next(iter(matches.items()))
        tag = f"{(match['head'] or match['tail']).strip()[0].upper()}-{match['type'] or match['kind']}"
        message = (
            "tags that are perhaps a scheme's letter and a type, read as types of their own: "
            f'data.label_names = {{ "{kind}" = "{tag}", ... }} says what each is'
        )
        yield Finding("tags", "warning", name, len(matches), message, sorted(matches)[:10])


def by_types(types: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Type -> tag in the spelling under which the types of a set, too few to tell it, are known ones; empty
    where there is none."""
    for _, new, _ in _matching(types):
        if len(new) == len(types) and all(tag[2:] in known for tag in new.values()):
            return new
    return {}


def _plain(
    tags: pa.ListArray,
    names: list[str],
    new: dict[str, str],
    heads: dict[str, set[str]],
    outside: str | None,
    repeated: set[str],
    attached: bool,
) -> bool:
    """Whether tags in a spelling can hardly mean anything else: the letters of a type follow a scheme, or the
    entities are the same if the tags are types."""
    letters = {letter for of in heads.values() for letter in of}
    if len(letters) == 1:
        alone = len(new) == 1 and outside == "O"
        return not alone and not attached and (letters == {"I"} or not repeated & new.keys())
    if not any(len(of) > 1 and of & {"B", "I"} for of in heads.values()):
        return False
    if attached and any("B" not in of and "I" in of for of in heads.values()):
        return False
    table = pa.array([new.get(name, "O") for name in names], pa.string())
    respelled = table.take(tags.flatten().dictionary_encode().indices)
    _, _, wrong = schemes.to_iob2(pa.ListArray.from_arrays(tags.offsets, respelled), "auto", str)
    entities = np.count_nonzero(respelled.to_numpy(zero_copy_only=False) != "O")
    return bool(len(wrong) <= BROKEN * entities)


def _of_letters(
    inner: list[str], letters: list[str], repeated: set[str]
) -> tuple[str | None, dict[str, str] | None, list[Finding]]:
    """Bare letters of a scheme: they are prefixes of one nameless type where there is nothing else, and types
    among other types."""
    if len(letters) < len(inner):
        if {"B", "I"} <= set(letters):
            return None, None, []  # some have a type and some have none: `schemes` refuses them
        return "TYPE", {name: f"I-{name}" for name in inner}, []
    if {"B", "I"} & set(letters) and not (letters == ["B"] and "B" in repeated):
        return None, None, []
    message = f'tags read as letters of a scheme: if they are types, {KEY} = "TYPE"'
    return None, None, [Finding("tags", "warning", "", len(letters), message, sorted(letters))]


def _of_brackets(
    names: list[str], ids: np.ndarray, offsets: np.ndarray, place: Callable[[int], str]
) -> list[str]:
    """IOB2 of tags as OntoNotes and CoNLL-2012 write them: "(PERSON*" opens, "*" goes on, "*)" closes."""
    forms = []
    for name in names:
        match = BRACKETS.fullmatch(name) or (name == "O" and BRACKETS.fullmatch("-"))
        if not match:
            where = place(int(np.argmax(ids == names.index(name))))
            remedy = (
                "one bracket a word is read, as in (PERSON* * *); tags that are no brackets: "
                "--set ner.spelling=TYPE"
            )
            raise InputError(f"the tag '{name}' can't be read", where=where, remedy=remedy)
        forms.append((match["kind"], name.endswith(")")))
    out = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        kind = None
        for word in range(start, end):
            opened, closes = forms[ids[word]]
            if (opened and kind) or (closes and not (opened or kind)):
                what = "opens within another" if opened else "closes what none opened"
                raise InputError(f"the bracket '{names[ids[word]]}' {what}", where=place(word))
            kind = opened or kind
            out.append("O" if kind is None else f"{'B' if opened else 'I'}-{kind}")
            kind = None if closes else kind
        if kind:
            raise InputError(f"the bracket of a '{kind}' is not closed in its sentence", where=place(end - 1))
    return out
