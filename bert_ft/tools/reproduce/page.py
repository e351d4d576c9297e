"""What a reproduction shows of itself, from its results: a table, Markdown, a page or a notebook's cell."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft.config.references import Reference
from bert_ft.report import plots
from bert_ft.report.choices import MARK
from bert_ft.report.elements import Table
from bert_ft.report.rendering import markdown as escaped
from bert_ft.report.rendering import render, show
from bert_ft.rundir.naming import short_name
from bert_ft.tools.reproduce import soup

CONDITIONS = (
    "Values in points; measured is the mean (the median where that is published) ± the standard deviation "
    "over seeds {seeds} of {checkpoint}. What a source's recipe leaves open is the task's own."
)
CHOSEN = (
    f"{MARK} chosen on the set that it is of (the best evaluation of each run, a threshold that was tuned, "
    "or the best of a grid), so that it is somewhat too good. Published numbers are mostly made the same way."
)
Rows = Sequence[Mapping[str, str]]
Dots = Mapping[str, Sequence[tuple[str, str, list[float], list[float]]]]
"""Task -> set, metric, measured values and published ones, for each line of its chart."""


def row(
    task: str,
    split: str,
    metric: str,
    values: Sequence[float],
    reference: Reference | None = None,
    verdict: str = "no published number",
    chosen: bool = False,
) -> dict[str, str]:
    """A row of the table: what the seeds measured, and the published number that it is held against;
    `chosen`: on the very set."""
    measured = _summary(values, reference.statistic if reference else "mean")
    return {
        "task": task,
        "set": split,
        "metric": metric,
        "published": _spread(reference.value, reference.std) if reference else "–",
        "measured": f"{measured} {MARK}" if chosen and values else measured,
        "seeds": str(len(values)),
        "verdict": verdict,
        "statistic": _statistic(reference) if reference else "–",
        "source": reference.source if reference else "–",
    }


def _note_of_chosen(table: Rows) -> str:
    return CHOSEN if any(row["measured"].endswith(MARK) for row in table) else ""


def notes(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reasons of the verdicts, a line each."""
    return [
        f"{each['task']}, {each['set']}/{each['metric']}, {each['published']['source']}: {each['verdict']}: "
        f"{'; '.join(each['why'])}"
        for each in verdicts
    ]


def soups(results: Mapping[str, Any]) -> list[str]:
    """The averages of seeds in words, a line each."""
    return list(map(soup.line, results["soups"].values()))


def how_judged(results: Mapping[str, Any]) -> str:
    """At what error the verdicts are, in words; empty where nothing was judged."""
    judged = [each for each in results["verdicts"] if each["interval"]]
    if not judged:
        return ""
    before = results["looks"][: results["looks"].index(sorted(results["seeds"]))]
    look = f"look {len(before) + 1}, after {' and '.join(str(len(seeds)) for seeds in before)} seeds"
    together = (
        f"; {len(judged)} numbers are judged together: that one of them is wrongly called different has this "
        "error (Holm's correction), each interval is of its number alone"
    )
    return (
        f"verdicts at {100 * judged[0]['level']:g} %, {look if before else 'the first look at these numbers'}"
        f"{together if len(judged) > 1 else ''}"
    )


def suite_lines(name: str, suite: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The scores of a suite in words."""
    lines = []
    for kind, scores in suite.items():
        for label, score in scores.items():
            if "missing" in score:
                text = f"no score without {', '.join(score['missing'])}"
            else:
                text = _spread(score["mean"], score["std"])
            lines.append(f"{name}, {kind}, {label}: {text}")
    return lines


def markdown(results: Mapping[str, Any], table: Rows) -> str:
    """The table for an appendix or a pull request, with what stands behind it; of the content of
    `results.json` and the table's rows."""
    columns = list(table[0]) if table else []
    lines = [f"# {escaped(_title(results))}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(map(escaped, row.values()))} |" for row in table]
    told = [
        *suite_lines(results["name"], results["suite"]),
        *notes(results["verdicts"]),
        *soups(results),
        how_judged(results),
        _grid_note(results),
        _note_of_chosen(table),
    ]
    lines += ["", *(f"- {escaped(line)}" for line in told if line)]
    lines += [f"- failed: {escaped(each['folder'])}: {escaped(each['cause'])}" for each in _failed(results)]
    made = results["made"]
    versions = ", ".join(
        f"{package} {escaped(show(version))}" for package, version in made["versions"].items() if version
    )
    checkpoint = escaped(short_name(results["checkpoint"]))
    lines += [
        "",
        CONDITIONS.format(seeds=show(results["seeds"]), checkpoint=checkpoint),
        f"{made['runs']} runs, {made['train_seconds']:,.0f} seconds of training; "
        f"{escaped(show(made['device']))}, {escaped(show(made['precision']))}; {versions}.",
        "",
    ]
    return "\n".join(lines)


def html(results: Mapping[str, Any], table: Rows, dots: Dots, whole: bool = True) -> str:
    """The page; or the tables alone, as a notebook shows them. Arguments as of `markdown`, and the charts'
    dots."""
    rows = [[cell.replace(" ± ", "\u00a0±\u00a0") for cell in row.values()] for row in table]
    columns = list(table[0]) if table else []
    lines = suite_lines(results["name"], results["suite"])
    verdicts = [row["verdict"] for row in table]
    made, grid = results["made"], _grid_note(results)
    facts = [[key.replace("_", " "), value] for key, value in made.items() if key != "versions"]
    runs = [[Path(run["folder"]).name, run["state"]] for run in results["runs"]]
    seeds = f"seeds {show(results['seeds'])}"
    return render(
        "reproduction.html.j2",
        whole=whole,
        title=_title(results),
        checkpoint=results["checkpoint"],
        rows=Table("published and measured, in points", columns, rows, _note_of_chosen(table)),
        subtitle=f"{seeds} · {grid}" if grid else seeds,
        counts={word: verdicts.count(word) for word in dict.fromkeys(verdicts)},
        score=Table("suite", [], [line.rsplit(": ", 1) for line in lines]),
        notes=[*notes(results["verdicts"]), *soups(results), *filter(None, [how_judged(results)])],
        facts=[
            Table("how", [], facts),
            Table("versions", [], [list(pair) for pair in made["versions"].items()]),
            Table("runs", ["run", "state"], runs),
        ],
        failed=_failed(results),
        each="seed",
        charts=_charts(dots),
        version=results["version"],
    )


def _charts(dots: Dots) -> list[tuple[str, str]]:
    """A chart a task: a line a metric of a set, a dot a seed, a diamond a published value."""
    charts = []
    for task, lines in dots.items():
        several = len({split for split, *_ in lines}) > 1
        named = [
            (f"{split}\n{metric}" if several else metric, measured, published)
            for split, metric, measured, published in lines
        ]
        if named:
            charts.append((task, plots.dots(named, ("a seed", "published"), "points")))
    return charts


def _title(results: Mapping[str, Any]) -> str:
    return f"{Path(results['name']).stem}, reproduced with {short_name(results['checkpoint'])}"


def _grid_note(results: Mapping[str, Any]) -> str:
    """How many runs stand behind a "best"; empty where none was searched."""
    counts = [
        f"{name} {len({str(run['grid']) for run in results['runs'] if run['task'] == name})}"
        for name, task in results["tasks"].items()
        if task["grid"]
    ]
    return "each seed's best on validation of so many runs: " + ", ".join(counts) if counts else ""


def _failed(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The runs that failed: the names of their folders, and the causes."""
    return [
        {"folder": Path(run["folder"]).name, "cause": run["cause"]} for run in results["runs"] if run["cause"]
    ]


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; nan where one of the values is, None of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(value: float, std: float | None) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.2f}" if std is None else f"{value:.2f} ± {std:.2f}"


def _statistic(reference: Reference) -> str:
    """What the published number is, in words."""
    words = str(reference.statistic)
    if reference.statistic in ("mean", "median", "best of grid"):
        words = f"{words} of {reference.runs or '?'}"
    return f"{words}, unconfirmed" if reference.confidence == "U" else words


def _summary(values: Sequence[float], statistic: str) -> str:
    """Mean or median, and the standard deviation."""
    if not values:
        return "–"
    center = statistics.median(values) if statistic == "median" else statistics.fmean(values)
    return _spread(center, deviation(values))
