"""From the tags of a head to those that are scored, and to entities in characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bert_ft.metrics import entities


def iob2(names: Sequence[str]) -> np.ndarray:
    """(C,) the tag that each is in IOB2, as gold tags are, where the head has one in BIOES or BILOU."""
    letters = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
    read = [f"{letters.get(name[:1], name[:1])}{name[1:]}" if name[1:2] == "-" else name for name in names]
    return np.array([names.index(name) if name in names else k for k, name in enumerate(read)])


def inner(names: Sequence[str]) -> np.ndarray:
    """(C,) the tag that continues each: I-X of B-X, else itself."""
    following = {f"B-{name[2:]}": k for k, name in enumerate(names) if name.startswith("I-")}
    return np.array([following.get(name, k) for k, name in enumerate(names)])


def between(
    prediction: np.ndarray, spoken: np.ndarray, silent: np.ndarray, offsets: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """The tags of words without tokens: they go on with the entity that their neighbours are both in, and are
    O otherwise.

    Args:
        prediction: (W,) tag ids, right at the words `spoken`, which have tokens.
        silent: the words without.
        offsets: (N + 1,) sentence i is the words offsets[i] to offsets[i + 1].
    """
    outside = names.index("O") if "O" in names else 0
    if not len(spoken):
        return np.full(len(silent), outside)
    prefix, kind, _ = entities.parse(names, entities.ALIASES)
    after = np.searchsorted(spoken, silent)
    left = spoken[np.maximum(after - 1, 0)]
    right = spoken[np.minimum(after, len(spoken) - 1)]
    a = prediction[left]
    b = prediction[right]
    row = np.searchsorted(offsets, [left, silent, right], "right")
    inside = (
        (left < silent) & (silent < right) & (row[0] == row[1]) & (row[1] == row[2]) & (kind[a] == kind[b])
    )
    inside &= np.isin(prefix[a], [entities.B, entities.I]) & np.isin(prefix[b], [entities.I, entities.E])
    return np.where(inside, inner(names)[a], outside)


def by_tag(
    probabilities: np.ndarray, offsets: Sequence[int], names: Sequence[str]
) -> list[dict[str, list[float]]]:
    """IOB2 tag -> the probability of each word, of each row, in 4 significant digits.

    Args:
        probabilities: (W, C) of all words, nan of one without tokens.
        offsets: (N + 1,) row i is the words offsets[i] to offsets[i + 1].
    """
    tags = iob2(names)
    whole = np.zeros_like(probabilities.T)
    np.add.at(whole, tags, probabilities.T)
    short = {names[tag]: [float(f"{p:.4g}") for p in whole[tag].tolist()] for tag in np.unique(tags)}
    return [{name: column[a:b] for name, column in short.items()} for a, b in pairwise(offsets)]


def chunks(
    tags: np.ndarray, offsets: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first word, last word, type, row) of each entity, (E,) each.

    Args:
        tags: (W,) tag ids of all words. offsets: (N + 1,) row i is the words offsets[i] to offsets[i + 1].
    """
    prefix, kind, _ = entities.parse(names, entities.ALIASES)
    codes = (entities.apart(table[tags], offsets) for table in (prefix, kind))
    first, last, found = entities.chunks(*codes)
    row = np.searchsorted(offsets[1:] + np.arange(len(offsets) - 1), first)
    return first - row, last - row, found, row  # places counted an O behind each row


def means(scores: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(E,) the mean score of each entity's words, of those that have one; `scores`: (W,)."""
    ends = np.stack([first, last + 1], axis=1).ravel()
    known = ~np.isnan(scores)
    total, count = (
        np.add.reduceat(np.append(column, 0.0), ends)[::2]
        for column in (np.where(known, scores, 0.0), known.astype(np.float64))
    )
    return np.asarray(total / count)


def rated(
    predictions: Mapping[str, np.ndarray], gold: np.ndarray, offsets: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the scores of the predicted entities, and (E,) bool, which are right: in their limits and type.

    Args:
        predictions: `prediction` and `score` (W,) of all words. gold: (W,) tag ids.
        offsets: (N + 1,) row i is the words offsets[i] to offsets[i + 1].
    """
    size = len(gold) + 1

    def keys(first: np.ndarray, last: np.ndarray, kind: np.ndarray, row: np.ndarray) -> np.ndarray:
        return np.asarray((first * size + last) * (len(names) + 1) + kind)

    found = chunks(predictions["prediction"], offsets, names)
    right = np.isin(keys(*found), keys(*chunks(gold, offsets, names)))
    return means(predictions["score"], *found[:2]), right


def in_characters(
    predictions: Mapping[str, np.ndarray],
    offsets: np.ndarray,
    limits: tuple[Sequence[int], Sequence[int]],
    names: Sequence[str],
    calibrated: Callable[[np.ndarray], np.ndarray],
) -> list[list[dict[str, Any]]]:
    """The entities of each text: start and end in its characters, label, and score: the mean of its words',
    calibrated.

    Args:
        predictions: `prediction` and `score` (W,) of all words.
        offsets: (N + 1,) text i is the words offsets[i] to offsets[i + 1].
        limits: where each word starts and ends in its text.
        calibrated: (E,) scores -> (E,) scores.
    """
    first, last, found, row = chunks(predictions["prediction"], offsets, names)
    kinds = entities.parse(names, entities.ALIASES)[2]
    scores = calibrated(means(predictions["score"], first, last))
    answers: list[list[dict[str, Any]]] = [[] for _ in range(len(offsets) - 1)]
    starts, ends = limits
    columns = (column.tolist() for column in (row, first, last, found, scores))
    for r, a, b, k, score in zip(*columns, strict=True):
        answers[r].append({"start": starts[a], "end": ends[b], "label": kinds[k], "score": score})
    return answers
