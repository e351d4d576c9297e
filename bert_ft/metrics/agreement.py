"""How far several annotators agree: Krippendorff's alpha.

1 is perfect agreement, 0 is what chance gives, less than 0 is systematic disagreement. It takes any number of
votes a row; a row with one vote has nothing to agree with and does not count (Krippendorff 2011, "Computing
Krippendorff's Alpha-Reliability").
"""

from __future__ import annotations

import numpy as np


def alpha(counts: np.ndarray) -> float:
    """Krippendorff's alpha of nominal data; nan where it is undefined: fewer than two rows with two votes, or
    all votes for one label.

    Args:
        counts: (N, C) how many votes each label has in each row.
    """
    votes = counts.sum(axis=1)
    paired = counts[votes > 1]
    sizes = votes[votes > 1]
    totals = paired.sum(axis=0)
    number = totals.sum()
    expected = number**2 - np.square(totals).sum()
    if len(paired) < 2 or not expected > 0:
        return float("nan")
    # pairs of unequal votes within a row, each row weighed by 1 / (its votes - 1)
    observed = ((np.square(sizes) - np.square(paired).sum(axis=1)) / (sizes - 1)).sum()
    return float(1 - (number - 1) * observed / expected)


def alpha_of_numbers(scores: np.ndarray) -> float:
    """Krippendorff's alpha of interval data: squared differences in the place of unequal labels.

    Args:
        scores: (N, annotators), nan where an annotator gave none.
    """
    given = np.isfinite(scores)
    sizes = given.sum(axis=1)
    center = scores[given].mean() if given.any() else 0.0  # differences stay, rounding goes
    paired = np.where(given, scores - center, 0.0)[sizes > 1]
    sizes = sizes[sizes > 1]
    number = sizes.sum()
    if len(paired) < 2:
        return float("nan")
    squares, sums = np.square(paired).sum(axis=1), paired.sum(axis=1)
    expected = number * squares.sum() - sums.sum() ** 2
    if not expected > 0:
        return float("nan")
    observed = ((sizes * squares - np.square(sums)) / (sizes - 1)).sum()
    return float(1 - (number - 1) * observed / expected)
