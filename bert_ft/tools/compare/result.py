"""What `compare` found, and how it is shown: in a terminal, as JSON, in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

from bert_ft import files
from bert_ft.report.elements import Table
from bert_ft.report.rendering import render, show

Span = tuple[float, float]
ROWS = "other rows, these models"
SEEDS = "other seeds, these rows"


@dataclass
class Group:
    """Runs that count as one. `differs`: the keys of the task in which it is not the first group."""

    name: str
    runs: list[str]
    seeds: list[int]
    differs: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.seeds:
            return ", ".join(self.runs)
        seeds = ", ".join(map(str, self.seeds))
        if len(self.runs) == 1:
            return f"{self.runs[0]}, seed {seeds}"
        return f"{self.runs[0]} and {len(self.runs) - 1} more, seeds {seeds}"


@dataclass
class Difference:
    """A metric of two groups, `b` against `a`; of several seeds the mean.

    Attributes:
        deviations: the groups' sample standard deviations over seeds.
        interval: 95 % of the difference, over rows and what seeds there are; None where none holds.
            seeds_interval: over the seeds alone and on these rows, Welch's.
        fewer_errors: the share of the first one's error (1 - metric, or the metric where less is better) that
            is gone.
        hedges_g: the difference of the means in standard deviations of the seeds.
        p: two-sided, of the `test`. p_is_for: what it generalises to, `ROWS` or `SEEDS`. p_holm: corrected
            for the number of groups that are compared, not for that of metrics.
        no_interval: why there is none.
    """

    a: str
    b: str
    metric: str
    values: Span
    deviations: tuple[float | None, float | None]
    difference: float
    interval: Span | None
    seeds_interval: Span | None
    fewer_errors: float
    hedges_g: float | None
    p: float
    test: str
    p_is_for: str = ROWS
    no_interval: str = ""
    p_holm: float | None = None

    def head(self) -> list[str]:
        """The metric and the group, as a table's first cells."""
        return [self.metric, self.b]

    def cells(self) -> list[str]:
        """Both values, the difference, its interval, the change in errors and the p-value."""
        sides = [
            self._number(value) + ("" if spread is None else f"\n±{self._number(spread)}")
            for value, spread in zip(self.values, self.deviations, strict=True)
        ]
        errors = "–" if isnan(self.fewer_errors) else f"{0 - self.fewer_errors:+.1%}"
        p = f"{self.p:.2g}" + ("" if self.p_holm is None else f"\nHolm {self.p_holm:.2g}")
        interval = self._span(self.interval) if self.interval else "none"
        return [*sides, self._number(self.difference, "+"), interval, errors, p]

    def seeds(self) -> list[str]:
        """The difference over the seeds alone: its interval and Hedges' g."""
        assert self.seeds_interval is not None
        return [self._span(self.seeds_interval), show(self.hedges_g)]

    def _span(self, ends: Span) -> str:
        return ", ".join(self._number(end, "+") for end in ends)

    def _number(self, value: float, sign: str = "") -> str:
        return f"{value:{sign}.{2 if max(map(abs, self.values)) >= 10 else 4}f}"


@dataclass
class Flips:
    """Rows that change from `a` to `b`, the greatest changes first, each with its inputs, its label and what
    every run says.

    Attributes:
        worse, better: rows that are right in most seeds of the one group and wrong in most of the other; of
            numbers, those whose error grew and shrank. words: what is said of them.
    """

    a: str
    b: str
    worse: list[dict[str, Any]]
    better: list[dict[str, Any]]
    words: tuple[str, str] = ("right -> wrong", "wrong -> right")


@dataclass
class Comparison:
    """What `compare` found; shows itself in a notebook.

    Attributes:
        drawn: what was resampled: "300 rows", "47 documents".
    """

    split: str
    rows: int
    groups: list[Group]
    differences: list[Difference]
    flips: list[Flips]
    notes: list[str]
    drawn: str

    def dump(self, limit: int | None = None) -> dict[str, Any]:
        """The comparison as JSON values, with at most `limit` flips of a kind and the number of all."""
        tree: dict[str, Any] = files.finite(asdict(self))
        for flips in tree["flips"]:
            flips["counts"] = {kind: len(flips[kind]) for kind in ("worse", "better")}
            flips |= {kind: flips[kind][:limit] for kind in ("worse", "better")}
        return tree

    def tables(self, limit: int) -> Iterator[Table]:
        """The tables for a person: the metrics, also over the seeds where there are some, then up to `limit`
        flips of a kind."""
        two = len(self.groups) == 2
        seeds = [d for d in self.differences if d.seeds_interval]
        head, sides = (
            (["metric"], ["A", "B", "B - A"]) if two else (["metric", "to"], ["A", "other", "difference"])
        )
        title = f"{self.split}, {self.rows:,} rows"
        several = any(len(group.runs) > 1 for group in self.groups)
        over = f"{self.drawn} and seeds" if several else self.drawn
        said = {d.p_is_for for d in self.differences}
        p = f"p ({said.pop()})" if len(said) == 1 else "p"
        rows = [[*d.head()[: len(head)], *d.cells()] for d in self.differences]
        yield Table(title, [*head, *sides, f"95 % over {over}", "errors", p], rows)
        if seeds:
            rows = [[*d.head()[: len(head)], *d.seeds()] for d in seeds]
            yield Table(
                "the difference over the seeds alone, on these rows",
                [*head, "95 %, Welch", "Hedges' g"],
                rows,
            )
        for f in self.flips:
            for words, changed in zip(f.words, (f.worse, f.better), strict=True):
                if some := changed[:limit]:
                    title = f"{words} from {f.a} to {f.b}, {len(some)} of {len(changed):,} rows"
                    shown = [
                        {k: _once(v) if k in (f.a, f.b) else v for k, v in line.items()} for line in some
                    ]
                    yield Table(title, list(some[0]), [list(line.values()) for line in shown])

    def lines(self) -> list[str]:
        """How many rows flip, which tests gave p, and what else should be known."""
        flips = [
            f"{f.words[0]} from {f.a} to {f.b}: {len(f.worse):,} rows; {f.words[1]}: {len(f.better):,}"
            for f in self.flips
        ]
        tests: dict[str, list[str]] = {}
        reasons: dict[str, list[str]] = {}
        for d in self.differences:
            tests.setdefault(f"{d.test}, for {d.p_is_for}", []).append(d.metric)
            if d.no_interval:
                of = d.metric if len(self.groups) == 2 else f"{d.metric} to {d.b}"
                reasons.setdefault(d.no_interval, []).append(of)
        return [
            *flips,
            *(f"p of {', '.join(dict.fromkeys(of))}: {test}" for test, of in tests.items()),
            *(f"no interval of {', '.join(of)}: {reason}" for reason, of in reasons.items()),
            *self.notes,
        ]

    def _repr_html_(self) -> str:
        groups = Table(
            "groups", ["", "runs", "differs in"], [[g.name, str(g), g.differs] for g in self.groups]
        )
        return render("compare.html.j2", tables=[groups, *self.tables(5)], lines=self.lines())


def _once(answers: list[Any]) -> str:
    """What the runs of a group say, each answer once."""
    return " | ".join(dict.fromkeys(show(value) or "(none)" for value in answers))
