"""Linear layers by oneDNN against torch's own in float64, whatever the CPU: only its speed decides elsewhere."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from bert_ft.kernels import processor, products


@pytest.fixture(autouse=True, params=[False, True], ids=["faster", "far faster"])
def far(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether gradients of weights are oneDNN's, too."""
    if not products.runs():
        pytest.skip("this build of torch has no linear layer of oneDNN")
    monkeypatch.setattr(products, "faster", lambda: True)
    monkeypatch.setattr(products, "far_faster", lambda: request.param)
    monkeypatch.setattr(products, "LARGE", 0)
    return bool(request.param)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was given."""
    shapes: list[tuple[int, ...]] = []
    product: Callable[..., Tensor] = products._product

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append(tuple(x.shape))
        return product(x, weight, bias)

    monkeypatch.setattr(products, "_product", watched)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(7, 48), (1, 433, 48), (2, 3, 48), (48,), (0, 48), (2000, 48)], ids=lambda shape: "x".join(map(str, shape))
)  # fmt: skip
def test_equals_float64(shape: tuple[int, ...], bias: bool, far: bool, asked: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(48, 32, bias=bias))
    reference = copy.deepcopy(layer).double()
    x = torch.randn(shape, requires_grad=True)
    y = x.detach().double().requires_grad_()
    grad = torch.randn(*shape[:-1], 32)
    expected = reference(y)
    gradients = torch.autograd.grad(expected, (y, *reference.parameters()), grad.double())
    with products.taken(layer):
        found = layer(x)
        own = torch.autograd.grad(found, (x, *layer.parameters()), grad)
    with products.taken(layer, fixed=True), torch.inference_mode():
        answers = [layer(x), layer(x)]
    assert len(asked) == (5 if far and found.numel() else 4)
    for a, b in zip((found, *answers, *own), (expected, expected, expected, *gradients), strict=True):
        assert a.shape == b.shape and a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_odd_strides_and_what_is_changed_in_place(asked: list[tuple[int, ...]]) -> None:
    """Longformer divides its queries in place."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(3, 6, 4).transpose(1, 2)[:, ::2]
    expected = (layer(x) / 3).sum(0)
    gradients = torch.autograd.grad(expected.sum(), list(layer.parameters()))
    with products.taken(layer):
        found = layer(x)
        found /= 3
        found = found.sum(0)
        own = torch.autograd.grad(found.sum(), list(layer.parameters()))  # a gradient without strides
    assert asked
    torch.testing.assert_close((found, *own), (expected, *gradients))


@pytest.mark.parametrize("kind", ["strided", "expanded"])
def test_a_bias_with_odd_strides(kind: str, asked: list[tuple[int, ...]]) -> None:
    """oneDNN's operator reads a bias as if its numbers lay side by side."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 5))
    layer[0].bias = nn.Parameter(torch.randn(10)[::2] if kind == "strided" else torch.randn(1).expand(5))
    x = torch.randn(3, 6)
    expected = x @ layer[0].weight.T + layer[0].bias
    with products.taken(layer):
        found = layer(x)
    with products.taken(layer, fixed=True), torch.inference_mode():
        answer = layer(x)
    assert len(asked) == 2
    torch.testing.assert_close((found, answer), (expected, expected))


@pytest.mark.parametrize("kind", ["narrowed", "strided", "expanded", "first tokens"])
def test_numbers_that_lie_apart_are_laid_side_by_side(
    kind: str, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN would multiply them in a loop, 500 times as slow: counted by what the operator is given."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 8))
    values = {
        "narrowed": lambda: torch.randn(8, 16)[:, :8], "strided": lambda: torch.randn(8, 16)[:, ::2],
        "expanded": lambda: torch.randn(8, 1).expand(8, 8), "first tokens": lambda: torch.randn(8, 8),
    }  # fmt: skip
    layer[0].weight = nn.Parameter(values[kind]())
    x = torch.randn(4, 9, 8)[:, 0] if kind == "first tokens" else torch.randn(4, 8)
    x.requires_grad_()
    expected = torch.autograd.grad(F.linear(x, *layer[0].parameters()).square().sum(), (x, layer[0].weight))
    given: list[Tensor] = []
    operator = torch.ops.mkldnn._linear_pointwise

    def watched(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        given.append(weight)
        found: Tensor = operator(x, weight, *rest)
        return found

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watched)
    with products.taken(layer):
        found = torch.autograd.grad(layer(x).square().sum(), (x, layer[0].weight))
    assert asked and given and all(each.is_contiguous() or each.t().is_contiguous() for each in given)
    torch.testing.assert_close(found, expected)


def test_a_weight_that_is_not_trained(asked: list[tuple[int, ...]]) -> None:
    layer = nn.Sequential(nn.Linear(6, 5)).requires_grad_(False)
    x = torch.randn(3, 6, requires_grad=True)
    with products.taken(layer):
        layer(x).sum().backward()
    assert len(asked) == 2 and layer[0].weight.grad is None
    torch.testing.assert_close(x.grad, layer[0].weight.sum(0).expand(3, 6))


@pytest.mark.parametrize("trained", ["", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("of_x", [True, False])
def test_keeps_for_gradients_what_torch_keeps(trained: str, of_x: bool) -> None:
    """A frozen layer has no use for what came in, which may change then; the weight of one behind which nothing
    learns may, too."""
    layer = nn.Sequential(nn.Linear(6, 5))
    for name, parameter in layer[0].named_parameters():
        parameter.requires_grad_(name in trained.split())

    def kept() -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        x = torch.randn(3, 6, requires_grad=of_x)

        def pack(tensor: Tensor) -> Tensor:
            shapes.append(tuple(sorted(tensor.shape)))  # torch keeps the weight turned
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layer(x)
        return sorted(shapes)

    expected = kept()
    with products.taken(layer):
        assert kept() == expected


def test_few_products_stay_torchs(asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel for each number of tokens is not worth them; answers are oneDNN's whatever their number, which may
    not depend on the rows beside."""
    monkeypatch.setattr(products, "LARGE", 4 * 6 * 5)
    layer = nn.Sequential(nn.Linear(6, 5))
    with products.taken(layer):
        layer(torch.randn(3, 6)).sum().backward()
        assert not asked
        layer(torch.randn(2, 2, 6)).sum().backward()
    assert asked[0] == (4, 6)
    del asked[:]
    with products.taken(layer, fixed=True), torch.inference_mode():
        layer(torch.randn(3, 6))
    assert asked == [(3, 6)]


@pytest.mark.parametrize("kind", ["grad", "vmap", "jvp", "dual numbers", "compiled", "compiled answers"])
def test_transformed_layers_are_torchs(kind: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(6, 5)), torch.randn(3, 6)
    weights = {name: each.detach() for name, each in layer.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, weights, (x,)).square().sum()
        return found

    def dual() -> Tensor | None:
        with fwAD.dual_level():
            return fwAD.unpack_dual(layer(fwAD.make_dual(x, torch.ones_like(x)))).tangent

    def compiled() -> Tensor:
        torch._dynamo.reset()  # type: ignore[no-untyped-call]
        found: Tensor = torch.compile(layer, backend=backend)(x)
        return found

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        assert "mkldnn" not in graph.code  # which inductor fails at
        return graph

    ways: dict[str, Callable[[], object]] = {
        "grad": lambda: torch.func.grad(loss)(weights, x),
        "vmap": lambda: torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x),
        "jvp": lambda: torch.func.jvp(layer, (x,), (torch.ones_like(x),)),
        "dual numbers": dual,
        "compiled": compiled,
        "compiled answers": torch.no_grad()(compiled),
    }
    expected = ways[kind]()
    with products.taken(layer, fixed=kind == "compiled answers"):
        found = ways[kind]()
    torch.testing.assert_close(found, expected)


def test_a_loss_that_holds_gradients(asked: list[tuple[int, ...]]) -> None:
    """A penalty of the gradient, whose own gradient goes through the layers once more."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(5, 6, requires_grad=True)

    def gradients() -> list[Tensor]:
        (of_x,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        # that of the last bias is none: it is in no gradient
        found = torch.autograd.grad(of_x.square().sum(), list(network.parameters()), allow_unused=True)
        return [torch.zeros(1) if each is None else each for each in found]

    expected = gradients()
    with products.taken(network):
        found = gradients()
    assert asked and any(each.any() for each in expected)
    torch.testing.assert_close(found, expected)


def test_weights_are_read_anew_in_a_training() -> None:
    """An evaluation within it keeps them no longer than it lasts."""
    layer = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(3, 6)
    with products.taken(layer):
        for _ in range(2):
            with products.taken(layer, fixed=True), torch.inference_mode():
                torch.testing.assert_close(layer(x), F.linear(x, layer[0].weight, layer[0].bias))
            with torch.no_grad():
                torch.testing.assert_close(layer(x), F.linear(x, layer[0].weight, layer[0].bias))
                layer[0].weight.mul_(2)


@pytest.mark.parametrize(
    "kind", ["float64", "float16", "half", "steps in bf16", "not requested", "not fixed"]
)
def test_what_is_left_alone(kind: str, asked: list[tuple[int, ...]]) -> None:
    layer = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(3, 6)
    if kind in ("float64", "float16"):
        layer, x = layer.to(getattr(torch, kind)), x.to(getattr(torch, kind))
    dtype = {"half": torch.float16, "steps in bf16": torch.bfloat16, "not fixed": torch.bfloat16}.get(kind)
    with (
        torch.set_grad_enabled(kind == "steps in bf16"),
        torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None),
        products.taken(layer, kind != "not requested", fixed=kind != "not fixed"),
    ):
        found = layer(x)
        torch.testing.assert_close(found, F.linear(x, layer[0].weight, layer[0].bias))
    assert not asked and found.dtype == (dtype or x.dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mixed", [True, False], ids=["autocast", "its own"])
def test_answers_in_bf16(
    mixed: bool, bias: bool, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far from float64 as torch's own, under autocast and of a model that is in it."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(48, 32, bias=bias)).to(torch.bfloat16)
    x = torch.randn(4, 50, 48, dtype=torch.bfloat16)
    exact = copy.deepcopy(layer).double()(x.double())
    if mixed:
        layer, x = layer.float(), x.float()
    reorders: list[Tensor] = []
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def watched(weight: Tensor) -> Tensor:
        reorders.append(weight)
        ordered: Tensor = reorder(weight)
        return ordered

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", watched)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        plain = layer(x)
        with products.taken(layer, fixed=True):
            found = [layer(x), layer(x)]
    assert len(asked) == 2 and len(reorders) == int(mixed)
    for each in found:
        assert each.dtype == plain.dtype == torch.bfloat16
        assert (each.double() - exact).abs().max() <= 1.01 * (plain.double() - exact).abs().max()


@pytest.mark.parametrize(("gain", "far"), [(2.2, True), (1.05, False), (0.9, False)])
def test_gradients_of_weights_where_it_is_far_faster(
    gain: float, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(products, "faster", lambda: True)
    monkeypatch.setattr(processor, "seconds", lambda ways: [gain * 1e-3, 1e-3][: len(ways)])
    products.far_faster.cache_clear()
    try:
        assert products.far_faster() is far
        monkeypatch.setattr(products, "faster", lambda: False)
        products.far_faster.cache_clear()
        assert not products.far_faster()
    finally:
        products.far_faster.cache_clear()


def test_a_trial_within_autocast_is_of_float32() -> None:
    found: list[torch.dtype] = []
    a, b = processor.matrices()
    with torch.autocast("cpu", torch.bfloat16):
        processor.seconds([lambda: found.append((a[:2] @ b).dtype)])
    assert set(found) == {torch.float32}


@pytest.mark.parametrize("default", ["cpu", "meta", "float64"])
def test_the_ways_of_the_trial_are_one_product(default: str) -> None:
    """On the CPU in float32, whatever a person's defaults are."""
    try:
        if default == "float64":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device(default)
        mkl, onednn = (way() for way in products.ways())
        assert products.runs()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert mkl.dtype == onednn.dtype == torch.float32 and mkl.shape == (512, 1024)
    torch.testing.assert_close(mkl, onednn)


def test_other_forwards_stay() -> None:
    """Somebody's own forward, a class of one's own, and afterwards every layer as it was; a copy is its own."""

    class Own(nn.Linear):
        pass

    def forward(x: Tensor) -> Tensor:
        return x

    model = nn.Sequential(nn.Linear(6, 6), Own(6, 6), nn.Linear(6, 6))
    model[0].forward = forward  # type: ignore[method-assign]
    with products.taken(model):
        assert model[0].forward is forward and "forward" not in vars(model[1])
        before = model[2].forward
        with products.taken(model, fixed=True):
            assert model[2].forward is not before
        assert model[2].forward is before
        other = copy.deepcopy(model)
        other[2].weight.data.zero_()
        other[2].bias.data.zero_()
        assert not other[2](torch.ones(1, 6)).any() and model[2](torch.ones(1, 6)).any()
    assert model[0].forward is forward and "forward" not in vars(model[2])
    with products.taken(forward, fixed=True):  # an exported graph has no layers of torch
        pass


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_threads_that_share_a_model_leave_in_any_order(order: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(3, 6)
    inside = [products.taken(model, fixed=True) for _ in order]
    for each in inside:
        each.__enter__()
    for left, number in enumerate(order, 1):
        inside[number].__exit__(None, None, None)
        assert ("forward" in vars(model[0])) == (left < len(order))
        torch.testing.assert_close(model(x), F.linear(x, model[0].weight, model[0].bias))
    assert model[0] not in products._forwards


def test_a_network_and_checkpointing(asked: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    network = BertModel(config).train()
    ids = torch.randint(1, 50, (3, 9))

    def gradients() -> list[Tensor]:
        network.zero_grad()
        network(input_ids=ids).pooler_output.square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    expected = gradients()
    with products.taken(network):
        found = gradients()
        network.gradient_checkpointing_enable()
        again = gradients()
    assert len(asked) > 30
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, expected)
