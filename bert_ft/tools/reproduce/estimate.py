"""How long a run will take, from a few real steps: `python -m bert_ft.tools.reproduce.estimate TASK.toml`, in
a process of its own, so that no memory of a GPU stays taken."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.errors import BertFtError, InputError
from bert_ft.jobs import local

STEPS, ROWS, WARM = 6, 256, 2  # optimizer steps timed; rows scored; steps before, which are slower


def cost(task: Task, environment: Mapping[str, str], trusted: Sequence[str] = ()) -> dict[str, float]:
    """Seconds and bytes of one run, measured in a child process; `trusted` as for `loading.build`.

    Returns:
        `seconds` of a whole run with its start and its evaluations; `bytes_training` and `bytes_kept` on the
        disk.
    Raises:
        InputError: the task's data or checkpoint is at fault; with the child's message.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.toml"
        file.write_text(tomli_w.dumps(task.dump()), encoding="utf-8")
        command = local.python(__name__, str(file), *trusted)
        done = subprocess.run(command, env=dict(environment), text=True, capture_output=True)
    if done.returncode:
        message, _, remedy = done.stderr.strip().rpartition("bert-ft: ")[2].partition("\n")
        raise InputError(message or f"exit code {done.returncode}", remedy=" ".join(remedy.split()))
    costs: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    costs["seconds"] += time.perf_counter() - began - costs.pop("timed")
    return costs


def measure(task: Task, trusted: Sequence[str] = ()) -> dict[str, float]:
    """`cost` without the start: steps and scoring alone; `timed` is what the measurement of them took."""
    import numpy as np

    from bert_ft import families
    from bert_ft.engine import callbacks, loop
    from bert_ft.engine.batches import Plan
    from bert_ft.modeling.loading import build
    from bert_ft.prepared import prepare

    class Clock(callbacks.Callback):
        stamps: list[float] = []  # noqa: RUF012 - there is one

        def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
            self.stamps.append(time.perf_counter())

    recipe = task.recipe
    prepared = prepare(task, families.find(task.family), trusted=trusted)
    splits = prepared.splits
    model, _ = build(prepared.task, prepared.adapter, recipe.precision, trusted=trusted, steps=True)
    features = model.encode(splits.train)
    plan = Plan.of(recipe, len(features), task.run.seed)
    short = prepared.task.override(
        {"recipe.max_steps": min(plan.steps, STEPS), "recipe.eval_every": STEPS + 1}
    )
    start, clock = time.perf_counter(), Clock()
    loop.train(
        replace(model, adapter=model.adapter.rebound(short)),
        features,
        evaluate=lambda: {task.best_metric[0]: {task.best_metric[1]: 0.0}},
        log=lambda entry: None,
        callbacks=[clock],
    )
    stamps = clock.stamps[min(WARM, len(clock.stamps) - 1) :]
    step = (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else stamps[-1] - start
    rows = next(iter(splits.evaluation.values()))
    few = rows.take(np.arange(0, len(rows), max(1, len(rows) // ROWS)))
    scored = time.perf_counter()
    model.infer(few)
    row = (time.perf_counter() - scored) / len(few)
    evaluated, tested = (sum(map(len, sets.values())) for sets in (splits.evaluation, splits.test))
    every = plan.steps_per_epoch if isinstance(recipe.eval_every, str) else recipe.eval_every
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())
    kept = sum(part.table.nbytes for part in splits.evaluation.values())
    return {
        "seconds": plan.steps * step + ((-(-plan.steps // every) + 1) * evaluated + tested) * row,
        "timed": time.perf_counter() - start,
        "bytes_training": weights * 8.0,
        "bytes_kept": 2.0 * kept,  # the scored rows, and about as much of predictions and report
    }


if __name__ == "__main__":
    try:
        print(json.dumps(measure(load_task(sys.argv[1]), sys.argv[2:])))
    except BertFtError as error:
        sys.exit(f"bert-ft: {error}")
