"""A power law through the scores of a learning curve, with a band that holds the true curve: pure functions
of numbers.

The law is score(n) = a - b n^-c of n rows. For each exponent of a grid it is linear: its least squares are
exact, nothing has to converge, and the laws that the scores allow are a union of ellipses. c = 0 stands for
its limit, a straight line in log n.

The scores of one seed hang together, since its smaller sets of rows lie within the larger, and they spread
less the more rows there are. How much so is estimated from the seeds' spread around their means: the
covariances of several structures are averaged, each as likely as that spread makes it (restricted
likelihood). How far the allowed laws reach is calibrated by a parametric bootstrap of the very design:
other seeds are drawn around the fitted law with that covariance, and are fitted in the same way, which
estimates the covariance anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bert_ft.metrics.two_means import same

LEVEL = 0.95
CALIBRATED = 0.955  # of the bootstrap's draws, since it takes the estimated covariance as true
DRAWS = 500
FEWEST_SIZES = 3  # the law has three parameters
EXPONENTS = np.linspace(0, 2, 81)
DECAYS = np.linspace(0, 1, 11)  # d: the seeds spread as n^-d
SHARED = (0.0, 0.5, 0.8, 0.97)  # of one seed's noise at n rows and at m more: correlation / sqrt(n / m)
SHARPNESS = 2  # the power of a structure's likelihood, as simulated curves are covered most evenly
FURTHEST = 2.0  # times the most rows: how far the law is drawn out
INSIDE, BEYOND = 17, 6  # points of the band up to the most rows, and behind them


@dataclass(frozen=True)
class LearningCurve:
    """A fitted law, in the unit of the scores.

    Attributes:
        exponent: c; 0 where the scores rise as the logarithm of the rows.
        asymptote: a, the score that the law comes to; None for the logarithm, which comes to none.
        rows: (A,) from the fewest to `FURTHEST` times the most.
        fit, low, high: (A,) the law, and its band: the true curve, the mean over all seeds, lies in all of it
            with the probability `LEVEL`.
        gain: what twice the most rows add.
        gain_low, gain_high: its own interval, of the same level.
        misfit: p of the scores' distance from the law, small where they follow another; None of three sizes,
            which always fit.
    """

    exponent: float
    asymptote: float | None
    rows: np.ndarray
    fit: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gain: float
    gain_low: float
    gain_high: float
    misfit: float | None


def unfit(sizes: np.ndarray, scores: np.ndarray) -> str:
    """Why no law is fitted; empty where one is. The arguments are those of `fitted`."""
    if len(sizes) < FEWEST_SIZES:
        return f"a law of three parameters needs {FEWEST_SIZES} sizes, and there are {len(sizes)}"
    if not np.isfinite(scores).all():
        return "a score is undefined"
    if same(np.transpose(scores)).all():
        return "the seeds do not differ at any size, so that nothing is known of their spread"
    return ""


def fitted(
    sizes: np.ndarray, scores: np.ndarray, best: float | None = None, *, falling: bool = False
) -> LearningCurve:
    """The law through the scores, its band, and what twice the rows add.

    Args:
        sizes: (K,) rows, ascending, K >= 3. scores: (M, K) of M >= 2 seeds, finite and not all equal at each
            size (`unfit`).
        best: the value of a perfect score, which no end of the band is beyond; None where there is none.
        falling: whether less is better, as of an error.
    """
    sign = -1.0 if falling else 1.0
    top = np.inf if best is None else sign * best
    sizes, scores = np.asarray(sizes, float), sign * np.asarray(scores, float)
    one = _fit(sizes, scores[None])
    more, flat = _redrawn(sizes, scores, one)
    rows = np.geomspace(sizes[0], sizes[-1], INSIDE)
    rows = np.concatenate([rows, sizes[-1] * np.geomspace(1, FURTHEST, BEYOND + 1)[1:]])
    band = one.levels(sizes, rows)
    law = band.estimate()
    reach = np.quantile(more.levels(sizes, rows).distance(law).max(axis=1), CALIBRATED)
    low, high = band.ends(reach)
    law, low, high = (np.minimum(line, top) for line in (law, low, high))
    gain, least, most = _gain(one.steps(sizes), more.steps(sizes), flat.steps(sizes))
    most = max(0.0, min(most, top - low[INSIDE - 1]))
    misfit = None
    if len(sizes) > FEWEST_SIZES:
        misfit = float((more.rest / more.variance >= one.rest[0] / one.variance[0]).mean())
    exponent = float(EXPONENTS[one.chosen[0]])
    return LearningCurve(
        exponent=exponent,
        asymptote=sign * one.asymptote() if exponent else None,
        rows=rows,
        fit=sign * law,
        low=np.minimum(sign * low, sign * high),
        high=np.maximum(sign * low, sign * high),
        gain=sign * min(gain, most),
        gain_low=min(sign * least, sign * most),
        gain_high=max(sign * least, sign * most),
        misfit=misfit,
    )


def _gain(one: _Values, more: _Values, flat: _Values) -> tuple[float, float, float]:
    """What twice the rows add, and its interval. Of a flat curve the exponent is not determined, and "no
    gain" has a reach of its own."""
    gain, none = one.estimate(), np.zeros(1)
    low, high = (float(end[0]) for end in one.ends(np.quantile(more.distance(gain), CALIBRATED)))
    if one.distance(none)[0, 0] <= np.quantile(flat.distance(none), CALIBRATED):
        low, high = min(low, 0.0), max(high, 0.0)
    return float(gain[0]), low, high


class _Structure(NamedTuple):
    """Covariances of one seed's noise at the K sizes, S of them, but for its size.

    Attributes:
        covariance, whitener: (S, K, K) they, and the inverses of their lower Cholesky factors. logdet: (S,).
    """

    covariance: np.ndarray
    whitener: np.ndarray
    logdet: np.ndarray


@lru_cache(64)
def _structures(sizes: tuple[float, ...]) -> _Structure:
    x = _log(np.array(sizes), np.array(sizes))
    near = np.exp(-0.5 * abs(x[:, None] - x))
    covariances = np.array(
        [
            np.outer(np.exp(-decay * x), np.exp(-decay * x)) * (shared * near + (1 - shared) * np.eye(len(x)))
            for decay in DECAYS
            for shared in SHARED
        ]
    )
    root = np.linalg.cholesky(covariances)
    logdet = 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return _Structure(covariances, np.linalg.inv(root), logdet)


def _log(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """log n, 0 in the middle of the sizes."""
    return np.asarray(np.log(rows) - np.log(sizes).mean())


def _shape(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(C, A) the law of each exponent, with slope 1 and value 0 in the middle of the sizes."""
    x, c = _log(rows, sizes), EXPONENTS[1:, None]
    return np.concatenate([x[None], -np.expm1(-c * x) / c])


@dataclass
class _Fits:
    """The laws of B sets of scores, with every exponent: level + slope * (shape - center).

    Attributes:
        rest: (B,) the smallest weighted sum of squares, of the exponent `chosen`, (B,). variance: (B,) of the
            noise, but for its structure.
        whitener: (B, K, K) that of the averaged structure.
    """

    level: np.ndarray  # (B,)
    level_weight: np.ndarray  # (B,)
    slope: np.ndarray  # (B, C)
    slope_weight: np.ndarray  # (B, C)
    center: np.ndarray  # (B, C)
    rests: np.ndarray  # (B, C)
    rest: np.ndarray
    chosen: np.ndarray
    variance: np.ndarray
    whitener: np.ndarray

    def levels(self, sizes: np.ndarray, rows: np.ndarray) -> _Values:
        """The score at each of (A,) rows."""
        return _Values(self, _shape(rows, sizes).T[None] - self.center[:, None], 1.0)

    def steps(self, sizes: np.ndarray) -> _Values:
        """What twice the most rows add, as (1,) values."""
        shape = _shape(sizes[-1] * np.array([1.0, 2.0]), sizes)
        return _Values(self, (shape[:, 1] - shape[:, 0])[None, None], 0.0)

    def asymptote(self) -> float:
        """a of the first law, whose exponent is not 0."""
        c = EXPONENTS[self.chosen[0]]
        value = self.level[0] + self.slope[0, self.chosen[0]] * (1 / c - self.center[0, self.chosen[0]])
        return float(value)


@dataclass
class _Values:
    """A numbers that laws give: weight * level + slope * arm.

    Attributes:
        arm: (B or 1, A, C).
    """

    fits: _Fits
    arm: np.ndarray
    weight: float

    def _each(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, A, C) the numbers by exponent, and their variances but for that of the noise."""
        fits = self.fits
        value = self.weight * fits.level[:, None, None] + fits.slope[:, None] * self.arm
        variance = self.weight / fits.level_weight[:, None, None] + self.arm**2 / fits.slope_weight[:, None]
        return value, variance

    def estimate(self) -> np.ndarray:
        """(A,) the numbers of the first set's best law."""
        return np.asarray(self._each()[0][0, :, self.fits.chosen[0]])

    def distance(self, truth: np.ndarray) -> np.ndarray:
        """(B, A) how much worse the best law is that gives the true number, (A,), in variances of the
        noise."""
        fits = self.fits
        value, variance = self._each()
        rests = fits.rests[:, None] + (truth[:, None] - value) ** 2 / variance
        return np.asarray((rests.min(axis=2) - fits.rest[:, None]) / fits.variance[:, None])

    def ends(self, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """(A,) the least and the greatest number that the first set of scores allows: those whose distance is
        no more than `reach`."""
        fits = self.fits
        value, variance = (each[0] for each in self._each())
        room = fits.rest[0] + reach * fits.variance[0] - fits.rests[0]
        allowed = room >= 0
        half = np.sqrt(room[allowed] * variance[:, allowed])
        return (value[:, allowed] - half).min(axis=1), (value[:, allowed] + half).max(axis=1)


def _fit(sizes: np.ndarray, scores: np.ndarray) -> _Fits:
    """The laws of (B, M, K) scores."""
    structures = _structures(tuple(sizes))
    sets, seeds, count = scores.shape
    mean = scores.mean(axis=1)
    around = scores - mean[:, None]
    flat = around.reshape(-1, count)
    within = np.array([((flat @ one.T) ** 2).sum(axis=1) for one in structures.whitener])
    within = within.reshape(len(within), sets, seeds).sum(axis=2)
    freedom = (seeds - 1) * count
    likelihood = -0.5 * ((seeds - 1) * structures.logdet[:, None] + freedom * np.log(within))
    likely = np.exp(SHARPNESS * (likelihood - likelihood.max(axis=0)))
    likely /= likely.sum(axis=0)
    whitener = np.linalg.inv(np.linalg.cholesky(np.tensordot(likely.T, structures.covariance, 1)))
    spread = ((around @ whitener.transpose(0, 2, 1)) ** 2).sum(axis=(1, 2))
    of_mean = whitener * np.sqrt(seeds)
    ones = of_mean.sum(axis=2)
    target = np.einsum("bij,bj->bi", of_mean, mean)
    level_weight = (ones**2).sum(axis=1)
    shape = _shape(sizes, sizes) @ of_mean.transpose(0, 2, 1)  # (B, C, K)
    center = np.einsum("bck,bk->bc", shape, ones) / level_weight[:, None]
    shape = shape - center[..., None] * ones[:, None]
    slope_weight = (shape**2).sum(axis=2)
    level = (ones * target).sum(axis=1) / level_weight
    slope = np.einsum("bck,bk->bc", shape, target) / slope_weight
    whole = ((target - level[:, None] * ones) ** 2).sum(axis=1)
    rests = np.maximum(whole[:, None] - slope**2 * slope_weight, 0)
    rest = rests.min(axis=1)
    freedom += max(count - FEWEST_SIZES, 0)
    variance = (spread + rest) / freedom
    return _Fits(
        level,
        level_weight,
        slope,
        slope_weight,
        center,
        rests,
        rest,
        rests.argmin(axis=1),
        variance,
        whitener,
    )


def _redrawn(sizes: np.ndarray, scores: np.ndarray, one: _Fits) -> tuple[_Fits, _Fits]:
    """The laws of `DRAWS` sets of scores drawn around the law of these, and of as many around a flat one."""
    root = np.linalg.inv(one.whitener[0]) * np.sqrt(one.variance[0])
    noise = np.random.default_rng(0).standard_normal((DRAWS, *scores.shape)) @ root.T
    law = one.levels(sizes, sizes).estimate()
    return _fit(sizes, law + noise), _fit(sizes, one.level[0] + noise)
