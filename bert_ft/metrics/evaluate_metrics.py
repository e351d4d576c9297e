"""The thin ``evaluate.Metric`` around our functions: the hub's interface, without the hub.

Import it through `bert_ft.metrics.load`: ``evaluate`` takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import evaluate
from datasets import Features, List, Value

from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics import classification, entities, multilabel, squad

GLUE: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "stsb": ("pearson", "spearmanr"),
    **dict.fromkeys(("mrpc", "qqp"), ("accuracy", "f1")),
    **dict.fromkeys(("sst2", "mnli", "mnli_matched", "mnli_mismatched"), ("accuracy",)),
    **dict.fromkeys(("qnli", "rte", "wnli", "hans"), ("accuracy",)),
    "ax": ("matthews_correlation",),
}
"""Configuration -> metrics: the hub's ``metrics/glue/glue.py``, and AX as in Wang et al. 2019, section 4."""


class InMemory(evaluate.Metric):  # type: ignore[misc]
    """A metric of one process that keeps its rows in memory and leaves the disk alone."""

    def __init__(self, config: str | None, predictions: Any, references: Any) -> None:
        # no format="numpy", which the hub's metrics have: datasets would round float64 to float32
        self._columns = Features({"predictions": predictions, "references": references})
        super().__init__(config_name=config, keep_in_memory=True, num_process=1)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description=f"{type(self).__doc__}", citation="", features=self._columns)

    def _build_data_dir(self) -> str:
        return ""  # evaluate would make a folder in the user's cache, and put nothing into it

    def _finalize(self) -> None:
        if self.buf_writer is None:
            raise ValueError("no rows to score: call add or add_batch before compute")
        super()._finalize()


class Classification(InMemory):
    """Any list of the metrics of `bert_ft.metrics.classification`, over one column of predictions.

    Args:
        compute: metric names; the result has these keys, in this order.
        positive: the label id that `f1`, `precision` and `recall` are about.

    Predictions and references are class ids, or numbers where one of the metrics is a regression's.
    """

    def __init__(self, config: str | None = None, *, compute: Iterable[str], positive: int = 1) -> None:
        self._names: Sequence[str] = tuple(compute)
        self._positive = positive
        for name in self._names:
            classification.require_known(name)
        number = Value(
            "int64" if classification.REGRESSION_METRICS.keys().isdisjoint(self._names) else "float64"
        )
        super().__init__(config, number, number)

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return classification.compute(self._names, predictions, references, positive=self._positive)


class MultiLabel(InMemory):
    """Any list of the metrics of `bert_ft.metrics.multilabel`, over rows of 0 and 1, one a label."""

    def __init__(self, config: str | None = None, *, compute: Iterable[str]) -> None:
        self._names: Sequence[str] = tuple(compute)
        super().__init__(config, List(Value("int64")), List(Value("int64")))

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return multilabel.compute(self._names, predictions, references)


class Glue(Classification):
    """GLUE's metrics by task (Wang et al. 2019), with the keys of the hub's ``glue`` metric.

    STS-B's numbers are kept in float64, where the hub rounds them to float32 first.
    """

    def __init__(self, config: str = "") -> None:
        if config not in GLUE:
            raise InputError(f"unknown GLUE configuration '{config}'", remedy=did_you_mean(config, GLUE))
        super().__init__(config, compute=GLUE[config])


class Squad(InMemory):
    """SQuAD 1.1 with the interface of the hub's ``squad``: `exact_match` and `f1`, 0 to 100."""

    prediction: ClassVar[dict[str, Any]] = {"id": Value("string"), "prediction_text": Value("string")}

    def __init__(self, config: str | None = None) -> None:
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        super().__init__(config, self.prediction, {"id": Value("string"), "answers": answers})

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return squad.squad(_texts(predictions), _golds(references))


class SquadV2(Squad):
    """SQuAD 2.0 with the interface of the hub's ``squad_v2``; `no_answer_probability` may be any odds of no
    answer."""

    prediction: ClassVar[dict[str, Any]] = Squad.prediction | {"no_answer_probability": Value("float64")}

    def _compute(
        self, *, predictions: Any, references: Any, no_answer_threshold: float = 1.0
    ) -> dict[str, float]:
        odds = {row["id"]: row["no_answer_probability"] for row in predictions}
        return squad.squad_v2(_texts(predictions), _golds(references), odds, no_answer_threshold)


def _texts(predictions: Any) -> dict[str, str]:
    return {row["id"]: row["prediction_text"] for row in predictions}


def _golds(references: Any) -> dict[str, list[str]]:
    return {row["id"]: row["answers"]["text"] for row in references}


class Entities(InMemory):
    """Entities of tag sequences, with the keys of the hub's ``seqeval`` metric.

    Args:
        mode, scheme: as in `bert_ft.metrics.entities.score`.

    Predictions and references are lists of tag lists. The result has ``overall_precision``,
    ``overall_recall``, ``overall_f1``, ``overall_accuracy`` and, by type, ``{"precision", "recall", "f1",
    "number"}``.
    """

    def __init__(
        self, config: str | None = None, *, mode: str = "conlleval", scheme: str | None = None
    ) -> None:
        self._mode = mode
        self._scheme = scheme
        super().__init__(config, List(Value("string")), List(Value("string")))

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, Any]:
        (gold, predicted), offsets, names = entities.flat(references, predictions)
        result = entities.score(gold, predicted, offsets, names, self._mode, self._scheme)
        overall = result.pop("")
        return {f"overall_{key}": value for key, value in overall.items() if key != "number"} | result
