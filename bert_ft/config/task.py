"""Task: the whole of a TOML file, what may be changed in it, and finding one by name.

Imports neither torch nor transformers. Reading a task runs no code but that of an installed family that it
names.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from bert_ft.config import families
from bert_ft.config.paths import anchor
from bert_ft.config.recipe import Batching, Lora, Range, Recipe
from bert_ft.config.references import Reference
from bert_ft.config.schema import Data, Execution, Metric, Options, Original, RunSpec, Strict
from bert_ft.errors import InputError, did_you_mean, shown
from bert_ft.metrics import METRIC_NAMES

SET_NAME = re.compile(r"\w[\w .-]*")  # predictions/<name>.jsonl
LONGEST_NAME = 200  # bytes of a set's name: most disks take 255, and suffixes come behind it
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and line breaks: no name of ours has one, since names become commands, paths and
lines."""


class Task(Strict):
    """What to learn: one benchmark task, or one data set of the user's.

    Attributes:
        options: those of the family, an object of the class that the family brings. In a file, in `override`
            and in `Task(...)` they are the table that bears the family's name, or that of the family it
            extends.
    """

    name: str = ""
    title: str = ""
    family: str = families.DEFAULT
    version: int = 1
    data: Data = Data()
    metric: Metric = Metric()
    recipe: Recipe = Recipe()
    batching: Batching = Batching()
    options: SerializeAsAny[Options] = Options()
    run: RunSpec = RunSpec()
    execution: Execution = Execution()
    reference: list[Reference] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, tree: Any) -> Any:
        """The family's options as the field `options`; its metrics and its usual length where the task names
        none."""
        _refuse_control(tree)
        if not isinstance(tree, dict):
            return tree
        family = tree.get("family", families.DEFAULT)
        if not isinstance(family, str):
            return tree
        brought = families.options_of(family, tree)
        table = brought.table or family
        options = tree.get("options", (brought, tree.get(table, {})))
        if isinstance(options, Options):
            brought = type(options)
        elif isinstance(options, tuple):
            brought = options[0]
        else:
            raise ValueError(f"unknown key 'options'; the options of this family are the table '{table}'")
        used = set() if "options" in tree else {table}
        tree = {key: value for key, value in tree.items() if key not in used} | {"options": options}
        recipe = tree.get("recipe", {})
        if brought.usual_length is not None and isinstance(recipe, dict):
            tree["recipe"] = {"max_length": brought.usual_length} | recipe
        metric = tree.get("metric", {})
        if isinstance(metric, dict) and "compute" not in metric:
            data = tree.get("data", {})
            problem_type = data.get("problem_type") if isinstance(data, dict) else None
            tree["metric"] = metric | {"compute": brought.default_metrics(str(problem_type))}
        return tree

    @field_validator("options", mode="plain")
    @classmethod
    def _read_options(cls, options: Options | tuple[type[Options], Any]) -> Options:
        """The options of a table, which comes with the class that the family brings."""
        if isinstance(options, Options):
            return options
        brought, table = options
        return brought.model_validate(table)

    @model_serializer(mode="wrap")
    def _name_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree = handler(self)
        return {self.table if key == "options" else key: value for key, value in tree.items()}

    @property
    def table(self) -> str:
        """Name of the table that holds the family's options."""
        return self.options.table or self.family

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
        known = [*METRIC_NAMES, *self.options.metric_names(self.data.problem_type)]
        for number, metric in enumerate(self.metric.compute):
            if metric not in known:
                raise ValueError(
                    f"metric.compute.{number} = '{metric}': unknown metric '{metric}'; "
                    f"{did_you_mean(metric, dict.fromkeys(known))}"
                )
        labels = [str(name) for name in self.data.labels or []]
        if twice := {name for name, count in Counter(labels).items() if count > 1}:
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
        # what the recipe leaves open stays open
        tree["recipe"] = self.recipe.model_dump(include=self.recipe.model_fields_set)
        brought = type(self.options)
        if self.metric.compute == self.options.default_metrics(self.data.problem_type):
            del tree["metric"]["compute"]  # another problem type brings its own
        keys = dotted_keys(self)
        for key, value in changes.items():
            table, _, leaf = key.rpartition(".")
            if table in INNER:  # lora.rank
                table = f"{_table_of(table, where, keys)}.{table}"
            if leaf == "trust_remote_code":
                raise InputError(
                    "a setting does not say whose code may run",
                    where=key,
                    remedy="name the checkpoint: "
                    '--trust-remote-code ORG/NAME (in Python trust_remote_code="ORG/NAME")',
                )
            table = table or _table_of(key, where, keys)
            node = tree
            for part in table.split("."):
                if part in INNER and node.get(part) is None:
                    node[part] = {}  # a table that the task's file has not
                if not isinstance(node.get(part), dict):
                    raise InputError(f"unknown key '{key}'", where=where, remedy=did_you_mean(key, keys))
                node = node[part]
            node[leaf] = value
        anchor(tree["data"], Path())
        return validated(tree | {"options": (brought, tree.pop(self.table))}, where)

    def dump(self) -> dict[str, Any]:
        """As a plain tree of tables without empty values: what the run's task.toml holds, all but how it is
        carried out."""
        left_out = {"execution"} if self.states_options else {"execution", "options"}
        return self.model_dump(exclude_none=True, exclude=left_out)

    @property
    def states_options(self) -> bool:
        """Whether the task's file has the table of the family's options: if that is the family's own, or
        something is set in the table of the family that it extends."""
        brought = type(self.options)
        return bool(brought.model_fields) and (self.table == self.family or self.options != brought())


def _refuse_control(tree: Any) -> None:
    """Refuses keys that break a line; those that are labels, and so part of the data, may."""
    for key, value in (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        if isinstance(key, str) and CONTROL.search(key):
            raise ValueError(f"the key {key!r} holds a control character or a line break")
        if key not in ("class_weights", "label_names"):
            _refuse_control(value)


TABLES: dict[str, type[Strict]] = {
    "data": Data,
    "metric": Metric,
    "recipe": Recipe,
    "batching": Batching,
    "run": RunSpec,
    "execution": Execution,
}
"""The tables that each task has; the family's own is beside them."""
INNER: dict[str, type[Strict]] = {"lora": Lora}
"""Tables inside one of these, which a task need not have."""
NESTED: dict[str, type[Strict]] = {"reference": Reference, "original": Original, "search": Range, **INNER}


def dotted_keys(task: Task | None = None) -> dict[str, str]:
    """`recipe.learning_rate` -> its description, of every key that `--set` takes; of a task also those of its
    family's options."""
    tables = TABLES if task is None else TABLES | {task.table: type(task.options)}
    return {
        f"{t}.{k}": f.description or "" for t, model in tables.items() for k, f in model.model_fields.items()
    }


def _table_of(key: str, where: str, keys: Iterable[str]) -> str:
    """The table that alone has a key; `keys` are dotted ones."""
    pairs = [name.rpartition(".") for name in keys]
    tables = [table for table, _, leaf in pairs if leaf == key]
    if not tables:
        remedy = did_you_mean(key, {leaf for _, _, leaf in pairs})
        raise InputError(f"unknown key '{key}'", where=where, remedy=remedy)
    if len(tables) > 1:
        remedy = " or ".join(f"{table}.{key}" for table in tables)
        raise InputError(f"which '{key}'?", where=where, remedy=remedy)
    return tables[0]


BRANCH = re.compile(
    r"str|int|bool|float|literal\[.*|constrained-.*|dict\[.*|list\[.*|Range|function-after\[.*"
)
"""What pydantic adds to the place of an error for a branch of a union."""


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
    family = str(tree.get("family", families.DEFAULT))
    options = tree.get("options")
    brought = options[0] if isinstance(options, tuple) else families.options_of(family, tree)
    own = brought.table or family
    path = [
        own if part == "options" else part for part in map(str, first["loc"]) if not BRANCH.fullmatch(part)
    ]
    tables = TABLES | NESTED | {own: brought}
    key = ".".join(path)
    remedy = ""
    if first["type"] == "extra_forbidden":
        message = f"unknown key '{key}'"
        table = next((tables[part] for part in reversed(path[:-1]) if part in tables), None)
        if key == family:
            message = f"the table [{family}] can't be read: no family of that name is installed"
            remedy = "install the package that brings it"
        elif table is None and key in families.BUILTIN:
            remedy = f"the table of a task with family = '{key}'; the family of this one is '{family}'"
        elif table is None:
            remedy = did_you_mean(key, [own if name == "options" else name for name in Task.model_fields])
        else:
            remedy = did_you_mean(path[-1], table.model_fields)
    else:
        message = first["msg"].removeprefix("Value error, ")
        is_table = isinstance(first["input"], (dict, tuple))
        place = key if is_table else f"{key} = {first['input']!r}"
        message = f"{place}: {message}" if key else message
    described = {
        f"{name}.{k}": f.description for name, model in tables.items() for k, f in model.model_fields.items()
    }
    default = "see `bert-ft tasks show` for a task that works"
    remedy = remedy or described.get(key) or described.get(".".join(path[:2])) or default
    raise InputError(message, where=where, remedy=remedy)
