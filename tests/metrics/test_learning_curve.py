"""The law of a learning curve: its band and its gain hold the truth of simulated curves; what can't be fitted says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bert_ft.metrics.learning_curve import fitted, unfit

TRUTHS = {
    "steep": (0.92, 3.0, 0.5),
    "middle": (0.9, 0.8, 0.3),
    "flat": (0.8, 0.0, 0.3),
    "log": (1.2, 0.9, 0.08),
}
SHARES = {
    3: (0.25, 0.5, 1),
    4: (0.125, 0.25, 0.5, 1),
    5: (0.05, 0.1, 0.25, 0.5, 1),
    6: (0.02, 0.05, 0.1, 0.25, 0.5, 1),
}
ROWS = 2000


def noise(kind: str, sizes: np.ndarray, seeds: int, draw: np.random.Generator) -> np.ndarray:
    """(seeds, sizes) of standard deviation 1 at the fewest rows: of a training alone, the same at each size or
    falling as n^-1/2; or of the rows drawn alone, which are nested; or half of each."""
    own = draw.standard_normal((seeds, len(sizes)))
    falling = own * np.sqrt(sizes[0] / sizes)
    parts = draw.standard_normal((seeds, len(sizes))) * np.sqrt(np.diff(sizes, prepend=0))
    nested = parts.cumsum(axis=1) * np.sqrt(sizes[0]) / sizes
    return {"same": own, "falling": falling, "nested": nested, "both": (falling + nested) / np.sqrt(2)}[kind]


def coverage(
    truth: str, kind: str, seeds: int, sizes: int, *, sd: float = 0.01, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """The shares of simulated curves whose band holds the whole truth, and whose gain holds the true one."""
    a, b, c = TRUTHS[truth]
    rows = np.array(SHARES[sizes]) * ROWS
    draw = np.random.default_rng(seed)
    held = []
    for _ in range(draws):
        law = fitted(rows, a - b * rows**-c + sd * noise(kind, rows, seeds, draw))
        true = a - b * law.rows**-c
        gain = a - b * (2.0 * ROWS) ** -c - (a - b * float(ROWS) ** -c)
        within = (law.low - 1e-12 <= true) & (true <= law.high + 1e-12)
        held.append((within.all(), law.gain_low - 1e-12 <= gain <= law.gain_high + 1e-12))
    band, own = np.mean(held, axis=0)
    return float(band), float(own)


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "kind", "seeds", "sizes"), [
    ("steep", "same", 3, 4), ("middle", "same", 5, 5), ("flat", "same", 5, 6), ("log", "same", 3, 3),
    ("middle", "same", 2, 4), ("steep", "falling", 5, 4), ("flat", "falling", 3, 5), ("middle", "falling", 5, 6),
    ("steep", "nested", 3, 6), ("flat", "nested", 3, 4), ("log", "nested", 5, 5), ("middle", "both", 3, 5),
])  # fmt: skip
def test_band_and_gain_hold_the_truth(truth: str, kind: str, seeds: int, sizes: int) -> None:
    band, gain = coverage(truth, kind, seeds, sizes)
    assert 0.90 <= band <= 0.98 and gain >= 0.90, (band, gain)


@pytest.mark.slow
def test_noise_does_not_matter() -> None:
    """Ten times the noise, on a curve of half its steepness: the band is as sure as before."""
    band, gain = coverage("middle", "same", 3, 4, sd=0.05)
    assert 0.90 <= band <= 0.98 and gain >= 0.90, (band, gain)


def test_band_of_few_curves() -> None:
    """As the slow tests, of fifteen curves."""
    band, gain = coverage("steep", "same", 3, 4, draws=15)
    assert band >= 0.7 and gain >= 0.7


def test_law_without_noise_is_the_law() -> None:
    rows = np.array([100.0, 200, 400, 800, 1600])
    true = 0.9 - 2 * rows**-0.5
    law = fitted(rows, true + 1e-7 * np.random.default_rng(0).standard_normal((3, 5)), 1.0)
    assert law.exponent == 0.5 and law.asymptote == pytest.approx(0.9, abs=1e-5)
    assert law.fit[-1] == pytest.approx(0.9 - 2 * 3200**-0.5, abs=1e-5) and law.rows[-1] == pytest.approx(
        3200
    )
    assert law.gain == pytest.approx(2 * (1600**-0.5 - 3200**-0.5), abs=1e-5)
    assert (law.low <= law.fit).all() and (law.fit <= law.high).all()
    assert law.gain_low <= law.gain <= law.gain_high and law.misfit is not None and law.misfit > 0.01


def test_error_is_the_mirror_of_a_score() -> None:
    rows = np.array([100.0, 200, 400, 800])
    scores = 0.9 - 2 * rows**-0.5 + 0.01 * np.random.default_rng(1).standard_normal((3, 4))
    up, down = fitted(rows, scores, 1.0), fitted(rows, 1 - scores, 0.0, falling=True)
    assert np.allclose(down.fit, 1 - up.fit) and np.allclose(down.low, 1 - up.high)
    assert np.allclose([down.gain, down.gain_low, down.gain_high], [-up.gain, -up.gain_high, -up.gain_low])
    assert down.asymptote == pytest.approx(1 - (up.asymptote or 0)) and down.misfit == up.misfit


def test_band_ends_at_a_perfect_score() -> None:
    rows = np.array([100.0, 200, 400, 800])
    scores = 0.97 - rows**-0.6 + 0.03 * np.random.default_rng(2).standard_normal((3, 4))
    free, bounded = fitted(rows, scores), fitted(rows, scores, 1.0)
    assert free.high.max() > 1 and bounded.high.max() == 1 and (bounded.fit <= 1).all()
    assert np.array_equal(free.low, bounded.low) and bounded.gain_high <= free.gain_high


def test_other_shapes_do_not_pass_for_the_law() -> None:
    """A model that starts to learn at 400 rows."""
    rows = np.array([50.0, 100, 200, 400, 800])
    scores = np.where(rows < 400, 0.5, 0.9) + 0.005 * np.random.default_rng(3).standard_normal((3, 5))
    law = fitted(rows, scores)
    assert law.misfit is not None and law.misfit < 0.002


@pytest.mark.parametrize(("scores", "reason"), [
    ([[0.5, 0.6], [0.5, 0.7]], "three parameters needs 3 sizes, and there are 2"),
    ([[0.5, 0.5, 0.5]] * 3, "do not differ"), ([[0.5, 0.6, 0.7]] * 3, "do not differ"),
    ([[0.5, 0.6, np.nan], [0.5, 0.6, 0.7]], "undefined"), ([[0.5, 0.6, 0.7], [0.5, 0.6, 0.71]], ""),
])  # fmt: skip
def test_what_is_not_fitted(scores: Any, reason: str) -> None:
    sizes = np.array([100, 200, 400])[: len(scores[0])]
    said = unfit(sizes, np.array(scores))
    assert reason in said and bool(reason) == bool(said)
