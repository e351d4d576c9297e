"""What 8 bits cost a run: its metric, its answers and its speed beside float32, on its validation rows."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from bert_ft import files, reading
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.modeling import weights
from bert_ft.run import Run
from bert_ft.tools.export import parity

ROWS = 1000  # at most, evenly spread over the set
TIMED = 0.5  # CPU seconds of float32 below which a ratio is noise
LONGEST = 1_000_000  # bytes of the file
KEY: dict[str, Any] = {"weights": "0", "set": "0", "rows": 1, "of": 1, "metric": "0"}
SHAPE: dict[str, Any] = KEY | {"float32": {}, "int8": {}}
UNKNOWN = "int8: what it costs is not known here; `bert-ft evaluate` with and without --int8 tells it"


def line(loaded: Any) -> str:
    """One line for people: what answering in 8 bits costs the model that `bert_ft.load` gave. A finished run
    is measured once for its weights; the result stays in its folder as `int8.json`, if it can be written."""
    if not isinstance(loaded, Run) or loaded.dir.state != "finished":
        return UNKNOWN
    known = _known(loaded)
    if known is None:
        known = measured(loaded)
        if known is not None and files.first_process():
            with suppress(OSError):  # the run may be anybody's, on a disk that can only be read
                files.write_json(loaded.dir.int8_json, known)
    return UNKNOWN if known is None else _told(known)


def measured(run: Run) -> dict[str, Any] | None:
    """Both models on the same validation rows; None where the run keeps none.

    Raises:
        InputError: the model can't be loaded, or not in 8 bits.
    """
    name, metric = run.task.best_metric
    try:
        table = run.scored(name).rows
    except InputError:  # a run without predictions, or of folds
        return None
    if table is None or not len(table):
        return None
    chosen = np.unique(np.linspace(0, len(table) - 1, min(ROWS, len(table))).round().astype(np.int64))
    rows = Rows(table.take(chosen), f"{run.path}, {name}")
    plain = Run(run.path, trust_remote_code=run._trusted)
    plain.task = run.task.override({"recipe.precision": "fp32"})
    expected = parity.answer(plain.model, rows, None)
    found = parity.answer(run.model, rows, None).beside(expected)
    return {
        "weights": weights.digest(run.dir.model),
        "set": name,
        "rows": len(rows),
        "of": len(table),
        "metric": metric,
        "float32": {"metrics": expected.metrics, "cpu_seconds": round(expected.seconds, 3)},
        "int8": found,
    }


def _known(run: Run) -> dict[str, Any] | None:
    """What `int8.json` says, if it is of these weights."""
    if not run.dir.int8_json.is_file():
        return None
    try:
        value = reading.strict(reading.text(run.dir.int8_json, LONGEST))
    except (ValueError, InputError):
        return None
    fits = isinstance(value, dict) and all(
        reading.fits(value.get(key), shape) for key, shape in SHAPE.items()
    )
    return value if fits and value["weights"] == weights.digest(run.dir.model) else None


def _told(known: dict[str, Any]) -> str:
    name, metric = known["set"], known["metric"]
    before, after = (known[which].get("metrics", {}).get(metric) for which in ("float32", "int8"))
    parts = [
        f"{metric} {after:.4f} where float32 has {before:.4f}"
        if isinstance(before, float) and isinstance(after, float)
        else f"largest difference of a logit {known['int8'].get('largest_logit_difference')}"
    ]
    others = known["int8"].get("rows_with_another_answer")
    if isinstance(others, int):
        parts.append(f"{others:,} answers are others")
    seconds = known["float32"].get("cpu_seconds"), known["int8"].get("cpu_seconds")
    if all(isinstance(one, float) and one > 0 for one in seconds) and seconds[0] > TIMED:
        parts.append(f"{seconds[0] / seconds[1]:.1f} times as fast")
    rows = f"{known['rows']:,}" + (f" of {known['of']:,}" if known["of"] != known["rows"] else "")
    return f"int8, {rows} rows of {name}: {', '.join(parts)}"
