"""A pretrained encoder on its device, with its tokenizer and its speed-ups: hidden states of texts,
streamed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bert_ft.config.recipe import Batching
from bert_ft.config.schema import RunSpec
from bert_ft.errors import InputError
from bert_ft.families import fast_tokenizer
from bert_ft.families.features import Features, parts
from bert_ft.modeling import mean_layer, pretrained, token_types, vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from bert_ft.engine.sharing import Reader

ROWS = 1024  # texts that are tokenized together
TOKENS = 2**15  # tokens whose hidden states are held together, of one layer: 100 MB at a width of 768
SURROGATE = re.compile("[\ud800-\udfff]")
USUAL = 512  # tokens of a text, where neither the network nor the tokenizer has a bound

Text = str | tuple[str, str]
"""A text, or a pair of texts."""


@dataclass(frozen=True)
class States:
    """The hidden states of one text, or one pair, with what pooling needs. n: its tokens, special ones among
    them.

    Attributes:
        row: its number, from 0.
        tokens: (n,) int32: the vocabulary's numbers.
        hidden: (n, H) float32; (layers, n, H) where layers were asked for.
        text: (n,) int8: which text of a pair a token is of, 0 or 1; -1 for special tokens.
        spans: (n, 2) int32: the characters of that text which a token stands for, without white space around
            them; empty for special tokens. Several tokens of one character (bytes of a Chinese one) have the
            same.
        truncated: whether it was too long, so that tokens are missing.
    """

    row: int
    tokens: np.ndarray
    hidden: np.ndarray
    text: np.ndarray
    spans: np.ndarray
    truncated: bool


@dataclass
class Encoder:
    """A network on its device, and how rows go through it.

    Attributes:
        network: of `transformers`, bare or with a head.
        max_length: tokens of a row, at most; what is longer is truncated.
        unpadding, narrowing: the handles of padding-free layers and of a last layer for the first token
            alone, each with its `reason`; None where it was not asked for.
        sharing: which rows may be in one forward.
        lean: whether hidden states are computed as `batching.lean` says.
        notes: what a person should know of it.
    """

    network: Any
    tokenizer: Any
    accelerator: Any
    max_length: int
    unpadding: Any = None
    narrowing: Any = None
    sharing: Any = None
    lean: bool = True
    notes: Sequence[str] = ()

    @staticmethod
    def load(
        checkpoint: str,
        *,
        precision: str = "auto",
        trusted: Sequence[str] = (),
        revision: str | None = None,
        max_length: int | None = None,
        unpad: bool = True,
        lean: bool = True,
    ) -> Encoder:
        """The encoder of a hub id, a folder or a run, without its head.

        Args:
            precision: "auto" (fp32 on a CPU), "fp32", "bf16" or "fp16".
            trusted: what this call names to run code from (`remote_code.names`).
            max_length: by default what the tokenizer says, and no more than the network has positions for.
            unpad, lean: which speed-ups are asked for, as in `[batching]`.
        Raises:
            InputError: no such checkpoint, no encoder of text, or fewer positions than `max_length`.
        """
        from bert_ft.engine.accelerator import accelerator
        from bert_ft.modeling import requirements

        evaluate_only()
        device = accelerator(precision)
        run = RunSpec(checkpoint=checkpoint, revision=revision)
        tokenizer, of_tokenizer = vocabulary.load(run, checkpoint, (), trusted)
        network, of_weights = pretrained.load_encoder(run, checkpoint, trusted)
        of_weights += mean_layer.drop(network)
        notes = [*of_tokenizer, *token_types.set_types(tokenizer, network, pairs=True), *of_weights]
        positions = requirements.positions(network)
        if max_length is None:
            stated = tokenizer.model_max_length
            bounds = [bound for bound in (positions, stated) if bound is not None and 0 < bound < 10**6]
            max_length = int(min(bounds, default=USUAL))
        if positions is not None and max_length > positions:
            message = f"max_length = {max_length}, but the checkpoint has {positions} positions"
            raise InputError(message, where="max_length", remedy=f"{positions} or fewer")
        encoder = Encoder(network, tokenizer, device, max_length, lean=lean)
        encoder.notes = [*notes, *encoder.settle(Reading(), unpad, False, checkpoint)]
        return encoder

    def settle(self, reader: Reader, unpad: bool, first_token: bool, where: str) -> list[str]:
        """Puts the network on its device, with its speed-ups where it can have them, and asks it which rows
        may share a forward.

        Args:
            reader: an adapter, or `Reading`: what is read off the network.
            unpad, first_token: which speed-ups are asked for, as in `[batching]`.
            where: the checkpoint, for messages.
        Returns:
            lines for the user, why it is padding-free or not among them.
        Raises:
            InputError: tokenizer and network do not fit together, or text alone doesn't run the network.
        """
        import torch

        from bert_ft.engine import precision, sharing
        from bert_ft.kernels import last_layer, padding_free
        from bert_ft.modeling import requirements

        network = self.network
        tokenizer = self.tokenizer
        size = sharing.vocabulary(network)
        if size is not None and len(tokenizer) > size:
            message = (
                f"the tokenizer has {len(tokenizer):,} tokens, but the model has embeddings for {size:,}"
            )
            remedy = "put the checkpoint's own tokenizer beside its weights"
            raise InputError(message, where=where, remedy=remedy)
        if tokenizer.pad_token_id is None:
            remedy = "set pad_token in its tokenizer_config.json to a token that no text has"
            raise InputError("the tokenizer has no padding token", where=where, remedy=remedy)
        rule, notes = requirements.settle(network, tokenizer, self.max_length)
        network.to(self.accelerator.device)
        reason = "padded: batching.unpad = false"
        half = precision.HALF.get(self.accelerator.mixed_precision)
        # a person's own autocast would round what is compared
        with torch.autocast(self.accelerator.device.type, enabled=False):
            of_steps = precision.settle(network, reader, self.accelerator)
            steps = self.accelerator.step_dtype
            dtypes = [half] if steps is None else [half, steps]
            if unpad:
                self.unpadding = padding_free.unpad(network, *dtypes)
                reason = self.unpadding.reason
            self.sharing, of_sharing = sharing.find(network, reader, tokenizer, self.max_length, rule)
            if first_token:
                self.narrowing = last_layer.narrow(network, *dtypes)
        return [*notes, *of_steps, reason, *of_sharing]

    def plain(self) -> None:
        """Makes the network that of `transformers` again: takes our hooks off."""
        from bert_ft.engine import precision

        precision.plain(self.network)
        for handle in (self.narrowing, self.unpadding):
            if handle is not None:
                handle.remove()

    def states(
        self,
        texts: Iterable[Text],
        layers: Sequence[int] | None = None,
        batch_tokens: int = Batching().eval_tokens,
    ) -> Iterator[States]:
        """The hidden states of each text, or pair, in their order; they do not depend on what else is
        computed.

        Texts are read as they are needed and nothing is kept of what was given out, so that memory does not
        grow with them.

        Args:
            layers: as `transformers` numbers `hidden_states`: 0 are the embeddings, -1 the last layer. With
                them the layers are computed padded. None: the last layer, padding-free where that is on.
            batch_tokens: padded positions of a forward, at most; a CPU takes fewer.
        Raises:
            InputError: an input that is no text and no pair, or a layer that is not there.
        """
        rows, number = iter(texts), 0
        while batch := list(itertools.islice(rows, ROWS)):
            for features, hidden in self.hidden(self._encoded(batch, number), layers, batch_tokens):
                for at in range(len(features)):
                    yield _states(number, features, at, hidden)
                    number += 1

    def hidden(
        self,
        features: Features,
        layers: Sequence[int] | None = None,
        batch_tokens: int = Batching().eval_tokens,
    ) -> Iterator[tuple[Features, np.ndarray]]:
        """The features in parts, with the hidden states of their flat tokens: (T, H) float32, or (layers, T,
        H). Arguments as `states` takes them."""
        from bert_ft.engine import inference

        if layers is not None and not layers:
            raise InputError("no layer is named", where="layers", remedy="-1 is the last")
        for part in parts(features, TOKENS // len(layers or [-1])):
            flat = inference.predict(
                self.body,
                Reading(layers),
                part,
                self.accelerator,
                pad=self.tokenizer.pad_token_id,
                tokens=batch_tokens,
                sharing=self.sharing,
                lean=self.lean,
                **({} if layers is None else {"output_hidden_states": True}),
            )
            yield part, flat if layers is None else flat.reshape(len(flat), len(layers), -1).swapaxes(0, 1)

    @property
    def body(self) -> Any:
        """The network without its head."""
        from transformers import PreTrainedModel

        inner = next(module for module in self.network.modules() if isinstance(module, PreTrainedModel))
        return pretrained.without_decoder(inner.base_model)

    def _encoded(self, texts: Sequence[Text], first: int) -> Features:
        """Texts, the first of which is number `first`, as features with their places."""
        pairs = [_pair(text, number) for number, text in enumerate(texts, first)]
        with fast_tokenizer.whole(self.tokenizer) as backend:
            side = self.tokenizer.truncation_side
            backend.enable_truncation(self.max_length, strategy="longest_first", direction=side)
            encodings = backend.encode_batch([pair if len(pair) == 2 else pair[0] for pair in pairs])
        flat = itertools.chain.from_iterable
        lengths = np.fromiter((len(encoding.ids) for encoding in encodings), np.int64, len(encodings))
        size = int(lengths.sum())
        tokens = {"input_ids": np.fromiter(flat(each.ids for each in encodings), np.int32, size)}
        if "token_type_ids" in self.tokenizer.model_input_names:
            types = flat(each.type_ids for each in encodings)
            tokens["token_type_ids"] = np.fromiter(types, np.int32, size)
        owners = (-1 if owner is None else owner for owner in flat(each.sequence_ids for each in encodings))
        text = np.fromiter(owners, np.int8, size)
        spans = np.fromiter(flat(each.offsets for each in encodings), np.dtype((np.int32, 2)), size)
        # those of a second text count from its own beginning
        second = np.repeat([len(pair[0]) for pair in pairs], lengths)[:, None] * (text == 1)[:, None]
        spans = fast_tokenizer.trimmed(spans + second, ["".join(pair) for pair in pairs], lengths) - second
        spans[text < 0] = 0
        return Features(
            np.concatenate([[0], np.cumsum(lengths)]),
            tokens,
            values={"truncated": np.array([bool(encoding.overflowing) for encoding in encodings])},
            weights=np.ones(len(encodings)),
            places={"text": text, "spans": spans.astype(np.int32)},
        )


class Reading:
    """What is read off an encoder in the place of a head's logits: hidden states, of the last layer or
    several."""

    inputs: ClassVar[dict[str, bool]] = {"text": True}

    def __init__(self, layers: Sequence[int] | None = None) -> None:
        self.layers = layers

    def logits(self, outputs: Any) -> Tensor:
        """(B, L, H), or (B, L, layers * H). Raises InputError: not a state for each token, or no such
        layer."""
        import torch

        last: Tensor = outputs[0]
        if last.dim() != 3:
            raise InputError(
                "this network gives no hidden state for each token", remedy="take an encoder of text"
            )
        if self.layers is None:
            return last
        count = len(outputs.hidden_states)
        if strange := [layer for layer in self.layers if not -count <= layer < count]:
            message = f"there is no layer {strange[0]}: this network has 0 (the embeddings) to {count - 1}"
            raise InputError(message, where="layers", remedy="-1 is the last")
        return torch.cat([outputs.hidden_states[layer] for layer in self.layers], dim=-1)


def evaluate_only() -> None:
    """For a process that trains nothing: memory does not grow with the rows."""
    from bert_ft.kernels import cpu

    cpu.few_kernels(4)
    cpu.keep_freed(False)


def _pair(text: Any, number: int) -> tuple[str, ...]:
    """One text, or two. Raises InputError: anything else."""
    pair = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, (tuple, list)) else ()
    if len(pair) not in (1, 2) or not all(isinstance(part, str) for part in pair):
        raise InputError(
            f"this is neither a text nor a pair of texts, but {type(text).__name__}: {text!r:.80}",
            where=f"input {number + 1}",
            remedy='a text is a string, a pair ("one", "other")',
        )
    if any(SURROGATE.search(part) for part in pair):
        raise InputError(
            "this text holds half of a character (a lone surrogate), so that it is no text",
            where=f"input {number + 1}",
            remedy="read its file again as UTF-8",
        )
    return pair


def _states(row: int, features: Features, at: int, hidden: np.ndarray) -> States:
    """Those of one feature, copied: whoever keeps them keeps nothing else in memory."""
    tokens = slice(int(features.offsets[at]), int(features.offsets[at + 1]))
    return States(
        row,
        features.tokens["input_ids"][tokens].copy(),
        hidden[..., tokens, :].copy(),
        features.places["text"][tokens].copy(),
        features.places["spans"][tokens].copy(),
        bool(features.values["truncated"][at]),
    )
