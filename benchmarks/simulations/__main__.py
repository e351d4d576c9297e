"""The errors of the verdict, of intervals, comparisons and choices, simulated where the truth is known.

    python benchmarks/simulations --output benchmarks/results/statistics.md
    python benchmarks/simulations --only verdicts --scale 0.1       # a tenth of the draws, one chapter

Nothing is trained: scores and predictions are drawn, and given to the functions that the commands use. A rate that is
outside its bounds by more than two standard errors of the simulation is printed bold, and counted at the top.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

CHAPTERS = ("verdicts", "intervals", "comparisons", "choices")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CHAPTERS, default=CHAPTERS)
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the draws")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.process_time()
    chapters = {name: importlib.import_module(name) for name in options.only}
    tables = {name: chapter.simulate(options.scale) for name, chapter in chapters.items()}
    rates = [rate for found in tables.values() for table in found for rate in table.rates]
    lines = [
        "# Statistics, simulated", "",
        f"`python benchmarks/simulations`: {len(rates)} rates that have a bound, {sum(not rate.kept for rate in rates)} "
        f"outside it (bold); {time.process_time() - began:,.0f} CPU seconds. The methods: "
        "[docs/statistics.md](../../docs/statistics.md).", "",
    ]  # fmt: skip
    for name, found in tables.items():
        lines += [f"## {chapters[name].TITLE}", "", *(line for table in found for line in table.markdown())]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
