"""The gold answers of canonical rows: where they stand, and which of them a training learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pac

from bert_ft.data.rows import Rows
from bert_ft.families.qa import encoding


def golds(rows: Rows) -> np.ndarray:
    """(N, 2) characters of the first gold answer that was found, without white space around it; -1 where none
    was."""
    out = np.full((len(rows), 2), -1, np.int64)
    texts = rows.table["answers"].to_pylist()
    starts = rows.table["answer_starts"].to_pylist()
    for i, (golds, places) in enumerate(zip(texts, starts, strict=True)):
        for text, start in zip(golds or [], places or [], strict=True):
            if start >= 0:
                begin = start + len(text) - len(text.lstrip())
                out[i] = begin, begin + len(text.strip())
                break
    return out


def answers(rows: Rows, contexts: Sequence[str]) -> encoding.Answers:
    """Every gold answer; one without a place is where its text stands first."""
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    golds = zip(rows.table["answers"].to_pylist(), rows.table["answer_starts"].to_pylist(), strict=True)
    for i, (texts, starts) in enumerate(golds):
        for text, start in zip(texts or [], starts or [], strict=True):
            bare = text.strip()
            begin = contexts[i].find(bare, max(start, 0)) if bare else -1
            owners.append(i)
            spans.append((begin, begin + len(bare) if begin >= 0 else -1))
    return encoding.Answers(np.array(owners, np.int64), np.array(spans, np.int64).reshape(-1, 2))


def weights(rows: Rows) -> np.ndarray:
    """(N,) 1 for a question to learn from: one whose answer was found in the context, or that has none; else
    0."""
    none = pac.fill_null(pac.equal(pac.list_value_length(rows.table["answers"]), 0), False).to_numpy()
    found: np.ndarray = (none | (golds(rows)[:, 0] >= 0)).astype(np.float64)
    return found
