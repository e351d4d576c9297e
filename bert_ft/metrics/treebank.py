"""Lower-case text as words by the conventions of the Penn Treebank, as NLTK's `word_tokenize` cuts it.

Its rules (NLTK, Apache 2.0) in words of our own, since CMRC's official script counts by them. What differs
from NLTK: where a sentence ends within the text is told by a short list of abbreviations in the place of
Punkt's trained model, which counts only for a period in the middle of a text.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    ["adm", "aug", "ave", "bros", "calif", "co", "col", "colo", "corp", "cos", "dec", "dr", "feb", "fla",
     "ga", "gen", "ill", "inc", "jan", "jr", "lt", "ltd", "maj", "messrs", "mg", "mr", "mrs", "ms", "nov",
     "oct", "ph.d", "prof", "rep", "sen", "sep", "sept", "sr", "st", "va", "vs"]
)  # fmt: skip
INITIALS = re.compile(r"(?!e\.g$|i\.e$)[a-z](\.[a-z])+")
"""As in "u.s" and "p.m"; behind "e.g." Punkt ends a sentence."""
CLOSING = "]) }>\"'»”’"
"""What may stand between the last period of a sentence and its end."""
SENTENCE_END = re.compile(r"(\S*)([.?!])(?=[)\";}\]*:@'({\[!?]|\s+(\S))")
CLOSED = re.compile(r"[\"')\]}]+(?=\s|$)")
CLITICS = "re|ve|ll|m|s|d"
TWO_WORDS = re.compile(
    r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(more)('n)\b"
)
"""Contractions without a sign between their two words."""


def words(text: str) -> list[str]:
    """The words and signs of a text."""
    return [word for sentence in _sentences(text) for word in _words(sentence)]


def _sentences(text: str) -> list[str]:
    ends = [0]
    for match in SENTENCE_END.finditer(text):
        before = match[1].lstrip("([{\"'")
        counted = (len(before) == 1 and before.isalpha()) or before.replace(",", "").isdecimal()
        goes_on = before in ABBREVIATIONS or INITIALS.fullmatch(before) or before.endswith(".")
        goes_on = goes_on or (counted and (match[3] or "").islower())
        if match[2] != "." or not goes_on:
            closed = CLOSED.match(text, match.end())
            ends.append(closed.end() if closed else match.end())
    return [text[start:end].strip() for start, end in zip(ends, [*ends[1:], len(text)], strict=True)]


def _words(sentence: str) -> list[str]:
    text = re.sub(r"[«“‘„]|`+", r" \g<0> ", sentence)
    text = re.sub(r'^"', " `` ", text)
    text = re.sub(r"(?<=[ (\[{<])(?:\"|'')", " `` ", text)
    text = re.sub(rf"(?<!\w)'(?!(?:{CLITICS}|t|n)\b)(?=\w)", "' ", text)
    text = re.sub(rf"(?<=[^.])\.(?=[{re.escape(CLOSING)}]*\s*$)", " . ", text)
    text = re.sub(r"([:,])(\D|$)", r" \1 \2", text)
    text = re.sub(r"\.{2,}|[;@#$%&?!*\u2012-\u2015]", r" \g<0> ", text)
    text = re.sub(r"(?<=[^'])' ", " ' ", text)
    text = re.sub(r"[\[\](){}<>]|--", r" \g<0> ", text)
    text = re.sub(r"[»”’]", r" \g<0> ", f" {text} ")
    text = re.sub("''|\"", " '' ", text)
    text = re.sub(r"(?<=[^' ])'[smd]?(?= )", r" \g<0>", re.sub(r"\s+", " ", text))
    text = re.sub(r"(?<=[^' ])(?:'ll|'re|'ve|n't)(?= )", r" \g<0>", text)
    text = TWO_WORDS.sub(lambda match: f" {' '.join(filter(None, match.groups()))} ", text)
    return re.sub(r"(?<= )('t)(is|was)\b", r"\1 \2", text).split()
