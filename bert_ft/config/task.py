"""Task: the whole of a TOML file, what may be changed in it, and finding one by name.

Imports neither torch nor transformers; reading a task never runs code.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from bert_ft.config.paths import anchor
from bert_ft.config.references import Reference
from bert_ft.config.schema import (
    Batching,
    Classification,
    Data,
    Execution,
    Metric,
    Ner,
    Original,
    Qa,
    Range,
    Recipe,
    RunSpec,
    Strict,
)
from bert_ft.errors import InputError, did_you_mean, shown
from bert_ft.metrics import DEFAULTS

RESERVED = ("classification", "ner", "qa")
SET_NAME = re.compile(r"\w[\w .-]*")  # predictions/<name>.jsonl
LONGEST_NAME = 200  # bytes of a set's name: most disks take 255, and suffixes come behind it
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and line breaks: no name of ours has one, since names become commands, paths and
lines."""


class Task(Strict):
    """What to learn: one benchmark task, or one data set of the user's."""

    name: str = ""
    title: str = ""
    family: str = "classification"
    version: int = 1
    data: Data = Data()
    metric: Metric = Metric()
    recipe: Recipe = Recipe()
    batching: Batching = Batching()
    classification: Classification = Classification()
    ner: Ner = Ner()
    qa: Qa = Qa()
    run: RunSpec = RunSpec()
    execution: Execution = Execution()
    reference: list[Reference] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, tree: Any) -> Any:
        """The metrics of the family or problem type, and the family's usual length, where the task names
        none."""
        _refuse_control(tree)
        if (
            isinstance(tree, dict)
            and tree.get("family") == "qa"
            and isinstance(recipe := tree.get("recipe", {}), dict)
        ):
            tree = tree | {"recipe": {"max_length": 384} | recipe}
        metric, data = (
            (tree.get(key, {}) for key in ("metric", "data")) if isinstance(tree, dict) else (None, None)
        )
        if not isinstance(metric, dict) or "compute" in metric:
            return tree
        kinds = [
            data.get("problem_type") if isinstance(data, dict) else None,
            tree.get("family"),
            "classification",
        ]
        return tree | {
            "metric": metric
            | {"compute": next(DEFAULTS[k] for k in kinds if isinstance(k, str) and k in DEFAULTS)}
        }

    @model_validator(mode="after")
    def _check(self) -> Task:
        sets = self.data.evaluation_sets
        for name in [*sets, *self.data.test_sets]:
            if not SET_NAME.fullmatch(name):
                raise ValueError(f"data: '{name}' can't name a set; letters, digits, - and _ can")
            if len(name.encode(errors="replace")) > LONGEST_NAME:
                raise ValueError(
                    f"data: '{shown(name, most=50)}' is too long to name a set, whose predictions are a "
                    "file of "
                    f"that name; {LONGEST_NAME} bytes are the most"
                )
        if not sets and self.data.train:
            raise ValueError(
                "data.evaluate is empty, but training needs an evaluation set to pick a checkpoint by"
            )
        if clash := set(sets) & set(self.data.test_sets) | {"train"} & (set(sets) | set(self.data.test_sets)):
            raise ValueError(f"data: two sets have one name: {', '.join(sorted(clash))}")
        if self.metric.best and "/" in self.metric.best and (s := self.metric.best.split("/")[0]) not in sets:
            raise ValueError(f"metric.best names the evaluation set '{s}'; {did_you_mean(s, sets)}")
        labels = [str(name) for name in self.data.labels or []]
        if twice := {name for name in labels if labels.count(name) > 1}:
            raise ValueError(f"data.labels holds a label twice: {', '.join(sorted(twice))}")
        return self

    def _repr_html_(self) -> str:
        told = {
            "family": self.family,
            "data": self.data.path or self.data.train,
            "labels": self.data.labels,
            "metrics": self.metric.compute,
            "checkpoint": self.run.checkpoint,
            "references": len(self.reference),
            **self.recipe.model_dump(exclude_defaults=True, exclude=Recipe.SPACES),
        }
        cells = [
            (key, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for key, v in told.items() if v
        ]
        rows = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(shown(value))}</td></tr>"
            for key, value in cells
        )
        return f"<div><p><b>{html.escape(shown(self.title or self.name))}</b></p><table>{rows}</table></div>"

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if CONTROL.search(name):
            raise ValueError("a name has no control characters and no line breaks")
        return name

    @property
    def best_metric(self) -> tuple[str, str]:
        """(evaluation set, metric) that picks the best checkpoint."""
        name = self.metric.best or self.metric.compute[0]
        first = next(iter(self.data.evaluation_sets or self.data.test_sets), "")
        return (first, name) if "/" not in name else (name.split("/", 1)[0], name.split("/", 1)[1])

    def override(self, changes: dict[str, Any], where: str = "") -> Task:
        """A copy with dotted keys changed; a key without a dot is a key of the recipe, or the one table that
        has it."""
        tree = self.model_dump()
        if self.metric.compute == DEFAULTS.get(self.data.problem_type, DEFAULTS.get(self.family)):
            del tree["metric"]["compute"]  # another problem type brings its own
        for key, value in changes.items():
            table, _, leaf = key.rpartition(".")
            if leaf == "trust_remote_code":
                raise InputError(
                    "a setting does not say whose code may run",
                    where=key,
                    remedy="name the checkpoint: "
                    '--trust-remote-code ORG/NAME (in Python trust_remote_code="ORG/NAME")',
                )
            table = table or _table_of(key, where, self.family)
            node = tree
            for part in table.split("."):
                if not isinstance(node.get(part), dict):
                    raise InputError(
                        f"unknown key '{key}'", where=where, remedy=did_you_mean(key, dotted_keys())
                    )
                node = node[part]
            node[leaf] = value
        anchor(tree["data"], Path())
        return validated(tree, where)

    def dump(self) -> dict[str, Any]:
        """As a plain tree of tables without empty values: what the run's task.toml holds, all but how it is
        carried out."""
        return self.model_dump(exclude_none=True, exclude={"execution", *RESERVED} - self.family_tables)

    @property
    def family_tables(self) -> set[str]:
        """The tables of options that hold for this task: its family's; of a family of the user's own, which
        may extend any of ours, each in which something is set."""
        if self.family in RESERVED:
            return {self.family}
        return {name for name in RESERVED if getattr(self, name) != TABLES[name]()}


def _refuse_control(tree: Any) -> None:
    """Refuses keys that break a line; those that are labels, and so part of the data, may."""
    for key, value in (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        if isinstance(key, str) and CONTROL.search(key):
            raise ValueError(f"the key {key!r} holds a control character or a line break")
        if key not in ("class_weights", "label_names"):
            _refuse_control(value)


TABLES = {name: type(table) for name, table in Task() if isinstance(table, Strict)}
TABLES |= {"reference": Reference, "original": Original, "search": Range}


def dotted_keys() -> dict[str, str]:
    """`recipe.learning_rate` -> its description, of every key that `--set` takes."""
    tables = ("recipe", "batching", "data", "metric", *RESERVED, "run", "execution")
    return {f"{t}.{k}": f.description or "" for t in tables for k, f in TABLES[t].model_fields.items()}


def _table_of(key: str, where: str, family: str) -> str:
    keys = [
        parts for name in dotted_keys() if (parts := name.rpartition("."))[0] not in set(RESERVED) - {family}
    ]
    tables = [table for table, _, leaf in keys if leaf == key]
    if not tables:
        remedy = did_you_mean(key, {leaf for _, _, leaf in keys})
        raise InputError(f"unknown key '{key}'", where=where, remedy=remedy)
    if len(tables) > 1:
        raise InputError(
            f"which '{key}'?", where=where, remedy=" or ".join(f"{table}.{key}" for table in tables)
        )
    return tables[0]


def validated(tree: dict[str, Any], where: str) -> Task:
    """The task of a tree of tables. Raises InputError: an unknown key, or a value of another type or
    range."""
    try:
        return Task.model_validate(tree)
    except ValidationError as error:
        # of a union, the branch that came furthest
        first = max(
            error.errors(), key=lambda e: (len(e["loc"]), e["type"] in ("value_error", "extra_forbidden"))
        )
        # pydantic adds that branch to the location: keep what stands in the file
        branch = re.compile(
            r"str|int|bool|float|literal\[.*|constrained-.*|dict\[.*|list\[.*|Range|function-after\[.*"
        )
        path = [str(part) for part in first["loc"] if not branch.fullmatch(str(part))]
        key, remedy = ".".join(path), ""
        if first["type"] == "extra_forbidden":
            message = f"unknown key '{key}'"
            table = next((TABLES[part] for part in reversed(path[:-1]) if part in TABLES), Task)
            remedy = did_you_mean(path[-1], table.model_fields)
        else:
            message = first["msg"].removeprefix("Value error, ")
            told = (
                key if isinstance(first["input"], dict) else f"{key} = {first['input']!r}"
            )  # no whole tables
            message = f"{told}: {message}" if key else message
        keys, default = dotted_keys(), "see `bert-ft tasks show` for a task that works"
        remedy = remedy or keys.get(key) or keys.get(".".join(path[:2])) or default
        raise InputError(message, where=where, remedy=remedy) from None
