"""A linear layer by torch and by oneDNN's own operator (bert_ft/kernels/products.py): milliseconds and GFLOP/s of one thread.

    python benchmarks/products.py --tokens 433 4096
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/products.py    # as on a CPU without AVX-512

Forward with a bias, and the gradients of what comes in and of the weight; medians, in turn.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any


def medians(ways: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """Milliseconds of each way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            found[name].append(1000 * (time.thread_time() - start))
    return {name: statistics.median(values[2:]) for name, values in found.items()}


def main() -> None:
    import torch
    import torch.nn.functional as F

    from bert_ft.kernels import cpu, products

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[433, 4096])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--times", type=int, default=22)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cpu.keep_freed(True)  # as in a training
    width = options.width
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; faster here: {products.faster()}, far faster: {products.far_faster()}\n"
    )
    print(
        "| type | tokens | layer | `F.linear` | oneDNN | oneDNN, ordered | gradient of what comes in by `@` | by oneDNN | of the weight by `@` | by oneDNN |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    with torch.no_grad():
        for dtype in products.ANSWERS:
            for tokens in options.tokens:
                for i, o in ((width, width), (width, 4 * width), (4 * width, width)):
                    x, g = torch.randn(tokens, i).to(dtype), torch.randn(tokens, o).to(dtype)
                    w, b = (torch.randn(o, i) / 20).to(dtype), torch.randn(o).to(dtype)
                    ordered = torch.ops.mkldnn._reorder_linear_weight(w)
                    found = medians({
                        "linear": lambda x=x, w=w, b=b: F.linear(x, w, b),
                        "plain": lambda x=x, w=w, b=b: products._product(x, w, b),
                        "ordered": lambda x=x, w=ordered, b=b: products._product(x, w, b),
                        "at": lambda g=g, w=w: g @ w,
                        "onednn": lambda g=g, w=w: products._matmul(g, w),
                        "weight at": lambda g=g, x=x: g.t() @ x,
                        "weight onednn": lambda g=g, x=x: products._matmul(g.t(), x),
                    }, options.times)  # fmt: skip
                    cells = (f"{ms:.2f} ({2e-6 * tokens * i * o / ms:.0f})" for ms in found.values())
                    print(f"| {str(dtype)[6:]} | {tokens:,} | {i} x {o} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
