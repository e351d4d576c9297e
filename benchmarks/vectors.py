"""Vectors of sentences: `Embedder` beside `SentenceTransformer.encode`, the same texts, in turn, in one process.

    python benchmarks/vectors.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/vectors.md
    python benchmarks/vectors.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --equal    # no times: the numbers

Needs sentence-transformers. CPU seconds of one thread, medians; ratios are those of pairs of one round, to the batch size of
sentence-transformers that is the fastest here (it sorts by length itself).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def equal(data: Path, checkpoint: str) -> list[str]:
    """How far apart the vectors of 1,000 sentences and paragraphs are, whole and cut at 64 tokens; and Spearman's
    correlation of STS-B's validation pairs by either's cosines."""
    import sentence_transformers
    from scipy.stats import spearmanr

    import bert_ft

    theirs = sentence_transformers.SentenceTransformer(checkpoint, device="cpu")
    articles = json.loads((data / "squad/dev-v2.0-half.json").read_text())["data"]
    paragraphs = {part["context"] for article in articles for part in article["paragraphs"]}
    sentences = [
        line.split("\t")[0] for line in (data / "glue/SST-2/train.tsv").read_text().split("\n")[1:701]
    ]
    texts = [*sentences, *sorted(paragraphs, key=lambda text: (len(text), text))[-300:]]
    lines = []
    for length in (theirs.max_seq_length, 64):
        theirs.max_seq_length = length
        ours = bert_ft.Embedder.load(checkpoint, max_length=length).vectors(texts)
        apart = float(np.abs(ours.vectors - theirs.encode(texts)).max())
        lines.append(
            f"{len(texts):,} texts of {length} tokens at most: {apart:.1e} apart, {ours.truncated.sum()} truncated"
        )
    rows = [line.split("\t") for line in (data / "glue/STS-B/dev.tsv").read_text().split("\n")[1:] if line]
    gold = [float(row[9]) for row in rows]
    theirs = sentence_transformers.SentenceTransformer(checkpoint, device="cpu")
    embedder = bert_ft.Embedder.load(checkpoint)
    ways = {"sentence-transformers": theirs.encode, "bert-ft": lambda texts: embedder.vectors(texts).vectors}
    for name, way in ways.items():
        a, b = (way([row[column] for row in rows]) for column in (7, 8))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        lines.append(f"STS-B, {len(rows):,} validation pairs, {name}: {spearmanr(cosines, gold)[0]:.10f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32])
    parser.add_argument("--equal", action="store_true", help="compare the numbers and not the times")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.equal:
        print("\n".join(equal(options.data, options.checkpoint)))
        return
    import sentence_transformers
    import torch
    import transformers

    import bert_ft
    from bert_ft.kernels import cpu

    torch.set_num_threads(1)
    lines = (options.data / "glue/SST-2/train.tsv").read_text().splitlines()[1 : options.rows + 1]
    texts = [line.split("\t")[0] for line in lines]
    theirs = sentence_transformers.SentenceTransformer(options.checkpoint, device="cpu")
    precisions = ["fp32", "bf16"] if cpu.bf16_gain() > 1 else ["fp32"]
    ours = {p: bert_ft.Embedder.load(options.checkpoint, precision=p) for p in precisions}

    def encode(size: int) -> Callable[[], Any]:
        return lambda: theirs.encode(texts, batch_size=size, show_progress_bar=False)

    def embed(precision: str) -> Callable[[], Any]:
        return lambda: ours[precision].vectors(texts).vectors

    ways = {f"sentence-transformers, batch {size}": encode(size) for size in options.batch_sizes}
    ways |= {f"bert-ft, {precision}": embed(precision) for precision in precisions}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.process_time()
            vectors[name] = way()
            seconds[name].append(time.process_time() - start)
    best = min(list(ways)[: len(options.batch_sizes)], key=lambda name: statistics.median(seconds[name]))
    rows = ["| | CPU seconds | times as fast | largest difference of a number |", "|---|---:|---:|---:|"]
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(seconds[best], found, strict=True)]
        apart = float(np.abs(vectors[name] - vectors[best]).max())
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(f"| {name} | {statistics.median(found):.1f} | {ratio} | {apart:.1e} |")
    conditions = (
        f"{len(texts):,} training rows of SST-2, all-MiniLM-L6-v2, {options.rounds} rounds in turn, one thread; sentence-transformers "
        f"{sentence_transformers.__version__}, torch {torch.__version__}, transformers {transformers.__version__}."
    )
    text = "\n".join([*rows, "", conditions, ""])
    print(text)
    if options.output:
        options.output.write_text(
            f"# Vectors of sentences\n\n`python benchmarks/vectors.py --rows {options.rows}`\n\n{text}"
        )


if __name__ == "__main__":
    main()
