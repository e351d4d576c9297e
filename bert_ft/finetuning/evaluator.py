"""The evaluator of a run: predictions and metrics of its sets, for the weights as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bert_ft import files
from bert_ft.data.rows import Rows
from bert_ft.engine.callbacks import Metrics
from bert_ft.metrics import label_calibration
from bert_ft.modeling import calibrating
from bert_ft.modeling.model import Model
from bert_ft.prepared import Prepared
from bert_ft.report import choices
from bert_ft.rundir import evaluations
from bert_ft.rundir.folder import RunDir

Predictions = dict[str, Any]


class Evaluator:
    """Scores the sets of a run.

    Rows are encoded once. What the weights as they are have predicted already is not computed again, until
    `forget` says that they have changed.

    Attributes:
        evaluations: how many there were.
        counts: set name -> what happened while its rows were encoded.
        findings: what a person should know of the encoded sets, whatever the weights are.
        calibration: set name -> how well its probabilities fit.
        rows, seconds: how many rows were predicted so far, and in what time.
    """

    def __init__(self, model: Model, prepared: Prepared, say: Callable[..., None], folder: RunDir) -> None:
        self.model = model
        self.say = say
        self.adapter = model.adapter
        self.evaluation = prepared.splits.evaluation
        self.scored = prepared.scored
        self.chosen_by = prepared.task.best_metric[0]
        self.blocks = {name: list(model.blocks(rows)) for name, rows in self.scored.items()}
        self.counts: dict[str, dict[str, int]] = {}
        for name, blocks in self.blocks.items():
            keys = blocks[0][1].counts
            self.counts[name] = {key: sum(part.counts[key] for _, part in blocks) for key in keys}
        self.findings = [
            found
            for name, blocks in self.blocks.items()
            for found in self.adapter.encoded(name, self.scored[name], (part for _, part in blocks))
        ]
        self.latest: dict[str, Predictions] = {}
        self.calibration: dict[str, Any] = {}
        self.folder = folder
        self.best = prepared.task.best_metric[1]
        self.keeps = prepared.task.recipe.keep == "best" and files.first_process()
        self.evaluations = evaluations.count(folder)
        self.rows = 0
        self.seconds = 1e-9

    def forget(self) -> None:
        """The weights have changed."""
        self.latest.clear()

    def __call__(self) -> Metrics:
        """Set name -> metric -> value of the evaluation sets, for weights that have just been trained; shows
        what looks wrong with the predictions."""
        self.forget()
        metrics = {}
        for name, rows, predictions in self.predicted(self.evaluation):
            metrics[name] = self.model.score(predictions, rows)
            if name == self.chosen_by and self.keeps:
                columns = {key: predictions[key] for key in self.adapter.chosen_by if key in predictions}
                evaluations.keep(self.folder, self.evaluations, columns)
            known = {found.statement for found in self.findings if found.set == name}
            for warning in self.adapter.warnings(predictions, rows):
                if warning not in known:
                    self.say(f"{name}: {warning}", "yellow")
        self.evaluations += 1
        return {name: metrics[name] for name in self.evaluation}

    def predicted(self, sets: Mapping[str, Rows]) -> Iterator[tuple[str, Rows, Predictions]]:
        """(name, rows, predictions) of each set; the one that thresholds are tuned on comes first, since they
        hold for all."""
        for name in sorted(sets, key=lambda name: name != self.chosen_by):
            if name not in self.latest:
                start = time.perf_counter()
                self.latest[name] = self.model.infer(sets[name], self.blocks[name])
                self.seconds += time.perf_counter() - start
                self.rows += len(sets[name])
                if name == self.chosen_by:
                    self.adapter.tune(self.latest[name], sets[name])
            yield name, sets[name], self.latest[name]

    def collapse(self) -> str | None:
        """What every prediction is, for the weights that are kept, on the set that picks them."""
        found = next(predictions for name, _, predictions in self.predicted(self.evaluation))
        return self.adapter.collapse(found)

    def calibrate(self, keeps_model: bool) -> str:
        """Fits what calibrates the probabilities of the kept weights on the set that picks them; the others
        are predicted anew, with it. Returns what there is to say of it."""
        method = self.adapter.task.run.calibration
        if method == "none" or not keeps_model:
            asked = method in label_calibration.METHODS
            return f"probabilities are not calibrated by {method}: no model is kept" if asked else ""
        name, rows, predictions = next(self.predicted(self.evaluation))
        line = calibrating.fit(self.adapter, predictions, rows)
        self.latest = {name: predictions}
        return f"{name}: {line}" if line else ""

    def chosen(self, metrics: Metrics, step: int) -> list[choices.Choice]:
        """The choices behind the metrics of every set, by the weights that are kept: those of `step`."""
        result = []
        for name, values in metrics.items():
            rows = self.scored[name]
            count = (self.evaluations if self.keeps else 1) if name == self.chosen_by else 0
            if name == self.chosen_by and any(
                method in self.adapter.tuned for method in label_calibration.METHODS
            ):
                # fitted to all of these rows, after the evaluations that an estimate would compare
                result.append(
                    choices.Choice(name, list(values), max(count, 1), "a calibrator of every label")
                )
                continue
            answers = choices.Answers(self.adapter.candidate, self.latest[name], rows, self.folder, step)
            result += choices.of_set(name, values, count, self.best, answers, self.say)
        return result
