"""A head fitted to frozen features, in every architecture: saved as a plain model, with the same answers loaded again,
padding-free and padded; where the network gets a layer that takes the mean, plain transformers has it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import census
import numpy as np
import pytest
import torch
import transformers as tf
import zoo
from test_lora import bert_ft_refuses, scaled

import bert_ft
from bert_ft.engine.last_linear import LastLinear
from bert_ft.pages import run_page

# a layer more, ModernBERT's own mean, shared layers, an encoder-decoder, words
QUICK = {"distilbert": ("classification",), "modernbert": ("classification",), "deberta-v2": ("ner",)}
NAMES = [name for name in zoo.ZOO if "+" not in name]
CASES = [
    pytest.param(name, family, marks=() if family in QUICK.get(name, ()) else pytest.mark.slow, id=f"{name}-{family}")
    for name in NAMES
    for family in census.cells(name)
]  # fmt: skip
REFUSED = ("does not end with a linear layer", "does not run on a few tokens")


def train(checkpoint: Path, family: str, out: Path, **settings: Any) -> Any:
    return bert_ft.finetune(
        family, str(checkpoint), train=zoo.rows(family, 0, 24), validation=zoo.rows(family, 24, 6), method="features",
        max_length=zoo.MAX, output=out, check=False, quiet=True, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "family"), CASES)
def test_heads_are_fitted(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    monkeypatch.setattr(run_page, "leave", lambda *_: None)
    tf.logging.set_verbosity_error()
    checkpoint = zoo.checkpoint(name, tmp_path / "checkpoint")
    try:
        run = train(checkpoint, family, tmp_path / "run")
    except bert_ft.InputError as error:
        if not any(words in error.message for words in REFUSED):
            bert_ft_refuses(checkpoint, family, tmp_path / "plain", error)
        return
    features = run.model.encode(run.model.adapter.rows(zoo.inputs(family, 40, 12)))
    answers = census.logits(run.model, features)
    folder = tmp_path / "run" / "model"
    again = bert_ft.load(folder)
    assert scaled(answers, census.logits(again, features)) < 1e-5
    for handle in (again.narrowing, again.unpadding):
        if handle is not None:
            handle.remove()
    assert scaled(answers, census.logits(again, features)) < 1e-4
    plain, info = getattr(tf, run.model.adapter.head).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if again.sharing.width is None:  # else plain transformers makes a batch of another width
        rows = again.adapter.rows(zoo.inputs(family, 40, 12))
        singles = [again.encode(rows.part(i, i + 1)) for i in range(len(rows))]
        found = [census._plain(plain.eval(), again, single) for single in singles]
        assert scaled(answers, np.concatenate(found)) < 1e-4
    head = LastLinear(again.network, again.adapter)
    assert torch.isfinite(head.module.weight).all() and head.module.weight.any()
