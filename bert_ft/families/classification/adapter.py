"""Classification of single texts and pairs, with one label or several, and regression: any
`AutoModelForSequenceClassification`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config import schema
from bert_ft.config.schema import Label
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data.finding import Finding
from bert_ft.data.formats import exports
from bert_ft.data.rows import Canonical, Rows
from bert_ft.data.sources import Raw, Reader
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families import class_weights, linear, listing, soft_labels, tokenization
from bert_ft.families.base import Adapter, Baseline, problem_type
from bert_ft.families.classification import options as own
from bert_ft.families.classification import rows as reading
from bert_ft.families.classification.checks import of_classes, of_numbers
from bert_ft.families.features import Features
from bert_ft.metrics import choice, multilabel, scoring
from bert_ft.metrics import classification as scores

if TYPE_CHECKING:
    import torch

    from bert_ft.report.scored_set import Scored


class Classification(Adapter):
    """One label, a set of labels, or one number, for a text or a pair of texts.

    Canonical rows: text (string), text_pair (string, where the task has one), label (the label's name as a
    string; a sorted list of names for multi-label; float64 for regression; null where a row has none).

    With `classification.windows` a long text is several features. Each is trained with the row's label and
    weighs `batch["weight"]`, 1/n, so that a row counts once (a loss of one's own multiplies by it).
    """

    family: ClassVar[str] = "classification"
    Options: ClassVar[type[schema.Options]] = own.Options
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    roles: ClassVar[Mapping[str, bool]] = {"text": True, "text_pair": False, "label": True}
    readers: ClassVar[Mapping[str, Reader]] = dict.fromkeys((".json", ".jsonl"), exports.read)
    calibrates: ClassVar[bool] = True
    soft_targets: ClassVar[bool] = True
    baselines: ClassVar[Mapping[str, Baseline]] = linear.BASELINES
    pipeline_tag: ClassVar[str | None] = "text-classification"

    def __init__(
        self, task: Task, labels: Sequence[Label] = (), tuned: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(task, labels, tuned)
        self.weights: dict[str, float] = {}  # of the classes, by name: a checkpoint may bring another order

    @property
    def options(self) -> own.Options:
        """The task's table of this family."""
        assert isinstance(self.task.options, own.Options)
        return self.task.options

    @property
    def regression(self) -> bool:
        """Whether a number is learned."""
        return self.task.data.problem_type == "regression"

    @property
    def multilabel(self) -> bool:
        """Whether a row has a set of labels."""
        return self.task.data.problem_type == "multi_label_classification"

    # --- rows

    @property
    def inputs(self) -> dict[str, bool]:
        return {"text": True, "text_pair": "text_pair" in self.task.data.columns}

    @classmethod
    def canonical(cls, raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> Canonical:
        return reading.canonical(raw, task, columns, labelled)

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]:
        return reading.find_labels(train, task)

    def rows(self, inputs: Sequence[Any]) -> Rows:
        return reading.of_inputs(inputs, self.task.data.problem_type)

    def check(self, name: str, rows: Rows) -> None:
        if self.regression:
            return
        soft_labels.check(self, rows)
        known = self.names
        if len(known) < 2 - self.multilabel:
            message = f"only one label ('{known[0]}')" if known else "no row has a label"
            remedy = "" if self.multilabel else "two are needed to learn from"
            raise InputError(message, where=rows.where, remedy=remedy)
        values, owners = cells.flat(rows.table["label"])
        strange = pac.and_(pac.is_null(pac.index_in(values, value_set=pa.array(known))), pac.is_valid(values))
        if (at := pac.index(strange, True).as_py()) >= 0:
            label = values[at].as_py()
            place = rows.place(int(owners[at]))
            source = (
                "data.labels does not name it"
                if self.task.data.labels
                else "the training rows do not have it"
            )
            raise InputError(f"label '{label}': {source}", where=place, remedy=did_you_mean(label, known))

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Finding]:
        if self.regression:
            return of_numbers(sets, self.target)
        found = of_classes(sets, self.names, self.texts, self.target)
        return [*found, *soft_labels.findings(sets, self.texts)]

    def prepare(self, train: Rows) -> None:
        self._check_single(train)
        positive = self.task.metric.positive
        if positive is not None and str(positive) not in self.names:
            remedy = did_you_mean(str(positive), self.names)
            raise InputError(f"metric.positive = '{positive}' is not a label", remedy=remedy)
        self.require_metrics(
            self.options.metric_names(self.task.data.problem_type),
            f"not one of {self.task.data.problem_type}",
        )
        for name in self.task.metric.compute:
            if name in scores.BINARY and len(self.labels) != 2:
                message = f"metric '{name}' needs two labels, here are {len(self.labels)}"
                raise InputError(message, where="metric.compute", remedy=f"use {name}_macro")
        if self.task.recipe.label_smoothing and (self.regression or self.multilabel):
            raise InputError("label smoothing is for one label a row", where="recipe.label_smoothing")
        if self.task.recipe.class_weights is not None:
            self.weights = class_weights.of_rows(self, train)

    @property
    def class_weights(self) -> np.ndarray | None:
        """(C,) in the order of the head."""
        return np.array([self.weights[name] for name in self.names]) if self.weights else None

    def _check_single(self, rows: Rows) -> None:
        options = self.options
        if "text_pair" in rows.table.column_names and (options.windows or options.truncation == "head+tail"):
            key = "windows" if options.windows else "truncation"
            raise InputError(
                "windows and head+tail are for single texts, these rows are pairs",
                where=f"classification.{key}",
                remedy='classification.truncation = "head" or "tail", of each text of a pair',
            )

    def references(self, rows: Rows) -> np.ndarray:
        """What predictions are scored against: (N,) label ids, -1 where a row has none; (N, C) bool, a column
        a label, for multi-label; (N,) numbers for regression."""
        if self.regression:
            numbers: np.ndarray = rows.table["label"].to_numpy()
            return numbers
        values, owners = cells.flat(rows.table["label"])
        ids: np.ndarray = pac.fill_null(
            pac.index_in(values, value_set=pa.array(self.names, pa.string())), -1
        ).to_numpy()
        if not self.multilabel:
            return ids.astype(np.int64)
        matrix = np.zeros((len(rows), len(self.labels)), bool)
        matrix[owners[ids >= 0], ids[ids >= 0]] = True
        return matrix

    # --- the model's side

    @classmethod
    def has_labels(cls, task: Task) -> bool:
        return task.data.problem_type != "regression"

    @classmethod
    def task_of_head(cls, config: Any, labels: Sequence[str]) -> dict[str, Any]:
        kind = problem_type(config)
        if kind == "regression":
            data = {"labels": None, "problem_type": kind}
            return {"data": data, "metric": {"compute": ["mean_squared_error"]}}
        return {"data": {"labels": list(labels), "problem_type": kind}}

    @property
    def windowed(self) -> bool:
        return self.options.windows

    @property
    def truncation_side(self) -> str | None:
        return "left" if self.options.truncation == "tail" else "right"

    def config(self) -> dict[str, Any]:
        if self.regression:
            return {"num_labels": 1, "problem_type": "regression"}
        return super().config() | {"problem_type": self.task.data.problem_type}

    def encode(self, rows: Rows, tokenizer: Any, max_length: int) -> Features:
        self._check_single(rows)
        options = self.options
        texts = rows.table["text"].to_pylist()
        pairs = rows.table["text_pair"].to_pylist() if "text_pair" in rows.table.column_names else None
        owners = None
        if options.windows:
            offsets, tokens, counts, owners = tokenization.encode_windows(
                tokenizer, texts, max_length, options.stride
            )
        elif options.truncation == "head+tail":
            offsets, tokens, counts = tokenization.encode_head_and_tail(tokenizer, texts, max_length)
        else:
            offsets, tokens, counts = tokenization.encode(
                tokenizer, texts, pairs, max_length, keep=options.truncation
            )
        labels = self.references(rows)
        extra = soft_labels.encoded(self, rows)
        weights = np.ones(len(rows))
        if self.regression:
            labels = np.nan_to_num(labels.astype(np.float32))
        elif self.class_weights is not None and not self.multilabel:
            hard = np.where(labels >= 0, self.class_weights[labels], 0.0)
            weights = extra["soft"] @ self.class_weights if extra else hard
        if owners is None:
            return Features(offsets, tokens, {"labels": labels, **extra}, weights, counts)
        share = (1 / np.bincount(owners))[owners]
        values = {name: column[owners] for name, column in {"labels": labels, **extra}.items()}
        values |= {"row": owners, "weight": share.astype(np.float32)}
        return Features(offsets, tokens, values, weights[owners] * share, counts)

    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        labels = batch.get("soft", batch["labels"])
        logits = logits.float()
        weight = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.regression:
            losses = F.mse_loss(logits.squeeze(-1), labels, reduction="none")
        elif self.multilabel:
            losses = F.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=weight, reduction="none"
            ).mean(-1)
        else:
            smoothing = self.task.recipe.label_smoothing
            losses = F.cross_entropy(
                logits, labels, weight=weight, label_smoothing=smoothing, reduction="none"
            )
        return losses * batch["weight"] if "weight" in batch else losses

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """`prediction`: (N,) label ids, or numbers, or (N, C) bool; `probabilities` (N, C), float64."""
        found = logits.astype(np.float64)
        if "row" in features.values:  # each row has a window, and they stand in the order of the rows
            first = np.searchsorted(features.values["row"], np.arange(len(rows)))
            pool = np.maximum if self.options.pooling == "max" else np.add
            many = 1 if pool is np.maximum else np.bincount(features.values["row"])[:, None]
            found = pool.reduceat(found, first, axis=0) / many
        if self.regression:
            return {"prediction": found[:, 0]}
        if self.multilabel:
            probabilities = (1 + np.tanh(found / 2)) / 2  # the sigmoid, without overflow
            return {"prediction": self.decided(probabilities), "probabilities": probabilities}
        exp = np.exp(found - found.max(axis=1, keepdims=True))
        return {"prediction": found.argmax(axis=1), "probabilities": exp / exp.sum(axis=1, keepdims=True)}

    # --- predictions

    @classmethod
    def report(cls, task: Task) -> type[Scored]:
        from bert_ft.families.classification import report

        if task.data.problem_type == "regression":
            return report.Numbers
        return report.Sets if task.data.problem_type == "multi_label_classification" else report.Classes

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        if not self.multilabel:
            return super().decided(probabilities)
        thresholds = self.tuned.get("thresholds", {})
        return np.asarray(probabilities > [thresholds.get(name, 0.5) for name in self.names])

    def tune(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> None:
        """Multi-label: the thresholds that are best on these rows, one by micro F1 or one a label by its own
        F1."""
        if not self.multilabel or rows.table["label"].null_count:
            return
        probabilities = predictions["probabilities"]
        labels = self.references(rows)
        width = len(self.labels) if self.options.thresholds == "per-label" else 1
        best = multilabel.best_thresholds(probabilities.reshape(-1, width), labels.reshape(-1, width))
        found = np.resize(best, len(self.labels)).tolist()
        self.tuned["thresholds"] = dict(zip(self.names, found, strict=True))
        # they were made with the thresholds before
        predictions["prediction"][:] = self.decided(probabilities)

    @property
    def chosen_by(self) -> Sequence[str]:
        return ["probabilities" if self.multilabel else "prediction"]

    def candidate(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> choice.Candidate | None:
        gold = self.references(rows)
        if self.multilabel:
            per_label = self.options.thresholds == "per-label"
            return choice.label_sets(gold, predictions["probabilities"], per_label)
        counted = scoring.Numbers() if self.regression else scoring.Classes(self.names, self.positive)
        return choice.answers(np.stack([gold, predictions["prediction"]], axis=1), counted)

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        if rows.table["label"].null_count:
            return {}
        measured = self.compute(self.task.metric.compute, predictions, rows)
        return measured | soft_labels.scores(self, predictions, rows)

    def compute(
        self, names: Sequence[str], predictions: Mapping[str, np.ndarray], rows: Rows
    ) -> dict[str, float]:
        """Name -> value of metrics of rows that all have labels. A family that extends this one computes its
        own here."""
        gold = self.references(rows)
        if self.multilabel:
            plain = multilabel.compute(multilabel.NAMES, predictions["probabilities"] > 0.5, gold)
            tuned = multilabel.compute(multilabel.NAMES, predictions["prediction"], gold)
            both = plain | {f"{name}_tuned": value for name, value in tuned.items()}
            return {name: both[name] for name in names}
        return scores.compute(names, predictions["prediction"], gold, positive=self.positive)

    @property
    def positive(self) -> int:
        """The id of the label that binary metrics are of."""
        if self.regression:
            return 1
        positive = self.task.metric.positive
        if positive is None:  # the task's second label, whatever the order of the head
            positive = (self.task.data.labels or self.labels)[1]
        return self.names.index(str(positive))

    def collapse(self, predictions: Mapping[str, np.ndarray]) -> str | None:
        # tuned thresholds predict something of any probabilities
        found = predictions["probabilities"] > 0.5 if self.multilabel else predictions["prediction"]
        if len(found) < 2 or (found != found[0]).any():
            return None
        what = f"{found[0]:.4g}" if self.regression else f"'{self._named(found[0])}'"
        if self.multilabel and not found[0].any():
            what = "no label at all (at 0.5)"
        return f"every prediction is {what}"

    def _named(self, found: Any) -> Any:
        """A prediction as the label it is, or the list of them."""
        return [self.labels[k] for k in np.flatnonzero(found)] if self.multilabel else self.labels[int(found)]

    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        labels = rows.table["label"].to_pylist()
        if self.regression:
            for row, (value, label) in enumerate(
                zip(predictions["prediction"].tolist(), labels, strict=True)
            ):
                yield {"row": row, "prediction": value, "label": label}
            return
        yield from listing.lines(self.names, self.labels, predictions, labels)
