"""What a program shares with what is called from it: random states, and the states of `accelerate`."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_training = threading.RLock()
_states = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Inside, this thread alone trains: a process has one stream of random numbers, which two trainings would
    share. Afterwards that of before goes on."""
    with _training, own_random():
        yield


@contextmanager
def own_random() -> Iterator[None]:
    """Inside, the states of Python's, numpy's and torch's random numbers may be set; afterwards they are as
    before. A program that draws its learning rates would draw the same one after each run."""
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def prepare(accelerator: Any, network: Any, optimizer: Any) -> Any:
    """What the `prepare` of an `Accelerator` returns, by that one's own states."""
    if accelerator.is_fsdp2 and hasattr(network, "get_input_embeddings"):
        # accelerate shards the word table by itself, and can't where what it is in was sharded before
        table = network.get_input_embeddings()
        around = {type(module).__name__ for module in network.modules() if table in module.children()}
        layers = sorted({*(getattr(network, "_no_split_modules", None) or ())} - around)
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layers
    with own_states(accelerator.state.__dict__, accelerator.gradient_state.__dict__):
        return accelerator.prepare(network, optimizer)


@contextmanager
def own_states(accelerator: dict[str, Any], gradients: dict[str, Any]) -> Iterator[None]:
    """Inside, what `accelerate` makes has these states; otherwise all of a process share theirs. A person's
    own `Accelerator` would then compute in our precision and accumulate no gradients, another run answer in
    the precision of the newest, and a training between two steps of a person's `accumulate` take none."""
    from accelerate.state import AcceleratorState, GradientState

    with _states:  # two threads would put back each other's
        before = AcceleratorState._shared_state, GradientState._shared_state
        AcceleratorState._shared_state, GradientState._shared_state = accelerator, gradients
        try:
            yield
        finally:
            AcceleratorState._shared_state, GradientState._shared_state = before
