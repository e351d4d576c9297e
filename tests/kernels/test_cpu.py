"""Lean steps on CPUs draw other dropout and compute the rest as torch does; nothing of them stays on the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bert_ft.kernels import cpu, grouped_attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.999])
def test_the_rate_and_the_mean_are_those_asked_for(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 2_000_003  # no multiple of four
    kept, mean = cpu.keep(torch.empty(n, dtype=dtype), rate)
    assert kept.dtype == dtype
    mask = kept.float() * mean
    dropped = (mask == 0).double().mean().item()
    assert dropped == pytest.approx(rate, abs=5 * (rate * (1 - rate) / n) ** 0.5 + 1 / 65536)
    assert mask.double().mean().item() == pytest.approx(1, abs=5 * (rate / (1 - rate) / n) ** 0.5)
    assert len(mask.unique()) == 2, "zero, and what keeps the mean"
    quarters = [(mask[k : n - 3 : 4] == 0).double().mean().item() for k in range(4)]
    assert quarters == pytest.approx([rate] * 4, abs=5 * (rate * (1 - rate) / (n // 4)) ** 0.5 + 1 / 65536), (
        "of one draw"
    )
    assert not torch.equal(kept, cpu.keep(kept, rate)[0]), "another draw each time"


def test_dropout_keeps_the_mean_in_bfloat16_too() -> None:
    """What is kept is multiplied by 1.1111, which bfloat16 rounds to 1.1094: all hidden states would be 0.16 %
    smaller in training than they are in an answer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1))
    # over numbers that bfloat16 has, what rounds up and what rounds down keep the balance
    x = torch.rand(4_000_000).add_(1).bfloat16().requires_grad_()
    with cpu.lean(model, True):
        dropped = model[1](x)
        kept = dropped != 0
        assert (dropped[kept].double().mean() / x[kept].double().mean()).item() == pytest.approx(
            1 / 0.9, rel=2e-4
        )
        dropped.backward(x.detach())
        assert torch.equal(x.grad, dropped), "and so is its gradient"


def test_gradients_flow_through_what_was_kept_and_the_model_leaves_as_it_came() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 2))
    x, plain = torch.ones(64, 8), grouped_attention.keep
    with cpu.lean(model, True) as active:
        assert active and grouped_attention.keep is cpu.keep
        model.eval()
        assert torch.equal(model(x), model(x))
        model.train()
        hidden = model[1](ones := torch.ones(1000, 8, requires_grad=True))
        hidden.sum().backward()
        assert torch.equal(ones.grad, hidden), "the gradient is the mask"
        assert (hidden == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert model[1].p == 0.3 and not model[1]._forward_hooks and grouped_attention.keep is plain
    with cpu.lean(model, False) as active:
        assert active is None and model[1].p == 0.3


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_clipping_inside_the_optimizer_equals_clipping_before_it(size: float) -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(20, 20), nn.Linear(20, 20)
    two.load_state_dict(one.state_dict())
    steps = [torch.optim.AdamW(model.parameters(), lr=0.1, eps=1e-3, fused=True) for model in (one, two)]
    for _ in range(5):
        for model in (one, two):
            (model(torch.ones(3, 20)).pow(2).sum() * size).backward()
        assert torch.nn.utils.clip_grad_norm_(one.parameters(), 0.5) == pytest.approx(
            cpu.Lean().clip(steps[1], two.parameters(), 0.5)
        )
        for step in steps:
            step.step()
            step.zero_grad()
        assert torch.allclose(one.weight, two.weight, rtol=1e-5, atol=1e-7)
