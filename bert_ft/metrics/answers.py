"""Answers in other languages than English, scored as the official scripts of their benchmarks do. Pure
functions.

Each takes `predictions` (question id -> text) and `answers` (question id -> gold texts), and returns two
metrics that bear its name, 0 to 100: whether the prediction equals a gold answer, and its best F1 over them.
A missing prediction counts 0. Sources: cmrc2018_evaluate.py (Cui et al. 2019), mlqa_evaluation_v1.py (Lewis
et al. 2020), KorQuAD's evaluate-v1.0.py (Lim et al. 2019), and the paper of DRCD (Shao et al. 2018), which
has no script: its F1 counts characters.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from bert_ft.metrics import squad, treebank

Scores = Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], dict[str, float]]

HAN = "\u4e00-\u9fa5"
CMRC_SIGNS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
CMRC_REMOVED = str.maketrans("", "", CMRC_SIGNS)
KORQUAD_SPACES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))
ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"\sال^|ال",  # as in the script: what it removes is any two such letters
    "hi": "",
    "zh": "",
}
"""Language -> the articles that MLQA's script removes."""


class Metric(NamedTuple):
    """How one benchmark compares a prediction with a gold answer.

    Attributes:
        text: what of an answer has to be equal. parts: what F1 counts. rate: F1 of two lists of parts.
    """

    text: Callable[[str], str]
    parts: Callable[[str], Sequence[str]]
    rate: Callable[[Sequence[str], Sequence[str]], float] = squad.f1_of_bags


def score(
    name: str, predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """`<name>_exact_match` and `<name>_f1`, where `name` is a key of `METRICS`.

    Raises:
        ValueError: a question without a gold answer.
    """
    metric = METRICS[name]

    def parts(text: str) -> tuple[str, Sequence[str]]:
        return metric.text(text), metric.parts(text)

    exact, f1 = squad.best_golds(
        predictions,
        answers,
        lru_cache(1 << 12)(parts),
        lambda predicted, gold: predicted[0] == gold[0],
        lambda predicted, gold: metric.rate(predicted[1], gold[1]),
    )
    return {f"{name}_exact_match": exact, f"{name}_f1": f1}


def named(metrics: Iterable[str]) -> list[str]:
    """The keys of `METRICS` whose values are among the metrics, each once."""
    return [name for name in METRICS if {f"{name}_exact_match", f"{name}_f1"} & set(metrics)]


# --- CMRC 2018


def _cmrc_text(text: str) -> str:
    return text.lower().strip().translate(CMRC_REMOVED)


@lru_cache(1 << 12)
def cmrc_segments(text: str) -> tuple[str, ...]:
    """A Chinese character each, and what stands between them as words of the Penn Treebank; without signs."""
    pieces = re.split(f"([{HAN}])", _cmrc_text(text))
    return tuple(
        word
        for number, piece in enumerate(pieces)
        for word in ([piece] if number % 2 else treebank.words(piece))
    )


def _f1_of_runs(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """F1 by the longest run of parts that both have."""
    longest = 0
    above = [0] * (len(gold) + 1)
    for part in prediction:
        above = [0, *(above[i] + 1 if part == other else 0 for i, other in enumerate(gold))]
        longest = max(longest, *above)
    return squad.mean_rate(longest, len(prediction), len(gold))


# --- MLQA


@lru_cache(1)
def _punctuation() -> dict[int, None]:
    signs = (number for number in range(0x110000) if unicodedata.category(chr(number)).startswith("P"))
    return {**dict.fromkeys(signs), **dict.fromkeys(map(ord, string.punctuation))}


def _mlqa_text(text: str, language: str) -> str:
    bare = text.lower().translate(_punctuation())
    if ARTICLES[language]:
        bare = re.sub(ARTICLES[language], " ", bare)
    if language == "zh":
        bare = re.sub(f"([{HAN}])", r" \1 ", bare)
    return " ".join(bare.split())


def _mlqa(language: str) -> Metric:
    def parts(text: str) -> list[str]:
        return _mlqa_text(text, language).split()

    return Metric(partial(_mlqa_text, language=language), parts)


# --- KorQuAD, DRCD


def _korquad_text(text: str) -> str:
    bare = text.translate(KORQUAD_SPACES).lower().translate(squad.PUNCTUATION)
    return " ".join(bare.split())


def _drcd_text(text: str) -> str:
    return " ".join(text.lower().translate(_punctuation()).split())


def _characters(text: str) -> str:
    return "".join(text.split())


METRICS = {
    "cmrc": Metric(_cmrc_text, cmrc_segments, _f1_of_runs),
    "drcd": Metric(_drcd_text, lambda text: _characters(_drcd_text(text))),
    "korquad": Metric(_korquad_text, lambda text: _characters(_korquad_text(text))),
}
METRICS |= {f"mlqa_{language}": _mlqa(language) for language in ARTICLES}
"""Name, one of `bert_ft.metrics.BENCHMARKS` -> how it scores."""
