"""What a curve's runs come to: the scores, the law through them, and the sentences that it allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bert_ft import families
from bert_ft.config.task import Task
from bert_ft.jobs.base import Job
from bert_ft.metrics import LOWER_IS_BETTER, METRIC_NAMES, learning_curve
from bert_ft.metrics.learning_curve import LearningCurve
from bert_ft.rundir import environment
from bert_ft.tools.curve.sizes import Size

MISFIT = 0.005  # p below which the scores do not follow the law
HOLDS = (
    "A 95 % interval, for the mean over all seeds by this recipe on this very {part} set, if the scores go "
    "on by the law. The band of the chart holds the whole true curve with 95 %, up to twice the rows."
)
SPARSE = "three sizes fit any such law, so that a fourth would test it"


@dataclass(frozen=True)
class Point:
    """One run of the curve."""

    size: Size
    seed: int
    job: Job


def results_of(task: Task, points: Sequence[Point], total: int) -> dict[str, Any]:
    """The content of `results.json`. All runs are finished; scores have the scale of the runs' own.

    Args:
        total: the number of all training rows.
    """
    part, metric = task.best_metric
    rows = [
        {
            "rows": point.size.rows,
            "share": point.size.rows / total,
            "seed": point.seed,
            "value": point.job.folder.results()["metrics"][part][metric],
            "seconds": point.job.folder.log()[-1].get("seconds"),
            "run": point.job.name,
        }
        for point in points
    ]
    sizes = list(dict.fromkeys(row["rows"] for row in rows))
    scores = np.array([[row["value"] for row in rows if row["rows"] == size] for size in sizes], float)
    falling = metric in LOWER_IS_BETTER
    reason = learning_curve.unfit(np.array(sizes), scores.T)
    law = None
    if not reason:
        law = learning_curve.fitted(np.array(sizes), scores.T, _best(task, metric), falling=falling)
    unit = 1.0 if falling else 100 / families.known(task.family).metric_scale
    return {
        "task": task.name,
        "family": task.family,
        "checkpoint": task.run.checkpoint,
        "metric": f"{part}/{metric}",
        "direction": "minimize" if falling else "maximize",
        "points_per_unit": unit,
        "train_rows": total,
        "seeds": list(dict.fromkeys(row["seed"] for row in rows)),
        "sizes": [
            {
                "rows": size,
                "share": size / total,
                "seeds": len(values),
                "mean": values.mean(),
                "spread": values.std(ddof=1),
            }
            for size, values in zip(sizes, scores, strict=True)
        ],
        "points": rows,
        "law": None if law is None else _dump(law),
        "statement": _statement(law, reason, sizes, metric, part, unit),
        "version": environment.version("bert-ft"),
    }


def _best(task: Task, metric: str) -> float | None:
    """The value of a perfect score; None of a metric of the user's own, which may have another."""
    if metric in LOWER_IS_BETTER:
        return 0.0
    return float(families.known(task.family).metric_scale) if metric in METRIC_NAMES else None


def _dump(law: LearningCurve) -> dict[str, Any]:
    """The law as JSON has it; the band as a list of points."""
    tree = asdict(law)
    lines = [tree.pop(name).tolist() for name in ("rows", "fit", "low", "high")]
    names = ("rows", "fit", "low", "high")
    band = [dict(zip(names, point, strict=True)) for point in zip(*lines, strict=True)]
    return {"formula": formula(law.exponent), "level": learning_curve.LEVEL, **tree, "band": band}


def formula(exponent: float) -> str:
    """The law in words."""
    return f"score = a - b * rows^-{exponent:.3g}" if exponent else "score = a + b * log(rows)"


def _statement(
    law: LearningCurve | None, reason: str, sizes: Sequence[int], metric: str, part: str, unit: float
) -> list[str]:
    """What the scores say of twice the rows, or why they say nothing."""
    if law is None:
        return [f"No law is fitted: {reason}."]
    if law.misfit is not None and law.misfit < MISFIT:
        return [
            f"The scores do not follow a power law (p {_p(law.misfit)}), so that nothing is said of more "
            "rows. Often the smallest parts are too small to learn from: leave them out."
        ]
    most = sizes[-1]
    digits = 1 if unit != 1 or max(abs(law.gain_low), abs(law.gain_high)) >= 10 else 4
    # what is said follows from the numbers that are read; + 0.0 is for one that rounds to -0.0
    gain, low, high = (round(unit * value, digits) + 0.0 for value in (law.gain, law.gain_low, law.gain_high))
    name = f"points of {metric}" if unit != 1 else metric
    said = (
        f"Twice the rows ({2 * most:,} in place of {most:,}): about {gain:+.{digits}f} {name}, between "
        f"{low:+.{digits}f} and {high:+.{digits}f}"
    )
    better = -1 if metric in LOWER_IS_BETTER else 1
    if low <= 0 <= high:
        said += "; the scores do not say whether more rows help"
    elif better * gain < 0:
        said += "; more rows make it worse"
    if law.misfit is None:
        said += f"; {SPARSE}"
    return [f"{said}.", HOLDS.format(part=part)]


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.002 else "below 0.002"
