"""What runs on a GPU alone: torch's flash kernel for packed sequences, and real CUDA graphs. On a bare machine:

python -m pytest --noconftest -p no:cacheprovider tests/kernels/test_cuda.py
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bert_ft.kernels import graphs, last_layer, padding_free
from bert_ft.kernels.attention_check import Request, check_dropout
from bert_ft.kernels.packed_attention import Layout, attend, choose_kernel, flash_runs, runs
from tests.tiny_models import SIZES, batch, tf

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
LENGTHS = [1, 3, 17, 40, 130]


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """Within each sequence, in fp32 by the formula; with a query a sequence, that of its first token."""
    ends = list(itertools.accumulate(LENGTHS))
    parts = []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        at = torch.arange(end - start, device="cuda")
        here = q[start:end] if len(q) == len(k) else q[number : number + 1]
        scores = torch.einsum("ihd,jhd->hij", here.float(), k[start:end].float()) * scale
        if window is not None:
            scores = scores.masked_fill((at[: len(here), None] - at).abs() > window, float("-inf"))
        parts.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[start:end].float()))
    return torch.cat(parts)


def layout(window: int | None) -> Layout:
    longest = max(LENGTHS)
    row = runs([number * longest for number in range(len(LENGTHS))], LENGTHS).cuda()
    return Layout(len(LENGTHS), longest, LENGTHS, row, window, lambda: None)


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("window", [None, 4])
def test_attention_equals_the_formula(
    head_dim: int, dtype: torch.dtype, first: bool, window: int | None
) -> None:
    assert flash_runs() and choose_kernel("cuda", dtype, head_dim) == "flash"
    torch.manual_seed(0)
    tokens = sum(LENGTHS)
    sizes = (len(LENGTHS) if first else tokens, tokens, tokens)
    leaves = [torch.randn(n, 4, head_dim, device="cuda", dtype=dtype, requires_grad=True) for n in sizes]
    grad = torch.randn(sizes[0], 4, head_dim, device="cuda", dtype=dtype)
    out = attend(leaves[0], leaves[1], leaves[2], layout(window), head_dim**-0.5)
    expected = attention(leaves[0], leaves[1], leaves[2], head_dim**-0.5, window)
    ours = [out, *torch.autograd.grad(out, leaves, grad)]
    theirs = [expected, *torch.autograd.grad(expected, leaves, grad.float())]
    for a, b in zip(ours, theirs, strict=True):
        assert float((a.float() - b.float()).norm() / b.float().norm()) < 1e-2


@pytest.mark.parametrize("window", [None, 4])
def test_dropout_is_that_of_the_rate(window: int | None) -> None:
    assert check_dropout(torch.device("cuda"), Request(torch.bfloat16, 4, 64, 0.1, window)) is None


def model(name: str, head: str, dropout: float) -> Any:
    torch.manual_seed(0)
    config = getattr(tf, f"{name}Config")(**SIZES | {"hidden_size": 128, "intermediate_size": 256})
    for rate in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(config, rate, dropout)
    return getattr(tf, f"{name}For{head}")(config).cuda().train()


def step(network: Any, inputs: dict[str, Tensor], half: bool) -> list[Tensor]:
    """What leaves at real tokens, and all gradients."""
    network.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        output = network(**inputs)
    logits = output.logits.float()
    logits = logits[inputs["attention_mask"].bool()] if logits.dim() == 3 else logits
    logits.sin().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra"])
def test_replays_are_as_near_to_fp32_as_plain_bf16(name: str, head: str) -> None:
    """Batches of three sizes of tokens, each twice; the sizes share their memory."""
    exact, half, ours = (model(name, head, 0.0) for _ in range(3))
    assert padding_free.unpad(ours, torch.bfloat16).active
    last_layer.narrow(ours, torch.bfloat16)
    with graphs.recorded(ours, 4, torch.bfloat16) as layers:
        assert layers is not None
        for lengths in [
            [9, 2, 5, 7],
            [30, 30, 29, 2],
            [60, 60, 60, 3],
            [30, 28, 29, 2],
            [9, 2, 5, 8],
            [60, 50, 60, 4],
        ]:
            inputs = {key: value.cuda() for key, value in batch(lengths).items()}
            results, expected, near = (
                torch.cat([each.flatten() for each in step(network, inputs, autocast)])
                for network, autocast in ((ours, True), (exact, False), (half, True))
            )
            assert float((results - expected).norm()) < 1.5 * float((near - expected).norm())
        assert layers.replayed == 6 and len(layers.graphs) == 3


def test_replays_draw_anew_and_go_on_from_a_state() -> None:
    ours = model("Bert", "SequenceClassification", 0.3)
    assert padding_free.unpad(ours, torch.bfloat16).active
    inputs = {key: value.cuda() for key, value in batch([9, 2, 5, 7]).items()}
    with graphs.recorded(ours, 4, torch.bfloat16) as layers:
        before = torch.cuda.get_rng_state()
        first = step(ours, inputs, True)[0]
        assert not torch.equal(step(ours, inputs, True)[0], first)
        torch.cuda.set_rng_state(before)
        assert torch.equal(step(ours, inputs, True)[0], first)
    assert layers is not None and layers.replayed == 3


def test_a_step_that_can_not_be_recorded_is_computed_as_ever() -> None:
    """A wait for the device breaks a recording off; the training goes on without graphs."""
    ours = model("Bert", "SequenceClassification", 0.0)
    assert padding_free.unpad(ours, torch.bfloat16).active
    plain = ours.bert.encoder.layer[0].intermediate.forward
    ours.bert.encoder.layer[0].intermediate.forward = lambda x: plain(x) * (float(x.sum()) ** 0)
    inputs = {key: value.cuda() for key, value in batch([9, 2, 5, 7]).items()}
    expected = step(ours, inputs, True)[0]
    with graphs.recorded(ours, 4, torch.bfloat16) as layers:
        for _ in range(2):
            assert torch.allclose(step(ours, inputs, True)[0], expected, atol=1e-2)
    assert layers is not None and layers.reason.startswith("graphs: none") and layers.replayed == 0
