"""Contrastive training (`recipe.method = "contrastive"`), for few rows: the encoder learns that rows of one
label are alike and others are not; then the head is fitted to what it makes of the rows.

The two stages are SetFit's (Tunstall et al. 2022). A step takes all pairs of its rows, where SetFit draws
pairs and computes both texts of each: a batch of 16 rows has 120 of them for 16 forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_ft.config.task import Task
from bert_ft.engine import fitting, loop
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Checkpoints, State
from bert_ft.engine.last_linear import LastLinear
from bert_ft.engine.losses import Loss
from bert_ft.engine.vectors import Vectors
from bert_ft.errors import InputError
from bert_ft.families.features import Features


@dataclass
class _Encoder:
    """A model as what is trained in the first stage: its logits are what goes into the last linear layer."""

    network: Any
    adapter: Any
    tokenizer: Any
    accelerator: Any
    sharing: Any


@dataclass
class _Reading:
    """An adapter in whose place the last linear layer is read."""

    task: Task
    head: LastLinear

    def logits(self, outputs: Any) -> Tensor:
        return self.head.logits(outputs)


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
    """Trains a model in place; arguments and result as of `loop.train`. Before each evaluation the head is
    fitted to the encoder as it is, so that the weights that are kept have the head that was scored.

    Raises:
        InputError: rows that have no labels to be alike in, or a training in parts.
    """
    head = LastLinear(model.network, model.adapter)
    _refuse(model, features, head)

    def evaluate_fitted() -> Metrics:
        fitting.fit(Vectors.of(model, features, cached=False), loss or model.adapter.loss)
        return evaluate()

    reading = _Reading(model.adapter.task, head)
    encoder = _Encoder(model.network, reading, model.tokenizer, model.accelerator, model.sharing)
    for parameter in head.module.parameters():
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.network.parameters()):
        raise InputError(
            "with all of the encoder frozen there is nothing to learn from pairs",
            where="recipe.freeze",
            remedy='method = "features"',
        )
    with head.read():
        return loop.train(
            encoder,
            features,
            evaluate=evaluate_fitted,
            log=log,
            checkpoints=checkpoints,
            callbacks=callbacks,
            loss=of_pairs,
        )


def of_pairs(vectors: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean squared difference of the cosines of all pairs of a batch from 1 where the two have the same
    label, from 0 where not; the two kinds count the same.

    Args:
        vectors: (B, D). batch: `labels` (B,), or (B, C) for several labels a row: there the share of labels
            that two rows have in common.
    """
    labels = batch["labels"]
    unit = F.normalize(vectors.float(), dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), 1, device=unit.device)
    cosines = (unit[first] * unit[second]).sum(1)
    if labels.dim() == 1:
        targets = (labels[first] == labels[second]).float()
    else:
        both = torch.minimum(labels[first], labels[second]).sum(1)
        either = torch.maximum(labels[first], labels[second]).sum(1)
        targets = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    alike = targets > 0
    kinds = [part for part in (alike, ~alike) if bool(part.any())]
    errors = (cosines - targets).square()
    if not kinds:  # one row has no pair
        return vectors.float().sum() * 0
    return torch.stack([errors[kind].mean() for kind in kinds]).mean()


def _refuse(model: Any, features: Features, head: LastLinear) -> None:
    task = model.adapter.task
    where = "recipe.method"
    remedy = 'method = "features", or leave it out'
    if head.per_token or "labels" not in features.values:
        message = "contrastive training needs a label for each row, and this family has none"
    elif task.data.problem_type == "regression":
        message = "contrastive training needs labels, and these rows have numbers"
    elif task.recipe.batch_size < 2:
        message = "a batch of one row has no pairs"
        where = "recipe.batch_size"
        remedy = "16, say"
    elif (
        model.accelerator.num_processes > 1
        or task.batching.gradient_accumulation_steps > 1
        or model.sharing.keys(features, task.batching.equal_lengths) is not None
    ):
        message = "contrastive training compares all rows of a batch, which can't be computed in parts here"
        remedy = (
            "one process, without gradient accumulation and equal_lengths, and a head that takes any rows"
        )
    else:
        return
    raise InputError(message, where=where, remedy=remedy)
