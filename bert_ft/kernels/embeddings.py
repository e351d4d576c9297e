"""The gradient of a large embedding table in memory that is kept, of which a step touches a few rows.

autograd makes a dense gradient for each step: 47 MB of zeros for 30,522 word pieces of 384 numbers, of which
the 430 tokens of a batch fill 1 %, and clipping reads all of them. Here a step clears the rows that the step
before has filled. The numbers are autograd's own, to the bit.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bert_ft.kernels import transforms

LARGE = 2**20  # numbers in a table: below, zeros are cheap


class Table:
    """The gradient of an embedding's weight.

    Attributes:
        gradient: (V, H), zeros but for `rows`; it is `weight.grad` once a step has begun to fill it.
        rows: (R,) which rows this step has touched, ascending.
        version: of the gradient, as torch counts what is written to it, once we have.
    """

    def __init__(self, module: nn.Embedding) -> None:
        self.module = module
        self.weight = module.weight
        self.gradient = zeros(*self.weight.shape, dtype=self.weight.dtype)
        self.rows = torch.empty(0, dtype=torch.long)
        self.version = self.gradient._version

    def look_up(self, ids: Tensor) -> Tensor:
        """In place of the module's `forward`: (...) token numbers -> (..., H)."""
        weight = self.module.weight
        # `functional_call` has put another one in its place
        if weight is not self.weight or transforms.active():
            return nn.functional.embedding(ids, weight, self.module.padding_idx)
        result: Tensor = _LookUp.apply(self.weight, ids, self)  # type: ignore[no-untyped-call]
        return result

    def add(self, ids: Tensor, gradient: Tensor) -> None:
        """Adds the gradient (..., H) of what was looked up for `ids` (...) to that of the weight."""
        if (others := self.weight.grad) is not self.gradient:  # the optimizer has let go of the last step's
            self.gradient.index_fill_(0, self.rows, 0)
            self.rows = self.rows[:0]
            self.weight.grad = self.gradient
            if others is not None:  # autograd's, of a backward before in which nothing was looked up here
                self.gradient += others
                self.rows = torch.arange(len(others))
        rows, places = torch.unique(ids, return_inverse=True)
        padding = self.module.padding_idx
        if padding is not None:  # has no gradient; unlike `padding_idx` of the function below, -1 is no row
            places = places.masked_fill(ids == padding, -1)
        sums = torch.ops.aten.embedding_dense_backward(gradient, places, len(rows), -1, False)
        self.gradient.index_copy_(0, rows, sums.add_(self.gradient.index_select(0, rows)))
        self.rows = torch.unique(torch.cat([self.rows, rows])) if len(self.rows) else rows
        self.version = self.gradient._version

    def check(self, weight: Tensor) -> None:
        """At the end of a backward: where autograd has added something of its own, as of a weight that the
        model reads elsewhere, too, every row counts as touched."""
        if self.gradient._version != self.version:
            self.rows = torch.arange(len(weight))
            self.version = self.gradient._version


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, table: Table) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.table = table
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        ctx.table.add(ctx.saved_tensors[0], grad)
        return None, None, None


@contextmanager
def kept(model: nn.Module) -> Iterator[list[Table]]:
    """Keeps the gradients of the model's large tables inside; yields them.

    A table is left to autograd where it is not looked up in the plain way, where somebody's hook waits for
    its gradient, and where its weight is another module's, too.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    tables = [
        Table(module)
        for module in model.modules()
        if type(module) is nn.Embedding
        and _is_plain(module)
        and module.weight.numel() >= LARGE
        and owners[id(module.weight)] == 1
    ]
    hooks: list[Any] = [
        table.weight.register_post_accumulate_grad_hook(table.check)  # type: ignore[no-untyped-call]
        for table in tables
    ]
    for table in tables:
        table.module.forward = table.look_up  # type: ignore[assignment]
    try:
        yield tables
    finally:
        for table, hook in zip(tables, hooks, strict=True):
            hook.remove()
            del table.module.forward


def _is_plain(module: nn.Embedding) -> bool:
    weight: Any = module.weight
    hooked = weight._backward_hooks or weight._post_accumulate_grad_hooks or "forward" in vars(module)
    rare = module.max_norm is not None or module.scale_grad_by_freq or module.sparse
    return weight.requires_grad and weight.is_leaf and not hooked and not rare


def touched(parameters: Iterable[nn.Parameter], tables: Iterable[Table]) -> Iterator[Tensor]:
    """The gradients of the parameters that have one, of a table the rows that are not zeros."""
    rows = {id(table.weight): table for table in tables}
    for parameter in parameters:
        if parameter.grad is not None:
            table = rows.get(id(parameter))
            if table is not None and parameter.grad is table.gradient:
                yield table.gradient.index_select(0, table.rows)
            else:
                yield parameter.grad


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros on the CPU that take memory where they are first written, and not before."""
    size = math.prod(shape) * dtype.itemsize
    if not size or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(shape, dtype=dtype)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # which is how mmap says that there is none
        raise MemoryError(f"no {size:,} bytes for zeros") from error
    return torch.frombuffer(memory, dtype=dtype).view(shape)
