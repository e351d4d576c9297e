"""A loss of a person's own that gives something else than losses of rows, or their mean, is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import bert_ft

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(12) for word in ("good", "bad")]


def of_rows(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    return cross_entropy(logits, batch["labels"], reduction="none")


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda logits, batch: None, "it returned NoneType and no tensor"),
        (lambda logits, batch: of_rows(logits, batch).mean().item(), "it returned float and no tensor"),
        (lambda logits, batch: of_rows(logits, batch).detach(), "what it returned has no gradient"),
        (lambda logits, batch: of_rows(logits, batch)[:3], r"a tensor of shape \(3,\) for 8 rows"),
        (lambda logits, batch: of_rows(logits, batch)[:, None] * logits, r"of shape \(8, 2\) for 8 rows"),
        (lambda logits, batch: of_rows(logits, batch)[:, None], r"of shape \(8, 1\) for 8 rows"),
    ],
)
def test_what_is_no_loss_of_rows_is_refused(
    loss: Callable[..., Any], told: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(bert_ft.InputError, match=f"loss: .*{told}"):
        _train(tiny_checkpoint, tmp_path / "run", loss)


def test_losses_of_rows_and_their_mean_are_not(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Of the same rows they train alike."""
    losses = [
        next(entry["loss"] for entry in _train(tiny_checkpoint, tmp_path / name, loss).log if "loss" in entry)
        for name, loss in (
            ("rows", of_rows),
            ("mean", lambda logits, batch: of_rows(logits, batch).mean()),
            ("none", None),
        )
    ]
    assert losses == pytest.approx([losses[-1]] * 3, rel=1e-5)


def _train(checkpoint: Path, output: Path, loss: Callable[..., Any] | None) -> Any:
    torch.manual_seed(0)
    return bert_ft.finetune(
        "classification", str(checkpoint), train=ROWS, validation=ROWS, output=output, loss=loss,
        batch_size=8, max_steps=3, max_length=16, baselines=False, log_every=3,
    )  # fmt: skip
