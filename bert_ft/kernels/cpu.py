"""What makes a training step on CPUs cheaper and leaves what it computes as it is; `batching.lean = false` is
without.

Dropout is applied where the model applies it and at its rates, to 1 / 65,536
(tests/invariants/test_dropout.py): attention reads its rate off the module it keeps (`self.dropout.p`), so no
module's rate may ever change here.

- Memory that a step frees is kept for the next one: glibc would give large blocks back to the system, whose
  pages must then be faulted in anew (the gradient of the word embeddings alone has 47 MB in a BERT of 30,522
  word pieces).
- Dropout draws 16 bits an element, in bulk: torch draws 64 bits for each, one after the other.
- Linear layers of float32 are oneDNN's where these are faster (kernels/products.py).
- The gradient of the word embeddings keeps its memory (kernels/embeddings.py), and the optimizer steps over
  those of their rows that were ever looked up (kernels/seen_rows.py).
- Clipping is part of the optimizer's pass over the gradients (`grad_scale` of the fused AdamW) instead of a
  pass before.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bert_ft.kernels import embeddings, grouped_attention, processor, products, seen_rows, transforms

# malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Lean:
    """What lean steps know of their model: its tables whose gradients keep their memory."""

    tables: Sequence[embeddings.Table] = ()

    def clip(self, optimizer: Any, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """The norm of all gradients; the optimizer's next step takes them clipped to `max_norm`."""
        norm = torch.nn.utils.get_total_norm(list(embeddings.touched(parameters, self.tables)))
        scale = (norm + 1e-6) / max_norm
        # float32 is what Adam asks for; without a scale it does not write the gradients back
        optimizer.grad_scale = None if scale <= 1 else scale.float()
        optimizer.found_inf = None
        return norm


@contextmanager
def lean(
    model: nn.Module, requested: bool, alone: bool = True, optimizer: Any = None
) -> Iterator[Lean | None]:
    """Makes the training steps of `model` and of its `optimizer` lean inside, if requested and on a CPU;
    yields None where they are not. `alone`: no other process waits for its gradients, as autograd announces
    them."""
    if not requested or next(model.parameters()).device.type != "cpu":
        yield None
        return
    keep_freed(True)
    dropouts = [module for module in model.modules() if type(module) is nn.Dropout and 0 < module.p < 1]
    previous = grouped_attention.keep
    grouped_attention.keep = keep
    for module in dropouts:
        module.forward = functools.partial(_forward, module)  # type: ignore[method-assign]
    try:
        kept = embeddings.kept(model) if alone else nullcontext(())
        with products.taken(model), kept as tables, seen_rows.alone(optimizer, tables):
            yield Lean(tables)
    finally:
        grouped_attention.keep = previous
        for module in dropouts:
            del module.forward
        keep_freed(False)


def keep_freed(enabled: bool) -> None:
    """Whether all blocks that are freed stay with this process, or no more than an evaluation takes up again:
    blocks of less than 64 MB, and 256 MB of them at the top. With glibc's own bounds a fifth of an
    evaluation goes into pages that are given back and faulted in anew."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**30 if enabled else 2**26)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if enabled else 2**28)


def give_back() -> None:
    """From now on blocks of 2 MB and more that are freed are given back, and 32 MB of smaller ones are kept:
    the peak of a process that answers one file after the other stays near that of the first."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**21)
        libc.mallopt(M_TRIM_THRESHOLD, 2**25)


def trim() -> None:
    """Gives back what is free between blocks that are in use, as a file leaves it behind."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def few_kernels(kept: int) -> None:
    """How many of oneDNN's kernels stay with this process, as far as it has used none yet and its environment
    does not say. Matrix products in bfloat16 take one for every shape, and without padding hardly a shape
    comes twice but in other layers of the same step: torch and oneDNN would keep 1,024 each, 700 MB of a
    training's memory, and be no faster. One takes 1 to 4 MB (benchmarks/log.md). The
    first call of a process counts."""
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, str(kept))


@functools.cache
def bf16_gain() -> float:
    """How many times as fast as in float32 this CPU multiplies matrices in bfloat16: 2 or more where it has
    instructions for that, a quarter where it has not, 0 where torch knows that without a trial."""
    if processor.capabilities().get("architecture") == "x86_64" and not processor.has_bf16():
        return 0.0
    a, b = processor.matrices(torch.bfloat16)
    bf16, *fp32 = processor.seconds([lambda: a @ b, *products.ways()])
    return round(min(fp32) / bf16, 2)


def _forward(module: nn.Dropout, x: Tensor) -> Tensor:
    """In place of `nn.Dropout.forward`, with the rate that the module has by now."""
    if not module.training or not 0 < module.p < 1 or transforms.active():
        return nn.functional.dropout(x, module.p, module.training)
    dropped: Tensor = _Dropout.apply(x, module.p)  # type: ignore[no-untyped-call]
    return dropped


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask, ctx.mean = keep(x, rate)
        ctx.save_for_backward(mask)
        return _scaled(x, mask, ctx.mean)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _scaled(grad, ctx.saved_tensors[0], ctx.mean), None


def _scaled(x: Tensor, mask: Tensor, factor: float) -> Tensor:
    """The product of all three, in one pass."""
    return torch.addcmul(x.new_zeros(()), x, mask, value=factor)


def keep(like: Tensor, dropout: float) -> tuple[Tensor, float]:
    """A dropout mask, zeros at the rate of `dropout`, to 1 / 65,536, and ones elsewhere, and the factor that
    keeps the mean."""
    threshold = min(round((1 - dropout) * 65536), 65535)
    bits = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits16 = bits.view(torch.int16)[: like.numel()].view(like.shape)
    # straight into the mask's type: by way of booleans it takes ten times as long
    return torch.lt(bits16, threshold - 32768, out=torch.empty_like(like)), 65536 / max(threshold, 1)
