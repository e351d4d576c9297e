"""Feature-based training (`recipe.method = "features"`): the encoder stays as it is, what it makes of the
rows is computed once, and the head's last linear layer is fitted to it in seconds.

What is minimised is the adapter's own loss, so that class weights, several labels, numbers, windows and the
labels of words need no case of their own; for one label a row it is scikit-learn's `LogisticRegression`, for
numbers its `Ridge`. How strongly weights are held back is chosen by cross-validation over the rows.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_ft.engine import batches, feature_cache, inference
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Checkpoints, Interrupted, State
from bert_ft.engine.last_linear import LastLinear
from bert_ft.families.features import Features, parts, ranges

Loss = Callable[[Tensor, Mapping[str, Tensor]], Tensor]

FOLDS = 5
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(4, -9, -1))
"""Of the penalty on the weights of centred features of mean variance 1, beside the mean loss."""
ALONE = 1.0  # strength for one row
ENOUGH = 2  # strengths in a row that are worse than the best before: weaker ones are not tried
POSITIONS = 2**15  # of rows that are fitted to together
BLOCK = 2**17  # tokens whose vectors are made together: half a minute of one core
ITERATIONS = 500
TINY = 1e-30  # a loss that is none
NOISE = 1e-12  # share of a loss that is rounding


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
        fitted = Vectors.of(model, features, after).fit(loss or model.adapter.loss)
        state.step = plan.steps
        state.rows = len(features)
        state.tokens = int(features.lengths.sum())
        state.seconds = time.perf_counter() - began
        state.first_step = time.perf_counter()
        entry = {"step": state.step, "epoch": 1.0, "loss": fitted.loss, "learning_rate": None}
        log({**entry, "grad_norm": None, "strength": fitted.strength, "held_out": fitted.held_out})
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
    held_out: dict[str, float]


class Vectors:
    """What goes into the last linear layer, for each row or for each of its tokens, with all that the loss
    takes.

    Attributes:
        module: the layer. flat: (N, D), or (T, D), float32.
    """

    def __init__(self, model: Any, head: LastLinear, features: Features, flat: np.ndarray) -> None:
        self.module = head.module
        self.per_token = head.per_token
        self.features = features
        self.flat = torch.from_numpy(np.require(flat, requirements="W"))  # the cache's can't be written
        self.pad = model.tokenizer.pad_token_id
        self.seed = model.adapter.task.run.seed
        self.center = self.flat.mean(dim=0)
        # one for all: scaled apart, features that hardly differ would count as much as any (few rows: 1 to 3
        # points less)
        self.scale = float(self.flat.var(dim=0, unbiased=False).mean().sqrt().clamp(min=1e-12))
        self.whole = _grouped(self, np.arange(len(features)))

    @classmethod
    def of(cls, model: Any, features: Features, after: Callable[[int], None] = lambda block: None) -> Vectors:
        """Those of a model, block by block, from the cache where they are in it.

        Args:
            after: called with the number of each block once it is made, from 1 on.
        """
        head = LastLinear(model.network, model.adapter)
        weights = _weights(model, head)
        made = []
        for number, block in enumerate(parts(features, BLOCK), 1):
            made.append(feature_cache.vectors(_key(weights, block), partial(_vectors, model, head, block)))
            after(number)
        return cls(model, head, features, np.concatenate(made))

    def fit(self, loss: Loss) -> Fitted:
        """Fits the layer to all rows, as strongly held back as cross-validation says; sets its weights."""
        held_out = self._cross_validate(loss)
        best = min(held_out, key=held_out.__getitem__, default=ALONE)
        problem = Problem(self, self.whole, loss)
        solution = problem.solve(best, problem.constant)
        problem.write(solution)
        return Fitted(best, problem.mean(solution, self.whole), {f"{k:.4g}": v for k, v in held_out.items()})

    def _cross_validate(self, loss: Loss) -> dict[float, float]:
        """Strength -> mean loss of rows that were held out, from the strongest on, as long as it is of
        use."""
        fold = self._folds()
        folds = int(fold.max()) + 1
        if folds == 1:  # of one row nothing can be held out
            return {}
        problems = []
        for number in range(folds):
            fitted = Problem(self, _grouped(self, np.flatnonzero(fold != number)), loss)
            problems.append((fitted, _grouped(self, np.flatnonzero(fold == number))))
        solutions = [problem.constant for problem, _ in problems]
        weights = [max(sum(part.weight for part in held), 1e-12) for _, held in problems]
        result: dict[float, float] = {}
        for strength in STRENGTHS:
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
            if since >= ENOUGH:
                break
        return result

    def _folds(self) -> np.ndarray:
        """(N,) the fold of each feature: those of a row are in one, and each has its share of every label."""
        owners = self.features.values.get("row", np.arange(len(self.features)))
        rows, first = np.unique(owners, return_index=True)
        order = np.random.default_rng(self.seed).permutation(len(rows))
        labels = self.features.values.get("labels")
        if labels is not None and labels.ndim == 1:
            order = order[np.argsort(labels[first][order], kind="stable")]
        fold_of = np.empty(len(rows), np.int64)
        fold_of[order] = np.arange(len(rows)) % min(FOLDS, len(rows))
        result: np.ndarray = fold_of[np.searchsorted(rows, owners)]
        return result


@dataclass(frozen=True)
class Part:
    """Features that are computed together.

    Attributes: which: (n,) their places in the flat vectors. mask: (B, L) which positions these are, or None:
        a vector a feature. batch: what the loss takes. weight: what they count together.
    """

    which: Tensor
    mask: Tensor | None
    batch: dict[str, Tensor]
    weight: float


def _grouped(vectors: Vectors, rows: np.ndarray) -> list[Part]:
    """The features of these rows in parts."""
    features = vectors.features
    cpu = torch.device("cpu")
    if not len(rows):
        return []
    if vectors.per_token:
        groups: Sequence[np.ndarray] = batches.by_length(features, POSITIONS, rows=rows)
    else:
        groups = np.array_split(rows, math.ceil(len(rows) / POSITIONS))
    parts = []
    for group in groups:
        narrow = group if vectors.per_token else group[:0]
        _, batch = batches.collate(features, narrow, vectors.pad, cpu)
        mask = batch["mask"] if vectors.per_token else None
        if vectors.per_token:
            which = ranges(features.offsets[group], features.lengths[group])
        else:
            which = group
            batch = {key: torch.from_numpy(column[group]) for key, column in features.values.items()}
        weight = float(features.weights[group].sum())
        parts.append(Part(torch.from_numpy(which), mask, batch, weight))
    return parts


class Problem:
    """The mean loss of some rows as a function of the layer's weights over features that are centred and of
    mean variance 1, with a penalty on these.

    A solution is a flat float64 array: the weights (D, C), and behind them the biases (C,).
    """

    def __init__(self, vectors: Vectors, parts: Sequence[Part], loss: Loss) -> None:
        self.vectors = vectors
        self.parts = parts
        self.loss = loss
        self.shape = vectors.flat.shape[1], vectors.module.out_features
        self.biased = vectors.module.bias is not None
        self.weight = max(sum(part.weight for part in parts), 1e-12)
        self.inputs = [vectors.flat[part.which] for part in parts]
        self.unit = 1.0  # of the loss
        self.learnt = False  # whether there is nothing left to learn from features
        self._begin()

    @property
    def size(self) -> int:
        """How many numbers a solution has."""
        return self.shape[1] * (self.shape[0] + self.biased)

    def _begin(self) -> None:
        """Finds the solution without any feature, by its biases alone: where each search begins. Its loss is
        what losses are measured in, so that numbers of any size are fitted alike."""
        self.constant = np.zeros(self.size)
        self.unit = zero = max(self._value(self.constant, plain=True)[0], TINY)
        for _ in range(2 * self.biased):  # in its own units the second time
            biases = np.arange(self.size) >= self.size - self.shape[1]
            self.constant = self._least(self.constant, 0.0, {"gtol": 1e-8, "ftol": 1e-12}, biases)
            self.unit = max(self.unit * self._value(self.constant, plain=True)[0], TINY)
        self.learnt = self.unit <= NOISE * zero

    def _least(
        self,
        start: np.ndarray,
        strength: float,
        tolerance: dict[str, float],
        biases: np.ndarray | None = None,
    ) -> np.ndarray:
        """Where the loss and the penalty are least; with `biases` of these numbers alone, without features.
        The search is in numbers of the size that the loss has: losses are squares."""
        from scipy.optimize import minimize

        free = np.ones(self.size, bool) if biases is None else biases
        slopes = np.flatnonzero(free[: self.shape[0] * self.shape[1]])
        scale = math.sqrt(self.unit)
        solution = start.copy()

        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            solution[free] = x * scale
            total, gradient = self._value(solution, plain=biases is not None)
            gradient = gradient[free] * scale
            gradient[slopes] += strength * x[slopes]
            return total + strength / 2 * float(x[slopes] @ x[slopes]), gradient

        options = {"maxiter": ITERATIONS, **tolerance}
        solution[free] = (
            scale * minimize(value, start[free] / scale, jac=True, method="L-BFGS-B", options=options).x
        )
        return solution

    def _value(self, x: np.ndarray, plain: bool = False) -> tuple[float, np.ndarray]:
        """The mean loss at a solution, in units, and its gradient; `plain` without features."""
        leaf = torch.tensor(x, dtype=torch.float32, requires_grad=True)
        total = 0.0
        for part, inputs in zip(self.parts, self.inputs, strict=True):
            losses = self._losses(leaf, part, None if plain else inputs) / (self.weight * self.unit)
            losses.backward()  # type: ignore[no-untyped-call]
            total += float(losses.detach())
        assert leaf.grad is not None
        return total, leaf.grad.double().numpy()

    def solve(self, strength: float, start: np.ndarray, precise: bool = True) -> np.ndarray:
        """The solution with the least loss, from a start on; not `precise`: near enough to compare
        strengths."""
        if self.learnt:
            return self.constant
        return self._least(start, strength, {"gtol": 1e-5} if precise else {"gtol": 1e-3, "ftol": 1e-4})

    def mean(self, solution: np.ndarray, parts: Sequence[Part]) -> float:
        """The mean loss of rows, without the penalty."""
        leaf = torch.tensor(solution, dtype=torch.float32)
        weight = max(sum(part.weight for part in parts), 1e-12)
        with torch.no_grad():
            total = sum(float(self._losses(leaf, part, self.vectors.flat[part.which])) for part in parts)
        return total / weight

    def _losses(self, solution: Tensor, part: Part, inputs: Tensor | None) -> Tensor:
        """The weighted losses of a part, summed; without inputs those of the biases alone."""
        if inputs is None:
            bias = (
                solution[-self.shape[1] :]
                if self.biased
                else solution.new_zeros(self.shape[1]) + solution[0] * 0
            )
            logits = bias.expand(len(part.which), -1)
        else:
            weight, bias = self._of(solution)
            logits = torch.addmm(bias, inputs, weight)
        if part.mask is not None:
            wide = logits.new_zeros(*part.mask.shape, logits.shape[1])
            logits = wide.index_put((part.mask,), logits)
        losses = self.loss(logits, part.batch)
        return losses.sum() if losses.dim() else losses * part.weight

    def _of(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """(D, C) weights and (C,) biases of the features as they are."""
        slopes = solution[: self.shape[0] * self.shape[1]].reshape(self.shape)
        weight = slopes / self.vectors.scale
        if not self.biased:
            return weight, weight.new_zeros(self.shape[1])
        return weight, solution[-self.shape[1] :] - self.vectors.center @ weight

    @torch.no_grad()
    def write(self, solution: np.ndarray) -> None:
        """Sets the weights of the layer."""
        weight, bias = self._of(torch.tensor(solution, dtype=torch.float32))
        self.vectors.module.weight.copy_(weight.T)
        if self.biased:
            self.vectors.module.bias.copy_(bias)


def _vectors(model: Any, head: LastLinear, features: Features) -> np.ndarray:
    batching = model.adapter.task.batching
    with head.read():
        return inference.predict(
            model.network,
            head,
            features,
            model.accelerator,
            pad=model.tokenizer.pad_token_id,
            tokens=batching.eval_tokens,
            sharing=model.sharing,
            deduplicate=batching.deduplicate,
        )


def _weights(model: Any, head: LastLinear) -> bytes:
    """What vectors follow from beside their tokens: the network up to the layer, as a digest."""
    own = {id(parameter) for parameter in head.module.parameters()}
    config = model.network.config.to_dict() | {"id2label": None, "label2id": None}
    digest = hashlib.sha256(f"{model.accelerator.mixed_precision} {sorted(config.items())}".encode())
    for name, parameter in model.network.named_parameters():
        if id(parameter) not in own:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


def _key(weights: bytes, features: Features) -> str:
    """The name of vectors in the cache: 32 hex digits."""
    digest = hashlib.sha256(weights)
    for column in (features.offsets, *(features.tokens[key] for key in sorted(features.tokens))):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:32]
