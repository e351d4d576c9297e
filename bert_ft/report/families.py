"""What each kind of task shows of one scored set: its intervals, its own tables and charts, its most confident errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac
from pyarrow import parquet as pq

from bert_ft import rundir
from bert_ft.errors import InputError, disk
from bert_ft.metrics import entities, multilabel, squad
from bert_ft.report import plots, resamples
from bert_ft.report.resamples import Resamples
from bert_ft.rundir import RunDir
from bert_ft.task import Task

MOST_CLASSES, MOST_POINTS = 20, 2000


@dataclass
class Table:
    """A table of the page. `bars`: column -> the value of a full bar; `shades`: shares of 1 for the cells that have one."""

    title: str
    columns: Sequence[str]
    rows: list[list[Any]]
    note: str = ""
    bars: dict[int, float] = field(default_factory=dict)
    shades: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass
class Chart:
    """A chart of the page: SVG, which is trusted to hold nothing active."""

    title: str
    svg: str
    note: str = ""


class Scored:
    """A scored set of a run of a family that is not known here: its metrics alone.

    Attributes:
        lines: those of `predictions/<name>.jsonl`. rows: the canonical rows, None where the run keeps none.
    """

    length: tuple[str, tuple[str, ...]] = ("characters", ("text", "text_pair"))

    def __init__(self, folder: RunDir, task: Task, name: str, results: Mapping[str, Any]) -> None:
        self.folder, self.task, self.name, self.tuned = folder, task, name, results.get("tuned", {})
        self.metrics: dict[str, float] = results["metrics"].get(name, {})
        self.lines = list(rundir.read_jsonl(folder.prediction_file(name)))
        file = _rows_file(folder, name)
        self.rows = pq.read_table(file) if file.is_file() else None

    @cached_property
    def resamples(self) -> Resamples | None:
        """The rows as the metrics count them."""
        return None

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics that come out as in results.json; no others."""
        if self.resamples is None:
            return {}
        whole = self.resamples.of()
        return {name: found for name, found in self.resamples.intervals().items()
                if self.metrics.get(name) is not None and abs(whole[name] - self.metrics[name]) < 1e-6}  # fmt: skip

    def sections(self) -> list[Table | Chart]:
        """What the page shows of the set beside its metrics and errors."""
        sizes = self.sizes()
        title = f"by length of the input in {self.length[0]}"
        return [] if sizes is None else [self.groups(title, resamples.bins(sizes))]

    def sizes(self) -> np.ndarray | None:
        """(N,) how long each input is."""
        columns = [] if self.rows is None else [c for c in self.length[1] if c in self.rows.column_names]
        if self.rows is None or not columns or self.resamples is None:
            return None
        return np.asarray(sum(pac.fill_null(pac.utf8_length(self.rows[c]), 0).to_numpy() for c in columns))

    def groups(self, title: str, groups: Iterable[tuple[str, np.ndarray]]) -> Table:
        """The main metric of parts of the set."""
        assert self.resamples is not None
        whole = self.resamples.of()
        names = [name for name in self.main() if name in whole]
        parts = [(name, rows, self.resamples.of(rows)) for name, rows in groups if len(rows)]
        table: list[list[Any]] = [[name, len(rows), *(of[metric] for metric in names)] for name, rows, of in parts]
        tops = {i: max([1.0, *(row[i] for row in table if np.isfinite(row[i]))]) for i in range(2, 2 + len(names))}
        return Table(title, [title.partition(" in ")[0].removeprefix("by "), "rows", *names], table, bars=tops)

    def main(self) -> list[str]:
        """The metrics that parts of the set are shown by."""
        return [self.task.best_metric[1]]

    def errors(self) -> list[dict[str, Any]]:
        """The wrong predictions, the most confident first."""
        raise InputError(f"of the family '{self.task.family}' no errors can be listed here", where=f"task {self.task.name}",
                         remedy="look at its predictions: run.predictions()")  # fmt: skip

    def told(self, order: Iterable[int], **columns: Sequence[Any]) -> list[dict[str, Any]]:
        """Rows of the set in some order: their inputs, where the run keeps them, and other columns."""
        texts = [] if self.rows is None else [c for c in self.length[1] if c in self.rows.column_names]
        return [{"row": i} | {c: self.rows[c][i].as_py() for c in texts if self.rows is not None}
                | {name: column[i] for name, column in columns.items()} for i in map(int, order)]  # fmt: skip

    def column(self, key: str) -> list[Any]:
        """One key of all prediction lines."""
        return [line[key] for line in self.lines]

    @property
    def names(self) -> list[str]:
        """The task's labels as strings."""
        return [str(label) for label in self.task.data.labels or []]


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
        best = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
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


def _rows_file(folder: RunDir, name: str) -> Path:
    return folder.predictions / f"{name}.rows.parquet"


def keep(folder: RunDir, name: str, rows: pa.Table) -> None:
    """Keeps the canonical rows of a scored set with the run: what makes its report possible without the data."""
    with disk(folder.predictions):
        pq.write_table(rows, _rows_file(folder, name), compression="zstd")


def scored(folder: RunDir, task: Task, results: Mapping[str, Any]) -> list[Scored]:
    """The sets of a run that have predictions and metrics, that which picks the best step first."""
    kind = task.data.problem_type if task.family == "classification" else task.family
    known = Scored if "adapter" in task.run.custom else KINDS.get(kind, Scored)
    # of folds each row once, by the model that did not see it
    names = (
        ["out_of_fold"] if task.run.folds else sorted(results["metrics"], key=lambda name: name != task.best_metric[0])
    )
    return [known(folder, task, name, results) for name in names if folder.prediction_file(name).is_file()]
