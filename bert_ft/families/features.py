"""Encoded rows, ragged."""

from __future__ import annotations

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
