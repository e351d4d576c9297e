"""Which rows may share a batch, so that an answer is a function of its row.

Padding is meant to change nothing. In some architectures it does: a convolution, a pooling or a Fourier
transform reads it, or a head takes the last position of the batch. No list of names says which: the model is
asked when it is loaded. Five ragged rows are answered together and one by one, in evaluation mode; where real
tokens get something else, rows share a batch only with rows of their own length.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bert_ft.engine import batches
from bert_ft.errors import InputError
from bert_ft.families import fast_tokenizer
from bert_ft.families.features import Features
from bert_ft.kernels import padding_free

# tokens of the longest row asked about: no pooling comes out even, and no token is far from the padding
LONGEST = 21
CLOSE = 3e-5  # differences of outputs as a share of their spread: up to here they are rounding in fp32
# a difference beyond this is no rounding of float64 (with parts in float32), of float32, of bf16
APART = {"exact": 1e-6, "single": 1e-3, "half": 3e-2}
COPIED = 500_000_000  # parameters of the largest model that is copied in fp64
# what a forward may raise
FAULTS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError)
NOTE = (
    "equal lengths: padding changes this model's answers (by {difference:.0e} of their spread), so rows are "
    "evaluated and predicted in batches of equal length; set batching.equal_lengths = true to train so too"
)


class Reader(Protocol):
    """What is fed into a network and read off it: a family's adapter, or that of hidden states."""

    @property
    def inputs(self) -> Mapping[str, bool]:
        """The texts of a row -> whether each must be there."""
        ...

    def logits(self, outputs: Any) -> Tensor:
        """(B, C), or (B, L, C) where there is something for each token."""
        ...


@dataclass(frozen=True)
class Sharing:
    """Which rows may be in one forward.

    Attributes:
        equal_lengths: in evaluation and prediction only rows of one length.
        end_token: only rows that have equally many of this token, which the head looks for.
        ends: how many of it each row must have; None: any number.
        width: positions that every batch is padded to at least; None: only to its longest row.
    """

    equal_lengths: bool = False
    end_token: int | None = None
    ends: int | None = None
    width: int | None = None

    def keys(self, features: Features, equal_lengths: bool) -> np.ndarray | None:
        """(N,) a number for each feature: only features of the same number may share a forward. None: all
        may.

        Raises:
            InputError: a feature that the head can't take.
        """
        keys = np.zeros((len(features), 2), np.int64)
        if equal_lengths:
            keys[:, 0] = features.lengths
        if self.end_token is not None:
            before = np.concatenate([[0], np.cumsum(features.tokens["input_ids"] == self.end_token)])
            keys[:, 1] = before[features.offsets[1:]] - before[features.offsets[:-1]]
            if self.ends is not None and (wrong := np.flatnonzero(keys[:, 1] != self.ends)).size:
                row = int(features.values.get("row", np.arange(len(features)))[wrong[0]])
                message = (
                    "a text contains the special token that separates texts, and this model's head needs "
                    "a fixed number of them"
                )
                raise InputError(
                    message,
                    where=f"row {row + 1} (one of {wrong.size} in {len(features)} features)",
                    remedy="remove it from the text",
                )
        unique, numbers = np.unique(keys, axis=0, return_inverse=True)
        return numbers.reshape(-1) if len(unique) > 1 else None


ANY = Sharing()


def find(
    model: Any, adapter: Reader, tokenizer: Any, max_length: int, rule: Sharing = ANY
) -> tuple[Sharing, list[str]]:
    """Asks a model which rows may share its batches: five ragged rows together and each alone.

    Args:
        model: on its device, with the family's head or bare, padding-free or not.
        rule: what its configuration says already.
    Returns:
        The rule, and a line for the user where it is not that all rows may.
    Raises:
        InputError: a model that text alone doesn't run, or whose tokens know nothing of each other.
    """
    frame = fast_tokenizer.frame(tokenizer, max(1, sum(adapter.inputs.values())))
    probe = _probe(frame, tokenizer, model, max_length)
    if probe is None:
        return rule, []
    pad = tokenizer.pad_token_id
    with _evaluation(model):
        try:
            alone = _outputs(model, adapter, probe, pad, 1, rule.width)
            together = _outputs(model, adapter, probe, pad, len(probe), rule.width)
        except FAULTS as error:
            raise InputError(
                f"this model does not run on rows of text: {_line(error)}",
                where=model.config.model_type,
                remedy="it may need more than token ids; use a text encoder",
            ) from error
        _refuse_deaf(model, alone, probe)
        rule = _ends(model, adapter, probe, frame, tokenizer, rule)
        difference = _difference(together, alone)
        if difference <= CLOSE:
            difference = 0.0
        else:
            repeated = _difference(_outputs(model, adapter, probe, pad, 1, rule.width), alone)
            if repeated > CLOSE:
                message = (
                    f"this model answers the same row differently each time (by {repeated:.0e} of the spread)"
                )
                raise InputError(message, where=model.config.model_type, remedy="use another checkpoint")
            difference = _exactly(model, adapter, probe, pad, rule.width, difference)
    if not difference:
        return rule, []
    return replace(rule, equal_lengths=True), [NOTE.format(difference=difference)]


def _ends(
    model: Any, adapter: Reader, probe: Features, frame: fast_tokenizer.Frame, tokenizer: Any, rule: Sharing
) -> Sharing:
    """Asks what the head makes of a text that holds a special token which ends or separates texts. BART's
    takes only rows with equally many of them; Longformer's for questions only rows with exactly those that
    the tokenizer sets."""
    tokens = {getattr(tokenizer, f"{name}_token_id") for name in ("sep", "eos")} - {
        None,
        tokenizer.pad_token_id,
    }
    two = np.array([3, 3])  # the shortest but one, twice
    short = Features(
        np.array([0, *np.cumsum(probe.lengths[two])]),
        {
            key: np.concatenate([column[probe.offsets[i] : probe.offsets[i + 1]] for i in two])
            for key, column in probe.tokens.items()
        },
        {},
        np.ones(2),
    )
    inside = int(short.offsets[2]) - frame.parts[-1][1] - 1  # the last token of the second text
    for token in sorted(tokens):
        trial = replace(short, tokens={key: column.copy() for key, column in short.tokens.items()})
        trial.tokens["input_ids"][inside] = token
        if not _runs(model, adapter, trial, tokenizer.pad_token_id, 2, rule.width):
            count = int((frame.columns["input_ids"] == token).sum())
            alone = _runs(model, adapter, trial, tokenizer.pad_token_id, 1, rule.width)
            return replace(rule, end_token=token, ends=None if alone else count)
    return rule


def _runs(model: Any, adapter: Reader, rows: Features, pad: int, batch_size: int, width: int | None) -> bool:
    """Whether the model takes these rows, `batch_size` at a time."""
    try:
        _outputs(model, adapter, rows, pad, batch_size, width)
    except FAULTS:
        return False
    return True


def _probe(frame: fast_tokenizer.Frame, tokenizer: Any, model: Any, max_length: int) -> Features | None:
    """Five rows with the tokenizer's special tokens around random ones; None where not even two lengths fit.
    The last is the first with another token near its end."""
    longest = min(max_length, LONGEST) - frame.size
    if longest < 4:
        return None
    random = np.random.default_rng(0)
    special = [
        *tokenizer.all_special_ids,
        model.config.pad_token_id,
        getattr(model.config, "eos_token_id", None),
    ]
    ids = np.setdiff1d(
        np.arange(min(len(tokenizer), vocabulary(model) or len(tokenizer))),
        [i for i in special if isinstance(i, int)],
    )
    bodies = [random.choice(ids, size) for size in (longest, 2, longest // 2, 3, longest)]
    bodies[4] = bodies[0].copy()
    bodies[4][-2] = ids[0] if bodies[0][-2] != ids[0] else ids[-1]
    columns = {}
    for name, column in frame.columns.items():
        ends = [column[start : start + size] for start, size in frame.parts]
        columns[name] = np.concatenate(
            [part for body in bodies for part in _framed(name, ends, body, frame.kinds)]
        )
    lengths = np.array([frame.size + len(body) for body in bodies])
    return Features(np.concatenate([[0], np.cumsum(lengths)]), columns, {}, np.ones(len(bodies)))


def _framed(name: str, ends: list[np.ndarray], body: np.ndarray, kinds: list[int]) -> Iterator[np.ndarray]:
    """A token column of one row, part by part: what stands before, between and behind its texts, and the
    texts. Of two the first is a single token."""
    texts = [body] if len(kinds) == 1 else [body[:1], body[1:]]
    for end, text, kind in zip(ends, texts, kinds, strict=False):
        yield end
        yield text if name == "input_ids" else np.full(len(text), kind)
    yield ends[-1]


def vocabulary(model: Any) -> int | None:
    """How many tokens a model has embeddings for; None where it has no table of them (CANINE hashes
    characters)."""
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:
        return None
    if hasattr(embeddings, "num_embeddings"):
        return int(embeddings.num_embeddings)
    # a quantised embedding has no more than a weight; Perceiver's are its latents
    weight = getattr(embeddings, "weight", None)
    return int(model.config.vocab_size if weight is None else weight.shape[0])


def _outputs(
    model: nn.Module, adapter: Reader, probe: Features, pad: int, batch_size: int, width: int | None
) -> list[list[np.ndarray]]:
    """The float64 outputs of each row, `batch_size` rows at a time: its logits, and the hidden states of its
    tokens where the encoder has one for each."""
    inner = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    device = next(model.parameters()).device
    captured: list[Any] = []
    # a model without a head of its own is its own base
    body = getattr(inner, "base_model", inner)
    handle = body.register_forward_hook(lambda _, __, output: captured.append(output))
    results: list[list[np.ndarray]] = []
    try:
        for first in range(0, len(probe), batch_size):
            rows = np.arange(first, min(first + batch_size, len(probe)))
            inputs, _ = batches.collate(probe, rows, pad, device, width)
            mask = inputs["attention_mask"].bool().cpu().numpy()
            captured.clear()
            with padding_free.known_lengths(probe.lengths[rows].tolist()):
                logits = adapter.logits(model(**inputs))
            hidden = _first(captured[0]) if captured else None
            tensors = [logits]
            if isinstance(hidden, Tensor) and hidden.dim() == 3 and hidden.shape[:2] == mask.shape:
                tensors.append(hidden)
            arrays = [tensor.double().cpu().numpy() for tensor in tensors]
            results += [
                [a[row, real] if a.ndim == 3 else a[row] for a in arrays] for row, real in enumerate(mask)
            ]
    finally:
        handle.remove()
    return results


def _first(output: Any) -> Any:
    return output if isinstance(output, Tensor) else output[0]


def _difference(ones: list[list[np.ndarray]], others: list[list[np.ndarray]]) -> float:
    """The largest difference between the outputs of the same rows, as a share of their spread over all rows;
    NaN where an output is no number."""
    worst = [0.0]
    for some, same in zip(zip(*ones, strict=False), zip(*others, strict=False), strict=False):
        if all(a.shape == b.shape for a, b in zip(some, same, strict=True)):
            spread = max(float(np.concatenate([b.ravel() for b in same]).std()), 1e-12)
            worst += [float(np.abs(a - b).max(initial=0)) / spread for a, b in zip(some, same, strict=True)]
    return float(np.max(worst))


def _exactly(
    model: Any, adapter: Reader, probe: Features, pad: int, width: int | None, difference: float
) -> float:
    """The difference without rounding: 0, or that of a copy in float64 on the CPU. Where there can be none,
    or its outputs are no numbers (some masks do not survive it), that of a copy in float32 where it is too
    large for rounding."""
    if sum(parameter.numel() for parameter in model.parameters()) > COPIED:
        return difference if difference > APART["half"] else 0.0
    for kind, least in ((torch.float64, APART["exact"]), (torch.float32, APART["single"])):
        duplicate = copy.deepcopy(model).to("cpu", kind)
        padding_free.restore(duplicate)
        with suppress(*FAULTS):
            alone, together = (
                _outputs(duplicate, adapter, probe, pad, batch_size, width) for batch_size in (1, len(probe))
            )
            if np.isfinite(difference := _difference(together, alone)):
                return difference if difference > least else 0.0
    raise InputError(
        "the model's answers are not numbers",
        where=model.config.model_type,
        remedy="check that its weight file is complete",
    )


def _refuse_deaf(model: Any, alone: list[list[np.ndarray]], probe: Features) -> None:
    """Refuses a model whose tokens know nothing of each other: the last one must follow from another
    token."""
    first, last = alone[0], alone[-1]
    vectors = [
        (a[-1], b[-1]) for a, b in zip(first, last, strict=True) if len(a) == probe.lengths[0] and a.ndim == 2
    ]
    if vectors and all(np.abs(a - b).max() <= 1e-7 * max(float(np.abs(a).max()), 1e-12) for a, b in vectors):
        raise InputError(
            "its attention has no effect on this machine: no token's output depends on another token",
            where=model.config.model_type,
            remedy="a kernel that it needs is missing (MRA's runs on CUDA only); use another checkpoint",
        )


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode without gradients inside; afterwards everything is as it was."""
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
