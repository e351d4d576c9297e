"""What a page shows of answering only where the model is sure."""

from __future__ import annotations

import numpy as np

from bert_ft.metrics import abstaining
from bert_ft.report.elements import Table
from bert_ft.report.rendering import show


def sections(confidence: np.ndarray, right: np.ndarray) -> list[Table]:
    """Accuracy by coverage, and the coverage that promises an accuracy.

    Args:
        confidence: (N,) the probability of each answer. right: (N,) bool.
    """
    if len(right) < 2:
        return []
    rows = [
        [f"{one.coverage:.0%}", one.threshold, one.accuracy, f"{show(one.low)} to {show(one.high)}"]
        for one in abstaining.table(confidence, right)
    ]
    mean = show(abstaining.area(confidence, right))
    note = f"the surest rows alone; mean risk over all coverages {mean}; intervals by Clopper and Pearson"
    columns = ["rows answered", "from this probability on", "accuracy", "95 % interval"]
    promised = [
        [accuracy, "none" if one is None else f"{one.coverage:.0%}", None if one is None else one.threshold]
        for accuracy, one in abstaining.promises(confidence, right)
    ]
    told = "with 95 % confidence, of rows like these; predict --abstain-below takes the probability"
    return [
        Table("answering fewer rows", columns, rows, note),
        Table("an accuracy that is promised", ["accuracy", *columns[:2]], promised, told),
    ]
