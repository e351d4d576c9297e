"""Linear layers on a CPU by oneDNN's own operator, where that is faster: on AMD's processors with AVX-512,
which MKL does without there. In float32 it is 1.05 to 1.10 times as fast as MKL where vectors of 512 bits are
computed in halves, and 2.2 times where they are computed whole (as in Zen 5); in bfloat16 1.03 to 1.14 times
what torch makes of the same library (benchmarks/products.py). With AVX2 alone it is not, and Intel's are not
measured.

    with products.taken(model):
        ...     # forwards and backwards

A product is the same sum in another order, to the last digits of its type. A training's steps are computed so
in float32 alone, answers in bfloat16, too; in other types and on other devices a layer is what it always was.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ft.kernels import processor, transforms

ANSWERS = (torch.float32, torch.bfloat16)  # types that answers are computed in so
WORTH = 1.5  # times MKL's speed
# Multiplications from which on a product of a step is oneDNN's, which makes a kernel for each new number of
# tokens, in 0.3 ms: few tokens in narrow layers do not win that back (benchmarks/log.md).
LARGE = 2**22
_forwards: dict[nn.Linear, list[Any]] = {}  # of the layers that are taken, the newest last
_lock = threading.Lock()


class _Cast(dict[nn.Linear, tuple[Tensor, Tensor | None]]):
    """Weights and biases of layers that do not change, in another type and in oneDNN's own order, made where
    they are asked for first. In their own type they stay as they are: 1.06 times as fast in oneDNN's order,
    they would be there twice."""

    def of(self, layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """(weight, bias)."""
        if layer.weight.dtype == dtype:
            return layer.weight, layer.bias
        if layer not in self:
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.to(dtype))
            self[layer] = weight, None if layer.bias is None else layer.bias.to(dtype)
        return self[layer]


@contextmanager
def taken(model: Any, requested: bool = True, fixed: bool = False) -> Iterator[None]:
    """Inside, the linear layers of `model`, where it has any, are oneDNN's, if requested and faster here;
    `fixed`: no weight changes."""
    modules = model.modules() if isinstance(model, nn.Module) and requested and faster() else ()
    layers = [module for module in modules if is_free(module)]
    cast = _Cast() if fixed else None
    if layers and not fixed:
        far_faster()  # the trial, which no backward should wait for
    mine = {layer: functools.partial(_forward, layer, cast) for layer in layers}
    with _lock:
        for layer, forward in mine.items():
            _forwards.setdefault(layer, []).append(forward)
            layer.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _lock:  # threads that share a model leave in any order
            for layer, forward in mine.items():
                _forwards[layer].remove(forward)
                if others := _forwards[layer]:
                    layer.forward = others[-1]  # type: ignore[method-assign]
                else:
                    del layer.forward, _forwards[layer]


def is_free(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a plain linear layer whose forward nobody else has replaced."""
    own = vars(module).get("forward")
    return type(module) is nn.Linear and (own is None or getattr(own, "func", None) is _forward)


@functools.cache
def faster() -> bool:
    """Whether this is a CPU on which oneDNN was measured to be faster, in a build of torch that has it."""
    known = processor.capabilities()
    return "AMD" in str(known.get("cpu_name")) and bool(known.get("avx512_f")) and runs()


@functools.cache
def far_faster() -> bool:
    """Whether it is so much faster that gradients of weights are worth a kernel for each shape."""
    if not faster():
        return False
    mkl, onednn = processor.seconds(ways())
    return mkl >= WORTH * onednn


def ways() -> list[Callable[[], Tensor]]:
    """The ways to a product of float32, for a trial: MKL's, and oneDNN's where that is faster."""
    a, b = processor.matrices()
    return [lambda: a @ b, *([lambda: _product(a, b.t(), None)] if faster() else [])]


def runs() -> bool:
    """Whether oneDNN's linear layer is there: tried, since it is an operator of torch's compiler."""
    x = torch.ones(2, 4, dtype=torch.float32, device="cpu")
    try:
        with torch.inference_mode():
            found = _product(x, torch.ops.mkldnn._reorder_linear_weight(x), x[0, :2].contiguous())
    except (AttributeError, RuntimeError, TypeError):
        return False
    return found.tolist() == [[5.0, 5.0], [5.0, 5.0]]


def _forward(layer: nn.Linear, cast: _Cast | None, x: Tensor) -> Tensor:
    """In place of `nn.Linear.forward`; `cast`: of a model that does not change."""
    weight, bias = layer.weight, layer.bias
    plain = type(x) is Tensor and x.device.type == "cpu" and type(weight) in (Tensor, nn.Parameter)
    mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if mixed else x.dtype
    own = {x.dtype, weight.dtype} <= ({torch.float32, torch.bfloat16} if mixed else {dtype})
    if not plain or not own or transforms.active():
        return F.linear(x, weight, bias)
    if cast is not None and not torch.is_grad_enabled() and dtype in ANSWERS:
        return _product(x.to(dtype), *cast.of(layer, dtype))
    if not mixed and dtype == torch.float32 and x.numel() * weight.shape[0] >= LARGE:
        # in rows: what leaves is then no view, which some models change in place
        product: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return product.view(*x.shape[:-1], weight.shape[0])
    return F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    """Of rows (N, I); the gradient of the weight stays MKL's where that is about as fast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # what no gradient asks for is not kept, as torch's own layer does not
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        # a loss that holds gradients differentiates these, too
        back = torch.matmul if torch.is_grad_enabled() else _matmul
        # of no rows oneDNN makes no sum
        back_to_weight = back if far_faster() and len(grad) else torch.matmul
        return (
            back(grad, weight) if of_x else None,
            back_to_weight(grad.t(), x) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices."""
    return _product(a, b.t(), None)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) -> (..., O)."""
    bias = None if bias is None else bias.contiguous()  # whose strides the operator does not look at
    # for numbers that lie apart, as first tokens of sequences do, oneDNN has a loop of 500 times the time
    if not weight.is_mkldnn and not weight.is_contiguous() and not weight.t().is_contiguous():
        weight = weight.contiguous()
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
