"""What a word is in raw text, whatever the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

CJK = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f]"
UNSPACED = r"[\p{Hiragana}\p{Katakana}\u30fc\uff70\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""Letters of the scripts, beside Chinese, that put no space between words."""
ALONE = f"{CJK[1:-1]}\u0e00-\u0eff\u3040-\u30ff"
"""Letters that are no parts of words with spaces around them, for `re`: Chinese, Thai, Lao, kana."""
MARKS = r"[\p{M}\uff9e\uff9f]*"  # what stands on or under a letter, and the voicing of half-width kana


class Words(NamedTuple):
    """The words of texts, flat: text i has the words offsets[i] to offsets[i + 1]; starts and ends are in its
    characters."""

    words: list[str]
    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@cache
def _splitter(unspaced: bool) -> Any:
    from tokenizers import Regex, pre_tokenizers

    single = f"{CJK}|{UNSPACED}{MARKS}" if unspaced else CJK
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(single), "isolated"), pre_tokenizers.BertPreTokenizer()]
    )


def split(texts: Sequence[str], unspaced: bool = True) -> Words:
    """Words as BERT's basic tokenizer has them (Devlin et al. 2019): parted at white space, every punctuation
    mark and every Chinese character by itself; if `unspaced`, every `UNSPACED` letter too."""
    splitter = _splitter(unspaced)
    found = [[span for _, span in splitter.pre_tokenize_str(text)] for text in texts]
    words = [text[start:end] for text, spans in zip(texts, found, strict=True) for start, end in spans]
    limits = np.array([span for spans in found for span in spans], np.int64).reshape(-1, 2)
    return Words(words, np.cumsum([0, *map(len, found)]), limits[:, 0], limits[:, 1])


def joined(words: Sequence[str]) -> str:
    """Words as a text: a space between two of them, unless both sides of it are of a script that puts
    none."""
    return _between().sub("", " ".join(words))


@cache
def _between() -> re.Pattern[str]:
    """The space between two letters or marks of scripts without spaces."""
    letter = f"[{ALONE}\u3000-\u303f\uff00-\uffef]"
    return re.compile(f"(?<={letter}) (?={letter})")
