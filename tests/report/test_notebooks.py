"""What a notebook's cells show, and what is left of a cell that was interrupted; the listing of runs."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import bert_ft

Runs = dict[str, bert_ft.Run]
QUICK = {"epochs": 2, "batch_size": 8, "max_length": 16, "learning_rate": 3e-3, "eval_every": 2}


def shown(value: Any, kind: str) -> str:
    """What IPython's display asks an object for."""
    method = getattr(value, f"_repr_{kind}_")
    out = method()
    assert isinstance(out, str)
    return out


def test_a_run_and_a_task_show_themselves(runs: Runs) -> None:
    run = runs["classes"]
    text = shown(run, "html")
    assert "<svg" in text and "<table" in text and f"{run.metrics['validation']['accuracy']:.4f}" in text
    assert "<script>" not in text and "<img" not in text and "var(--" not in text
    figure = run.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "loss",
        "accuracy",
        "learning rate",
        "gradient norm",
    ]
    losses = [entry["loss"] for entry in run.log if "loss" in entry]
    assert figure.axes[0].lines[0].get_ydata().tolist() == losses and "#2463c9" in shown(figure, "svg")
    task = shown(run.task, "html")
    assert "&lt;img src=x" in task and "<img" not in task and "learning_rate" in task


@pytest.mark.parametrize("step", [3, 4])
def test_an_interrupted_cell_leaves_a_run(
    reviews: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Interrupted between two evaluations or in the middle of one: it can be shown and used, and resumed it ends as the
    run that was not interrupted."""

    class Interrupts(bert_ft.Callback):
        def on_step(self, at: int, entry: Any) -> None:
            if at == step:
                raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    rows = {
        "train": reviews / "train.csv",
        "validation": reviews / "validation.csv",
        "quiet": True,
        "save_every": 1,
    }
    whole = bert_ft.finetune("classification", str(tiny_checkpoint), output="whole", **rows, **QUICK)  # type: ignore[arg-type]
    first = bert_ft.finetune("classification", str(tiny_checkpoint), **rows, **QUICK)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        bert_ft.finetune("classification", str(tiny_checkpoint), callbacks=[Interrupts()], **rows, **QUICK)  # type: ignore[arg-type]
    (left,) = (p for p in Path("runs").iterdir() if p.name.endswith("-2"))
    run = bert_ft.load(left)
    assert "unfinished" in repr(run) and "unfinished" in shown(run, "html") and "<svg" in shown(run, "html")
    called = bert_ft.load(left, settings={"batching.eval_tokens": 64})  # an unfinished run follows them, too
    assert called.model.adapter.task.batching.eval_tokens == 64
    assert run.log[-1]["step"] in (2, step) and run.predict("a warm film")[0]["prediction"] in ("neg", "pos")
    resumed = bert_ft.finetune("classification", str(tiny_checkpoint), resume=True, **rows, **QUICK)  # type: ignore[arg-type]
    assert resumed.path == left and resumed.metrics == whole.metrics == first.metrics
    weights = [(p / "model" / "model.safetensors").read_bytes() for p in (left, whole.path)]
    assert weights[0] == weights[1] and "resumed" in resumed.environment


def test_an_interrupt_before_any_weights_is_told(
    reviews: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    class Interrupts(bert_ft.Callback):
        def on_start(self, plan: Any, features: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "run", train=reviews / "train.csv", quiet=True,
                         validation=reviews / "validation.csv", callbacks=[Interrupts()], **QUICK)  # type: ignore[arg-type]  # fmt: skip
    run = bert_ft.load(tmp_path / "run")
    assert "unfinished" in shown(run, "html")
    with pytest.raises(bert_ft.InputError, match="before it saved any weights"):
        run.predict("a film")


def test_runs_are_sorted_and_filtered(runs: Runs, cli: Any) -> None:
    folder = next(iter(runs.values())).path.parent

    def listed(*options: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(cli("runs", folder, *options, "--json").out)
        return rows

    assert [row["run"] for row in listed()] == sorted(str(run.path) for run in runs.values())
    values = [row["value"] for row in listed("--sort", "value")]
    assert len(values) == 6 and values == sorted(values, key=lambda v: (v is None, -(v or 0)))
    assert [row["task"] for row in listed("--task", "classes", "--sort", "seconds")] == ["classes", "classes"]
    assert (
        len(listed("--checkpoint", "tiny", "--state", "finished")) == 6
        and listed("--state", "unfinished") == []
    )
    assert "none of 6 runs" in cli("runs", folder, "--task", "none").err
    refused = cli("runs", folder, "--sort", "valeu")
    assert refused.code == 2 and "did you mean 'value'?" in refused.err
