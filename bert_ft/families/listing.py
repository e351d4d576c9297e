"""Predictions of labels as lines: the answer, the label that is right, and the probabilities that matter.

Of a hundred labels or fewer a line has the probability of each. Of 10,000 that would be 380 kB a row, next to
nothing of which is more than zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MOST = 100
"""Labels whose probabilities are all listed; of more, so many of the largest are."""


def is_cut(labels: int) -> bool:
    """Whether a line leaves probabilities out."""
    return labels > MOST


def probabilities(names: Sequence[str], values: np.ndarray, always: np.ndarray) -> Iterator[dict[str, float]]:
    """Label -> probability a row, in the order of the labels: all of them, or the `MOST` largest.

    Args:
        values: (N, C) probabilities. always: (N, C) bool, which are listed however small they are.
    """
    if not is_cut(len(names)):
        for row in values.tolist():
            yield dict(zip(names, row, strict=True))
        return
    largest = np.argpartition(-values, MOST - 1, axis=1)[:, :MOST]
    for row, some, kept in zip(values, largest, always, strict=True):
        chosen = np.union1d(some, np.flatnonzero(kept))
        yield {names[i]: p for i, p in zip(chosen.tolist(), row[chosen].tolist(), strict=True)}


def lines(
    names: Sequence[str], labels: Sequence[Any], predictions: Mapping[str, np.ndarray], gold: Iterable[Any]
) -> Iterator[dict[str, Any]]:
    """A line a row, of one label a row or of several. The probabilities of the answer and of the gold label
    are always listed, and of several labels all above 0.5.

    Args:
        names, labels: the labels as strings and in their own type.
        predictions: `prediction` (N,) ids or (N, C) bool, `probabilities` (N, C).
        gold: the label of each row, or a list of them, as strings; None where there is none.
    """
    typed = dict(zip(names, labels, strict=True))
    place = {name: number for number, name in enumerate(names)}
    values, found = predictions["probabilities"], predictions["prediction"]
    right = list(gold)
    several = found.ndim == 2
    always = np.zeros(values.shape, bool)
    if is_cut(len(names)):
        always |= (found | (values > 0.5)) if several else found[:, None] == np.arange(len(names))
        for row, own in enumerate(right):
            some = own if isinstance(own, list) else [own]
            always[row, [place[name] for name in some if name in place]] = True
    listed = probabilities(names, values, always)
    for row, (answer, own, shares) in enumerate(zip(found, right, listed, strict=True)):
        yield {
            "row": row,
            "prediction": [labels[k] for k in np.flatnonzero(answer).tolist()]
            if several
            else labels[int(answer)],
            "label": [typed.get(name, name) for name in own]
            if isinstance(own, list)
            else typed.get(own, own),
            "probabilities": shares,
        }


def of_all(listed: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """What a line lists of each label, in their order; 0 of one that it leaves out."""
    return (
        [listed.get(name, 0.0) for name in names] if is_cut(len(names)) else [listed[name] for name in names]
    )


def whole(names: Sequence[str], values: np.ndarray) -> Iterator[dict[str, Any]]:
    """The probability of every label, however many there are."""
    for row in values:
        yield {"probabilities": dict(zip(names, row.tolist(), strict=True))}
