"""An optimizer's step over those rows of a large table that a training has looked up, and over no others.

The averages of a row that was never looked up are zero, so that all AdamW does to it is weight decay, if
anything. Of the 250,002 word pieces of XLM-R a training sees some thousands, and yet each step reads and
writes all of them and both their averages. Here the rows that were seen lie side by side, the optimizer's own
step runs over them in the table's stead, and what was not seen takes no memory. The numbers are those of a
step over all rows, to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bert_ft.kernels.embeddings import Table, zeros

AVERAGES = ("exp_avg", "exp_avg_sq")
LANES = 16  # torch's kernels round what is left beyond whole vectors of numbers in another way
MOST = 0.25  # of a table's rows: beyond, to gather them takes as long as a step over all of them


class SeenRows:
    """What a training has seen of a table.

    Attributes:
        place: the optimizer's group and the place in it where something stands in for the table's weight.
        known: whether the averages are here, (M, H) each for at most M rows, and no longer in the optimizer's
            state.
        rows: (R,) the numbers of the rows, in the order in which they were first seen.
        slots: (V,) where a row is in `rows`, -1 for one that was not seen.
        touched: (T,) the slots of the rows that this step's batch has looked up.
        over: whether the optimizer steps on the whole table, from here on.
    """

    def __init__(self, table: Table, optimizer: torch.optim.AdamW) -> None:
        self.table = table
        self.optimizer = optimizer
        self.known = self.over = False
        self.place: tuple[dict[str, Any], int] | None = None
        self.rows = self.slots = self.touched = torch.empty(0, dtype=torch.long)
        self.forget()

    def swap_in(self) -> None:
        """Before the optimizer's step: puts the rows in the table's place, where that is the same step."""
        weight, gradient, touched = self.table.weight, self.table.gradient, self.table.rows
        if self.over or weight.grad is None:
            return
        groups = self.optimizer.param_groups
        group, place = next((g, n) for g in groups for n, p in enumerate(g["params"]) if p is weight)
        if weight.grad is not gradient or not _decays_at_most(group):
            self.give_up()
            return
        if not self.known:
            self._begin()
        new = touched[self.slots[touched] < 0]
        count = len(self.rows) + len(new)
        if count > MOST * len(weight):
            self.give_up()
            return
        self.slots[new] = torch.arange(len(self.rows), count)
        self.rows = torch.cat([self.rows, new])
        self.touched = self.slots[touched]
        torch.index_select(weight.detach(), 0, self.rows, out=self.values[:count])
        self.gradients.index_copy_(0, self.touched, gradient.index_select(0, touched))
        whole = -(-count // LANES) * LANES  # what is beyond the rows is zero, and stays so
        stand_in = nn.Parameter(self.values[:whole])
        stand_in.grad = self.gradients[:whole]
        averages = {name: average[:whole] for name, average in self.averages.items()}
        self.optimizer.state[stand_in] = {"step": self.optimizer.state[weight]["step"], **averages}
        self.place = group, place
        group["params"][place] = stand_in

    def swap_out(self) -> None:
        """After the step: the table is in its place again, with the rows as they are now."""
        if self.place is None:
            return
        weight = self.table.weight
        group, place = self.place
        stand_in, group["params"][place] = group["params"][place], weight
        self.place = None
        if stand_in is weight:  # broken off before it was there
            return
        del self.optimizer.state[stand_in]
        with torch.no_grad():
            if group["weight_decay"]:  # of the other rows
                weight.mul_(1 - float(group["lr"]) * group["weight_decay"])
            weight.index_copy_(0, self.rows, stand_in.detach()[: len(self.rows)])
        self.gradients.index_fill_(0, self.touched, 0)

    def settle(self) -> None:
        """Writes the averages into the optimizer's state, where others look for them."""
        if self.known:
            state = self.optimizer.state[self.table.weight]
            for name, average in self.averages.items():
                state[name].index_copy_(0, self.rows, average[: len(self.rows)])

    def give_up(self) -> None:
        """From here on the optimizer steps on the whole table."""
        self.swap_out()
        self.settle()
        self.forget()
        self.over = True

    def forget(self) -> None:
        """What the optimizer's state says is right again."""
        self.known = False
        self.averages: dict[str, Tensor] = {}
        self.values = self.gradients = torch.empty(0)

    def _begin(self) -> None:
        """Takes up the averages of a training that goes on, or begins with zeros."""
        weight = self.table.weight
        state = self.optimizer.state[weight]
        if state:
            rows = torch.stack([state[name].any(1) for name in AVERAGES]).any(0).nonzero().flatten()
        else:
            rows = torch.empty(0, dtype=torch.long)
            state |= {"step": torch.zeros(()), **{name: zeros(*weight.shape) for name in AVERAGES}}
        room = max(int(MOST * len(weight)), len(rows)) + LANES, weight.shape[1]
        self.values, self.gradients = zeros(*room), zeros(*room)
        self.averages = {name: zeros(*room) for name in AVERAGES}
        for name, average in self.averages.items():
            average[: len(rows)] = state[name][rows]
        self.rows = rows
        self.slots = torch.full((len(weight),), -1)
        self.slots[rows] = torch.arange(len(rows))
        self.known = True


def _decays_at_most(group: dict[str, Any]) -> bool:
    """Whether weight decay is all that AdamW does, with these settings, to what has no gradient and averages
    of zero."""
    return group["eps"] > 0 and not (group["amsgrad"] or group["capturable"] or group["differentiable"])


@contextmanager
def alone(optimizer: Any, tables: Iterable[Table]) -> Iterator[None]:
    """Inside, an optimizer that is torch's AdamW steps over what was seen of these tables alone. Who asks for
    its state gets the whole of it."""
    if type(optimizer) is not torch.optim.AdamW:
        yield
        return
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    seen = [
        SeenRows(table, optimizer)
        for table in tables
        if id(table.weight) in known
        and table.weight.dtype == torch.float32
        and table.weight.numel() % LANES == 0
    ]

    def each(method: Callable[[SeenRows], None], *_: Any) -> None:
        for rows in seen:
            method(rows)

    hooks = [
        optimizer.register_step_pre_hook(functools.partial(each, SeenRows.swap_in)),
        optimizer.register_step_post_hook(functools.partial(each, SeenRows.swap_out)),
        optimizer.register_state_dict_pre_hook(functools.partial(each, SeenRows.settle)),
        optimizer.register_load_state_dict_post_hook(functools.partial(each, SeenRows.forget)),
    ]
    try:
        yield
    finally:
        each(SeenRows.give_up)
        for hook in hooks:
            hook.remove()
