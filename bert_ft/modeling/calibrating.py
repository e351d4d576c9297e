"""A model's temperature: fitted once its weights are kept, saved with it like its thresholds, and applied to
its logits wherever it answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.families.base import Adapter
from bert_ft.metrics import calibration

Columns = dict[str, np.ndarray]


def divisor(adapter: Adapter) -> float | np.ndarray:
    """What the logits of an adapter's model are divided by: a number, or one a label."""
    found = adapter.tuned.get("temperature", 1.0)
    if isinstance(found, dict):
        return np.array([found.get(name, 1.0) for name in adapter.names])
    return float(found)


def fit(adapter: Adapter, predictions: Columns, rows: Rows) -> str:
    """Fits the temperature to predictions of a model without one, keeps it in what the adapter has tuned, and
    makes it hold for these predictions, in place. Returns what there is to say.

    Nothing is fitted, and nothing said, for a family without labels a row, or whose decoding is the user's
    own.
    """
    if not _calibrates(adapter, predictions, rows):
        return ""
    if len(rows) < calibration.LEAST:
        return (
            f"probabilities are not calibrated: {len(rows):,} rows of validation say too little, "
            f"{calibration.LEAST} are the least"
        )
    probabilities, gold = predictions["probabilities"], adapter.references(rows)
    if gold.ndim == 1:
        found = calibration.temperature(probabilities, gold)
        if found is None:
            return "probabilities are not calibrated: no temperature is best on rows that are all told right"
        adapter.tuned["temperature"] = found
        probabilities[:] = calibration.scaled(probabilities, found)
        return f"probabilities are calibrated on these rows: logits / {found:.3f}"
    each = {}
    for i, name in enumerate(adapter.names):
        both = calibration.two_sided(probabilities[:, i])
        if (one := calibration.temperature(both, gold[:, i].astype(int))) is not None:
            each[name] = one
            probabilities[:, i] = calibration.scaled(both, one)[:, 1]
    if not each:
        return "probabilities are not calibrated: no temperature is best on rows that are all told right"
    adapter.tuned["temperature"] = each
    adapter.tune(predictions, rows)
    return f"probabilities are calibrated on these rows, {len(each)} of {len(adapter.names)} labels"


def measured(adapter: Adapter, predictions: Columns, rows: Rows, fitted_here: bool) -> dict[str, Any]:
    """The measures of a set before and after the temperature, as `results.json` holds them; of the set that
    it was fitted to, after it by temperatures of rows that it was not fitted to. Empty where there are none.
    """
    if not _calibrates(adapter, predictions, rows) or rows.table[adapter.target].null_count:
        return {}
    after, gold = predictions["probabilities"], adapter.references(rows)
    applied = divisor(adapter)
    if gold.ndim == 1:
        before = calibration.scaled(after, 1 / float(applied)) if applied != 1 else after
        held_out = calibration.cross_fitted(before, gold) if fitted_here else after
    else:
        sides = [calibration.two_sided(column) for column in after.T]
        columns = np.broadcast_to(applied, len(sides))
        plain = [calibration.scaled(both, 1 / float(by)) for both, by in zip(sides, columns, strict=True)]
        before = np.stack([both[:, 1] for both in plain], axis=1)
        held_out = after
        if fitted_here:
            folds = [
                calibration.cross_fitted(both, gold[:, i].astype(int))[:, 1] for i, both in enumerate(plain)
            ]
            held_out = np.stack(folds, axis=1)
    result = {"before": asdict(calibration.measures(before, gold))}
    if "temperature" in adapter.tuned:
        result["after"] = asdict(calibration.measures(held_out, gold))
    return result


def _calibrates(adapter: Adapter, predictions: Columns, rows: Rows) -> bool:
    own = vars(type(adapter)).get("calibrates", False)  # a subclass may make probabilities in its own way
    return own and "probabilities" in predictions and len(rows) > 0
