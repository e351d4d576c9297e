"""What came of the measurement of a frozen encoder: a table, the verdicts, and what is written of them."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config.frozen import FrozenReference
from bert_ft.report import plots
from bert_ft.report.elements import Table
from bert_ft.report.rendering import markdown, render, show
from bert_ft.rundir import environment
from bert_ft.rundir.naming import short_name
from bert_ft.tools.reproduce.verdict import Verdict

CONDITIONS = "Values in points; measured is the mean ± the standard deviation over the draws."


@dataclass
class Measured:
    """A measurement with its verdicts.

    Attributes:
        measure, vectors: what was done with the vectors, and how texts became them.
        scores: set -> metric -> values in points: one, or one a draw.
        judged: published numbers with their verdicts.
        notes: what a person should know of rows, texts and classifiers.
        margin: points that a reproduced number may differ by.
    """

    name: str
    title: str
    checkpoint: str
    measure: dict[str, Any]
    vectors: dict[str, Any]
    scores: dict[str, dict[str, list[float]]]
    judged: list[tuple[FrozenReference, Verdict]]
    notes: list[str]
    margin: float
    seconds: float
    device: str


class FrozenOutcome:
    """A measurement of a frozen encoder, held against the published numbers.

    Attributes:
        scores: set -> metric -> values in points: one, or one a draw.
        table: a row for every metric of every set, and for every published number.
        verdicts: set, metric, the published number, and the fields of `verdict.Verdict`.
        notes: the reasons of the verdicts, and what a person should know of the rows.
        results: all of it, as in `results.json`.
    """

    suite_lines: Sequence[str] = ()
    failed: Sequence[Any] = ()
    """Of an outcome of trainings alone: suites, and runs that failed."""

    def __init__(self, measured: Measured, folder: Path) -> None:
        self.measured, self.folder = measured, folder

    @property
    def scores(self) -> dict[str, dict[str, list[float]]]:
        return self.measured.scores

    @cached_property
    def table(self) -> list[dict[str, str]]:
        judged = self.measured.judged
        pairs = [(name, metric) for name, values in self.scores.items() for metric in values]
        pairs += [(reference.split, reference.metric) for reference, _ in judged]
        rows = []
        for name, metric in dict.fromkeys(pairs):
            values = self.scores.get(name, {}).get(metric, [])
            published = [each for each in judged if (each[0].split, each[0].metric) == (name, metric)]
            rows += [_row(name, metric, values, *each) for each in published]
            if not published:
                rows.append(_row(name, metric, values))
        return rows

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [
            {
                "set": reference.split,
                "metric": reference.metric,
                "published": reference.model_dump(exclude_none=True),
                **asdict(found),
            }
            for reference, found in self.measured.judged
        ]

    @property
    def notes(self) -> list[str]:
        reasons = [
            f"{number.split}/{number.metric}, {number.source}: {found.verdict}: {'; '.join(found.why)}"
            for number, found in self.measured.judged
        ]
        return [*reasons, *self.measured.notes]

    @property
    def results(self) -> dict[str, Any]:
        measured = self.measured
        return {
            "name": measured.name,
            "checkpoint": measured.checkpoint,
            "frozen": measured.measure,
            "vectors": measured.vectors,
            "margin": measured.margin,
            "scale": "points",
            "metrics": {
                name: {metric: _described(values) for metric, values in metrics.items()}
                for name, metrics in self.scores.items()
            },
            "verdicts": self.verdicts,
            "notes": measured.notes,
            "made": self.made,
            "version": environment.version("bert-ft"),
        }

    @cached_property
    def made(self) -> dict[str, Any]:
        """Versions, hardware and time."""
        packages = {package: environment.version(package) for package in environment.PACKAGES}
        return {
            "seconds": round(self.measured.seconds, 1),
            "device": self.measured.device,
            "precision": "fp32",
            "platform": platform.platform(),
            "versions": {"python": platform.python_version(), **packages},
        }

    @property
    def title(self) -> str:
        return f"{self.measured.title}, measured with {short_name(self.measured.checkpoint)}"

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        pairs = {**self.measured.measure, **self.measured.vectors}
        return ", ".join(f"{key} {show(value)}" for key, value in pairs.items() if value != "")

    def draws(self) -> Iterator[Table]:
        """Of every published number with draws a table of them, side by side."""
        for reference, _ in self.measured.judged:
            values = self.scores.get(reference.split, {}).get(reference.metric, [])
            if reference.draws and len(values) == len(reference.draws):
                pairs = zip(reference.draws, values, strict=True)
                rows = [[k, _digits(theirs), _digits(ours)] for k, (theirs, ours) in enumerate(pairs, 1)]
                title = f"{reference.split}, {reference.metric}, draw by draw"
                yield Table(title, ["draw", "published", "measured"], rows)

    def markdown(self) -> str:
        """The table for an appendix or a pull request, with what stands behind it."""
        lines = [f"# {markdown(self.title)}", ""]
        lines += _lines(list(self.table[0]), [list(row.values()) for row in self.table])
        lines += ["", *(f"- {markdown(note)}" for note in self.notes)]
        for table in self.draws():
            lines += ["", f"{markdown(table.title)}:", "", *_lines(table.columns, table.rows)]
        versions = ", ".join(
            f"{package} {markdown(version)}" for package, version in self.made["versions"].items()
        )
        lines += [
            "",
            f"{CONDITIONS} {markdown(self.conditions)}.",
            f"{self.made['seconds']:,.0f} seconds; {markdown(self.made['device'])}, fp32; {versions}.",
            "",
        ]
        return "\n".join(lines)

    def html(self, whole: bool = True) -> str:
        """The page; or the table alone, as a notebook shows it."""
        rows = [list(row.values()) for row in self.table]
        words = [found.verdict for _, found in self.measured.judged]
        facts = [[key, value] for key, value in self.made.items() if key != "versions"]
        own = {**self.measured.measure, **self.measured.vectors}
        return render(
            "reproduction.html.j2",
            whole=whole,
            title=self.title,
            checkpoint=self.measured.checkpoint,
            rows=Table("published and measured, in points", list(self.table[0]), rows, ""),
            subtitle="a frozen encoder",
            counts={word: words.count(word) for word in dict.fromkeys(words)},
            score=next(self.draws(), Table("", [], [])),
            notes=self.notes,
            facts=[
                Table("conditions", [], [[key, value] for key, value in own.items()]),
                Table("how", [], facts),
                Table("versions", [], [list(pair) for pair in self.made["versions"].items()]),
            ],
            failed=[],
            each="draw",
            charts=self._charts() if whole else [],
            version=environment.version("bert-ft"),
        )

    def _charts(self) -> list[tuple[str, str]]:
        """A chart a set: a line a metric, a dot a value, a diamond a published number."""
        published: dict[tuple[str, str], list[float]] = {}
        for number, _ in self.measured.judged:
            published.setdefault((number.split, number.metric), []).append(number.value)
        charts = []
        for name, metrics in self.scores.items():
            lines = [
                (metric, values, published.get((name, metric), [])) for metric, values in metrics.items()
            ]
            charts.append((name, plots.dots(lines, ("a value", "published"), "points")))
        return charts

    def write(self) -> None:
        """Writes `results.json`, `table.md` and `page.html`."""
        files.write_json(self.folder / "results.json", self.results)
        files.write(self.folder / "table.md", self.markdown())
        files.write(self.folder / "page.html", self.html())

    def _repr_html_(self) -> str:
        return self.html(whole=False)


def _row(
    name: str,
    metric: str,
    values: Sequence[float],
    reference: FrozenReference | None = None,
    found: Verdict | None = None,
) -> dict[str, str]:
    """A row of the table."""
    std = statistics.stdev(values) if len(values) > 1 else None
    measured = _digits(statistics.fmean(values), std) if values else "–"
    return {
        "set": name,
        "metric": metric,
        "published": _digits(reference.value, reference.std) if reference else "–",
        "measured": measured,
        "draws": str(len(values)) if len(values) > 1 else "–",
        "verdict": found.verdict if found else "no published number",
        "source": reference.source if reference else "–",
    }


def _digits(value: float, std: float | None = None) -> str:
    """A value with the digits that it has, 6 behind the point at most."""
    if math.isnan(value):
        return "undefined"
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text if std is None else f"{text} ± {std:.2f}"


def _described(values: Sequence[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": statistics.fmean(values), "std": std}


def _lines(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table as lines of Markdown."""
    return [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(map(markdown, row))} |" for row in rows),
    ]
