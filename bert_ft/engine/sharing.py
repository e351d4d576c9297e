"""Which rows may share a batch, so that an answer is a function of its row.

Padding is meant to change nothing. In some architectures it does: a convolution, a pooling or a Fourier transform reads
it, or a head takes the last position of the batch. No list of names says which: the model is asked when it is loaded.
Five ragged rows are answered together and one by one, in evaluation mode; where real tokens get something else, rows
share a batch only with rows of their own length.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bert_ft.adapters import tokenizing
from bert_ft.adapters.base import Adapter, Features
from bert_ft.engine import batches, unpadding
from bert_ft.errors import InputError

LONGEST = 37  # tokens of the longest row asked about: no pooling comes out even, and no token is far from the padding
CLOSE = 1e-5  # differences of outputs as a share of their spread: this close they are rounding in fp32, and are in fp64
APART = 1e-2  # beyond this they are no rounding of bf16, where a copy in fp64 is too large or can't be computed
COPIED = 500_000_000  # parameters of the largest model that is copied in fp64
NOTE = (
    "equal lengths: padding changes this model's answers ({difference:.0e} of their spread), so rows are evaluated and "
    "predicted in batches of one length; batching.equal_lengths = true trains so too"
)


@dataclass(frozen=True)
class Sharing:
    """Which rows may be in one forward.

    Attributes:
        equal_lengths: in evaluation and prediction only rows of one length.
        end_token: only rows that have equally many of this token, which the head looks for.
        width: positions that every batch is padded to; None: its longest row.
    """

    equal_lengths: bool = False
    end_token: int | None = None
    width: int | None = None

    def keys(self, features: Features, equal_lengths: bool) -> np.ndarray | None:
        """(N,) a number for each feature: only features of the same number may share a forward. None: all may."""
        keys = np.zeros((len(features), 2), np.int64)
        if equal_lengths:
            keys[:, 0] = features.lengths
        if self.end_token is not None:
            ends = np.concatenate([[0], np.cumsum(features.tokens["input_ids"] == self.end_token)])
            keys[:, 1] = ends[features.offsets[1:]] - ends[features.offsets[:-1]]
        found, numbers = np.unique(keys, axis=0, return_inverse=True)
        return numbers.reshape(-1) if len(found) > 1 else None


ANY = Sharing()


def find(
    model: Any, adapter: Adapter, tokenizer: Any, max_length: int, known: Sharing = ANY
) -> tuple[Sharing, list[str]]:
    """Asks a model which rows may share its batches: five ragged rows together and each alone.

    Args:
        model: on its device, with the family's head, padding-free or not.
        known: what its configuration says already.
    Returns:
        the answer, and a line for the user where it is not that all rows may.
    Raises:
        InputError: a model that text alone doesn't run, or whose tokens know nothing of each other.
    """
    probe = _probe(tokenizer, model, max_length)
    if probe is None or known.width is not None:  # batches of one width are of one shape
        return known, []
    pad = tokenizer.pad_token_id
    with _asked(model):
        try:
            alone, together = _outputs(model, adapter, probe, pad, 1), _outputs(model, adapter, probe, pad, len(probe))
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError) as error:
            raise InputError(f"this model does not run on rows of text: {_line(error)}", where=model.config.model_type,
                             remedy="does it need more than token ids? take an encoder of text") from error  # fmt: skip
        _refuse_deaf(model, alone, probe)
        difference = _difference(together, alone)
        if difference > CLOSE:
            again = _difference(_outputs(model, adapter, probe, pad, 1), alone)
            if again > CLOSE:
                message = f"this model answers the same row differently each time (by {again:.0e} of the spread)"
                raise InputError(message, where=model.config.model_type, remedy="take another checkpoint")
            difference = _exactly(model, adapter, probe, pad, difference)
    if difference <= CLOSE:
        return known, []
    return replace(known, equal_lengths=True), [NOTE.format(difference=difference)]


def _probe(tokenizer: Any, model: Any, max_length: int) -> Features | None:
    """Five rows with the tokenizer's special tokens around random ones; None where not even two lengths fit. The last is
    the first with another token near its end."""
    frame = tokenizing.frame(tokenizer)
    # where an architecture works in chunks, a row is longer than one
    chunks = [getattr(model.config, name, 0) or 0 for name in ("lsh_attn_chunk_length", "local_attn_chunk_length")]
    longest = min(max_length, max(LONGEST, *(chunk + 5 for chunk in chunks))) - frame.size
    if longest < 4:
        return None
    random = np.random.default_rng(0)
    special = [*tokenizer.all_special_ids, model.config.pad_token_id, getattr(model.config, "eos_token_id", None)]
    ids = np.setdiff1d(np.arange(min(len(tokenizer), vocabulary(model))), [i for i in special if isinstance(i, int)])
    bodies = [random.choice(ids, size) for size in (longest, 1, longest // 2, 2, longest)]
    bodies[4] = bodies[0].copy()
    bodies[4][-2] = ids[0] if bodies[0][-2] != ids[0] else ids[-1]
    (start, before), (rest, after) = frame.parts[0], frame.parts[-1]
    columns = {}
    for name, column in frame.columns.items():
        ends = column[start : start + before], column[rest : rest + after]
        middle = bodies if name == "input_ids" else [np.full(len(body), frame.kinds[0]) for body in bodies]
        columns[name] = np.concatenate([part for body in middle for part in (ends[0], body, ends[1])])
    lengths = np.array([frame.size + len(body) for body in bodies])
    return Features(np.concatenate([[0], np.cumsum(lengths)]), columns, {}, np.ones(len(bodies)))


def vocabulary(model: Any) -> int:
    """How many tokens a model has embeddings for."""
    embeddings = model.get_input_embeddings()
    size = getattr(embeddings, "num_embeddings", None) or getattr(model.config, "vocab_size", None)
    if size is None:  # a quantised embedding, say
        size = embeddings.weight.shape[0]
    return int(size)


def _outputs(model: nn.Module, adapter: Adapter, probe: Features, pad: int, many: int) -> list[list[np.ndarray]]:
    """The float64 outputs of each row, `many` rows a batch: its logits, and the hidden states of its tokens where the
    encoder gives one a token."""
    inner = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    device, seen = next(model.parameters()).device, list[Any]()
    # a model without a head of its own is its own base
    body = getattr(inner, "base_model", inner)
    handle = body.register_forward_hook(lambda _, __, output: seen.append(output))
    results = list[list[np.ndarray]]()
    try:
        for first in range(0, len(probe), many):
            rows = np.arange(first, min(first + many, len(probe)))
            inputs, _ = batches.collate(probe, rows, pad, device)
            mask = inputs["attention_mask"].bool().cpu().numpy()
            seen.clear()
            with unpadding.known_lengths(probe.lengths[rows].tolist()):
                logits = adapter.logits(model(**inputs))
            hidden = _first(seen[0]) if seen else None
            tensors = [logits]
            if isinstance(hidden, Tensor) and hidden.dim() == 3 and hidden.shape[:2] == mask.shape:
                tensors.append(hidden)
            arrays = [tensor.double().cpu().numpy() for tensor in tensors]
            results += [[a[row, real] if a.ndim == 3 else a[row] for a in arrays] for row, real in enumerate(mask)]
    finally:
        handle.remove()
    return results


def _first(output: Any) -> Any:
    return output if isinstance(output, Tensor) else output[0]


def _difference(ones: list[list[np.ndarray]], others: list[list[np.ndarray]]) -> float:
    """The largest difference between the outputs of the same rows, as a share of their spread over all rows."""
    worst = 0.0
    for some, same in zip(zip(*ones, strict=False), zip(*others, strict=False), strict=False):
        if all(a.shape == b.shape for a, b in zip(some, same, strict=True)):
            spread = max(float(np.concatenate([b.ravel() for b in same]).std()), 1e-12)
            found = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(some, same, strict=True))
            worst = max(worst, found / spread)
    return worst


def _exactly(model: Any, adapter: Adapter, probe: Features, pad: int, difference: float) -> float:
    """The difference without rounding: that of a copy in float64 on the CPU. Where there can be none, the difference as
    it is counts if it is too large for rounding."""
    rough = difference if difference > APART else 0.0
    if sum(parameter.numel() for parameter in model.parameters()) > COPIED:
        return rough
    twin = copy.deepcopy(model).to("cpu", torch.float64)
    unpadding.restore(twin)
    try:
        alone, together = (_outputs(twin, adapter, probe, pad, many) for many in (1, len(probe)))
    except (RuntimeError, ValueError, TypeError):  # a part that computes in float32 whatever it is told
        return rough
    return _difference(together, alone)


def _refuse_deaf(model: Any, alone: list[list[np.ndarray]], probe: Features) -> None:
    """Refuses a model whose tokens know nothing of each other: the last one must follow from another token."""
    first, last = alone[0], alone[-1]
    vectors = [(a[-1], b[-1]) for a, b in zip(first, last, strict=True) if len(a) == probe.lengths[0] and a.ndim == 2]
    if vectors and all(np.abs(a - b).max() <= 1e-7 * max(float(np.abs(a).max()), 1e-12) for a, b in vectors):
        raise InputError("its attention gives nothing here: what a token becomes does not depend on any other",
                         where=model.config.model_type,
                         remedy="a kernel that it needs is missing (MRA's runs on CUDA only); take another checkpoint")  # fmt: skip


@contextmanager
def _asked(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and afterwards everything as it was."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [device] if (device := next(model.parameters()).device).type == "cuda" else []
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _line(error: Exception) -> str:
    """The first line of what an exception says."""
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
