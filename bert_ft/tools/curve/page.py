"""What a curve shows of itself, from its results: a page, or a notebook's cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft.metrics.learning_curve import FURTHEST
from bert_ft.report import plots
from bert_ft.report.elements import Table
from bert_ft.report.rendering import render


def table(results: Mapping[str, Any]) -> Table:
    """A line for each part of the rows; scores in points, where the metric has them."""
    unit = results["points_per_unit"]
    digits = 2 if unit != 1 else 4
    rows = [
        [
            size["rows"],
            f"{100 * size['share']:.3g}%",
            str(size["seeds"]),
            _score(size["mean"], unit, digits),
            _score(size["spread"], unit, digits),
        ]
        for size in results["sizes"]
    ]
    return Table("scores", ["rows", "share", "seeds", "mean", "spread"], rows, caption(results))


def caption(results: Mapping[str, Any]) -> str:
    """What the table's numbers are."""
    points = ", in points" if results["points_per_unit"] != 1 else ""
    return f"{results['metric']}{points}; spread: standard deviation over the seeds"


def html(path: Path, results: Mapping[str, Any], whole: bool = True) -> str:
    """The scores by rows with the law and its band, what follows, and the runs.

    Args:
        results: the content of its `results.json`. whole: a page, or what a notebook's cell shows.
    """
    unit, law = results["points_per_unit"], results["law"]
    band = (
        [{key: value if key == "rows" else unit * value for key, value in at.items()} for at in law["band"]]
        if law
        else []
    )
    runs = [[row["rows"], row["seed"], row["value"], row["seconds"], row["run"]] for row in results["points"]]
    name = results["metric"] + (" (points)" if unit != 1 else "")
    svg = plots.scores_by_rows(
        [(row["rows"], unit * row["value"]) for row in results["points"] if row["value"] is not None],
        band,
        name,
        f"{name} by rows of training. {results['statement'][0]}",
        furthest=FURTHEST,
        theme=plots.THEME if whole else {},
    )
    tables = [table(results), Table("runs", ["rows", "seed", "value", "seconds", "run"], runs)]
    return render(
        "curve.html.j2", whole=whole, title=path.name, path=path, results=results, svg=svg, tables=tables
    )


def _score(value: float | None, unit: float, digits: int) -> str:
    return "–" if value is None or value != value else f"{unit * value:.{digits}f}"
