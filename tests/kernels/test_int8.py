"""Linear layers of 8 bits: the integer arithmetic that NumPy does, padded or not, alone or among others."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from tiny_models import CONFIGS, SIZES, batch, build, plain
from torch import Tensor, nn

from bert_ft.errors import InputError
from bert_ft.kernels import int8, last_layer
from bert_ft.kernels.padding_free import unpad

LENGTHS = [20, 1, 7, 1, 20, 13]
PADDED: dict[str, Any] = {"MPNet": tf.MPNetConfig, "DebertaV2": tf.DebertaV2Config, "XLNet": tf.XLNetConfig}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, levels: int = 127) -> np.ndarray:
    """A linear layer of 8 bits in int64 and float64: a scale for each token and each output channel."""
    rows = np.maximum(abs(x).max(-1, keepdims=True), 1e-300) / 127
    columns = np.maximum(abs(weight).max(-1, keepdims=True), 1e-300) / levels
    product = np.rint(x / rows).astype(np.int64) @ np.rint(weight / columns).astype(np.int64).T
    return product * rows * columns.T + (0 if bias is None else bias)


def layer(width: int, out: int, bias: bool = True) -> tuple[nn.Linear, Any]:
    """A plain layer and the same of 8 bits."""
    torch.manual_seed(width + out)
    linear = nn.Linear(width, out, bias=bias)
    changed = copy.deepcopy(linear)
    int8._in_place(changed, 127 if int8._is_exact(127) else 63)
    return linear, changed


@pytest.mark.parametrize(("width", "out", "bias"), [(7, 3, True), (64, 48, False), (384, 1536, True), (1, 1, True)])  # fmt: skip
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 33), (4, 9)])
def test_a_layer_is_what_numpy_computes(width: int, out: int, bias: bool, shape: tuple[int, ...]) -> None:
    linear, changed = layer(width, out, bias)
    x = torch.randn(*shape, width) * torch.logspace(-3, 3, shape[-1])[:, None]
    x[..., 0, :] = 0
    with torch.inference_mode():
        found = changed(x)
    b = linear.bias.detach().numpy() if bias else None
    levels = 127 if int8._is_exact(127) else 63
    expected = reference(x.double().numpy(), linear.weight.detach().double().numpy(), b, levels)
    assert found.shape == (*shape, out) and found.dtype == torch.float32
    size = abs(expected).max(-1, keepdims=True)
    # one activation in thousands is so near a half that float32 and float64 round it apart
    assert np.mean(abs(found.numpy() - expected) > 1e-5 * size) < 0.02
    assert (abs(found.numpy() - expected) <= 0.02 * size + 1e-6).all()


def test_a_token_has_the_same_numbers_in_any_batch() -> None:
    _, changed = layer(96, 80)
    x = torch.randn(200, 96) * torch.logspace(-4, 4, 200)[:, None]  # one scale for all would lose the small
    with torch.inference_mode():
        whole = changed(x)
        alone = torch.cat([changed(x[i : i + 1]) for i in range(200)])
        parts = torch.cat([changed(part) for part in x.split(37)])
    assert torch.equal(whole, alone) and torch.equal(whole, parts)
    assert len(whole.unique(dim=0)) == 200


def test_what_is_no_number_is_no_number_afterwards() -> None:
    _, changed = layer(8, 4)
    x = torch.ones(3, 8)
    x[1, 2] = float("nan")
    with torch.inference_mode():
        assert changed(x).isnan().all(1).tolist() == [False, True, False]
        assert changed(torch.zeros(0, 8)).shape == (0, 4)


def answers(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """All logits of real tokens, or of rows."""
    with torch.inference_mode():
        output = model(**inputs)
    if "start_logits" in output:
        output = torch.stack([output.start_logits, output.end_logits], -1)
    else:
        output = output.logits
    return output[inputs["attention_mask"].bool()] if output.dim() == 3 else output


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering"])
def test_padding_free_is_padded_of_the_same_model(name: str, head: str) -> None:
    if not hasattr(tf, f"{name}For{head}"):
        pytest.skip("no such head")
    exact = build(name, head).eval()
    free, padded = copy.deepcopy(exact), copy.deepcopy(exact)
    assert unpad(free).active
    narrowing = last_layer.narrow(free)
    kinds = [int8.quantize(model) for model in (free, padded)]
    assert kinds[0] == kinds[1] and "linear layers in 8 bits" in kinds[0]
    assert narrowing.active == (head[0] == "S" and name not in ("Albert", "EuroBert"))
    inputs = batch(LENGTHS)
    ours, theirs, full = (answers(model, inputs) for model in (free, padded, exact))
    # a rounding that falls to the other side is one level of 127, of one activation
    assert apart(ours, theirs) < 5e-3
    assert 1e-4 < apart(ours, full) < 0.2  # it is of 8 bits, and near
    if name == "MobileBert":  # its trigrams read the padding beside a row, in float32 too
        return
    starts = np.cumsum([0, *LENGTHS]) if len(ours) == sum(LENGTHS) else np.arange(len(LENGTHS) + 1)
    for row, length in enumerate(LENGTHS):
        alone = answers(free, {key: value[row : row + 1, :length] for key, value in inputs.items()})
        assert apart(alone, ours[starts[row] : starts[row + 1]]) < 5e-3


def test_the_layers_stay_padding_free() -> None:
    model = build("Bert").eval()
    unpad(model)
    int8.quantize(model)
    seen: list[int] = []
    inner = [
        module for module in model.bert.encoder.layer[0].modules() if isinstance(module, int8.Int8Linear)
    ]
    for module in inner:
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:-1].numel()))
    answers(model, batch(LENGTHS))
    assert len(inner) == 6 and set(seen) == {sum(LENGTHS)}
    assert all(module.integers.dtype == torch.int8 and not hasattr(module, "weight") for module in inner)
    assert type(model.classifier) is nn.Linear


@pytest.mark.parametrize("name", PADDED)
def test_architectures_that_stay_padded(name: str) -> None:
    sizes = {"vocab_size": 60, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40}
    exact = plain(
        name, "SequenceClassification", PADDED[name](**(sizes if name == "XLNet" else SIZES))
    ).eval()
    small = copy.deepcopy(exact)
    int8.quantize(small)
    inputs = batch(LENGTHS)
    assert 1e-5 < apart(answers(small, inputs), answers(exact, inputs)) < 0.2


def test_a_table_in_a_linear_layer_stays() -> None:
    """LayoutLMv3 reads the weight of a layer that it never calls."""
    config = tf.LayoutLMv3Config(**SIZES, visual_embed=False, coordinate_size=5, shape_size=6, pad_token_id=1)
    exact = plain("LayoutLMv3", "SequenceClassification", config).eval()
    small = copy.deepcopy(exact)
    int8.quantize(small)
    assert type(small.layoutlmv3.encoder.rel_pos_bias) is nn.Linear
    inputs = batch(LENGTHS)
    assert 1e-5 < apart(answers(small, inputs), answers(exact, inputs)) < 0.2


def test_a_layer_that_is_read_past_its_forward_is_refused() -> None:
    class Reading(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight, self.bias)

    model = build("Bert")
    first = model.bert.encoder.layer[0].attention.self
    first.value.register_forward_hook(lambda *_: first.value.weight)
    with pytest.raises(InputError, match="does not run a small batch"):
        int8.quantize(model)
    model = build("Bert")
    model.bert.encoder.layer[0].attention.self.key.__class__ = Reading  # not torch's own: stays
    assert "12, each token" in int8.quantize(model)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(model: nn.Module) -> str:
        with pytest.raises(InputError, match="no int8") as caught:
            int8.quantize(model)
        return str(caught.value)

    assert "no transformers model" in why(nn.Linear(3, 4))
    assert "float32" in why(build("Bert").half())
    assert "it is for CPUs" in why(build("Bert").to("meta"))
    convolutions = tf.GPT2Config(vocab_size=60, n_embd=32, n_layer=1, n_head=4, n_positions=64)
    assert "no linear layers" in why(tf.GPT2Model(convolutions))
    model = build("Bert")
    model.bert.encoder.layer[0].attention.output.dense.bias.data.fill_(float("nan"))
    assert "no numbers" in why(model)
    monkeypatch.setattr(int8, "_is_exact", lambda levels: False)
    assert "wrong on this processor" in why(build("Bert"))


OVERFLOW = """
import torch
from bert_ft.kernels import int8
assert not int8._is_exact(127) and int8._is_exact(63)
torch.manual_seed(0)
linear = torch.nn.Linear(64, 16)
weight = linear.weight.detach().clone()
int8._in_place(linear, 63)
x = torch.rand(9, 64)
expected = torch.nn.functional.linear(x, weight, linear.bias)
error = (linear(x) - expected).norm() / expected.norm()
assert 1e-4 < error < 0.03, error
"""


@pytest.mark.slow
def test_seven_bits_where_eight_overflow() -> None:
    """As on a processor without VNNI, which oneDNN can be told to take this one for."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", OVERFLOW]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "not int8._is_exact(127)" in done.stderr:
        pytest.skip("this processor's products do not overflow")
    assert done.returncode == 0, done.stderr
