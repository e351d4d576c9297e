"""Logits or hidden states of every feature, in the order of the features, whatever the batches and processes
were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from bert_ft import progress
from bert_ft.engine import batches, precision
from bert_ft.engine.sharing import ANY, Reader, Sharing
from bert_ft.families.features import Features, ranges
from bert_ft.kernels import padding_free, products


def predict(
    model: Any,
    adapter: Reader,
    features: Features,
    accelerator: Any,
    *,
    pad: int,
    tokens: int,
    sharing: Sharing = ANY,
    deduplicate: bool = True,
    lean: bool = True,
    **options: Any,
) -> np.ndarray:
    """(N, C) float32 logits, or (T, C) in the order of the flat tokens where the adapter reads something for
    each token. `options` go to the model's forward.

    Batches are made in length order under a budget of `tokens` positions, or of what suits the device,
    of rows that may share one; each is computed by one process and every process ends with all of
    them. With `deduplicate` features of equal tokens are computed once, and `lean` is the key of
    `[batching]`.
    """
    training = model.training
    model.eval()
    first = batches.first_equals(features) if deduplicate else np.arange(len(features))
    computed = np.unique(first)
    keys = sharing.keys(features, sharing.equal_lengths)
    most = useful(tokens, accelerator)
    todo = batches.by_length(features, most, keys, sharing.width, computed)
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    # a sharded model computes on all processes at once: who has a batch less computes one that nobody reads
    idle = math.ceil(len(todo) / accelerator.num_processes) - len(mine)
    batched = mine + [todo[0][:1]] * idle
    flat: _Flat | None = None
    for_others: list[tuple[np.ndarray, np.ndarray]] = []
    with torch.inference_mode(), precision.of_answers(accelerator), products.taken(model, lean, fixed=True):
        for number, indices in enumerate(
            progress.told(batched, sum(map(len, batched)), "rows computed", len)
        ):
            inputs, _ = batches.collate(features, indices, pad, accelerator.device, sharing.width)
            with padding_free.known_lengths(features.lengths[indices].tolist()):
                logits = adapter.logits(model(**inputs, **options)).float()
            if per_token := logits.dim() == 3:
                logits = logits[inputs["attention_mask"].bool()]
            flat = flat or _Flat(features, computed, per_token, logits.shape[-1])
            if number < len(mine) and accelerator.num_processes == 1:
                flat.put(indices, logits.cpu().numpy())
            elif number < len(mine):
                for_others.append((indices, logits.cpu().numpy()))
    model.train(training)
    assert flat is not None
    for indices, values in gather_object(for_others):
        flat.put(indices, values)
    assert (flat.times[computed] == 1).all(), "a feature was computed twice or not at all"
    return flat.of(first) if len(computed) < len(first) else flat.numbers


def useful(tokens: int, accelerator: Any) -> int:
    """So many padded positions of a forward, or as many as a CPU has use for: 1,024 take 1.04 of the time of
    4,096 in fp32, 1.06 in bf16, and less memory, which then hardly differs from batch to batch."""
    return min(tokens, 1024) if accelerator.device.type == "cpu" else tokens


class _Flat:
    """The numbers of the features that are computed, one behind the other: written once, where they stay.

    Attributes:
        counts: (N,) how many each feature has. starts: (N,) where those of a computed one begin.
        times: (N,) how often each was put in.
    """

    def __init__(self, features: Features, computed: np.ndarray, per_token: bool, width: int) -> None:
        self.counts = features.lengths if per_token else np.ones(len(features), np.int64)
        self.starts = np.zeros(len(features), np.int64)
        self.starts[computed] = np.cumsum(self.counts[computed]) - self.counts[computed]
        self.times = np.zeros(len(features), np.int64)
        self.numbers = np.empty((int(self.counts[computed].sum()), width), np.float32)

    def put(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Takes those of some features, in the order of these."""
        self.numbers[ranges(self.starts[indices], self.counts[indices])] = values
        self.times[indices] += 1

    def of(self, first: np.ndarray) -> np.ndarray:
        """Those of every feature, each being equal to a `first` that was computed."""
        found: np.ndarray = self.numbers[ranges(self.starts[first], self.counts)]
        return found
