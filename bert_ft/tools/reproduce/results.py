"""What came of a reproduction: the scores of every seed, the verdicts, the suite's score."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config.references import Reference, Suite
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.report import choices
from bert_ft.rundir import environment
from bert_ft.rundir.naming import clean
from bert_ft.tools.reproduce import conditions, page, soup
from bert_ft.tools.reproduce.conditions import points
from bert_ft.tools.reproduce.plan import Entry, Plan, Planned
from bert_ft.tools.reproduce.verdict import Published, Verdict, judge_together

Metrics = dict[str, dict[str, float | None]]
SAME = ("data_fingerprint", "checkpoint_fingerprint", "checkpoint_commit")
"""What all runs of a task must share, wherever they were made."""


class Outcome:
    """The runs of a plan that are there, held against the published numbers.

    Attributes: table: a row for every metric of every set, and for every published number; values in points.
        verdicts: task, set, metric, published value and its source, and the fields of `verdict.Verdict`.
        looks: the seeds of each time that these numbers were judged, this one the last; a later look is
        judged more strictly.
        soups: task -> what `soup.greedy` returns, where soups were asked for.
        results: all of it, as in `results.json`.
    """

    def __init__(self, plan: Plan, margin: float) -> None:
        self.plan, self.margin, self.folder = plan, margin, plan.folder
        self.picked = {entry.base.name: _picked(entry) for entry in plan.entries}
        self.scores: dict[str, dict[int, Metrics]] = {
            name: {seed: run.folder.results()["metrics"] for seed, run in runs.items()}
            for name, runs in self.picked.items()
        }
        seeds = sorted(plan.seeds)
        looks = _looks(self.folder)
        before = looks[: looks.index(seeds)] if seeds in looks else looks
        self.judged = self._judge([len(look) for look in before])
        self.soups: dict[str, dict[str, Any]] = {}
        judged = any(verdict.interval for *_, verdict in self.judged)
        self.looks = [*looks, seeds] if judged and seeds not in looks else looks

    def make_soups(self) -> None:
        """Averages the seeds of every task that has two or more, greedily; errors as of `soup.greedy`."""
        for entry in self.plan.entries:
            runs = self.picked[entry.base.name]
            if len(runs) > 1:
                folder = self.folder / f"soup-{clean(entry.base.name)}"
                self.soups[entry.base.name] = soup.greedy(runs, folder, self.plan.trusted)

    def _judge(self, earlier: Sequence[int]) -> list[tuple[Entry, Reference, Verdict]]:
        """Every published number with its verdict. `earlier`: the numbers of seeds of the looks before."""
        pairs = [(entry, reference) for entry in self.plan.entries for reference in entry.references]
        hindered = [self._hindered(*pair) for pair in pairs]
        cases = [
            (
                Published(reference.value, reference.runs, reference.std, reference.statistic),
                self.values(entry, reference.split, reference.metric),
            )
            for (entry, reference), verdict in zip(pairs, hindered, strict=True)
            if verdict is None
        ]
        verdicts = iter(judge_together(cases, self.margin, earlier))
        return [(*pair, verdict or next(verdicts)) for pair, verdict in zip(pairs, hindered, strict=True)]

    def _hindered(self, entry: Entry, reference: Reference) -> Verdict | None:
        """The verdict on a number that can't be judged: a condition is not met, or runs are missing."""
        runs, scores = self.picked[entry.base.name], list(self.scores[entry.base.name].values())
        unmet = conditions.conditions(reference, entry.base, entry.runs[0].task, entry.grid)
        environments = [run.folder.environment() for run in runs.values()]
        unmet += [
            f"runs: they differ in {key}" for key in SAME if len({each.get(key) for each in environments}) > 1
        ]
        if scores and reference.split not in scores[0]:
            scored = ", ".join(scores[0])
            unmet.append(f"split: {reference.split} published, scored here: {scored}")
        if unmet:
            return Verdict("not comparable", unmet)
        if len(scores) < len(self.plan.seeds):
            return Verdict("incomplete", [f"{len(scores)} of {len(self.plan.seeds)} seeds are there"])
        return None

    def values(self, entry: Entry, name: str, metric: str) -> list[float]:
        """The points of each seed that has this metric, or this form of several, on this set."""
        return [
            conditions.measured(metric, entry.base.family, metrics[name])
            for metrics in self.scores[entry.base.name].values()
            if set(conditions.forms(metric)) <= metrics.get(name, {}).keys()
        ]

    @cached_property
    def table(self) -> list[dict[str, str]]:
        rows = []
        for entry in self.plan.entries:
            first: Metrics = next(iter(self.scores[entry.base.name].values()), {})
            computed = entry.base.metric.compute
            keys = [(name, metric) for name in first for metric in computed if metric in first[name]]
            judged = [(reference, found) for of, reference, found in self.judged if of is entry]
            keys += [(reference.split, reference.metric) for reference, _ in judged]
            for key in dict.fromkeys(keys):
                values = self.values(entry, *key)
                chosen = self._is_chosen(entry, *key)
                published = [each for each in judged if (each[0].split, each[0].metric) == key]
                if not published:
                    rows.append(page.row(entry.base.name, *key, values, chosen=chosen))
                for reference, found in published:
                    rows.append(page.row(entry.base.name, *key, values, reference, found.verdict, chosen))
        return rows

    def _is_chosen(self, entry: Entry, name: str, metric: str) -> bool:
        """Whether the values of a metric were chosen on the set that they are of."""
        if entry.grid and name == entry.base.best_metric[0]:
            return True
        return any(
            made.of(name, form) is not None
            for run in self.picked[entry.base.name].values()
            for made in [choices.of_run(run.folder.results(), run.task, run.folder.log())]
            for form in conditions.forms(metric)
        )

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [
            {
                "task": entry.base.name,
                "set": reference.split,
                "metric": reference.metric,
                "published": reference.model_dump(exclude_none=True),
                **asdict(found),
            }
            for entry, reference, found in self.judged
        ]

    @property
    def notes(self) -> list[str]:
        """The reasons of the verdicts, a line each, and the soups."""
        return [*page.notes(self.verdicts), *page.soups(self.results)]

    @property
    def failed(self) -> list[Planned]:
        """The runs that failed."""
        return [run for run in self.plan.runs if run.cause]

    @cached_property
    def suite(self) -> dict[str, dict[str, Any]]:
        """Kind of set (validation, test) -> "all tasks", "without wnli" -> values of the seeds, mean and std,
        in points; or the tasks that are missing, so that there is no score."""
        whole = self.plan.suite
        if whole is None:
            return {}
        smaller = [task for task in whole.tasks if task != "wnli"]
        groups = {"all tasks": whole.tasks}
        if len(smaller) < len(whole.tasks):
            groups["without wnli"] = smaller
        return {
            name: {label: self._suite_score(whole, kind, tasks) for label, tasks in groups.items()}
            for name, kind in (("validation", "evaluation_sets"), ("test", "test_sets"))
        }

    def _suite_score(self, whole: Suite, kind: str, tasks: list[str]) -> dict[str, Any]:
        """The suite's score on one kind of set, over some of its tasks."""
        scored = {
            entry.base.name: self._points(entry, getattr(entry.base.data, kind))
            for entry in self.plan.entries
        }
        missing = [task for task in tasks if len(scored[task]) < len(self.plan.seeds)]
        if missing:
            return {"missing": missing}
        part = whole.model_copy(update={"tasks": tasks})
        return _described(
            [part.score({task: scored[task][seed] for task in tasks}) for seed in self.plan.seeds]
        )

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
        return {
            "name": self.plan.name,
            "checkpoint": self.plan.checkpoint,
            "seeds": self.plan.seeds,
            "margin": self.margin,
            "scale": "points",
            "tasks": {entry.base.name: self._of_task(entry) for entry in self.plan.entries},
            "verdicts": self.verdicts,
            "looks": self.looks,
            "suite": self.suite,
            "soups": self.soups,
            "runs": [_of_run(run) for run in self.plan.runs],
            "made": self.made,
            "version": environment.version("bert-ft"),
        }

    def _of_task(self, entry: Entry) -> dict[str, Any]:
        name = entry.base.name
        first: Metrics = next(iter(self.scores[name].values()), {})
        metrics = {
            split: {
                metric: _described(self.values(entry, split, metric))
                for metric in first[split]
                if metric in entry.base.metric.compute
            }
            for split in first
        }
        return {
            "reference": entry.reference.source if entry.reference else None,
            "metrics": metrics,
            "grid": entry.grid,
            "chosen": {str(seed): run.point for seed, run in self.picked[name].items() if run.point},
        }

    @cached_property
    def made(self) -> dict[str, Any]:
        """Versions, hardware and time of the finished runs; several values where they differ."""
        done = [run for run in self.plan.runs if run.folder.state == "finished"]
        environments = [run.folder.environment() for run in done]
        versions = {
            package: _distinct(each["versions"].get(package) for each in environments)
            for package in ("python", *environment.PACKAGES)
        }
        keys = ("device", "precision", "processes", "threads", "platform", "git_commit")
        seconds = sum(run.folder.results()["timing"]["train_seconds"] for run in done)
        return {
            "runs": len(done),
            "train_seconds": round(seconds, 1),
            **{key: _distinct(each.get(key) for each in environments) for key in keys},
            "versions": versions,
        }

    @property
    def suite_lines(self) -> list[str]:
        """The suite's scores in words."""
        return page.suite_lines(self.plan.name, self.suite)

    def markdown(self) -> str:
        """The table for an appendix or a pull request, with what stands behind it."""
        return page.markdown(self.results, self.table)

    def html(self, whole: bool = True) -> str:
        """The page; or the tables alone, as a notebook shows them."""
        return page.html(self.results, self.table, self._dots() if whole else {}, whole)

    def _dots(self) -> dict[str, list[tuple[str, str, list[float], list[float]]]]:
        """Task -> set, metric, the values of its seeds and the published ones, for each line of its chart."""
        dots = {}
        for entry in self.plan.entries:
            own = [row for row in self.table if row["task"] == entry.base.name]
            dots[entry.base.name] = [
                (
                    split,
                    metric,
                    self.values(entry, split, metric),
                    [each.value for each in entry.references if (each.split, each.metric) == (split, metric)],
                )
                for split, metric in dict.fromkeys((row["set"], row["metric"]) for row in own)
            ]
        return dots

    def write(self) -> None:
        """Writes `results.json`, `table.md` and `page.html`."""
        files.write_json(self.folder / "results.json", self.results)
        files.write(self.folder / "table.md", self.markdown())
        files.write(self.folder / "page.html", self.html())

    def _repr_html_(self) -> str:
        return self.html(whole=False)


def _looks(folder: Path) -> list[list[int]]:
    """The seeds of the looks that an outcome written here had; of one that did not record them its own."""
    try:
        results = json.loads((folder / "results.json").read_bytes())
        judged = any(verdict["interval"] for verdict in results["verdicts"])
        looks = results["looks"] if "looks" in results else [results["seeds"]] * judged
        if not all(look and all(type(seed) is int for seed in look) for look in looks):
            raise ValueError
        return [sorted(look) for look in looks]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []  # nothing was looked at here yet; what is not ours is refused elsewhere


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


def _of_run(run: Planned) -> dict[str, Any]:
    return {
        "task": run.task.name,
        "seed": run.task.run.seed,
        "grid": run.point,
        "folder": str(run.folder.path),
        "state": run.state,
        "cause": run.cause,
        "command": run.command,
    }


def _described(values: Sequence[float]) -> dict[str, Any]:
    return {"values": list(values), "mean": statistics.fmean(values), "std": page.deviation(values)}


def _distinct(values: Any) -> Any:
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different
