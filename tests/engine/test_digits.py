"""Numbers far from 0 keep their digits where steps or answers are computed in bfloat16, and the trial of
a network leaves it as it is, and tells what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from tiny_models import SIZES
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

import bert_ft
from bert_ft.kernels import cpu, processor

YEARS = [
    {"text": f"a {word} film {i}", "label": year}
    for i in range(24)
    for word, year in (("good", 2011.0), ("bad", 2009.0))
]
OPTIONS: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 40,
    "max_length": 16,
    "log_every": 1,
    "eval_every": 40,
    "learning_rate": 5e-3,
    "baselines": False,
    "problem_type": "regression",
}


@pytest.fixture(autouse=True)
def good_at_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    monkeypatch.setattr(cpu, "bf16_gain", lambda: 2.2)


def network_of(checkpoint: Path, start: float = 2010.0) -> Any:
    """With a head that begins at the mean of the years."""
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    with torch.no_grad():
        network.classifier.bias.fill_(start)
    return network


def train(checkpoint: Path, output: Path, network: Any, **more: Any) -> bert_ft.Run:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return bert_ft.finetune(
        "classification", model=network, tokenizer=tokenizer, train=YEARS, validation=YEARS, output=output,
        **OPTIONS | more,
    )  # fmt: skip


def losses(run: bert_ft.Run) -> list[float]:
    return [line["loss"] for line in run.log if "loss" in line]


@pytest.mark.parametrize("precision", ["auto", "bf16-steps", "bf16"])
def test_years_are_learned_in_bfloat16_as_in_float32(
    precision: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """In bfloat16 2,009 and 2,011 are both 2,008 or 2,016, as is every prediction."""
    exact = train(tiny_checkpoint, tmp_path / "exact", network_of(tiny_checkpoint), precision="fp32")
    network = network_of(tiny_checkpoint)
    rounded = train(tiny_checkpoint, tmp_path / "rounded", network, precision=precision)
    assert rounded.environment["precision"] == ("bf16" if precision == "bf16" else "bf16-steps")
    assert losses(rounded) == pytest.approx(losses(exact), rel=0.05, abs=0.02)
    error = [
        np.sqrt(np.mean([(line["prediction"] - line["label"]) ** 2 for line in run.predictions()]))
        for run in (exact, rounded)
    ]
    assert error[0] < 0.7, "float32 learns it: rows differ by 2 years"
    assert error[1] == pytest.approx(error[0], abs=0.1)
    assert not network.classifier._forward_hooks, "a person's own network is left as it was"


class Bounded(torch.nn.Module):
    """A head that does not end with a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = torch.nn.Linear(width, 1)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return 2000 + 20 * self.out(pooled).sigmoid()


@pytest.mark.parametrize(("precision", "chosen"), [("auto", "fp32"), ("bf16-steps", "bf16-steps")])
def test_a_head_that_ends_otherwise_gives_its_numbers_in_float32(
    precision: str, chosen: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    network = network_of(tiny_checkpoint)
    network.classifier = Bounded(network.config.hidden_size)
    run = train(tiny_checkpoint, tmp_path / "run", network, precision=precision, max_steps=4, eval_every=4)
    assert run.environment["precision"] == chosen
    notes = " ".join(run.results["notes"])
    reason = "the head of BertForSequenceClassification does not end with a linear layer, and half precision"
    assert reason in notes, "who asked for it is told, too"
    assert (f"trained in fp32: {reason}" in notes) == (chosen == "fp32")


def test_a_network_that_can_not_be_tried_is_not_said_to_have_another_head(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    network = network_of(tiny_checkpoint)
    plain = network.bert.forward
    separator = AutoTokenizer.from_pretrained(tiny_checkpoint).sep_token_id

    def forward(*args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        assert bool((ids == separator).any(1).all()), "there is no separator"
        return plain(*args, **kwargs)

    network.bert.forward = forward
    run = train(tiny_checkpoint, tmp_path / "run", network, max_steps=2, eval_every=2)
    notes = " ".join(run.results["notes"])
    assert run.environment["precision"] == "fp32" and "linear layer" not in notes
    assert "does not run on a few tokens of no meaning: there is no separator, and half precision" in notes


ROWS = [{"text": " ".join([word] * length), "label": word} for length in (3, 90) for word in ("good", "bad")]


def classify(folder: Path, output: Path, **more: Any) -> bert_ft.Run:
    settings = OPTIONS | {"max_steps": 2, "eval_every": 2, "batch_size": 2, "max_length": 128} | more
    del settings["problem_type"]
    return bert_ft.finetune(
        "classification", str(folder), train=ROWS, validation=ROWS, output=output, **settings
    )


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_self_checks_leave_block_sparse_attention_as_it_is(
    precision: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BigBird changes to full attention, for good, at the first short batch. Its sparse attention, which the
    run says it has, does not run in bfloat16."""
    sizes = SIZES | {"vocab_size": 300, "max_position_embeddings": 160}
    config = tf.BigBirdConfig(**sizes, block_size=8, num_random_blocks=1, attention_type="block_sparse")
    torch.manual_seed(0)
    tf.AutoModel.from_config(config).save_pretrained(tmp_path / "sparse")
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "sparse")
    seen: list[bool] = []
    plain = BigBirdBlockSparseAttention.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.training)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(BigBirdBlockSparseAttention, "forward", forward)

    class Watch(bert_ft.Callback):
        def on_start(self, *_: Any) -> None:
            seen.clear()

    run = classify(tmp_path / "sparse", tmp_path / "run", precision=precision, callbacks=[Watch()])
    assert sum(seen) == 2 * config.num_hidden_layers, "a forward of each layer in each step"
    assert len(seen) > sum(seen), "and so are answers"
    notes = " ".join(run.results["notes"])
    assert "block-sparse attention: every row is padded to 128 positions" in notes
    assert json.loads((run.path / "environment.json").read_text())["precision"] == "fp32"
    told = "trained in fp32: big_bird does not run in bf16 (RuntimeError: scatter" in notes
    assert told == (precision == "auto")


def test_what_can_not_be_tried_is_not_said_to_fail(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A network that refuses the tokens of no meaning in every precision."""
    network = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    plain = network.bert.forward
    separator = AutoTokenizer.from_pretrained(tiny_checkpoint).sep_token_id

    def forward(*args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        assert bool((ids == separator).any(1).all()), "there is no separator"
        return plain(*args, **kwargs)

    network.bert.forward = forward
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    runs = []
    for precision in ("auto", "bf16-steps"):
        settings = OPTIONS | {"max_steps": 2, "eval_every": 2, "precision": precision}
        del settings["problem_type"]
        run = bert_ft.finetune(
            "classification", model=network, tokenizer=tokenizer, train=ROWS, validation=ROWS,
            output=tmp_path / precision, **settings,
        )  # fmt: skip
        runs.append((run.environment["precision"], " ".join(run.results["notes"])))
    assert runs[0][0] == "fp32" and runs[1][0] == "bf16-steps"
    told = "trained in fp32: bert can't be tried in bf16 (AssertionError: there is no separator)"
    assert told in runs[0][1] and "in fp32" not in runs[1][1]


def test_a_network_of_float64_is_not_said_to_train_in_bf16(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Autocast leaves float64 as it is."""
    seen: set[torch.dtype] = set()
    network = network_of(tiny_checkpoint).double()
    handle = network.classifier.register_forward_hook(lambda *taken: seen.add(taken[2].dtype))
    run = train(tiny_checkpoint, tmp_path / "run", network, max_steps=2, eval_every=2)
    handle.remove()
    assert seen == {torch.float64}
    assert run.environment["precision"] != "bf16-steps" and "bf16_gain" not in run.environment
    assert "trained in float64" in " ".join(run.results["notes"])
