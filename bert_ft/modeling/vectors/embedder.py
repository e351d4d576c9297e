"""Embedder: a checkpoint with a way of pooling turns texts into vectors, or their words."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_ft.config.recipe import Batching
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families import fast_tokenizer, words
from bert_ft.modeling import pretrained, remote_code
from bert_ft.modeling.encoder import SURROGATE, Encoder
from bert_ft.modeling.vectors import declared as folder
from bert_ft.modeling.vectors import pooling as pools
from bert_ft.modeling.vectors.windows import cut, lower

TEXTS = 1024  # that are tokenized together, at most
CHARACTERS = 2**20  # of these, or one text


class Vectors(NamedTuple):
    """Vectors of texts.

    Attributes:
        vectors: (N, D) float32. empty: (N,) whether the tokenizer makes nothing of a text: its vector is all
            zeros. truncated: (N,) whether a text is too long, so that a part of it is not read.
    """

    vectors: np.ndarray
    empty: np.ndarray
    truncated: np.ndarray


class WordVectors(NamedTuple):
    """The words of a text, with their vectors.

    Attributes:
        words: as they stand in the text. spans: (W, 2) their first character, and the one behind their last.
        vectors: (W, D) float32; all zeros for a word that the tokenizer makes nothing of.
    """

    words: list[str]
    spans: np.ndarray
    vectors: np.ndarray


SHORTEST = 3  # tokens: one between two special ones


@dataclass
class Embedder:
    """A way from texts to vectors; `load` makes one.

    Attributes:
        pooling: how the states of a text's tokens become one vector; several are concatenated.
        layers, combine: whose states, as `Encoder.states` numbers them, and how they become one.
        after: what is done with pooled vectors, in its order.
        dimensions: how many numbers of a vector are kept; all by default.
        prompt: what is set before each text; whether pooling takes it: `counts_prompt`.
        windows: whether a text that is too long is read whole, in windows, instead of cut.
        notes: what a person should know.
        counts: tokens of the texts that were read, and `unknown` ones among them.
    """

    encoder: Encoder
    pooling: Sequence[str] = ("mean",)
    layers: Sequence[int] | None = None
    combine: str = "concat"
    after: Sequence[folder.Step] = ()
    dimensions: int | None = None
    normalize: bool = False
    prompt: str = ""
    counts_prompt: bool = True
    windows: bool = False
    batch_tokens: int = Batching().eval_tokens
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        pooling: str | None = None,
        layers: Sequence[int] | None = None,
        combine: str = "concat",
        normalize: bool | None = None,
        dimensions: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        windows: bool = False,
        max_length: int | None = None,
        precision: str = "auto",
        batch_tokens: int = Batching().eval_tokens,
        revision: str | None = None,
        unpad: bool = True,
        lean: bool = True,
        trust_remote_code: remote_code.Names = None,
    ) -> Embedder:
        """A checkpoint's encoder, with what its folder declares where nothing else is said: a
        sentence-transformers folder its pooling, the modules behind it, its length, prompt and dimensions; a
        plain checkpoint or a run the mean of all tokens.

        Args:
            checkpoint: a hub id, a folder or a run.
            pooling: mean, cls, max, or another of `pooling.OF_TEXTS`. Where it is named, or `layers` are, a
                Dense module of the folder, which was trained for its own pooling, is left out.
            layers: 0 are the embeddings, -1 is the last; several are concatenated, or with `combine` their
                "sum" or "mean" is taken. `[-4, -3, -2, -1]` are the best of Devlin et al. 2019, Table 7.
            normalize: True: vectors of length 1. False: without the folder's own Normalize.
            dimensions: the first so many numbers of a vector are kept; of length 1 only with `normalize`.
            prompt: what is set before each text. prompt_name: a prompt of the folder, by its name.
            windows: a text that is too long is read whole, in windows, instead of cut at `max_length`.
            precision: what is computed in: "auto" (fp32 on a CPU), "fp32", "bf16" or "fp16".
            batch_tokens: padded positions of a forward, at most; a CPU takes fewer.
            unpad, lean: False: without that speed-up, as in `[batching]`.
            trust_remote_code: names the folder or hub id whose own code may run; as for `finetune`.
        Raises:
            InputError: no such checkpoint, or settings that it can't have.
        """
        _refuse(pooling, layers, combine, max_length, windows=windows, unpad=unpad, lean=lean)
        where = pretrained.locate(str(checkpoint))
        states = folder.read(where, revision or "main")
        own = pooling is None and layers is None
        names, counts_prompt = folder.pooled(states, where, revision or "main") if own else (("mean",), True)
        steps = folder.steps(states, where, revision or "main") if own else []
        encoder = Encoder.load(
            states.encoder,
            precision=precision,
            trusted=remote_code.names(trust_remote_code),
            revision=revision,
            max_length=states.max_length if max_length is None else max_length,
            unpad=unpad,
            lean=lean,
        )
        if states.lower:
            lower(encoder.tokenizer)
        if pooling == "cls" and not fast_tokenizer.frame(encoder.tokenizer).parts[0][1]:
            message = "the tokenizer of this checkpoint sets no token before a text, so there is no cls"
            raise InputError(message, where="pooling", remedy='pooling = "mean"')
        kinds = [kind for kind, _ in states.modules or ()]
        cut = dimensions is not None and normalize is None
        out = cls(
            encoder,
            names if pooling is None else (pooling,),
            layers,
            combine,
            [step for kind, step in steps if kind != "Normalize" or normalize is not False],
            prompt=_prompt(states, prompt, prompt_name),
            counts_prompt=counts_prompt,
            windows=windows,
            batch_tokens=batch_tokens,
            notes=[*encoder.notes, *states.notes, *_of_modules(kinds, own, cut)],
        )
        # the folder's own length 1 holds for another pooling too
        out.normalize = not own and "Normalize" in kinds if normalize is None else normalize
        stated = states.dimensions if own else None
        out._keep(stated if dimensions is None else dimensions)
        return out

    def _keep(self, dimensions: int | None) -> None:
        """Tries all settings on a text. Raises InputError: one that the network can't have, or dimensions
        that are not there."""
        size = self._trial().vectors(["a"]).vectors.shape[1]
        if dimensions is not None and not 0 < dimensions <= size:
            message = f"{dimensions} dimensions, but the vectors have {size}"
            raise InputError(message, where="dimensions", remedy=f"1 to {size}")
        self.dimensions = dimensions

    def _trial(self) -> Embedder:
        """The same, with counts of its own."""
        return replace(self, counts=Counter())

    @cached_property
    def size(self) -> int:
        """How many numbers a text's vector has."""
        return int(self._trial().vectors(["a"]).vectors.shape[1])

    @cached_property
    def _width(self) -> int:
        """How many numbers a token's states have."""
        return int(next(self._trial()._states(["a"]))[0].shape[1])

    @property
    def word_size(self) -> int:
        """How many numbers a word's vector has."""
        return min(self._width, self.dimensions or self._width)

    def vectors(self, texts: Iterable[str]) -> Vectors:
        """One vector a text, in their order; equal texts are computed once.

        Raises:
            InputError: something among them that is no text.
        """
        numbers: dict[str, int] = {}
        which = [
            numbers.setdefault(_text(text, number), len(numbers)) for number, text in enumerate(texts, 1)
        ]
        parts = [self._block(block) for block in _blocks(numbers)]
        if not parts:
            return Vectors(np.zeros((0, self.size), np.float32), np.zeros(0, bool), np.zeros(0, bool))
        columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(numbers) == len(which):
            return Vectors(*columns)
        return Vectors(*(column[which] for column in columns))

    def _block(self, texts: list[str]) -> Vectors:
        windows = cut(
            self.encoder.tokenizer,
            texts,
            self.encoder.max_length,
            prompt=self.prompt,
            counts_prompt=self.counts_prompt,
            whole=self.windows,
        )
        self.counts.update(windows.counts)
        pool = pools.Pool(self.pooling, len(texts))
        for features, hidden in self.encoder.hidden(windows.features, self.layers, self.batch_tokens):
            pool.add(features, pools.combined(hidden, self.combine))
        empty = windows.lengths == 0
        if empty.all():
            return Vectors(np.zeros((len(texts), self.size), np.float32), empty, windows.truncated)
        vectors = self.finished(pool.vectors(), self.after)
        vectors[empty] = 0
        return Vectors(vectors, empty, windows.truncated)

    def finished(self, vectors: np.ndarray, steps: Sequence[folder.Step] = ()) -> np.ndarray:
        """(N, D) pooled vectors behind the steps, cut to the dimensions, and at length 1 where that is
        asked for."""
        for step in steps:
            vectors = step(vectors)
        vectors = vectors[:, : self.dimensions]
        return folder.normalized(vectors) if self.normalize else vectors

    def words(
        self,
        texts: Iterable[str],
        pooling: str = "mean",
        spans: Iterable[Sequence[tuple[int, int]]] | None = None,
    ) -> Iterator[WordVectors]:
        """The words of each text with their vectors, in their order, whatever the text's length: what is
        longer than the encoder is read in windows, and each token has its state from the window where it has
        the most context.

        Words are BERT's (`families.words.split`): parted at white space, each punctuation mark and each
        Chinese character, kana or Thai letter by itself. Of the folder's modules and prompts none is used.

        Args:
            pooling: "mean", "max" or "first" of the tokens that a word shares a character with.
            spans: of each text the (start, end) characters to take for its words, such as those of a Chinese
                segmenter.
        Raises:
            InputError: something that is no text, or a span outside its text.
        """
        pools.valid(pooling, pools.OF_WORDS, "pooling")
        given = itertools.repeat(None) if spans is None else iter(spans)
        checked = (_text(text, number) for number, text in enumerate(texts, 1))
        for block in _blocks(checked, CHARACTERS // 8):
            mine = list(itertools.islice(given, len(block)))
            if len(mine) < len(block):
                raise InputError(
                    "there are more texts than spans", where="spans", remedy="a list for each text"
                )
            for text, own, (states, tokens) in zip(block, mine, self._states(block), strict=True):
                limits = _limits(text, own)
                vectors = pools.of_words(states, tokens, limits, pooling)
                yield WordVectors(
                    [text[start:end] for start, end in limits.tolist()], limits, self.finished(vectors)
                )

    def _states(self, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each text the (T, D) states of its tokens and their (T, 2) characters."""
        windows = cut(self.encoder.tokenizer, texts, self.encoder.max_length, whole=True)
        self.counts.update(windows.counts)
        current = -1
        for features, parts in self.encoder.hidden(windows.features, self.layers, self.batch_tokens):
            hidden = pools.combined(parts, self.combine)
            for window, row in enumerate(features.values["text"].tolist()):
                if row != current:
                    yield from self._nothing(current + 1, row)
                    current = row
                    states = np.empty((windows.lengths[row], hidden.shape[1]), np.float32)
                flat = slice(features.offsets[window], features.offsets[window + 1])
                place = features.places["place"][flat]
                taken = features.places["counted"][flat] & (place >= 0)
                states[place[taken]] = hidden[flat][taken]
                if features.values["last"][window]:
                    yield states, windows.spans[row]
        yield from self._nothing(current + 1, len(texts))

    def _nothing(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of texts without tokens."""
        for _ in range(start, stop):
            yield np.zeros((0, self._width), np.float32), np.zeros((0, 2), np.int32)


def told(rows: int, empty: int, truncated: int, max_length: int) -> Iterator[str]:
    """What a person should know of texts that have vectors."""
    if truncated:
        yield (
            f"{truncated:,} of {rows:,} texts are longer than {max_length} tokens, and only that much is "
            "read; with windows (--windows) they are read whole"
        )
    if empty:
        yield f"{empty:,} of {rows:,} texts have no token: their vectors are all zeros"


def _limits(text: str, spans: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """(W, 2) int64: where the words of a text begin and end."""
    if spans is None:
        found = words.split([text])
        return np.stack([found.starts, found.ends], axis=1)
    limits = np.array([tuple(span) for span in spans], np.int64).reshape(-1, 2)
    wrong = (limits[:, 0] < 0) | (limits[:, 0] >= limits[:, 1]) | (limits[:, 1] > len(text))
    if wrong.any():
        start, end = limits[wrong][0]
        message = f"there is nothing from {start} to {end} in a text of {len(text)} characters"
        raise InputError(message, where="spans", remedy="(start, end), the end behind the last character")
    return limits


def _refuse(
    pooling: str | None, layers: Sequence[int] | None, combine: str, max_length: int | None, **switches: Any
) -> None:
    """Refuses settings that no checkpoint can have."""
    if strange := [name for name, value in switches.items() if not isinstance(value, bool)]:
        raise InputError(f"not {switches[strange[0]]!r:.80}", where=strange[0], remedy="True or False")
    if max_length is not None and max_length < SHORTEST:
        message = f"max_length = {max_length} leaves no room for a text beside the special tokens"
        raise InputError(message, where="max_length", remedy=f"{SHORTEST} or more")
    if combine != "concat" and layers is None:
        message = f"combine = '{combine}' is for several layers, and none is named"
        raise InputError(message, where="combine", remedy="layers = [-4, -3, -2, -1], or leave it out")
    if pooling is not None:
        pools.valid(pooling, pools.OF_TEXTS, "pooling")
    pools.valid(combine, pools.COMBINED, "combine")


def _text(text: Any, number: int) -> str:
    """The text. Raises InputError: it is none."""
    if not isinstance(text, str):
        message = f"this is no text, but {type(text).__name__}: {text!r:.80}"
        raise InputError(message, where=f"input {number}", remedy="give texts (strings)")
    if SURROGATE.search(text):
        message = "this text holds half of a character (a lone surrogate), so that it is no text"
        raise InputError(message, where=f"input {number}", remedy="read its file again as UTF-8")
    return text


def _blocks(texts: Iterable[str], characters: int = CHARACTERS) -> Iterator[list[str]]:
    """The texts in lists of so many texts and characters at most, or of one text."""
    block: list[str] = []
    held = 0
    for text in texts:
        if block and (len(block) == TEXTS or held + len(text) > characters):
            yield block
            block, held = [], 0
        block.append(text)
        held += len(text)
    if block:
        yield block


def _of_modules(kinds: Sequence[str], own: bool, cut: bool) -> Iterator[str]:
    """What to know of a folder's modules, where pooling is their own or not, and vectors are cut or not."""
    if not own and (others := [kind for kind in kinds if kind not in ("Pooling", "Normalize")]):
        yield f"left out, since pooling or layers are named: the folder's {', '.join(others)}"
    if own and cut and "Normalize" in kinds:
        yield "vectors that are cut are no longer of length 1: normalize them (--normalize)"


def _prompt(states: folder.Declared, prompt: str | None, name: str | None) -> str:
    if prompt is not None and name is not None:
        raise InputError("a prompt and the name of one", where="prompt", remedy="give one of the two")
    if name is not None and name not in states.prompts:
        raise InputError(
            f"there is no prompt '{name}'", where="prompt_name", remedy=did_you_mean(name, states.prompts)
        )
    if prompt is not None:
        return prompt
    chosen = name or states.default_prompt
    return states.prompts[chosen] if chosen is not None else ""
