"""What a task can say of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from bert_ft.config import schema
from bert_ft.metrics import multilabel
from bert_ft.metrics.classification import CLASS_METRICS, REGRESSION_METRICS

METRICS: dict[str, tuple[str, ...]] = {
    "regression": tuple(REGRESSION_METRICS),
    "single_label_classification": tuple(CLASS_METRICS),
    "multi_label_classification": (*multilabel.NAMES, *multilabel.TUNED),
}
"""Problem type -> the metrics that it has."""

DEFAULTS = {
    "regression": ["pearson", "spearmanr"],
    "multi_label_classification": [
        name + suffix
        for name in ("f1_micro", "f1_macro", "f1_weighted", "accuracy")
        for suffix in ("", "_tuned")
    ],
}


class Options(schema.Options):
    """What the classification family does with long texts and with rows of several labels.

    Truncation as in Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1: of 510
    tokens head+tail keeps the first 128 and the last 382.
    """

    table: ClassVar[str] = "classification"

    truncation: Literal["head", "tail", "head+tail"] = Field(
        "head", description="what is kept of a text too long"
    )
    windows: bool = Field(
        False, description="nothing is truncated: a long text is read in windows of max_length"
    )
    stride: int = Field(32, ge=0, description="tokens that two windows of a text share, at least")
    pooling: Literal["mean", "max"] = Field("mean", description="of the windows' logits")
    thresholds: Literal["one", "per-label"] = Field(
        "one", description="multi-label: what is tuned on validation"
    )

    @model_validator(mode="after")
    def _check(self) -> Options:
        if self.windows and self.truncation != "head":
            raise ValueError(
                "classification.windows leaves nothing to truncate: leave out classification.truncation"
            )
        return self

    @classmethod
    def default_metrics(cls, problem_type: str) -> list[str]:
        return DEFAULTS.get(problem_type, ["accuracy"])

    def metric_names(self, problem_type: str) -> Sequence[str]:
        return METRICS[problem_type]
