"""Measurements of a frozen encoder: what a benchmark does with its vectors, and the published numbers.

A file of `tasks/frozen/` has the tables of a task that say what its rows are, and `[frozen]` in the place of
a recipe. Imports neither torch nor transformers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from bert_ft.config import catalog
from bert_ft.config.references import PublishedNumber
from bert_ft.config.schema import Strict
from bert_ft.config.task import Task, validated
from bert_ft.errors import InputError, did_you_mean
from bert_ft.files import difference

DECLARED = "declared"
DISTANCES = ("cosine", "euclidean", "manhattan")
SIMILARITIES = tuple(f"{distance}_{how}" for distance in DISTANCES for how in ("pearson", "spearman"))
"""The metrics of `measure = "similarity"`."""
TRAINING = ("recipe", "batching", "run", "execution")
"""Tables of a task that say how it is trained."""
T = TypeVar("T", bound=Strict)


class Vectors(Strict):
    """How a text becomes a vector."""

    pooling: str = Field(
        description='mean, cls, max, ...; "declared": the modules of the checkpoint\'s own folder'
    )
    normalize: bool = Field(description="whether vectors have length 1")
    max_length: int = Field(gt=0, description="tokens of a text, the special ones among them")
    prompt: str = Field("", description="what is set before each text")


class Measure(Strict):
    """What is done with the vectors; of the keys all but the first are a probe's."""

    measure: Literal["similarity", "probe"] = Field(
        description="similarity: correlations of the nearness of pairs with their scores; probe: a linear "
        "classifier on the vectors of few rows"
    )
    classifier: Literal["logistic regression"] = Field(
        "logistic regression", description="fitted to the vectors of each draw: scikit-learn's, with L2"
    )
    rows_per_label: int = Field(8, gt=0, description="training rows of each label; all that it has, of fewer")
    draws: int = Field(10, gt=0, description="how often rows are drawn and a classifier is fitted")
    random_state: int = Field(42, ge=0, lt=2**32, description="of the shuffles that draw the rows")
    each_draw: Literal["reset", "continue"] = Field(
        "reset",
        description="a draw shuffles the order that the draw before it left: with the random state set back "
        "first (as MTEB 1 does), or going on",
    )
    max_iter: int = Field(100, gt=0, description="iterations of the logistic regression, at most")
    strength: float = Field(1.0, gt=0, description="C of the logistic regression")

    @model_validator(mode="after")
    def _of_a_probe(self) -> Measure:
        if self.measure == "similarity" and (own := self.model_fields_set - {"measure"}):
            raise ValueError(f"{min(own)} is for a probe, and similarity draws no rows")
        return self


class FrozenReference(PublishedNumber):
    """A published number of a frozen encoder with its conditions, beside those in the file's own tables."""

    vectors: Vectors
    draws: list[float] = Field([], description="the value of each draw of a probe, in their order")


@dataclass(frozen=True)
class FrozenTask:
    """A measurement of a frozen encoder.

    Attributes:
        task: its rows and metrics; nothing of it is trained.
        measure: what is done with the vectors.
        references: published numbers.
    """

    task: Task
    measure: Measure
    references: list[FrozenReference]

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def metrics(self) -> list[str]:
        """The metrics of every set."""
        return list(SIMILARITIES) if self.measure.measure == "similarity" else self.task.metric.compute

    def dump(self) -> dict[str, Any]:
        """As a plain tree of tables, every default filled in."""
        tree = self.task.model_dump(exclude_none=True, exclude={"options", "reference", *TRAINING})
        if self.measure.measure == "similarity":
            del tree["metric"]
        return tree | {
            catalog.FROZEN: self.conditions()[catalog.FROZEN],
            "reference": [reference.model_dump(exclude_none=True) for reference in self.references],
        }

    def conditions(self) -> dict[str, Any]:
        """What two measurements must have in common to be compared, how texts become vectors aside."""
        keys = None if self.measure.measure == "probe" else {"measure"}
        return {
            "data": self.task.data.model_dump(),
            "metric.mode": self.task.metric.mode,
            catalog.FROZEN: self.measure.model_dump(include=keys),
        }

    def override(self, changes: Mapping[str, Any]) -> FrozenTask:
        """A copy with keys changed: those of `[frozen]`, and of the task's `[data]` and `[metric]`.

        Raises:
            InputError: a key that is none of these, or a value out of range.
        """
        own, others = dict[str, Any](), dict[str, Any]()
        for key, value in changes.items():
            table, _, leaf = key.rpartition(".")
            if leaf in Measure.model_fields and table in ("", catalog.FROZEN):
                own[leaf] = value
            else:
                others[key] = value
        where = f"measurement {self.name}"
        task = self.task.override(others, where)
        before, after = (each.model_dump(include=set(TRAINING)) for each in (self.task, task))
        if lines := difference(before, after):
            keys = ", ".join([*Measure.model_fields, *Vectors.model_fields])
            message = "a frozen encoder is not trained, so this has no meaning here"
            raise InputError(message, where=lines[0].partition(":")[0], remedy=f"keys that have: {keys}")
        measure = self.measure.model_dump(exclude_unset=True) | own
        changed = replace(self, task=task, measure=table_of(Measure, measure, f"{where}, [{catalog.FROZEN}]"))
        _refuse_rows(changed, where)
        return changed


def is_frozen(name: str | Path) -> bool:
    """Whether this names a measurement of a frozen encoder: a built-in one, or a TOML file with its table."""
    if str(name).endswith(".toml") and os.path.isfile(name):
        return catalog.FROZEN in catalog.read(Path(name))
    return str(name) in catalog.frozen()


def load(name: str | Path) -> FrozenTask:
    """A measurement of a frozen encoder by built-in name or TOML file.

    Raises:
        InputError: no such file, no TOML, no table `[frozen]`, an unknown key or a value out of range.
    """
    path = catalog.find(str(name))
    tree = catalog.read(path)
    if catalog.FROZEN not in tree:
        raise InputError(
            f"the table [{catalog.FROZEN}] is missing, which says what is measured of the vectors",
            where=str(path),
            remedy='[frozen] with measure = "similarity" or "probe"',
        )
    if extra := [table for table in TRAINING if table in tree]:
        raise InputError(
            f"a frozen encoder is not trained, so [{extra[0]}] has no meaning here",
            where=str(path),
            remedy="leave the table out",
        )
    measure = table_of(Measure, tree.pop(catalog.FROZEN), f"{path}, [{catalog.FROZEN}]")
    numbers = tree.pop("reference", [])
    beside = catalog.references_file(path)
    where = str(beside if beside.is_file() else path)
    if not isinstance(numbers, list):
        raise InputError("reference is no list of tables", where=where, remedy="[[reference]]")
    references = [
        table_of(FrozenReference, number, f"{where}, reference {k}") for k, number in enumerate(numbers, 1)
    ]
    if isinstance(tree.get("data"), dict):
        tree["data"] = _scored(tree["data"], str(path))
    found = FrozenTask(validated(tree, str(path)), measure, references)
    _refuse_rows(found, str(path))
    for number, reference in enumerate(references, 1):
        _refuse_reference(found, reference, f"{where}, reference {number}")
    return found


def _scored(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The table `[data]` with test sets as evaluation sets, where there are no others: that is what a task
    with training rows must have, and here all of them are scored."""
    if data.get("evaluate") != "":
        return data
    test = data.get("test")
    if not test:
        message = "no set of rows is measured"
        raise InputError(message, where=where, remedy="name one: data.test or data.evaluate")
    return {**data, "evaluate": test if isinstance(test, dict) else {"test": test}, "test": None}


def _refuse_rows(found: FrozenTask, where: str) -> None:
    """Refuses rows that a measure can't be of."""
    data, kind = found.task.data, found.measure.measure
    pairs = "text_pair" in data.columns
    if kind == "similarity" and (data.problem_type != "regression" or not pairs):
        raise InputError(
            "similarity is of pairs of texts that have a number",
            where=where,
            remedy='[data] with problem_type = "regression", and columns for text, text_pair and label',
        )
    if kind == "probe" and (data.problem_type != "single_label_classification" or pairs):
        raise InputError(
            "a probe is of single texts that have one label each",
            where=where,
            remedy="[data] with columns for text and label, and no other problem_type",
        )
    if data.limit_train is not None:
        raise InputError(
            "a measurement draws its own rows, and limits none", where=where, remedy="leave out limit_train"
        )
    if kind == "probe" and not data.train:
        raise InputError(
            "a probe needs training rows to draw from", where=where, remedy="name them: data.train"
        )


def _refuse_reference(found: FrozenTask, reference: FrozenReference, where: str) -> None:
    """Refuses a number that can't be one of this measurement."""
    if reference.metric not in found.metrics:
        raise InputError(
            f"'{reference.metric}' is no metric of this measurement",
            where=where,
            remedy=did_you_mean(reference.metric, found.metrics),
        )
    if reference.runs not in (None, found.measure.draws) and found.measure.measure == "probe":
        raise InputError(
            f"{reference.runs} runs, but the measurement has {found.measure.draws} draws",
            where=where,
            remedy="measure as many as were published: [frozen] draws",
        )
    if reference.draws and len(reference.draws) != found.measure.draws:
        raise InputError(
            f"{len(reference.draws)} draws, but the measurement has {found.measure.draws}",
            where=where,
            remedy="give the value of every draw, or leave draws out",
        )


def table_of(kind: type[T], tree: Any, where: str) -> T:
    """A table of a file. Raises InputError: an unknown or missing key, or a value of another type or
    range."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    table = Vectors if place[:1] == ["vectors"] and len(place) > 1 else kind
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        raise InputError(
            f"unknown key '{key}'", where=where, remedy=did_you_mean(place[-1], table.model_fields)
        )
    if first["type"] == "missing":
        message = f"{key} is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = f"{key} = {first['input']!r}: {message}" if key else message
    field = table.model_fields.get(place[-1]) if place else None
    remedy = (field.description if field else None) or "see `bert-ft tasks show stsbenchmark`"
    raise InputError(message, where=where, remedy=remedy)
