"""AdamW over the rows of a table that were seen is AdamW over all of them, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bert_ft.errors import MachineError, machine
from bert_ft.kernels import cpu, embeddings, seen_rows

VOCABULARY = 400
WIDTH = 32


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "LARGE", 1)


class Bag(nn.Module):
    """Two tables; the batches look up more and more of the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.kinds = nn.Embedding(90, WIDTH)
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        output: Tensor = self.out(self.words(ids).mean(1) + self.kinds(ids[:, 0] % 7))
        return output


def batches(steps: int, rows: int = 90) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        yield torch.randint(0, min(5 + 8 * step, rows), (6, 5), generator=generator) * 4


class Training:
    """A model, its optimizer and what they have done."""

    def __init__(self, model: Bag, **options: Any) -> None:
        self.model = copy.deepcopy(model)
        decayed = {"params": [self.model.words.weight, self.model.kinds.weight]}
        rest = {"params": list(self.model.out.parameters()), "weight_decay": 0.1, "lr": 0.02}
        self.optimizer = torch.optim.AdamW(
            [rest, decayed], **{"lr": 0.01, "weight_decay": 0.0, "fused": True} | options
        )
        self.lean: cpu.Lean | None = None  # without it gradients are not clipped

    def run(self, steps: Iterator[Tensor]) -> None:
        for ids in steps:
            self.model(ids).square().sum().backward()
            if self.lean is not None and self.optimizer.defaults.get("fused"):
                self.lean.clip(self.optimizer, self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def numbers(self) -> dict[str, Tensor]:
        state = self.optimizer.state_dict()["state"]
        averages = {f"{n} {name}": value for n, values in state.items() for name, value in values.items()}
        return copy.deepcopy(averages | dict(self.model.named_parameters()))


def lean(stack: ExitStack, training: Training, rows: bool = True) -> None:
    optimizer = training.optimizer if rows else None
    training.lean = stack.enter_context(cpu.lean(training.model, True, optimizer=optimizer))


def same(ours: Training, plain: Training) -> None:
    found, expected = ours.numbers(), plain.numbers()
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what the optimizer has stepped on in a table's stead."""
    shapes = []
    whole = seen_rows.SeenRows.swap_out

    def swap_out(self: seen_rows.SeenRows) -> None:
        if self.place is not None:
            group, place = self.place
            shapes.append(tuple(group["params"][place].shape))
        whole(self)

    monkeypatch.setattr(seen_rows.SeenRows, "swap_out", swap_out)
    return shapes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.3},
        {"weight_decay": 0.01, "lr": 3.3e-5, "maximize": True},
        {"fused": False},
        {"fused": False, "foreach": True, "weight_decay": 0.3},
    ],
)
def test_a_training_is_the_same_to_the_bit(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Bag()
    plain, ours = Training(model, **options), Training(model, **options)
    shapes = watched(monkeypatch)
    with ExitStack() as stack:
        lean(stack, ours)
        lean(stack, plain, rows=False)
        plain.run(batches(20))
        ours.run(batches(20))
        same(ours, plain)
        heights = [height for height, width in shapes]
        assert len(shapes) == 40 and {width for _, width in shapes} == {WIDTH}
        assert heights[0] == seen_rows.LANES and heights[::2] == sorted(heights[::2])
        assert max(heights) == -(-90 // seen_rows.LANES) * seen_rows.LANES
    same(ours, plain)
    plain.lean = ours.lean = None
    plain.run(batches(3))
    ours.run(batches(3))
    same(ours, plain)


def test_beyond_a_quarter_of_the_rows_it_steps_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Bag()
    shapes = watched(monkeypatch)
    monkeypatch.setattr(seen_rows, "MOST", 0.1)
    plain, ours = Training(model), Training(model)
    with ExitStack() as stack:
        lean(stack, ours)
        lean(stack, plain, rows=False)
        plain.run(batches(20))
        ours.run(batches(20))
        same(ours, plain)
    assert max(shapes)[0] == -(-40 // seen_rows.LANES) * seen_rows.LANES and 20 < len(shapes) < 40


@pytest.mark.parametrize(("width", "rows"), [(300, 400), (7, 400), (44, 200), (7, 399)])
def test_any_width_to_the_bit(width: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's kernels compute what is left beyond whole vectors in another way; tables that have such a rest
    are left to the optimizer."""
    torch.manual_seed(0)
    shapes = watched(monkeypatch)
    table = torch.randn(rows, width)
    scales = 10.0 ** torch.randint(-4, 1, (60, 13, width))
    draws = torch.randint(0, rows // 8, (60, 13))
    factors = torch.randn(60, 13, width) * scales

    def run(parts: list[range], whole: bool) -> list[Tensor]:
        model = nn.ModuleDict({"words": nn.Embedding.from_pretrained(table.clone(), freeze=False)})
        state: Any = None
        for part in parts:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            if state is not None:
                optimizer.load_state_dict(state)
            with cpu.lean(model, True, optimizer=None if whole else optimizer) as active:
                assert active is not None
                for step in part:
                    (model["words"](draws[step]) * factors[step]).sum().backward()
                    active.clip(optimizer, model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
            state = copy.deepcopy(optimizer.state_dict())
        return [model["words"].weight.detach(), *state["state"][0].values()]

    expected = run([range(60)], whole=True)
    assert not shapes
    for parts in ([range(60)], [range(11), range(11, 60)], [range(30), range(30, 60)]):
        found = run(parts, whole=False)
        assert [torch.equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * 4, parts
    assert bool(shapes) == (rows * width % seen_rows.LANES == 0)


@pytest.mark.parametrize("leave", [False, True])
def test_a_training_goes_on_from_its_saved_state(leave: bool) -> None:
    """The state of one is loaded by the other, both ways, amid the steps and where they begin."""
    torch.manual_seed(0)
    model = Bag()
    whole, first, second = Training(model), Training(model), Training(model)
    steps = list(batches(20))
    with ExitStack() as stack:
        lean(stack, whole, rows=False)
        whole.run(iter(steps))
        lean(stack, first)
        first.run(iter(steps[:9]))
        state, weights = copy.deepcopy((first.optimizer.state_dict(), first.model.state_dict()))
    with ExitStack() as stack:
        if not leave:
            lean(stack, second)
            second.run(iter(steps[:2]))  # something else before
        second.model.load_state_dict(weights)
        second.optimizer.load_state_dict(state)
        if leave:
            lean(stack, second)
        second.run(iter(steps[9:]))
        same(second, whole)


@pytest.mark.parametrize("options", [{"amsgrad": True}, {"eps": 0.0}])
def test_where_a_step_does_more_it_is_over_all_rows(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Bag()
    shapes = watched(monkeypatch)
    plain, ours = Training(model, **options), Training(model, **options)
    with ExitStack() as stack:
        lean(stack, ours)
        lean(stack, plain, rows=False)
        plain.run(batches(5))
        ours.run(batches(5))
        found, expected = ours.numbers(), plain.numbers()
        assert all(torch.equal(found[name].nan_to_num(7), expected[name].nan_to_num(7)) for name in expected)
    assert not shapes


def test_another_gradient_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody puts one of his own in its place, for all rows."""
    torch.manual_seed(0)
    model = Bag()
    shapes = watched(monkeypatch)
    plain, ours = Training(model), Training(model)
    other = torch.randn(VOCABULARY, WIDTH)
    with ExitStack() as stack:
        lean(stack, ours)
        lean(stack, plain, rows=False)
        for training in (plain, ours):
            training.run(batches(4))
            training.model.words.weight.grad = other.clone()
            training.optimizer.grad_scale = None
            training.optimizer.step()
            training.optimizer.zero_grad()
            training.run(batches(4))
        same(ours, plain)
    assert 8 < len(shapes) < 2 * 8


def test_broken_off_before_anything_stands_in_it_keeps_the_averages() -> None:
    """As by Ctrl-C."""
    ours = Training(Bag())
    with ExitStack() as stack:
        lean(stack, ours)
        ours.run(batches(3))
        weight = ours.model.words.weight
        (table,) = (table for table in ours.lean.tables if table.weight is weight)
        rows = seen_rows.SeenRows(table, ours.optimizer)
        rows.place = ours.optimizer.param_groups[1], 0
        rows.swap_out()
        assert rows.place is None and set(ours.optimizer.state[weight]) == {"step", *seen_rows.AVERAGES}


def test_other_optimizers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = watched(monkeypatch)
    ours = Training(Bag())
    ours.optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.1)  # type: ignore[assignment]
    with ExitStack() as stack:
        stack.enter_context(cpu.lean(ours.model, True, optimizer=ours.optimizer))
        ours.run(batches(2))
    assert not shapes and not ours.optimizer._optimizer_step_pre_hooks


@pytest.mark.skipif(not hasattr(__import__("mmap"), "MAP_PRIVATE"), reason="memory is taken at once here")
def test_zeros_take_memory_where_they_are_written() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    table = embeddings.zeros(100_000, 384)
    assert table.shape == (100_000, 384) and not table[::1000].any()
    table[:1000] = 1
    assert resident() - before < 30e6 and table.sum() == 384_000
    assert embeddings.zeros(3, 2, dtype=torch.bfloat16).tolist() == [[0, 0]] * 3
    assert embeddings.zeros(0, 4).shape == (0, 4)


def test_no_memory_for_zeros_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(embeddings.mmap, "mmap", full)
    with pytest.raises(MachineError, match="the memory is full"), machine():
        embeddings.zeros(10, 10)
