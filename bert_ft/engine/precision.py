"""The forward of a training step in a precision of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import convert_to_fp32


def outputs(network: Any, inputs: Mapping[str, torch.Tensor], accelerator: Any) -> Any:
    """What a training step's forward gives, in float32 whatever it is computed in."""
    if accelerator.step_dtype is None:
        return network(**inputs)
    with torch.autocast(accelerator.device.type, accelerator.step_dtype):
        return convert_to_fp32(network(**inputs))
