"""Two models on the same rows: how far their logits, their answers and their metrics are apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.families.features import Features
from bert_ft.modeling.model import Model

BOUND = 1e-4  # of a logit, in float32
LARGE = 10.0  # logits beyond this may differ in proportion: float32 has seven digits
LENGTHS = 24  # how many lengths between 1 and the longest are tried, beside those of the rows


@dataclass(frozen=True)
class Answers:
    """What a model says of rows.

    Attributes:
        logits: of all rows' features, one behind the other; `probes` of features of other lengths, empty
            where there are none.
        predictions: a row's answer each.
        metrics: of the rows.
        seconds: CPU seconds of all processors that the logits took.
    """

    logits: np.ndarray
    probes: np.ndarray
    predictions: list[Any]
    metrics: dict[str, float]
    seconds: float

    @property
    def bound(self) -> float:
        """How far float32 logits of another program may be off."""
        return BOUND * max(1.0, float(abs(self.logits).max(initial=0)) / LARGE)

    def beside(self, expected: Answers) -> dict[str, Any]:
        """How far they are from what is expected, and their own metrics and seconds; nan where they have none
        of their own. Numbers are no answers that are either the same or others."""
        pairs = zip(self.predictions, expected.predictions, strict=True)
        numbers = any(isinstance(answer, float) for answer in self.predictions)
        return {
            "largest_logit_difference": self.distance(expected),
            "rows_with_another_answer": None if numbers else sum(a != b for a, b in pairs),
            "metrics": self.metrics,
            "cpu_seconds": round(self.seconds, 3),
        }

    def distance(self, expected: Answers) -> float:
        """The largest difference of a logit; infinite where one of them is no number."""
        parts = ((self.logits, expected.logits), (self.probes, expected.probes))
        largest = max(float(abs(a - b).max(initial=0)) for a, b in parts)
        return largest if np.isfinite(largest) else float("inf")


def answer(model: Model, rows: Rows, probes: Features | None) -> Answers:
    """What a model says of rows, and of features of other lengths."""
    logits, decoded = [], []
    seconds = 0.0
    for part, features in model.blocks(rows):
        start = time.process_time()
        logits.append(model.logits(features))
        seconds += time.process_time() - start
        decoded.append(model.decode(logits[-1], features, part))
    predictions: Mapping[str, np.ndarray] = {
        name: np.concatenate([columns[name] for columns in decoded]) for name in decoded[0]
    }
    return Answers(
        np.concatenate(logits),
        model.logits(probes) if probes is not None else logits[0][:0],
        [line.get("prediction") for line in model.adapter.lines(predictions, rows)],
        model.score(predictions, rows),
        seconds,
    )


def of_lengths(model: Model, rows: Rows) -> Features | None:
    """Features of lengths from 1 to the longest that there can be, made of the longest row's tokens: what the
    rows do not happen to have. None where the head counts tokens, so that not every length is a text."""
    if model.sharing.end_token is not None:
        return None
    _, features = next(iter(model.blocks(rows)))
    longest = int(features.lengths.argmax())
    start, stop = features.offsets[longest : longest + 2]
    inner = max(1, stop - start - 2)
    most = model.max_length
    lengths = np.unique(np.geomspace(1, most, min(most, LENGTHS)).round().astype(np.int64))
    places = [
        np.r_[start, start + 1 + np.arange(length - 2) % inner, stop - 1][:length]
        if length > 2
        else np.r_[start, stop - 1][:length]
        for length in lengths.tolist()
    ]
    at = np.concatenate(places)
    return Features(
        np.concatenate([[0], np.cumsum(lengths)]),
        {name: column[at] for name, column in features.tokens.items()},
        values={},
        weights=np.ones(len(lengths)),
    )
