"""A person's own loss, looked at each time that it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from bert_ft.errors import InputError

Loss = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def checked(loss: Loss) -> Loss:
    """`loss(logits, batch)`, refused where it gives neither (B,) losses nor their mean: what has another
    shape would be summed as if it were losses of rows, and what has no gradient would train nothing.

    Raises:
        InputError: when it is called, and gives something else.
    """

    def looked_at(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        found: Any = loss(logits, batch)
        rows = len(logits)
        if not isinstance(found, Tensor):
            problem = f"it returned {type(found).__name__} and no tensor"
        elif found.shape not in ((), (rows,)):
            problem = f"it returned a tensor of shape {tuple(found.shape)} for {rows} rows"
        elif logits.requires_grad and not found.requires_grad:
            problem = "what it returned has no gradient: was it detached, or made of numbers?"
        else:
            return found
        remedy = f"return a loss for each row, ({rows},), or their mean, ()"
        raise InputError(problem, where="loss", remedy=remedy)

    return looked_at
