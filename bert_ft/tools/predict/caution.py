"""Answers that are left open where the model is not sure, and sets of labels that hold the right one as often
as is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_ft.errors import InputError
from bert_ft.families import listing
from bert_ft.metrics import abstaining
from bert_ft.modeling.model import Model
from bert_ft.run import Run


@dataclass(frozen=True)
class Caution:
    """How sure an answer has to be.

    Attributes:
        below: an answer of less probability is left open; 0: none is.
        least: the least probability of a label of the set; None: no sets.
    """

    below: float = 0.0
    least: float | None = None

    @classmethod
    def of(cls, loaded: Any, below: float | None, coverage: float | None) -> Caution | None:
        """What a call asks for; None where it asks for nothing.

        Args:
            loaded: a run, or a model without one. below: a probability. coverage: how often a set is to hold
                the right label.
        Raises:
            InputError: a number out of range, a model without one label a row, or sets of a model that has
                no labelled predictions beside it.
        """
        if below is None and coverage is None:
            return None
        for name, value in (("--abstain-below", below), ("--label-sets", coverage)):
            if value is not None and not 0 < value < 1:
                raise InputError(f"{value:g} is no share", where=name, remedy="a number between 0 and 1")
        model: Model = getattr(loaded, "model", loaded)
        if (
            model.adapter.task.data.problem_type != "single_label_classification"
            or not model.adapter.calibrates
        ):
            where = "--abstain-below" if below is not None else "--label-sets"
            remedy = "look at the scores of its answers"
            raise InputError("this model does not give one label a row", where=where, remedy=remedy)
        return cls(below or 0.0, None if coverage is None else _least(loaded, coverage))

    def applied(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer with what follows: `abstained`, and `label_set` where sets are asked for."""
        result = dict(answer)
        said: dict[str, float] = answer["probabilities"]
        if self.below:
            result["abstained"] = max(said.values()) < self.below
            if result["abstained"]:
                result["prediction"] = None
        if self.least is not None:
            most = max(said, key=said.__getitem__)  # a set is never empty
            result["label_set"] = [name for name, p in said.items() if p >= self.least or name == most]
        return result


def _least(loaded: Any, coverage: float) -> float:
    if not isinstance(loaded, Run):
        raise InputError(
            "sets need rows with labels that the model was not trained on",
            where="--label-sets",
            remedy="name the run in the place of its model: its validation predictions are taken",
        )
    if loaded.onnx not in (None, "fp32") or loaded.int8:
        raise InputError(
            "the run's own probabilities say nothing of a model with smaller numbers",
            where="--label-sets",
            remedy="leave out --int8",
        )
    lines = loaded.predictions(loaded.task.best_metric[0])
    names = [str(label) for label in loaded.task.data.labels or []]
    if not lines or any(
        line["label"] is None or str(line["label"]) not in line["probabilities"] for line in lines
    ):
        raise InputError(
            "the run has no labelled predictions", where="--label-sets", remedy="evaluate it on some"
        )
    of_gold = np.array([[line["probabilities"][str(line["label"])]] for line in lines])
    least = abstaining.least_of_set(of_gold, np.zeros(len(lines), int), coverage)
    if not least:
        raise InputError(
            f"{len(lines):,} rows are too few to promise {coverage:g}",
            where="--label-sets",
            remedy="ask for less",
        )
    if listing.is_cut(len(names)) and least <= 1 / listing.MOST:  # of what is not listed none is larger
        raise InputError(
            f"the sets would hold labels of a probability down to {least:.2g}, too many of {len(names):,}",
            where="--label-sets",
            remedy="ask for less, or train a model that is surer",
        )
    return least
