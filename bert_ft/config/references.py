"""Published numbers with their conditions, and suites of tasks with their submissions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, field_validator

from bert_ft.config.recipe import Recipe
from bert_ft.config.schema import Strict
from bert_ft.errors import did_you_mean


class PublishedNumber(Strict):
    """What every published number says of itself, whatever it was measured with."""

    checkpoint: str
    split: str = Field(description="the set, by its name in a run's results: validation, matched, test, ...")
    metric: str = Field(description="the exact form: F1, accuracy, their mean; Pearson, Spearman, their mean")
    value: float
    std: float | None = None
    statistic: Literal["single run", "mean", "median", "best of grid", "not stated"]
    runs: int | None = Field(None, description="seeds, or grid points; absent where the source does not say")
    unmet: list[str] = Field([], description="conditions no run here can meet: beyond a recipe, or left open")
    confidence: Literal["C", "S", "U"] = Field(
        description="C read in the source, S transcribed, U unconfirmed"
    )
    source: str
    note: str | None = None


class Reference(PublishedNumber):
    """A published number with all its conditions; without any one of them a comparison is worth nothing."""

    intermediate: str = "none"
    recipe: dict[str, Any] = Field({}, description="what the source states of it; `grid`: what it searched")

    @field_validator("recipe")
    @classmethod
    def _keys(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        for key in recipe.keys() - Recipe.model_fields.keys():
            raise ValueError(f"unknown key '{key}'; {did_you_mean(key, Recipe.model_fields)}")
        return recipe


class Submission(Strict):
    """A file of the zip that a suite's server takes: a prediction for each row of a test set, labels and
    numbers written as in the benchmark's original files."""

    task: str = Field(description="the task whose model predicts")
    of: str | None = Field(None, description="the task whose test rows these are, where it is another one")
    set: str = Field("test", description="the test set, by its name in that task")
    rows: int = Field(gt=0, description="of that set, as published")
    range: list[float] | None = Field(
        None, min_length=2, max_length=2, description="numbers are clipped to it"
    )
    majority: str = Field(description="the most frequent label of the training rows; of numbers their mean")


class Suite(Strict):
    """Tasks that are reported together: a TOML file of `tasks/suites/`."""

    name: str = ""
    title: str
    tasks: list[str] = Field(min_length=1, description="names of built-in tasks")
    average: Literal["tasks", "sets"] = Field(
        "tasks", description="tasks: each counts once; sets: each set of a task"
    )
    submission: dict[str, Submission] = Field({}, description="file name -> what the server wants in it")

    def score(self, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
        """The suite's one number: task -> set -> metric -> value; a set's metrics are averaged first (Wang et
        al. 2019, section 2.3; "sets" as in Devlin et al. 2019, Table 1). Raises KeyError: a task has no
        metrics."""
        sets = {task: [fmean(values.values()) for values in metrics[task].values()] for task in self.tasks}
        return fmean(map(fmean, sets.values())) if self.average == "tasks" else fmean(chain(*sets.values()))
