"""Promise 2 for question answering: `Trainer` given the masked loss has our 50 losses; its own loss has others."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_lockstep import BATCH, STEPS, InOurOrder, _build
from transformers import TrainingArguments

import bert_ft
from bert_ft.engine import batches, loop
from bert_ft.kernels.padding_free import restore


class Masked(InOurOrder):
    """`Trainer` whose softmax runs over real tokens alone; `own` keeps what the loss inside the model would be."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = torch.tensor(0.0)
        for side in ("start", "end"):
            logits = outputs[f"{side}_logits"] + (1 - inputs["attention_mask"]) * -1e9
            loss = loss + torch.nn.functional.cross_entropy(logits, inputs[f"{side}_positions"]) / 2
        self.losses.append((loss.item(), len(logits)))
        self.own.append(outputs.loss.item())
        return loss


@pytest.mark.slow
@pytest.mark.pretrained
def test_fifty_steps_have_trainers_masked_losses(minilm2: Path, tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8").split()
    rows = []
    for i in range(120):  # what stands behind a word, in contexts of very different length
        part = text[i : i + 10 + i % 30]
        context, word = " ".join(part), 5 + i % 6
        answer = " ".join(part[word + 1 : word + 3])
        place = len(" ".join(part[: word + 1])) + 1
        rows.append({"id": str(i), "question": f"what comes after {part[word]}", "context": context,
                     "answers": [{"text": answer, "answer_start": place}]})  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"learning_rate": 2e-4, "batch_size": BATCH, "dropout": 0.0, "max_length": 48, "warmup_ratio": 0.2,
              "weight_decay": 0.1, "max_grad_norm": 1.0, "max_steps": STEPS, "eval_every": 1000, "log_every": 1,
              "precision": "fp32", "doc_stride": 16, "max_answer_length": 8, "data.train": str(path),
              "data.evaluate": str(path), "run.checkpoint": str(minilm2)}  # fmt: skip
    task = bert_ft.load_task("qa").override(recipe)
    _, splits, built = _build(task)
    features = built.encode(splits.train)
    assert len(features) > len(rows), "several windows"
    losses: list[float] = []
    loop.train(
        replace(built, network=copy.deepcopy(built.network)), features,
        evaluate=lambda: {"validation": {task.best_metric[1]: 0.0}},
        log=lambda entry: losses.append(entry["loss"]) if "loss" in entry else None,
    )  # fmt: skip

    plan = batches.Plan(len(features), BATCH, 1, task.run.seed, STEPS)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=2e-4,
        lr_scheduler_type="linear", warmup_steps=0.2, weight_decay=0.1, max_grad_norm=1.0, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, remove_unused_columns=False, logging_strategy="no",
    )  # fmt: skip

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        inputs, values = batches.collate(features, np.array(indices), 0, torch.device("cpu"))
        return {**inputs, **{key: values[key] for key in ("start_positions", "end_positions")}}

    built.unpadding.remove()
    restore(built.network)
    trainer = Masked(
        model=built.network, args=arguments, data_collator=collate, train_dataset=list(range(len(features)))
    )
    theirs: list[tuple[float, int]] = []
    trainer.own = []
    trainer.feed([indices.tolist() for _, indices in plan.batches()], theirs)
    trainer.train()
    masked = [loss for loss, _ in theirs]
    assert len(losses) == len(masked) == STEPS
    assert max(masked) - min(masked) > 0.5, "nothing was learned: the comparison would hold for any optimizer"
    assert np.allclose(losses, masked, rtol=1e-4, atol=0), np.abs(np.divide(losses, masked) - 1).max()
    assert np.median(np.divide(trainer.own, masked)) > 1.01, (
        "the padding takes a share of the softmax inside transformers"
    )
    print(f"largest difference {np.abs(np.divide(losses, masked) - 1).max():.1e}; "
          f"unmasked / masked, median {np.median(np.divide(trainer.own, masked)):.3f}")  # fmt: skip
