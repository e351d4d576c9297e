"""Numbers of a run that were chosen on the rows they are of: the record in `results.json`, and what pages say
of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import hypot
from typing import Any

import numpy as np

from bert_ft import reading
from bert_ft.config.task import Task
from bert_ft.metrics import LOWER_IS_BETTER, choice
from bert_ft.metrics.bootstrap import CORRELATIONS
from bert_ft.metrics.choice import NULL_TUNED, SWEPT, Candidate
from bert_ft.metrics.multilabel import TUNED
from bert_ft.report.rendering import show
from bert_ft.rundir import evaluations as store
from bert_ft.rundir.folder import RunDir

Ends = tuple[float, float]
Metrics = Mapping[str, Mapping[str, float | None]]
MARK = "†"
TUNED_HERE = "it would not hold for thresholds that were tuned on these rows"
AGREES = 1e-6  # between a metric and the same one out of the candidates
SHAPES: dict[str, Any] = {
    "set": "validation", "metrics": ["f1"], "evaluations": 10, "tuned": "", "lean": {"f1": 0.5},
    "held_out": {"f1": 0.5}, "parts": 2, "folds": 0,
}  # fmt: skip
"""The record of a choice, as `reading.fits` takes it."""
HALVES = "one half of the rows, scored on the other"
TENTHS = "nine tenths of the rows, scored on the rest"


@dataclass(frozen=True)
class Choice:
    """Metrics of one set that were chosen on its rows.

    Attributes:
        set, metrics: which numbers.
        evaluations: among how many the best was chosen; 1: there was no such choice.
        tuned: what else was tuned on these rows, as "the threshold of no answer"; "" where nothing was.
        lean: metric -> how much such a choice adds, in the metric's unit; where it can be estimated.
        held_out: metric -> its value by choices that did not see the row.
        parts: into how many parts the rows were divided for it; 0 where it was not estimated.
        folds: of how many folds each made its own choice; 0 of a run without folds.
    """

    set: str
    metrics: Sequence[str]
    evaluations: int = 1
    tuned: str = ""
    lean: Mapping[str, float | None] = field(default_factory=dict)
    held_out: Mapping[str, float | None] = field(default_factory=dict)
    parts: int = 0
    folds: int = 0

    @property
    def what(self) -> str:
        """What was chosen, in words."""
        best = f"the best of {self.evaluations} evaluations" if self.evaluations > 1 else ""
        if self.evaluations == 0:
            best = "the best evaluation"
        each = " of each fold" if self.folds else ""
        return " and ".join(part for part in (best, self.tuned) if part) + each

    def sentences(self, metric: str) -> list[str]:
        """What to know of one of its metrics, a sentence each."""
        line = f"chosen on these very rows: {self.what}"
        lean, held = self.lean.get(metric), self.held_out.get(metric)
        if lean is None or held is None:
            return [f"{line}; such a number is somewhat too good"]
        better = -lean if metric in LOWER_IS_BETTER else lean
        seen = f"leans by about {signed(lean, held)}" if better > AGREES else "shows no lean here"
        return [
            f"{line}; such a choice {seen}",
            f"held out: {show(held)} (chosen on {HALVES if self.parts == 2 else TENTHS})",
        ]


class Choices:
    """The choices of a run, as its pages ask for them.

    Args:
        metrics: those of every scored set. picks: the set and the metric that pick the best step.
    """

    def __init__(self, made: Sequence[Choice], metrics: Metrics, picks: tuple[str, str]) -> None:
        self.made = made
        self.metrics = metrics
        self.picks = picks
        self._by_metric = {(each.set, metric): each for each in made for metric in each.metrics}

    def of(self, name: str, metric: str) -> Choice | None:
        """The choice that this metric of this set was made by; None: its rows took no part in any."""
        return self._by_metric.get((name, metric))

    def interval(self, name: str, metric: str, ends: Ends, top: float = np.inf) -> Ends | None:
        """The interval to show of a metric, given that of its rows, which knows nothing of a choice: of a
        number that was chosen it is moved to the held-out value, within 0 (of correlations -1) and `top`, the
        value of a perfect score; an end that is there already stays. None where that does not hold:
        thresholds of labels."""
        made = self.of(name, metric)
        if made is None:
            return ends
        if metric in TUNED:
            return None
        lean, value = made.lean.get(metric), self.metrics[name][metric]
        if lean is None or value is None:
            return ends
        sides = [abs(end - value) for end in ends]
        if made.tuned:  # a held-out value varies more; without this 91 % hold the truth of 200 questions
            sides = [hypot(side, lean) for side in sides]
        bottom = -1.0 if metric in CORRELATIONS else 0.0
        low, high = value - lean - sides[0], value - lean + sides[1]
        return max(low, bottom) if ends[0] > bottom else bottom, min(high, top) if ends[1] < top else top

    def sentences(self, name: str, metric: str) -> list[str]:
        """What to know of one metric, a sentence each; none where nothing was chosen."""
        made = self.of(name, metric)
        if made is None:
            return []
        lines = made.sentences(metric)
        return lines

    def cells(self, name: str, metric: str) -> tuple[float | None, str]:
        """The cells of a table of scores: the held-out value, and what was chosen on these rows."""
        made = self.of(name, metric)
        return (None, "no") if made is None else (made.held_out.get(metric), made.what)

    @property
    def about_cells(self) -> str:
        """What such a table says below its title; nothing where nothing was chosen."""
        lines = ["what was chosen on its own rows is somewhat too good"]
        if any(each.held_out for each in self.made):
            lines.append(
                "“held out” is the same by choices that did not see the row, and the interval is of that"
            )
        else:
            lines.append("intervals are of the rows, not of the choice")
        lines += [f"{', '.join(self.clean)}: took no part in any choice"] if self.clean else []
        return "; ".join(lines) if self.made else ""

    @property
    def clean(self) -> list[str]:
        """The sets none of whose numbers was chosen, where those of another set were."""
        chosen = {each.set for each in self.made}
        return [name for name in self.metrics if name not in chosen] if chosen else []

    def lines(self) -> list[str]:
        """A line for each choice, by the metric that picks or its own first one, and one for the sets that
        took no part."""
        lines = []
        for each in self.made:
            metric = self.picks[1] if self.picks[1] in each.metrics else each.metrics[0]
            value = self.metrics.get(each.set, {}).get(metric)
            said = self.sentences(each.set, metric)
            if each.folds and each.evaluations != 1 and not each.tuned:
                said.append('recipe.keep = "last" makes no such choice')
            lines.append(f"{each.set}, {metric} {show(value)}: {'; '.join(said)}")
        if self.clean:
            lines.append(f"{', '.join(self.clean)}: took no part in any choice")
        return lines


def signed(lean: float, value: float) -> str:
    """A lean with its sign, as precise as `show` gives the value."""
    return f"{lean:+.{2 if abs(value) >= 10 else 4}f}"


def dumped(made: Sequence[Choice]) -> list[dict[str, Any]]:
    """The record in `results.json`: its keys are the attributes of `Choice`, and `what`."""
    return [{"set": each.set, "what": each.what} | asdict(each) for each in made]


def of_run(results: Mapping[str, Any], task: Task, log: Sequence[Mapping[str, Any]] = ()) -> Choices:
    """The choices of a run: as recorded; of a run before there was a record as its recipe and its log have
    them, without an estimate.

    Raises:
        KeyError, ValueError: a record that is none.
    """
    metrics = results.get("metrics", {})
    if "chosen" in results:
        made = [_recorded(each) for each in results["chosen"]]
    else:
        made = _unrecorded(results, metrics, task, sum("evaluation" in entry for entry in log))
    return Choices(made, metrics, task.best_metric)


def _recorded(entry: Mapping[str, Any]) -> Choice:
    values = {key: entry[key] for key in SHAPES}
    if wrong := [key for key, shape in SHAPES.items() if not reading.fits(values[key], shape)]:
        raise ValueError(f"'chosen' has a '{wrong[0]}' of the wrong kind")
    return Choice(**values)


def _unrecorded(results: Mapping[str, Any], metrics: Metrics, task: Task, evaluations: int) -> list[Choice]:
    folds = int(results.get("folds", 0))
    best = task.recipe.keep == "best" and (evaluations > 1 or folds > 0)
    count = (0 if folds else evaluations) if best else 1
    tuned = any(key.endswith(("threshold", "thresholds")) for key in results.get("tuned", {}))
    made = []
    for name, values in metrics.items():
        picks = name == task.best_metric[0]
        own = [*TUNED, *NULL_TUNED] if picks and (tuned or folds) else SWEPT
        some = [metric for metric in values if metric in own]
        others = [metric for metric in values if metric not in own]
        if some:
            made.append(Choice(name, some, count if picks else 1, "thresholds", folds=folds))
        if picks and count != 1 and others:
            made.append(Choice(name, others, count, folds=folds))
    return made


@dataclass(frozen=True)
class Answers:
    """The answers that the metrics of a set come from.

    Attributes:
        candidate: the adapter's. predictions: by the weights that are kept, those of `step`. rows: the set's.
        folder: of the run; it keeps the answers of every evaluation.
    """

    candidate: Callable[[Any, Any], Candidate | None]
    predictions: Mapping[str, np.ndarray]
    rows: Any
    folder: RunDir
    step: int


def of_set(
    name: str,
    values: Mapping[str, float],
    evaluations: int,
    best: str,
    answers: Answers,
    say: Callable[..., None],
) -> list[Choice]:
    """The choices that the metrics of a set were made by; arguments as of `chosen`. What goes wrong with the
    estimate is said, and costs no run."""
    final = None
    among: list[Candidate | None] = []
    expected: Mapping[str, float | None] = values
    try:
        if values:
            final = answers.candidate(answers.predictions, answers.rows)
        if final is not None and evaluations > 1:
            kept = store.kept(answers.folder, evaluations)
            among = [answers.candidate(columns, answers.rows) for columns in kept]
            expected = store.logged(answers.folder, answers.step).get(name, {})
        return chosen(name, values, final, evaluations, best, among, expected, answers.rows.together())
    except Exception as error:  # a family of the user's own may have other predictions
        say(f"{name}: no estimate of what choices add: {type(error).__name__}: {error}", "yellow")
        return chosen(name, values, None, evaluations, best, [], values, None)


def chosen(
    name: str,
    values: Mapping[str, float],
    final: Candidate | None,
    evaluations: int,
    best: str,
    candidates: Sequence[Candidate | None],
    expected: Mapping[str, float | None],
    groups: np.ndarray | None,
) -> list[Choice]:
    """The choices that the metrics of a set were made by.

    Args:
        values: the set's metrics.
        final: the answers of the weights that are kept; None: of a family that can't say.
        evaluations: among how many the best was chosen by this set; 0: the set chose nothing.
        best: the metric that chose. candidates: the answers of these evaluations, where they are there.
        expected: the metrics of the one that was chosen, or `values`. Metrics that the candidates do
            not give as they were get no estimate.
        groups: as of `choice.cross_fitted`.
    """
    tuned = () if final is None else final.tuned if evaluations else final.swept
    some = [metric for metric in values if metric in tuned]
    others = [metric for metric in values if metric not in tuned] if evaluations > 1 else []
    if not some and not others:
        return []
    parts = 0 if final is None else max(final.parts, 2)
    apparent: dict[str, float] = {}
    held: dict[str, float] = {}
    among = [each for each in (candidates if evaluations > 1 else [final]) if each is not None]
    if final is not None and len(among) == max(evaluations, 1):
        apparent, held = choice.cross_fitted(among, best, groups)
    agreeing = {
        metric: apparent[metric] - held[metric]
        for metric, value in expected.items()
        if metric in held and value is not None and abs(apparent[metric] - value) < AGREES
    }

    def of(metrics: Sequence[str], what: str) -> Choice:
        lean = {metric: agreeing[metric] for metric in metrics if metric in agreeing}
        kept = {metric: values[metric] - lean[metric] for metric in lean}
        return Choice(name, list(metrics), max(evaluations, 1), what, lean, kept, parts if lean else 0)

    both = [of(others, "")] if others else []
    return [*both, of(some, "" if final is None else final.what)] if some else both


def of_folds(runs: Sequence[Choices], values: Mapping[str, float]) -> list[Choice]:
    """The choices of a cross-validation: those of its folds, with the mean of what they lean by."""
    merged = []
    for first in runs[0].made:
        same = [each for run in runs if (each := run.of(first.set, first.metrics[0])) is not None]
        leans = {
            metric: [value for each in same if (value := each.lean.get(metric)) is not None]
            for metric in first.metrics
            if metric in values
        }
        lean = {metric: float(np.mean(some)) for metric, some in leans.items() if len(some) == len(runs)}
        counts = {each.evaluations for each in same}
        merged.append(
            Choice(
                first.set,
                [metric for metric in first.metrics if metric in values],
                counts.pop() if len(counts) == 1 else 0,
                first.tuned,
                lean,
                {metric: values[metric] - lean[metric] for metric in lean},
                first.parts,
                len(runs),
            )
        )
    return merged
