"""Our attention on a CPU: in pieces that fit the cache as in one, and in bfloat16 as exact as torch's own."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bert_ft.errors import InputError
from bert_ft.kernels import cpu, grouped_attention, packed_attention
from bert_ft.kernels.attention_check import Request, check_dropout
from bert_ft.kernels.groups import width
from bert_ft.kernels.packed_attention import Layout, absorbed, attend

LENGTHS = [3, 3, 5, 9, 17, 17, 18]
HEADS, D = 6, 16


def layout(window: int | None = None) -> Layout:
    longest = max(LENGTHS)
    tokens = torch.cat([torch.arange(n) + row * longest for row, n in enumerate(LENGTHS)])
    return Layout(len(LENGTHS), longest, LENGTHS, tokens, window, lambda: None)


def inputs(size: float, first: bool, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and the gradient of what comes out; scores are about `size` squared times 4."""
    torch.manual_seed(0)
    tokens = sum(LENGTHS)
    queries = len(LENGTHS) if first else tokens
    shapes = (queries, size), (tokens, size), (tokens, 1), (queries, 1)
    return [(torch.randn(n, HEADS, D) * scale).to(dtype) for n, scale in shapes]


def gradients(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int | None = None) -> list[Tensor]:
    """The output, and the gradients of q, k and v."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves, layout(window), D**-0.5)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def plain(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int | None = None) -> list[Tensor]:
    """The same, sequence by sequence, through torch's attention; q of all tokens or of each first one."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    outputs = []
    ends = list(itertools.accumulate(LENGTHS, initial=0))
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        queries = slice(number, number + 1) if len(q) == len(LENGTHS) else slice(start, end)
        parts = [
            x[here].transpose(0, 1)[None]
            for x, here in zip(leaves, (queries, slice(start, end), slice(start, end)), strict=True)
        ]
        at = torch.arange(end - start)
        near = (at - at[:, None]).abs() <= (len(at) if window is None else window)
        mask = near[: parts[0].shape[2]]
        out = F.scaled_dot_product_attention(*parts, mask, scale=D**-0.5)
        outputs.append(out[0].transpose(0, 1))
    out = torch.cat(outputs)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def distances(results: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [
        float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(results, expected, strict=True)
    ]


@pytest.mark.parametrize("narrow", [0, 256])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("size", [1.0, 3.0])
def test_bfloat16_is_as_exact_as_that_of_torch(
    size: float, first: bool, narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its products are in bfloat16, and where all of a training's step is in float32."""
    monkeypatch.setattr(grouped_attention, "NARROW", narrow)
    halves = inputs(size, first, torch.bfloat16)
    truth = plain(*[x.double() for x in halves])
    ours, theirs = distances(gradients(*halves), truth), distances(plain(*halves), truth)
    for mine, torchs in zip(ours, theirs, strict=True):
        assert mine <= max(1.5 * torchs, 4e-3), (ours, theirs)
    results = gradients(*halves)
    assert all(result.dtype == torch.bfloat16 for result in results)
    if narrow:  # nothing is rounded but what comes out
        assert max(distances(results, truth)) < 2.5e-3, distances(results, truth)


@pytest.mark.parametrize("scores", [1, 700, 5000])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("narrow", [0, 256])
def test_pieces_give_what_the_whole_gives(
    scores: int, window: int | None, narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one head of one row at a time to all of them; with dropout, against what was dropped."""
    monkeypatch.setattr(packed_attention, "_is_ours", lambda *_: True)
    monkeypatch.setattr(grouped_attention, "SCORES", scores)
    monkeypatch.setattr(grouped_attention, "NARROW", narrow)
    q, k, v, grad = inputs(1.0, False, torch.float64)
    results = gradients(q, k, v, grad, window)
    assert max(distances(results, plain(q, k, v, grad, window))) < 1e-12
    assert check_dropout(torch.device("cpu"), Request(torch.float32, HEADS, D, 0.3, window)) is None
    assert check_dropout(torch.device("cpu"), Request(torch.bfloat16, HEADS, D, 0.3, window)) is None


@pytest.mark.parametrize("lean", [True, False])
def test_dropout_keeps_the_mean_of_long_rows_in_bfloat16(lean: bool) -> None:
    """Which bfloat16 would make 0.16 % smaller, if the factor for what is kept were rounded to it."""
    torch.manual_seed(0)
    tokens = 4 * 400  # more keys than are computed in float32
    rows = Layout(4, 400, [400] * 4, torch.arange(tokens), None, lambda: None)
    q, k = (torch.randn(tokens, 12, D, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    v = torch.ones(tokens, 12, D, dtype=torch.bfloat16)
    with cpu.lean(torch.nn.Linear(1, 1), lean):
        out = attend(q, k, v, rows, D**-0.5, 0.1)
    assert out.dtype == torch.bfloat16 and out.double().mean().item() == pytest.approx(1, abs=5e-4)


@pytest.mark.parametrize("lean", [True, False])
def test_where_all_is_dropped_nothing_is_left(lean: bool) -> None:
    """Multiplied by zero, torch's product in bfloat16 leaves what lay in that memory before."""
    rows = Layout(2, 300, [300] * 2, torch.arange(600), None, lambda: None)
    q, k, v = (torch.randn(600, HEADS, D, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    try:
        with cpu.lean(torch.nn.Linear(1, 1), lean):
            out = attend(q, k, v, rows, D**-0.5, 1.0)
            gradients = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any(x.any() for x in (out, *gradients))


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    """Its share that goes through q, k and v would be missing, without a word."""
    rows = Layout(2, 16, [5, 16], torch.arange(21), None, lambda: None)
    q, k, v = (torch.randn(21, HEADS, D, requires_grad=True) for _ in range(3))
    out = attend(q, k, v, rows, D**-0.5, 0.1)
    with pytest.raises(InputError, match="twice"):
        torch.autograd.grad(out.square().sum(), q, create_graph=True)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("window", [1, 2, 5, 8, 16, 17])
def test_a_window_is_computed_in_spans_and_costs_what_it_spans(
    window: int, first: bool, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of windows shorter than rows, as long, and longer; by torch's attention and by ours."""
    monkeypatch.setattr(packed_attention, "_is_ours", lambda *_: ours)
    tensors = inputs(1.0, first, torch.float64)
    results = gradients(*tensors, window)
    assert all(x.isfinite().all() for x in results)
    assert max(distances(results, plain(*tensors, window))) < 1e-12
    for group in layout(window).groups:
        assert all(at.keys.stop - at.keys.start <= 4 * window for at in group.spans(group.length))
        assert [
            i for at in group.spans(group.length) for i in range(at.queries.start, at.queries.stop)
        ] == list(range(group.length))


def test_scores_are_kept_for_a_backward_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    original = torch.autograd.function.FunctionCtx.save_for_backward
    monkeypatch.setattr(
        torch.autograd.function.FunctionCtx,
        "save_for_backward",
        lambda ctx, *tensors: (saved.append(len(tensors)), original(ctx, *tensors)),
    )
    q, k, v, _ = inputs(1.0, False, torch.bfloat16)
    with torch.inference_mode():
        attend(q, k, v, layout(), 1.0)
    with torch.no_grad():
        attend(*[x.requires_grad_() for x in (q, k, v)], layout(), 1.0)
    assert saved == [0, 0]
    attend(*[x.requires_grad_() for x in (q, k, v)], layout(), 1.0)
    assert saved[2] > 0


def test_sequences_are_padded_to_whole_vectors_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a softmax that is shorter than a vector is computed number by number."""
    widths = {1: 1, 4: 4, 5: 16, 15: 16, 16: 16, 17: 17, 20: 20, 21: 32, 32: 32, 501: 512}
    assert {length: width(length) for length in widths} == widths
    monkeypatch.setattr(packed_attention, "GROUP_COST", 100)
    lengths = [3, 3, 5, 9, 30, 31]
    groups = Layout(6, 31, lengths, torch.arange(sum(lengths)), None, lambda: None).groups
    assert [(group.rows, group.length) for group in groups] == [(2, 3), (2, 16), (2, 32)]
    sizes = [None if group.lengths is None else group.lengths.tolist() for group in groups]
    assert sizes == [None, [5, 9], [30, 31]], "who is shorter than the group looks at its own tokens alone"
    whole = Layout(2, 18, [18, 18], torch.arange(36, device="meta"), None, lambda: None)
    assert [(group.rows, group.length, group.lengths) for group in whole.groups] == [(2, 18, None)]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("biases", [(True, True), (False, False), (True, False), (False, True)])
def test_absorbed_projections_are_keys_and_values(
    biases: tuple[bool, bool], dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, against attention over the keys and values themselves, the gradients of both layers too."""
    torch.manual_seed(0)
    width = 40
    linears = [torch.nn.Linear(width, HEADS * D, bias=bias, dtype=torch.float64) for bias in biases]
    hidden = [torch.randn(sum(LENGTHS), width, dtype=torch.float64, requires_grad=True) for _ in linears]
    q = torch.randn(len(LENGTHS), HEADS, D, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(len(LENGTHS), HEADS, D, dtype=torch.float64)
    leaves = [q, *hidden, *(parameter for linear in linears for parameter in linear.parameters())]

    def keep(like: Tensor, rate: float) -> tuple[Tensor, float]:
        """The same for a score in whatever shape: groups come in their order, then rows, heads and keys."""
        drawn = torch.rand(like.numel(), generator=generator, dtype=like.dtype) >= rate
        return drawn.to(like.dtype).view(like.shape), 1 / (1 - rate)

    monkeypatch.setattr(grouped_attention, "keep", keep)
    results = []
    for absorbs in (False, True):
        generator = torch.Generator().manual_seed(1)
        if absorbs:
            out = absorbed(q, hidden, linears, layout(), D**-0.5, dropout)
        else:
            k, v = (linear(x).view(-1, HEADS, D) for linear, x in zip(linears, hidden, strict=True))
            places, parts = layout().by_heads(HEADS, 1, q.element_size())
            out = grouped_attention.Attention.apply(q, k, v, places, parts, D**-0.5, dropout, True)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    assert len(results[0]) == 4 + sum(1 + bias for bias in biases)
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert not dropout or not torch.allclose(
        results[0][0], absorbed(q, hidden, linears, layout(), D**-0.5, 0)
    )
