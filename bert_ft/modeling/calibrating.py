"""What calibrates a model's probabilities: a temperature of its logits, or Platt's sigmoid or isotonic
regression of every label. It is fitted once the weights are kept, saved with them like thresholds, and
applied wherever the model answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families import soft_labels
from bert_ft.families.base import Adapter
from bert_ft.metrics import calibration, label_calibration, score_calibration
from bert_ft.metrics.label_calibration import METHODS, Method

NONE_RIGHT = "probabilities are not calibrated: no temperature is best on rows that are all told right"
NONE = "probabilities are not calibrated: they say too little of these rows for any temperature to be best"

PLAIN = "uncalibrated"
"""The column of predictions that has the probabilities before they were calibrated a label at a time."""

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


def by_label(adapter: Adapter, decoded: Columns) -> Columns:
    """Predictions by the calibrators of their adapter's labels; themselves where it has none."""
    method = _method(adapter)
    if method is None or "probabilities" not in decoded:
        return decoded
    plain = decoded["probabilities"]
    kept = adapter.tuned[method]
    fitted = [kept.get(name) for name in adapter.names]
    said = label_calibration.calibrated(method, plain, fitted, _several(adapter))
    return {**decoded, "probabilities": said, "prediction": adapter.decided(said), PLAIN: plain}


def _method(adapter: Adapter) -> Method | None:
    return next((method for method in METHODS if method in adapter.tuned), None)


def _several(adapter: Adapter) -> bool:
    return adapter.task.data.problem_type == "multi_label_classification"


def drop(adapter: Adapter) -> None:
    """Forgets what calibrates: the weights are others."""
    for key in ("temperature", *METHODS, "scores"):
        adapter.tuned.pop(key, None)


def refuse(adapter: Adapter, rows: Rows) -> None:
    """Refuses a calibration that was asked for by name and can't be; a temperature, which is the default, is
    then left out.

    Args:
        rows: of the set that picks the weights.
    Raises:
        InputError: a task without probabilities of labels, or too few rows.
    """
    method = adapter.task.run.calibration
    if method == "temperature" or method == "none" or vars(type(adapter)).get("scores_answers"):
        return
    remedy = 'leave it out: calibration = "temperature" is the default'
    if not _own(adapter) or not adapter.has_labels(adapter.task):
        message = f"this task has no probabilities of labels that {method} could calibrate"
        raise InputError(message, where="run.calibration", remedy=remedy)
    if len(rows) < (least := label_calibration.LEAST[method]):
        message = f"{method} wants {least:,} rows of {adapter.task.best_metric[0]}, here are {len(rows):,}"
        raise InputError(message, where="run.calibration", remedy=remedy)


def fit(adapter: Adapter, predictions: Columns, rows: Rows) -> str:
    """Fits what calibrates to predictions of a model without it, keeps it in what the adapter has tuned, and
    makes it hold for these predictions, in place. Returns what there is to say.

    Nothing is fitted, and nothing said, for numbers, and for a family whose decoding is the user's own.
    """
    if _scored(adapter, rows):
        return _fit_scores(adapter, *adapter.rated(predictions, rows))
    if not _calibrates(adapter, predictions, rows):
        return ""
    method = adapter.task.run.calibration
    if method == "platt" or method == "isotonic":
        return _fit_labels(adapter, method, predictions, rows)
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


def _fit_scores(adapter: Adapter, scores: np.ndarray, right: np.ndarray) -> str:
    """The same for the scores of entities, or of answers to questions: by Platt's sigmoid, unless isotonic
    regression is asked for."""
    method = _of_scores(adapter)
    if len(right) < (least := label_calibration.LEAST[method]):
        return (
            f"scores are not calibrated by {method}: {len(right):,} answers on validation say too little, "
            f"{least:,} are the least"
        )
    found = score_calibration.fit(method, scores, right)
    if found is None:
        return (
            f"scores are not calibrated by {method}: {int(right.sum()):,} of {len(right):,} answers are "
            "right, and that does not rise with their scores, or too few are of either kind"
        )
    adapter.tuned["scores"] = {method: found}
    return f"scores are calibrated on these rows by {method}, and no answer changes"


def _of_scores(adapter: Adapter) -> Method:
    """The method for scores of answers: none of them changes an answer, so that the default is the one that
    mends more than a temperature."""
    return "isotonic" if adapter.task.run.calibration == "isotonic" else "platt"


def _fit_labels(adapter: Adapter, method: Method, predictions: Columns, rows: Rows) -> str:
    """The same by a calibrator a label. Answers are those of the calibrated probabilities, and thresholds are
    tuned on these anew."""
    gold, several = _gold(adapter, rows)
    probabilities = predictions["probabilities"]
    truth = _truth(gold, probabilities.shape[1])
    found = label_calibration.fits(method, probabilities, truth, several)
    names = adapter.names
    fitted = {name: one for name, one in zip(names, found, strict=True) if one is not None}
    if not fitted:
        return (
            f"probabilities are not calibrated: no label has {label_calibration.LEAST_EACH} rows with it and "
            "without it whose scores rise with it"
        )
    adapter.tuned[method] = fitted
    before = predictions["prediction"].copy()
    predictions.update(by_label(adapter, predictions))
    adapter.tune(predictions, rows)
    after = predictions["prediction"]
    line = (
        f"probabilities are calibrated on these rows by {method}, which can change answers: "
        f"{_apart(before, after):,} of {len(rows):,} are others, here and wherever the model answers"
    )
    if soft_labels.targets(adapter, rows) is None:
        wrong = [_apart(answers, gold) for answers in (before, after)]
        line += f"; {len(rows) - wrong[0]:,} were right before, {len(rows) - wrong[1]:,} are now"
    bare = [name for name in names if name not in fitted]
    least = (
        f"fewer than {label_calibration.LEAST_EACH} rows with it or without it, or scores that mislead or "
        "hardly differ"
    )
    return f"{line}. Left as they are: {', '.join(bare)} ({least})" if bare else line


def _apart(answers: np.ndarray, others: np.ndarray) -> int:
    """In how many rows two arrays of answers differ, labels or sets of them."""
    differs = answers != others
    return int((differs.any(axis=1) if differs.ndim == 2 else differs).sum())


def _truth(gold: np.ndarray, labels: int) -> np.ndarray:
    """(N, C) how far each label holds, of label numbers, sets or distributions."""
    truth = gold if gold.ndim == 2 else np.arange(labels) == gold[:, None]
    return truth.astype(np.float64)


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
    """The measures of a set before and after what calibrates, as `results.json` holds them; of the set that
    it was fitted to, after it by what other rows of the set give. Empty where there are none."""
    if _scored(adapter, rows):
        return _measured_scores(adapter, *adapter.rated(predictions, rows), fitted_here)
    if not _calibrates(adapter, predictions, rows) or rows.table[adapter.target].null_count:
        return {}
    after = predictions["probabilities"]
    gold, several = _gold(adapter, rows)
    by = divisor(adapter)
    method = _method(adapter)
    if method is not None:
        before = predictions[PLAIN]
        truth = _truth(gold, before.shape[1])
        held_out = label_calibration.cross_fitted(method, before, truth, several) if fitted_here else after
    elif not several:
        before = calibration.scaled(after, 1 / float(by)) if by != 1 else after
        held_out = calibration.cross_fitted(before, gold) if fitted_here else after
    else:
        each = np.broadcast_to(by, after.shape[1]).tolist()
        plain = [_scaled(column, 1 / one) for column, one in zip(after.T, each, strict=True)]
        before = np.stack(plain, axis=1)
        held_out = _held_out(adapter, before, gold) if fitted_here else after
    result = {"before": asdict(calibration.measures(before, gold, several=several))}
    if method is not None or "temperature" in adapter.tuned:
        result["after"] = asdict(calibration.measures(held_out, gold, several=several))
    return result


def _measured_scores(
    adapter: Adapter, scores: np.ndarray, right: np.ndarray, fitted_here: bool
) -> dict[str, Any]:
    """The same of the scores of answers."""
    if not len(right):
        return {}
    result = {"before": asdict(score_calibration.measures(scores, right))}
    for method in adapter.tuned.get("scores", {}):
        by_others = score_calibration.cross_fitted(method, scores, right) if fitted_here else None
        after = adapter.calibrated(scores) if by_others is None else by_others
        result["after"] = asdict(score_calibration.measures(after, right))
    return result


def _held_out(adapter: Adapter, before: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of several labels, each by a temperature of other rows."""
    if getattr(adapter.task.options, "thresholds", "one") == "one":
        found = calibration.cross_fitted(*_sides(before, gold), each=before.shape[1])
        return found[:, 1].reshape(before.shape)
    sides = [_sides(before[:, i], gold[:, i]) for i in range(before.shape[1])]
    return np.stack([calibration.cross_fitted(*side)[:, 1] for side in sides], axis=1)


def _calibrates(adapter: Adapter, predictions: Columns, rows: Rows) -> bool:
    return _own(adapter) and "probabilities" in predictions and len(rows) > 0


def _scored(adapter: Adapter, rows: Rows) -> bool:
    own = vars(type(adapter)).get("scores_answers", False)  # as of `_own`
    return own and len(rows) > 0 and not rows.table[adapter.target].null_count


def _own(adapter: Adapter) -> bool:
    # not inherited: a subclass may make probabilities in its own way
    return bool(vars(type(adapter)).get("calibrates", False))
