"""Entity precision, recall and F1 over flat arrays of tags, in three named ways of counting.

`conlleval` (the default, what papers report): the chunk rules of the CoNLL-2000 shared task's conlleval.pl as
seqeval's default mode has them; an inconsistent tag starts an entity. (Behind E and S, conlleval.pl itself
goes on with an entity of the same type; on IO, IOB and IOE tags the two agree.) `seqeval-strict`: seqeval's
`mode="strict"`; what does not follow the scheme is no entity. `partial-overlap`: an entity is found where one
of the same type shares a word with it (recall counts gold entities, precision predicted ones).

Tags are "O", PREFIX-TYPE (prefixes B, I, E, S), or a bare TYPE, which reads as I-TYPE. conlleval knows no L,
U and M: there they only part entities of different types, as in seqeval; `scheme` reads them as E, S and I.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from bert_ft.errors import InputError, did_you_mean

MODES = ("conlleval", "seqeval-strict", "partial-overlap")
SCHEMES = ("IO", "IOB1", "IOB2", "BIOES", "BILOU", "BMES")
O, B, I, E, S, OTHER = range(6)  # noqa: E741 - the field's letters
LETTERS = {"B": B, "I": I, "E": E, "S": S, "L": OTHER, "U": OTHER, "M": OTHER}
ALIASES = LETTERS | {"L": E, "U": S, "M": I}  # BILOU and BMES in the letters of BIOES

Chunks = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(first, last, type) of each entity, each (n,) int64: places, both within, and numbers of types."""


def parse(
    names: Iterable[str], letters: Mapping[str, int] = LETTERS
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(prefix, type number) of each tag name, (K,) int8 and (K,) int32, and the types' names; number 0 is
    "_", of O and bare letters."""
    kinds: dict[str, int] = {"_": 0}
    codes = []
    for name in names:
        head, dash, kind = name.partition("-")
        if name == "O":
            codes.append((O, 0))
        elif head in letters and (dash or not kind):
            codes.append((letters[head], kinds.setdefault(kind or "_", len(kinds))))
        else:
            codes.append((I, kinds.setdefault(name, len(kinds))))
    table = np.array(codes, np.int64).reshape(-1, 2)
    return table[:, 0].astype(np.int8), table[:, 1].astype(np.int32), list(kinds)


def apart(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(W,) -> (W + N,): with a 0 (an O) behind each of the N sentences, so that no entity crosses its end."""
    out = np.zeros(len(values) + len(offsets) - 1, values.dtype)
    words = np.ones(len(out), bool)
    words[offsets[1:] + np.arange(len(offsets) - 1)] = False
    out[words] = values
    return out


def starts_and_ends(prefix: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) bool each: whether an entity starts at a tag, and whether one ends before it (conlleval.pl's
    startOfChunk and endOfChunk; S as in seqeval)."""
    before = shifted(prefix)
    other = shifted(kind) != kind
    opened = (before == B) | (before == I)
    closed = (before == E) | (before == S)
    inner = (prefix == I) | (prefix == E)
    fresh = (prefix == B) | (prefix == S)
    starts = fresh | ((closed | (before == O)) & inner) | ((prefix != O) & other)
    ends = closed | (opened & (fresh | (prefix == O))) | ((before != O) & other)
    return starts, ends


def chunks(prefix: np.ndarray, kind: np.ndarray) -> Chunks:
    """The entities of a sequence of tags by conlleval's rules."""
    starts, ends = starts_and_ends(prefix, kind)
    first, last = np.flatnonzero(starts), np.flatnonzero(ends) - 1
    return first[np.searchsorted(first, last, "right") - 1], last, kind[last]


def strict_chunks(prefix: np.ndarray, kind: np.ndarray, scheme: str) -> Chunks:
    """The entities that follow `scheme` (IOB1, IOB2 or BIOES) to the letter: the patterns of seqeval's
    scheme.py."""
    before = shifted(prefix)
    same = shifted(kind) == kind
    inside = ((before == B) | (before == I)) & ((prefix == I) | (prefix == E)) & same
    if scheme == "IOB1":
        starts = (prefix == I) & ((before != I) | ~same) | (prefix == B) & (before != O) & same
        ends = (before != O) & ((prefix != B) | (before == I) | same)
    else:
        starts = (prefix == B) | (prefix == S)
        ends = (before == E) | (before == S) if scheme == "BIOES" else before != O
    # in a run of tags that continue one another the first start counts,
    # and the run's end must be one by the scheme
    run = np.cumsum(~inside)
    begin = np.flatnonzero(starts)
    begin = begin[np.r_[True, run[begin[1:]] != run[begin[:-1]]]] if len(begin) else begin
    heads = np.append(np.flatnonzero(~inside), len(prefix))
    stop = heads[run[begin]]
    whole = ends[stop] if len(stop) else np.zeros(0, bool)
    return begin[whole], stop[whole] - 1, kind[begin[whole]]


def score(
    references: np.ndarray,
    predictions: np.ndarray,
    offsets: np.ndarray,
    names: Sequence[str],
    mode: str = "conlleval",
    scheme: str | None = None,
    missed: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 (fractions; a quotient 0/0 is 0) with the number of gold entities, by type.

    Args:
        references, predictions: (W,) numbers of tags.
        offsets: (N + 1,) sentence i is the words offsets[i] to offsets[i + 1].
        names: the tags' names, in any scheme.
        mode: one of `MODES`.
        scheme: one of `SCHEMES`; by default conlleval's reading, and for the strict mode what the prefixes
            say (IOB2, BIOES or BILOU; IOB1 only if it is named).
        missed: the types of gold entities that no tags can express: missed in every mode.
    Returns:
        type -> {"precision", "recall", "f1", "number"}; "" -> the same of all types, and "accuracy", of the
        words.
    Raises:
        ValueError: the strict mode met a prefix that the scheme does not have.
    """
    (gold, predicted), hits, kinds = matched(references, predictions, offsets, names, mode, scheme)
    selected = gold[2][hits[0]], predicted[2][hits[1]], gold[2], predicted[2]
    beside = Counter(missed)
    kinds = [*kinds, *(kind for kind in beside if kind not in kinds)]
    counts = np.stack([np.bincount(types, minlength=len(kinds)) for types in selected], axis=1)
    counts[:, 2] += [beside[kind] for kind in kinds]
    present = sorted(np.flatnonzero(counts.any(axis=1)).tolist(), key=kinds.__getitem__)
    result = {kinds[k]: _quotients(*counts[k].tolist()) for k in present}
    total = _quotients(*counts.sum(axis=0).tolist())
    accuracy = float((references == predictions).mean()) if len(references) else 0.0
    return {"": total | {"accuracy": accuracy}, **result}


def matched(
    references: np.ndarray,
    predictions: np.ndarray,
    offsets: np.ndarray,
    names: Sequence[str],
    mode: str = "conlleval",
    scheme: str | None = None,
) -> tuple[tuple[Chunks, Chunks], tuple[np.ndarray, np.ndarray], list[str]]:
    """The gold and the predicted entities, which of either agree with one of the other side (bool), and the
    types' names. Arguments and errors as of `score`; places count an O behind each sentence (`apart`)."""
    for option, value, valid in (("mode", mode, MODES), ("scheme", scheme or "IO", SCHEMES)):
        if value not in valid:
            raise InputError(f"unknown {option} '{value}'", remedy=did_you_mean(value, valid))
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} gold tags and {len(predictions)} predicted ones")
    strict = mode == "seqeval-strict"
    prefix, kind, kinds = parse(names, ALIASES if strict or scheme is not None else LETTERS)
    if strict:
        scheme = _strict_scheme(prefix, names, scheme)

    def entities_of(tags: np.ndarray) -> Chunks:
        codes = apart(prefix[tags], offsets), apart(kind[tags], offsets)
        return strict_chunks(*codes, scheme) if strict and scheme else chunks(*codes)

    both = entities_of(references), entities_of(predictions)
    return both, (_overlapping if mode == "partial-overlap" else _equal)(*both), kinds


def by_sentence(
    references: np.ndarray,
    predictions: np.ndarray,
    offsets: np.ndarray,
    names: Sequence[str],
    mode: str,
    right: np.ndarray,
) -> np.ndarray:
    """(N, 6) what each sentence counts, as `scoring.Entities` takes it: its entities recalled, correct,
    gold and predicted, its words right, its words. Arguments as of `score`, and `right` (W,) bool."""
    sides, hits, _ = matched(references, predictions, offsets, names, mode)
    ends = offsets[1:] + np.arange(len(offsets) - 1)  # places count an O behind each sentence
    firsts = [side[0] for side in sides]
    keys = [
        np.bincount(np.searchsorted(ends, places), minlength=len(ends))
        for places in (*(f[hit] for f, hit in zip(firsts, hits, strict=True)), *firsts)
    ]
    same = np.concatenate([[0], np.cumsum(right)])
    return np.stack([*keys, np.diff(same[offsets]), np.diff(offsets)], axis=1)


def flat(*sets: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Lists of tag lists, equally long, as (W,) numbers of tags each, offsets (N + 1,) and the tags' names.

    Raises:
        ValueError: lists of different lengths.
    """
    lengths = [list(map(len, tags)) for tags in sets]
    if any(other != lengths[0] for other in lengths):
        raise ValueError("predictions and references must be lists of tag lists of equal lengths")
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # each new name gets the next number
    words = sum(lengths[0])
    ids = [np.fromiter(map(numbers.__getitem__, chain.from_iterable(tags)), np.int64, words) for tags in sets]
    return ids, np.concatenate([[0], np.cumsum(lengths[0], dtype=np.int64)]), list(numbers)


def shifted(values: np.ndarray) -> np.ndarray:
    """(T,) what stands before each; a 0 (an O) before the first."""
    return np.concatenate([np.zeros(1, values.dtype), values[:-1]])


def _equal(gold: Chunks, predicted: Chunks) -> tuple[np.ndarray, np.ndarray]:
    """Which entities of either side have the other side's limits and type; an end belongs to one entity a
    side."""
    gold_hits = np.zeros(len(gold[1]), bool)
    predicted_hits = np.zeros(len(predicted[1]), bool)
    at = np.searchsorted(gold[1], predicted[1])
    inside = np.flatnonzero(at < len(gold_hits))
    predicted_hits[inside] = np.all(
        [g[at[inside]] == p[inside] for g, p in zip(gold, predicted, strict=True)], axis=0
    )
    gold_hits[at[predicted_hits]] = True
    return gold_hits, predicted_hits


def _overlapping(gold: Chunks, predicted: Chunks) -> tuple[np.ndarray, np.ndarray]:
    """Which entities of either side share a word with one of the other side's of their type."""
    covers = []
    size = 1 + max((int(side[1][-1]) for side in (gold, predicted) if len(side[1])), default=0)
    for first, last, _ in (gold, predicted):
        cover = np.full(size, -1)
        lengths = last - first + 1
        index = np.repeat(np.arange(len(first)), lengths)
        cover[np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(len(index))] = index
        covers.append(cover)
    both = (covers[0] >= 0) & (covers[1] >= 0)
    g, p = covers[0][both], covers[1][both]
    same = gold[2][g] == predicted[2][p]
    return np.isin(np.arange(len(gold[0])), g[same]), np.isin(np.arange(len(predicted[0])), p[same])


def _quotients(recalled: int, correct: int, number: int, predicted: int) -> dict[str, float]:
    precision = correct / predicted if predicted else 0.0
    recall = recalled / number if number else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "number": int(number)}


def _strict_scheme(prefix: np.ndarray, names: Sequence[str], scheme: str | None) -> str:
    if scheme is None:
        scheme = "BIOES" if {E, S} & set(prefix.tolist()) else "IOB2"
    scheme = "BIOES" if scheme in ("BILOU", "BMES") else scheme
    if scheme == "IO":
        raise ValueError("the strict mode does not support the IO scheme: use the mode conlleval")
    valid = {O, B, I} if scheme.startswith("IOB") else {O, B, I, E, S}
    if invalid := [name for name, code in zip(names, prefix.tolist(), strict=True) if code not in valid]:
        raise ValueError(f"tag '{invalid[0]}' is not in the scheme {scheme}")
    return scheme
