"""Which rows make up a batch, and the slices of flat arrays that become its tensors.

The global batch of a step is a function of seed and step alone; processes and micro-batches only divide it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bert_ft.config.recipe import Recipe
from bert_ft.families.features import Features, ranges

MEGABATCH = 50  # batches that are sorted together


@dataclass(frozen=True)
class Plan:
    """The order of training: `epochs` passes over `rows` rows in random batches of `batch_size`.

    With `lengths` each 50 random batches are sorted by length and cut anew, then all batches are shuffled
    (the rule of `transformers`' LengthGroupedSampler, which leaves them sorted, the longest first).
    """

    rows: int
    batch_size: int
    epochs: float
    seed: int
    max_steps: int | None = None
    lengths: np.ndarray | None = None  # given: batches hold rows of near length
    min_steps: int = 1

    @classmethod
    def of(cls, recipe: Recipe, rows: int, seed: int, lengths: np.ndarray | None = None) -> Plan:
        """That of a recipe."""
        least = recipe.min_steps or 1
        return cls(rows, recipe.batch_size, recipe.epochs, seed, recipe.max_steps, lengths, least)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        if self.max_steps is not None:
            return self.max_steps
        return max(self.min_steps, math.ceil(self.epochs * self.steps_per_epoch))

    def epoch(self, step: int) -> float:
        """Epochs done once `step` steps are done."""
        return step / self.steps_per_epoch

    def order(self, epoch: int) -> np.ndarray:
        """(rows,) the order in which an epoch takes the rows."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.rows)
        if self.lengths is None:
            return order
        megabatch = MEGABATCH * self.batch_size
        parts = [order[start : start + megabatch] for start in range(0, self.rows, megabatch)]
        order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in parts])
        full = self.rows // self.batch_size  # an uneven last batch stays the last
        shuffled = random.permutation(full)[:, None] * self.batch_size + np.arange(self.batch_size)
        return np.concatenate([order[shuffled.ravel()], order[full * self.batch_size :]])

    def batches(self, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(step, indices of its global batch) from step `start` on; the first step is 0."""
        order = np.empty(0, np.int64)
        current = -1
        for step in range(start, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != current:
                order = self.order(epoch)
                current = epoch
            yield step, order[position * self.batch_size : (position + 1) * self.batch_size]


def divide(
    indices: np.ndarray, processes: int, rank: int, micro_batches: int, keys: np.ndarray | None = None
) -> list[np.ndarray]:
    """This process's micro-batches of a global batch. Every process gets the same number of them (a
    collective call in one must meet its partner in the others), so an uneven batch can leave one empty. With
    `keys` (of all features) only those of the same key share a micro-batch, and there are as many as that
    takes."""
    shares = np.array_split(indices, processes)
    largest = math.ceil(len(indices) / processes)
    if keys is None:
        return np.array_split(shares[rank], min(micro_batches, max(1, largest)))
    most = max(1, math.ceil(largest / micro_batches))
    parts = [_alike(share, keys, most) for share in shares]
    empty = [shares[rank][:0]] * (max(map(len, parts)) - len(parts[rank]))
    return parts[rank] + empty


def _alike(indices: np.ndarray, keys: np.ndarray, most: int) -> list[np.ndarray]:
    """Parts of at most `most` indices, each of one key."""
    groups = [indices[keys[indices] == key] for key in np.unique(keys[indices])]
    return [group[start : start + most] for group in groups for start in range(0, len(group), most)]


def collate(
    features: Features, indices: np.ndarray, pad_token_id: int, device: torch.device, width: int | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(model inputs, values): token columns padded to the longest row (B, L) and their mask; what the loss
    takes: values (B, ...), targets (B, L) padded with -100, and `mask` (B, L), true at real tokens. L is the
    longest row's length, or `width`."""
    starts = features.offsets[indices]
    lengths = features.lengths[indices]
    longest = max(int(lengths.max(initial=1)), width or 0)
    mask = np.arange(longest) < lengths[:, None]
    # one gather for the batch: positions of real tokens in the flat arrays, in the order of the mask
    source = ranges(starts, lengths)
    inputs = {"attention_mask": torch.from_numpy(mask.astype(np.int64))}

    def padded(column: np.ndarray, fill: int) -> torch.Tensor:
        out = np.full(mask.shape, fill, np.int64)
        out[mask] = column[source]
        return torch.from_numpy(out)

    for key, column in features.tokens.items():
        inputs[key] = padded(column, pad_token_id if key == "input_ids" else 0)
    values = values_of(features, indices)
    values |= {key: padded(column, -100) for key, column in features.targets.items()}
    values["mask"] = inputs["attention_mask"].bool()
    return _to(inputs, device), _to(values, device)


def values_of(features: Features, indices: np.ndarray) -> dict[str, torch.Tensor]:
    """What the loss takes of these features, (B, ...) each. Sets of labels, which are kept in a byte a label,
    are float32."""
    found = {key: torch.from_numpy(column[indices]) for key, column in features.values.items()}
    if "labels" in found and found["labels"].dtype == torch.bool:
        found["labels"] = found["labels"].float()
    return found


def first_equals(features: Features) -> np.ndarray:
    """(N,) for each feature the first one that has the same tokens, in all their columns: itself, mostly."""
    columns = list(features.tokens.values())
    ends = features.offsets.tolist()
    seen: dict[tuple[bytes, ...], int] = {}
    parts = (
        tuple(column[start:end].tobytes() for column in columns) for start, end in itertools.pairwise(ends)
    )
    return np.fromiter((seen.setdefault(part, i) for i, part in enumerate(parts)), np.int64, len(features))


def _to(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    if device.type == "cuda":  # pinned memory is copied while the GPU works on the batch before
        tensors = {key: tensor.pin_memory() for key, tensor in tensors.items()}
    return {key: tensor.to(device, non_blocking=True) for key, tensor in tensors.items()}


def by_length(
    features: Features,
    tokens: int,
    keys: np.ndarray | None = None,
    width: int | None = None,
    rows: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Evaluation batches in length order, longest first, each of at most `tokens` padded positions (or one
    row), and of one key where there are `keys` (N,); of these `rows`, by default of all."""
    keys = np.zeros(len(features), np.int64) if keys is None else keys
    order = np.lexsort((keys, -features.lengths))
    if rows is not None:
        order = order[np.isin(order, rows)]
    batches = []
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(features.lengths[order[start]]), width or 0))
        alike = keys[order[start : start + size]] == keys[order[start]]
        size = len(alike) if alike.all() else int(alike.argmin())
        batches.append(order[start : start + size])
        start += size
    return batches
