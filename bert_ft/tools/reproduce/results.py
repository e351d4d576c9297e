"""What `reproduce` found: the scores of every seed, the verdicts, the suite's score; as JSON, Markdown, a
page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import files
from bert_ft.config.references import Reference
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.report import plots
from bert_ft.report.elements import Table
from bert_ft.report.rendering import markdown, render, show
from bert_ft.rundir import environment, naming
from bert_ft.tools.reproduce import verdict
from bert_ft.tools.reproduce.plan import Entry, Plan, Planned
from bert_ft.tools.reproduce.verdict import Verdict, points

Metrics = dict[str, dict[str, float | None]]
SAME = ("data_fingerprint", "checkpoint_fingerprint", "checkpoint_commit")
"""What all runs of a task must share, wherever they were made."""


class Outcome:
    """The runs of a plan that are there, held against the published numbers.

    Attributes:
        table: a row for every metric of every set, and for every published number; values in points.
        verdicts: task, set, metric, published value and its source, and the fields of `verdict.Verdict`.
        results: all of it, as in `results.json`.
    """

    def __init__(self, plan: Plan, margin: float) -> None:
        self.plan, self.margin, self.folder = plan, margin, plan.folder
        self.picked = {entry.base.name: _picked(entry) for entry in plan.entries}
        self.scores: dict[str, dict[int, Metrics]] = {
            name: {seed: run.folder.results()["metrics"] for seed, run in runs.items()}
            for name, runs in self.picked.items()
        }
        self.found = [(entry, r, self._judge(entry, r)) for entry in plan.entries for r in entry.references]

    def _judge(self, entry: Entry, reference: Reference) -> Verdict:
        made, scores = self.picked[entry.base.name], list(self.scores[entry.base.name].values())
        unmet = verdict.conditions(reference, entry.base, entry.runs[0].task, entry.grid)
        places = [run.folder.environment() for run in made.values()]
        unmet += [
            f"runs: they differ in {key}" for key in SAME if len({place.get(key) for place in places}) > 1
        ]
        if scores and reference.split not in scores[0]:
            scored = ", ".join(scores[0])
            unmet.append(f"split: {reference.split} published, scored here: {scored}")
        if unmet:
            return Verdict("not comparable", unmet)
        if len(scores) < len(self.plan.seeds):
            return Verdict("incomplete", [f"{len(scores)} of {len(self.plan.seeds)} seeds are there"])
        values = self.values(entry, reference.split, reference.metric)
        return verdict.judge(
            reference.value, reference.runs, reference.std, values, reference.statistic, self.margin
        )

    def values(self, entry: Entry, name: str, metric: str) -> list[float]:
        """The points of each seed that has this metric, or this form of several, on this set."""
        return [
            verdict.measured(metric, entry.base.family, metrics[name])
            for metrics in self.scores[entry.base.name].values()
            if set(verdict.forms(metric)) <= metrics.get(name, {}).keys()
        ]

    @cached_property
    def table(self) -> list[dict[str, str]]:
        rows = []
        for entry in self.plan.entries:
            first: Metrics = next(iter(self.scores[entry.base.name].values()), {})
            measured = {
                (name, metric): None
                for name in first
                for metric in entry.base.metric.compute
                if metric in first[name]
            }
            mine = [(r, v) for of, r, v in self.found if of is entry]
            keys = dict.fromkeys([*measured, *((r.split, r.metric) for r, _ in mine)])
            for name, metric in keys:
                held: Sequence[tuple[Reference | None, Verdict | None]] = [
                    (r, v) for r, v in mine if (r.split, r.metric) == (name, metric)
                ] or [(None, None)]
                for r, v in held:
                    rows.append(
                        {
                            "task": entry.base.name,
                            "set": name,
                            "metric": metric,
                            "published": _spread(r.value, r.std) if r else "–",
                            "measured": _summary(
                                self.values(entry, name, metric), r.statistic if r else "mean"
                            ),
                            "seeds": str(len(self.values(entry, name, metric))),
                            "verdict": v.verdict if v else "no published number",
                            "statistic": _statistic(r) if r else "–",
                            "source": r.source if r else "–",
                        }
                    )
        return rows

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [
            {
                "task": entry.base.name,
                "set": r.split,
                "metric": r.metric,
                "published": r.model_dump(exclude_none=True),
                **asdict(v),
            }
            for entry, r, v in self.found
        ]

    @property
    def notes(self) -> list[str]:
        """The reasons of the verdicts, a line each."""
        return [
            f"{entry.base.name}, {r.split}/{r.metric}, {r.source}: {v.verdict}: {'; '.join(v.why)}"
            for entry, r, v in self.found
        ]

    @property
    def failed(self) -> list[Planned]:
        """The runs that could not be made."""
        return [run for run in self.plan.runs if run.cause]

    @cached_property
    def suite(self) -> dict[str, dict[str, Any]]:
        """Kind of set (validation, test) -> "all tasks", "without wnli" -> values of the seeds, mean and std,
        in points; or the tasks that are missing, so that there is no score."""
        whole, out = self.plan.suite, dict[str, dict[str, Any]]()
        if whole is None:
            return out
        smaller = [task for task in whole.tasks if task != "wnli"]
        kinds = {"all tasks": whole.tasks} | (
            {"without wnli": smaller} if len(smaller) < len(whole.tasks) else {}
        )
        for kind in ("evaluation_sets", "test_sets"):
            scored = {
                entry.base.name: self._points(entry, getattr(entry.base.data, kind))
                for entry in self.plan.entries
            }
            for label, tasks in kinds.items():
                missing = [task for task in tasks if len(scored[task]) < len(self.plan.seeds)]
                values = (
                    []
                    if missing
                    else [
                        whole.model_copy(update={"tasks": tasks}).score(
                            {task: scored[task][seed] for task in tasks}
                        )
                        for seed in self.plan.seeds
                    ]
                )
                name = "validation" if kind == "evaluation_sets" else "test"
                out.setdefault(name, {})[label] = {"missing": missing} if missing else _described(values)
        return out

    def _points(self, entry: Entry, sets: Mapping[str, str]) -> dict[int, dict[str, dict[str, float]]]:
        """Seed -> set -> metric -> points, of the seeds that have all these sets."""
        return {
            seed: {
                s: {m: points(metrics[s][m], entry.base.family, m) for m in entry.base.metric.compute}
                for s in sets
            }
            for seed, metrics in self.scores[entry.base.name].items()
            if sets and set(sets) <= set(metrics)
        }

    @property
    def results(self) -> dict[str, Any]:
        tasks = {}
        for entry in self.plan.entries:
            name = entry.base.name
            first: Metrics = next(iter(self.scores[name].values()), {})
            metrics = {
                s: {
                    m: _described(self.values(entry, s, m))
                    for m in first[s]
                    if m in entry.base.metric.compute
                }
                for s in first
            }
            tasks[name] = {
                "reference": entry.reference.source if entry.reference else None,
                "metrics": metrics,
                "grid": entry.grid,
                "chosen": {str(s): r.point for s, r in self.picked[name].items() if r.point},
            }
        runs = [
            {
                "task": run.task.name,
                "seed": run.task.run.seed,
                "grid": run.point,
                "folder": str(run.folder.path),
                "state": "failed" if run.cause else run.folder.state,
                "cause": run.cause,
                "command": run.command,
            }
            for run in self.plan.runs
        ]
        return {
            "name": self.plan.name,
            "checkpoint": self.plan.checkpoint,
            "seeds": self.plan.seeds,
            "margin": self.margin,
            "scale": "points",
            "tasks": tasks,
            "verdicts": self.verdicts,
            "suite": self.suite,
            "runs": runs,
            "made": self.made,
            "version": environment.version("bert-ft"),
        }

    @cached_property
    def made(self) -> dict[str, Any]:
        """Versions, hardware and time of the runs that are there; several values where they differ."""
        done = [run for run in self.plan.runs if run.folder.state == "finished"]
        places = [run.folder.environment() for run in done]
        versions = {
            p: _distinct(place["versions"].get(p) for place in places)
            for p in ("python", *environment.PACKAGES)
        }
        keys = ("device", "precision", "processes", "threads", "platform", "git_commit")
        seconds = sum(run.folder.results()["timing"]["train_seconds"] for run in done)
        return {
            "runs": len(done),
            "train_seconds": round(seconds, 1),
            **{key: _distinct(place.get(key) for place in places) for key in keys},
            "versions": versions,
        }

    @property
    def grid_note(self) -> str:
        """How many runs stand behind a "best"."""
        told = [
            f"{entry.base.name} {len({str(run.point) for run in entry.runs})}"
            for entry in self.plan.entries
            if entry.grid
        ]
        return "" if not told else ("each seed's best on validation of so many runs: " + ", ".join(told))

    def markdown(self) -> str:
        """The table for an appendix or a pull request, with what stands behind it."""
        columns = list(self.table[0]) if self.table else []
        lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(map(markdown, row.values()))} |" for row in self.table]
        lines += [
            "",
            *(f"- {markdown(line)}" for line in [*self.suite_lines, *self.notes, self.grid_note] if line),
        ]
        lines += [f"- failed: {markdown(run.folder.path.name)}: {markdown(run.cause)}" for run in self.failed]
        made = self.made
        versions = ", ".join(
            f"{package} {markdown(show(version))}" for package, version in made["versions"].items() if version
        )
        lines += [
            "",
            "Values in points; measured is the mean (the median where that is published) ± the standard "
            f"deviation over seeds {show(self.plan.seeds)} of "
            f"{markdown(naming.short_name(self.plan.checkpoint))}. "
            "What a source's recipe leaves open is the task's own.",
            f"{made['runs']} runs, {made['train_seconds']:,.0f} seconds of training; "
            f"{markdown(show(made['device']))}, "
            f"{markdown(show(made['precision']))}; {versions}.",
        ]
        return "\n".join([f"# {markdown(self.title)}", "", *lines, ""])

    @property
    def title(self) -> str:
        return f"{Path(self.plan.name).stem}, reproduced with {naming.short_name(self.plan.checkpoint)}"

    @property
    def suite_lines(self) -> list[str]:
        """The suite's scores in words."""
        return [
            f"{self.plan.name}, {name}, {label}: "
            + (
                f"no score without {', '.join(found['missing'])}"
                if "missing" in found
                else _spread(found["mean"], found["std"])
            )
            for name, of in self.suite.items()
            for label, found in of.items()
        ]

    def html(self, whole: bool = True) -> str:
        """The page; or the tables alone, as a notebook shows them."""
        rows = Table(
            "published and measured, in points",
            list(self.table[0]) if self.table else [],
            [[cell.replace(" ± ", "\u00a0±\u00a0") for cell in row.values()] for row in self.table],
        )
        score = Table("suite", [], [line.rsplit(": ", 1) for line in self.suite_lines])
        words = [row["verdict"] for row in self.table]
        facts = [
            Table(
                "how",
                [],
                [[key.replace("_", " "), value] for key, value in self.made.items() if key != "versions"],
            ),
            Table("versions", [], [list(pair) for pair in self.made["versions"].items()]),
            Table(
                "runs",
                ["run", "state"],
                [
                    [run.folder.path.name, "failed" if run.cause else run.folder.state]
                    for run in self.plan.runs
                ],
            ),
        ]
        return render(
            "reproduction.html.j2",
            whole=whole,
            title=self.title,
            checkpoint=self.plan.checkpoint,
            rows=rows,
            subtitle=f"seeds {show(self.plan.seeds)}" + f" · {self.grid_note}" * bool(self.grid_note),
            counts={word: words.count(word) for word in dict.fromkeys(words)},
            score=score,
            notes=self.notes,
            facts=facts,
            failed=[{"folder": run.folder.path.name, "cause": run.cause} for run in self.failed],
            charts=self._charts() if whole else [],
            version=environment.version("bert-ft"),
        )

    def _charts(self) -> list[tuple[str, str]]:
        """A chart a task: a line a metric of a set, a dot a seed, a diamond a published value."""
        out = []
        for entry in self.plan.entries:
            keys = dict.fromkeys(
                (row["set"], row["metric"]) for row in self.table if row["task"] == entry.base.name
            )
            several = len({s for s, _ in keys}) > 1
            lines = [
                (
                    f"{s}\n{m}" if several else m,
                    self.values(entry, s, m),
                    [r.value for r in entry.references if (r.split, r.metric) == (s, m)],
                )
                for s, m in keys
            ]
            if lines:
                out.append((entry.base.name, plots.dots(lines, ("a seed", "published"), "points")))
        return out

    def write(self) -> None:
        """Writes `results.json`, `table.md` and `page.html`."""
        files.write_json(self.folder / "results.json", self.results)
        files.write(self.folder / "table.md", self.markdown())
        files.write(self.folder / "page.html", self.html())

    def _repr_html_(self) -> str:
        return self.html(whole=False)


def _picked(entry: Entry) -> dict[int, Planned]:
    """Seed -> its run; with a grid the one that did best on validation, once all of the seed's are there."""
    name, metric = entry.base.best_metric
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def score(run: Planned) -> float:
        value = run.folder.results()["metrics"][name][metric]
        return -float("inf") if value is None else sign * value

    out = {}
    for seed in dict.fromkeys(run.task.run.seed for run in entry.runs):
        runs = [run for run in entry.runs if run.task.run.seed == seed]
        if all(run.folder.state == "finished" for run in runs):
            out[seed] = max(runs, key=score)
    return out


def _described(values: Sequence[float]) -> dict[str, Any]:
    return {"values": list(values), "mean": statistics.fmean(values), "std": _std(values)}


def _std(values: Sequence[float]) -> float | None:
    """Of a sample; nan where one of the values is."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(value: float, std: float | None) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def _statistic(reference: Reference) -> str:
    several = reference.statistic in ("mean", "median", "best of grid")
    return (
        reference.statistic
        + (f" of {reference.runs or '?'}" if several else "")
        + ", unconfirmed" * (reference.confidence == "U")
    )


def _summary(values: Sequence[float], statistic: str) -> str:
    """Mean or median, and the standard deviation."""
    if not values:
        return "–"
    center = statistics.median(values) if statistic == "median" else statistics.fmean(values)
    return _spread(center, _std(values))


def _distinct(values: Any) -> Any:
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else found
