"""Promise 2 with soft targets: `Trainer` with torch's cross-entropy of probabilities gives the same losses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_lockstep
import torch.nn.functional as F
from test_lockstep import BATCH, InOurOrder
from test_processes import _launch, _steps

import bert_ft
from bert_ft.config.catalog import load_task
from bert_ft.data import overrides
from bert_ft.engine import loop
from bert_ft.kernels import padding_free
from bert_ft.modeling.loading import build
from bert_ft.prepared import prepare
from tests.conftest import SENTENCES

STEPS = 20


class Soft(InOurOrder):
    """`Trainer` whose labels are distributions."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        target = inputs.pop("labels")
        loss = F.cross_entropy(model(**inputs).logits, target)
        self.losses.append((loss.item(), len(target)))
        return loss


@pytest.mark.parametrize("accumulation", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_soft_targets_have_trainer_s_losses(
    accumulation: int, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    texts = [f"{text} {i}" for i in range(4) for text in SENTENCES]
    rows = [
        {"text": text, "p": dict(zip("abc", random.dirichlet(np.ones(3)).tolist(), strict=True))}
        for text in texts
    ]
    named = overrides.sets(rows, rows[:5], None)
    settings = {"max_grad_norm": 1.0, "gradient_accumulation_steps": accumulation, "warmup_ratio": 0.0,
                "weight_decay": 0.0}  # fmt: skip
    recipe = settings | {"learning_rate": 2e-3, "batch_size": BATCH, "dropout": 0.0, "max_length": 64, "schedule": "constant",
                         "max_steps": STEPS, "eval_every": 1000, "log_every": 1, "precision": "fp32", "data.soft": "p",
                         "run.checkpoint": str(tiny_checkpoint)}  # fmt: skip
    task = overrides.bound(load_task("classification"), named, recipe)
    prepared = prepare(task, bert_ft.families.find("classification"), overrides.objects(named))
    built = build(prepared.task, prepared.adapter, "fp32")[0]
    features = built.encode(prepared.splits.train)
    losses: list[float] = []
    loop.train(
        replace(built, network=copy.deepcopy(built.network)), features,
        evaluate=lambda: {"validation": {prepared.task.best_metric[1]: 0.0}},
        log=lambda entry: losses.append(entry["loss"]) if "loss" in entry else None,
    )  # fmt: skip
    padding_free.restore(built.network)
    monkeypatch.setattr(test_lockstep, "InOurOrder", Soft)
    theirs = test_lockstep._trainer(
        prepared.task, replace(features, values={"labels": features.values["soft"]}), built.network, settings,
        tmp_path / "trainer", STEPS,
    )  # fmt: skip
    assert len(losses) == len(theirs) == STEPS and max(theirs) - min(theirs) > 0.02
    assert np.allclose(losses, theirs, rtol=1e-4, atol=0), np.abs(np.divide(losses, theirs) - 1).max()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rtol"), [("fp32", 1e-5), ("bf16-steps", 2e-2)])
def test_two_processes_divide_a_batch_of_soft_targets(
    precision: str, rtol: float, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Promise 3: some rows have class weights' worth of several labels, and 13 rows are a batch that two don't divide."""
    random = np.random.default_rng(1)
    texts = [f"{text} {i}" for i in range(5) for text in SENTENCES]
    rows = [
        {"text": text, "p": dict(zip(("好", "坏"), random.dirichlet(np.ones(2)).tolist(), strict=True))}
        for text in texts
    ]
    for name, part in (("train", rows), ("dev", rows[:7])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    runs = []
    for processes in (1, 2):
        runs.append(tmp_path / f"run-{processes}")
        _launch(
            processes, "-m", "bert_ft", "train", "classification", "--train", str(tmp_path / "train.jsonl"), "--validation",
            str(tmp_path / "dev.jsonl"), "--checkpoint", str(tiny_checkpoint), "--output", str(runs[-1]), "--batch-size", "13",
            "--lr", "2e-3", "--max-steps", "8", "--no-baselines", "--set", "soft=p", "--set", "dropout=0.0", "--set",
            "log_every=1", "--set", 'class_weights={"好" = 3.0, "坏" = 0.5}', "--set", "warmup_ratio=0.0",
            "--set", f"precision={precision}",
        )  # fmt: skip
    one, two = ([entry["loss"] for entry in _steps(run)] for run in runs)
    assert len(one) == 8 and np.allclose(one, two, rtol=rtol)
    metrics = [json.loads((run / "results.json").read_text())["metrics"]["validation"] for run in runs]
    assert metrics[0] == pytest.approx(metrics[1], rel=10 * rtol) and metrics[0]["kl_divergence"] > 0
