"""What a report shows of a scored set of labels, of label sets, of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from bert_ft.families import listing, wrong_labels
from bert_ft.metrics import multilabel, scoring
from bert_ft.metrics.bootstrap import Resamples
from bert_ft.report import abstaining, given, plots
from bert_ft.report.elements import Chart, Table
from bert_ft.report.scored_set import Scored

MOST_CLASSES = 20
MOST_POINTS = 2000


class Classes(Scored):
    """One label a row."""

    @cached_property
    def ids(self) -> np.ndarray:
        """(N, 2) gold and predicted label."""
        place = {name: i for i, name in enumerate(self.names)}
        return np.array([[place[str(line[key])] for key in ("label", "prediction")] for line in self.lines])

    @cached_property
    def resamples(self) -> Resamples:
        positive = self.task.metric.positive
        number = 1 if positive is None else self.names.index(str(positive))
        return Resamples(self.ids, scoring.Classes(self.names, number), self.clusters)

    share_of_right = "accuracy"
    suspects = wrong_labels.of_classes

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        return given.one_label(said, self.names, self.task.data.label_names)

    def counted_by(self) -> dict[str, Any]:
        return {"data.labels": sorted(self.names)}

    def sections(self) -> list[Table | Chart]:
        size = len(self.names)
        counts = np.bincount(self.ids[:, 0], minlength=size)
        shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
        gold = counts[shown]
        place = np.full(size, -1)
        place[shown] = np.arange(len(shown))
        both = place[self.ids][(place[self.ids] >= 0).all(axis=1)]
        part = np.bincount(both @ [len(shown), 1], minlength=len(shown) ** 2).reshape(len(shown), -1)
        recall = np.diag(part) / np.maximum(gold, 1)
        names = [self.names[i] for i in shown]
        rows = [[name, *part[i].tolist(), int(gold[i]), float(recall[i])] for i, name in enumerate(names)]
        shades = {
            (i, j + 1): part[i, j] / max(gold[i], 1) for i in range(len(shown)) for j in range(len(shown))
        }
        note = f"a row a gold label, a column a prediction; the {MOST_CLASSES} most frequent of {size} labels"
        matrix = Table(
            "confusion matrix",
            ["gold \\ predicted", *names, "rows", "recall"],
            rows,
            note if size > MOST_CLASSES else note.partition(";")[0],
            shades=shades,
        )
        right = self.ids[:, 0] == self.ids[:, 1]
        return [matrix, *super().sections(), *abstaining.sections(self.confidence, right)]

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) the probability of each answer."""
        return np.array([max(line["probabilities"].values()) for line in self.lines])

    def errors(self) -> list[dict[str, Any]]:
        confidence = self.confidence
        wrong = np.flatnonzero(self.ids[:, 0] != self.ids[:, 1])
        return self.told(
            wrong[np.argsort(-confidence[wrong], kind="stable")],
            label=self.column("label"),
            prediction=self.column("prediction"),
            confidence=confidence.tolist(),
        )


class Sets(Scored):
    """A set of labels a row."""

    @cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, C) gold and predicted labels, bool, and probabilities."""
        gold, found = (
            np.array(
                [[name in chosen for name in self.names] for chosen in (set(map(str, each)) for each in sets)]
            )
            for sets in (self.column("label"), self.column("prediction"))
        )
        return (
            gold,
            found,
            np.array([listing.of_all(line["probabilities"], self.names) for line in self.lines]),
        )

    @cached_property
    def resamples(self) -> Resamples:
        gold, found, p = self.matrices
        keys = np.concatenate([gold, p > 0.5, found], axis=1)
        return Resamples(keys, scoring.LabelSets(self.names), self.clusters)

    share_of_right = "accuracy_tuned"
    suspects = wrong_labels.of_sets

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        data = self.task.data
        return given.label_set(said, self.names, data.label_names, data.label_delimiter)

    def counted_by(self) -> dict[str, Any]:
        return {"data.labels": sorted(self.names)}

    def sections(self) -> list[Table | Chart]:
        gold, found, _ = self.matrices
        rows: list[list[Any]] = []
        # of rows that several folds predicted each has the thresholds of its fold
        limits = None if self.name == "out_of_fold" else self.tuned.get("thresholds", {})
        for i, name in enumerate(self.names):
            each = multilabel.compute(
                ["precision_micro", "recall_micro", "f1_micro"], found[:, [i]], gold[:, [i]]
            )
            limit = [limits.get(name, 0.5)] if limits is not None else []
            rows.append([name, int(gold[:, i].sum()), int(found[:, i].sum()), *each.values(), *limit])
        columns = ["label", "gold", "predicted", "precision", "recall", "f1", "threshold"]
        note = "a label is predicted above its threshold" + (
            "" if limits is not None else ", each fold's own"
        )
        return [
            Table("labels", columns if limits is not None else columns[:-1], rows, note, bars={5: 1.0}),
            *super().sections(),
        ]

    def errors(self) -> list[dict[str, Any]]:
        gold, found, p = self.matrices
        missed = np.where(gold != found, np.where(gold, 1 - p, p), 0)
        order = np.argsort(-missed.max(axis=1), kind="stable")
        worst = [self.names[i] for i in missed.argmax(axis=1)]
        return self.told(
            order[: int((gold != found).any(axis=1).sum())],
            label=self.column("label"),
            worst=worst,
            prediction=self.column("prediction"),
            confidence=missed.max(axis=1).tolist(),
        )


class Numbers(Scored):
    """Regression."""

    sized_errors = True
    suspects = wrong_labels.of_numbers

    @cached_property
    def pairs(self) -> np.ndarray:
        """(N, 2) gold and predicted number."""
        return np.array([[line["label"], line["prediction"]] for line in self.lines], np.float64)

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self.pairs, scoring.Numbers(), self.clusters)

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        return given.number(said)

    def main(self) -> list[str]:
        return ["mean_absolute_error"]

    def sections(self) -> list[Table | Chart]:
        some = self.pairs[np.unique(np.linspace(0, len(self.pairs) - 1, MOST_POINTS).astype(int))]
        said = f"predictions over gold numbers, {len(some):,} of {len(self.pairs):,} rows"
        (low, high), (least, most) = ((side.min(), side.max()) for side in some.T)
        svg = plots.scatter(
            some[:, 0],
            some[:, 1],
            ("gold", "predicted"),
            f"{said}: gold {low:.4g} to {high:.4g}, predicted {least:.4g} to {most:.4g}",
        )
        return [Chart("scatter", svg, f"{said}; on the line both are equal"), *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        error = np.diff(self.pairs)[:, 0]
        order = np.argsort(-abs(error), kind="stable")
        return self.told(
            order[error[order] != 0],
            label=self.column("label"),
            prediction=self.column("prediction"),
            error=error.tolist(),
        )
