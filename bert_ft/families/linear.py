"""Baselines for texts with labels or numbers: the majority, a bag of words, and an encoder as it is.

Each gives scores as the head of a model would, so that the adapter makes answers and metrics of them as it
does of a model's.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_ft.data.rows import Rows
from bert_ft.families.base import FROZEN, Adapter, Embed, NotMeasured
from bert_ft.families.features import Features
from bert_ft.families.words import ALONE

CERTAIN = 20.0  # the logit of a label that all or none of the rows have, or more extreme
LARGE = 2_000_000  # rows x labels from which lbfgs takes more than some seconds,
VERY_LARGE = 4_000_000  # and any solver
TERM = rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]"
"""A word, a mark, or a letter of a script without spaces between words (Chinese, Japanese, Thai, Lao)."""
Answers = Iterator[dict[str, np.ndarray]]
ROLES = ("text", "text_pair")


def majority(adapter: Adapter, train: Rows, sets: list[Rows], embed: Embed) -> Answers:
    """What is most frequent (the mean, of numbers), whatever the text."""
    targets = _targets(adapter, train)
    if targets.ndim == 1 and targets.dtype.kind == "i":
        shares = np.bincount(targets, minlength=len(adapter.labels)) / len(targets)
        logits = np.log(np.maximum(shares, np.exp(-CERTAIN)))
    else:
        logits = np.atleast_1d(targets.mean(axis=0))
        logits = _log_odds(logits) if targets.dtype == bool else logits
    for rows in sets:
        yield _decoded(adapter, np.tile(logits, (len(rows), 1)), rows)


def tfidf(adapter: Adapter, train: Rows, sets: list[Rows], embed: Embed) -> Answers:
    """Words and pairs of words, weighed by tf-idf, through logistic regression (ridge regression for
    numbers, nearest means for more labels than can be fitted in seconds); each text of a pair has columns of
    its own."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    found = re.compile(TERM)
    vectorizers = {
        role: TfidfVectorizer(token_pattern=TERM, ngram_range=(1, 2), sublinear_tf=True)
        for role in ROLES
        if role in train.table.column_names and any(map(found.search, train.table[role].to_pylist()))
    }
    if not vectorizers:  # texts without a word
        raise NotMeasured

    def matrix(rows: Rows, fit: bool = False) -> Any:
        parts = []
        for role, vectorizer in vectorizers.items():
            column = rows.table[role].to_pylist()
            parts.append(vectorizer.fit_transform(column) if fit else vectorizer.transform(column))
        return sparse.hstack(parts, format="csr")

    yield from _linear(adapter, matrix(train, fit=True), train, ((rows, matrix(rows)) for rows in sets), 10.0)


def frozen(adapter: Adapter, train: Rows, sets: list[Rows], embed: Embed) -> Answers:
    """The checkpoint's vectors of the texts, as `bert-ft embed` has them, through logistic regression; of a
    pair both, their difference and their product (Conneau et al. 2017)."""

    def matrix(rows: Rows) -> np.ndarray:
        found = [embed(rows.table[role].to_pylist()) for role in ROLES if role in rows.table.column_names]
        if len(found) == 2:
            found += [np.abs(found[0] - found[1]), found[0] * found[1]]
        result: np.ndarray = np.concatenate(found, axis=1)
        return result

    own = matrix(train)
    center, scale = own.mean(axis=0), max(float(own.std()), 1e-12)
    scored = ((rows, (matrix(rows) - center) / scale) for rows in sets)
    yield from _linear(adapter, (own - center) / scale, train, scored, 0.01)


def _linear(
    adapter: Adapter, matrix: Any, train: Rows, scored: Iterator[tuple[Rows, Any]], strength: float
) -> Answers:
    """Fits a linear model and answers; `strength`: scikit-learn's `C`, a tenth of the inverse of Ridge's
    `alpha`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    targets = _targets(adapter, train)

    def logistic(labels: np.ndarray) -> Any:
        large = len(labels) * len(np.unique(labels)) > LARGE
        return LogisticRegression(C=strength, max_iter=100, solver="saga" if large else "lbfgs", tol=1e-3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that is near its best will do
        if targets.dtype.kind == "f":
            ridge = Ridge(alpha=10 / strength).fit(matrix, targets)
            answers = ((rows, ridge.predict(values)[:, None]) for rows, values in scored)
        elif targets.size > VERY_LARGE and targets.dtype == bool:
            raise NotMeasured
        elif targets.dtype == bool:
            columns = [
                logistic(column).fit(matrix, column) if 0 < column.sum() < len(column) else column.mean()
                for column in targets.T
            ]
            answers = ((rows, _columns(columns, values)) for rows, values in scored)
        else:
            present = np.unique(targets)
            width = len(adapter.labels)
            if len(targets) * len(present) > VERY_LARGE:
                means = _means(matrix, np.searchsorted(present, targets))
                answers = ((rows, _nearest(means, values, present, width)) for rows, values in scored)
            else:
                model = logistic(targets).fit(matrix, targets) if len(present) > 1 else None
                answers = ((rows, _classes(model, values, present, width)) for rows, values in scored)
        for rows, logits in answers:
            yield _decoded(adapter, logits, rows)


def _columns(models: list[Any], values: Any) -> np.ndarray:
    """(N, C) logits of a model a label; of a share where all or none of the training rows have it."""
    height = values.shape[0]
    return np.stack(
        [
            model.decision_function(values) if hasattr(model, "coef_") else np.full(height, _log_odds(model))
            for model in models
        ],
        axis=1,
    )


def _classes(model: Any, values: Any, present: np.ndarray, labels: int) -> np.ndarray:
    """(N, C) logits; a label without a training row is never the answer."""
    result = np.full((values.shape[0], labels), -1000.0)
    if model is None:
        result[:, present] = 0.0
    else:
        found = model.decision_function(values)
        result[:, present] = np.stack([-found / 2, found / 2], axis=1) if found.ndim == 1 else found
    return result


def _means(matrix: Any, classes: np.ndarray) -> Any:
    """(C, F) the mean of each class's rows, of length 1: nearest means (Rocchio 1971) take no fitting."""
    from scipy import sparse
    from sklearn.preprocessing import normalize

    members = sparse.csr_array((np.ones(len(classes)), (classes, np.arange(len(classes)))))
    return normalize(members @ matrix)


def _nearest(means: Any, values: Any, present: np.ndarray, labels: int) -> np.ndarray:
    """(N, C) cosines to the mean of each label; a label without a training row is never the answer."""
    from sklearn.preprocessing import normalize

    found = normalize(values) @ means.T
    result = np.full((values.shape[0], labels), -1000.0)
    result[:, present] = found.toarray() if hasattr(found, "toarray") else found
    return result


def _targets(adapter: Adapter, rows: Rows) -> np.ndarray:
    """(N,) label ids, (N, C) bool, or (N,) numbers."""
    targets = adapter.references(rows)
    return targets.astype(np.float64) if targets.dtype.kind == "f" else targets


def _log_odds(share: Any) -> Any:
    return np.clip(
        np.log(np.maximum(share, 1e-12) / np.maximum(1 - np.asarray(share), 1e-12)), -CERTAIN, CERTAIN
    )


def _decoded(adapter: Adapter, logits: np.ndarray, rows: Rows) -> dict[str, np.ndarray]:
    """What the adapter makes of one feature a row."""
    features = Features(np.arange(len(rows) + 1), {}, {}, np.ones(len(rows)))
    return adapter.decode(logits, features, rows)


BASELINES = {"majority": majority, "tf-idf": tfidf, FROZEN: frozen}
