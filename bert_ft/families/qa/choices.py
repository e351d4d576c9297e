"""Answers to questions as a choice among evaluations, and of a threshold of no answer, is made on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bert_ft.metrics import answers, choice, scoring, squad

Texts = Sequence[str] | np.ndarray
Golds = Sequence[Sequence[str]] | np.ndarray


def of_answers(texts: Texts, golds: Golds, metrics: Sequence[str]) -> choice.Candidate:
    """Answers to questions that all have one; `metrics`: those of the task."""
    names = ["exact_match", "f1"]
    keys = [one_by_one(squad.squad, texts, golds)]
    for name in answers.named(metrics):
        names += [f"{name}_exact_match", f"{name}_f1"]
        keys.append(one_by_one(partial(answers.score, name), texts, golds))
    return choice.answers(np.concatenate(keys, axis=1), scoring.Means(names, 100.0))


def of_null(texts: Texts, golds: Golds, odds: np.ndarray, by: str) -> choice.Candidate:
    """Answers to questions that may have none.

    Args:
        texts: those that are given where no question is taken to have none. odds: (N,) null odds.
        by: "f1" or "exact", which the model's own threshold is tuned by.
    """
    has, answered = (np.array([bool(item) for item in items]) for items in (golds, texts))
    return choice.null_threshold(squad.raw_scores(texts, golds), has, answered, odds, by)


def one_by_one(metric: Callable[[Any, Any], dict[str, float]], texts: Texts, golds: Golds) -> np.ndarray:
    """(N, 2) of a metric of whole sets, 0 to 100, for each answer: 0 to 1."""
    each = (metric({"": text}, {"": gold}) for text, gold in zip(texts, golds, strict=True))
    return np.array([list(found.values()) for found in each]) / 100


def exact(texts: Texts, golds: Golds, no_answer: bool, metrics: Sequence[str]) -> np.ndarray:
    """(N,) bool, whether each answer is a gold one: as SQuAD has it, or as the first benchmark does whose
    metrics the task has.

    Args:
        no_answer: whether questions may have none. metrics: those of the task.
    """
    if no_answer:
        return np.asarray(squad.raw_scores(texts, golds)["exact"] > 0)
    named = answers.named(metrics)
    metric = partial(answers.score, named[0]) if named else squad.squad
    return np.asarray(one_by_one(metric, texts, golds)[:, 0] > 0)
