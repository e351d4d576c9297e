"""Labels that are likely wrong, by what models that did not see their rows make of them: cleanlab's confident
learning (Northcutt et al. 2021). cleanlab is an extra, imported only here and only when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from bert_ft.errors import InputError
from bert_ft.families import listing
from bert_ft.report.scored_set import Scored
from bert_ft.report.suspects import Suspect

RANKED = {"return_indices_ranked_by": "self_confidence", "n_jobs": 1}
OUTLIER = 0.05  # of the median quality: below it cleanlab's Datalab takes a number to be wrong
SAME = 1.4826  # the standard deviation of normal errors is so many times their median size


def of_classes(scored: Scored) -> list[Suspect]:
    """One label a row, of votes the likeliest: the quality is the label's own probability."""
    gold, said = scored.column("label"), scored.column("prediction")
    place = {name: number for number, name in enumerate(scored.names)}
    labels = np.array([place[str(label)] for label in gold])
    probabilities = np.array(_probabilities(scored, scored.names), float)
    issues = _cleanlab("filter").find_label_issues(labels, probabilities, **RANKED)
    quality = _cleanlab("rank").get_label_quality_scores(labels, probabilities)
    return [Suspect(i, gold[i], said[i], float(quality[i])) for i in issues.tolist()]


def of_sets(scored: Scored) -> list[Suspect]:
    """A set of labels a row, each of which is a question of its own: what is suggested is the set with the
    doubted ones put in or taken out; the quality is cleanlab's mean of theirs, which leans to the worst."""
    gold = scored.column("label")
    place = {name: number for number, name in enumerate(scored.names)}
    numbers = [[place[str(label)] for label in each] for each in gold]
    probabilities = np.array(_probabilities(scored, scored.names), float)
    filters = _cleanlab("multilabel_classification.filter")
    issues = filters.find_label_issues(numbers, probabilities, **RANKED)
    doubted = filters.find_multilabel_issues_per_class(numbers, probabilities, n_jobs=1)
    quality = _cleanlab("multilabel_classification").get_label_quality_scores(numbers, probabilities)
    result = []
    for i in issues.tolist():
        rest = set(numbers[i]) ^ set(np.flatnonzero(doubted[i]).tolist())
        names = [scored.names[number] for number in sorted(rest)]
        result.append(Suspect(i, gold[i], names, float(quality[i])))
    return result


def of_numbers(scored: Scored) -> list[Suspect]:
    """A number a row: the quality is exp(-|error|), in units of the errors' spread."""
    gold, said = (np.array(scored.column(key), float) for key in ("label", "prediction"))
    spread = SAME * np.median(abs(gold - said)) or 1.0
    quality = _cleanlab("regression.rank").get_label_quality_scores(
        gold / spread, said / spread, method="residual"
    )
    order = np.argsort(quality, kind="stable")
    issues = order[quality[order] < OUTLIER * np.median(quality)]
    return [Suspect(i, float(gold[i]), float(said[i]), float(quality[i])) for i in issues.tolist()]


def of_tags(scored: Scored) -> list[Suspect]:
    """A tag a word, over all words that the model reads: the quality is the tag's own probability."""
    gold, said = scored.column("label"), scored.column("prediction")
    names = list(scored.lines[0].get("probabilities", ()))  # IOB2, as the gold ones are
    probabilities = [np.array(columns, float).T for columns in _probabilities(scored, names)]
    read = [np.flatnonzero(~np.isnan(each).any(axis=1)) for each in probabilities]
    labels = [[names.index(gold[i][j]) for j in words] for i, words in enumerate(read)]
    kept = [each[words] for each, words in zip(probabilities, read, strict=True)]
    issues = _cleanlab("token_classification.filter").find_label_issues(labels, kept, **RANKED)
    result = []
    for i, place in issues:
        j = int(read[i][place])
        quality = float(kept[i][place][labels[i][place]])
        result.append(Suspect(i, gold[i][j], said[i][j], quality, j))
    return result


def of_answers(
    gold: Sequence[Any], said: Sequence[str], score: Sequence[float], overlap: Sequence[float]
) -> list[Suspect]:
    """Answers to questions: those that share no word with a gold one, and are given at least as surely as
    exact ones are on average. It is the rule of confident learning, for which cleanlab has no function.

    Args:
        score: (N,) the probability of the answer that is given.
        overlap: (N,) its F1, 0 to 1.
    """
    sure, right = np.array(score, float), np.array(overlap, float)
    if not (right == 1).any():
        return []
    issues = np.flatnonzero((right == 0) & (sure >= sure[right == 1].mean()))
    order = issues[np.argsort(-sure[issues], kind="stable")]
    return [Suspect(i, gold[i], said[i], float(1 - sure[i])) for i in order.tolist()]


def _probabilities(scored: Scored, names: Sequence[str]) -> list[list[Any]]:
    """What each line says of each label, in their order."""
    if not all("probabilities" in line for line in scored.lines):
        raise InputError(
            "the folds of this run kept no probabilities",
            where=str(scored.folder.path),
            remedy="an earlier version trained them, or a family of your own: train them again, --overwrite",
        )
    return [listing.of_all(line["probabilities"], names) for line in scored.lines]


def _cleanlab(module: str) -> Any:
    """A module of cleanlab."""
    try:
        return import_module(f"cleanlab.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cleanlab":
            raise
        remedy = "pip install 'bert-ft[cleanlab]'"
        raise InputError("cleanlab, which finds wrong labels, is not installed", remedy=remedy) from None
