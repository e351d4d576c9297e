"""`bert_ft.embed`: vectors of texts, or of their words, in one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft.display import Display, unread
from bert_ft.errors import InputError
from bert_ft.modeling.vectors.embedder import Embedder, WordVectors, told
from bert_ft.modeling.vectors.pooling import valid
from bert_ft.tools.embed.writers import DTYPES, stored


def load(checkpoint: Any, words: bool = False, **settings: Any) -> Embedder:
    """An embedder of a checkpoint or a run, as `Embedder.load` takes it, or one that is loaded; for `words`
    without what a folder declares for vectors of texts."""
    if isinstance(checkpoint, Embedder):
        if settings:
            message = "an embedder has its settings already"
            raise InputError(message, where=", ".join(settings), remedy="give them to Embedder.load")
        return checkpoint
    where = checkpoint if isinstance(checkpoint, (str, Path)) else checkpoint.path
    if words:
        if settings.get("prompt") or settings.get("prompt_name"):
            message = "a prompt is set before texts whose own vector is taken, not before words"
            raise InputError(message, where="prompt", remedy="leave it out")
        settings = settings | {"pooling": "mean", "normalize": bool(settings.get("normalize"))}
    return Embedder.load(where, **settings)


def layers_of(text: str | None) -> list[int] | None:
    """Layers as a command names them: "-4,-3,-2,-1". Raises InputError: something that is no number."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        remedy = "numbers with commas between them: --layers=-4,-3,-2,-1"
        raise InputError(f"'{text}' names no layers", where="--layers", remedy=remedy) from None


def embed(
    checkpoint: Any,
    texts: str | Iterable[str],
    *,
    words: bool = False,
    dtype: str = "float32",
    quiet: bool = False,
    **settings: Any,
) -> np.ndarray | list[WordVectors]:
    """The vector of each text, (N, D) in their order; or of `words` one `WordVectors` a text: its words,
    their characters and their (W, D) vectors.

    Args:
        checkpoint: a hub id, a folder, a run, or an `Embedder`, which is not loaded again.
        texts: as many as memory has room for the vectors of; `bert-ft embed` and `Embedder` stream.
        words: `pooling` is then "mean", "max" or "first" of a word's tokens.
        dtype: "float32", "float16", or "int8": each vector by its own scale, so that only directions stay.
        settings: `pooling`, `layers`, `normalize`, `windows` and whatever else `Embedder.load` takes; none
            with an `Embedder`.
    Raises:
        InputError: no such checkpoint, settings that it can't have, or something that is no text.
    """
    valid(dtype, DTYPES, "dtype")
    texts = [texts] if isinstance(texts, str) else list(texts)
    of_words = settings.pop("pooling", None) or "mean" if words else "mean"
    embedder = load(checkpoint, words, **settings)
    say = Display(quiet).say
    for note in () if isinstance(checkpoint, Embedder) else embedder.notes:
        say(note)
    before = embedder.counts.copy()
    if words:
        of_texts = [
            found._replace(vectors=stored(found.vectors, dtype)[0])
            for found in embedder.words(texts, of_words)
        ]
        _tell_unread(embedder, before, say)
        return of_texts
    made = embedder.vectors(texts)
    empty, truncated = int(made.empty.sum()), int(made.truncated.sum())
    for line in told(len(texts), empty, truncated, embedder.encoder.max_length):
        say(line)
    _tell_unread(embedder, before, say)
    return stored(made.vectors, dtype)[0]


def _tell_unread(embedder: Embedder, before: Counter[str], say: Callable[[str], None]) -> None:
    """Says how much of the texts read since `before` the encoder does not see, where that is much."""
    if line := unread("texts", embedder.counts - before):
        say(line)
