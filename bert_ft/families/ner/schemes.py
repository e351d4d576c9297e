"""Tags as files have them (IO, IOB1, IOB2, BIOES/BMES, BILOU) become IOB2; what breaks its scheme is found on
the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from bert_ft.errors import InputError
from bert_ft.metrics.entities import ALIASES, B, E, I, O, S, apart, parse, shifted, starts_and_ends

LETTERS = {"": "", "IO": "I", "IOB1": "BI", "IOB2": "BI", "BIOES": "BIESM", "BILOU": "BILU"}


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
    found = _detect(set(heads.values()), codes, before, same) if scheme == "auto" else scheme
    for name, head in heads.items():
        if head not in LETTERS[found] or (not head and any(heads.values())) or not name:
            what = f"is none of {found}" if head else "has no prefix (B-, I-, ...) where others have one"
            remedy = "mend it there, or name the tags' scheme: --set ner.scheme=IOB2"
            raise InputError(
                f"tag '{name}' {what}", where=place(int(np.argmax(ids == names.index(name)))), remedy=remedy
            )
    breaks = breaking(found, before, codes, same)
    stops = offsets[1:] + np.arange(len(offsets) - 1)  # where `apart` put the O behind each sentence
    wrong = np.union1d(np.flatnonzero(np.delete(breaks, stops)), offsets[1:][breaks[stops]] - 1)
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


def _detect(heads: set[str], prefix: np.ndarray, before: np.ndarray, same: np.ndarray) -> str:
    if heads & {"L", "U"}:
        return "BILOU"
    if heads & {"E", "S", "M"}:
        return "BIOES"
    if "B" not in heads:
        return "IO" if heads else ""
    # IOB1 has a B only where an entity meets another of its type; IOB2 has one at every start
    alone = (before == O) | ~same
    return "IOB1" if not (alone & (prefix == B)).any() and (alone & (prefix == I)).any() else "IOB2"
