"""Answers to questions, scored as the official scripts do: SQuAD 1.1, SQuAD 2.0. Pure functions.

Each takes `predictions` (question id -> text) and `answers` (question id -> gold texts); values are on the
scripts' scale, 0 to 100. Their rules are those of English; `answers.py` has other languages'. Sources:
evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al. 2016, 2018).
"""

from __future__ import annotations

import operator
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(1 << 12)  # gold answers often agree
def tokens(text: str) -> tuple[str, ...]:
    """Lower case, without punctuation and articles, cut at white space."""
    return tuple(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def f1_of_bags(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """F1 by the parts that both have, each as often as it stands in both."""
    return mean_rate(sum((Counter(prediction) & Counter(gold)).values()), len(prediction), len(gold))


def mean_rate(same: int, predicted: int, gold: int) -> float:
    """The harmonic mean of precision and recall."""
    if not same:
        return 0.0
    precision, recall = same / predicted, same / gold
    return (2 * precision * recall) / (precision + recall)


def squad(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`exact_match` and `f1` of evaluate-v1.1.py: the best gold answer counts, a missing prediction counts 0.

    Raises:
        ValueError: a question without a gold answer, which the script cannot score.
    """
    exact, f1 = best_golds(predictions, answers, tokens, operator.eq, f1_of_bags)
    return {"exact_match": exact, "f1": f1}


def best_golds(
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    normal: Callable[[str], Any],
    equal: Callable[[Any, Any], bool],
    rate: Callable[[Any, Any], float],
) -> tuple[float, float]:
    """Means over the questions, 0 to 100: whether the prediction is `equal` to a gold answer, and its best
    rate among them.

    Raises:
        ValueError: a question without a gold answer.
    """
    exact, f1 = 0.0, 0.0
    for key, golds in answers.items():
        if not golds:
            raise ValueError(f"question '{key}' has no gold answer: score it with squad_v2")
        if key in predictions:
            predicted = normal(predictions[key])
            targets = [normal(gold) for gold in golds]
            exact += max(equal(predicted, gold) for gold in targets)
            f1 += max(rate(predicted, gold) for gold in targets)
    return 100.0 * exact / len(answers), 100.0 * f1 / len(answers)


def squad_v2(
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    null_odds: Mapping[str, float],
    threshold: float = 1.0,
) -> dict[str, float]:
    """What evaluate-v2.0.py prints with `--na-prob-file`.

    Args:
        null_odds: question id -> how strongly no answer is preferred: a probability, or a difference of
            scores.
        threshold: above it a question counts as answered with the empty text (the script's
            `--na-prob-thresh`).
    Returns:
        `exact`, `f1`, `total`; the same with `HasAns_` and `NoAns_` where there are such questions;
        `best_exact`, `best_f1` and their `_thresh`: the best that a threshold on these very questions gives.
    Raises:
        ValueError: a question without a prediction, at which the script fails.
    """
    if missing := [key for key in answers if key not in predictions or key not in null_odds]:
        raise ValueError(f"{len(missing)} questions have no prediction: {', '.join(missing[:10])}")
    has = np.array([bool(golds) for golds in answers.values()])
    raw = raw_scores([predictions[key] for key in answers], answers.values())
    rank = {key: i for i, key in enumerate(answers)}
    odds = np.array([null_odds[key] for key in answers], np.float64)
    # ties as in the script
    order = sorted((key for key in null_odds if key in rank), key=null_odds.__getitem__)
    out: dict[str, float] = {}
    for prefix, chosen in (("", np.ones_like(has)), ("HasAns_", has), ("NoAns_", ~has)):
        if chosen.any():
            for name, scores in raw.items():
                final = np.where(odds > threshold, ~has, scores)[chosen]
                out[prefix + name] = 100.0 * sum(final.tolist()) / len(final)
            out[f"{prefix}total"] = int(chosen.sum())
    answered = np.array([bool(predictions[key]) for key in answers])
    for name, scores in raw.items():
        best, at = _sweep(scores, has, answered, np.array([rank[key] for key in order]))
        out[f"best_{name}"] = 100.0 * best / len(has)
        out[f"best_{name}_thresh"] = 0.0 if at < 0 else float(odds[at])
    return out


def raw_scores(predictions: Iterable[str], answers: Iterable[Sequence[str]]) -> dict[str, np.ndarray]:
    """`exact` and `f1` (N,) of evaluate-v2.0.py: golds that normalise to nothing count only where all do."""
    exact, f1 = [], []
    for prediction, golds in zip(predictions, answers, strict=True):
        predicted = tokens(prediction)
        targets = [gold for text in golds if (gold := tokens(text))] or [()]
        exact.append(max(predicted == gold for gold in targets))
        f1.append(
            max(
                f1_of_bags(predicted, gold) if predicted and gold else float(predicted == gold)
                for gold in targets
            )
        )
    return {"exact": np.array(exact, np.float64), "f1": np.array(f1, np.float64)}


def _sweep(scores: np.ndarray, has: np.ndarray, answered: np.ndarray, order: np.ndarray) -> tuple[float, int]:
    """(best sum of scores, the question whose odds are its threshold): evaluate-v2.0's find_best_thresh.

    From all empty on, questions are answered in the order of their odds; -1 where all empty is best.
    """
    gains = np.where(has, scores, -answered.astype(np.float64))[order]
    sums = np.cumsum(np.concatenate([[float((~has).sum())], gains]))
    best = int(sums.argmax())
    return float(sums[best]), int(order[best - 1]) if best else -1


def null_threshold(scores: np.ndarray, has: np.ndarray, answered: np.ndarray, odds: np.ndarray) -> float:
    """The threshold of null odds that scores best; below all of them where the empty answer always is
    best."""
    at = _sweep(scores, has, answered, np.argsort(odds, kind="stable"))[1]
    return float(odds[at]) if at >= 0 else float(odds.min()) - 1.0
