"""Tags as files have them (IO, IOB1, IOB2, IOE1, IOE2, BIOES/BMES, BILOU) become IOB2; what breaks its scheme
is found on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bert_ft.errors import InputError
from bert_ft.metrics.entities import ALIASES, B, E, I, O, S, apart, parse, shifted, starts_and_ends

LETTERS = {
    "": "",
    "IO": "I",
    "IOB1": "BI",
    "IOB2": "BI",
    "IOE1": "IE",
    "IOE2": "IE",
    "BIOES": "BIESM",
    "BILOU": "BILU",
}
SIGNS = {"IOB2": "B", "IOB1": "B", "IOE2": "E", "IOE1": "E", "BIOES": "ESM", "BILOU": "LU"}
"""The letters that a scheme is known by. A set that breaks several equally is read by the first."""
STRAY = 0.01  # share of the tags up to which those with a letter are slips, and no sign of a scheme


def to_iob2(
    tags: pa.ListArray, scheme: str, place: Callable[[int], str]
) -> tuple[pa.ListArray, str, list[int]]:
    """Tags of any scheme as IOB2.

    Entities are read by conlleval's rules, under which every scheme means what it says; where a tag breaks
    its scheme, the rules still say which entities there are.

    Args:
        tags: lists of strings without nulls, not a slice of another array.
        scheme: of the tags; "auto" detects it.
        place: flat word number -> where the word stands, for a message.
    Returns:
        the tags in IOB2; their scheme ("" where there are no entities to see it by); the flat numbers of the
        words whose tag breaks it.
    Raises:
        InputError: a tag without a prefix among tags that have one, or with a prefix that the scheme lacks.
    """
    coded = tags.flatten().dictionary_encode()
    names = coded.dictionary.to_pylist()
    ids = coded.indices.to_numpy()
    offsets = tags.offsets.to_numpy().astype(np.int64)
    heads = {name: _head(name) for name in names if name != "O"}
    prefix, kind, kinds = parse(names, ALIASES)
    codes, types = (apart(table[ids], offsets) for table in (prefix, kind))
    before = shifted(codes)
    same = shifted(types) == types
    steps = _Steps(before, codes, same)
    counts = np.bincount(ids, minlength=len(names))
    letters = [heads.get(name, "O") for name in names]
    found = _detect(letters, counts, steps) if scheme == "auto" else scheme
    prefixed = any(heads.values())
    for name, head in heads.items():
        if (scheme != "auto" and head not in LETTERS[found]) or (not head and prefixed) or not name:
            what = f"is none of {found}" if head else "has no prefix (B-, I-, ...) where others have one"
            remedy = "mend it there, or leave the scheme to be found out: --set ner.scheme=auto"
            if not head:
                remedy = (
                    f'mend it there; if it is for words outside, data.label_names = {{ "{name}" = "O" }};'
                    " if all tags are types, --set ner.spelling=TYPE"
                )
            where = place(int(np.argmax(ids == names.index(name))))
            raise InputError(f"tag '{name}' {what}", where=where, remedy=remedy)
    breaks = breaking(found, *steps)
    stops = offsets[1:] + np.arange(len(offsets) - 1)  # where `apart` put the O behind each sentence
    foreign = np.array([head not in {"O", "", *LETTERS[found]} for head in letters], bool)[ids]
    within = np.flatnonzero(np.delete(breaks, stops) | foreign)
    wrong = np.union1d(within, offsets[1:][breaks[stops]] - 1)
    starts = np.delete(starts_and_ends(codes, types)[0], stops)
    out = np.where(prefix[ids] == O, 0, 1 + 2 * kind[ids] + ~starts)
    table = pa.array(labels_of(kinds), pa.string())
    return pa.ListArray.from_arrays(tags.offsets, table.take(pa.array(out))), found, wrong.tolist()


def labels_of(kinds: Sequence[str]) -> list[str]:
    """O, then B- and I- of each type."""
    return ["O", *(f"{letter}-{kind}" for kind in kinds for letter in "BI")]


def types_of(names: Sequence[str]) -> list[str]:
    """The entity types of tags, in the order they come up."""
    prefix, kind, kinds = parse(names, ALIASES)
    return [kinds[k] for k in dict.fromkeys(kind[prefix != O].tolist())]


def breaking(scheme: str, before: np.ndarray, prefix: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Whether a tag after another breaks a scheme: prefixes of both and whether their types are the same, all
    of one shape (or broadcast to one)."""
    opened = (before == B) | (before == I)
    inner = (prefix == I) | (prefix == E)
    broken: np.ndarray = np.zeros(np.broadcast_shapes(before.shape, prefix.shape), bool)
    if scheme in ("IOB1", "IOB2"):
        broken = (prefix == (B if scheme == "IOB1" else I)) & ~(opened & same)
    if scheme in ("BIOES", "BILOU"):
        broken = (opened | inner) & ~(opened & inner & same)
    if scheme in ("IOE1", "IOE2"):
        broken = (before == (E if scheme == "IOE1" else I)) & ~(inner & same)
    return broken


def viterbi(scores: np.ndarray, offsets: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(W,) the best tags of each sentence that follow the tags' scheme (IOB2, or BIOES where it has E or S).

    Args:
        scores: (W, C) log-probabilities of the words.
        offsets: (N + 1,) sentence i is the words offsets[i] to offsets[i + 1].
    """
    prefix, kind, _ = parse(names, ALIASES)
    scheme = "BIOES" if {E, S} & set(prefix.tolist()) else "IOB2"
    outside = np.array(O)
    forbidden = breaking(scheme, prefix[:, None], prefix, kind[:, None] == kind)
    first = np.where(breaking(scheme, outside, prefix, np.array(False)), -np.inf, 0.0)
    last = np.where(breaking(scheme, prefix, outside, np.array(False)), -np.inf, 0.0)
    steps = np.where(forbidden, -np.inf, 0.0)
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    starts = offsets[:-1][order]
    lengths = lengths[order]
    out = np.zeros(len(scores), np.int64)
    back = np.zeros(scores.shape, np.int32)
    alive = int(np.count_nonzero(lengths))
    best = first + scores[starts[:alive]]
    totals = best.copy()
    for step in range(1, int(lengths.max(initial=0))):  # all sentences at once, the longest first
        alive = int(np.searchsorted(-lengths, -step, "left"))
        paths = best[:alive, :, None] + steps
        back[starts[:alive] + step] = paths.argmax(1)
        best = paths.max(1) + scores[starts[:alive] + step]
        totals[:alive] = best
    place = starts + lengths - 1
    chosen = (totals + last).argmax(1)
    for step in range(int(lengths.max(initial=0))):
        alive = int(np.searchsorted(-lengths, -step, "left"))
        out[place[:alive] - step] = chosen[:alive]
        chosen = back[place[:alive] - step, chosen[:alive]]
    return out


def _head(name: str) -> str:
    head, dash, kind = name.partition("-")
    return head if head in ALIASES and (dash or not kind) else ""


class _Steps(NamedTuple):
    """(T,) each: the prefix before each tag and its own, and whether the types of both are the same."""

    before: np.ndarray
    prefix: np.ndarray
    same: np.ndarray


def _detect(letters: Sequence[str], counts: np.ndarray, steps: _Steps) -> str:
    """The scheme that the fewest tags break, of those that have every letter that is no slip.

    Args:
        letters: of each tag name ("" where it has none, "O" outside). counts: how often each occurs.
    """
    totals = Counter[str]()
    for letter, count in zip(letters, counts.tolist(), strict=True):
        totals[letter] += count
    del totals["O"]
    if set(totals) <= {"I", ""}:
        return "IO" if totals else ""
    least = STRAY * sum(totals.values())
    usual = {letter for letter, count in totals.items() if letter and count > least}
    fitting = [
        scheme
        for scheme, signs in SIGNS.items()
        if usual <= set(LETTERS[scheme]) and totals.keys() & set(signs)
    ]
    return min(fitting or ["BIOES"], key=lambda scheme: _broken(scheme, totals, steps))


def _broken(scheme: str, totals: Mapping[str, int], steps: _Steps) -> int:
    """How many tags break a scheme, or have a letter that it lacks."""
    foreign = sum(count for letter, count in totals.items() if letter not in LETTERS[scheme])
    return foreign + int(breaking(scheme, *steps).sum())
