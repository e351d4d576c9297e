"""What a frozen encoder makes of rows: the features that a head's last linear layer is fitted to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_ft.engine import batches, feature_cache, inference
from bert_ft.engine.last_linear import LastLinear
from bert_ft.families.features import Features, parts, ranges

POSITIONS = 2**15  # of rows that are fitted to together
BLOCK = 2**17  # tokens whose vectors are made together: half a minute of one core


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
        self.whole = grouped(self, np.arange(len(features)))

    @classmethod
    def of(
        cls,
        model: Any,
        features: Features,
        after: Callable[[int], None] = lambda block: None,
        cached: bool = True,
    ) -> Vectors:
        """Those of a model, block by block, from the cache where they are in it.

        Args:
            after: called with the number of each block once it is made, from 1 on.
            cached: false for an encoder that is being trained, whose vectors nobody asks for again.
        """
        head = LastLinear(model.network, model.adapter)
        weights = _weights(model, head)
        made = []
        for number, block in enumerate(parts(features, BLOCK), 1):
            compute = partial(_vectors, model, head, block)
            made.append(feature_cache.vectors(_key(weights, block), compute) if cached else compute())
            after(number)
        return cls(model, head, features, np.concatenate(made))


@dataclass(frozen=True)
class Part:
    """Features that are computed together.

    Attributes:
        which: (n,) their places in the flat vectors. mask: (B, L) which positions these are, or None: a
            vector a feature. batch: what the loss takes. weight: what they count together.
    """

    which: Tensor
    mask: Tensor | None
    batch: dict[str, Tensor]
    weight: float


def grouped(vectors: Vectors, rows: np.ndarray) -> list[Part]:
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
            batch = batches.values_of(features, group)
        weight = float(features.weights[group].sum())
        parts.append(Part(torch.from_numpy(which), mask, batch, weight))
    return parts


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
            lean=batching.lean,
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
