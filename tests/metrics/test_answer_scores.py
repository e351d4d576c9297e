"""Scores of answers in other languages against their scripts: rewritten here from what they say they do, and by hand."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ft import metrics
from bert_ft.metrics import answers, treebank

WORDS = [
    "1999年", "3.5公里", "1,000", "北京", "大學", "iPhone 4S", "U.S.", "don't", "(a)", "“x”", "《红楼梦》", "the", "El", "la", "der",
    "của", "ال", "대한민국", "서울", "'", '"', "〈책〉", "東京タワー", "-", "$5", "50%", "。", ",",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(WORDS), max_size=4).map("".join) | st.lists(
    st.sampled_from(WORDS), max_size=4
).map(" ".join)
SIGNS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
PUNCTUATION = {chr(i) for i in range(0x110000) if unicodedata.category(chr(i))[0] == "P"} | set(
    string.punctuation
)


def harmonic(same: float, predicted: int, gold: int) -> float:
    return 2 * same / (predicted + gold) if same else 0.0


def bag(a: list[str], b: list[str]) -> float:
    return harmonic(sum(min(n, Counter(b)[part]) for part, n in Counter(a).items()), len(a), len(b))


def run(a: list[str], b: list[str]) -> float:
    lengths = [n for i in range(len(a)) for n in range(len(a) - i + 1) if any(a[i : i + n] == b[j : j + n] for j in range(len(b)))]  # fmt: skip
    return harmonic(max(lengths, default=0), len(a), len(b))


def cmrc(text: str) -> tuple[str, list[str]]:
    bare = "".join(char for char in text.lower().strip() if char not in SIGNS)
    parts, word = [], ""
    for char in [*bare, "一"]:
        if "\u4e00" <= char <= "\u9fa5":
            parts += [*treebank.words(word), char]
            word = ""
        else:
            word += char
    return bare, parts[:-1]


def mlqa(language: str) -> Callable[[str], tuple[str, list[str]]]:
    articles = {"en": "a|an|the", "es": "un|una|unos|unas|el|la|los|las", "vi": "của|là|cái|chiếc|những",
                "de": "ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des"}  # fmt: skip

    def normal(text: str) -> tuple[str, list[str]]:
        bare = "".join(char for char in text.lower() if char not in PUNCTUATION)
        if language in articles:
            bare = re.sub(rf"\b(?:{articles[language]})\b", " ", bare)
        if language == "ar":
            bare = re.sub(r"ال", " ", bare)
        if language == "zh":
            bare = "".join(f" {char} " if "\u4e00" <= char <= "\u9fa5" else char for char in bare)
        return " ".join(bare.split()), bare.split()

    return normal


def korquad(text: str) -> tuple[str, list[str]]:
    for sign in "'\"《》<>〈〉()‘’":
        text = text.replace(sign, " ")
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(bare.split()), [char for char in bare if not char.isspace()]


def drcd(text: str) -> tuple[str, list[str]]:
    bare = "".join(char for char in text.lower() if char not in PUNCTUATION)
    return " ".join(bare.split()), [char for char in bare if not char.isspace()]


REFERENCES = {"cmrc": (cmrc, run), "korquad": (korquad, bag), "drcd": (drcd, bag)}
REFERENCES |= {f"mlqa_{language}": (mlqa(language), bag) for language in ("ar", "de", "en", "es", "hi", "vi", "zh")}  # fmt: skip


def test_random_texts_are_cut_as_nltk_cuts_them() -> None:
    """Of 400 random texts, which word_tokenize of NLTK 3.10.4 cut: all but one, where Punkt ends a sentence before a
    quote that stands alone."""
    cases = json.loads((Path(__file__).parent / "treebank_nltk.json").read_text(encoding="utf-8"))
    other = [text for text, expected in cases if treebank.words(text) != expected]
    assert len(cases) == 400 and other == ["wow! ''"]


def test_every_benchmark_has_its_scorer() -> None:
    assert set(metrics.BENCHMARKS) == set(answers.METRICS) == set(REFERENCES)


@pytest.mark.parametrize("name", metrics.BENCHMARKS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_scores_equal_the_reference(name: str, data: st.DataObject) -> None:
    golds = data.draw(st.lists(TEXT, min_size=1, max_size=3))
    predicted = data.draw(TEXT | st.sampled_from(golds))
    normal, rate = REFERENCES[name]
    mine = normal(predicted)
    expected = {
        f"{name}_exact_match": 100.0 * max(mine[0] == normal(gold)[0] for gold in golds),
        f"{name}_f1": pytest.approx(100.0 * max(rate(mine[1], normal(gold)[1]) for gold in golds), rel=1e-12),
    }
    assert answers.score(name, {"q": predicted, "other": "x"}, {"q": golds}) == expected
    half = answers.score(name, {"q": predicted}, {"q": golds, "unanswered": golds})
    assert half == {key: pytest.approx(value / 2) for key, value in answers.score(name, {"q": predicted}, {"q": golds}).items()}  # fmt: skip


BY_HAND = [
    ("cmrc", "4.6公里", "364.6公里", 0.0, 200 * 2 / 6),  # a number is one word
    ("cmrc", "《战国》无双", "战国无双", 100.0, 100.0),
    ("cmrc", "iPhone 4", "iphone手机", 0.0, 200 * 1 / 5),
    ("mlqa_de", "die Katze", "Katze", 100.0, 100.0),
    ("mlqa_es", "el gato negro", "gato", 0.0, 200 * 1 / 3),
    ("mlqa_zh", "北京大學", "北京", 0.0, 200 * 2 / 6),
    ("korquad", "서울특별시", "서울", 0.0, 200 * 2 / 7),
    ("korquad", "《서울》", "서울", 100.0, 100.0),
    ("drcd", "因信稱義。", "因信稱義", 100.0, 100.0),
    ("drcd", "因信", "因信稱義", 0.0, 200 * 2 / 6),
]


@pytest.mark.parametrize(("name", "prediction", "gold", "exact", "f1"), BY_HAND)
def test_scores_by_hand(name: str, prediction: str, gold: str, exact: float, f1: float) -> None:
    found = answers.score(name, {"q": prediction}, {"q": [gold]})
    assert found == {f"{name}_exact_match": exact, f"{name}_f1": pytest.approx(f1)}


PRINTED_BY_NLTK = {
    "it's 3.5% of $1,000.": ["it", "'s", "3.5", "%", "of", "$", "1,000", "."],
    "don't (a) [b]": ["do", "n't", "(", "a", ")", "[", "b", "]"],
    'the "quote" ends.': ["the", "``", "quote", "''", "ends", "."],
    "u.s. steel, inc.": ["u.s.", "steel", ",", "inc", "."],
    "one. two": ["one", ".", "two"],
    "dr. no cannot r&b": ["dr.", "no", "can", "not", "r", "&", "b"],
    "a;b...c": ["a", ";", "b", "...", "c"],
    "": [],
}


@pytest.mark.parametrize("text", PRINTED_BY_NLTK)
def test_words_are_those_of_nltk(text: str) -> None:
    """What `nltk.word_tokenize` of NLTK 3.10.4 printed, with its English Punkt."""
    assert treebank.words(text) == PRINTED_BY_NLTK[text]
