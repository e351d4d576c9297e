"""Linear layers in 8 bits for prediction on CPUs: integer products, float32 around them.

    print(quantize(network))    # in place

A weight is kept as integers with a scale for each output channel; an activation becomes integers with a scale
for each *token*, when it is known ("dynamic quantization"). A scale for all tokens of a call, as torch's own
dynamic quantization has it, would make a row's answer depend on the rows beside it. Sums of integers are
exact in any order, so that a linear layer gives a token the same numbers in any batch, padded or not;
attention alone sums in float32, as it does without this, and what it leaves can fall to the other side of a
rounding.

Padding-free layers and a last layer for the first token stay as they were installed: their self-checks
compare float32, before the network is quantized.

`torch._int_mm` is what torchao calls too; its module around it takes 1.3 to 2.9 times as long
(benchmarks/log.md). Without VNNI oneDNN adds pairs of products in 16 bits, where they overflow without a
word: a weight has seven bits there, as in the graphs of `export --int8`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bert_ft.errors import InputError
from bert_ft.kernels import probing

LEVELS = 127  # of an activation, on each side of zero
FEWER = 63  # of a weight, where sums of 16 bits would overflow
TINY = 1e-30  # the least scale: a token of zeros has one too


class Int8Linear(nn.Linear):
    """A linear layer that `_in_place` has made of a plain one. It has no gradient, and no `weight`: whoever
    reads one past `forward` would take integers for the numbers that they stand for.

    Attributes:
        integers: (out, in) int8. scale: (out,) float32, what they are multiplied by.
    """

    integers: Tensor
    scale: Tensor

    def forward(self, input: Tensor) -> Tensor:
        x = input.detach().reshape(-1, input.shape[-1])
        scale = x.abs().amax(dim=-1, keepdim=True).clamp_(min=TINY * LEVELS).mul_(1 / LEVELS)
        integers = (x / scale).round_().to(torch.int8)
        y = torch._int_mm(integers, self.integers.t()).float().mul_(scale)
        y = y.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, y, self.scale, out=y)
        return y.reshape(*input.shape[:-1], y.shape[-1])

    def extra_repr(self) -> str:
        return super().extra_repr() + ", int8"


def quantize(network: nn.Module) -> str:
    """Makes the linear layers of a `transformers` model's encoder those of 8 bits, in place; its head stays
    in float32, and so does a layer that is never called: some hold a table in one. Returns one line to print.

    Raises:
        InputError: not on a CPU, not in float32, no such layers, or a network that does not run with them.
    """
    inner = probing.inner(network)
    if inner is None:
        raise _refused("this is no transformers model")
    if inner.device.type != "cpu":
        raise _refused(f"it is for CPUs, and this model is on {inner.device}")
    if inner.dtype != torch.float32:
        raise _refused(f"it is made of float32, and this model computes in {inner.dtype}")
    levels = LEVELS if _is_exact(LEVELS) else FEWER
    if not _is_exact(levels):
        raise _refused("torch's products of integers are wrong on this processor")
    layers = _called(inner)
    if not layers:
        raise _refused(f"{inner.config.model_type} has no linear layers of torch")
    for layer in layers:
        _in_place(layer, levels)
    _run(inner)
    few = "" if levels == LEVELS else f", weights of {levels.bit_length() + 1} bits (no VNNI here)"
    return f"int8: linear layers in 8 bits: {len(layers)}, each token by its own scale{few}"


def _in_place(linear: nn.Linear, levels: int) -> None:
    """Changes a layer where it stands: its hooks stay, and whoever holds it holds the new one."""
    weight = linear.weight.detach()
    scale = (weight.abs().amax(dim=1) / levels).clamp(min=TINY)
    del linear.weight
    linear.register_buffer("integers", (weight / scale[:, None]).round().to(torch.int8))
    linear.register_buffer("scale", scale)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    linear.__class__ = Int8Linear


@functools.cache
def _is_exact(levels: int) -> bool:
    """Whether torch's products of integers are right at the ends of the range, where they would overflow."""
    signs = torch.randint(2, (2, 64, 256), generator=torch.Generator().manual_seed(0)) * 2 - 1
    signs[:, 0] = 1
    x, w = (signs * torch.tensor([LEVELS, levels])[:, None, None]).to(torch.int8)
    expected = x.double() @ w.double().t()
    return bool((torch._int_mm(x, w.t()).double() == expected).all())


def _called(inner: PreTrainedModel) -> list[nn.Linear]:
    """The plain linear layers below the head that a forward calls."""
    found: dict[nn.Linear, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, _: found.setdefault(module))
        for module in inner.base_model.modules()
        if type(module) is nn.Linear
    ]
    try:
        _run(inner)
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


def _run(inner: PreTrainedModel) -> None:
    """Runs a small ragged batch. Raises InputError: it does not, or what comes out are no numbers."""
    modes = [(module, module.training) for module in inner.modules()]
    inner.train(False)
    try:
        ids, mask = probing.ragged(inner)
        with torch.inference_mode():
            output = inner(input_ids=ids, attention_mask=mask.long())
        problem = None if bool(output[0].isfinite().all()) else "its outputs are no numbers"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        for module, mode in modes:
            module.training = mode
    if problem is not None:
        raise _refused(f"{inner.config.model_type} does not run a small batch ({problem})")


def _refused(why: str) -> InputError:
    return InputError(f"no int8: {why}", where="int8", remedy="leave int8 out: it answers in float32")
