"""Promise 12: an answer is a function of its row, whoever shares the batch; and what is done for it changes no training."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

import bert_ft
from bert_ft.engine import batches, inference, loop, sharing
from bert_ft.engine.accelerator import accelerator
from bert_ft.engine.sharing import Sharing
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification
from bert_ft.families.features import Features
from bert_ft.modeling import requirements

SMALL: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "intermediate_size": 40, "max_position_embeddings": 64}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Any:
    return tf.AutoTokenizer.from_pretrained(tiny_checkpoint)


def ragged(lengths: list[int], ids: int = 50) -> Features:
    """Rows of random tokens between 5 and `ids`."""
    random, offsets = np.random.default_rng(0), np.concatenate([[0], np.cumsum(lengths)])
    tokens = {"input_ids": random.integers(5, ids, offsets[-1])}
    return Features(offsets, tokens, {"labels": np.arange(len(lengths)) % 2}, np.ones(len(lengths)))


def adapter(**settings: Any) -> Classification:
    task = bert_ft.load_task("classification").override({"data.labels": ["a", "b"], **settings})
    return Classification(task, ["a", "b"])


# --- batches ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 3), st.integers(1, 5))
def test_micro_batches_of_one_key_divide_the_batch(lengths: list[int], processes: int, parts: int) -> None:
    keys, rows = np.array(lengths), np.random.default_rng(0).permutation(len(lengths))
    shares = [batches.divide(rows, processes, rank, parts, keys) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1, "each collective call needs its partner"
    most = math.ceil(math.ceil(len(rows) / processes) / parts)
    for share, plain in zip(shares, np.array_split(rows, processes), strict=True):
        assert sorted(np.concatenate(share).tolist()) == sorted(plain.tolist())
        assert all(len(set(keys[part])) <= 1 and len(part) <= most for part in share)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200), st.sampled_from([None, 50])
)
def test_evaluation_batches_of_equal_lengths(lengths: list[int], budget: int, width: int | None) -> None:
    features = ragged(lengths)
    keys = Sharing(equal_lengths=True).keys(features, True)
    found = batches.by_length(features, budget, keys, width)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    for rows in found:
        assert len(set(features.lengths[rows])) == 1
        assert len(rows) == 1 or len(rows) * max(features.lengths[rows].max(), width or 0) <= budget


def test_equal_lengths_change_no_gradient() -> None:
    """The loss and the gradients of a step in micro-batches of one length are those of the padded batch."""
    torch.manual_seed(0)
    model, features = (
        tf.BertForSequenceClassification(tf.BertConfig(**SMALL)).eval(),
        ragged([9, 3, 9, 5, 3, 3, 12, 1]),
    )
    device, results = accelerator("fp32"), []
    for keys in (None, Sharing().keys(features, True)):
        twin, rows = copy.deepcopy(model), np.arange(8)
        micro = batches.divide(rows, 1, 0, 1, keys)
        assert len(micro) == (1 if keys is None else 5)
        pads = SimpleNamespace(pad_token_id=0)
        model_ = SimpleNamespace(
            network=twin, adapter=adapter(), tokenizer=pads, accelerator=device, sharing=None
        )
        loss = loop._Training(model_, features, print, print, None, (), None)._backward(rows, micro)
        gradients = [p.grad.flatten() for p in twin.parameters() if p.grad is not None]
        results.append(torch.cat([loss[None], *gradients]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


# --- the question -----------------------------------------------------------------------------------------------------


class Pooling(torch.nn.Module):
    """The mean over all positions, the padding among them: it leaks."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, 0] + self.share * hidden.mean(1)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_leak_is_told_from_rounding(tokenizer: Any, share: float, kind: torch.dtype) -> None:
    """A leak of a hundredth shows in every precision; where there is none, bf16's rounding of as much does not count."""
    torch.manual_seed(0)
    model = tf.BertForSequenceClassification(tf.BertConfig(**SMALL | {"vocab_size": len(tokenizer)})).to(kind)
    model.bert.pooler = Pooling(share)
    model.train()
    answer, notes = sharing.find(model, adapter(), tokenizer, 48)
    assert (answer.equal_lengths, len(notes)) == (share > 0, int(share > 0))
    assert model.training


def test_answers_do_not_depend_on_the_batch(tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = tf.BertConfig(**SMALL | {"vocab_size": 60})
    model, device = tf.BertForSequenceClassification(config), accelerator("fp32")
    model.bert.pooler = Pooling(1.0)
    features = ragged([9, 3, 9, 5, 3, 3, 12, 1])

    def logits(part: Features, rule: Sharing) -> np.ndarray:
        return inference.predict(model, adapter(), part, device, pad=0, tokens=4096, sharing=rule)

    ends = features.offsets
    singles = [Features(np.array([0, ends[i + 1] - ends[i]]), {"input_ids": features.tokens["input_ids"][ends[i]:ends[i + 1]]},
                        {}, np.ones(1)) for i in range(8)]  # fmt: skip
    alone = np.concatenate([logits(one, sharing.ANY) for one in singles])
    assert np.abs(logits(features, sharing.ANY) - alone).max() > 1e-3
    assert np.abs(logits(features, Sharing(equal_lengths=True)) - alone).max() < 1e-6


# --- heads that look for an end token ---------------------------------------------------------------------------------


def test_rows_with_as_many_end_tokens_share_a_batch() -> None:
    """BART's head refuses a batch whose rows have different numbers of them, as where one stands in a text."""
    features = ragged([6, 6, 6, 6])
    features.tokens["input_ids"][[5, 11, 17, 23]] = 2
    assert Sharing(end_token=2).keys(features, False) is None
    features.tokens["input_ids"][8] = 2
    keys = Sharing(end_token=2).keys(features, False)
    assert keys is not None and keys.tolist() == [0, 1, 0, 0]
    with pytest.raises(InputError, match="row 2"):
        Sharing(end_token=2, ends=1).keys(features, False)


# --- what configurations leave open -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("longest", "used"), [(28, "original_full"), (29, "block_sparse")])
def test_bigbird_keeps_its_attention(tokenizer: Any, longest: int, used: str) -> None:
    """The longest row that there can be decides, not the first batch; a short row then gets what it got before."""
    torch.manual_seed(0)
    config = tf.BigBirdConfig(**SMALL | {"vocab_size": len(tokenizer)}, block_size=4, num_random_blocks=1)
    model = tf.BigBirdForSequenceClassification(config).eval()
    rule, notes = requirements.settle(model, tokenizer, longest)
    assert model.config.attention_type == model.bert.attention_type == used
    assert rule.width == (None if used == "original_full" else longest) and len(notes) == 1
    features, device = ragged([longest, 5, 20, 5]), accelerator("fp32")
    first, second = (
        inference.predict(model, adapter(), features, device, pad=0, tokens=budget, sharing=rule)
        for budget in (30, 4096)
    )
    assert np.abs(first - second).max() < 1e-6
    assert model.bert.attention_type == used


def test_positions_are_counted_once() -> None:
    """LiLT has two embeddings of positions that begin behind the padding's; LED's decoder has fewer than its encoder;
    CANINE has as many as hash buckets; XLNet says -1."""
    size = SMALL | {"hidden_size": 48}
    assert requirements.positions(tf.LiltModel(tf.LiltConfig(**size | {"max_position_embeddings": 66}))) == 65
    led = tf.LEDConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                       decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, attention_window=4,
                       max_encoder_position_embeddings=64, max_decoder_position_embeddings=32)  # fmt: skip
    assert requirements.positions(tf.LEDModel(led)) == 32
    xlnet = tf.XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=16)
    canine = tf.CanineConfig(**size, num_hash_buckets=64, downsampling_rate=4)
    assert requirements.positions(tf.CanineModel(canine)) == 64
    assert requirements.positions(tf.XLNetModel(xlnet)) is None


# --- equal inputs -----------------------------------------------------------------------------------------------------


class PerToken:
    """An adapter that reads something for each token: the hidden states."""

    inputs: ClassVar[dict[str, bool]] = {"text": True}

    def logits(self, outputs: Any) -> torch.Tensor:
        return outputs[0]


def repeated() -> Features:
    """Nine rows of five different texts; the last two have one text's ids, and types of their own."""
    texts = ragged([9, 3, 9, 5, 2])
    order = [2, 0, 1, 0, 4, 3, 2, 1, 1]
    ends = texts.offsets
    ids = np.concatenate([texts.tokens["input_ids"][ends[i] : ends[i + 1]] for i in order])
    lengths = texts.lengths[order]
    types = np.repeat(np.array([0, 0, 0, 0, 0, 0, 0, 0, 1]), lengths)
    tokens = {"input_ids": ids, "token_type_ids": types}
    return Features(np.concatenate([[0], np.cumsum(lengths)]), tokens, {}, np.ones(len(order)))


def test_equal_inputs_are_computed_once_and_answered_each() -> None:
    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(tf.BertConfig(**SMALL))
    device, features = accelerator("fp32"), repeated()
    assert batches.first_equals(features).tolist() == [0, 1, 2, 1, 4, 5, 0, 2, 8]
    seen: list[int] = []
    words = network.bert.embeddings.word_embeddings
    words.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    for reader, model in ((adapter(), network), (PerToken(), network.bert)):
        for tokens in (12, 4096):
            results = []
            for once in (True, False):
                seen.clear()
                results.append(
                    inference.predict(model, reader, features, device, pad=0, tokens=tokens, deduplicate=once)
                )
                assert sum(seen) == (6 if once else 9)
            assert results[0].shape == results[1].shape
            np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    assert len(np.unique(results[0].round(4), axis=0)) > 9, "the texts differ"


def test_the_same_input_has_the_same_answer_to_the_bit() -> None:
    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(tf.BertConfig(**SMALL))
    result = inference.predict(network, adapter(), repeated(), accelerator("fp32"), pad=0, tokens=20)
    assert (result[1] == result[3]).all() and (result[0] == result[6]).all()
    assert (result[2] != result[8]).all(), "of other types"


def test_a_cpu_takes_what_makes_it_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of a forward: those that were asked for, at most 1,024; other devices what was asked for."""
    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(tf.BertConfig(**SMALL))
    features, seen = ragged([40] * 120), []
    network.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for precision, tokens, most in (("fp32", 4096, 1000), ("fp32", 200, 200), ("bf16", 4096, 1000)):
        inference.predict(network, adapter(), features, accelerator(precision), pad=0, tokens=tokens)
        assert max(seen) == most, (precision, tokens)
        seen.clear()
    gpu: Any = SimpleNamespace(device=torch.device("cuda"), mixed_precision="bf16")
    assert inference.useful(100_000, gpu) == 100_000


@pytest.mark.parametrize("per_token", [False, True])
def test_parts_of_other_processes_are_put_where_they_belong(
    per_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(tf.BertConfig(**SMALL))
    reader, model = (PerToken(), network.bert) if per_token else (adapter(), network)
    features, device = repeated(), accelerator("fp32")
    expected = inference.predict(model, reader, features, device, pad=0, tokens=12)
    gathered: list[list[Any]] = []
    monkeypatch.setattr(inference, "gather_object", lambda mine: gathered.append(mine) or mine)

    def one(rank: int) -> Any:
        process = SimpleNamespace(
            device=device.device, mixed_precision="no", autocast=device.autocast, process_index=rank, num_processes=3
        )  # fmt: skip
        return inference.predict(model, reader, features, process, pad=0, tokens=12)

    for rank in range(3):
        with pytest.raises(AssertionError, match="twice or not at all"):
            one(rank)
    everyone = [part for mine in gathered for part in mine]
    assert len({len(mine) for mine in gathered}) == 2, "one has a batch less"
    monkeypatch.setattr(inference, "gather_object", lambda mine: everyone)
    for rank in range(3):
        np.testing.assert_allclose(one(rank), expected, atol=1e-6)
    monkeypatch.setattr(inference, "gather_object", lambda mine: [*everyone, everyone[0]])
    with pytest.raises(AssertionError, match="twice or not at all"):
        one(0)
