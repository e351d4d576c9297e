"""Feature-based training (`recipe.method = "features"`): the encoder stays as it is, what it makes of the
rows is computed once, and the head's last linear layer is fitted to it in seconds.

What is minimised is the adapter's own loss, so that class weights, several labels, numbers, windows and the
labels of words need no case of their own; for one label a row it is scikit-learn's `LogisticRegression`, for
numbers its `Ridge`. How strongly weights are held back is chosen by cross-validation over the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_ft.engine import batches
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Checkpoints, Interrupted, State
from bert_ft.engine.losses import Loss
from bert_ft.engine.problem import MANY, Problem
from bert_ft.engine.vectors import BLOCK, Vectors, grouped
from bert_ft.families.features import Features, parts

FOLDS = 5
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(4, -9, -1))
"""Of the penalty on the weights of centred features of mean variance 1, beside the mean loss."""
ALONE = 1.0  # strength for one row
ENOUGH = 2  # strengths in a row that are worse than the best before: weaker ones are not tried


def train(
    model: Any,
    features: Features,
    *,
    evaluate: Callable[[], Metrics],
    log: Callable[[dict[str, Any]], None],
    checkpoints: Checkpoints | None = None,
    callbacks: Sequence[Callback] = (),
    loss: Loss | None = None,
) -> State:
    """Fits the head of a model in place; arguments and result as of `loop.train`. A step is a block of rows
    whose vectors are made, the last of them fits the head; then comes the one evaluation.

    Raises:
        Interrupted: after a signal, between two blocks; those of enough rows are in the cache.
    """
    recipe = model.adapter.task.recipe
    state = State()
    plan = batches.Plan(len(list(parts(features, BLOCK))), 1, 1.0, model.adapter.task.run.seed)
    listeners = list(callbacks) if model.accelerator.is_main_process else []

    def after(block: int) -> None:
        if checkpoints is not None and checkpoints.stopped_by is not None:
            raise Interrupted(checkpoints.stopped_by, block)
        for listener in listeners if block < plan.steps else []:
            listener.on_step(block, None)

    for listener in listeners:
        listener.on_start(plan, features)
    try:
        began = time.perf_counter()
        fitted = fit(Vectors.of(model, features, after), loss or model.adapter.loss)
        state.step = plan.steps
        state.rows = len(features)
        state.tokens = int(features.lengths.sum())
        state.seconds = time.perf_counter() - began
        state.first_step = time.perf_counter()
        entry = {"step": state.step, "epoch": 1.0, "loss": fitted.loss, "learning_rate": None}
        tried = [{"penalty": penalty, "loss": loss} for penalty, loss in fitted.held_out.items()]
        log({**entry, "grad_norm": None, "penalty": fitted.strength, "held_out": tried})
        for listener in listeners:
            listener.on_step(state.step, entry)
        metrics = evaluate()
        log({"step": state.step, "epoch": 1.0, "evaluation": metrics})
        if recipe.keep == "best":
            state.best_step = state.step
        for listener in listeners:
            listener.on_evaluate(state.step, metrics, True)
    finally:
        for listener in listeners:
            listener.on_end()
    return state


@dataclass(frozen=True)
class Fitted:
    """What a fit ended with.

    Attributes:
        strength: of the penalty. loss: the mean loss of the rows, without it.
        held_out: strength -> mean loss of rows that were not fitted to, of those that were tried.
    """

    strength: float
    loss: float
    held_out: dict[float, float]


def fit(vectors: Vectors, loss: Loss) -> Fitted:
    """Fits the layer to all rows, as strongly held back as cross-validation says; sets its weights."""
    held_out, near = _cross_validate(vectors, loss)
    best = min(held_out, key=held_out.__getitem__, default=ALONE)
    problem = Problem(vectors, vectors.whole, loss)
    solution = problem.solve(best, problem.constant if near is None else near)
    problem.write(solution)
    return Fitted(best, problem.mean(solution, vectors.whole), held_out)


def _cross_validate(vectors: Vectors, loss: Loss) -> tuple[dict[float, float], np.ndarray | None]:
    """Strength -> mean loss of rows that were held out, from the strongest on, until weaker ones are
    worse; and a solution near that of all rows."""
    fold = folds_of(vectors)
    folds = int(fold.max()) + 1
    if folds == 1:  # of one row nothing can be held out
        return {}, None
    problems = []
    for number in range(folds if len(fold) <= MANY else 1):  # of many rows one fold says enough
        fitted = Problem(vectors, grouped(vectors, np.flatnonzero(fold != number)), loss)
        problems.append((fitted, grouped(vectors, np.flatnonzero(fold == number))))
    solutions = [problem.constant for problem, _ in problems]
    weights = [max(sum(part.weight for part in held), 1e-12) for _, held in problems]
    result: dict[float, float] = {}
    near = solutions[0]
    for strength in STRENGTHS if len(fold) <= MANY else STRENGTHS[4:]:  # which need no strong penalty
        solutions = [
            problem.solve(strength, start, precise=False)
            for (problem, _), start in zip(problems, solutions, strict=True)
        ]
        means = [
            problem.mean(solution, held)
            for (problem, held), solution in zip(problems, solutions, strict=True)
        ]
        result[strength] = float(np.average(means, weights=weights))
        since = len(result) - 1 - int(np.argmin(list(result.values())))
        if since == 0:
            near = solutions[0]
        if since >= ENOUGH:
            break
    return result, near


def folds_of(vectors: Vectors) -> np.ndarray:
    """(N,) the fold of each feature: those of a row are in one, and each has its share of every label."""
    owners = vectors.features.values.get("row", np.arange(len(vectors.features)))
    rows, first = np.unique(owners, return_index=True)
    order = np.random.default_rng(vectors.seed).permutation(len(rows))
    labels = vectors.features.values.get("labels")
    if labels is not None and labels.ndim == 1:
        order = order[np.argsort(labels[first][order], kind="stable")]
    fold_of = np.empty(len(rows), np.int64)
    fold_of[order] = np.arange(len(rows)) % min(FOLDS, len(rows))
    result: np.ndarray = fold_of[np.searchsorted(rows, owners)]
    return result
