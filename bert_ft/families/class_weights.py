"""What a class counts in the loss (`recipe.class_weights`)."""

from __future__ import annotations

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families import soft_labels
from bert_ft.families.base import Adapter


def of_rows(adapter: Adapter, train: Rows) -> dict[str, float]:
    """Label -> what it counts; of several labels a row, what the label's positive rows count.

    Raises:
        InputError: numbers in the place of labels, weights of other labels, or a label without a row.
    """
    where = "recipe.class_weights"
    names = adapter.names
    weights = adapter.task.recipe.class_weights
    found = adapter.references(train)
    if found.dtype.kind == "f":
        raise InputError("regression has no classes to weigh", where=where)
    if isinstance(weights, dict):
        if missing := set(names) ^ set(weights):
            raise InputError(
                f"weights and labels differ in '{sorted(missing)[0]}'",
                where=where,
                remedy="give one weight to each of: " + ", ".join(names),
            )
        return {name: weights[name] for name in names}
    soft = soft_labels.targets(adapter, train)
    if soft is not None:
        counts = soft.sum(axis=0)
    else:
        counts = found.sum(axis=0) if found.ndim == 2 else np.bincount(found, minlength=len(names))
    if not counts.all():
        absent = names[int(np.argmin(counts))]
        raise InputError(f"label '{absent}' has no training row to take a weight from", where=where)
    # negatives to positives, as torch advises for pos_weight; or scikit-learn's "balanced"
    several = found.ndim == 2
    result = (len(train) - counts) / counts if several else len(train) / (len(names) * counts)
    return dict(zip(names, result.tolist(), strict=True))
