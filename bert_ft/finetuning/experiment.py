"""What a call brings beside its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bert_ft import families
from bert_ft.config.task import Task
from bert_ft.errors import InputError, did_you_mean


@dataclass
class Custom:
    """What a call brings that is not in the task: the user's own objects in place of ours, and what is kept
    and told."""

    adapter: type[families.Adapter] | None
    loss: Callable[[Any, Mapping[str, Any]], Any] | None
    metrics: Mapping[str, Any] | Sequence[Any]
    callbacks: Sequence[Any]
    model: Any
    tokenizer: Any
    log_with: Any
    save_every: int | str
    keep_checkpoints: bool
    save_model: bool
    signals: bool
    quiet: bool
    trust_remote_code: tuple[str, ...]

    def names(self) -> list[str]:
        """Which of them change what is trained: the run's task.toml alone can't repeat it."""
        given = {"adapter": self.adapter, "loss": self.loss, "metrics": self.metrics, "model": self.model}
        return [name for name, value in given.items() if value]

    def scorers(self) -> dict[str, Callable[[Any, Any], dict[str, float]]]:
        """Name -> function of (predictions, references) that gives metrics by name. A single one bears the
        name it was given, of several each its own."""

        def scorer(name: str, metric: Any) -> Callable[[Any, Any], dict[str, float]]:
            def score(predictions: Any, references: Any) -> dict[str, float]:
                compute = getattr(metric, "compute", None)
                value = (
                    metric(predictions, references)
                    if compute is None
                    else compute(predictions=predictions, references=references)
                )
                if not isinstance(value, Mapping) or (len(value) == 1 and isinstance(self.metrics, Mapping)):
                    value = {name: next(iter(value.values())) if isinstance(value, Mapping) else value}
                return {
                    key: float("nan") if number is None else float(number) for key, number in value.items()
                }

            return score

        given = (
            self.metrics
            if isinstance(self.metrics, Mapping)
            else {
                str(getattr(metric, "name", getattr(metric, "__name__", "custom"))): metric
                for metric in self.metrics
            }
        )
        return {name: scorer(name, metric) for name, metric in given.items()}


def check_best(task: Task, custom: Custom) -> None:
    """Refuses a metric to pick the best step by that nobody computes."""
    best, names = task.best_metric[1], [*task.metric.compute, *custom.scorers()]
    if best not in names:
        raise InputError(f"metric.best = '{best}' is not computed", remedy=did_you_mean(best, names))
