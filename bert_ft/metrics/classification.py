"""Classification and regression metrics: pure functions, and tables of them by name.

Each takes ``(predictions, labels)``, two arrays or lists of shape ``[rows]``, and returns a float: a
fraction between 0 and 1, a correlation between -1 and 1, or an error in the labels' unit (squared for
the squared error). Class metrics take label ids (whole numbers); regression metrics take real numbers
and compute in float64.

The values are those of scikit-learn (``zero_division=0``) and scipy, the libraries behind the hub's
metrics; degenerate input gives their value without their warnings, since a model that predicts one
class at its first evaluation is ordinary: a quotient 0/0 is 0, the correlation of a constant is nan.

Raises `ValueError`: no rows, shapes that differ, class ids that are no whole numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bert_ft.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """The share of rows predicted exactly (sklearn ``accuracy_score``)."""
    predictions, labels = _ids(predictions, labels)
    return float((predictions == labels).mean())


def f1(predictions: ArrayLike, labels: ArrayLike, *, positive: int = 1) -> float:
    """F1 of the label id `positive` (sklearn ``f1_score``). Raises `ValueError` on more than two classes."""
    return _precision_recall_f1(predictions, labels, "binary", positive)[2]


def precision(predictions: ArrayLike, labels: ArrayLike, *, positive: int = 1) -> float:
    """Precision of the label id `positive` (sklearn ``precision_score``); two classes, as for `f1`."""
    return _precision_recall_f1(predictions, labels, "binary", positive)[0]


def recall(predictions: ArrayLike, labels: ArrayLike, *, positive: int = 1) -> float:
    """Recall of the label id `positive` (sklearn ``recall_score``); two classes, as for `f1`."""
    return _precision_recall_f1(predictions, labels, "binary", positive)[1]


def _averaged(index: int, average: str, text: str) -> Callable[[ArrayLike, ArrayLike], float]:
    def metric(predictions: ArrayLike, labels: ArrayLike) -> float:
        return _precision_recall_f1(predictions, labels, average)[index]

    metric.__doc__ = f"{text} (sklearn ``average={average!r}``: over the classes in labels or predictions)."
    return metric


precision_macro = _averaged(0, "macro", "The mean of the classes' precision")
recall_macro = _averaged(1, "macro", "The mean of the classes' recall")
f1_macro = _averaged(2, "macro", "The mean of the classes' F1")
f1_micro = _averaged(2, "micro", "F1 of the pooled counts; with one label a row this is the accuracy")
f1_weighted = _averaged(2, "weighted", "The mean of the classes' F1, each weighted by its gold rows")


def balanced_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """The mean recall over the classes present in the labels (sklearn ``balanced_accuracy_score``)."""
    from sklearn.metrics import balanced_accuracy_score

    predictions, labels = _ids(predictions, labels)
    with _quiet():
        return float(balanced_accuracy_score(labels, predictions))


def matthews_correlation(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Matthews' correlation of any number of classes (sklearn ``matthews_corrcoef``); 0 for a constant."""
    from sklearn.metrics import matthews_corrcoef

    predictions, labels = _ids(predictions, labels)
    with _quiet():
        return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's r (scipy ``pearsonr``); nan for a constant and for a single row, which scipy refuses."""
    from scipy.stats import pearsonr

    predictions, labels = _reals(predictions, labels)
    with _quiet():
        return float(pearsonr(predictions, labels)[0]) if len(labels) > 1 else float("nan")


def spearmanr(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Spearman's rank correlation (scipy ``spearmanr``); nan for a constant and for a single row."""
    from scipy import stats

    predictions, labels = _reals(predictions, labels)
    with _quiet():
        return float(stats.spearmanr(predictions, labels)[0])


def mean_squared_error(predictions: ArrayLike, labels: ArrayLike) -> float:
    """The mean of the squared differences; nan where a prediction is nan, where sklearn raises."""
    predictions, labels = _reals(predictions, labels)
    with _quiet():
        return float(((predictions - labels) ** 2).mean())


def mean_absolute_error(predictions: ArrayLike, labels: ArrayLike) -> float:
    """The mean of the absolute differences; nan where a prediction is nan, where sklearn raises."""
    predictions, labels = _reals(predictions, labels)
    with _quiet():
        return float(abs(predictions - labels).mean())


_BINARY: dict[str, Callable[..., float]] = {"f1": f1, "precision": precision, "recall": recall}
CLASS_METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy, "f1_macro": f1_macro, "f1_micro": f1_micro, "f1_weighted": f1_weighted,
    "precision_macro": precision_macro, "recall_macro": recall_macro, "balanced_accuracy": balanced_accuracy,
    "matthews_correlation": matthews_correlation, **_BINARY,
}  # fmt: skip
REGRESSION_METRICS: dict[str, Callable[..., float]] = {
    "pearson": pearson, "spearmanr": spearmanr,
    "mean_squared_error": mean_squared_error, "mean_absolute_error": mean_absolute_error,
}  # fmt: skip
NAMES = (*CLASS_METRICS, *REGRESSION_METRICS)
LOWER_IS_BETTER = frozenset({"mean_squared_error", "mean_absolute_error"})


def require_known(name: str) -> None:
    """Raise an `InputError` that names the nearest metric, unless `name` is one; imports nothing."""
    if name not in NAMES:
        raise InputError(f"unknown metric '{name}'", remedy=did_you_mean(name, NAMES))


def compute(names: Iterable[str], predictions: ArrayLike, labels: ArrayLike, *, positive: int = 1) -> dict[str, float]:
    """The metrics `names`, in that order: name -> value.

    `positive` is the label id that `f1`, `precision` and `recall` are about. Raises `InputError` for
    an unknown name, `ValueError` as the module says.
    """
    result = {}
    for name in names:
        require_known(name)
        if name in _BINARY:
            result[name] = _BINARY[name](predictions, labels, positive=positive)
        else:
            result[name] = (CLASS_METRICS | REGRESSION_METRICS)[name](predictions, labels)
    return result


def _precision_recall_f1(
    predictions: ArrayLike, labels: ArrayLike, average: str, positive: int = 1
) -> tuple[float, float, float]:
    from sklearn.metrics import precision_recall_fscore_support

    predictions, labels = _ids(predictions, labels)
    present = {*predictions.tolist(), *labels.tolist()}
    # sklearn refuses these too; its message does not say which of our names to take instead.
    if average == "binary" and (len(present) > 2 or (len(present) == 2 and positive not in present)):
        raise ValueError(
            f"f1, precision and recall of label {positive} need two classes, {positive} one of them, not "
            f"{sorted(present)[:10]}: take f1_macro, precision_macro, recall_macro, or set `positive`"
        )
    with _quiet():
        p, r, f, _ = precision_recall_fscore_support(
            labels, predictions, average=average, pos_label=positive, zero_division=0
        )
    return float(p), float(r), float(f)


def _ids(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    given = _rows(predictions, labels)
    for ids in given:
        kind = ids.dtype.kind
        if kind not in "iub" and (kind != "f" or not all(map(float.is_integer, ids.tolist()))):
            raise ValueError("class metrics take label ids, whole numbers: not names, logits, probabilities")
    return given[0].astype("int64"), given[1].astype("int64")


def _reals(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # float64 first: in float16, as a half-precision model gives, a mean of squares overflows early.
    given = _rows(predictions, labels)
    return given[0].astype("float64"), given[1].astype("float64")


def _rows(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    p, y = np.asarray(predictions), np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"predictions {p.shape} and labels {y.shape} must be two lists, equally long")
    if not p.size:
        raise ValueError("no rows to score: predictions and labels are empty")
    return p, y


@contextmanager
def _quiet() -> Iterator[None]:
    import numpy as np

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
