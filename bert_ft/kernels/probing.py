"""What the self-checks of this floor share: where a network's layers are, and a small ragged batch to run."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

try:  # private, but inside a forward the only sign that its hidden states are being recorded
    from transformers.utils.output_capturing import _active_collector as _recorder
except ImportError:
    _recorder = None  # type: ignore[assignment]

STACKS = ("encoder", "transformer", "layers")  # the stack of layers, as an attribute of the base model


def inner(model: nn.Module) -> PreTrainedModel | None:
    """The `transformers` model in a model: itself, or what peft or DDP has wrapped."""
    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)


def stack(network: PreTrainedModel) -> nn.Module | None:
    """The module that runs the layers, or the bare list of them."""
    parts = (getattr(network.base_model, name, None) for name in STACKS)
    return next((part for part in parts if isinstance(part, nn.Module)), None)


def ragged(network: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Token ids and mask of rows of different lengths, each (5, L), on the CPU; (2, L) for BigBird's
    block-sparse attention, which takes hundreds of tokens."""
    config = network.config
    longest = max(12, (getattr(config, "sliding_window", None) or 0) + 4)
    positions = getattr(config, "max_position_embeddings", None) or 64
    longest = min(longest, positions // 2) if positions > 0 else longest  # XLNet has -1: no bound
    sparse = (
        getattr(config, "attention_type", None) == "block_sparse" and shortest_sparse(config) <= positions
    )
    if sparse:
        longest = shortest_sparse(config)
    # hundreds of tokens a row: two of them will do
    lengths = torch.tensor([longest, 2, longest // 2, 1, longest - 1][: 2 if sparse else 5])
    mask = torch.arange(longest) < lengths[:, None]
    vocabulary = config.vocab_size
    pad = getattr(config, "pad_token_id", None) or 0
    ids = torch.randint(vocabulary, mask.shape, generator=torch.Generator().manual_seed(0))
    # no pad inside a row: RoBERTa counts positions by the ids
    return torch.where(ids == pad, (pad + 1) % vocabulary, ids).where(mask, pad), mask


def shortest_sparse(config: Any) -> int:
    """Tokens of the shortest batch that BigBird has block-sparse attention for: at the first that is shorter
    it changes to full attention, for good."""
    return int((5 + 2 * config.num_random_blocks) * config.block_size) + 1


def differentiate(
    network: PreTrainedModel, run: Callable[[], Tensor], dtype: torch.dtype | None, training: bool = False
) -> tuple[Tensor, Tensor]:
    """What `run` computes with the network, and the gradient of its weighted sum by the embeddings that go
    in; under autocast to `dtype`, in evaluation mode, or in training mode with whatever dropout draws. Leaves
    no trace."""
    modes = [(module, module.training) for module in network.modules()]
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    autocast = torch.autocast(network.device.type, dtype, enabled=dtype not in (None, torch.float32))
    entries: list[Tensor] = []

    def enter(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        entries.append(output.detach().requires_grad_())
        return entries[-1]

    embeddings: Any = network.base_model.get_input_embeddings()  # type: ignore[operator]
    handle = embeddings.register_forward_hook(enter)
    try:
        network.train(training)
        for parameter in learned:
            parameter.requires_grad_(False)
        with torch.enable_grad(), autocast:
            result = run()
        weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.device)
        # into the embeddings alone; not `autograd.grad`, which reentrant checkpointing does not have
        (result * weights).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        handle.remove()
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
    gradient = entries[0].grad
    assert gradient is not None
    return result.detach(), gradient


def difference(
    result: Tensor, expected: Tensor, dtype: torch.dtype | None, single: bool = True, rounding: float = 0.0
) -> float | None:
    """The relative difference of two tensors; None where it is rounding of what was computed under autocast
    to `dtype`, in float32 (`single`) or less. `rounding`: by how much the model's own path is off there,
    which half precision may be, too."""
    exact = single and torch.get_float32_matmul_precision() == "highest" and dtype in (None, torch.float32)
    value = relative(result, expected)
    return None if value <= (1e-4 if exact else max(3e-2, rounding)) else value


def relative(result: Tensor, expected: Tensor) -> float:
    """The norm of the difference of two tensors, in norms of the second."""
    return float((result - expected).double().norm() / expected.double().norm())


def sees_recording() -> bool:
    """Whether this version of transformers shows that hidden states are being recorded."""
    return _recorder is not None


def recording() -> bool:
    """Whether the hidden states or attentions of the forward that runs are being recorded."""
    return sees_recording() and bool(_recorder.get())  # type: ignore[no-untyped-call]


def unhook(model: nn.Module, ours: Container[Any]) -> None:
    """Takes these forward hooks and pre-hooks off every module of a model."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in ours]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)
