"""What a report shows of a scored set of entities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from bert_ft.families import wrong_labels
from bert_ft.families.words import joined
from bert_ft.metrics import entities, scoring
from bert_ft.metrics.bootstrap import Resamples
from bert_ft.report import given
from bert_ft.report.elements import Chart, Table
from bert_ft.report.scored_set import Scored


class Entities(Scored):
    """A tag a word."""

    length = ("words", ())
    answers = ("missed", "wrong")
    suspects = wrong_labels.of_tags

    @cached_property
    def tags(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """(W,) numbers of the gold and the predicted tags, (N + 1,) offsets, and the tags' names."""
        (gold, found), offsets, names = entities.flat(self.column("label"), self.column("prediction"))
        return gold, found, offsets, names

    @cached_property
    def missed(self) -> list[list[str]]:
        """Of each row, the types of the gold spans that no tags of its words express."""
        return [line.get("missed", []) for line in self.lines]

    @cached_property
    def resamples(self) -> Resamples:
        gold, found, _, _ = self.tags
        keys = entities.by_sentence(*self.tags, self.task.metric.mode, gold == found)
        keys[:, 2] += np.array([len(kinds) for kinds in self.missed], np.int64)  # of the gold entities
        return Resamples(keys, scoring.Entities(), self.clusters)

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        words = len(self.lines[row]["tokens"])
        return given.tags(said, words, self.names, self.task.data.label_names)

    def sentences(self, places: np.ndarray) -> np.ndarray:
        """The sentence of places that count an O behind each (`entities.apart`)."""
        offsets = self.tags[2]
        return np.searchsorted(offsets[1:] + np.arange(len(offsets) - 1), places)

    def sizes(self) -> np.ndarray:
        return np.diff(self.tags[2])

    def sections(self) -> list[Table | Chart]:
        missed = [kind for kinds in self.missed for kind in kinds]
        scores = entities.score(*self.tags, self.task.metric.mode, missed=missed)
        scores.pop("")
        rows = [
            [kind, *(found[key] for key in ("number", "precision", "recall", "f1"))]
            for kind, found in scores.items()
        ]
        table = Table(
            "entities",
            ["type", "gold", "precision", "recall", "f1"],
            rows,
            f"counted as {self.task.metric.mode}"
            + (f"; {len(missed):,} gold spans end within a word, and count as missed" if missed else ""),
            bars={4: 1.0},
        )
        return [table, *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        """Sentences by how many entities were missed or made up: the predictions keep no probabilities."""
        sides, hits, kinds = entities.matched(*self.tags, self.task.metric.mode)
        offsets = self.tags[2]
        tokens = self.column("tokens")
        told: list[tuple[list[str], list[str]]] = [
            ([f"{kind}: a part of a word" for kind in kinds], []) for kinds in self.missed
        ]
        for which, ((first, last, kind), hit) in enumerate(zip(sides, hits, strict=True)):
            at = self.sentences(first)
            for row, a, b, k in zip(at[~hit], first[~hit], last[~hit], kind[~hit], strict=True):
                begin = int(offsets[row]) + int(row)
                told[row][which].append(f"{kinds[k]}: {joined(tokens[row][a - begin : b - begin + 1])}")
        missed, wrong = zip(*told, strict=True) if told else ((), ())
        many = np.array([len(a) + len(b) for a, b in told])
        order = np.argsort(-many, kind="stable")[: int((many > 0).sum())]
        return self.told(order, text=[joined(words) for words in tokens], missed=missed, wrong=wrong)
