"""The adapter protocol: what a family must say so that the engine can train it without knowing it.

rows -> `encode` -> features -> (the checkpoint's head) -> logits -> `decode` -> predictions -> `score` ->
metrics
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bert_ft.config import schema
from bert_ft.config.schema import Label
from bert_ft.config.task import Task
from bert_ft.data.finding import Finding
from bert_ft.data.rows import Canonical, Rows
from bert_ft.data.sources import Raw, Reader
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.features import Features
from bert_ft.metrics import score_calibration
from bert_ft.metrics.choice import Candidate

SEED = "another seed, a longer warmup or a smaller learning rate may help"

if TYPE_CHECKING:
    from typing import Self

    import torch

    from bert_ft.report.scored_set import Scored


FROZEN = "frozen encoder"  # the baseline that takes vectors
Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (N, D) vectors."""
Baseline = Callable[["Adapter", Rows, list[Rows], Embed], Iterator[dict[str, np.ndarray]]]
"""(adapter, training rows, sets, vectors of texts) -> the predictions of each set, in their order."""


class NotMeasured(Exception):
    """A baseline that these rows, or this checkpoint, can't have."""


class Adapter(ABC):
    """One family: all that the rest of the house needs of it. A subclass is thin: no devices, no optimizers,
    no files.

    Class attributes:
        family: its name in a task file.
        Options: its table of the task file, its default metrics, and its usual length.
        head: the `transformers` auto class that loads a checkpoint with this family's head.
        roles: column roles of the canonical rows -> whether a task must have them.
        spare: roles that are read without being named, where a column is called like them.
        group_by: the role whose equal values a held-out set is not to share with training, where the task
            names no `data.group`; None: rows are held out one by one.
        target: the role that holds what is learned.
        texts: the roles that the model reads, strings or lists of strings: what equal rows are told by.
        readers: file suffix -> the reader of the family's own formats, before the common ones.
        metric_scale: the value of a perfect score: 1, or 100 as in the official scripts of SQuAD.
        calibrates: whether `probabilities` of predictions are the softmax (of several labels the sigmoid) of
            logits, so that a temperature can calibrate them; not inherited either.
        scores_answers: whether answers have a score that is calibrated, as `rated` has them; not inherited
            either.
        soft_targets: whether `loss` learns from `batch["soft"]` (`families/soft_labels.py`), where that is
            there; not inherited by a class with a loss of its own.
        baselines: name -> a simple method that the family's models should beat; a subclass that reads or
            decodes rows in its own way does not inherit them, and may name them again.
        pipeline_tag: the pipeline of `transformers` that a saved model answers in; None: none does.

    Attributes:
        task: what to learn, with the family's options as `task.options`.
        labels: the label names in the order of the head.
        tuned: what is kept with the model: what `tune` found, such as thresholds, or how its rows were read.
    """

    family: ClassVar[str]
    Options: ClassVar[type[schema.Options]] = schema.Options
    head: ClassVar[str]
    roles: ClassVar[Mapping[str, bool]]
    spare: ClassVar[tuple[str, ...]] = ()
    group_by: ClassVar[str | None] = None
    target: ClassVar[str] = "label"
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    readers: ClassVar[Mapping[str, Reader]] = {}
    metric_scale: ClassVar[int] = 1
    calibrates: ClassVar[bool] = False
    scores_answers: ClassVar[bool] = False
    soft_targets: ClassVar[bool] = False
    baselines: ClassVar[Mapping[str, Baseline]] = {}
    pipeline_tag: ClassVar[str | None] = None

    def __init__(
        self, task: Task, labels: Sequence[Label] = (), tuned: Mapping[str, Any] | None = None
    ) -> None:
        """Binds the family to a task.

        Args:
            tuned: what a model that is loaded kept; None where one is trained.
        Raises:
            InputError: a task whose options are another family's.
        """
        if not isinstance(task.options, self.Options):
            raise InputError(
                f"{type(self).__name__} has options of its own, which a task of the family '{task.family}' "
                "lacks",
                where=f"task {task.name}",
                remedy=f"name the family in the task: family = '{self.family}' (docs/extending.md)",
            )
        self.task = task
        self.labels = list(labels)
        self.tuned = dict(tuned or {})

    def rebound(self, task: Task) -> Self:
        """Returns a copy under another task, with the same labels and what was prepared and tuned."""
        other = copy.copy(self)
        other.task = task
        other.labels = list(self.labels)
        other.tuned = dict(self.tuned)
        return other

    @property
    def reading(self) -> type[Adapter]:
        """What reads rows for this adapter's model: its class, where they are read as when it was trained."""
        return type(self)

    @property
    def inputs(self) -> dict[str, bool]:
        """The roles that `rows` takes of a raw input, in order -> whether each must be there."""
        return {"text": True}

    @property
    def names(self) -> list[str]:
        """Label names as the model's config has them."""
        return [str(label) for label in self.labels]

    @classmethod
    @abstractmethod
    def canonical(cls, raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> Canonical:
        """Returns raw columns as the family's canonical ones, one schema whatever the source, and a note for
        each thing that was detected, mended or left out on the way.

        Raises:
            InputError: a row at fault, with its place.
        """

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]:
        """The label names in order: the task's own, else those of the training rows."""
        return list(task.data.labels or [])

    @classmethod
    def has_labels(cls, task: Task) -> bool:
        """Whether the head has an output a label, so that a model's config names them."""
        return True

    @classmethod
    def task_of_head(cls, config: Any, labels: Sequence[str]) -> dict[str, Any]:
        """Returns what a model's config says of the task, as tables of a task file: enough to predict.

        Args:
            config: the `transformers` config of a model with this family's head. labels: those it names.
        """
        return {"data": {"labels": list(labels)}}

    @property
    def truncation_side(self) -> str | None:
        """Which end of a long text the tokenizer of a saved model cuts off, "left" or "right"; None: as it
        does."""
        return None

    @property
    def windowed(self) -> bool:
        """Whether a row too long for `max_length` is read whole, in several windows; otherwise it is cut."""
        return False

    @classmethod
    def report(cls, task: Task) -> type[Scored]:
        """Returns how a report shows a scored set of such a task, and how `compare` counts it. By default a
        set shows its metrics alone, and can't be compared."""
        from bert_ft.report.scored_set import Scored

        return Scored

    @abstractmethod
    def check(self, name: str, rows: Rows) -> None:
        """Refuses rows that can't be trained on or scored, such as a label that training does not know."""

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Finding]:
        """What a person should know about the rows before training, beside what `data.checks.texts.of_texts`
        finds in any.

        Called before each training too: 100,000 rows may take a tenth of a second, so no loop over rows. A
        fault that `check` refuses is told by that already.

        Args:
            sets: "train" and the other sets by name, test sets without labels among them.
        """
        return []

    def encoded(self, name: str, rows: Rows, parts: Iterable[Features]) -> list[Finding]:
        """What a person should know of a set once it is encoded, such as gold items that no prediction can
        be. `warnings` says the same of predictions.

        Args:
            parts: the features of all its rows, in parts that follow one another.
        """
        return []

    def config(self) -> dict[str, Any]:
        """What the checkpoint's config must say: num_labels, id2label, problem_type."""
        names = dict(enumerate(self.names))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: i for i, name in names.items()},
        }

    def prepare(self, train: Rows) -> None:  # noqa: B027 - most families have nothing to prepare
        """Called once with the training rows, before any is encoded."""

    def require_metrics(self, known: Sequence[str], what: str) -> None:
        """Refuses a metric of the task that is none of the `known` ones; `what` says of what."""
        for name in self.task.metric.compute:
            if name not in known:
                raise InputError(
                    f"metric '{name}' is {what}", where="metric.compute", remedy=did_you_mean(name, known)
                )

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: Any, max_length: int) -> Features:
        """Rows as features of at most `max_length` tokens."""

    def logits(self, outputs: Any) -> torch.Tensor:
        """The tensor that `loss` and `decode` take: (B, C), or (B, L, C) for a score a token."""
        logits: torch.Tensor = outputs.logits
        return logits

    @abstractmethod
    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B,) loss of each feature, weighted but not averaged: the engine divides the sum over the global
        batch by the sum of `Features.weights`, so that accumulation and processes do not change the mean."""

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """`prediction` of (N, C) probabilities that were calibrated a label at a time; by default the number
        of the likeliest label."""
        likeliest: np.ndarray = probabilities.argmax(axis=1)
        return likeliest

    def rated(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """(A,) the scores of the answers to labelled rows before they are calibrated, and (A,) bool, which
        are right; of a family that `scores_answers`."""
        raise NotImplementedError

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """(A,) scores of answers as they are given."""
        return score_calibration.calibrated(self.tuned.get("scores", {}), scores)

    @abstractmethod
    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """Predictions of every row, in the order of the rows, as columns (which may be flat over the rows'
        words)."""

    def blocks(self, rows: Rows, size: int) -> Iterator[Rows]:
        """The rows in parts of about `size` that can be encoded and decoded apart, in their order."""
        for start in range(0, len(rows), size):
            yield rows.part(start, start + size)

    def tune(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> None:  # noqa: B027 - few tune
        """Called with the predictions of the set that picks the best checkpoint, at each evaluation and last
        for the weights that are kept: sets `tuned`, and makes what follows from it anew in `predictions`, in
        place."""

    @property
    def chosen_by(self) -> Sequence[str]:
        """The columns of predictions that `candidate` reads."""
        return ["prediction"]

    def candidate(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Candidate | None:
        """Returns the answers to labelled rows as a choice among several evaluations is made, and as `tune`
        tunes on them: how far such a choice leans is estimated from it. None: that can't be said."""
        return None

    def collapse(self, predictions: Mapping[str, np.ndarray]) -> str | None:
        """Says what every prediction is, where they are all the same: the training has failed."""
        return None

    def warnings(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> list[str]:
        """What a person should be told about these predictions, such as that they are all the same."""
        what = self.collapse(predictions)
        return [] if what is None else [f"{what}: the training has collapsed, or hardly begun; {SEED}"]

    @abstractmethod
    def references(self, rows: Rows) -> np.ndarray:
        """What predictions are scored against, one a row."""

    @abstractmethod
    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        """The task's metrics; empty where the rows have no labels."""

    @abstractmethod
    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        """One dict a row for `predictions/<split>.jsonl`."""

    def files(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, Any]:
        """Suffix -> JSON value of what else stands in `predictions/`: the benchmark's own format as
        `.official`."""
        return {}

    def input(self, values: Mapping[str, Any]) -> Any:
        """A raw input as `rows` takes it, from the values of its roles: a text, or a tuple of texts."""
        texts = tuple(values.values())
        return texts[0] if len(texts) == 1 else texts

    @abstractmethod
    def rows(self, inputs: Sequence[Any]) -> Rows:
        """Raw inputs of a user (strings, ...) as canonical rows without labels."""

    def decode_raw(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        """One answer for each raw input that `rows` took."""
        for line in self.lines(predictions, rows):
            yield {key: value for key, value in line.items() if key not in ("row", "label")}


def problem_type(config: Any) -> str:
    """What a sequence classification head is for; where its config does not say, as `transformers` has it."""
    unsaid = "regression" if config.num_labels == 1 else "single_label_classification"
    return str(config.problem_type or unsaid)
