"""What the last layer for the first token alone gains of a training step: the same batches both ways, in turn, in one process.

    python benchmarks/steps.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --set sst2 rte

CPU seconds of one thread, medians and quartiles of the pairs' ratios: on a machine that others use, too, they are steadier
than wall time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from training import SETS, prepare


def measure(name: str, data: Path, checkpoint: str, pairs: int) -> str:
    """A line for a set: `pairs` batches, each trained on twice; the first two pairs warm up."""
    from bert_ft.engine import loop
    from bert_ft.kernels import cpu, last_layer

    rows, batch, _ = SETS[name]
    _, built, features = prepare(name, data, checkpoint, (pairs + 2) * batch / rows)
    training = loop._Training(built, features, dict, print, None, (), None)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with cpu.lean(built.network, True) as training.lean:
        training.wrapped.train()
        for step, indices in training.plan.batches():
            for first in (True, False) if step % 2 else (False, True):
                built.narrowing.remove()
                if first:
                    built.narrowing = last_layer.narrow(built.network)
                    assert built.narrowing.active, built.narrowing.reason
                start = time.process_time()
                training._step(step, indices)
                seconds[first].append(time.process_time() - start)
    whole, first = seconds[False][2:], seconds[True][2:]
    ratios = [a / b for a, b in zip(whole, first, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return (
        f"{name}, batch {batch}: whole {statistics.median(whole):.3f} s, first tokens {statistics.median(first):.3f} s, "
        f"whole / first {statistics.median(ratios):.3f} (quartiles {low:.2f} to {high:.2f}, {len(ratios)} pairs)"
    )


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--set", nargs="+", choices=SETS, default=["sst2", "rte"], dest="sets")
    parser.add_argument("--pairs", type=int, default=18)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.sets:
        print(measure(name, options.data, options.checkpoint, options.pairs), flush=True)


if __name__ == "__main__":
    main()
