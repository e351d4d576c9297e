"""How often each label stands in a column, values that give the label away, and labels without a name."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.data.checks.columns import plain
from bert_ft.data.checks.findings import excerpt
from bert_ft.data.columns import flat
from bert_ft.data.finding import Finding

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


def without_names(column: pa.Array | pa.ChunkedArray, data: Data) -> list[Finding]:
    """What there is to know of labels that `data.label_names`, which names the others, does not name."""
    names = data.label_names
    found = pac.unique(flat(pa.chunked_array([column]))[0]).drop_null().to_pylist()
    unnamed = [label for label in found if label not in names.values()]
    codes = all(re.fullmatch(r"-?\d+", key) for key in names)
    # one that makes several spellings one label is silent on the others
    merges = len(set(names.values())) < len(names) or set(names) & set(found) or len(names) < 2
    if not names or not unnamed or (not codes and (merges or len(unnamed) > len(names))):
        return []
    shown = ", ".join(map(repr, unnamed[:5])) + (", ..." if len(unnamed) > 5 else "")
    message = f"labels without a name in data.label_names: {shown}"
    return [Finding("labels", "warning", "", len(unnamed), message)]
