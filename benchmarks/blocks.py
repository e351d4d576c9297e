"""Evaluation by the positions of a block (`batching.eval_tokens`): the same rows at each size, in turn, in one process.

    python benchmarks/blocks.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --rows 512 --threads 1

Medians of CPU and wall seconds; ratios to 4,096 positions are of the same round. `--base`: four layers of BERT-base's
width with random weights in the place of the checkpoint.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from training import SETS, prepare

REFERENCE = 4096


def main() -> None:
    import torch
    import transformers as tf

    from bert_ft.engine import inference
    from bert_ft.kernels import last_layer, padding_free
    from bert_ft.modeling import encoder

    inference.useful = lambda tokens, _: tokens  # more than suits a CPU, too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--set", choices=SETS, default="sst2", dest="name")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, REFERENCE, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder.evaluate_only()
    scale = options.rows / SETS[options.name][0]
    _, built, features = prepare(options.name, options.data, options.checkpoint, scale, options.precision)
    network = built.network
    if options.base:
        network = tf.BertForSequenceClassification(tf.BertConfig(num_hidden_layers=4))
        padding_free.unpad(network)
        last_layer.narrow(network)
    cpu: dict[int, list[float]] = {size: [] for size in options.sizes}
    wall: dict[int, list[float]] = {size: [] for size in options.sizes}
    order = np.random.default_rng(0)
    for done in range(options.rounds + 1):  # the first warms up
        for size in map(int, order.permutation(options.sizes)):
            starts = time.process_time(), time.perf_counter()
            inference.predict(
                network, built.adapter, features, built.accelerator, pad=0, tokens=size, sharing=built.sharing
            )
            if done:
                cpu[size].append(time.process_time() - starts[0])
                wall[size].append(time.perf_counter() - starts[1])
    tokens = int(features.lengths.sum())
    print(f"{options.name}, {len(features)} rows of {tokens:,} tokens, {options.threads} threads")
    for clock, seconds in (("CPU", cpu), ("wall", wall)):
        for size, times in seconds.items():
            ratios = [a / b for a, b in zip(seconds[REFERENCE], times, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"{clock} seconds, {size} positions: {statistics.median(times):.2f}, of {REFERENCE} / these: {spread}"
            )


if __name__ == "__main__":
    main()
