"""Metrics by name: ``load("glue", "mrpc")``, ``load("f1_macro")``, ``load("entities", mode="conlleval")``.

Importing this is cheap: ``evaluate`` (seconds), scikit-learn and scipy wait for `load` and ``compute``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics.classification import LOWER_IS_BETTER
from bert_ft.metrics.classification import NAMES as CLASSIFICATION
from bert_ft.metrics.multilabel import NAMES as MULTILABEL
from bert_ft.metrics.multilabel import TUNED

if TYPE_CHECKING:
    from evaluate import Metric


QA = ("exact_match", "best_f1", "best_exact", "cmrc_f1", "cmrc_exact_match")

METRIC_NAMES = tuple(dict.fromkeys((*CLASSIFICATION, *MULTILABEL, *TUNED, *QA)))
"""What a task's `metric.compute` may name; the family says which of them it has."""

DEFAULTS = {
    "classification": ["accuracy"],
    "ner": ["f1", "precision", "recall", "accuracy"],
    "qa": ["f1", "exact_match"],
    "regression": ["pearson", "spearmanr"],
    "multi_label_classification": [
        name + suffix
        for name in ("f1_micro", "f1_macro", "f1_weighted", "accuracy")
        for suffix in ("", "_tuned")
    ],
}
"""Family or problem type -> what a task that names no metric computes; the first picks the best
checkpoint."""

__all__ = ["DEFAULTS", "FAMILIES", "LOWER_IS_BETTER", "METRIC_NAMES", "load"]

FAMILIES = {
    "glue": "Glue", "classification": "Classification", "multilabel": "MultiLabel",
    "squad": "Squad", "squad_v2": "SquadV2", "entities": "Entities",
}  # fmt: skip
"""What `load` knows besides the single metrics: name -> class of `bert_ft.metrics.evaluate_metrics`. A new
family is a line here."""


def load(name: str, config: str | None = None, **options: Any) -> Metric:
    """An ``evaluate.Metric`` that needs no network and writes nothing to disk.

    Args:
        name: a key of `FAMILIES`, or a metric of `bert_ft.metrics.classification` ("accuracy",
            "f1_macro", ...), whose result then has that one key.
        config: the family's configuration, as "mrpc" in ``load("glue", "mrpc")``.
        options: the family's own. For a single metric: ``positive`` (a label id), and ``average``
            (``load("f1", average="macro")`` is ``load("f1_macro")``).

    Raises:
        InputError: no such name, configuration or metric.
    """
    average = options.pop("average", "binary") if name in CLASSIFICATION else "binary"
    if average != "binary":
        name = f"{name}_{average}"
    if name not in FAMILIES and name not in CLASSIFICATION:
        raise InputError(f"unknown metric '{name}'", remedy=did_you_mean(name, [*FAMILIES, *CLASSIFICATION]))
    if name in CLASSIFICATION:
        name, options = "classification", {"compute": [name], **options}
    from bert_ft.metrics import evaluate_metrics

    metric: type[Metric] = getattr(evaluate_metrics, FAMILIES[name])
    return metric(**options) if config is None else metric(config, **options)
