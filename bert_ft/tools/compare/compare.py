"""`bert-ft compare`: runs, or groups of seeds, on the same rows: what differs, how surely, and which rows
flip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import comb, nan
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import families, files
from bert_ft.data.checks.findings import excerpt
from bert_ft.data.rows import PLACES
from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics import LOWER_IS_BETTER, distributions, significance
from bert_ft.metrics.bootstrap import Groups, percentiles
from bert_ft.report.scored_set import Scored, consistent
from bert_ft.run import Run
from bert_ft.tools.compare import chances
from bert_ft.tools.compare.given import Predictions
from bert_ft.tools.compare.result import ROWS, SEEDS, Comparison, Difference, Flips, Group

Given = str | Path | Run
"""A run, its folder, or a file of another model's predictions."""
Answered = Run | Predictions


OF_SHARES = "measured against distributions over labels, and rows are compared by their labels"
NOT_THERE = "undefined in a run, or not to be had from its predictions"
"""Why a metric of a run is not compared."""


class _Side:
    """A group as it is compared: its scored sets, and what each has wrong, (runs, N): 1 or the size of the
    error."""

    def __init__(self, name: str, runs: Sequence[Answered], sets: Sequence[Scored]) -> None:
        self.runs, self.sets = runs, sets
        self.group = Group(name, [str(run.path) for run in runs], _seeds(runs))
        self.resamples = [one.resamples for one in sets if one.resamples is not None]
        self.whole = [one.of() for one in self.resamples]
        self.errors: list[dict[int, dict[str, Any]]] = []
        for one in sets:
            with consistent(one.folder.path):
                self.errors.append({line["row"]: line for line in one.errors()})
        self.wrong = np.zeros((len(sets), len(sets[0].lines)))
        for row, found in zip(self.wrong, self.errors, strict=True):
            row[list(found)] = [abs(line.get("error", 1)) for line in found.values()]

    def said(self, row: int) -> list[Any]:
        """What each run says of a row; of entities, what it missed and made up."""
        keys = self.sets[0].answers
        lines = [found.get(row) for found in self.errors]
        return ["right" if line is None else _answer(line, keys) for line in lines]


def _answer(line: dict[str, Any], keys: Sequence[str]) -> Any:
    """What an error's line says that the model gave."""
    return line[keys[0]] if len(keys) == 1 else {key: line[key] for key in keys}


def compare(
    *groups: Given | Sequence[Given],
    split: str | None = None,
    metrics: Sequence[str] = (),
    draws: int = significance.DRAWS,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> Comparison:
    """Compares every group of runs with the first one, on the rows of one scored set. A file of another
    model's predictions for these rows stands in the place of a run (`compare.given.Predictions` says what it
    holds).

    Two runs: the rows are resampled in pairs; McNemar's exact test where the metric is the share of right
    rows, otherwise approximate randomisation. Rows that hang together (of a document, a context, or of equal
    `data.group`) are resampled and swapped as whole groups. Groups of seeds: rows and seeds are resampled;
    Welch's interval and a permutation test over the seeds. Holm's correction where there are several groups
    to compare. `metrics/significance.py` has the sources.

    Args:
        groups: runs, or lists of runs that count as one. Of single runs those that differ in the seed alone
            count as one, unless that leaves but one group.
        split: a scored set; that which picks the best step by default.
        metrics: some of the set's; all by default.
        draws: resamples, and arrangements of a test that can't take them all; `seed` is theirs.
        columns: role (prediction, probabilities, row, id) -> column of the files.
    Raises:
        InputError: nothing to compare; runs without the set, or of other rows, labels or ways to count.
    """
    divided, notes = _divided(groups, columns)
    first = _first(divided).scored(split)
    loaded = [
        [run.scored(first.name) if isinstance(run, Run) else run.scored(first) for run in runs]
        for runs in divided
    ]
    notes += [note for runs in divided for run in runs if not isinstance(run, Run) for note in run.notes]
    for one in (one for sets in loaded for one in sets):
        with consistent(one.folder.path):
            _same(first, one)
    sides = [
        _Side(chr(ord("A") + i), runs, sets)
        for i, (runs, sets) in enumerate(zip(divided, loaded, strict=True))
    ]
    clusters = _share_groups(sides)
    names = _metrics(sides, metrics, notes)
    trained = {side.group.name: [run for run in side.runs if isinstance(run, Run)] for side in sides}
    notes += chances.notes({name: runs for name, runs in trained.items() if runs}, first.name, names)
    if files_of := [side.group.name for side in sides if not side.group.seeds]:
        told = "is a file" if len(files_of) == 1 else "are files"
        notes.append(f"{', '.join(files_of)} {told}: what of it was chosen on these rows is not known here")
    differences: list[Difference] = []
    for side in sides[1:]:
        differences += _differences(sides[0], side, names, draws, seed)
        if isinstance(side.runs[0], Run):
            side.group.differs = files.difference(_made_from(sides[0].runs[0]), _made_from(side.runs[0]))
        notes += _of_seeds(sides[0], side)
    if len(sides) > 2:
        notes.append(
            f"Holm's p is corrected for the {len(sides) - 1} groups that are compared with A, one metric at "
            "a time: not for the number of metrics"
        )
        for name in names:
            of_it = [d for d in differences if d.metric == name]
            for d, p in zip(of_it, significance.holm([d.p for d in of_it]), strict=True):
                d.p_holm = p
    if first.independence and clusters is None:
        notes.append(first.independence)
    flips = [_flips(sides[0], side) for side in sides[1:]]
    return Comparison(
        first.name,
        len(first.lines),
        [side.group for side in sides],
        differences,
        flips,
        list(dict.fromkeys(notes)),
        str(clusters or f"{len(first.lines):,} rows"),
    )


def _share_groups(sides: Sequence[_Side]) -> Groups | None:
    """Gives all sets the same groups of rows, the largest that any of them knows: runs of an earlier version
    keep fewer columns."""
    known = [one.clusters for side in sides for one in side.sets if one.clusters is not None]
    groups = min(known, key=lambda found: found.number, default=None)
    for side in sides:
        for resamples in side.resamples:
            resamples.groups = groups
    return groups


def _of_seeds(a: _Side, b: _Side) -> list[str]:
    """What should be known of how many seeds two groups have."""
    sizes = len(a.runs), len(b.runs)
    if sum(sizes) == 2:
        return [
            f"of one run each ({a.group.name}, {b.group.name}), intervals and p are about these models: what "
            "another seed would change is not in them"
        ]
    notes = []
    if 1 in sizes:
        single, several = (a, b) if sizes[0] == 1 else (b, a)
        notes.append(
            f"{single.group.name} is one {'run' if single.group.seeds else 'file'}: what another seed of it "
            "would change is not measured; the interval takes its seeds to vary as those of "
            f"{several.group.name} do"
        )
    least = (1 + (sizes[0] == sizes[1])) / comb(sum(sizes), sizes[0])
    if least > 0.05:
        notes.append(f"{sizes[0]} against {sizes[1]} seeds: a permutation test gives no p below {least:.2g}")
    return notes


def _first(divided: Sequence[Sequence[Answered]]) -> Run:
    """What the others are compared with. Raises InputError: a file, which does not say how it is scored."""
    first = divided[0][0]
    if not isinstance(first, Run):
        remedy = "name a run first: bert-ft compare RUN FILE"
        raise InputError(
            "a file of predictions does not say how it is scored", where=str(first.path), remedy=remedy
        )
    return first


def _seeds(runs: Sequence[Answered]) -> list[int]:
    return [run.task.run.seed for run in runs if isinstance(run, Run)]


def _divided(
    groups: Sequence[Given | Sequence[Given]], columns: Mapping[str, str] | None
) -> tuple[list[list[Answered]], list[str]]:
    """The groups, and what should be known of them."""

    def opened(one: Given) -> Answered:
        if isinstance(one, Run):
            return one
        return Predictions(one, columns) if Path(one).is_file() else Run(one)

    lists = [[each] if isinstance(each, (str, Path, Run)) else list(each) for each in groups]
    divided = [[opened(one) for one in each] for each in lists]
    notes = []
    if all(isinstance(each, (str, Path, Run)) for each in groups):
        recipes: dict[str, list[Answered]] = {}
        for (run,) in divided:
            recipes.setdefault(json.dumps(_made_from(run), sort_keys=True), []).append(run)
        if len(recipes) > 1:
            divided = list(recipes.values())
        elif len(divided) > 1:
            notes.append(
                "the runs differ in the seed at most: each stands for itself (A1 A2 vs B1 B2 makes groups)"
            )
    if len(divided) < 2 or not all(divided):
        raise InputError(
            "two runs or groups are wanted to compare",
            where=f"{len(divided)} given",
            remedy="bert-ft compare RUN RUN, RUN FILE, or RUN RUN ... vs RUN RUN ...",
        )
    for runs in divided:
        if len(set(seeds := _seeds(runs))) < len(seeds):
            notes.append(
                f"{runs[0].path} and its group have a seed twice: equal runs tell too little of the spread"
            )
    return divided, notes


def _made_from(run: Answered) -> dict[str, Any]:
    """What makes two runs more than two seeds of the same."""
    if not isinstance(run, Run):
        return {"file": str(run.path)}
    return run.task.model_dump(
        exclude={"title": True, "reference": True, "run": {"seed", "data_dir", "trust_remote_code"}}
    )


def _same(first: Scored, other: Scored) -> None:
    """Refuses a set that is not the first one's rows, counted in the first one's way; binds its labels in the
    same order."""
    where, remedy = (
        f"{other.folder.path}, {other.name}",
        f"it must be the set that {first.folder.path} was scored on",
    )
    if changes := files.difference(_way(first), _way(other)):
        raise InputError("it is scored in another way:", details=changes, where=where, remedy=remedy)
    data = other.task.data.model_copy(update={"labels": first.task.data.labels})
    other.task = other.task.model_copy(update={"data": data})
    if other.resamples is None:
        raise InputError(
            "its rows can't be scored again: they are not kept, or of a family of your own", where=where
        )
    if len(first.lines) != len(other.lines):
        raise InputError(f"{len(other.lines):,} rows, not {len(first.lines):,}", where=where, remedy=remedy)
    here, there = _told(first), _told(other)
    for key in here.keys() & there.keys():
        if here[key] != there[key]:
            row = next(i for i, (a, b) in enumerate(zip(here[key], there[key], strict=True)) if a != b)
            a, b = (excerpt(str(told[key][row]), most=60) for told in (here, there))
            raise InputError(f"row {row} has another '{key}': {b}, not {a}", where=where, remedy=remedy)


def _way(one: Scored) -> dict[str, Any]:
    """What the value of a metric depends on beside the rows and the predictions."""
    task = one.task
    return {
        "family": task.family,
        "metric": task.metric.model_dump(include={"mode", "positive"}),
        "data.problem_type": task.data.problem_type,
        **one.counted_by(),
    }


def _told(one: Scored) -> dict[str, list[Any]]:
    """What the rows of a set are known by."""
    rows = (
        {}
        if one.rows is None
        else {c: one.rows[c].to_pylist() for c in one.rows.column_names if c not in PLACES}
    )
    return rows | {key: one.column(key) for key in ("id", "tokens", "label") if key in one.lines[0]}


def _metrics(sides: Sequence[_Side], wanted: Sequence[str], notes: list[str]) -> list[str]:
    """The metrics that come out of every run's predictions as they stand in its results."""
    every = [pair for side in sides for pair in zip(side.sets, side.whole, strict=True)]

    def found(name: str) -> bool:
        values = [(whole.get(name, nan), one.metrics.get(name, whole.get(name))) for one, whole in every]
        return all(told is not None and abs(value - told) < 1e-6 for value, told in values)

    first = sides[0].sets[0]
    known = list(first.metrics or first.task.metric.compute)
    names = [name for name in known if found(name)]
    if strange := set(wanted) - set(names):
        name = min(strange)
        raise InputError(
            f"no metric '{name}' to compare"
            + (f": it is {OF_SHARES}" if name in distributions.NAMES else ""),
            where=first.name,
            remedy=did_you_mean(name, names) or f"it has {', '.join(names)}",
        )
    left = [name for name in known if name not in names]
    for reason, found_so in (
        (OF_SHARES, [name for name in left if name in distributions.NAMES]),
        (NOT_THERE, [name for name in left if name not in distributions.NAMES]),
    ):
        if found_so:
            notes.append(f"not compared: {', '.join(found_so)} ({reason})")
    return [name for name in names if not wanted or name in wanted]


def _differences(a: _Side, b: _Side, names: Sequence[str], draws: int, seed: int) -> list[Difference]:
    """The metrics of two groups."""
    single = len(a.sets) == len(b.sets) == 1
    scale = families.known(a.sets[0].task.family).metric_scale
    reasons = significance.unfit(a.resamples, b.resamples, names)
    drawn = (
        {} if len(reasons) == len(names) else significance.differences(a.resamples, b.resamples, draws, seed)
    )
    tested = _tests(a, b, names, draws, seed)
    out: list[Difference] = []
    for name in names:
        values = [[whole[name] for whole in side.whole] for side in (a, b)]
        x, y = (float(np.mean(side)) for side in values)
        top = 0 if name in LOWER_IS_BETTER else scale
        first, second = (significance.deviation(side) if len(side) > 1 else None for side in values)
        spread = bool(first or second) and None not in (first, second)
        p, test = tested[name]
        out.append(
            Difference(
                a.group.name,
                b.group.name,
                name,
                (x, y),
                (first, second),
                y - x,
                None if name in reasons else percentiles(drawn[name]),
                significance.welch(values[0], values[1]) if spread else None,
                1 - abs(top - y) / abs(top - x) if x != top else nan,
                significance.hedges(values[0], values[1]) if spread else None,
                p,
                test,
                ROWS if single else SEEDS,
                reasons.get(name, ""),
            )
        )
    return out


def _tests(a: _Side, b: _Side, names: Sequence[str], draws: int, seed: int) -> dict[str, tuple[float, str]]:
    """Metric -> (p, the test that gives it)."""
    if not len(a.sets) == len(b.sets) == 1:
        values = {name: [[whole[name] for whole in side.whole] for side in (a, b)] for name in names}
        test = "permutation of the seeds"
        return {
            name: (significance.permutation(sides[0], sides[1], draws, seed), test)
            for name, sides in values.items()
        }
    groups = a.resamples[0].groups
    share = "" if groups else a.sets[0].share_of_right
    tests: dict[str, tuple[float, str]] = {}
    if set(names) - {share}:
        swapped = significance.randomisation(a.resamples[0], b.resamples[0], draws, seed)
        test = f"approximate randomisation of the {groups or 'rows'}"
        tests = {name: (swapped[name], test) for name in names}
    if share in names:
        p = significance.mcnemar(a.wrong[0] == 0, b.wrong[0] == 0)
        tests[share] = p, "McNemar's exact test"
    return tests


def _flips(a: _Side, b: _Side) -> Flips:
    before, after = a.wrong.mean(axis=0), b.wrong.mean(axis=0)
    worse, better = (before < 0.5) & (after > 0.5), (before > 0.5) & (after < 0.5)
    words = Flips.words
    if a.sets[0].sized_errors:
        worse, better, words = after > before, after < before, ("larger error", "smaller error")
    order = np.argsort(-abs(after - before), kind="stable")

    inputs = dict.fromkeys(("row", "text", *a.sets[0].length[1], "label"))  # what no run changes

    def told(row: int) -> dict[str, Any]:
        line = next(found[row] for found in (*a.errors, *b.errors) if row in found)
        shared = {key: line[key] for key in inputs if key in line}
        return shared | {a.group.name: a.said(row), b.group.name: b.said(row)}

    lists = [[told(row) for row in order[which[order]].tolist()] for which in (worse, better)]
    return Flips(a.group.name, b.group.name, lists[0], lists[1], words)
