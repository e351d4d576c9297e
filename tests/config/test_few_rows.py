"""What a recipe leaves open is settled by the number of rows; what it says stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.config.catalog import load_task
from bert_ft.config.few_rows import LEAST, MOST, settled
from bert_ft.engine.batches import Plan

ROWS = [{"text": f"the film {i}", "label": "good" if i % 2 else "bad"} for i in range(20)]


def _steps(rows: int, **settings: Any) -> int:
    return Plan.of(settled(load_task("classification").override(settings), rows)[0].recipe, rows, 0).steps


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        (1, 300),
        (7, 300),
        (200, 300),
        (480, 300),
        (500, 320),
        (600, 380),
        (960, 600),
        (3200, 600),
        (3201, 603),
        (6368, 1194),
    ],
)
def test_a_training_has_hundreds_of_steps(rows: int, steps: int) -> None:
    """At least 300, and ten passes up to 600; no fewer than three epochs."""
    task, line = settled(load_task("classification"), rows)
    assert _steps(rows) == steps
    assert f"{rows:,} training rows" in line and "--epochs" in line
    assert f"min_steps {steps}," in line and task.recipe.warmup_ratio == 0.1


@pytest.mark.parametrize("batch", [None, 7, 64])
def test_it_is_scored_three_times(batch: int | None) -> None:
    """At equal distances, and the third time after its last step, whosever the batches are."""
    task = load_task("classification").override({} if batch is None else {"batch_size": batch})
    found = set()
    for rows in range(1, 6_369, 41):
        changed, line = settled(task, rows)
        if line:
            every, steps = changed.recipe.eval_every, Plan.of(changed.recipe, rows, 0).steps
            assert isinstance(every, int) and every - 2 <= steps - 2 * every <= every
            found.add(steps)
    assert len(found) > 1


def test_more_rows_are_never_fewer_steps_or_passes() -> None:
    """Steps grow with the rows up to where nothing is settled any more, and there are three passes then too."""
    rows = range(1, 6_369, 97)
    steps = [_steps(number) for number in rows]
    assert steps == sorted(steps)
    assert min(n * 16 / number for n, number in zip(steps, rows, strict=True)) >= 3
    assert _steps(6_369) == 3 * 200  # of 32 rows


def test_windows_are_more_steps() -> None:
    """Rows are counted and features are trained on: a row in ten windows does not make ten times the steps."""
    recipe = settled(load_task("classification"), 20, windowed=True)[0].recipe
    assert Plan.of(recipe, 200, 0).steps == LEAST and recipe.eval_every == 100  # an epoch may be two steps
    for rows, every in ((480, 100), (481, "epoch"), (3000, "epoch")):
        assert settled(load_task("ner"), rows, windowed=True)[0].recipe.eval_every == every
    assert Plan.of(recipe, 20_000, 0).steps == 3750
    pairs = settled(load_task("classification").override({"method": "contrastive"}), 20, windowed=True)[
        0
    ].recipe
    assert Plan.of(pairs, 200, 0).steps == 20


def test_many_rows_are_trained_as_ever() -> None:
    for rows in (6369, 100_000):  # 200 steps an epoch
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
        assert recipe.min_steps == LEAST
    assert settled(task, 20)[0].recipe.eval_every == "epoch"
    assert settled(load_task("classification").override({"warmup_steps": 7}), 20)[0].recipe.warmup_ratio == 0
    assert settled(load_task("mrpc"), 20)[1] == ""
    assert settled(load_task("classification").override({"method": "features"}), 20)[1] == ""
    unused = load_task("classification").override({"method": "features", "epochs": 5, "patience": 2})
    assert settled(unused, 20)[1] == 'the method "features" takes no steps: epochs, patience have no effect'


def test_contrastive_training_passes_ten_times() -> None:
    assert _steps(16, method="contrastive") == 10
    assert _steps(48, method="contrastive") == 30
    assert _steps(100_000, method="contrastive") == MOST
    own = settled(load_task("classification").override({"method": "contrastive", "max_steps": 7}), 20)[
        0
    ].recipe
    assert (own.max_steps, own.batch_size, own.learning_rate, own.warmup_ratio) == (7, 16, 1e-4, 0.1)


def test_a_run_tells_and_records_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Its task.toml has the settled recipe, so that it repeats the run; the same call finds it finished."""
    call: dict[str, Any] = {"train": ROWS, "validation": ROWS, "method": "contrastive", "quiet": True}
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **call)
    assert run.results["steps"] == 20
    assert any(note.startswith("20 training rows") for note in run.results["notes"])
    assert load_task(tmp_path / "run" / "task.toml").recipe.max_steps == 20
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **call)
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before
