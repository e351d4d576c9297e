"""What a file costs grows as the file does: eight times the labels, spans or digits take eight times as long, not 64."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ft.config.task import Task
from bert_ft.data.rows import Rows
from bert_ft.data.soft_cells import _once
from bert_ft.families.classification import checks
from bert_ft.families.ner import words

Mark = tuple[int, int, str]


def _labels(n: int) -> Callable[[], object]:
    names = [f"label {i}" for i in range(n)]
    rows = Rows(pa.table({"text": ["a film"] * 3 * n, "label": names * 3}), "here")
    return lambda: list(checks.of_classes({"train": rows}, names, ["text"], "label"))


def _spans(n: int) -> Callable[[], object]:
    marks = [(5 * i, 5 * i + 4, "X") for i in range(n)]
    return lambda: words._apart(marks)


def _names(n: int) -> Callable[[], object]:
    data = {"train": "a.csv", "labels": [f"label {i}" for i in range(n)]}
    return lambda: Task.model_validate({"name": "t", "family": "classification", "data": data})


def _cells(n: int) -> Callable[[], object]:
    pairs = [(f"label {i}", 0.5) for i in range(n)]
    return lambda: _once(pairs)


@pytest.mark.parametrize("made", [_labels, _spans, _names, _cells])
def test_time_grows_as_the_input(made: Callable[[int], Callable[[], object]]) -> None:
    seconds = {}
    for n in (2_000, 16_000):
        call = made(n)
        times = []
        for _ in range(3):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        seconds[n] = min(times)
    assert seconds[16_000] < 24 * seconds[2_000] + 0.05, (
        seconds
    )  # a quadratic one takes 64 times, and seconds


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.sampled_from("XY")), max_size=25))
def test_of_spans_that_overlap_the_longest_stays(drawn: list[tuple[int, int, str]]) -> None:
    marks: list[Mark] = [(start, start + size, kind) for start, size, kind in drawn]
    kept: list[Mark] = []
    for mark in sorted(dict.fromkeys(marks), key=lambda mark: (mark[0] - mark[1], mark[0])):
        taken = np.zeros(50, bool)
        for start, end, _ in kept:
            taken[start:end] = True
        if not taken[mark[0] : mark[1]].any():
            kept.append(mark)
    assert sorted(words._apart(marks)) == sorted(kept)
