"""Checkpoints stored in half precision train as their float32 copies do: master weights are float32, and it is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from tiny_models import SIZES

import bert_ft

CONFIGS: dict[str, Any] = {
    "bert": lambda **sizes: tf.BertConfig(**sizes),
    "deberta-v2": lambda **sizes: tf.DebertaV2Config(
        **sizes, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ROWS = [
    {"text": f"a {word} film about {name}", "label": label}
    for word, label in (("fine", "pos"), ("dull", "neg"), ("warm", "pos"), ("flat", "neg"))
    for name in ("love", "rain", "a dog", "two very old friends")
]
SETTINGS = {"max_steps": 8, "batch_size": 4, "max_length": 16, "learning_rate": 1e-3, "log_every": 1,
            "eval_every": 4}  # fmt: skip


@pytest.fixture(params=[(kind, dtype) for kind in CONFIGS for dtype in DTYPES], ids="-".join)
def pair(request: Any, tiny_checkpoint: Path, tmp_path: Path) -> tuple[Path, Path, str]:
    """(folder with weights in half precision, the same values in float32, the type's name)."""
    kind, name = request.param
    torch.manual_seed(0)
    config = CONFIGS[kind](**SIZES | {"vocab_size": 300, "initializer_range": 0.05})
    model = tf.AutoModel.from_config(config).to(DTYPES[name])
    for folder, copy_ in ((tmp_path / "half", model), (tmp_path / "full", copy.deepcopy(model).float())):
        copy_.save_pretrained(folder)
        tf.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return tmp_path / "half", tmp_path / "full", name


def train(folder: Path, output: Path, **settings: Any) -> Any:
    for name, rows in (("train", ROWS), ("validation", ROWS[::4])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {name: folder / f"{name}.jsonl" for name in ("train", "validation")}
    return bert_ft.finetune(
        "classification", folder, output=output, quiet=True, **files, **SETTINGS | settings
    )


def losses(run: Any) -> list[float]:
    return [entry["loss"] for entry in run.log if "loss" in entry]


def test_half_precision_trains_as_its_float32_copy(pair: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Dropout is on: the same seed draws the same. Lean steps and others, with each type and each model."""
    half, full, name = pair
    config = tf.AutoConfig.from_pretrained(half)
    lean = (config.model_type == "bert") == (name == "float16")
    ours = train(half, tmp_path / "a", **{"batching.lean": lean})
    theirs = train(full, tmp_path / "b", **{"batching.lean": lean})
    assert len(losses(ours)) == 8
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-6)
    assert f"the checkpoint's weights are stored in {name}; here they are float32" in ours.results["notes"]
    assert not any("stored in" in note for note in theirs.results["notes"])
    saved = load_file(ours.path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_saved_as_the_file_was_if_asked(pair: tuple[Path, Path, str], tmp_path: Path) -> None:
    """What is scored is what the saved model gives; a plain reader gets the stored type."""
    half, _, name = pair
    run = train(half, tmp_path / "run", save_dtype="checkpoint")
    folder = run.path / "model"
    saved = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {DTYPES[name]}
    assert tf.AutoModelForSequenceClassification.from_pretrained(folder).dtype == DTYPES[name]
    assert next(bert_ft.load(folder).network.parameters()).dtype == torch.float32
    assert run.evaluate() == run.metrics
    stored = bert_ft.load(folder, dtype="checkpoint")
    assert next(stored.network.parameters()).dtype == DTYPES[name]
    assert stored.unpadding.active == bert_ft.load(folder).unpadding.active
    with pytest.raises(bert_ft.InputError, match="none of auto, float32, bfloat16, int8 and checkpoint"):
        bert_ft.load(folder, dtype="bf16")
    answers = bert_ft.load(folder).predict([row["text"] for row in ROWS[::4]])
    lines = run.predictions()
    assert [line["prediction"] for line in answers] == [line["prediction"] for line in lines]
    for answer, line in zip(answers, lines, strict=True):
        assert answer["probabilities"] == pytest.approx(line["probabilities"], rel=1e-5)
    for answer, line in zip(stored.predict([row["text"] for row in ROWS[::4]]), lines, strict=True):
        assert answer["probabilities"] == pytest.approx(line["probabilities"], abs=0.05)


def test_a_model_object_in_half_precision_is_trained_in_float32(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = tf.AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2).bfloat16()
    run = bert_ft.finetune(
        "classification", train=ROWS, output=tmp_path / "run", quiet=True, model=model,
        tokenizer=tf.AutoTokenizer.from_pretrained(tiny_checkpoint), validation="25%", **SETTINGS,
    )  # fmt: skip
    assert model.dtype == torch.float32
    assert "the model's weights were bfloat16; they are trained in float32" in run.results["notes"]
