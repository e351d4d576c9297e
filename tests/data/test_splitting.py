"""Rows that are held out: as scikit-learn divides them where it does, and without losing a label to learn."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from bert_ft.config.catalog import load_task
from bert_ft.config.schema import Data
from bert_ft.data import splitting
from bert_ft.data.rows import Rows, together
from bert_ft.errors import InputError
from bert_ft.tools import check as tool


def rows_of(labels: list[str] | list[list[str]]) -> Rows:
    return Rows(pa.table({"label": pa.array(labels)}), "rows")


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.sampled_from([5, 10, 25, 50, 80]),
    st.integers(0, 9),
)
def test_a_share_of_any_labels(counts: list[int], percent: int, seed: int) -> None:
    labels = [f"l{k:02}" for k, n in enumerate(counts) for _ in range(n)]
    keys = Data(validation=f"{percent}%", split_seed=seed)
    try:
        rest, held_out = splitting.split_off(rows_of(labels), "label", keys)
    except InputError:
        # nothing would be left, or each row is the only one of its label
        if max(counts) > 1 and math.ceil(percent / 100 * len(labels)) < len(labels):
            raise
        return
    assert rest.numbers is not None and held_out.numbers is not None
    assert sorted([*rest.numbers, *held_out.numbers]) == list(range(len(labels)))
    assert set(held_out.table["label"].to_pylist()) <= set(rest.table["label"].to_pylist())
    size = math.ceil(percent / 100 * len(labels))
    try:
        oracle = StratifiedShuffleSplit(1, test_size=percent / 100, random_state=seed)
        expected = next(oracle.split(np.zeros(len(labels)), labels))[1]
    except ValueError:
        each, everyone = Counter(held_out.table["label"].to_pylist()), Counter(labels)
        assert 0 < len(held_out) <= size
        assert all(
            abs(each[label] - n * percent / 100) <= 1 or each[label] == n - 1 for label, n in everyone.items()
        )
    else:
        lost = set(labels) - {labels[i] for i in set(range(len(labels))) - set(expected.tolist())}
        assert [i for i in sorted(expected) if labels[i] not in lost] == held_out.numbers.tolist()


def test_one_row_of_a_label_among_ten_thousand_stops_nothing() -> None:
    texts = [f"text number {i}" for i in range(10_000)]
    train = {"text": texts, "label": ["a", "b"] * 4999 + ["a", "rare"]}
    report = tool.check("classification", train=train, **{"data.validation": "10%"})
    assert (report.sets["train"]["rows"], report.sets["validation"]["rows"]) == (9000, 1000)
    assert report.sets["train"]["labels"]["rare"] == 1 and "rare" not in report.sets["validation"]["labels"]
    assert "validation: 1 label stays in training, with too few rows to hold any out: rare" in report.notes


def test_ten_thousand_labels() -> None:
    labels = [f"l{k}" for k in range(10_000) for _ in range(2)]
    rest, held_out = splitting.split_off(rows_of(labels), "label", Data(validation="10%"))
    assert len(held_out) == 2000 and len(set(rest.table["label"].to_pylist())) == 10_000


@pytest.mark.parametrize("seed", range(5))
def test_a_label_of_one_row_among_sets_of_labels_stays_in_training(seed: int) -> None:
    labels = [["a"] if k % 3 else ["a", "b"] for k in range(40)]
    labels += [["a", f"once{k}"] for k in range(20)]
    rest, held_out = splitting.split_off(rows_of(labels), "label", Data(validation="25%", split_seed=seed))
    learned = {name for row in rest.table["label"].to_pylist() for name in row}
    assert {name for row in held_out.table["label"].to_pylist() for name in row} <= learned
    assert 0 < len(held_out) <= 15 and len(rest) + len(held_out) == 60


@pytest.mark.parametrize("seed", range(4))
def test_a_group_with_a_label_of_its_own_stays_in_training(seed: int) -> None:
    labels = ["odd" if k == 7 else "ab"[k % 2] for k in range(40)]
    rows = Rows(pa.table({"label": labels, "group": [f"d{k // 4}" for k in range(40)]}), "rows")
    rest, held_out = splitting.split_off(rows, "label", Data(validation="50%", group="doc", split_seed=seed))
    assert "odd" in rest.table["label"].to_pylist() and len(held_out)
    assert not set(rest.table["group"].to_pylist()) & set(held_out.table["group"].to_pylist())


def test_a_label_of_one_fold_alone_stops_nothing() -> None:
    train = {"text": [f"text {i}" for i in range(40)], "label": ["ab"[i % 2] for i in range(39)] + ["odd"]}
    held = []
    for fold in range(1, 6):
        report = tool.check("classification", train=train, **{"data.validation": f"{fold}/5"})
        assert report.sets["validation"]["rows"] == 8
        assert all(finding.severity != "fault" for finding in report.findings)
        held += [note for note in report.notes if "in this fold alone, and can't be learned: odd" in note]
    assert len(held) == 1


@pytest.mark.parametrize(
    ("validation", "labels", "message"),
    [
        ("25%", [f"l{k}" for k in range(40)], "each of them has another label\n  is this the label column"),
        ("25%", [str(k / 7) for k in range(40)], "numbers with a fraction.*\n  --regression predicts"),
        ("100%", ["a", "b"] * 5, "no row would be left to train on\n  hold fewer out: --validation 10%"),
        ("10", ["a", "b"] * 5, "neither a file nor a share\n  .*--validation 10%"),
        ("0.2", ["a", "b"] * 5, "neither a file nor a share\n  .*--validation 20%"),
        ("1/20", ["a", "b"] * 5, "there are only 10 rows\n  use fewer folds: at most 10"),
    ],
)
def test_a_part_that_can_not_be_held_out(validation: str, labels: list[str], message: str) -> None:
    train = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    with pytest.raises(InputError, match=message):
        tool.check("classification", train=train, validation=validation)


@pytest.mark.parametrize("value", [0.1, "0.1", "10", "1:5"])
def test_a_task_says_how_a_part_is_written(value: Any) -> None:
    with pytest.raises(
        InputError, match=r'a share is written "10%", and the 2nd of 5 folds "2/5"; a file is data.evaluate'
    ):
        load_task("classification").override({"data.validation": value})


def test_one_group_can_not_be_divided() -> None:
    train = {"text": ["x", "y"] * 5, "label": ["a", "b"] * 5, "doc": ["d"] * 10}
    with pytest.raises(InputError, match="all of them have the same 'doc'\n  hold rows out by another"):
        tool.check("classification", train=train, validation="1/5", **{"data.group": "doc"})


@pytest.mark.parametrize(("columns", "expected"), [
    ({"group": ["a", "a", None, "b", None]}, ("group", [0, 0, 2, 1, 3])),  # an empty cell is a row of its own
    ({"group": ["a"] * 4}, ("group", [0, 0, 0, 0])),  # one group is one, and not rows without any
    ({"group": ["a", "b", "c"]}, None),
    ({"context": ["x", "x", "y"], "article": ["t", "t", "t"]}, ("article", [0, 0, 0])),  # the fewest, so the largest
    ({"text": ["x", "x"]}, None),
])  # fmt: skip
def test_rows_that_hang_together(
    columns: dict[str, list[Any]], expected: tuple[str, list[int]] | None
) -> None:
    found = together(pa.table(columns))
    assert (None if found is None else (found[0], found[1].tolist())) == expected
