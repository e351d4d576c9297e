"""Attention with dropout on a CPU, forward and backward, over batches of changing lengths: CPU milliseconds of a layer.

    python benchmarks/attention.py --rounds 5

12 heads of 32 and dropout 0.1, as a layer of all-MiniLM-L6-v2 has them. Each batch is computed six times, as by six layers.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

LAYERS, HEADS, SIZE, DROPOUT = 6, 12, 32, 0.1


def lengths(name: str, number: int) -> list[int]:
    """Of the rows of a batch, about as long as those of a data set."""
    draw = np.random.default_rng(number)
    if name == "sst2":
        return sorted(np.clip(draw.exponential(10, 32).astype(int) + 4, 4, 60).tolist())
    if name == "rte":
        return sorted(np.clip(draw.lognormal(4.1, 0.6, 32).astype(int), 20, 250).tolist())
    return sorted(draw.integers(100, 384, 8).tolist())


def measure(name: str, half: bool, batches: int) -> float:
    """CPU milliseconds of a layer, the mean over some batches."""
    import torch

    from bert_ft.kernels import packed_attention

    used = 0.0
    for number in range(batches):
        sizes = lengths(name, number)
        tokens = packed_attention.runs([row * max(sizes) for row in range(len(sizes))], sizes)
        layout = packed_attention.Layout(len(sizes), max(sizes), sizes, tokens, None, lambda: None)
        dtype = torch.bfloat16 if half else torch.float32
        q, k, v, grad = (torch.randn(sum(sizes), HEADS, SIZE, dtype=dtype) for _ in range(4))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        start = time.process_time()
        for _ in range(LAYERS):
            out = packed_attention.attend(*leaves, layout, SIZE**-0.5, DROPOUT)
            torch.autograd.grad(out, leaves, grad)
        used += time.process_time() - start
    return 1000 * used / batches / LAYERS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    import torch
    from torch import nn

    from bert_ft.kernels import cpu

    torch.set_num_threads(1)
    cpu.few_kernels(32)
    print("| lengths | float32, ms | bfloat16, ms |\n|---|---:|---:|")
    with cpu.lean(nn.Linear(1, 1), True):  # its dropout, and its memory
        for name in ("sst2", "rte", "squad"):
            cells = []
            for half in (False, True):
                found = [measure(name, half, options.batches) for _ in range(options.rounds + 1)][1:]
                cells.append(f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{options.rounds} rounds after one to warm up, one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
