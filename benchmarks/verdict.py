"""The error rates of the verdict's rule, simulated: wrong *below* or *above*, and the power to see a loss.

    python benchmarks/verdict.py --output benchmarks/results/verdict.md

Published and measured runs are drawn from normal distributions of one spread (in points), as the rule takes it; `--draws`
times each. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_ft.tools.reproduce.verdict import interval, rule

WORDS = ("reproduced", "below", "above", "inconclusive")
SPREADS, SEEDS = (0.3, 0.5, 1.0, 2.0), (3, 5, 10)
# statistic, published runs, whether their standard deviation is published
PUBLISHED = (
    ("single run", 1, False),
    ("mean", 5, False),
    ("mean", 5, True),
    ("median", 5, False),
    ("median", 1, False),
)


def rates(
    statistic: str, n: int, stated: bool, m: int, spread: float, loss: float, draws: int, seed: int
) -> list[float]:
    """How often each of `WORDS` comes out where our runs are `loss` points worse in truth."""
    random = np.random.default_rng([seed, n, m, int(100 * spread), int(100 * loss), stated])
    theirs = random.normal(0, spread, (draws, n))
    ours = random.normal(-loss, spread, (draws, m))
    value = np.median(theirs, axis=1) if statistic == "median" else theirs.mean(axis=1)
    found = rule(*interval(value, n, theirs.std(axis=1, ddof=1) if stated else None, ours, statistic), 1.0)
    return [float((found == word).mean()) for word in WORDS]


def table(loss: float, draws: int, seed: int) -> Iterator[str]:
    yield "| published | spread of a run | seeds | reproduced | below | above | inconclusive |"
    yield "|---|---|---|---|---|---|---|"
    for statistic, n, stated in PUBLISHED:
        name = f"{statistic} of {n}" if n > 1 or statistic == "median" else statistic
        for spread in SPREADS:
            for m in SEEDS:
                found = rates(statistic, n, stated, m, spread, loss, draws, seed)
                told = " | ".join(f"{100 * rate:.1f} %" for rate in found)
                yield f"| {name}{', with its std' * stated} | {spread} | {m} | {told} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    equal, worse = ([*table(loss, options.draws, options.seed)] for loss in (0.0, 1.0))
    wrong = [sum(float(cell.strip(" %")) for cell in line.split("|")[5:7]) for line in equal[2:]]
    lines = [
        "# The verdict's rule, simulated", "",
        f"`python benchmarks/verdict.py`: {options.draws:,} draws a line, seed {options.seed}; spreads in points, margin 1 point.", "",
        "## The truth is equal", "",
        f"*Below* or *above* is wrong here: {max(wrong):.1f} % of the draws in the worst line. By its making the rule's rate is "
        f"5 % at most; {options.draws:,} draws tell it to ±{196 * (0.05 * 0.95 / options.draws) ** 0.5:.2f}.", "", *equal, "",
        "## A true loss of one point", "",
        "*Below* is right, *reproduced* and *above* are wrong; what is inconclusive asks for more seeds.", "", *worse, "",
    ]  # fmt: skip
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
