"""What a report shows of a scored set of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow.compute as pac

from bert_ft import reading
from bert_ft.errors import InputError
from bert_ft.families import wrong_labels
from bert_ft.families.qa.choices import one_by_one
from bert_ft.families.qa.options import Options
from bert_ft.files import LARGEST
from bert_ft.metrics import answers, bootstrap, scoring, squad
from bert_ft.metrics.bootstrap import Resamples
from bert_ft.report import given
from bert_ft.report.elements import Chart, Table
from bert_ft.report.scored_set import Scored
from bert_ft.report.suspects import Suspect


class Answers(Scored):
    """Questions on contexts: the answers that the model gives, at its own threshold of no answer."""

    length = ("characters", ("question", "context"))

    @property
    def no_answer(self) -> bool:
        """Whether questions may have no answer."""
        assert isinstance(self.task.options, Options)
        return self.task.options.no_answer

    @cached_property
    def golds(self) -> list[list[str]]:
        """The gold answers of each question."""
        return [] if self.rows is None else list(self.rows["answers"].to_pylist())

    def rate(self, said: Sequence[str]) -> np.ndarray:
        """(N, 2) exact match and F1 of answers, 0 to 1."""
        if self.no_answer:
            return np.stack(list(squad.raw_scores(said, self.golds).values()), axis=1)
        return one_by_one(squad.squad, said, self.golds)

    @cached_property
    def scores(self) -> np.ndarray:
        """(N, 2) of the answers that the model gives."""
        return self.rate(self.column("prediction"))

    def at_zero(self) -> list[str]:
        """The answers at null odds of 0: what the threshold has emptied stands among the n best."""
        file = self.folder.predictions / f"{self.name}.nbest.json"
        best = reading.strict(reading.text(file, LARGEST)) if file.is_file() else {}
        texts = {
            key: next((item["text"] for item in items if item["text"]), "") for key, items in best.items()
        }
        return [
            "" if line["null_odds"] > 0 else line["prediction"] or texts.get(line["id"], "")
            for line in self.lines
        ]

    @cached_property
    def resamples(self) -> Resamples | None:
        if self.rows is None:
            return None
        names = ["exact_match", "f1"]
        keys = [self.scores]
        if self.no_answer:
            names = ["tuned_exact_match", "tuned_f1", "best_exact", "best_f1", *names]
            keys = [self.scores, self.scores, self.rate(self.at_zero())]
        for name in answers.named(self.metrics):
            names += [f"{name}_exact_match", f"{name}_f1"]
            keys.append(one_by_one(partial(answers.score, name), self.column("prediction"), self.golds))
        return Resamples(np.concatenate(keys, axis=1), scoring.Means(names, 100.0), self.clusters)

    @property
    def share_of_right(self) -> str:
        return "tuned_exact_match" if self.no_answer else "exact_match"

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        return given.text(said)

    def counted_by(self) -> dict[str, Any]:
        return {"qa.no_answer": self.no_answer}

    def main(self) -> list[str]:
        return ["tuned_exact_match", "tuned_f1"] if self.no_answer else ["exact_match", "f1"]

    def sections(self) -> list[Table | Chart]:
        if self.rows is None:
            return []
        split = pac.utf8_split_whitespace(pac.utf8_trim_whitespace(self.rows["question"]))
        first = pac.utf8_lower(pac.list_element(split, 0))
        counted = sorted(first.value_counts().to_pylist(), key=lambda item: -item["counts"])[:12]
        words = [
            (item["values"], np.flatnonzero(pac.equal(first, item["values"]).to_numpy())) for item in counted
        ]
        has = np.array([bool(golds) for golds in self.golds])
        shortest = np.array(
            [min((len(squad.tokens(gold)) for gold in golds), default=0) for golds in self.golds]
        )
        answered = bootstrap.bins(shortest[has]) if has.any() else []
        lengths = [(name, np.flatnonzero(has)[rows]) for name, rows in answered]
        tables = [
            self.groups("by first word of the question", words),
            self.groups("by length of the gold answer in words", lengths),
        ]
        if not has.all():
            kinds = [("HasAns", np.flatnonzero(has)), ("NoAns", np.flatnonzero(~has))]
            tables.insert(0, self.groups("by whether there is an answer", kinds))
        return [*tables, *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        if self.rows is None:
            raise InputError(
                "this run keeps no rows to compare its answers with", where=f"task {self.task.name}"
            )
        wrong = np.flatnonzero(self.scores[:, 0] == 0)
        score = np.array(self.column("score"), np.float64)
        return self.told(
            wrong[np.argsort(-score[wrong], kind="stable")],
            label=self.golds,
            prediction=self.column("prediction"),
            confidence=score.tolist(),
            f1=self.scores[:, 1].tolist(),
        )

    def suspects(self) -> list[Suspect]:
        said, score = self.column("prediction"), self.column("score")
        return wrong_labels.of_answers(self.golds, said, score, self.scores[:, 1].tolist())
