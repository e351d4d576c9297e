"""What a page shows of how well probabilities fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bert_ft.metrics.calibration import BINS
from bert_ft.metrics.label_calibration import METHODS
from bert_ft.report import plots
from bert_ft.report.elements import Chart, Table
from bert_ft.report.rendering import show

PICTURED = 10 * BINS  # rows: of fewer a bin is hardly more than chance
NAMES = {
    "nll": "negative log likelihood (nats)",
    "brier": "Brier score",
    "ece": "calibration error of the answers (ECE)",
    "by_chance": "the same, were every probability right",
    "classwise": "calibration error of every label",
}


def sections(results: Mapping[str, Any], name: str, fitted_on: str) -> list[Table | Chart]:
    """The measures of a set, before and after what calibrates, and the picture of its bins.

    Args:
        fitted_on: the set that it was fitted to.
    """
    found = results.get("calibration", {}).get(name, {})
    if not found:
        return []
    states = {key: found[key] for key in ("before", "after") if key in found}
    names = {key: label for key, label in NAMES.items() if found["before"][key] is not None}
    rows = [[label, *(state[key] for state in states.values())] for key, label in names.items()]
    interval = [f"{show(state['low'])} to {show(state['high'])}" for state in states.values()]
    rows.insert(3, ["its 95 % bootstrap interval", *interval])
    answers = found["before"]["classwise"] is None
    note = f"{BINS} bins of equally many {'answers, each with a score' if answers else 'rows'}"
    if "after" in states:
        what, changes = _method(results.get("tuned", {}))
        other = f"by {what}, of other rows (five folds)"
        note += f"; after: {other if name == fitted_on else f'by {what}, fitted on {fitted_on}'}. {changes}"
    table = Table("calibration", ["", *states], rows, note)
    if sum(n for _, _, n in found["before"]["bins"]) < PICTURED:
        return [table]
    lines = {key: ([x for x, _, _ in s["bins"]], [y for _, y, _ in s["bins"]]) for key, s in states.items()}
    told = "; ".join(
        f"{key}: " + ", ".join(f"{x:.2f} right {y:.2f}" for x, y in zip(*line, strict=True))
        for key, line in lines.items()
    )
    picture = plots.reliability(lines, f"probability of the answer and share that is right, {told}")
    return [table, Chart("reliability", picture, "on the dotted line a probability means what it says")]


def _method(tuned: Mapping[str, Any]) -> tuple[str, str]:
    """What a run calibrates by, and what that does to answers."""
    for method in METHODS:
        if method in tuned:
            changes = "It can change answers: they are those of the probabilities after it"
            return f"{method} a label", changes
        if method in tuned.get("scores", {}):
            return method, "It changes no answer"
    return "a temperature", "The temperature changes no answer"
