"""The user's own metrics as functions that a model scores with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Score = Callable[[Any, Any], dict[str, float]]


def of(metrics: Mapping[str, Any] | Sequence[Any]) -> dict[str, Score]:
    """Name -> function of (predictions, references) that returns metrics by name. A single metric has the
    name that the user gave it, of several each has its own."""
    if isinstance(metrics, Mapping):
        return {name: _scorer(metric, name, alone=True) for name, metric in metrics.items()}
    names = [str(getattr(each, "name", getattr(each, "__name__", "custom"))) for each in metrics]
    return {name: _scorer(each, name, alone=False) for name, each in zip(names, metrics, strict=True)}


def _scorer(metric: Any, name: str, alone: bool) -> Score:
    """The metric as a function of (predictions, references) that returns name -> value; one value `alone`
    gets the name that the user gave the metric."""

    def score(predictions: Any, references: Any) -> dict[str, float]:
        if hasattr(metric, "compute"):  # one of `evaluate`
            value = metric.compute(predictions=predictions, references=references)
        else:
            value = metric(predictions, references)
        if not isinstance(value, Mapping):
            value = {name: value}
        elif len(value) == 1 and alone:
            value = {name: next(iter(value.values()))}
        return {key: float("nan") if number is None else float(number) for key, number in value.items()}

    return score
