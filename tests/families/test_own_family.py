"""A family of the user's own keeps the options of the one that it extends, wherever a task is written, cached or saved."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli_w
import transformers as tf
from pydantic import Field, ValidationError

import bert_ft
from bert_ft import families
from bert_ft.config import families as registry
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task, validated
from bert_ft.data import sources
from bert_ft.data.rows import Rows
from bert_ft.engine import feature_cache
from bert_ft.errors import InputError
from bert_ft.families.classification import options
from bert_ft.families.classification.adapter import Classification


class Ordinal(Classification):
    family = "ordinal"


ROWS = [{"text": "a warm and funny film " * k, "label": "abc"[k % 3]} for k in range(1, 13)]


class Grades(options.Options):
    table: ClassVar[str] = "grades"
    usual_length: ClassVar[int | None] = 24

    tolerance: int = Field(1, ge=0, description="grades that a prediction may be off")

    @classmethod
    def default_metrics(cls, problem_type: str) -> list[str]:
        return ["accuracy", "near"]

    def metric_names(self, problem_type: str) -> list[str]:
        return [*super().metric_names(problem_type), "near"]


class Graded(Classification):
    family = "graded"
    Options = Grades


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family with options of its own, as an installed package brings it."""
    point = EntryPoint("graded", f"{__name__}:Graded", "bert_ft.families")
    monkeypatch.setattr(registry, "installed", lambda: {"graded": point})


def test_options_are_part_of_the_task() -> None:
    task = Task(family="ordinal", classification={"windows": True})  # type: ignore[call-arg]
    assert task.dump()["classification"]["windows"] is True
    assert Task.model_validate(task.dump()) == task
    assert not {"classification", "ner", "qa"} & Task(family="ordinal").dump().keys()
    assert {"classification", "ner", "qa"} & Task(family="ner").dump().keys() == {"ner"}


def test_a_table_of_another_family_is_refused() -> None:
    """It would change nothing, and nothing is dropped in silence."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Task(family="ner", classification={"windows": True})  # type: ignore[call-arg]
    with pytest.raises(
        InputError, match=r"^unknown key 'ner'\n  the table of a task with family = 'ner'; the family of this"
    ):
        validated({"ner": {"decoding": "viterbi"}}, "")
    with pytest.raises(InputError, match=r"^unknown key 'ner\.decoding'"):
        load_task("mrpc").override({"ner.decoding": "viterbi"})


def test_a_family_brings_its_table_and_its_defaults(graded: None, tmp_path: Path) -> None:
    task = load_task("graded").override({"tolerance": 2, "windows": True})
    assert isinstance(task.options, Grades) and task.options.tolerance == 2
    assert (task.metric.compute, task.recipe.max_length) == (["accuracy", "near"], 24)
    assert task.override({"grades.tolerance": 0, "epochs": 1}).dump()["grades"]["tolerance"] == 0
    assert "classification" not in task.dump()
    file = tmp_path / "graded.toml"
    file.write_text(tomli_w.dumps(task.dump() | {"name": "own"}))
    assert load_task(file).options == task.options
    for tree, message in (
        ({"grades": {"tolerence": 1}}, "unknown key 'grades.tolerence'\n  did you mean 'tolerance'?"),
        ({"grades": {"tolerance": -1}}, "grades.tolerance = -1: Input should be greater than or equal to 0\n  grades that"),
        ({"grades": 3}, "grades = 3: Input should be a valid dictionary"),
        ({"classification": {}}, "unknown key 'classification'"),
        ({"metric": {"compute": ["nearly"]}}, "metric.compute.0 = 'nearly': unknown metric 'nearly'; did you mean 'near'?"),
        ({"options": {"tolerance": 1}}, "unknown key 'options'; the options of this family are the table 'grades'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="^" + re.escape(message)):
            validated({"family": "graded"} | tree, "")


def test_without_its_package_a_family_is_told(graded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = load_task("graded").override({"tolerance": 2}).dump() | {"metric": {"compute": ["accuracy"]}}
    tree["graded"] = tree.pop("grades")
    monkeypatch.setattr(registry, "installed", dict)
    with pytest.raises(
        InputError, match=r"^the table .graded. can't be read: no family of that name is installed"
    ):
        validated(tree, "")
    broken = EntryPoint("graded", "no_such_package:Graded", "bert_ft.families")
    monkeypatch.setattr(registry, "installed", lambda: {"graded": broken})
    with pytest.raises(
        InputError, match="the family 'graded' can't be loaded: No module named 'no_such_package'"
    ):
        validated(tree, "")


def test_an_adapter_refuses_a_task_without_its_options() -> None:
    with pytest.raises(
        InputError, match="Graded has options of its own, which a task of the family 'classification'"
    ):
        Graded(load_task("mrpc"))


def test_a_rebound_adapter_is_another() -> None:
    """Under another task, with the labels and thresholds of the first; neither changes the other."""
    adapter = Classification(load_task("mrpc"), ["a", "b"], {"thresholds": {"a": 0.4}})
    other = adapter.rebound(
        adapter.task.override({"windows": True, "data.problem_type": "multi_label_classification"})
    )
    assert type(other) is Classification and other.options.windows and other.multilabel
    assert not adapter.options.windows and not adapter.multilabel
    other.labels.append("c")
    other.tuned["more"] = 1
    assert (adapter.labels, adapter.tuned) == (["a", "b"], {"thresholds": {"a": 0.4}})


@pytest.mark.parametrize("name", registry.BUILTIN)
def test_a_wing_has_the_same_rooms(name: str) -> None:
    """A task is read with the wing's `options` alone, which are those that its adapter brings."""
    assert families.find(name).Options is registry.options_of(name)
    assert registry.options_of(name).table == families.find(name).family == name
    task = Task(family=name)
    assert set(task.metric.compute) <= set(task.options.metric_names(task.data.problem_type))
    code = f"""
import sys
from bert_ft.config.task import Task
Task(family={name!r})
heavy = {{"torch", "transformers", "numpy", "pyarrow", "scipy", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cached_features_follow_from_the_options(tiny_checkpoint: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows = Rows(sources.of_object(ROWS, ["text", "label"], (), "rows").table, "rows")
    keys = set()
    for truncation in ("head", "tail", "head+tail"):
        task = load_task("classification").override({"classification.truncation": truncation})
        adapter = Ordinal(task.model_copy(update={"family": "ordinal"}), ["a", "b", "c"])
        keys.add(feature_cache.key(adapter, rows, tokenizer, 16))
    assert len(keys) == 3


def test_a_run_and_its_model_keep_the_options(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = families.find

    def installed(family: str) -> Any:
        return Ordinal if family == "ordinal" else find(family)

    monkeypatch.setattr(families, "find", installed)
    task = Task(name="stars", family="ordinal", classification={"windows": True, "stride": 4})  # type: ignore[call-arg]
    run = bert_ft.finetune(task, tiny_checkpoint, train=ROWS, validation=ROWS, output=tmp_path / "run", quiet=True,
                           max_steps=1, max_length=12, **{"data.columns": {"text": "text", "label": "label"}})  # fmt: skip
    assert load_task(run.path / "task.toml").options == task.options
    loaded = bert_ft.load(run.path / "model")
    assert loaded.adapter.options.windows and loaded.adapter.options.stride == 4
    assert not loaded.notes, "nothing of its own config is passed over"
    assert run.results["counts"]["train"]["windows"] > len(ROWS)
