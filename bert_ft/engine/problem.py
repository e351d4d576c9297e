"""The last linear layer as a problem: the weights of least loss over features, with a penalty on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bert_ft.engine.losses import Loss
from bert_ft.engine.vectors import Part, Vectors

ITERATIONS = 500
MANY = 20_000  # features: more are fitted less exactly, and one fold of them says enough
TINY = 1e-30  # a loss that is none
NOISE = 1e-12  # share of a loss that is rounding


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
        if not precise:
            tolerance = {"gtol": 1e-3, "ftol": 1e-4}
        elif sum(len(part.which) for part in self.parts) > MANY:
            tolerance = {"gtol": 1e-4, "ftol": 1e-6}
        else:
            tolerance = {"gtol": 1e-5}
        return self._least(start, strength, tolerance)

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
            bias = solution[-self.shape[1] :] if self.biased else solution[: self.shape[1]] * 0
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
