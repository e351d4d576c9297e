"""What the last layer for the first token alone gains of a training step: the same batches both ways, in turn, in one process.

    python benchmarks/steps.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --set sst2 rte
    python benchmarks/steps.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --set sst2 rte --absorbed

`--absorbed`: what it gains that keys and values of that layer are absorbed into its queries. CPU seconds of one thread, medians and quartiles of the pairs' ratios: on a machine that others use, too, they are steadier
than wall time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

from training import SETS, prepare


def measure(name: str, data: Path, checkpoint: str, pairs: int, absorbed: bool) -> str:
    """A line for a set: `pairs` batches, each trained on twice; the first two pairs warm up."""
    from bert_ft.engine import loop
    from bert_ft.kernels import cpu, last_layer

    rows, batch, _ = SETS[name]
    _, built, features = prepare(name, data, checkpoint, (pairs + 2) * batch / rows)
    training = loop._Training(built, features, dict, print, None, (), None)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    worth = last_layer.WORTH
    with cpu.lean(built.network, True) as training.lean:
        training.wrapped.train()
        for step, indices in training.plan.batches():
            for first in (True, False) if step % 2 else (False, True):
                if absorbed:
                    last_layer.WORTH = worth if first else math.inf
                else:
                    built.narrowing.remove()
                if first and not absorbed:
                    built.narrowing = last_layer.narrow(built.network)
                    assert built.narrowing.active, built.narrowing.reason
                start = time.process_time()
                training._step(step, indices)
                seconds[first].append(time.process_time() - start)
    whole, first = seconds[False][2:], seconds[True][2:]
    ratios = [a / b for a, b in zip(whole, first, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    before, now = ("projected", "absorbed") if absorbed else ("whole", "first tokens")
    return (
        f"{name}, batch {batch}: {before} {statistics.median(whole):.3f} s, {now} {statistics.median(first):.3f} s, "
        f"{before} / {now} {statistics.median(ratios):.3f} (quartiles {low:.2f} to {high:.2f}, {len(ratios)} pairs)"
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
    parser.add_argument("--absorbed", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.sets:
        print(measure(name, options.data, options.checkpoint, options.pairs, options.absorbed), flush=True)


if __name__ == "__main__":
    main()
