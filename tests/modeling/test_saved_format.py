"""What stands in `model/` for other readers than the installed `transformers`, which reads it as it did; that they do read
it is held by tests/architectures/test_older_readers.py."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from bert_ft.modeling import saved_format, saving
from tests.conftest import SENTENCES

ROTARY = {
    "full_attention": {"rope_type": "default", "rope_theta": 50.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
}
FULL, NEAR = "full_attention", "sliding_attention"


def modernbert(**changes: Any) -> Any:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 200}
    layers = changes.get("layer_types") or [FULL, NEAR, FULL, NEAR]
    return tf.ModernBertConfig(
        **sizes | {"num_hidden_layers": len(layers), "layer_types": layers, "rope_parameters": ROTARY} | changes,
        pad_token_id=0, bos_token_id=None, eos_token_id=None, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip


def save(folder: Path, model: Any, checkpoint: Path) -> dict[str, Any]:
    """The config.json of a saved model."""
    saving.save_model(folder, model, tf.AutoTokenizer.from_pretrained(checkpoint))
    saved: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return saved


def test_rotary_positions_stand_there_under_both_names(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tf.ModernBertForSequenceClassification(modernbert()).eval()
    saved = save(tmp_path / "model", model, tiny_checkpoint)
    assert (saved["global_rope_theta"], saved["local_rope_theta"]) == (50.0, 7.0)
    assert saved["global_attn_every_n_layers"] == 2
    assert saved["dtype"] == saved["torch_dtype"] == "float32"
    again = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert again.config.rope_parameters == ROTARY and again.config.layer_types == model.config.layer_types
    tokens = {"input_ids": torch.arange(30)[None], "attention_mask": torch.ones(1, 30)}
    with torch.inference_mode():
        assert torch.equal(again(**tokens).logits, model(**tokens).logits)
    # saved once more, from what was read
    assert save(tmp_path / "again", again, tiny_checkpoint) == saved


@pytest.mark.parametrize(("changes", "said"), [
    ({}, "computes the same"),
    ({"layer_types": [FULL, NEAR, NEAR, FULL]}, "computes the same"),
    ({"layer_types": [NEAR, FULL]}, "needs version 5 .* which of its layers attend to the whole text; .* answer wrongly"),
    ({"layer_types": [FULL, FULL, NEAR]}, "needs version 5"),
    ({"rope_parameters": ROTARY | {NEAR: {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}},
     "needs version 5 .* scale the positions of all layers alike"),
])  # fmt: skip
def test_what_older_versions_get_wrong_is_said(
    changes: dict[str, Any], said: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    network = tf.ModernBertForSequenceClassification(modernbert(**changes))
    save(tmp_path / "model", network, tiny_checkpoint)
    assert re.search(said, saved_format.older(tmp_path / "model"))


def test_an_architecture_that_nobody_tried_is_said(tmp_path: Path) -> None:
    tf.NomicBertConfig().save_pretrained(tmp_path)
    assert "was not tried" in saved_format.older(tmp_path)


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification", "single_label_classification"])
def test_the_activation_of_a_cross_encoder_is_named(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = tf.AutoConfig.from_pretrained(tiny_checkpoint, num_labels=1 if kind == "regression" else 2)
    # as of a checkpoint of sentence-transformers, whose head was another
    config.update({"problem_type": kind, "sentence_transformers": {"activation_fn": "x", "version": "5.7.0"},
                   "sbert_ce_default_activation_function": "x"})  # fmt: skip
    saved = save(tmp_path / "model", tf.BertForSequenceClassification(config), tiny_checkpoint)
    named = {"regression": "torch.nn.modules.linear.Identity", "single_label_classification": None}
    expected = named.get(kind, "torch.nn.modules.activation.Sigmoid")
    assert saved.get("sbert_ce_default_activation_function") == expected
    assert saved["sentence_transformers"].get("activation_fn") == expected
    assert saved["sentence_transformers"]["version"] == "5.7.0"


def test_special_tokens_of_ones_own_are_read_by_both(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[X1]", "[X2]"]})
    saving._save_tokenizer(tmp_path, tokenizer)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["additional_special_tokens"] == ["[X1]", "[X2]"] and "extra_special_tokens" not in saved
    assert not {"is_local", "local_files_only"} & saved.keys()
    again = tf.AutoTokenizer.from_pretrained(tmp_path)
    assert again.extra_special_tokens == ["[X1]", "[X2]"]
    texts = [*SENTENCES, "fine [X1]film[X2]"]
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert again.decode(again("fine [X1]")["input_ids"], skip_special_tokens=True) == "fine"


def test_all_files_of_a_model_are_for_the_same_people(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """safetensors wrote weights for their user alone: a colleague could read all of a run but its model."""
    from transformers import AutoModel, AutoTokenizer

    from bert_ft.modeling.saving import save_model

    model, tokenizer = (
        AutoModel.from_pretrained(tiny_checkpoint),
        AutoTokenizer.from_pretrained(tiny_checkpoint),
    )
    before = os.umask(0o027)
    try:
        save_model(tmp_path / "model", model, tokenizer)
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in modes and set(modes.values()) == {"0o640"}
