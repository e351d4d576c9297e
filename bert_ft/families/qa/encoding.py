"""Questions and long contexts as windows: [CLS] question [SEP] a part of the context [SEP], and where answers
lie in them.

Every distinct context is tokenized once; windows are cut from its tokens, all of them in one gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_ft.config.schema import Qa
from bert_ft.errors import InputError
from bert_ft.families import tokenization
from bert_ft.families.features import Features


def encode(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    golds: np.ndarray,
    max_length: int,
    options: Qa,
) -> Features:
    """Every question on every window of its context.

    Windows begin `doc_stride` tokens apart, as in BERT's run_squad.py, or nearer where they would not share
    twice `max_answer_length` tokens (or half a window, where that is less): an answer of up to
    `max_answer_length` tokens (a quarter of a window) is then whole in the window in which its first token
    has the most context.

    Args:
        golds: (N, 2) characters of the context that the answer takes; -1 where there is none to learn.
    Returns:
        Features, one a window. places: `begin`, `end`, characters of the context, equal outside it. values:
        `row`;
        `start_positions`, `end_positions`, tokens of the window, both on [CLS] where the answer is not whole
        in it;
        `low`, `high`, the tokens from which an answer may start: those that have their most context here;
        `cls`.
        counts: rows, windows, tokens, truncated (questions cut to `max_query_length`), unknown; characters
            and uncovered
        (those that no token stands for) of each question, and of each different context once.
    """
    frame = tokenization.frame(tokenizer, 2)
    room = max_length - frame.size
    if room < 2:
        message = f"max_length = {max_length} leaves no room for a question and its context"
        raise InputError(message, where="recipe.max_length", remedy="384 is usual")
    order: dict[str, int] = {}
    which = np.fromiter(
        (order.setdefault(context, len(order)) for context in contexts), np.int64, len(contexts)
    )
    asked, question_ids, _ = tokenization.pieces(tokenizer, questions)
    given, context_ids, spans = tokenization.pieces(tokenizer, list(order))

    wanted, available = np.diff(asked), np.diff(given)[which]
    taken = np.minimum(wanted, min(options.max_query_length, room // 2))
    space = room - taken
    step = np.minimum(options.doc_stride, space - np.minimum(2 * options.max_answer_length, space // 2))
    row, number, count = tokenization.windows(available, space, step)
    start, stride = number * step[row], step[row]
    size = np.minimum(space[row], available[row] - start)
    before, between, after = frame.parts
    first = before[1] + taken[row] + between[1]

    ids = np.concatenate([question_ids, context_ids])
    texts = {
        "input_ids": ids,
        "token_type_ids": np.repeat(frame.kinds, [len(question_ids), len(context_ids)]),
    }
    question = frame.size + asked[row], taken[row]
    context = frame.size + len(question_ids) + given[which[row]] + start, size
    offsets, at = tokenization.join([before, question, between, context, after])
    tokens = {
        key: np.concatenate([own, texts[key].astype(np.int32)])[at] for key, own in frame.columns.items()
    }
    marks = np.zeros((frame.size + len(ids), 2), np.int32)
    marks[len(marks) - len(spans) :] = spans

    # two neighbours share tokens; the middle of these is where the later one begins to have more context
    # around
    low = np.where(number == 0, 0, (2 * start - stride + space[row] - 1) // 2 + 1 - start)
    high = np.where(number == count[row] - 1, size, (2 * start + space[row] - 1 + stride) // 2 - start)
    cls = np.full(len(row), _cls(tokenizer, frame), np.int64)
    cls[cls < 0] += np.diff(offsets)[cls < 0]
    answer = (
        _answer_tokens(golds, which, given, spans, [len(context) for context in order])[row] - start[:, None]
    )
    inside = (answer[:, 0] >= 0) & (answer[:, 1] < size) & (golds[row, 0] >= 0)
    positions = np.where(inside[:, None], answer + first[:, None], cls[:, None])
    counts = {
        "rows": len(questions),
        "windows": len(row),
        "tokens": len(at),
        "truncated": int((taken < wanted).sum()),
        "unknown": tokenization.unknown(tokenizer, tokens["input_ids"]),
    }
    counts |= tokenization.covered(*tokenization.coverage(tokenizer, [*questions, *order]))
    values = {
        "row": row,
        "start_positions": positions[:, 0],
        "end_positions": positions[:, 1],
        "low": low + first,
        "high": high + first,
        "cls": cls,
    }
    places = {"begin": marks[at, 0], "end": marks[at, 1]}
    return Features(offsets, tokens, values, np.ones(len(row)), counts, places=places)


def _cls(tokenizer: Any, frame: tokenization.Frame) -> int:
    """Where a window has the token that stands for no answer; negative: from its end."""
    token, ids = tokenizer.cls_token_id, frame.columns["input_ids"].tolist()
    before, after = ids[: frame.parts[0][1]], ids[frame.parts[2][0] :]
    return after.index(token) - len(after) if token in after and token not in before else 0


def _answer_tokens(
    golds: np.ndarray, which: np.ndarray, given: np.ndarray, spans: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """(N, 2) first and last token, within the context's own, of the smallest run of tokens that covers each
    answer."""
    base = np.cumsum([0, *lengths])[:-1]  # all contexts one behind the other
    places = spans + np.repeat(base, np.diff(given))[:, None]
    wanted = golds + base[which][:, None]
    first = np.searchsorted(places[:, 1], wanted[:, 0], side="right") - given[which]
    last = np.searchsorted(places[:, 0], wanted[:, 1], side="left") - 1 - given[which]
    lost = (
        (golds[:, 0] < 0) | (last < first) | (first < 0)
    )  # a normaliser may have taken all of its characters
    return np.where(lost[:, None], -1, np.stack([first, last], 1))
