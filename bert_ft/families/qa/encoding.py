"""Questions and long contexts as windows: [CLS] question [SEP] a part of the context [SEP], and where answers
lie in them.

Every distinct context is tokenized once; windows are cut from its tokens, all of them in one gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_ft.errors import InputError
from bert_ft.families import coverage, fast_tokenizer, tokenization
from bert_ft.families.features import Features, ranges
from bert_ft.families.qa.options import Options


@dataclass(frozen=True)
class Answers:
    """Gold answers, several a question.

    Attributes:
        row: (G,) the question of each. spans: (G, 2) its characters of the context; -1 where it has no place.
    """

    row: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class _Texts:
    """Questions and their contexts as tokens; each distinct context once.

    Attributes:
        which: (N,) the context of each question. contexts: the distinct ones.
        asked, question_ids: (N + 1,) offsets of the questions, (Q,) their token ids.
        given, context_ids, spans: (K + 1,) offsets of the contexts, (C,) token ids, (C, 2) their characters.
    """

    which: np.ndarray
    contexts: list[str]
    asked: np.ndarray
    question_ids: np.ndarray
    given: np.ndarray
    context_ids: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class _Windows:
    """Windows over the contexts, (W,) each.

    Attributes:
        row: the question. start, size: the part of the context's tokens. question: tokens of the question.
        low, high: the tokens of the part that have the most context around them here, `high` among them.
    """

    row: np.ndarray
    start: np.ndarray
    size: np.ndarray
    question: np.ndarray
    low: np.ndarray
    high: np.ndarray


def encode(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    golds: np.ndarray,
    max_length: int,
    options: Options,
    answers: Answers | None = None,
) -> Features:
    """Every question on every window of its context.

    Windows begin `doc_stride` tokens apart, as in BERT's run_squad.py, or nearer where they would not share
    twice `max_answer_length` tokens (or half a window, where that is less): an answer of up to
    `max_answer_length` tokens (a quarter of a window) is then whole in the window in which its first token
    has the most context.

    Args:
        golds: (N, 2) characters of the context that the answer takes; -1 where there is none to learn.
        answers: all answers that count as right, for `needed`; `golds` by default.
    Returns:
        Features, one a window. places: `begin`, `end`, characters of the context, equal outside it. values:
        `row`; `start_positions`, `end_positions`, tokens of the window, both on [CLS] where the answer is not
        whole in it; `low`, `high`, the tokens from which an answer may start: those that have their most
        context here; `cls`; `needed`, the tokens of the question's shortest answer that can be predicted at
        any length: that is whole in the window in which its first token has the most context; less than 0,
        the tokens of its shortest answer, where none can; 0 where there is no answer to find.
        counts: rows, windows, tokens, truncated (questions cut to `max_query_length`), unknown; characters
        and uncovered (those that no token stands for) of each question, and of each different context once.
    """
    frame = fast_tokenizer.frame(tokenizer, 2)
    room = max_length - frame.size
    if room < 2:
        message = f"max_length = {max_length} leaves no room for a question and its context"
        raise InputError(message, where="recipe.max_length", remedy="384 is usual")
    texts = _tokenized(tokenizer, questions, contexts)
    taken = np.minimum(np.diff(texts.asked), min(options.max_query_length, room // 2))
    parts = _windows(taken, np.diff(texts.given)[texts.which], room, options)
    offsets, tokens, marks = _joined(frame, texts, parts)

    cls = np.full(len(parts.row), _cls(tokenizer, frame), np.int64)
    cls[cls < 0] += np.diff(offsets)[cls < 0]
    first = frame.parts[0][1] + parts.question + frame.parts[1][1]
    answer = _answer_tokens(golds, texts, texts.which)[parts.row] - parts.start[:, None]
    inside = (answer[:, 0] >= 0) & (answer[:, 1] < parts.size) & (golds[parts.row, 0] >= 0)
    positions = np.where(inside[:, None], answer + first[:, None], cls[:, None])
    answers = answers or Answers(np.arange(len(golds)), golds)
    counts = {
        "rows": len(questions),
        "windows": len(parts.row),
        "tokens": int(offsets[-1]),
        "truncated": int((taken < np.diff(texts.asked)).sum()),
        "unknown": coverage.unknown(tokenizer, tokens["input_ids"]),
    }
    counts |= coverage.counts(*coverage.of_texts(tokenizer, [*questions, *texts.contexts]))
    values = {
        "row": parts.row,
        "start_positions": positions[:, 0],
        "end_positions": positions[:, 1],
        "low": parts.low + first,
        "high": parts.high + first,
        "cls": cls,
        "needed": _needed(answers, texts, parts, len(questions))[parts.row],
    }
    places = {"begin": marks[:, 0], "end": marks[:, 1]}
    return Features(offsets, tokens, values, np.ones(len(parts.row)), counts, places=places)


def _tokenized(tokenizer: Any, questions: Sequence[str], contexts: Sequence[str]) -> _Texts:
    order: dict[str, int] = {}
    numbers = (order.setdefault(context, len(order)) for context in contexts)
    which = np.fromiter(numbers, np.int64, len(contexts))
    asked, question_ids, _ = fast_tokenizer.tokenize(tokenizer, questions)
    given, context_ids, spans = fast_tokenizer.tokenize(tokenizer, list(order))
    return _Texts(which, list(order), asked, question_ids, given, context_ids, spans)


def _windows(taken: np.ndarray, available: np.ndarray, room: int, options: Options) -> _Windows:
    """The windows of questions that take `taken` tokens of the `room`, on contexts of `available` tokens."""
    space = room - taken
    step = np.minimum(options.doc_stride, space - np.minimum(2 * options.max_answer_length, space // 2))
    row, number, count = tokenization.windows(available, space, step)
    stride = step[row]
    start = number * stride
    size = np.minimum(space[row], available[row] - start)
    # two neighbours share tokens; the middle of these is where the later one begins to have more context
    # around
    low = np.where(number == 0, 0, (2 * start - stride + space[row] - 1) // 2 + 1 - start)
    high = np.where(number == count[row] - 1, size, (2 * start + space[row] - 1 + stride) // 2 - start)
    return _Windows(row, start, size, taken[row], low, high)


def _joined(
    frame: fast_tokenizer.Frame, texts: _Texts, parts: _Windows
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """[CLS] question [SEP] part [SEP] of each window: offsets (W + 1,), token columns (T,), and the
    characters (T, 2) of the context that each token stands for."""
    ids = np.concatenate([texts.question_ids, texts.context_ids])
    kinds = np.repeat(frame.kinds, [len(texts.question_ids), len(texts.context_ids)])
    columns = {"input_ids": ids, "token_type_ids": kinds}
    question = (frame.size + texts.asked[parts.row], parts.question)
    context_start = frame.size + len(texts.question_ids) + texts.given[texts.which[parts.row]] + parts.start
    before, between, after = frame.parts
    offsets, at = fast_tokenizer.join([before, question, between, (context_start, parts.size), after])
    tokens = {
        key: np.concatenate([own, columns[key].astype(np.int32)])[at] for key, own in frame.columns.items()
    }
    marks = np.zeros((frame.size + len(ids), 2), np.int32)
    marks[len(marks) - len(texts.spans) :] = texts.spans
    return offsets, tokens, marks[at]


def _cls(tokenizer: Any, frame: fast_tokenizer.Frame) -> int:
    """Where a window has the token that stands for no answer; negative: from its end."""
    token = tokenizer.cls_token_id
    ids = frame.columns["input_ids"].tolist()
    before = ids[: frame.parts[0][1]]
    after = ids[frame.parts[2][0] :]
    return after.index(token) - len(after) if token in after and token not in before else 0


def _answer_tokens(golds: np.ndarray, texts: _Texts, which: np.ndarray) -> np.ndarray:
    """(N, 2) first and last token, within the context's own, of the smallest run of tokens that covers each
    answer, of the context `which` (N,); -1 where none does."""
    lengths = [len(context) for context in texts.contexts]
    base = np.cumsum([0, *lengths])[:-1]  # all contexts one behind the other
    places = texts.spans + np.repeat(base, np.diff(texts.given))[:, None]
    wanted = golds + base[which][:, None]
    own = texts.given[which]
    first = np.searchsorted(places[:, 1], wanted[:, 0], side="right") - own
    last = np.searchsorted(places[:, 0], wanted[:, 1], side="left") - 1 - own
    # a normaliser may have taken all characters of an answer
    lost = (golds[:, 0] < 0) | (last < first) | (first < 0)
    return np.where(lost[:, None], -1, np.stack([first, last], 1))


def _needed(answers: Answers, texts: _Texts, parts: _Windows, questions: int) -> np.ndarray:
    """(questions,) as `encode` describes it."""
    tokens = _answer_tokens(answers.spans, texts, texts.which[answers.row])
    located = tokens[:, 0] >= 0
    row, tokens = answers.row[located], tokens[located]
    # each answer beside each window of its question
    count = np.bincount(parts.row, minlength=questions)
    begin = np.concatenate([[0], np.cumsum(count)])[row]
    window = ranges(begin, count[row])
    answer = np.repeat(np.arange(len(row)), count[row])
    first = tokens[answer, 0] - parts.start[window]
    last = tokens[answer, 1] - parts.start[window]
    fits = (first >= parts.low[window]) & (first <= parts.high[window]) & (last < parts.size[window])
    whole = np.zeros(len(row), bool)
    whole[answer[fits]] = True
    length = tokens[:, 1] - tokens[:, 0] + 1
    huge = np.iinfo(np.int64).max
    of_whole, of_any = np.full(questions, huge), np.full(questions, huge)
    np.minimum.at(of_whole, row[whole], length[whole])
    np.minimum.at(of_any, row, length)
    return np.where(of_whole < huge, of_whole, np.where(of_any < huge, -of_any, 0))
