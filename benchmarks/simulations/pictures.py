"""The pictures of docs/statistics.md, from the tables that were simulated last.

python benchmarks/simulations/pictures.py      # benchmarks/results/statistics.md -> docs/figures/*.svg
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS, FIGURES = ROOT / "benchmarks/results/statistics.md", ROOT / "docs/figures"
BLUE, RED, GREEN, GREY, TEXT = "#2463c9", "#c2410c", "#0f7b55", "#8b95a1", "#7a828c"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "bert-ft", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "legend.frameon": False, "text.color": TEXT, "axes.labelcolor": TEXT, "axes.titlecolor": TEXT,
    "xtick.color": TEXT, "ytick.color": TEXT, "axes.titlesize": 9,
}  # fmt: skip


def tables() -> dict[str, list[dict[str, str]]]:
    """Title -> rows of the tables, by column; of columns of one name the later ones are "name 2", ..."""
    found: dict[str, list[dict[str, str]]] = {}
    for part in re.split(r"(?m)^### ", RESULTS.read_text())[1:]:
        title, _, rest = part.partition("\n")
        lines = [line.strip("| ").split(" | ") for line in rest.splitlines() if line.startswith("| ")]
        columns: list[str] = []
        for name in lines[0]:
            several = columns.count(name) + sum(column.startswith(f"{name} ") for column in columns)
            columns.append(f"{name} {several + 1}" if name in columns else name)
        found[title] = [dict(zip(columns, row, strict=False)) for row in lines[2:]]
    return found


def number(cell: str) -> float:
    """The first number of a cell."""
    match = re.search(r"[-+]?\d[\d,]*\.?\d*", cell)
    return float(match[0].replace(",", "")) if match else float("nan")


def save(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(size, layout="constrained")
        draw(figure)
        figure.savefig(
            FIGURES / f"{name}.svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )


def verdict_errors(figure: Figure) -> None:
    """Wrong verdicts by the ratio of the spreads, and by how often one looks."""
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    rows = tables()["One look, spreads that differ or not"]
    for seeds, color in (("3", GREEN), ("10", BLUE), ("20", RED)):
        own = [row for row in rows if row["published"] == "mean of 5, with its std" and row["seeds"] == seeds]
        ratios = [number(row["ratio"]) for row in own]
        left.plot(ratios, [number(row["wrong"]) for row in own], "o-", color=color, label=f"{seeds} seeds")
        left.plot(ratios, [number(row["before"]) for row in own], "o--", color=color, alpha=0.4, markersize=3)
    bound(left, 6)
    left.set(xscale="log", xlabel="published spread / ours", ylabel="wrong verdicts, %", ylim=(0, 33))
    left.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"], minor=False)
    left.minorticks_off()
    left.set_title("one look (dashed: before)")
    left.legend(loc="upper left")
    looks = [row for row in tables()["Looking again, up to 40 seeds"] if row["looks at"].startswith("3, 5")]
    names = [f"{row['published']}, {row['spread']}" for row in looks]
    for column, color in (("before", GREY), ("wrong", BLUE)):
        right.plot([number(row[column]) for row in looks], names, "o", color=color)
    right.axvline(6, color=GREY, linewidth=0.8, linestyle=":")
    right.set(xlabel="wrong verdicts, %", xlim=(0, 18))
    right.set_title("seven looks (grey: before)")


def bound(axes: Axes, at: float) -> None:
    axes.axhline(at, color=GREY, linewidth=0.8, linestyle=":")


def interval_coverage(figure: Figure) -> None:
    """How often intervals hold the truth, before and now."""
    axes = figure.subplots()
    names: list[str] = []
    before: list[float] = []
    now: list[float] = []
    for title in ("Shares of rows", "Rare classes, few errors", "Sets of labels", "Numbers", "Entities in documents",
                  "Answers on contexts of articles"):  # fmt: skip
        rows = tables()[title]
        firsts = {(row["rows"], row["what"]): row for row in reversed(rows)}  # of each cell its first metric
        for row in sorted(firsts.values(), key=rows.index):
            names.append(f"{row['what']}, {row['metric']}, {row['rows']}")
            before.append(number(row["coverage of plain percentiles"]))
            now.append(number(row["coverage"]))
            if row["coverage"] == "declined":
                axes.text(101, len(names), "no interval", va="center", fontsize=5, color=BLUE)
    at = range(1, len(names) + 1)
    axes.plot(before, at, "o", color=GREY, markersize=3)
    axes.plot(now, at, "o", color=BLUE, markersize=3)
    axes.axvspan(93, 97, color=BLUE, alpha=0.1)
    axes.set_yticks(at, names, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(xlabel="intervals that hold the truth, % (grey: before; blue: now)", xlim=(30, 110))


def choice_lean(figure: Figure) -> None:
    """How far chosen numbers lean in truth and as estimated."""
    axes = figure.subplots()
    top = 0.0
    for title, color, label in (("The best of ten evaluations", BLUE, "best of ten evaluations"),
                                ("Thresholds of 28 labels", RED, "thresholds of 28 labels"),
                                ("The threshold of no answer", GREEN, "threshold of no answer")):  # fmt: skip
        rows = tables()[title]
        truth = [number(row["leans"]) for row in rows]
        estimated = [number(row["lean as estimated"]) for row in rows]
        axes.plot(truth, estimated, "o", color=color, label=label, alpha=0.8)
        top = max([top, *truth, *estimated])
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="too high in truth, points", ylabel="as estimated, points")
    axes.legend(loc="upper left")


def main() -> None:
    save("verdict_errors", (7.6, 3.2), verdict_errors)
    save("interval_coverage", (7.0, 7.6), interval_coverage)
    save("choice_lean", (4.2, 3.2), choice_lean)


if __name__ == "__main__":
    main()
