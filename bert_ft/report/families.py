"""What each kind of task shows of one scored set: its intervals, its own tables and charts, its most confident errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pac

from bert_ft import reading
from bert_ft.errors import InputError
from bert_ft.metrics import entities, multilabel, squad
from bert_ft.report import plots, resamples
from bert_ft.report.resamples import Resamples
from bert_ft.report.scored import Chart, Scored, Table
from bert_ft.rundir import LARGEST, RunDir
from bert_ft.task import SET_NAME, Task

MOST_CLASSES, MOST_POINTS = 20, 2000


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
        return Resamples(self.ids, resamples.classes(len(self.names), number))

    def sections(self) -> list[Table | Chart]:
        size = len(self.names)
        cells = np.bincount(self.ids @ [size, 1], minlength=size * size).reshape(size, size)
        shown = np.sort(np.argsort(-cells.sum(1), kind="stable")[:MOST_CLASSES])
        part, gold = cells[np.ix_(shown, shown)], cells.sum(1)[shown]
        recall = np.diag(part) / np.maximum(gold, 1)
        names = [self.names[i] for i in shown]
        rows = [[name, *part[i].tolist(), int(gold[i]), float(recall[i])] for i, name in enumerate(names)]
        shades = {(i, j + 1): part[i, j] / max(gold[i], 1) for i in range(len(shown)) for j in range(len(shown))}
        note = f"a row a gold label, a column a prediction; the {MOST_CLASSES} most frequent of {size} labels"
        matrix = Table("confusion matrix", ["gold \\ predicted", *names, "rows", "recall"], rows,
                       note if size > MOST_CLASSES else note.partition(";")[0], shades=shades)  # fmt: skip
        return [matrix, *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        confidence = np.array([max(line["probabilities"].values()) for line in self.lines])
        wrong = np.flatnonzero(self.ids[:, 0] != self.ids[:, 1])
        return self.told(wrong[np.argsort(-confidence[wrong], kind="stable")], label=self.column("label"),
                         prediction=self.column("prediction"), confidence=confidence.tolist())  # fmt: skip


class Sets(Scored):
    """A set of labels a row."""

    @cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, C) gold and predicted labels, bool, and probabilities."""
        gold, found = (
            np.array([[name in chosen for name in self.names] for chosen in (set(map(str, each)) for each in sets)])
            for sets in (self.column("label"), self.column("prediction"))
        )
        return gold, found, np.array([[line["probabilities"][name] for name in self.names] for line in self.lines])

    @cached_property
    def resamples(self) -> Resamples:
        gold, found, p = self.matrices
        return Resamples(np.concatenate([gold, p > 0.5, found], axis=1), resamples.label_sets)

    def sections(self) -> list[Table | Chart]:
        gold, found, _ = self.matrices
        rows: list[list[Any]] = []
        for i, name in enumerate(self.names):
            each = multilabel.compute(["precision_micro", "recall_micro", "f1_micro"], found[:, [i]], gold[:, [i]])
            limit = self.tuned.get("thresholds", {}).get(name, 0.5)
            rows.append([name, int(gold[:, i].sum()), int(found[:, i].sum()), *each.values(), limit])
        columns = ["label", "gold", "predicted", "precision", "recall", "f1", "threshold"]
        return [
            Table("labels", columns, rows, "a label is predicted above its threshold", bars={5: 1.0}),
            *super().sections(),
        ]

    def errors(self) -> list[dict[str, Any]]:
        gold, found, p = self.matrices
        missed = np.where(gold != found, np.where(gold, 1 - p, p), 0)
        order = np.argsort(-missed.max(axis=1), kind="stable")
        worst = [self.names[i] for i in missed.argmax(axis=1)]
        return self.told(order[: int((gold != found).any(axis=1).sum())], label=self.column("label"), worst=worst,
                         prediction=self.column("prediction"), confidence=missed.max(axis=1).tolist())  # fmt: skip


class Numbers(Scored):
    """Regression."""

    @cached_property
    def pairs(self) -> np.ndarray:
        """(N, 2) gold and predicted number."""
        return np.array([[line["label"], line["prediction"]] for line in self.lines], np.float64)

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self.pairs, resamples.numbers)

    def main(self) -> list[str]:
        return ["mean_absolute_error"]

    def sections(self) -> list[Table | Chart]:
        some = self.pairs[np.unique(np.linspace(0, len(self.pairs) - 1, MOST_POINTS).astype(int))]
        said = f"predictions over gold numbers, {len(some):,} of {len(self.pairs):,} rows"
        (low, high), (least, most) = ((side.min(), side.max()) for side in some.T)
        svg = plots.scatter(some[:, 0], some[:, 1], ("gold", "predicted"), f"{said}: gold {low:.4g} to {high:.4g}, predicted "
                            f"{least:.4g} to {most:.4g}")  # fmt: skip
        return [Chart("scatter", svg, f"{said}; on the line both are equal"), *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        error = np.diff(self.pairs)[:, 0]
        order = np.argsort(-abs(error), kind="stable")
        return self.told(order[error[order] != 0], label=self.column("label"), prediction=self.column("prediction"),
                         error=error.tolist())  # fmt: skip


class Entities(Scored):
    """A tag a word."""

    length = ("words", ())

    @cached_property
    def tags(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """(W,) numbers of the gold and the predicted tags, (N + 1,) offsets, and the tags' names."""
        (gold, found), offsets, names = entities.flat(self.column("label"), self.column("prediction"))
        return gold, found, offsets, names

    @cached_property
    def resamples(self) -> Resamples:
        gold, found, offsets, _ = self.tags
        sides, hits, _ = entities.matched(*self.tags, self.task.metric.mode)
        rows, same = self.sizes(), np.concatenate([[0], np.cumsum(gold == found)])
        firsts = [side[0] for side in sides]
        keys = [np.bincount(self.sentences(places), minlength=len(rows))
                for places in (*(f[hit] for f, hit in zip(firsts, hits, strict=True)), *firsts)]  # fmt: skip
        return Resamples(np.stack([*keys, np.diff(same[offsets]), rows], axis=1), resamples.entities)

    def sentences(self, places: np.ndarray) -> np.ndarray:
        """The sentence of places that count an O behind each (`entities.apart`)."""
        offsets = self.tags[2]
        return np.searchsorted(offsets[1:] + np.arange(len(offsets) - 1), places)

    def sizes(self) -> np.ndarray:
        return np.diff(self.tags[2])

    def sections(self) -> list[Table | Chart]:
        scores = entities.score(*self.tags, self.task.metric.mode)
        scores.pop("")
        rows = [
            [kind, *(found[key] for key in ("number", "precision", "recall", "f1"))] for kind, found in scores.items()
        ]
        table = Table("entities", ["type", "gold", "precision", "recall", "f1"], rows, f"counted as {self.task.metric.mode}",
                      bars={4: 1.0})  # fmt: skip
        return [table, *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        """Sentences by how many entities were missed or made up: the predictions keep no probabilities."""
        sides, hits, kinds = entities.matched(*self.tags, self.task.metric.mode)
        offsets, tokens = self.tags[2], self.column("tokens")
        told: list[tuple[list[str], list[str]]] = [([], []) for _ in tokens]
        for which, ((first, last, kind), hit) in enumerate(zip(sides, hits, strict=True)):
            at = self.sentences(first)
            for row, a, b, k in zip(at[~hit], first[~hit], last[~hit], kind[~hit], strict=True):
                begin = int(offsets[row]) + int(row)
                told[row][which].append(f"{kinds[k]}: {' '.join(tokens[row][a - begin : b - begin + 1])}")
        missed, wrong = zip(*told, strict=True) if told else ((), ())
        many = np.array([len(a) + len(b) for a, b in told])
        order = np.argsort(-many, kind="stable")[: int((many > 0).sum())]
        return self.told(order, text=[" ".join(words) for words in tokens], missed=missed, wrong=wrong)


class Answers(Scored):
    """Questions on contexts: the answers that the model gives, at its own threshold of no answer."""

    length = ("characters", ("question", "context"))

    @cached_property
    def golds(self) -> list[list[str]]:
        """The gold answers of each question."""
        return [] if self.rows is None else list(self.rows["answers"].to_pylist())

    def rate(self, said: Sequence[str]) -> np.ndarray:
        """(N, 2) exact match and F1 of answers, 0 to 1."""
        if self.task.qa.no_answer:
            return np.stack(list(squad.raw_scores(said, self.golds).values()), axis=1)
        return self.one_by_one(squad.squad, said)

    def one_by_one(self, metric: Callable[[Any, Any], dict[str, float]], said: Sequence[str]) -> np.ndarray:
        """(N, 2) of a metric of whole sets, 0 to 100, for each answer."""
        each = (metric({"": text}, {"": golds}) for text, golds in zip(said, self.golds, strict=True))
        return np.array([list(found.values()) for found in each]) / 100

    @cached_property
    def scores(self) -> np.ndarray:
        """(N, 2) of the answers that the model gives."""
        return self.rate(self.column("prediction"))

    def at_zero(self) -> list[str]:
        """The answers at null odds of 0: what the threshold has emptied stands among the n best."""
        file = self.folder.predictions / f"{self.name}.nbest.json"
        best = reading.strict(reading.text(file, LARGEST)) if file.is_file() else {}
        texts = {key: next((item["text"] for item in items if item["text"]), "") for key, items in best.items()}
        return ["" if line["null_odds"] > 0 else line["prediction"] or texts.get(line["id"], "") for line in self.lines]

    @cached_property
    def resamples(self) -> Resamples | None:
        if self.rows is None:
            return None
        names, keys = ["exact_match", "f1"], [self.scores]
        if self.task.qa.no_answer:
            names = ["tuned_exact_match", "tuned_f1", "best_exact", "best_f1", *names]
            keys = [self.scores, self.scores, self.rate(self.at_zero())]
        if any(name.startswith("cmrc") for name in self.metrics):
            names += ["cmrc_exact_match", "cmrc_f1"]
            keys.append(self.one_by_one(squad.cmrc, self.column("prediction")))
        return Resamples(np.concatenate(keys, axis=1), resamples.means(names, 100.0))

    def main(self) -> list[str]:
        return ["tuned_exact_match", "tuned_f1"] if self.task.qa.no_answer else ["exact_match", "f1"]

    def sections(self) -> list[Table | Chart]:
        if self.rows is None:
            return []
        split = pac.utf8_split_whitespace(pac.utf8_trim_whitespace(self.rows["question"]))
        first = pac.utf8_lower(pac.list_element(split, 0))
        counted = sorted(first.value_counts().to_pylist(), key=lambda item: -item["counts"])[:12]
        words = [(item["values"], np.flatnonzero(pac.equal(first, item["values"]).to_numpy())) for item in counted]
        has = np.array([bool(golds) for golds in self.golds])
        shortest = np.array([min((len(squad.tokens(gold)) for gold in golds), default=0) for golds in self.golds])
        answered = resamples.bins(shortest[has]) if has.any() else []
        lengths = [(name, np.flatnonzero(has)[rows]) for name, rows in answered]
        tables = [self.groups("by first word of the question", words),
                  self.groups("by length of the gold answer in words", lengths)]  # fmt: skip
        if not has.all():
            kinds = [("HasAns", np.flatnonzero(has)), ("NoAns", np.flatnonzero(~has))]
            tables.insert(0, self.groups("by whether there is an answer", kinds))
        return [*tables, *super().sections()]

    def errors(self) -> list[dict[str, Any]]:
        if self.rows is None:
            raise InputError("this run keeps no rows to compare its answers with", where=f"task {self.task.name}")
        wrong = np.flatnonzero(self.scores[:, 0] == 0)
        score = np.array(self.column("score"), np.float64)
        return self.told(wrong[np.argsort(-score[wrong], kind="stable")], label=self.golds, prediction=self.column("prediction"),
                         confidence=score.tolist(), f1=self.scores[:, 1].tolist())  # fmt: skip


KINDS: dict[str, type[Scored]] = {
    "single_label_classification": Classes, "multi_label_classification": Sets, "regression": Numbers,
    "ner": Entities, "qa": Answers,
}  # fmt: skip
"""Family, or problem type of a classification -> what it shows; others show their metrics alone."""


def scored(folder: RunDir, task: Task, results: Mapping[str, Any]) -> list[Scored]:
    """The sets of a run that have predictions and metrics, that which picks the best step first."""
    kind = task.data.problem_type if task.family == "classification" else task.family
    known = Scored if "adapter" in task.run.custom else KINDS.get(kind, Scored)
    # of folds each row once, by the model that did not see it
    names = (
        ["out_of_fold"] if task.run.folds else sorted(results["metrics"], key=lambda name: name != task.best_metric[0])
    )
    if strange := [name for name in names if not SET_NAME.fullmatch(name)]:  # a name of another file, perhaps
        raise InputError(f"'{strange[0]}' can't name a set", where=str(folder.results_json))
    return [known(folder, task, name, results) for name in names if folder.prediction_file(name).is_file()]
