"""What forwards are computed in: those of training steps, and those of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import convert_to_fp32


def outputs(network: Any, inputs: Mapping[str, torch.Tensor], accelerator: Any) -> Any:
    """What a training step's forward gives, in float32 whatever it is computed in."""
    if accelerator.step_dtype is None:
        return network(**inputs)
    with torch.autocast(accelerator.device.type, accelerator.step_dtype):
        return convert_to_fp32(network(**inputs))


@contextmanager
def of_answers(accelerator: Any) -> Iterator[None]:
    """Inside, forwards are computed in the precision of answers, whatever a person's own `torch.autocast`
    around them says. One for all of them: weights are cast once."""
    with torch.autocast(accelerator.device.type, enabled=False), accelerator.autocast():
        yield
