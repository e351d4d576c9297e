"""Classification and regression metrics: a table of scikit-learn's and scipy's functions by name.

`compute` takes two arrays or lists of shape ``[rows]``, predictions and labels, and returns floats: a
fraction between 0 and 1, a correlation between -1 and 1, or an error in the labels' unit (squared for the
squared error). Class metrics take label ids (whole numbers); regression metrics take real numbers and compute
in float64.

The values are those of scikit-learn (``zero_division=0``) and scipy, the libraries behind the hub's metrics;
degenerate input has their value without their warnings, since a model that predicts one class at its first
evaluation is ordinary: a quotient 0/0 is 0, the correlation of a constant is nan, and so is what has a
prediction of nan.

Raises `ValueError`: no rows, shapes that differ, class ids that are no whole numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bert_ft.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


Function = Callable[..., Any]
"""(labels, predictions), numpy arrays, and options -> the metric."""


def _sklearn(name: str, **options: Any) -> Function:
    """A function of `sklearn.metrics`, which takes seconds to import, under options of its own."""

    def metric(labels: Any, predictions: Any, **more: Any) -> Any:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(labels, predictions, **options, **more)

    return metric


def _correlation(name: str) -> Function:
    """A correlation of `scipy.stats`; nan for a single row, which `pearsonr` refuses."""

    def metric(labels: Any, predictions: Any) -> Any:
        import scipy.stats

        return getattr(scipy.stats, name)(predictions, labels)[0] if len(labels) > 1 else float("nan")

    return metric


BINARY: dict[str, Function] = {
    name: _sklearn(f"{name}_score", zero_division=0) for name in ("f1", "precision", "recall")
}
"""Of one label of two, `positive`."""

CLASS_METRICS: dict[str, Function] = {
    "accuracy": lambda labels, predictions: (predictions == labels).mean(),
    "f1_macro": _sklearn("f1_score", average="macro", zero_division=0),
    "f1_micro": _sklearn("f1_score", average="micro", zero_division=0),
    "f1_weighted": _sklearn("f1_score", average="weighted", zero_division=0),
    "precision_macro": _sklearn("precision_score", average="macro", zero_division=0),
    "recall_macro": _sklearn("recall_score", average="macro", zero_division=0),
    "balanced_accuracy": _sklearn("balanced_accuracy_score"),
    "matthews_correlation": _sklearn("matthews_corrcoef"),
    **BINARY,
}
"""Averages go over the classes in labels or predictions; `f1_micro`, with one label a row, is the
accuracy."""

REGRESSION_METRICS: dict[str, Function] = {
    "pearson": _correlation("pearsonr"),
    "spearmanr": _correlation("spearmanr"),
    "mean_squared_error": lambda labels, predictions: ((predictions - labels) ** 2).mean(),
    "mean_absolute_error": lambda labels, predictions: abs(predictions - labels).mean(),
}
NAMES = (*CLASS_METRICS, *REGRESSION_METRICS)
LOWER_IS_BETTER = frozenset({"mean_squared_error", "mean_absolute_error", "cross_entropy", "kl_divergence"})


def require_known(name: str) -> None:
    """Raise an `InputError` that names the nearest metric, unless `name` is one; imports nothing."""
    if name not in NAMES:
        raise InputError(f"unknown metric '{name}'", remedy=did_you_mean(name, NAMES))


def compute(
    names: Iterable[str], predictions: ArrayLike, labels: ArrayLike, *, positive: int = 1
) -> dict[str, float]:
    """The metrics `names`, in that order: name -> value.

    `positive` is the label id that `f1`, `precision` and `recall` are about; they want two classes. Raises
    `InputError` for an unknown name, `ValueError` as the module says.
    """
    names = list(names)
    for name in names:
        require_known(name)
    import numpy as np

    result = {}
    for name in names:
        p, y = (_ids if name in CLASS_METRICS else _reals)(predictions, labels)
        if name in BINARY:
            _require_two(p, y, positive)
        options = {"pos_label": positive} if name in BINARY else {}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result[name] = float((CLASS_METRICS | REGRESSION_METRICS)[name](y, p, **options))
    return result


def _require_two(predictions: NDArray[Any], labels: NDArray[Any], positive: int) -> None:
    present = {*predictions.tolist(), *labels.tolist()}
    # sklearn refuses these too; its message does not say which of our names to take instead.
    if len(present) > 2 or (len(present) == 2 and positive not in present):
        raise ValueError(
            f"f1, precision and recall need two classes, of which label {positive} is one, not "
            f"{sorted(present)[:10]}: use f1_macro, precision_macro or recall_macro, or set `positive`"
        )


def _ids(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    arrays = _rows(predictions, labels)
    for ids in arrays:
        kind = ids.dtype.kind
        if kind not in "iub" and (kind != "f" or not all(map(float.is_integer, ids.tolist()))):
            raise ValueError("class metrics take label ids, whole numbers: not names, logits, probabilities")
    return arrays[0].astype("int64"), arrays[1].astype("int64")


def _reals(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # float64 first: in float16, as a half-precision model gives, a mean of squares overflows early.
    arrays = _rows(predictions, labels)
    return arrays[0].astype("float64"), arrays[1].astype("float64")


def _rows(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    p, y = np.asarray(predictions), np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"predictions {p.shape} and labels {y.shape} must be two lists of equal length")
    if not p.size:
        raise ValueError("no rows to score: predictions and labels are empty")
    return p, y
