"""A record of every dropout that a forward in training mode applies: where, at which rate, to what kind of tensor.

Only the calls that draw are looked at, whoever makes them: `F.dropout` (modules and functional ones alike), torch's
attention, which drops its probabilities itself, and the function of ours that draws masks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from bert_ft.kernels import cpu, grouped_attention, last_layer, padding_free
from bert_ft.kernels.groups import GROUP_COST, group_sizes, width


class Dropout(NamedTuple):
    """One dropout of a step.

    Attributes:
        place: the innermost module that runs.
        kind: "token" (one vector a token), "row" (one a row), "attention" (the probabilities of each head), or "other".
        shape: of what is drawn for one of them: (H,), or (heads,); of anything else the whole shape.
    """

    place: str
    kind: str
    rate: float
    shape: tuple[int, ...]
    dtype: torch.dtype


@contextmanager
def recorded(model: nn.Module, lengths: list[int]) -> Iterator[list[Dropout]]:
    """The dropouts of the forwards inside, in their order, of a batch with rows of these lengths. Complete only when the
    context is left: an attention that works in groups of rows is one dropout."""
    record: list[Dropout] = []
    grouped: dict[int, set[int]] = {}  # entry whose shape still counts heads x queries -> queries a draw
    running = [""]
    within: list[bool] = []
    asked: list[torch.dtype] = []
    rows, longest = len(lengths), max(lengths)
    last = next((name for name, module in model.named_modules() if module is last_layer.last(model)), "")
    window = getattr(model.config, "attention_window", [1])  # Longformer makes its rows longer
    widths = {longest, -(-longest // max(window)) * max(window)}

    def enter(module: nn.Module, *_: Any) -> None:
        if module in names:
            running.append(names[module])

    def leave(module: nn.Module, *_: Any) -> None:
        if module in names:
            running.pop()

    def note(kind: str, rate: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if kind == "attention" and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")  # torch's attention casts what it gets
        record.append(Dropout(running[-1], kind, round(rate, 6), shape, dtype))

    def elementwise(x: Tensor, rate: float) -> None:
        # of the last layer perhaps the first token of each row alone
        narrow = bool(last) and running[-1].startswith(last)
        packed = x.shape[:2] == (1, sum(lengths)) or (narrow and x.shape[:2] == (1, rows))
        padded = (
            x.dim() == 3 and x.shape[0] == rows and (x.shape[1] in widths or (narrow and x.shape[1] == 1))
        )
        if packed or padded:
            note("token", rate, tuple(x.shape[2:]), x.dtype)
        elif x.dim() == 4 and x.shape[0] == rows:
            note("attention", rate, (x.shape[1],), x.dtype)
        elif x.shape[0] == rows:
            note("row", rate, tuple(x.shape[1:]), x.dtype)
        else:
            note("other", rate, tuple(x.shape), x.dtype)

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p > 0 and not within:
            elementwise(x, p)
        within.append(True)  # where a mode sees torch's functions, they call themselves again, by their name
        try:
            return plain_dropout(x, p, training, inplace)
        finally:
            within.pop()

    def sdpa(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **other: Any
    ) -> Any:
        if dropout_p > 0:
            note("attention", dropout_p, (query.shape[1],), query.dtype)
        return plain_sdpa(query, key, value, attn_mask, dropout_p, **other)

    def attend(q: Tensor, *rest: Any) -> Tensor:
        asked.append(q.dtype)  # whatever it computes in
        return plain_attend(q, *rest)

    def watched(draw: Any) -> Any:
        def keep(like: Tensor, rate: float) -> Any:
            if isinstance(modules[running[-1]], nn.Dropout):
                elementwise(like, rate)
            elif (last := len(record) - 1) in grouped and record[last].place == running[-1]:
                record[last] = record[last]._replace(
                    shape=(record[last].shape[0] + like.shape[0] * like.shape[1],)
                )
                grouped[last].add(like.shape[1])
            else:
                note("attention", rate, (like.shape[0] * like.shape[1],), asked[-1])
                grouped[len(record) - 1] = {like.shape[1]}
            return draw(like, rate)

        return keep

    plain_attend = padding_free.attend
    plain_dropout, plain_sdpa, modules = (
        F.dropout,
        F.scaled_dot_product_attention,
        dict(model.named_modules()),
    )
    names = {module: name for name, module in modules.items()}
    # of all modules, since a hook on one of the last layer's would be taken for a reader of what leaves it
    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", dropout)
        patch.setattr(F, "scaled_dot_product_attention", sdpa)
        patch.setattr(padding_free, "attend", attend)
        patch.setattr(grouped_attention, "keep", watched(grouped_attention.keep))
        patch.setattr(cpu, "keep", watched(cpu.keep))
        try:
            yield record
        finally:
            for handle in handles:
                handle.remove()
    # each row as long as the longest of its group, or its first token alone
    widths = [width(length) for length in sorted(lengths)]
    ascending = iter(widths)
    sizes = group_sizes(widths, GROUP_COST)
    queries = sum(size * max(itertools.islice(ascending, size)) for size in sizes)
    for k, drawn in grouped.items():
        # of a head of a row, or of all its heads where these look at the same hidden states
        first = drawn == {1} or (len(drawn) == 1 and record[k].shape[0] == rows * max(drawn))
        heads, rest = divmod(record[k].shape[0], rows if first else queries)
        assert rest == 0, "not all queries of a row had dropout drawn"
        record[k] = record[k]._replace(shape=(heads,))
