"""Labels are bound by name: neither the order of a checkpoint's head nor a default may change what a number means."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bert_ft.config.catalog import load_task
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification

LABELS = ["neg", "pos", "neg", "pos", "neg"]
PREDICTED = ["neg", "pos", "pos", "neg", "neg"]


def rows(labels: list[str | None]) -> Rows:
    return Rows(pa.table({"text": ["x"] * len(labels), "label": pa.array(labels, pa.string())}), "rows")


@pytest.mark.parametrize(("positive", "f1"), [(None, 0.5), ("pos", 0.5), ("neg", 2 / 3)])
@pytest.mark.parametrize("head", [["neg", "pos"], ["pos", "neg"]])
def test_f1_is_of_the_same_label_in_any_order(head: list[str], positive: str | None, f1: float) -> None:
    task = load_task("classification").override(
        {"metric.compute": ["f1", "accuracy"], "metric.positive": positive, "data.labels": ["neg", "pos"]}
    )
    adapter = Classification(task, head)
    predictions = {"prediction": np.array([head.index(label) for label in PREDICTED])}
    assert adapter.score(predictions, rows(list(LABELS))) == {
        "f1": pytest.approx(f1),
        "accuracy": pytest.approx(0.6),
    }
    assert adapter.score(predictions, rows([None] * 5)) == {}


def test_predictions_bear_the_labels_own_types() -> None:
    for labels in ([0, 1], [False, True], ["a", "b"]):
        adapter = Classification(load_task("classification"), labels)
        found = {"prediction": np.array([1, 0]), "probabilities": np.array([[0.25, 0.75], [0.5, 0.5]])}
        lines = list(adapter.lines(found, rows([str(labels[1]), str(labels[0])])))
        assert [line["prediction"] for line in lines] == [line["label"] for line in lines] == labels[::-1]
        assert lines[0]["probabilities"] == {str(labels[0]): 0.25, str(labels[1]): 0.75}


def test_class_weights() -> None:
    """As scikit-learn's class_weight="balanced"; by name where they are given."""
    from sklearn.utils.class_weight import compute_class_weight

    task = load_task("classification").override({"class_weights": "balanced"})
    adapter = Classification(task, ["pos", "neg"])
    adapter.prepare(rows(list(LABELS)))
    expected = compute_class_weight("balanced", classes=np.array(["pos", "neg"]), y=LABELS)
    assert adapter.class_weights == pytest.approx(expected)
    named = Classification(task.override({"class_weights": {"neg": 1.0, "pos": 4.0}}), ["pos", "neg"])
    named.prepare(rows(list(LABELS)))
    assert named.class_weights == pytest.approx([4.0, 1.0])
    with pytest.raises(InputError, match="label 'pos' has no training row"):
        Classification(task, ["pos", "neg"]).prepare(rows(["neg", "neg"]))
