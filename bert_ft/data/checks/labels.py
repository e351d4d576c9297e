"""How often each label stands in a column, and values that give the label away."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data.checks.columns import plain
from bert_ft.data.checks.findings import excerpt
from bert_ft.data.columns import flat

FEW = 5  # rows from which a label can hardly be learned
PURE = 0.98  # share of a value's rows that have one label, from which the value tells it
COVERED = 0.9  # share of the rows with such a value, from which the values as a whole give the label away


def label_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Label -> rows that bear it, the most frequent first; empty for numbers."""
    if not len(column) or pa.types.is_floating(column.type):
        return {}
    found = pac.value_counts(flat(column)[0].drop_null()).to_pylist()
    return {item["values"]: item["counts"] for item in sorted(found, key=lambda item: -item["counts"])}


def gives_away(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) the rows whose value stands for one label; none where the values as a whole do not tell the
    labels.

    A value counts from `FEW` rows on; ten rows must not have the most frequent label, so that chance can't do
    it.
    """
    _, value, total = np.unique(values, return_inverse=True, return_counts=True)
    pair, counts = np.unique(value * (labels.max() + 1) + labels, return_counts=True)
    best = np.zeros(len(total), np.int64)
    np.maximum.at(best, pair // (labels.max() + 1), counts)
    telling = (total >= FEW) & (best >= PURE * total)
    minority = len(labels) - np.bincount(labels).max()
    seen: np.ndarray = telling[value]
    enough = minority >= 10 and seen.mean() >= COVERED and (total - best)[telling].sum() <= minority / 10
    return seen & bool(enough)


def cell(column: pa.Array | pa.ChunkedArray, row: int) -> str:
    """A cell as a message shows it."""
    return excerpt(plain(column.slice(row, 1))[0].as_py() or "(empty)", most=40)
