"""What a recipe leaves open is settled by the number of rows; what it says stays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.config.catalog import load_task
from bert_ft.config.few_rows import LEAST, MOST, settled
from bert_ft.engine.batches import Plan

ROWS = [{"text": f"the film {i}", "label": "good" if i % 2 else "bad"} for i in range(20)]


def _steps(rows: int, **settings: Any) -> int:
    recipe = settled(load_task("classification").override(settings), rows)[0].recipe
    return Plan(rows, recipe.batch_size, recipe.epochs, 0, recipe.max_steps).steps


@pytest.mark.parametrize("rows", [1, 7, 20, 200, 1000, 3000, 3168])
def test_a_training_has_hundreds_of_steps(rows: int) -> None:
    task, line = settled(load_task("classification"), rows)
    assert LEAST <= _steps(rows) < 2 * LEAST
    assert f"{rows:,} training rows" in line and "--epochs N" in line
    every = task.recipe.eval_every
    assert isinstance(every, int) and math.ceil(_steps(rows) / every) == 3
    assert task.recipe.warmup_ratio == 0.1


def test_many_rows_are_trained_as_ever() -> None:
    for rows in (3169, 100_000):  # 100 steps an epoch
        assert settled(load_task("classification"), rows) == (load_task("classification"), "")


def test_what_is_said_stays() -> None:
    """Length, rate, batch, warmup, patience: each alone, through overrides, and the recipe of a built-in task."""
    for key in ("epochs", "max_steps"):
        assert settled(load_task("classification").override({key: 3}), 20)[1] == ""
    said = {"learning_rate": 3e-5, "batch_size": 32, "warmup_steps": 7, "patience": 2}
    for key, value in said.items():
        task = load_task("classification").override({key: value}).override({"seed": 3})
        recipe = settled(task, 20)[0].recipe
        assert getattr(recipe, key) == value
        assert recipe.epochs > 100 or key == "batch_size"
    assert settled(task, 20)[0].recipe.eval_every == "epoch"
    assert settled(load_task("classification").override({"warmup_steps": 7}), 20)[0].recipe.warmup_ratio == 0
    assert settled(load_task("mrpc"), 20)[1] == ""
    assert settled(load_task("classification").override({"method": "features"}), 20)[1] == ""


def test_contrastive_training_passes_ten_times() -> None:
    assert _steps(16, method="contrastive") == 10
    assert _steps(48, method="contrastive") == 30
    assert _steps(100_000, method="contrastive") == MOST


def test_a_run_tells_and_records_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Its task.toml has the settled recipe, so that it repeats the run; the same call finds it finished."""
    call: dict[str, Any] = {"train": ROWS, "validation": ROWS, "method": "contrastive", "quiet": True}
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **call)
    assert run.results["steps"] == 20
    assert any(note.startswith("20 training rows") for note in run.results["notes"])
    assert load_task(tmp_path / "run" / "task.toml").recipe.epochs == 10
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **call)
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before
