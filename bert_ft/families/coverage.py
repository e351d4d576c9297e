"""How much of a text reaches the model: characters that no token stands for, and unknown tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_ft.families import fast_tokenizer

PART = 2**20  # characters looked at together


def counts(uncovered: np.ndarray, characters: np.ndarray) -> dict[str, int]:
    """What `of_texts` returns, as counts of a set."""
    return {"characters": int(characters.sum()), "uncovered": int(uncovered.sum())}


def unknown(tokenizer: Any, ids: np.ndarray) -> int:
    """How many of the tokens stand for what the vocabulary lacks."""
    return 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())


def of_texts(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """How much of these texts no token stands for: what a vocabulary without an unknown token leaves out in
    silence.

    Counted are the characters of the whole texts, before any truncation, that lie in the span of no token
    other than the special ones. White space, control and format characters and combining marks do not count:
    a normaliser may drop them for good reason. An unknown token covers what it stands for.

    Each different character is tried first: alone, and at the beginning, within and at the end of a word.
    Only texts with one that then lies in no token are tokenized for it.

    Returns:
        uncovered (N,) int64, characters of each text; characters (N,) int64, how many of it count.
    """
    uncovered = [np.zeros(0, np.int64)]
    characters = [np.zeros(0, np.int64)]
    lost: dict[str, bool] = {}  # of the characters that count and were met so far
    for part in _by_size(texts, PART):
        codes, sizes = _characters(part)
        visible, bare = (np.zeros(int(codes.max(initial=0)) + 1, bool) for _ in range(2))
        present = [chr(code) for code in np.flatnonzero(np.bincount(codes)).tolist()]
        present = [character for character in present if character in lost or _counts_as_text(character)]
        fresh = [character for character in present if character not in lost]
        lost |= dict(zip(fresh, _lost(tokenizer, fresh).tolist(), strict=True))
        visible[[ord(character) for character in present]] = True
        bare[[ord(character) for character in present if lost[character]]] = True
        characters.append(_sums(visible[codes], sizes))
        bare_here = _sums(bare[codes], sizes)
        if (suspected := np.flatnonzero(bare_here)).size:
            chosen = [part[number] for number in suspected.tolist()]
            codes, sizes = _characters(chosen)
            bare_here[suspected] = _sums(visible[codes] & _bare(tokenizer, chosen), sizes)
        uncovered.append(bare_here)
    return np.concatenate(uncovered), np.concatenate(characters)


def _by_size(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The texts in parts of at most so many characters, or of one text."""
    part = list[str]()
    size = 0
    for text in texts:
        if part and size + len(text) > most:
            yield part
            part = []
            size = 0
        part.append(text)
        size += len(text)
    if part:
        yield part


def _characters(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) the code points of all texts, one behind the other; (N,) how many each has."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, np.fromiter(map(len, texts), np.int64, len(texts))


def _sums(mask: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) int64: how often the mask (C,) of all texts' characters is true in each text."""
    before = np.concatenate([[0], np.cumsum(mask)])
    return np.diff(before[np.concatenate([[0], np.cumsum(sizes)])])


def _counts_as_text(character: str) -> bool:
    return unicodedata.category(character)[0] not in "ZCM" and not character.isspace()


def _lost(tokenizer: Any, characters: Sequence[str]) -> np.ndarray:
    """(C,) whether a character lies in no token, at the beginning of a word, within or at the end of one, or
    alone."""
    frames = [(before, after) for before in ("", "a") for after in ("", "a")]
    probes = [f"{before}{character}{after}" for before, after in frames for character in characters]
    bare = _bare(tokenizer, probes)
    starts = np.cumsum([0, *map(len, probes)])[:-1].reshape(len(frames), -1)
    at = starts + np.array([[len(before)] for before, _ in frames])
    result: np.ndarray = bare[at].any(axis=0)
    return result


def _bare(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """(C,) of all characters of the texts, one behind the other, whether each lies in the span of no
    token."""
    offsets, _, spans = fast_tokenizer.tokenize(tokenizer, texts)
    sizes = _characters(texts)[1]
    base = np.repeat(np.cumsum(sizes) - sizes, np.diff(offsets))[:, None]
    begin, end = (spans + base).T
    edges = np.zeros(int(sizes.sum()) + 1, np.int64)
    np.add.at(edges, begin, 1)
    np.add.at(edges, end, -1)
    result: np.ndarray = np.cumsum(edges)[:-1] == 0
    return result
