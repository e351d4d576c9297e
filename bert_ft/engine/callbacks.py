"""What a training calls on its way."""

from __future__ import annotations

from typing import Any

from bert_ft.engine import batches
from bert_ft.families.features import Features

Metrics = dict[str, dict[str, float]]


class Callback:
    """What may be passed as `callbacks=`; override what is needed. Called on the main process alone."""

    def on_start(self, plan: batches.Plan, features: Features) -> None:
        """Before the first step."""

    def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
        """After optimizer step `step` (the first is 1); `entry` is the log's line where one was written."""

    def on_evaluate(self, step: int, metrics: Metrics, best: bool) -> bool | None:
        """After an evaluation: set name -> metric -> value. True ends the training here."""
        return None

    def on_end(self) -> None:
        """After the last step, also where training was interrupted."""
