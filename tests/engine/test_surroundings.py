"""What a person's own program has set in torch around a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bert_ft
from bert_ft.errors import InputError

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(12) for word in ("good", "bad")]


def train(checkpoint: Path, output: Path) -> bert_ft.Run:
    options: dict[str, Any] = {
        "batch_size": 8,
        "max_steps": 6,
        "max_length": 16,
        "log_every": 1,
        "learning_rate": 1e-3,
        "baselines": False,
        "precision": "fp32",
    }
    return bert_ft.finetune(
        "classification", str(checkpoint), train=ROWS, validation=ROWS, output=output, **options
    )


@pytest.mark.parametrize(
    ("around", "message"),
    [
        # its copies of the weights would stay those of the first step: nothing is learned
        (lambda: torch.autocast("cpu", torch.bfloat16), "inside `torch.autocast`"),
        (torch.no_grad, "inside `torch.no_grad` or `torch.inference_mode`"),
        (torch.inference_mode, "inside `torch.no_grad` or `torch.inference_mode`"),
    ],
)
def test_a_training_that_could_not_learn_is_refused(
    around: Any, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with around(), pytest.raises(InputError, match=message):
        train(tiny_checkpoint, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()
    train(tiny_checkpoint, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_log_is_the_same_under_any_default_type(
    dtype: torch.dtype, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    expected = [line["loss"] for line in train(tiny_checkpoint, tmp_path / "plain").log if "loss" in line]
    torch.set_default_dtype(dtype)
    try:
        run = train(tiny_checkpoint, tmp_path / "run")
    finally:
        torch.set_default_dtype(torch.float32)
    assert [line["loss"] for line in run.log if "loss" in line] == expected


def test_answers_are_the_same_inside_a_persons_autocast(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """They were bfloat16's, and a model loaded there was padded: its self-check had compared such numbers."""
    path = train(tiny_checkpoint, tmp_path / "run").path
    texts = [row["text"] for row in ROWS]
    expected = bert_ft.load(path)
    answers = expected.predict(texts)
    with torch.autocast("cpu", torch.bfloat16):
        assert expected.predict(texts) == answers
        run = bert_ft.load(path)
        assert run.predict(texts) == answers
    assert "padding-free" in run.model.unpadding.reason == expected.model.unpadding.reason
    with torch.device("meta"), pytest.raises(InputError, match="default device is 'meta'"):
        bert_ft.load(path).predict(texts)
