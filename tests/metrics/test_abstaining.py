"""Risk, coverage, promises and sets of labels: by hand, by brute force, and how often they hold in simulations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bert_ft.metrics import abstaining


def drawn(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 3) probabilities that lie somewhat too high, (N,) gold, and (N,) how likely each answer is right."""
    logits = random.normal(size=(n, 3)) * 4
    right = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gold = (right.cumsum(1) > random.random((n, 1))).argmax(1)
    said = np.exp(logits * 1.5) / np.exp(logits * 1.5).sum(1, keepdims=True)
    return said, gold, right[np.arange(n), said.argmax(1)]


def test_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.6])
    right = np.array([True, False, True, True, False])
    half = abstaining.answered(confidence, right, 0.5)
    assert (half.threshold, half.coverage, half.accuracy) == (0.7, 0.6, 2 / 3)
    whole = abstaining.answered(confidence, right, 0.7)
    assert whole.coverage == 1.0 and whole.accuracy == 0.6, (
        "rows of the same confidence are answered together"
    )
    # risks 0, 1/2, 1/3, then the mean of the two orders of the last two rows
    expected = (0 + 1 / 2 + 1 / 3 + (1 + 0.5) / 4 + 2 / 5) / 5
    assert abstaining.area(confidence, right) == pytest.approx(expected)


def test_area_is_the_mean_over_orders_of_equal_rows() -> None:
    random = np.random.default_rng(0)
    confidence = random.integers(3, size=40) / 3
    right = random.random(40) < 0.6
    areas = []
    for _ in range(4000):
        order = np.lexsort((random.random(40), -confidence))
        areas.append(np.mean(np.cumsum(~right[order]) / np.arange(1, 41)))
    assert abstaining.area(confidence, right) == pytest.approx(np.mean(areas), abs=0.002)


def test_promises_hold() -> None:
    """What is promised with 95 % confidence fails in no more than 5 % of 400 samples (and 2 points of chance)."""
    random = np.random.default_rng(1)
    said, _, truth = drawn(40_000, random)
    certain = said.max(1)
    for accuracy in (0.9, 0.95):
        failed = made = 0
        for _ in range(400):
            p, gold, _ = drawn(600, random)
            found = abstaining.guaranteed(p.max(1), p.argmax(1) == gold, accuracy)
            if found is not None:
                made += 1
                failed += truth[certain >= found.threshold].mean() < accuracy
        assert made > 200 and failed / 400 <= 0.07
    assert abstaining.guaranteed(np.full(117, 0.9), np.full(117, True), 0.95) is None
    whole = abstaining.guaranteed(np.full(118, 0.9), np.full(118, True), 0.95)
    assert whole is not None and whole.coverage == 1


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [60, 400])
def test_sets_hold_the_label_as_often_as_is_asked_for(coverage: float, n: int) -> None:
    """Mean coverage over 200 samples is within 2 points above what was asked for, and never below."""
    random = np.random.default_rng(2)
    held = []
    for _ in range(200):
        p, gold, _ = drawn(n, random)
        least = abstaining.least_of_set(p, gold, coverage)
        q, answers, _ = drawn(2000, random)
        held.append((q[np.arange(2000), answers] >= least).mean())
    error = np.std(held) / len(held) ** 0.5
    assert coverage - 2 * error <= np.mean(held) <= coverage + 0.02
    assert abstaining.least_of_set(p[:5], gold[:5], 0.9) == 0.0, "five rows can't promise it"


def test_intervals_of_accuracy_hold() -> None:
    """At a threshold that is given, the interval holds the truth in 95 % and more of 200 samples."""
    random = np.random.default_rng(3)
    said, _, truth = drawn(40_000, random)
    for coverage in (1.0, 0.5):
        inside = 0
        for _ in range(200):
            p, gold, _ = drawn(300, random)
            found = abstaining.answered(p.max(1), p.argmax(1) == gold, coverage)
            inside += found.low <= truth[said.max(1) >= found.threshold].mean() <= found.high
        assert inside / 200 >= 0.93


def test_fewer_answers_are_surer() -> None:
    p, gold, _ = drawn(5000, np.random.default_rng(4))
    accuracies = [one.accuracy for one in abstaining.table(p.max(1), p.argmax(1) == gold)]
    assert all(one < other for one, other in pairwise(accuracies))
