"""What a run's folder says of its exported graphs, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bert_ft.report.elements import Table

SHAPE: dict[str, Any] = {"torch": {}, "onnx": {"fp32": {}}, "versions": {"torch": "1"}}
"""What `parity.json` holds, as `reading.fits` takes it."""


def table(parity: Mapping[str, Any], metric: str) -> Table:
    """A line for torch and one for each graph; `metric`: the one that is shown of each."""
    lines = {"torch": parity["torch"], **{f"ONNX, {name}": one for name, one in parity["onnx"].items()}}
    rows = []
    for name, line in lines.items():
        size = line.get("bytes")
        rows.append([
            name,
            line.get("metrics", {}).get(metric),
            line.get("largest_logit_difference"),
            line.get("rows_with_another_answer"),
            size / 1e6 if isinstance(size, (int, float)) else None,
            line.get("cpu_seconds"),
        ])  # fmt: skip
    columns = ["", metric, "largest difference of a logit", "rows with another answer", "MB", "CPU seconds"]
    versions = ", ".join(f"{name} {number}" for name, number in parity["versions"].items())
    note = f"{parity.get('rows')} rows of {parity.get('set')}; opset {parity.get('opset')}; {versions}"
    return Table("exported, beside the model", columns, rows, note)
