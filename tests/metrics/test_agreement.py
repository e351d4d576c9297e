"""Krippendorff's alpha against his worked example and the package; distributions against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bert_ft.metrics import agreement, calibration, distributions

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section E: 4 observers, 12 units, 0 for none
OBSERVED = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
])  # fmt: skip


def counts(observed: np.ndarray, labels: int) -> np.ndarray:
    return np.stack([(observed == label).sum(axis=0) for label in range(1, labels + 1)], axis=1)


def test_the_published_example() -> None:
    assert agreement.alpha(counts(OBSERVED, 5)) == pytest.approx(0.743, abs=5e-4)
    numbers = np.where(OBSERVED == 0, np.nan, OBSERVED).T
    assert agreement.alpha_of_numbers(numbers) == pytest.approx(0.849, abs=5e-4)
    # section A: two observers, binary data
    two = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]) + 1
    assert agreement.alpha(counts(two, 2)) == pytest.approx(0.095, abs=5e-4)


def test_the_ends() -> None:
    assert agreement.alpha(np.array([[2, 0], [0, 3], [2, 0]])) == 1
    assert agreement.alpha(np.array([[1, 1]] * 50)) == pytest.approx(-1, abs=0.03), "each row disagrees"
    for undefined in ([[2, 0], [3, 0]], [[1, 0], [0, 1]], [[1, 1]], np.zeros((0, 2)), np.zeros((3, 2))):
        assert np.isnan(agreement.alpha(np.array(undefined)))
    chance = np.random.default_rng(0).multinomial(3, [0.2, 0.5, 0.3], 20_000)
    assert agreement.alpha(chance) == pytest.approx(0, abs=0.01)
    assert np.isnan(agreement.alpha_of_numbers(np.array([[2.0, 2.0], [2.0, np.nan]])))
    assert agreement.alpha_of_numbers(np.array([[1e6 + 1, 1e6 + 1], [1e6, 1e6]])) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_as_the_package_has_it(seed: int) -> None:
    package = pytest.importorskip("krippendorff")
    random = np.random.default_rng(seed)
    truth = random.integers(1, 4, 40)
    observed = np.where(random.random((5, 40)) < 0.6, truth, random.integers(1, 4, (5, 40)))
    observed[random.random(observed.shape) < 0.3] = 0
    given = np.where(observed == 0, np.nan, observed)
    nominal = package.alpha(reliability_data=given, level_of_measurement="nominal")
    interval = package.alpha(reliability_data=given, level_of_measurement="interval")
    assert agreement.alpha(counts(observed, 3)) == pytest.approx(nominal)
    assert agreement.alpha_of_numbers(given.T) == pytest.approx(interval)


def test_distances_are_torch_s() -> None:
    random = np.random.default_rng(0)
    logits, target = random.normal(size=(50, 4)) * 3, random.dirichlet(np.ones(4), 50)
    p = torch.tensor(logits).softmax(-1)
    found = distributions.compute(p.numpy(), target)
    assert found["cross_entropy"] == pytest.approx(
        float(F.cross_entropy(torch.tensor(logits), torch.tensor(target)))
    )
    kl = F.kl_div(p.log(), torch.tensor(target), reduction="batchmean")
    assert found["kl_divergence"] == pytest.approx(float(kl))
    assert found["expected_accuracy"] == pytest.approx(
        np.mean([t[k] for t, k in zip(target, logits.argmax(1), strict=True)])
    )
    yes = torch.tensor(random.random((50, 4)))
    several = distributions.compute(p.numpy(), yes.numpy(), several=True)
    assert several["cross_entropy"] == pytest.approx(float(F.binary_cross_entropy(p, yes)))
    assert distributions.compute(target, target)["kl_divergence"] == 0
    hard = np.eye(3)[[0, 1, 2]]
    assert distributions.compute(hard, hard) == {
        "cross_entropy": 0,
        "kl_divergence": 0,
        "expected_accuracy": 1,
    }


def test_a_temperature_of_distributions_is_torch_s_least() -> None:
    """Logits that are three times too sharp for what people said; of certain rows it is that of labels."""
    random = np.random.default_rng(1)
    logits = random.normal(size=(400, 3)) * 2
    target, sharp = (torch.tensor(of).softmax(-1).numpy() for of in (logits, logits * 3))
    found = calibration.temperature(sharp, target)
    assert found == pytest.approx(3, rel=0.01)
    labels = random.integers(0, 3, 400)
    assert calibration.temperature(sharp, np.eye(3)[labels]) == calibration.temperature(sharp, labels)
    assert calibration.measures(sharp, target).nll == pytest.approx(
        distributions.cross_entropy(sharp, target)
    )
    assert calibration.measures(sharp, np.eye(3)[labels]) == calibration.measures(sharp, labels)
    assert calibration.told_right(sharp, np.eye(3)[sharp.argmax(1)]) and not calibration.told_right(
        sharp, target
    )
