"""What a search may draw of a key, in Optuna's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bert_ft.config.recipe import Range

MANY = 1000  # values of a key that are as good as any number of them


def of(values: list[Any] | Range) -> BaseDistribution:
    """The distribution of a list of values, or of a range."""
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    bounds = values.model_dump(exclude_none=True)
    whole = all(isinstance(number, int) for number in bounds.values())
    return (IntDistribution if whole else FloatDistribution)(**bounds)


def values(distribution: BaseDistribution) -> Iterable[Any]:
    """The values of a key; `MANY` where there are more, or no end of them."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None:
        return range(MANY)
    return (low + i * step for i in range(min(MANY, round((high - low) / step) + 1)))
