"""Low-rank changes in every architecture: trained, saved merged or as an adapter, loaded again by us and by peft, with
the same answers; and nothing that is new stays frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import census
import numpy as np
import pytest
import transformers as tf
import zoo
from safetensors.torch import load_file

import bert_ft
from bert_ft.pages import run_page

# padding-free, padded, a new pooler, a whole new head, no queries by name, an encoder-decoder, shared layers
QUICK = {
    "bert": ("qa",),
    "modernbert": ("classification",),
    "xlnet": ("classification",),
    "deberta-v2": ("classification",),
    "albert": ("ner",),
}
NAMES = [name for name in zoo.ZOO if "+" not in name]
CASES = [
    pytest.param(name, family, marks=() if family in QUICK.get(name, ()) else pytest.mark.slow, id=f"{name}-{family}")
    for name in NAMES
    for family in census.cells(name)
]  # fmt: skip


def train(checkpoint: Path, family: str, out: Path, save: str, **settings: Any) -> Any:
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "save": save}
    return bert_ft.finetune(
        family, str(checkpoint), train=zoo.rows(family, 0, 16), validation=zoo.rows(family, 24, 6), max_steps=3, lora=lora,
        batch_size=8, max_length=zoo.MAX, learning_rate=1e-2, output=out, check=False, quiet=True, **settings,
    )  # fmt: skip


def scaled(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference, as a share of the largest logit (at least 1)."""
    return float(np.abs(first - second).max() / max(1.0, np.abs(first[first > census.MASKED]).max()))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_low_rank_changes_are_saved_and_loaded(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    monkeypatch.setattr(run_page, "leave", lambda *_: None)
    tf.logging.set_verbosity_error()
    checkpoint = zoo.checkpoint(name, tmp_path / "checkpoint")
    try:
        run = train(checkpoint, family, tmp_path / "adapter", "adapter")
    except bert_ft.InputError as error:
        if "has no linear modules in its layers" not in error.message:
            bert_ft_refuses(checkpoint, family, tmp_path / "plain", error)
        return
    features = run.model.encode(run.model.adapter.rows(zoo.inputs(family, 40, 12)))
    answers = census.logits(run.model, features)
    folder = tmp_path / "adapter" / "model"
    tensors = load_file(folder / "adapter_model.safetensors")
    assert not [*folder.glob("model*.safetensors")]
    # what the checkpoint did not have is there
    config = tf.AutoConfig.from_pretrained(folder)
    auto = getattr(tf, run.model.adapter.head)
    network, info = auto.from_pretrained(checkpoint, config=config, output_loading_info=True)
    assert {f"base_model.model.{key}" for key in info["missing_keys"]} <= tensors.keys()
    # Longformer's last local queries, and some of CANINE's, have no way to the first token; global ones of
    # Longformer and LED are for tokens that attend to all, which questions have none of
    learned = {key: bool(tensor.any()) for key, tensor in tensors.items() if ".lora_B." in key}
    assert any(learned.values())
    if name not in ("longformer", "canine"):
        assert not [key for key, value in learned.items() if not value and "_global." not in key]
    keys = network.state_dict().keys()
    # loaded again, padding-free and padded; and by peft
    again = bert_ft.load(folder)
    assert scaled(answers, census.logits(again, features)) < 1e-6
    if again.unpadding is not None:
        again.unpadding.remove()
        assert scaled(answers, census.logits(again, features)) < 1e-5
    if again.sharing.width is None:  # else plain transformers makes a batch of another width
        theirs = peft.PeftModel.from_pretrained(network, folder).eval()
        rows = again.adapter.rows(zoo.inputs(family, 40, 12))
        singles = [again.encode(rows.part(i, i + 1)) for i in range(len(rows))]
        found = [census._plain(theirs, again, single) for single in singles]
        assert scaled(answers, np.concatenate(found)) < 1e-5
    # merged: the same training, a plain model
    merged = train(checkpoint, family, tmp_path / "merged", "merged")
    assert scaled(answers, census.logits(merged.model, features)) < 1e-6
    assert scaled(answers, census.logits(bert_ft.load(tmp_path / "merged" / "model"), features)) < 1e-6
    assert auto.from_pretrained(tmp_path / "merged" / "model").state_dict().keys() == keys


def bert_ft_refuses(checkpoint: Path, family: str, out: Path, error: bert_ft.InputError) -> None:
    """An architecture that is refused with low-rank changes is refused without them, in the same words."""
    with pytest.raises(bert_ft.InputError, match=re.escape(error.message)):
        bert_ft.finetune(
            family, str(checkpoint), train=zoo.rows(family, 0, 16), validation=zoo.rows(family, 24, 6), max_steps=3,
            batch_size=8, max_length=zoo.MAX, output=out, check=False, quiet=True,
        )  # fmt: skip
