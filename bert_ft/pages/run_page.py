"""The report: one HTML file that asks for nothing and runs nothing, of one run or of several side by side.

All of it comes from the run folders, also from copied ones: `predictions/<set>.rows.parquet` keeps the scored
rows, since texts and gold answers stand nowhere else. A run without them has a report without texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from bert_ft import files, reading
from bert_ft.errors import InputError
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.metrics.bootstrap import Interval
from bert_ft.pages import card, scored_sets
from bert_ft.report import calibration, choices, exported, plots
from bert_ft.report.choices import TUNED_HERE
from bert_ft.report.elements import Chart, Table
from bert_ft.report.rendering import render, show
from bert_ft.report.scored_set import Scored, consistent
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.naming import short_name

SHOWN = 20  # errors of a set; characters of a text in one
CUT = 400


class View:
    """What the page says of one run. `results`: those of a run whose `results.json` is not there yet."""

    def __init__(self, folder: RunDir, results: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.path = folder.path
        self.task = folder.task()
        self.log = folder.log()
        self.name = self.path.resolve().name
        self.results = results or (folder.results() if folder.results_json.is_file() else {})
        self.environment = folder.environment() if folder.environment_json.is_file() else {}
        told = [entry["evaluation"] for entry in self.log if "evaluation" in entry]
        self.metrics: dict[str, dict[str, float]] = self.results.get("metrics") or (told[-1] if told else {})
        self.sets = scored_sets.scored(folder, self.task, self.results) if self.results else []
        self.choices = choices.of_run(self.results, self.task, self.log)
        self.title = self.task.title or self.task.name

    def headline(self) -> dict[str, Any]:
        """The metric that picks the best step, with its interval."""
        name, metric = self.task.best_metric
        out: dict[str, Any] = {"set": name, "metric": metric, "value": self.metrics.get(name, {}).get(metric)}
        out["method"] = "no interval: it is not to be had from the predictions, or the run keeps no rows"
        for one in self.sets:
            found = self._interval(one, metric) if one.name == name else None
            if isinstance(found, Interval):
                out["interval"] = f"{show(found.low)} to {show(found.high)}"
                out["method"] = f"95 % interval over {one.drawn}: {found.method}"
            elif found:
                out["method"] = f"no interval: {found}"
        if (spread := self.results.get("spread", {}).get(name, {}).get(metric)) is not None:
            told = f"mean and standard deviation of {self.results['folds']} folds"
            out |= {"interval": f"± {show(spread)}", "method": told}
        lines = self.choices.sentences(name, metric)
        return out | {"mark": choices.MARK if lines else "", "chosen": lines}

    def _interval(self, one: Scored, metric: str) -> Interval | str | None:
        """The interval of a metric as it is shown: of one that was chosen on these rows that of its held-out
        value; or why there is none."""
        found = one.certainty.get(metric)
        if not isinstance(found, Interval):
            return found
        assert one.resamples is not None
        top = np.inf if metric in LOWER_IS_BETTER else one.resamples.scoring.top
        ends = self.choices.interval(one.name, metric, (found.low, found.high), top)
        return TUNED_HERE if ends is None else Interval(*ends, found.method)

    def scores(self) -> Table:
        """All metrics of all sets."""
        sets = {one.name: one for one in self.sets}
        some = bool(self.choices.made)
        rows: list[list[Any]] = []
        for name, values in self.metrics.items():
            for metric, value in values.items():
                found = self._interval(sets[name], metric) if name in sets else None
                cell = f"none: {found}" if found else None
                if isinstance(found, Interval):
                    cell = f"{show(found.low)} to {show(found.high)}"
                held, what = self.choices.cells(name, metric)
                row = [name, metric, value, *([held] if some else []), cell]
                rows.append([*row, *([what] if some else [])])
        columns = ["set", "metric", "value", "95 % interval"]
        if some:
            columns = [*columns[:3], "held out", columns[3], "chosen on these rows"]
        methods = [one.methods() for one in self.sets if one.intervals]
        return Table("metrics", columns, rows, "; ".join(filter(None, [self.choices.about_cells, *methods])))

    @property
    def independence(self) -> str:
        """The sentence on rows that are taken one by one, where this page has intervals of such."""
        return next((one.independence for one in self.sets if one.intervals and one.independence), "")

    @cached_property
    def curves(self) -> list[str]:
        """The learning curves as SVG."""
        return plots.charts({self.name: self.log}, self.task.best_metric)

    @cached_property
    def details(self) -> list[tuple[Scored, list[Table | Chart]]]:
        """The sets with their own tables and charts, the errors last."""
        return list(self._details())

    def _details(self) -> Iterator[tuple[Scored, list[Table | Chart]]]:
        for one in self.sets:
            sections = one.sections()
            with consistent(self.path):
                sections += calibration.sections(self.results, one.name, self.task.best_metric[0])
            found: list[dict[str, Any]] = []
            with suppress(InputError):  # of a family that can't list them, or of rows that are not kept
                found = one.errors()
            if found:
                what = "the most confident errors" if "confidence" in found[0] else "the largest errors"
                rows = [[_cut(value) for value in line.values()] for line in found[:SHOWN]]
                told = f"{min(SHOWN, len(rows))} of {len(found):,} wrong rows"
                sections.append(Table(what, list(found[0]), rows, told))
            yield one, sections

    def _exported(self) -> list[Table]:
        """How the graphs that the run was exported to stand beside its model."""
        file = self.folder.onnx / "parity.json"
        if not file.is_file():
            return []
        try:
            parity = reading.strict(reading.text(file, files.LARGEST))
        except ValueError as error:
            raise InputError(f"not JSON: {error}", where=str(file), remedy="export the run again") from None
        if not isinstance(parity, dict) or not all(
            reading.fits(parity.get(key), shape) for key, shape in exported.SHAPE.items()
        ):
            raise InputError(
                "this is not what bert-ft writes here", where=str(file), remedy="export the run again"
            )
        return [exported.table(parity, self.task.best_metric[1])]

    def facts(self) -> list[Table]:
        """Counts, recipe, environment, timing, and published numbers of this checkpoint."""
        counts: dict[str, dict[str, int]] = self.results.get("counts", {})
        keys = list(dict.fromkeys(key for counted in counts.values() for key in counted))
        tables = [
            *self._exported(),
            Table(
                "what was read, truncated and unknown",
                ["set", *(key.replace("_", " ") for key in keys)],
                [[name, *(counted.get(key) for key in keys)] for name, counted in counts.items()],
            ),
        ]
        rows = [
            [name, part, metric, value, self.metrics.get(part, {}).get(metric)]
            for name, sets in self.results.get("baselines", {}).items()
            for part, values in sets.items()
            for metric, value in values.items()
        ]
        columns = ["baseline", "set", "metric", "value", "this run"]
        fitted = f"simple methods, fitted to {self.results.get('baseline_rows', 0):,} of the training rows"
        tables.insert(0, Table("baselines", columns, rows, fitted))
        agreed = self.results.get("agreement", {}).get("krippendorff_alpha", {})
        about = "of the votes that soft targets come of: 1 is perfect agreement, 0 is chance"
        head = ["set", "Krippendorff's alpha"]
        tables.insert(0, Table("agreement between annotators", head, [[*of] for of in agreed.items()], about))
        known = short_name(self.task.run.checkpoint or "")
        of_it = [
            r.model_dump(exclude={"checkpoint"})
            for r in self.task.reference
            if short_name(r.checkpoint) == known
        ]
        if of_it:
            note = (
                "as published, with their conditions: other splits, recipes or statistics are no comparison"
            )
            rows = [list(reference.values()) for reference in of_it]
            tables.append(Table(f"published numbers of {known}", list(of_it[0]), rows, note))
        if trained := self.results.get("parameters"):
            keys = [key.replace("_", " ") for key in trained[0]]
            rows = [list(row.values()) for row in trained]
            tables.append(Table("what was trained, and its peak learning rate", keys, rows))
        recipe = self.task.recipe.model_dump(exclude=self.task.recipe.SPACES, exclude_none=True)
        environment = {k: v for k, v in self.environment.items() if k not in ("versions", "resumed")}
        environment |= {
            "resumed": len(self.environment.get("resumed", [])),
            **self.environment.get("versions", {}),
        }
        facts = {"recipe": recipe, "timing": self.results.get("timing", {}), "environment": environment}
        for title, values in facts.items():
            tables.append(Table(title, [], [[key.replace("_", " "), value] for key, value in values.items()]))
        return [table for table in tables if table.rows]


def view_of(folder: RunDir) -> View:
    """The view of a run whose folder may be anybody's, with all that its page shows.

    Raises:
        InputError: files of the run that are missing, damaged, or do not fit together.
    """
    with consistent(folder.path):
        view = View(folder)
        view.headline(), view.scores(), view.facts(), view.curves, view.details
    return view


def beside(views: Sequence[View]) -> list[Table]:
    """What several runs share, and where they differ."""
    keys = dict.fromkeys(
        (n, metric) for view in views for n, values in view.metrics.items() for metric in values
    )
    scores = [[n, metric, *(view.metrics.get(n, {}).get(metric) for view in views)] for n, metric in keys]
    told = [_flat(view.task.model_dump(exclude={"reference", "title"})) for view in views]
    differ = [
        key
        for key in dict.fromkeys(key for tree in told for key in tree)
        if any(tree.get(key) != told[0].get(key) for tree in told)
    ]
    names = [view.name for view in views]
    return [
        Table("metrics", ["set", "metric", *names], scores),
        Table("what differs", ["key", *names], [[key, *(tree.get(key) for tree in told)] for key in differ]),
    ]


def html(views: Sequence[View]) -> str:
    """The page of one run, or of several."""
    shared: dict[str, Any] = {"tables": [], "curves": []}
    if len(views) > 1:
        one_task = len({view.task.best_metric for view in views}) == 1
        logs = {
            f"{i}. {view.name}" if len({v.name for v in views}) < len(views) else view.name: view.log
            for i, view in enumerate(views, 1)
        }
        shared = {
            "tables": beside(views),
            "curves": plots.charts(logs, views[0].task.best_metric) if one_task else [],
        }
    return render("page.html.j2", views=views, shared=shared)


def of_run(folder: RunDir, results: Mapping[str, Any] | None = None) -> str:
    """What a notebook shows of a run: its metrics and its learning curves."""
    with consistent(folder.path):
        view = View(folder, results)
        curves = plots.figure(view.log, view.task.best_metric) if view.log else None
        svg = plots.svg(curves, "learning curves", theme={}) if curves is not None else ""
    return render("run.html.j2", view=view, svg=svg, state=folder.state)


def leave(folder: RunDir, results: Mapping[str, Any], say: Callable[..., None]) -> None:
    """Writes the report and the model card at the end of a run. What goes wrong with them is told, and costs
    no run."""
    for name, make in (("model card", card.write), ("report", write)):
        try:
            make(folder, results)
        except Exception as error:
            say(f"no {name}: {type(error).__name__}: {error}", "yellow")


def write(folder: RunDir, results: Mapping[str, Any]) -> None:
    """Writes a run's `report.html`."""
    files.write(folder.report_html, html([View(folder, results)]))


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > CUT:
        return f"{value[:CUT]}… ({len(value) - CUT:,} more characters)"
    return value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out
