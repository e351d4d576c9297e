"""What makes the steps of a training cheaper and leaves what they compute as it is: kernels/cpu.py on CPUs,
kernels/graphs.py on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bert_ft.config.task import Task
from bert_ft.engine.precision import HALF
from bert_ft.kernels import cpu, graphs

WORTH = 100  # steps: to record a size of batches takes some tenths of a second, a step gains some hundredths


@contextmanager
def steps(
    network: Any,
    optimizer: Any,
    task: Task,
    accelerator: Any,
    number: int,
    log: Callable[[dict[str, Any]], None],
) -> Iterator[cpu.Lean | None]:
    """Makes the steps of a training inside cheaper, as far as its task asks for it and their `number` is
    worth it; yields what lean steps on CPUs know of their model. What was recorded on a GPU is told at the
    end.

    Args:
        optimizer: torch's own, without what `accelerate` wraps around it.
    """
    batching = task.batching
    alone = accelerator.num_processes == 1
    with cpu.lean(network, batching.lean, alone, optimizer) as lean:
        dtype = HALF.get(accelerator.mixed_precision)
        whole = batching.gradient_accumulation_steps == 1 and number >= WORTH
        if not (batching.graphs and alone and whole and dtype):
            yield lean
            return
        with graphs.recorded(network, task.recipe.batch_size, dtype) as layers:
            yield lean
    if layers is not None:
        log({"graphs": f"{layers.reason}; {layers.replayed:,} steps replayed"})
