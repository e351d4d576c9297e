"""Encoded rows, ragged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Features:
    """Encoded rows, ragged: the tokens of feature i are `tokens[key][offsets[i]:offsets[i + 1]]`.

    Attributes:
        offsets: (N + 1,) int64.
        tokens: per-token columns, each (T,) int32: input_ids, and what else the model takes a token.
        targets: per-token columns, each (T,), that the loss takes, padded with -100: the labels of a tagger.
        places: per-token columns, each (T,), that only `decode` reads: word numbers, character offsets.
        values: per-feature columns, each (N, ...): labels, the row that a window is of, ...
        weights: (N,) float64, what each feature counts in the mean of the loss (1, or its class's weight,
            ...).
        counts: what happened while encoding, to be told: rows, tokens, truncated, unknown, ...
    """

    offsets: np.ndarray
    tokens: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    weights: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    places: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each feature."""
        return np.diff(self.offsets)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`starts[0], starts[0] + 1, ...` for `lengths[0]` numbers, then those of the next, as one array."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def parts(features: Features, most: int) -> Iterator[Features]:
    """The features in parts of at most so many tokens, or of one feature; without targets and counts."""
    start, ends = 0, features.offsets
    while start < len(features):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + most, "right")) - 1)
        tokens = slice(int(ends[start]), int(ends[stop]))
        yield Features(
            ends[start : stop + 1] - ends[start],
            {name: column[tokens] for name, column in features.tokens.items()},
            values={name: column[start:stop] for name, column in features.values.items()},
            weights=features.weights[start:stop],
            places={name: column[tokens] for name, column in features.places.items()},
        )
        start = stop
