"""A table whose gradient keeps its memory has autograd's own gradients, to the bit, step after step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ft.kernels import cpu, embeddings


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "LARGE", 1)


class Bag(nn.Module):
    """Looks tokens up, some of them twice, and reads the weight once more where it is asked to."""

    def __init__(self, padding: int | None = 0, again: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 4, padding_idx=padding)
        self.out = nn.Linear(4, 3)
        self.again = again

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.words(ids).mean(1) + self.words(ids[:, :1]).squeeze(1).tanh()
        output: Tensor = self.out(hidden)
        return output + F.linear(hidden, self.words.weight).sum(1, keepdim=True) if self.again else output


def batches(steps: int, parts: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        yield [torch.randint(0, 9 + step, (6, 5), generator=generator) for _ in range(parts)]


def gradients(model: nn.Module, steps: int, parts: int, set_to_none: bool) -> list[list[Tensor]]:
    """Of all parameters, at each step of a training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    result = []
    for micro_batches in batches(steps, parts):
        for ids in micro_batches:
            model(ids).tanh().sum().backward()
        result.append([parameter.grad.clone() for parameter in model.parameters()])
        optimizer.step()
        optimizer.zero_grad(set_to_none)
    return result


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("padding", "again"), [(0, False), (None, False), (3, True)])
def test_gradients_are_those_of_autograd(
    padding: int | None, again: bool, parts: int, set_to_none: bool
) -> None:
    torch.manual_seed(0)
    plain, ours = Bag(padding, again), Bag(padding, again)
    ours.load_state_dict(plain.state_dict())
    expected = gradients(plain, 6, parts, set_to_none)
    with embeddings.kept(ours) as tables:
        assert [table.module for table in tables] == [ours.words]
        results = gradients(ours, 6, parts, set_to_none)
        last = torch.cat(list(batches(6, parts))[-1]).unique().tolist()
        touched = tables[0].rows.tolist()
        assert set(touched) >= set(last) and len(touched) == len(set(touched))
        assert again or not set_to_none or touched == last
    for step, (mine, theirs) in enumerate(zip(results, expected, strict=True)):
        for gradient, reference in zip(mine, theirs, strict=True):
            if again or parts > 1:  # what adds up comes in another order
                assert torch.allclose(gradient, reference, rtol=1e-4, atol=1e-6), step
            else:
                assert torch.equal(gradient, reference), step
    assert "forward" not in vars(ours.words) and not ours.words.weight._post_accumulate_grad_hooks


def test_a_step_that_was_given_up_leaves_nothing_behind() -> None:
    model = Bag()
    with embeddings.kept(model):
        model(torch.tensor([[7, 8]])).sum().backward()
        model.zero_grad()  # as where memory runs out
        model(torch.tensor([[5, 5]])).sum().backward()
        assert model.words.weight.grad.any(1).nonzero().flatten().tolist() == [5]


def test_clipping_reads_the_touched_rows_alone_and_finds_the_same_norm() -> None:
    torch.manual_seed(0)
    model = Bag()
    with cpu.lean(model, True) as lean:
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        model(torch.tensor([[7, 8, 7]])).sum().backward()
        parts = list(embeddings.touched(model.parameters(), lean.tables))
        assert parts[0].shape == (2, 4)
        expected = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
        assert lean.clip(optimizer, model.parameters(), 1.0) == pytest.approx(float(expected), rel=1e-6)


def tied() -> nn.Module:
    model = Bag()
    model.decoder = nn.Linear(4, 50, bias=False)
    model.decoder.weight = model.words.weight
    return model


def hooked() -> nn.Module:
    model = Bag()
    model.words.weight.register_hook(lambda gradient: 2 * gradient)
    return model


def frozen() -> nn.Module:
    model = Bag()
    model.words.weight.requires_grad_(False)
    return model


def rare(**options: bool | float) -> nn.Module:
    model = Bag()
    model.words = nn.Embedding(50, 4, **options)
    return model


@pytest.mark.parametrize(
    "model",
    [tied(), hooked(), frozen(), rare(sparse=True), rare(max_norm=1.0), rare(scale_grad_by_freq=True)],
)
def test_what_others_look_at_is_left_to_autograd(model: nn.Module) -> None:
    with embeddings.kept(model) as tables:
        assert not tables and "forward" not in vars(model.words)


def test_several_processes_and_small_tables_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Bag()
    with cpu.lean(model, True, alone=False) as lean:
        assert lean is not None and not lean.tables
    monkeypatch.undo()
    with embeddings.kept(model) as tables:
        assert not tables


@pytest.mark.parametrize("first", ["another weight", "its own"])
def test_another_weight_in_its_place_is_read(first: str) -> None:
    """`functional_call` with a weight that was moved: it is looked up, and its gradient adds to the others'."""
    torch.manual_seed(0)
    model = Bag().train()
    ids = torch.randint(0, 50, (6, 5))

    def parts() -> list[Tensor]:
        model.zero_grad()
        moved = {"words.weight": model.words.weight * 2 + 1}
        losses = [
            lambda: torch.func.functional_call(model, moved, (ids,)).square().sum(),
            lambda: model(ids).square().sum(),
        ]
        values = []
        for loss in losses if first == "another weight" else losses[::-1]:
            values.append(value := loss())
            value.backward()
        return [*values, *(each.grad.clone() for each in model.parameters())]

    expected = parts()
    with cpu.lean(model, True) as active:
        assert active is not None and active.tables
        found = parts()
    torch.testing.assert_close(found, expected)


def test_derivatives_of_torch_func() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Bag(), nn.Dropout(0.5)).train()
    ids = torch.randint(0, 50, (6, 5))
    weights = {name: each.detach() for name, each in model.named_parameters()}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(1)
        found: Tensor = torch.func.functional_call(model, weights, (ids,)).square().sum()
        return found

    expected = torch.func.grad(loss)(weights)
    with cpu.lean(model, True):
        found = torch.func.grad(loss)(weights)
    torch.testing.assert_close(found, expected)
