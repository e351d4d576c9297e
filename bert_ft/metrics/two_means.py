"""The difference of two means whose runs need not spread alike (the Behrens-Fisher problem): pure functions
of numbers, over many comparisons at once.

Welch's interval (1947) errs too often where one side has few runs: with 3 or 4 of them in up to 8 % instead
of 5 %, at the worst ratio of the two spreads. Here it is widened by the smallest factor that holds it at its
level whatever that ratio is (`widening`), found by integrating its error; of five runs a side this is 1.02.
Both sides' runs are taken as normal.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.stats import chi2, norm, t

SHARES = 1 / (1 + np.exp(np.linspace(-9, 9, 37)))  # of the difference's variance, those of the first side
NODES = np.linspace(-8, 8, 65)  # of the quadrature over each side's variance, as normal quantiles
CLOSE = 1e-9  # values that lie closer, relative to their size, differ by rounding alone


def same(values: Any) -> np.ndarray:
    """Whether all of (..., m) values are one value, but for rounding."""
    values = np.asarray(values, float)
    size = np.maximum(1.0, np.abs(values).max(axis=-1))
    return np.asarray(np.ptp(values, axis=-1) <= CLOSE * size)


def half_width(first: Any, second: Any, level: float) -> np.ndarray:
    """Half the width of the interval of a difference of two means.

    Args:
        first, second: (variance of the mean as estimated, (...), its degrees of freedom), of each side.
    """
    (a, p), (b, q) = first, second
    return np.asarray(widening(p, q, level) * t.ppf((1 + level) / 2, freedom(first, second)) * np.sqrt(a + b))


def freedom(first: Any, second: Any) -> np.ndarray:
    """The degrees of freedom of Welch and Satterthwaite, with the arguments of `half_width`."""
    (a, p), (b, q) = first, second
    with np.errstate(all="ignore"):
        return np.asarray((np.asarray(a) + b) ** 2 / (np.square(a) / p + np.square(b) / q))


@cache
def widening(p: int, q: int, level: float) -> float:
    """The factor by which Welch's interval of two sides with p and q degrees of freedom is to be widened, so
    that no ratio of their spreads makes it miss the truth more often than 1 - level; 1 where it never
    does."""
    weights = norm.pdf(NODES) / norm.pdf(NODES).sum()
    u, v = (chi2.ppf(norm.cdf(NODES), degrees) / degrees for degrees in (p, q))
    a = SHARES[:, None, None] * u[:, None]
    b = (1 - SHARES[:, None, None]) * v
    known = np.geomspace(min(p, q), p + q, 400)
    quantiles = np.interp(freedom((a, p), (b, q)), known, t.ppf((1 + level) / 2, known))
    limits = quantiles * np.sqrt(a + b)

    def error(factor: float) -> float:
        return float((2 * norm.sf(factor * limits) @ weights @ weights).max())

    low, high = 1.0, 1.0
    if error(low) <= 1 - level:
        return low
    while error(high) > 1 - level:
        high *= 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > 1 - level else (low, middle)
    return high
