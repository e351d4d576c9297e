"""The baseline for tagged words: each has the tag that it has most often in the training rows (the baseline
of CoNLL-2003, Tjong Kim Sang and De Meulder 2003, of words in the place of whole entities)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from bert_ft.data.columns import flat
from bert_ft.data.rows import Rows
from bert_ft.families.base import Adapter, Embed


def tags(adapter: Adapter, train: Rows, sets: list[Rows], embed: Embed) -> Iterator[dict[str, np.ndarray]]:
    """The most frequent tag of each word; of a word that training does not have, of all words."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    overall: Counter[int] = Counter()
    for word, tag in zip(_words(train), adapter.references(train).tolist(), strict=True):
        if tag >= 0:
            counts[word][tag] += 1
            overall[tag] += 1
    usual = overall.most_common(1)[0][0] if overall else 0
    best = {word: counter.most_common(1)[0][0] for word, counter in counts.items()}
    for rows in sets:
        yield {"prediction": np.array([best.get(word, usual) for word in _words(rows)], np.int64)}


def _words(rows: Rows) -> list[str]:
    words: list[str] = flat(rows.table["tokens"])[0].to_pylist()
    return words
