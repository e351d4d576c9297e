"""Hidden states of many tokens become one vector a text, or one a word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.features import Features, ranges

OF_TEXTS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""What sentence-transformers calls them: the first three are the usual ones."""
OF_WORDS = ("mean", "max", "first")
COMBINED = ("concat", "sum", "mean")


def valid(name: str, names: Sequence[str], where: str) -> str:
    """The name. Raises InputError: it is none of these."""
    if name not in names:
        raise InputError(f"'{name}' is not known", where=where, remedy=did_you_mean(name, names))
    return name


def combined(hidden: np.ndarray, how: str) -> np.ndarray:
    """(layers, T, H) hidden states, or (T, H) of one layer, as (T, D): D = layers * H where they are
    concatenated."""
    if hidden.ndim == 2:
        return hidden
    if how == "concat":
        return np.concatenate([*hidden], axis=-1)
    out: np.ndarray = hidden.sum(0) if how == "sum" else hidden.mean(0)
    return out


class Pool:
    """One vector a text, from its windows as they come.

    Args:
        names: of `OF_TEXTS`; several are concatenated.
        texts: how many there are.
    """

    def __init__(self, names: Sequence[str], texts: int) -> None:
        self.names = names
        self.texts = texts
        self.sums: dict[str, np.ndarray] = {}
        self.counts = {name: np.zeros(texts) for name in names}

    def add(self, features: Features, hidden: np.ndarray) -> None:
        """Takes the (T, D) states of the flat tokens of some windows (`windows.Windows.features`)."""
        from scipy import sparse

        starts, rows = features.offsets[:-1], features.values["text"]
        for name in self.names:
            largest = name == "max"
            if name not in self.sums:
                shape = self.texts, hidden.shape[1]
                self.sums[name] = np.full(shape, -np.inf if largest else 0, np.float32)
            if largest:
                states = np.where(features.places["counted"][:, None], hidden, -np.inf)
                np.maximum.at(self.sums[name], rows, np.maximum.reduceat(states, starts, axis=0))
                continue
            weights = _weights(name, features)
            sums = sparse.csr_array((weights, np.arange(len(weights)), features.offsets)) @ hidden
            np.add.at(self.sums[name], rows, sums)
            np.add.at(self.counts[name], rows, np.add.reduceat(weights, starts))

    def vectors(self) -> np.ndarray:
        """(N, D) float32; zeros for a text without tokens."""
        parts = []
        for name in self.names:
            sums = self.sums[name]
            if name == "max":
                parts.append(np.where(np.isfinite(sums), sums, 0))
                continue
            count = np.maximum(self.counts[name], 1e-9)[:, None]
            divisor = np.sqrt(count) if name == "mean_sqrt_len_tokens" else count
            parts.append((sums / divisor).astype(np.float32))
        return np.concatenate(parts, axis=1)


def _weights(name: str, features: Features) -> np.ndarray:
    """(T,) float32: what each token counts in a sum."""
    counted = features.places["counted"]
    if name == "weightedmean":
        return np.float32(1) * counted * features.places["position"].astype(np.float32)
    if name in ("cls", "lasttoken"):
        one = np.zeros(len(counted), np.float32)
        places = np.where(counted, np.arange(len(counted)), len(counted))
        if name == "cls":
            first = np.minimum.reduceat(places, features.offsets[:-1])
            one[first[first < features.offsets[1:]]] = 1
        else:
            one[features.offsets[1:][features.values["last"]] - 1] = 1
        return one
    return counted.astype(np.float32)


def of_words(states: np.ndarray, spans: np.ndarray, words: np.ndarray, name: str) -> np.ndarray:
    """(W, D) vectors of a text's words: pooled from the tokens that share a character with the word; zeros
    where none does.

    Args:
        states: (T, D) of the text's tokens. spans: (T, 2) their characters. words: (W, 2) the words'.
        name: of `OF_WORDS`.
    """
    starts, ends = np.maximum.accumulate(spans.reshape(-1, 2), axis=0).T
    first = np.searchsorted(ends, words[:, 0], "right")
    sizes = np.searchsorted(starts, words[:, 1], "left") - first
    out = np.zeros((len(words), states.shape[1]), np.float32)
    some = np.flatnonzero((sizes > 0) & (words[:, 1] > words[:, 0]))
    if not some.size:
        return out
    first, sizes = first[some], sizes[some]
    if name == "first":
        out[some] = states[first]
        return out
    tokens = states[ranges(first, sizes)]
    edges = np.cumsum(sizes) - sizes
    if name == "max":
        out[some] = np.maximum.reduceat(tokens, edges, axis=0)
    else:
        out[some] = np.add.reduceat(tokens, edges, axis=0) / sizes[:, None]
    return out
