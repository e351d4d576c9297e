"""Numbers that were chosen on the rows they are of: how far they lean, and what is shown in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from cells import Rate, Simulated
from scipy.stats import norm

from bert_ft.metrics import bootstrap, choice, multilabel, scoring, significance, squad
from bert_ft.metrics.choice import Candidate
from bert_ft.report.choices import Choices, chosen

TITLE = "Numbers that were chosen on the rows they are of"
COLUMNS = (
    "rows",
    "number",
    "draws",
    "leans",
    "lean as estimated",
    "held out less the truth",
    "spread of that",
    "shown interval",
)
POPULATION = 40_000
LABELS = 28


@dataclass
class Draw:
    """A set of rows: the answers of its evaluations, and metric -> the value that the chosen one has on new rows."""

    candidates: Sequence[Candidate]
    truth: Callable[[], dict[str, float]]


def simulate(scale: float) -> list[Simulated]:
    """The tables, at a share of the draws."""
    return [_evaluations(scale), _thresholds(scale), _no_answer(scale), _chances(scale)]


def _cell(
    make: Callable[[np.random.Generator], Draw],
    rows: int,
    metrics: Sequence[str],
    draws: int,
    best: str,
    points: float = 100.0,
) -> list[list[object]]:
    """A row of the table for each metric, of `draws` sets."""
    rng = np.random.default_rng(rows)
    found: dict[str, list[tuple[float, float, float, float]]] = {metric: [] for metric in metrics}
    for _ in range(draws):
        draw = make(rng)
        many = len(draw.candidates)
        apparent = choice.scores(draw.candidates[0], _best(draw.candidates, best))
        made = Choices(
            chosen("validation", apparent, draw.candidates[0], many, best, draw.candidates, apparent, None),
            {"validation": apparent}, ("validation", best),
        )  # fmt: skip
        intervals = _intervals(draw.candidates, best)
        fresh = draw.truth()
        for metric in metrics:
            record = made.of("validation", metric)
            assert record is not None
            ends = intervals.get(metric)
            shown = None if ends is None else made.interval("validation", metric, ends)
            inside = np.nan if shown is None else float(shown[0] <= fresh[metric] <= shown[1])
            found[metric].append((apparent[metric], record.held_out[metric] or 0.0, fresh[metric], inside))
    lines = []
    for metric, values in found.items():
        value, held, fresh_, inside = np.array(values).T
        off = points * (held - fresh_)
        lines.append([
            f"{rows:,}", metric, draws, f"{points * (value - fresh_).mean():+.2f}", f"{points * (value - held).mean():+.2f}",
            _off(float(off.mean()), float(2 * off.std() / draws**0.5), float(points * (value - fresh_).mean())), f"{off.std():.2f}",
            Rate(100 * inside.mean(), draws, 93, 97),
        ])  # fmt: skip
    return lines


def _off(bias: float, error: float, lean: float) -> str:
    """What the held-out value is off by; bold where that is more than a third of the lean."""
    text = f"{bias:+.2f} ± {error:.2f}"
    return f"**{text}**" if abs(bias) - error > abs(lean) / 3 else text


def _best(candidates: Sequence[Candidate], best: str) -> np.ndarray:
    """The keys of the candidate that all rows choose."""
    keys = choice.best_keys(candidates, best, np.ones(candidates[0].size, bool))
    assert keys is not None
    return keys


def _intervals(candidates: Sequence[Candidate], best: str) -> dict[str, tuple[float, float]]:
    """Those of the rows, as a report has them."""
    keys = _best(candidates, best)
    if keys.shape[1] > 20:  # of sets of labels none is shown
        return {}
    every = bootstrap.Resamples(keys, candidates[0].scoring).intervals()
    return {metric: (ends[0], ends[1]) for metric, ends in every.items() if not isinstance(ends, str)}


# --- the best of several evaluations


def _evaluations(scale: float) -> Simulated:
    table = Simulated(
        "The best of ten evaluations",
        "Accuracy; a row is hard or easy for all evaluations alike (correlation 0.8 of what decides it), one in ten or so "
        "changes from one to the next. *equal*: all are right in 85 %; *rising*: 79 % at first. `leans`: the shown number "
        "less the truth of the chosen evaluation, in points. *Shown interval*: that "
        "of the rows, moved to the held-out value; its rate is how often it holds the truth.",
        COLUMNS,
    )  # fmt: skip
    for rising in (False, True):
        for rows in (100, 277, 408, 1000):
            truths = 0.85 - (0.06 * np.exp(-np.arange(10) / 1.5) if rising else np.zeros(10))

            def make(rng: np.random.Generator, rows: int = rows, truths: np.ndarray = truths) -> Draw:
                hard = np.sqrt(0.8) * rng.normal(size=(rows, 1)) + np.sqrt(0.2) * rng.normal(size=(rows, 10))
                right = (hard < norm.ppf(truths)).astype(int)
                best = int(right.mean(0).argmax())
                means = scoring.Means(["accuracy"])
                return Draw(
                    [choice.answers(column[:, None], means) for column in right.T],
                    lambda: {"accuracy": truths[best]},
                )

            lines = _cell(make, rows, ["accuracy"], max(10, int(100 * scale)), "accuracy")
            table.rows += [[line[0], f"{'rising' if rising else 'equal'}", *line[2:]] for line in lines]
    return table


# --- thresholds


def _label_sets(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) gold and probabilities of 28 labels, from one row in four to one in 500."""
    share = np.geomspace(0.25, 0.002, LABELS)
    gold = rng.random((rows, LABELS)) < share
    apart = np.linspace(1, 2, LABELS)[np.random.default_rng(0).permutation(LABELS)]
    z = np.log(share / (1 - share)) * 0.8 + rng.normal(size=gold.shape) + gold * apart
    return gold, 1 / (1 + np.exp(-z))


def _thresholds(scale: float) -> Simulated:
    table = Simulated(
        "Thresholds of 28 labels",
        "From one row in four to one in 500 have a label. No interval is shown: around the held-out value one of the rows "
        "would hold the truth in 80 to 98 % (macro and micro F1, 200 and 1,000 rows), around the tuned value in 2 to 20 %.",
        COLUMNS,
    )  # fmt: skip
    new_gold, new_p = _label_sets(np.random.default_rng(99), POPULATION)
    for per_label in (True, False):
        for rows, draws in ((200, 40), (1000, 20), (5000, 4)):

            def make(rng: np.random.Generator, rows: int = rows, per_label: bool = per_label) -> Draw:
                gold, p = _label_sets(rng, rows)
                width = LABELS if per_label else 1
                best = np.resize(
                    multilabel.best_thresholds(p.reshape(-1, width), gold.reshape(-1, width)), LABELS
                )

                def truth() -> dict[str, float]:
                    found = multilabel.compute(["f1_macro", "f1_micro"], new_p > best, new_gold)
                    return {f"{name}_tuned": value for name, value in found.items()}

                return Draw([choice.label_sets(gold, p, per_label)], truth)

            metrics = ["f1_macro_tuned", "f1_micro_tuned"] if per_label else ["f1_micro_tuned"]
            for line in _cell(make, rows, metrics, max(4, int(draws * scale)), "f1_micro"):
                what = "one each" if per_label else "one for all"
                table.rows.append([line[0], f"{line[1]}, {what}", *line[2:]])
    return table


def _answers(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Null odds, whether there is an answer, and the F1 of the best span."""
    has = rng.random(rows) < 0.5
    odds = np.where(has, -1.5, 1.5) + 2.2 * rng.normal(size=rows)
    f1 = np.where(rng.random(rows) < 0.72, 1.0, rng.beta(0.6, 1.2, rows))
    return odds, has, np.where(has, f1, 0.0)


def _no_answer(scale: float) -> Simulated:
    table = Simulated(
        "The threshold of no answer",
        "Half of the questions have no answer, as in SQuAD 2.0; `best_f1` is what squad_v2 shows by default. The shown "
        "interval is that of the rows, moved to the held-out value and widened to the root of the sum of squares of it and the lean.",
        COLUMNS,
    )  # fmt: skip
    odds, has, f1 = _answers(np.random.default_rng(98), 10 * POPULATION)
    for rows, draws in ((67, 300), (200, 250), (1000, 120), (11_873, 12)):

        def make(rng: np.random.Generator, rows: int = rows) -> Draw:
            own_odds, own_has, own_f1 = _answers(rng, rows)
            every = np.ones(rows, bool)
            best = squad.null_threshold(own_f1, own_has, every, own_odds)
            raw = {"f1": own_f1, "exact": (own_f1 == 1).astype(float)}

            def truth() -> dict[str, float]:
                return {"best_f1": 100 * float(np.where(odds > best, ~has, f1).mean())}

            return Draw([choice.null_threshold(raw, own_has, every, own_odds, "f1")], truth)

        table.rows += _cell(make, rows, ["best_f1"], max(5, int(draws * scale)), "best_f1", 1.0)
    return table


# --- two runs with unequal chances


def _chances(scale: float) -> Simulated:
    draws = max(50, int(1000 * scale))
    table = Simulated(
        "compare: one side had more chances",
        "Two runs of equal truth, 85 % right; the best of ten evaluations against a single one, and against the best of ten. "
        "McNemar's exact test, p < 0.05. Only told: `compare` says that the chances are unequal, and names the remedy; on a "
        "set that chose nothing the rate is that of a test.",
        ["rows", "10 against 1", "of these for the 10", "10 against 10", "10 against 1, on a test set"],
    )  # fmt: skip
    limit = norm.ppf(0.85)
    for rows in (277, 1000):
        rng = np.random.default_rng(rows)
        counts = np.zeros(4)
        for _ in range(draws):
            hard = np.sqrt(0.8) * rng.normal(size=(rows, 1))
            a, b = (hard + np.sqrt(0.2) * rng.normal(size=(rows, 10)) < limit for _ in range(2))
            best, other = a[:, a.mean(0).argmax()], b[:, b.mean(0).argmax()]
            significant = significance.mcnemar(b[:, 0], best) < 0.05
            fresh = (
                np.sqrt(0.8) * rng.normal(size=(rows, 1)) + np.sqrt(0.2) * rng.normal(size=(rows, 2)) < limit
            )
            counts += [
                significant,
                significant and best.mean() > b[:, 0].mean(),
                significance.mcnemar(other, best) < 0.05,
                significance.mcnemar(fresh[:, 0], fresh[:, 1]) < 0.05,
            ]
        shares = 100 * counts / draws
        table.rows.append([
            f"{rows:,}", Rate(shares[0], draws), Rate(shares[1], draws), Rate(shares[2], draws), Rate(shares[3], draws, high=6.0),
        ])  # fmt: skip
    return table
