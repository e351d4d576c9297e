"""What a forward of a model's own shows of its last layer, before anything of it is left out
(kernels/last_layer.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

SOFTMAXES = (F.scaled_dot_product_attention, F.softmax, torch.softmax, Tensor.softmax)

current: ContextVar[Survey | None] = ContextVar("survey", default=None)  # while the last layer runs


class Survey(TorchFunctionMode):
    """What a forward of the model's own shows of its last layer and its head.

    Attributes:
        calls: of the last layer.
        query, key, value: what attention got, where it is ours.
        behind: the first linear layer after attention.
        made: the modules and what each gave, where it is a tensor.
        hidden: (B, L, H) what leaves the encoder; its gradient is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.query: Tensor | None = None
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        self.attended = False
        self.behind: nn.Module | None = None
        self.made: list[tuple[nn.Module, Tensor]] = []
        self.hidden: Tensor | None = None

    @property
    def linear(self) -> nn.Module | None:
        """The linear layer whose input is narrowed: that of the queries where attention is ours, if they are
        its output and no more; else the first one behind attention."""
        return self.behind if self.query is None else self._made(self.query)

    @property
    def projections(self) -> tuple[nn.Linear, nn.Linear] | None:
        """The linear layers of keys and values, if these are their outputs and no more, and those of no other
        module: what hands on what a linear layer gives (peft's, switched off) may change its mind."""
        found = [None if x is None else self._made(x) for x in (self.key, self.value)]
        key, value = (each if type(each) is nn.Linear and self._is_alone(each) else None for each in found)
        return None if key is None or value is None or key is value else (key, value)

    def _made(self, x: Tensor) -> nn.Module | None:
        """The linear layer whose output a tensor (B, heads, L, d) of attention is, with as many heads as the
        queries."""
        assert self.query is not None
        heads = self.query.shape[1]
        place = x.untyped_storage().data_ptr()
        shape = (*x.shape[:1], x.shape[2], heads * x.shape[3])
        alike = (
            linear
            for linear, output in self.made
            if isinstance(linear, nn.Linear)
            and output.untyped_storage().data_ptr() == place
            and output.shape == shape
        )
        return next(alike, None)

    def _is_alone(self, linear: nn.Module) -> bool:
        """Whether no other module gave what a linear layer did."""
        places = {output.untyped_storage().data_ptr() for module, output in self.made if module is linear}
        makers = (module for module, output in self.made if output.untyped_storage().data_ptr() in places)
        return all(module is linear for module in makers)

    @contextmanager
    def taken(self, network: PreTrainedModel, layer: nn.Module) -> Iterator[None]:
        """Surveys the forwards inside."""
        linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        handles = [
            layer.register_forward_pre_hook(self._enter),
            layer.register_forward_hook(self._leave, always_call=True),
            network.base_model.register_forward_hook(self._leave_encoder),
            *[linear.register_forward_pre_hook(self._enter_linear) for linear in linears],
            *[module.register_forward_hook(self._leave_module) for module in layer.modules()],
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in SOFTMAXES:
            self.attended = True
            self.behind = None
        return func(*args, **(kwargs or {}))

    def _enter(self, *_: Any) -> None:
        self.calls += 1
        current.set(self)
        self.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, *_: Any) -> None:
        if current.get() is self:
            current.set(None)
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _enter_linear(self, module: nn.Module, args: Any) -> None:
        if self.attended and self.behind is None:
            self.behind = module

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.made.append((module, output))

    def _leave_encoder(self, module: nn.Module, args: Any, output: Any) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        if isinstance(hidden, Tensor) and hidden.dim() == 3 and hidden.requires_grad:
            hidden.retain_grad()
            self.hidden = hidden
