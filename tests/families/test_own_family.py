"""A family of the user's own keeps the options of the one that it extends, wherever a task is written, cached or saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as tf

import bert_ft
from bert_ft import families
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.data import sources
from bert_ft.data.rows import Rows
from bert_ft.engine import feature_cache
from bert_ft.families.classification.adapter import Classification


class Ordinal(Classification):
    family = "ordinal"


ROWS = [{"text": "a warm and funny film " * k, "label": "abc"[k % 3]} for k in range(1, 13)]


def test_options_are_part_of_the_task() -> None:
    task = Task(family="ordinal", classification={"windows": True})  # type: ignore[arg-type]
    assert task.dump()["classification"]["windows"] is True
    assert Task.model_validate(task.dump()) == task
    assert not {"classification", "ner", "qa"} & Task(family="ordinal").dump().keys()
    assert {"classification", "ner", "qa"} & Task(
        family="ner", classification={"windows": True}
    ).dump().keys() == {"ner"}  # type: ignore[arg-type]


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
    task = Task(name="stars", family="ordinal", classification={"windows": True, "stride": 4})  # type: ignore[arg-type]
    run = bert_ft.finetune(task, tiny_checkpoint, train=ROWS, validation=ROWS, output=tmp_path / "run", quiet=True,
                           max_steps=1, max_length=12, **{"data.columns": {"text": "text", "label": "label"}})  # fmt: skip
    assert load_task(run.path / "task.toml").classification.windows
    loaded = bert_ft.load(run.path / "model")
    assert loaded.adapter.task.classification.windows and loaded.adapter.task.classification.stride == 4
    assert not loaded.notes, "nothing of its own config is passed over"
    assert run.results["counts"]["train"]["windows"] > len(ROWS)
