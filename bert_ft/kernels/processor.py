"""What this CPU is good at: what torch knows of it, and what a trial of some milliseconds finds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# of this thread, whoever else computes; Windows counts it in steps of 16 ms
OWN_TIME = time.perf_counter if sys.platform == "win32" else time.thread_time
TURNS = 7


def capabilities() -> dict[str, Any]:
    """What torch knows of the processor; older versions of it know nothing."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def has_bf16() -> bool:
    """Whether torch knows of instructions for bfloat16 on this CPU."""
    return bool(capabilities().get("avx512_bf16") or capabilities().get("amx_bf16"))


def matrices(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(512, 384) and (384, 1024), the feed-forward of a small encoder over the tokens of a small batch: their
    product takes 4 ms in float32."""
    # on the CPU, whatever device is a person's default
    return torch.ones(512, 384, dtype=dtype, device="cpu"), torch.ones(384, 1024, dtype=dtype, device="cpu")


def seconds(ways: Sequence[Callable[[], Any]]) -> list[float]:
    """The least seconds that each takes on one thread, tried in turn: others who use the cores would make two
    threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    least = [math.inf for _ in ways]
    try:
        with torch.autocast("cpu", enabled=False):  # a person's own would make all of them bfloat16's
            for number, way in [*enumerate(ways)] * TURNS:
                start = OWN_TIME()
                way()
                least[number] = min(least[number], OWN_TIME() - start)
    finally:
        torch.set_num_threads(threads)
    return least
