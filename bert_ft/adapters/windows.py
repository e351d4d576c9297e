"""Questions and long contexts as windows: [CLS] question [SEP] a part of the context [SEP], and where answers lie in them.

Every distinct context is tokenized once; windows are cut from its tokens, all of them in one gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_ft.adapters import tokenizing
from bert_ft.adapters.base import Features
from bert_ft.errors import InputError
from bert_ft.schema import Qa


def encode(
    tokenizer: Any, questions: Sequence[str], contexts: Sequence[str], golds: np.ndarray, max_length: int, options: Qa
) -> Features:
    """Every question on every window of its context.

    Windows begin `doc_stride` tokens apart, as in BERT's run_squad.py, or nearer where they would not share twice
    `max_answer_length` tokens (or half a window, where that is less): an answer of up to `max_answer_length` tokens (a
    quarter of a window) is then whole in the window in which its first token has the most context.

    Args:
        golds: (N, 2) characters of the context that the answer takes; -1 where there is none to learn.
    Returns:
        Features, one a window. places: `begin`, `end`, characters of the context, equal outside it. values: `row`;
        `start_positions`, `end_positions`, tokens of the window, both on [CLS] where the answer is not whole in it;
        `low`, `high`, the tokens from which an answer may start: those that have their most context here; `cls`.
        counts: rows, windows, tokens, truncated (questions cut to `max_query_length`), unknown.
    """
    (before, between, after), kinds = template(tokenizer)
    room = max_length - len(before) - len(between) - len(after)
    if room < 2:
        message = f"max_length = {max_length} leaves no room for a question and its context"
        raise InputError(message, where="recipe.max_length", remedy="384 is usual")
    order: dict[str, int] = {}
    which = np.fromiter((order.setdefault(context, len(order)) for context in contexts), np.int64, len(contexts))
    asked, question_ids, _ = tokenizing.pieces(tokenizer, questions)
    given, context_ids, spans = tokenizing.pieces(tokenizer, list(order))

    wanted, available = np.diff(asked), np.diff(given)[which]
    taken = np.minimum(wanted, min(options.max_query_length, room // 2))
    space = room - taken
    step = np.minimum(options.doc_stride, space - np.minimum(2 * options.max_answer_length, space // 2))
    count = np.maximum(0, -(-(available - space) // step)) + 1
    row = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    start, stride = number * step[row], step[row]
    size = np.minimum(space[row], available[row] - start)
    first = len(before) + taken[row] + len(between)

    special = np.array([*before, *between, *after], np.int32)
    pool = np.concatenate([special, question_ids, context_ids])
    zero = np.zeros_like(start)
    sources = [zero, len(special) + asked[row], zero + len(before), len(special) + len(question_ids) + given[which[row]] + start,
               zero + len(before) + len(between)]  # fmt: skip
    sizes = np.stack([zero + len(before), taken[row], zero + len(between), size, zero + len(after)], 1).ravel()
    at = np.repeat(np.stack(sources, 1).ravel() - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
    tokens = {"input_ids": pool[at]}
    if "token_type_ids" in tokenizer.model_input_names:
        types = np.repeat(kinds[[0, 2]], [len(question_ids), len(context_ids)])
        tokens["token_type_ids"] = np.concatenate([kinds[3:], types])[at].astype(np.int32)
    marks = np.zeros((len(pool), 2), np.int32)
    marks[len(pool) - len(spans) :] = spans

    # two neighbours share tokens; the middle of these is where the later one begins to have more context around
    low = np.where(number == 0, 0, (2 * start - stride + space[row] - 1) // 2 + 1 - start)
    high = np.where(number == count[row] - 1, size, (2 * start + space[row] - 1 + stride) // 2 - start)
    cls = np.full(len(row), _cls(tokenizer, before, after), np.int64)
    lengths = sizes.reshape(-1, 5).sum(1)
    cls[cls < 0] += lengths[cls < 0]
    answer = _answer_tokens(golds, which, given, spans, [len(context) for context in order])[row] - start[:, None]
    inside = (answer[:, 0] >= 0) & (answer[:, 1] < size) & (golds[row, 0] >= 0)
    positions = np.where(inside[:, None], answer + first[:, None], cls[:, None])
    unknown = tokenizer.unk_token_id
    counts = {"rows": len(questions), "windows": len(row), "tokens": len(at), "truncated": int((taken < wanted).sum()),
              "unknown": int((tokens["input_ids"] == unknown).sum()) if unknown is not None else 0}  # fmt: skip
    values = {"row": row, "start_positions": positions[:, 0], "end_positions": positions[:, 1], "low": low + first,
              "high": high + first, "cls": cls}  # fmt: skip
    places = {"begin": marks[at, 0], "end": marks[at, 1]}
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Features(offsets, tokens, values, np.ones(len(row)), counts, places=places)


def template(tokenizer: Any) -> tuple[tuple[list[int], list[int], list[int]], np.ndarray]:
    """The special tokens before, between and after the texts of a pair; token types: of the first text, of none, of the
    second, then of each special token."""
    with tokenizing.whole(tokenizer) as backend:
        probe = backend.encode("a", "b", add_special_tokens=True)
    owner = np.array([-1 if number is None else number for number in probe.sequence_ids])
    ids, types = np.array(probe.ids), np.array(probe.type_ids)
    if not ((owner == 0).any() and (owner == 1).any()):
        raise InputError("its tokenizer makes nothing of the letters a and b", where=str(tokenizer.name_or_path),
                         remedy="is this an encoder's tokenizer?")  # fmt: skip
    first, second = np.flatnonzero(owner == 0), np.flatnonzero(owner == 1)
    parts = (ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :])
    kinds = np.concatenate([[types[first[0]], 0, types[second[0]]], types[owner < 0]])
    return (parts[0].tolist(), parts[1].tolist(), parts[2].tolist()), kinds


def _cls(tokenizer: Any, before: list[int], after: list[int]) -> int:
    """Where a window has the token that stands for no answer; negative: from its end."""
    token = tokenizer.cls_token_id
    return after.index(token) - len(after) if token in after and token not in before else 0


def _answer_tokens(
    golds: np.ndarray, which: np.ndarray, given: np.ndarray, spans: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """(N, 2) first and last token, within the context's own, of the smallest run of tokens that covers each answer."""
    base = np.cumsum([0, *lengths])[:-1]  # all contexts one behind the other
    places = spans + np.repeat(base, np.diff(given))[:, None]
    wanted = golds + base[which][:, None]
    first = np.searchsorted(places[:, 1], wanted[:, 0], side="right") - given[which]
    last = np.searchsorted(places[:, 0], wanted[:, 1], side="left") - 1 - given[which]
    lost = (golds[:, 0] < 0) | (last < first) | (first < 0)  # a normaliser may have taken all of its characters
    return np.where(lost[:, None], -1, np.stack([first, last], 1))
