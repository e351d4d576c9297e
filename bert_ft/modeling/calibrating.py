"""A model's temperature: fitted once its weights are kept, saved with it like its thresholds, and applied to
its logits wherever it answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.families import soft_labels
from bert_ft.families.base import Adapter
from bert_ft.metrics import calibration

NONE_RIGHT = "probabilities are not calibrated: no temperature is best on rows that are all told right"
NONE = "probabilities are not calibrated: they say too little of these rows for any temperature to be best"

Columns = dict[str, np.ndarray]


def applied(adapter: Adapter, logits: np.ndarray) -> np.ndarray:
    """The logits under the temperature of their adapter; themselves where it has none."""
    return logits / divisor(adapter) if "temperature" in adapter.tuned else logits


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
    probabilities = predictions["probabilities"]
    gold, several = _gold(adapter, rows)
    if several:
        return _fit_sets(adapter, probabilities, gold)
    found = calibration.temperature(probabilities, gold)
    if found is None:
        return NONE_RIGHT if calibration.told_right(probabilities, gold) else NONE
    adapter.tuned["temperature"] = found
    probabilities[:] = calibration.scaled(probabilities, found)
    return f"probabilities are calibrated on these rows: logits / {found:.3f}"


def _fit_sets(adapter: Adapter, probabilities: np.ndarray, gold: np.ndarray) -> str:
    """The same for several labels a row: a temperature for all of them, or one a label where each has a
    threshold of its own. Thresholds move with the probabilities, so that every answer stays."""
    names = adapter.names
    if getattr(adapter.task.options, "thresholds", "one") == "one":
        shared = calibration.temperature(*_sides(probabilities, gold))
        each = {} if shared is None else dict.fromkeys(names, shared)
    else:
        sides = [_sides(probabilities[:, i], gold[:, i]) for i in range(len(names))]
        found = [calibration.temperature(*side) for side in sides]
        each = {name: one for name, one in zip(names, found, strict=True) if one is not None}
    if not each:
        return NONE_RIGHT if calibration.told_right(*_sides(probabilities, gold)) else NONE
    thresholds = adapter.tuned.get("thresholds", {})
    for name, one in each.items():
        column = probabilities[:, names.index(name)]
        column[:] = _scaled(column, one)
        if name in thresholds:
            thresholds[name] = float(_scaled(np.array([thresholds[name]]), one)[0])
    adapter.tuned["temperature"] = each
    return f"probabilities are calibrated on these rows, {len(each)} of {len(names)} labels"


def _gold(adapter: Adapter, rows: Rows) -> tuple[np.ndarray, bool]:
    """What probabilities are held against, distributions where rows have some, and whether a row has several
    labels."""
    gold, soft = adapter.references(rows), soft_labels.targets(adapter, rows)
    return gold if soft is None else soft, gold.ndim == 2


def _sides(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) no and yes, and (N,) which is true or (N, 2) how likely each is, of labels one behind the
    other."""
    truth = gold.ravel()
    sides = calibration.two_sided(truth) if truth.dtype.kind == "f" else truth.astype(int)
    return calibration.two_sided(probabilities.ravel()), sides


def _scaled(probabilities: np.ndarray, by: float) -> np.ndarray:
    """(N,) the probability of yes under a temperature."""
    return calibration.scaled(calibration.two_sided(probabilities), by)[:, 1]


def measured(adapter: Adapter, predictions: Columns, rows: Rows, fitted_here: bool) -> dict[str, Any]:
    """The measures of a set before and after the temperature, as `results.json` holds them; of the set that
    it was fitted to, after it by temperatures of rows that it was not fitted to. Empty where there are none.
    """
    if not _calibrates(adapter, predictions, rows) or rows.table[adapter.target].null_count:
        return {}
    after = predictions["probabilities"]
    gold, several = _gold(adapter, rows)
    by = divisor(adapter)
    if not several:
        before = calibration.scaled(after, 1 / float(by)) if by != 1 else after
        held_out = calibration.cross_fitted(before, gold) if fitted_here else after
    else:
        each = np.broadcast_to(by, after.shape[1]).tolist()
        plain = [_scaled(column, 1 / one) for column, one in zip(after.T, each, strict=True)]
        before = np.stack(plain, axis=1)
        held_out = _held_out(adapter, before, gold) if fitted_here else after
    result = {"before": asdict(calibration.measures(before, gold, several=several))}
    if "temperature" in adapter.tuned:
        result["after"] = asdict(calibration.measures(held_out, gold, several=several))
    return result


def _held_out(adapter: Adapter, before: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of several labels, each by a temperature of other rows."""
    if getattr(adapter.task.options, "thresholds", "one") == "one":
        found = calibration.cross_fitted(*_sides(before, gold), each=before.shape[1])
        return found[:, 1].reshape(before.shape)
    sides = [_sides(before[:, i], gold[:, i]) for i in range(before.shape[1])]
    return np.stack([calibration.cross_fitted(*side)[:, 1] for side in sides], axis=1)


def _calibrates(adapter: Adapter, predictions: Columns, rows: Rows) -> bool:
    own = vars(type(adapter)).get("calibrates", False)  # a subclass may make probabilities in its own way
    return own and "probabilities" in predictions and len(rows) > 0
