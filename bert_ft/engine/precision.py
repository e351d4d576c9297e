"""What forwards are computed in, those of training steps and those of answers: whether the network runs in
it, and numbers that keep their digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from bert_ft.engine.last_linear import LastLinear
from bert_ft.engine.sharing import Reader
from bert_ft.errors import InputError
from bert_ft.kernels import probing

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def outputs(network: Any, inputs: Mapping[str, Tensor], accelerator: Any) -> Any:
    """What a training step's forward gives, in float32 whatever it is computed in."""
    if accelerator.step_dtype is None:
        return network(**inputs)
    with torch.autocast(accelerator.device.type, accelerator.step_dtype):
        return convert_to_fp32(network(**inputs))


@contextmanager
def of_answers(accelerator: Any) -> Iterator[None]:
    """Inside, forwards are computed in the precision of answers, whatever a person's own `torch.autocast`
    around them says. One for all of them: weights are cast once."""
    dtype = HALF.get(accelerator.mixed_precision)
    # not accelerate's own, which asks what all of a process share
    with torch.autocast(accelerator.device.type, dtype, enabled=dtype is not None):
        yield


def settle(network: Any, reader: Reader, accelerator: Any) -> list[str]:
    """Leaves training steps in the precision of answers where the network, its head included, does not run
    in theirs, or can't be tried, or gives numbers that would lose their digits, and was not asked to; lets
    the numbers of others keep theirs. Returns why."""
    if accelerator.step_dtype is not None and next(network.parameters()).dtype == torch.float64:
        accelerator.step_dtype = accelerator.bf16_gain = None
        return ["trained in float64, the type of the network's weights, which no step in bf16 changes"]
    half = accelerator.step_dtype is not None or accelerator.mixed_precision in ("bf16", "fp16")
    notes = []
    if half and getattr(reader, "regression", False):
        notes += _keep_digits(network, reader, accelerator)
    if accelerator.step_dtype is None:
        return notes
    inner = probing.inner(network)
    if inner is None:
        return notes if accelerator.asked else [*notes, *_in_fp32(accelerator)]
    if (problem := _problem(network, inner, reader, accelerator)) is None:
        return notes
    kind = inner.config.model_type
    dtype, accelerator.step_dtype = accelerator.step_dtype, None
    if _problem(network, inner, reader, accelerator) is None:
        return [*notes, *_in_fp32(accelerator, f"{kind} does not run in bf16 ({problem})")]
    if accelerator.asked:
        accelerator.step_dtype = dtype
        return notes
    return [*notes, *_in_fp32(accelerator, f"{kind} can't be tried in bf16 ({problem})")]


def _in_fp32(accelerator: Any, reason: str = "") -> list[str]:
    """Lets steps be computed in fp32; returns the reason, if there is one to tell."""
    accelerator.step_dtype = accelerator.bf16_gain = None
    return [f"trained in fp32: {reason}"] if reason else []


def _problem(network: Any, inner: Any, reader: Reader, accelerator: Any) -> str | None:
    """What a step on a small ragged batch raises, which leaves no trace; None: nothing."""
    ids, mask = (tensor.to(inner.device) for tensor in probing.ragged(inner))
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    try:
        with torch.random.fork_rng([]):
            probing.differentiate(
                inner, lambda: reader.logits(outputs(network, inputs, accelerator)), None, True
            )
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        for buffer, value in before:
            buffer.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
    return None


def _keep_digits(network: Any, reader: Reader, accelerator: Any) -> list[str]:
    """Computes the last layer of a head that gives a number in float32, whatever is computed before it.
    bfloat16 has 8 bits: years are multiples of 8 in it, and nothing tells 2,009 from 2,011."""
    probing.unhook(network, (_number,))
    try:
        layer = LastLinear(network, reader).module
    except InputError as error:
        reason = f"{error.message.splitlines()[0]}, and half precision has three digits for its numbers"
        kept = accelerator.asked or accelerator.step_dtype is None
        return [reason] if kept else _in_fp32(accelerator, reason)
    layer.register_forward_hook(_number)
    return []


def plain(network: Any) -> None:
    """Makes a head's last layer that of its model again."""
    probing.unhook(network, (_number,))


def _number(module: nn.Linear, args: tuple[Tensor], output: Tensor) -> Tensor | None:
    """Forward hook: the layer's output in float32 where autocast would round it; None: as it is."""
    device = args[0].device.type
    if not torch.is_autocast_enabled(device):
        return None
    bias = None if module.bias is None else module.bias.float()
    with torch.autocast(device, enabled=False):
        return F.linear(args[0].float(), module.weight.float(), bias)
