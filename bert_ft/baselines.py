"""Baselines of a run: simple methods learn from its training rows and are scored on its sets as it is."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pac

from bert_ft.config.task import Task
from bert_ft.data import splitting
from bert_ft.data.columns import flat
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families.base import FROZEN, Adapter, Embed, NotMeasured
from bert_ft.metrics import LOWER_IS_BETTER

LIMIT = 20_000  # training rows that a baseline learns from, at most, drawn by the run's seed;
CHARACTERS = 4_000_000  # and so many characters, of texts as long as their mean
FORWARDED = 3_200  # training rows that the checkpoint makes vectors of, at most


@dataclass(frozen=True)
class Baselines:
    """What they reached.

    Attributes:
        scores: baseline -> set -> metric -> value.
        rows: training rows that they learned from.
    """

    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    rows: int = 0

    def dumped(self) -> dict[str, Any]:
        """The same as `results.json` holds it."""
        return {"baselines": self.scores, "baseline_rows": self.rows} if self.scores else {}

    def on(self, part: str, metric: str) -> dict[str, float]:
        """Baseline -> what it reaches on a set, of those that reach anything."""
        values = {name: sets.get(part, {}).get(metric, math.nan) for name, sets in self.scores.items()}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def line(self, part: str, metric: str) -> str:
        """What they reach on a set; empty where there are none."""
        known = {name: sets[part].get(metric) for name, sets in self.scores.items() if part in sets}
        values = ", ".join(
            f"{name} undefined" if value is None or not math.isfinite(value) else f"{name} {value:.4f}"
            for name, value in known.items()
        )
        return f"baselines fitted to {self.rows:,} training rows: {part} {metric} {values}" if values else ""

    def unbeaten(self, part: str, metric: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
        """Says that one of them is as good as a run with these metrics on a set; empty where none is."""
        found = self.on(part, metric)
        reached = metrics.get(part, {}).get(metric, math.nan)
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = max(found, key=lambda name: sign * found[name], default=None)
        if best is None or not sign * reached <= sign * found[best]:
            return ""
        return (
            f"this run does not beat its baseline: {part} {metric} is {reached:.4f}, and {found[best]:.4f} "
            f"with {best} alone"
        )


def measure(adapter: Adapter, train: Rows, scored: Mapping[str, Rows]) -> Baselines:
    """Fits the baselines of a family to rows and scores them on every set that has labels."""
    adapter = adapter.rebound(adapter.task)
    known = vars(type(adapter)).get("baselines", {})
    # an encoder as it is takes a forward of every row: much, where the training takes little
    few = len(train) <= FORWARDED and adapter.task.recipe.method != "features"
    train = _drawn(adapter, train)
    sets = {name: rows for name, rows in scored.items() if _labelled(rows, adapter)}
    names = sorted(sets, key=lambda name: name != adapter.task.best_metric[0])  # thresholds are tuned on it
    embed = _embedder(adapter.task)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for kind, fit in known.items():
        if kind == FROZEN and not few:
            continue
        answers = fit(adapter, train, [sets[name] for name in names], embed)
        found: dict[str, dict[str, float]] = {}
        with suppress(NotMeasured):
            for name, predictions in zip(names, answers, strict=True):
                if not found:
                    adapter.tune(predictions, sets[name])
                found[name] = adapter.score(predictions, sets[name])
        if found:
            scores[kind] = found
    return Baselines(scores, len(train))


def _labelled(rows: Rows, adapter: Adapter) -> bool:
    return len(rows) > 0 and not rows.table[adapter.target].null_count


def _embedder(task: Task) -> Embed:
    """The vectors of texts by the task's checkpoint, which is loaded where they are asked for."""

    @functools.cache
    def load() -> Any:
        from bert_ft.modeling.vectors.embedder import Embedder

        try:
            return Embedder.load(
                str(task.run.checkpoint), revision=task.run.revision, batch_tokens=task.batching.eval_tokens
            )
        except InputError as error:
            raise NotMeasured from error

    return lambda texts: load().vectors(texts).vectors


def _drawn(adapter: Adapter, train: Rows) -> Rows:
    """So many of the training rows that a baseline takes some seconds."""
    some = splitting.limit(train, LIMIT, adapter.task.run.seed)
    columns = [flat(some.table[role])[0] for role in adapter.texts if role in some.table.column_names]
    characters = sum(pac.sum(pac.utf8_length(column)).as_py() or 0 for column in columns)
    share = min(1.0, CHARACTERS / max(characters, 1))
    return splitting.limit(some, math.ceil(share * len(some)), adapter.task.run.seed)
