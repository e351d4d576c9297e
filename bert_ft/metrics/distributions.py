"""How near predicted probabilities are to a distribution over labels: what people voted, or what another
model said.

Probabilities and distributions are (N, C). Of several labels a row each is a question of its own, whose
answer is yes by some probability; what is said then is the mean over the labels.
"""

from __future__ import annotations

import numpy as np

TINY = 1e-300
NAMES = ("cross_entropy", "kl_divergence", "expected_accuracy")


def compute(probabilities: np.ndarray, target: np.ndarray, several: bool = False) -> dict[str, float]:
    """Name -> value: `cross_entropy` and `kl_divergence` in nats, least where the two are equal (the second
    is then 0); `expected_accuracy`, how often the answer would be right if the truth were drawn from the
    distribution; that of one label a row alone."""
    if several:
        p, t = probabilities.ravel(), target.ravel()
        probabilities, target = np.stack([1 - p, p], axis=1), np.stack([1 - t, t], axis=1)
    cross = cross_entropy(probabilities, target)
    result = {"cross_entropy": cross, "kl_divergence": max(0.0, cross - cross_entropy(target, target))}
    if not several:
        chosen = probabilities.argmax(axis=1)
        result["expected_accuracy"] = float(target[np.arange(len(target)), chosen].mean())
    return result


def cross_entropy(probabilities: np.ndarray, target: np.ndarray) -> float:
    """The mean over the rows, in nats; what has no probability counts as `TINY`."""
    logs = np.log(np.clip(probabilities, TINY, 1))
    return float(-(target * logs).sum(axis=1).mean())
