"""Logits or hidden states of every feature, in the order of the features, whatever the batches and processes
were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from bert_ft import progress
from bert_ft.engine import batches
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

    Batches are made in length order under a budget of `tokens` positions, of rows that may share one; each is
    computed by one process and every process ends with all of them. With `deduplicate` features of equal
    tokens are computed once, and `lean` is the key of `[batching]`.
    """
    training = model.training
    model.eval()
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    per_token = False
    first = batches.first_equals(features) if deduplicate else np.arange(len(features))
    keys = sharing.keys(features, sharing.equal_lengths)
    todo = batches.by_length(features, tokens, keys, sharing.width, np.unique(first))
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    # a sharded model computes on all processes at once: who has a batch less computes one that nobody reads
    idle = math.ceil(len(todo) / accelerator.num_processes) - len(mine)
    # one autocast around all of them: weights are cast once
    with torch.inference_mode(), accelerator.autocast(), products.taken(model, lean, fixed=True):
        batched = mine + [todo[0][:1]] * idle
        for indices in progress.told(batched, sum(map(len, batched)), "rows computed", len):
            inputs, _ = batches.collate(features, indices, pad, accelerator.device, sharing.width)
            with padding_free.known_lengths(features.lengths[indices].tolist()):
                logits = adapter.logits(model(**inputs, **options)).float()
            if per_token := logits.dim() == 3:
                logits = logits[inputs["attention_mask"].bool()]
            if len(rows) < len(mine):
                values.append(logits.cpu().numpy())
                rows.append(indices)
    model.train(training)
    order, flat = np.concatenate(gather_object(rows)), np.concatenate(gather_object(values))
    assert len(order) == len(np.unique(first)), "a feature was computed twice or not at all"
    # where the numbers of each feature that was computed begin in `flat`, and how many there are
    counts = features.lengths if per_token else np.ones(len(features), np.int64)
    starts = np.empty(len(features), np.int64)
    starts[order] = np.cumsum(counts[order]) - counts[order]
    result: np.ndarray = flat[ranges(starts[first], counts)]
    return result
