"""What takes a model apart while it runs, with no way through functions of our own."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as fwAD


def active() -> bool:
    """Whether a derivative of torch.func's or a forward one is at work, or torch.compile, whose inductor has
    no code for oneDNN's operator with weights that are no constants."""
    if torch.compiler.is_compiling():
        return True
    return bool(torch._C._are_functorch_transforms_active()) or fwAD._current_level >= 0
