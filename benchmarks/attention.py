"""Attention with dropout on a CPU, forward and backward, over batches of changing lengths: CPU milliseconds of a layer.

    python benchmarks/attention.py --rounds 5
    python benchmarks/attention.py --rounds 5 --last-layer

12 heads of 32 and dropout 0.1, as a layer of all-MiniLM-L6-v2 has them. Each batch is computed six times, as by six layers.
`--last-layer`: queries of the first tokens alone, in float32, with keys and values projected for every token and with their
projections absorbed into the queries; the linear layers are part of it.
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


def measure_last(name: str, absorbs: bool, batches: int) -> float:
    """CPU milliseconds of a last layer's attention, its keys and values included, the mean over some batches."""
    import torch
    from torch import nn

    from bert_ft.kernels import packed_attention, products

    width = HEADS * SIZE
    projections = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
    used = 0.0
    for number in range(batches):
        sizes = lengths(name, number)
        tokens = packed_attention.runs([row * max(sizes) for row in range(len(sizes))], sizes)
        layout = packed_attention.Layout(len(sizes), max(sizes), sizes, tokens, None, lambda: None)
        hidden = torch.randn(sum(sizes), width, requires_grad=True)
        q = torch.randn(len(sizes), HEADS, SIZE, requires_grad=True)
        grad = torch.randn(len(sizes), HEADS, SIZE)
        start = time.process_time()
        with products.taken(projections):
            if absorbs:
                states = [hidden, hidden]
                out = packed_attention.absorbed(q, states, list(projections), layout, SIZE**-0.5, DROPOUT)
            else:
                k, v = (projection(hidden).view(-1, HEADS, SIZE) for projection in projections)
                out = packed_attention.attend(q, k, v, layout, SIZE**-0.5, DROPOUT)
            out.backward(grad)
        used += time.process_time() - start
    return 1000 * used / batches


def shown(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--last-layer", action="store_true")
    options = parser.parse_args()
    import torch
    from torch import nn

    from bert_ft.kernels import cpu

    torch.set_num_threads(1)
    cpu.few_kernels(32)
    columns = ("projected", "absorbed") if options.last_layer else ("float32", "bfloat16")
    print(f"| lengths | {columns[0]}, ms | {columns[1]}, ms |\n|---|---:|---:|")
    with cpu.lean(nn.Linear(1, 1), True):  # its dropout, and its memory
        for name in ("sst2", "rte", "squad"):
            pairs = []
            for _ in range(options.rounds + 1):
                ways = measure_last if options.last_layer else measure
                pairs.append([ways(name, second, options.batches) for second in (False, True)])
            cells = [shown(list(found)) for found in zip(*pairs[1:], strict=True)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{options.rounds} rounds after one to warm up, one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
