"""What a search shows of itself, from its results: a page, or a notebook's cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft.report import plots
from bert_ft.report.elements import Table
from bert_ft.report.rendering import render, show


def table(results: Mapping[str, Any]) -> Table:
    """The trials, a column a key of the recipe."""
    space, counts = results["space"], ", ".join(f"{n} {state}" for state, n in results["counts"].items())
    rows = [
        [
            row["trial"],
            row["state"],
            row["value"],
            *(row["recipe"].get(key) for key in space),
            show(row["epoch"])[:4],
            show(row["seconds"] and round(row["seconds"])),
            row["note"],
        ]
        for row in results["trials"]
    ]
    return Table("trials", ["trial", "state", "value", *space, "epoch", "seconds", "note"], rows, counts)


def html(path: Path, results: Mapping[str, Any], whole: bool = True) -> str:
    """A search's values by trial and by key of the recipe, its trials, and what mattered.

    Args:
        results: the content of its `results.json`. whole: a page, or what a notebook's cell shows.
    """
    space, best, dots = results["space"], results["best"], []
    scored = {
        state: [row for row in results["trials"] if row["state"] == state and row["value"] is not None]
        for state in ("complete", "pruned")
    }
    for key in ("trial", *space) if best else ():
        choices = space.get(key) if isinstance(space.get(key), list) else None
        groups: dict[str, Any] = {}
        for state, rows in scored.items():
            points = [(row["trial"] if key == "trial" else row["recipe"][key], row["value"]) for row in rows]
            if choices is not None:  # each has its place, in their order
                points = [(str(x), y) for x, y in sorted(points, key=lambda point: choices.index(point[0]))]
            if points:
                groups[state] = tuple(zip(*points, strict=True))
        at = best["trial"] if key == "trial" else best["recipe"][key]
        said = f"{results['metric']} by {key}; best {show(best['value'])} at {show(at)}"
        dots.append(
            plots.points(
                groups,
                (key.replace("_", " "), results["metric"]),
                said,
                log=choices is None and space.get(key, {}).get("log", False),
                theme=plots.THEME if whole else {},
            )
        )
    tables = [table(results)]
    if weights := results["importance"]:
        note = f"by Optuna's default evaluator, over {results['counts']['complete']} complete trials"
        rows = [[key, round(share, 4)] for key, share in weights.items()]
        tables.append(Table("what mattered", ["key", "share"], rows, note, {1: 1.0}))
    return render(
        "search.html.j2", whole=whole, title=path.name, path=path, results=results, dots=dots, tables=tables
    )
