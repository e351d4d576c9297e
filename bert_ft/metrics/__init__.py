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


BENCHMARKS = (
    "cmrc", "drcd", "korquad", "mlqa_ar", "mlqa_de", "mlqa_en", "mlqa_es", "mlqa_hi", "mlqa_vi", "mlqa_zh",
)  # fmt: skip
"""Sets of questions whose scripts `bert_ft.metrics.answers` follows."""
OF_BENCHMARKS = tuple(f"{name}_{kind}" for name in BENCHMARKS for kind in ("f1", "exact_match"))
ANSWERS = ("exact_match", "best_f1", "best_exact", *OF_BENCHMARKS)

METRIC_NAMES = tuple(dict.fromkeys((*CLASSIFICATION, *MULTILABEL, *TUNED, *ANSWERS)))
"""What a task's `metric.compute` may name beside a family's own; the family says which of them it has."""

__all__ = ["COLLECTIONS", "LOWER_IS_BETTER", "METRIC_NAMES", "load"]

COLLECTIONS = {
    "glue": "Glue", "classification": "Classification", "multilabel": "MultiLabel",
    "squad": "Squad", "squad_v2": "SquadV2", "entities": "Entities",
}  # fmt: skip
"""What `load` knows besides the single metrics: name -> class of `bert_ft.metrics.evaluate_metrics`."""


def load(name: str, config: str | None = None, **options: Any) -> Metric:
    """An ``evaluate.Metric`` that needs no network and writes nothing to disk.

    Args:
        name: a key of `COLLECTIONS`, or a metric of `bert_ft.metrics.classification` ("accuracy",
            "f1_macro", ...), whose result then has that one key.
        config: the collection's configuration, as "mrpc" in ``load("glue", "mrpc")``.
        options: the collection's own. For a single metric: ``positive`` (a label id), and ``average``
            (``load("f1", average="macro")`` is ``load("f1_macro")``).

    Raises:
        InputError: no such name, configuration or metric.
    """
    average = options.pop("average", "binary") if name in CLASSIFICATION else "binary"
    if average != "binary":
        name = f"{name}_{average}"
    if name not in COLLECTIONS and name not in CLASSIFICATION:
        raise InputError(
            f"unknown metric '{name}'", remedy=did_you_mean(name, [*COLLECTIONS, *CLASSIFICATION])
        )
    if name in CLASSIFICATION:
        options = {"compute": [name], **options}
        name = "classification"
    from bert_ft.metrics import evaluate_metrics

    metric: type[Metric] = getattr(evaluate_metrics, COLLECTIONS[name])
    return metric(**options) if config is None else metric(config, **options)
