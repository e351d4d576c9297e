"""The classification metrics against scikit-learn and scipy, and the `evaluate.Metric` around them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bert_ft.metrics as metrics
from bert_ft.errors import InputError
from bert_ft.metrics import classification, distributions

examples = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

# Ours -> the library's own function, called as its documentation says, on (labels, predictions).
ANY_CLASSES: dict[str, Callable[..., float]] = {
    "accuracy": sk.accuracy_score,
    "f1_macro": lambda y, p: sk.f1_score(y, p, average="macro", zero_division=0),
    "f1_micro": lambda y, p: sk.f1_score(y, p, average="micro", zero_division=0),
    "f1_weighted": lambda y, p: sk.f1_score(y, p, average="weighted", zero_division=0),
    "precision_macro": lambda y, p: sk.precision_score(y, p, average="macro", zero_division=0),
    "recall_macro": lambda y, p: sk.recall_score(y, p, average="macro", zero_division=0),
    "balanced_accuracy": sk.balanced_accuracy_score,
    "matthews_correlation": sk.matthews_corrcoef,
}
TWO_CLASSES: dict[str, Callable[..., float]] = {
    "f1": lambda y, p, k: sk.f1_score(y, p, pos_label=k, zero_division=0),
    "precision": lambda y, p, k: sk.precision_score(y, p, pos_label=k, zero_division=0),
    "recall": lambda y, p, k: sk.recall_score(y, p, pos_label=k, zero_division=0),
}
REGRESSION: dict[str, Callable[..., float]] = {
    "pearson": lambda y, p: scipy.stats.pearsonr(y, p).statistic,
    "spearmanr": lambda y, p: scipy.stats.spearmanr(y, p).statistic,
    "mean_squared_error": sk.mean_squared_error,
    "mean_absolute_error": sk.mean_absolute_error,
}


def quietly(reference: Callable[..., float], *arguments: Any) -> float:
    """The reference's value without the warnings that ours must not print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(reference(*arguments))


def ours(names: list[str], predictions: Any, labels: Any, **options: Any) -> dict[str, float]:
    """Our values; a warning fails the test."""
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        values = classification.compute(names, predictions, labels, **options)
    assert not printed
    return values


@st.composite
def class_pairs(draw: st.DrawFn, most: int) -> tuple[list[int], list[int]]:
    """Predictions and labels over 1 to `most` ids each, so one class only and a single row are common."""
    rows = draw(st.integers(1, 40))
    columns = [
        draw(st.lists(st.integers(0, draw(st.integers(0, most - 1))), min_size=rows, max_size=rows))
        for _ in range(2)
    ]
    return columns[0], columns[1]


@st.composite
def number_pairs(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Numbers of both signs on a grid of 1/64: ties and constants occur, near-constants do not."""
    rows = draw(st.integers(2, 30))
    wide, narrow = st.integers(-(10**5), 10**5), st.integers(-1, 1)
    columns = [
        [n / 64 for n in draw(st.lists(draw(st.sampled_from([wide, narrow])), min_size=rows, max_size=rows))]
        for _ in range(2)
    ]
    return columns[0], columns[1]


def test_every_metric_has_a_reference_here() -> None:
    assert {*ANY_CLASSES, *TWO_CLASSES} == set(classification.CLASS_METRICS)
    assert set(REGRESSION) == set(classification.REGRESSION_METRICS)


@examples
@given(class_pairs(most=8))
def test_any_number_of_classes_as_sklearn(pair: tuple[list[int], list[int]]) -> None:
    predictions, labels = pair
    expected = {name: quietly(reference, labels, predictions) for name, reference in ANY_CLASSES.items()}
    assert ours(list(ANY_CLASSES), predictions, labels) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@examples
@given(class_pairs(most=2), st.sampled_from([0, 1]))
def test_two_classes_as_sklearn(pair: tuple[list[int], list[int]], positive: int) -> None:
    predictions, labels = pair
    expected = {n: quietly(reference, labels, predictions, positive) for n, reference in TWO_CLASSES.items()}
    got = ours(list(TWO_CLASSES), predictions, labels, positive=positive)
    assert got == pytest.approx(expected, rel=1e-12)


@examples
@given(number_pairs())
def test_regression_as_scipy_and_sklearn(pair: tuple[list[float], list[float]]) -> None:
    predictions, labels = pair
    expected = {name: quietly(reference, labels, predictions) for name, reference in REGRESSION.items()}
    got = ours(list(REGRESSION), predictions, labels)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert math.isnan(got["pearson"]) == (len(set(predictions)) == 1 or len(set(labels)) == 1)


def test_thousands_of_rows_and_a_thousand_classes() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 1000, 20_000)
    predictions = np.where(random.random(20_000) < 0.7, labels, random.integers(0, 1000, 20_000))
    expected = {name: quietly(reference, labels, predictions) for name, reference in ANY_CLASSES.items()}
    assert ours(list(ANY_CLASSES), predictions, labels) == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    # true positives 2, false positives 1, false negatives 1, true negatives 1
    predictions, labels = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]
    got = ours(["accuracy", "f1", "precision", "recall", "matthews_correlation"], predictions, labels)
    matthews = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    assert list(got) == ["accuracy", "f1", "precision", "recall", "matthews_correlation"]
    assert list(got.values()) == pytest.approx([3 / 5, 2 / 3, 2 / 3, 2 / 3, matthews])
    # of label 0: one found of two gold, two predicted
    got = ours(["f1", "recall"], predictions, labels, positive=0)
    assert got == pytest.approx({"f1": 0.5, "recall": 0.5})
    errors = ours(["mean_squared_error", "mean_absolute_error"], [-1.0, 2.0], [1.0, 2.5])
    assert errors == pytest.approx({"mean_squared_error": 4.25 / 2, "mean_absolute_error": 2.5 / 2})


def test_one_row_of_regression() -> None:
    got = ours(list(REGRESSION), [-1.5], [2.0])
    assert math.isnan(got["pearson"])
    assert math.isnan(got["spearmanr"])
    assert (got["mean_squared_error"], got["mean_absolute_error"]) == (12.25, 3.5)


def test_a_diverged_model_gives_nan_not_a_crash() -> None:
    got = ours(list(REGRESSION), [float("nan"), 1.0, 2.0], [0.0, 1.0, 2.0])
    assert all(map(math.isnan, got.values()))


def test_half_precision_is_scored_in_double() -> None:
    predictions, labels = np.full(4, 300, np.float16), np.full(4, -300, np.float16)
    assert ours(["mean_squared_error"], predictions, labels) == {"mean_squared_error": 360_000.0}


def test_the_better_direction_is_right_for_every_metric() -> None:
    labels, worse = [0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 1]
    perfect_scores = ours(list(classification.NAMES), labels, labels)
    worse_scores = ours(list(classification.NAMES), worse, labels)
    soft = np.array([[0.8, 0.2], [0.3, 0.7]])
    perfect_scores |= distributions.compute(soft, soft, several=False)
    worse_scores |= distributions.compute(soft[::-1], soft, several=False)
    lower = {name for name in perfect_scores if perfect_scores[name] < worse_scores[name]}
    assert lower == metrics.LOWER_IS_BETTER
    assert all(perfect_scores[name] > worse_scores[name] for name in set(perfect_scores) - lower)


@pytest.mark.parametrize("name", classification.NAMES)
@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "no rows"),
        ([0, 1], [0], "of equal length"),
        ([[0, 1]], [[0, 1]], "of equal length"),  # logits, not ids
    ],
)
def test_input_of_the_wrong_shape(name: str, predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification.compute([name], predictions, labels)


@pytest.mark.parametrize("name", classification.CLASS_METRICS)
@pytest.mark.parametrize("predictions", [[0.7, 1.0], [float("nan"), 1.0], ["0", "1"], [None, 1]])
def test_class_ids_are_whole_numbers(name: str, predictions: Any) -> None:
    with pytest.raises(ValueError, match="label ids"):
        classification.compute([name], predictions, [0, 1])


@pytest.mark.parametrize("name", TWO_CLASSES)
@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 2, 2]])
def test_binary_metrics_refuse_what_sklearn_refuses(name: str, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"multiclass|pos_label"):
        TWO_CLASSES[name](ids, ids, 1)
    with pytest.raises(ValueError, match="f1_macro"):
        classification.compute([name], ids, ids)


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: classification.compute(["acuracy"], [0], [0]), "'accuracy'"),
        (lambda: classification.compute(["a"], [0], [0]), "f1_macro"),
        (lambda: metrics.load("f1_makro"), "'f1_macro'"),
        (lambda: metrics.load("f1", average="makro"), "'f1_macro'"),
        (lambda: metrics.load("gleu", "mrpc"), "'glue'"),
        (lambda: metrics.load("glue", "mrcp"), "'mrpc'"),
        (lambda: metrics.load("glue"), "mnli_mismatched"),
        (lambda: metrics.load("classification", compute=["accuracy", "f1_micor"]), "'f1_micro'"),
    ],
)
def test_unknown_names_get_a_suggestion(call: Callable[[], object], remedy: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert remedy in error.value.remedy


# The keys that `_compute` returns in huggingface/evaluate, metrics/glue/glue.py. That file has no "ax":
# Wang et al. 2019, section 4, score the diagnostic set by the three-class Matthews correlation.
GLUE_KEYS = {
    "cola": ["matthews_correlation"],
    "stsb": ["pearson", "spearmanr"],
    "mrpc": ["accuracy", "f1"],
    "qqp": ["accuracy", "f1"],
    "sst2": ["accuracy"],
    "mnli": ["accuracy"],
    "mnli_mismatched": ["accuracy"],
    "mnli_matched": ["accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
    "wnli": ["accuracy"],
    "hans": ["accuracy"],
    "ax": ["matthews_correlation"],
}
GLUE_REFERENCES = {**ANY_CLASSES, **REGRESSION, "f1": sk.f1_score}


@pytest.mark.parametrize("config", GLUE_KEYS)
def test_glue_has_the_keys_and_values_of_the_hub(config: str) -> None:
    predictions: list[Any] = [1, 0, 1, 1, 0, 0, 1]
    references: list[Any] = [1, 0, 0, 1, 1, 0, 1]
    if config == "stsb":
        predictions, references = [-0.3, 1.26, 3.1, 4.9, 0.0], [0.0, 1.25, 3.75, 5.0, 0.2]
    result = metrics.load("glue", config).compute(predictions=predictions, references=references)
    assert list(result) == GLUE_KEYS[config]
    expected = {key: GLUE_REFERENCES[key](references, predictions) for key in GLUE_KEYS[config]}
    assert result == pytest.approx(expected, rel=1e-12)
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize(
    ("metric", "options", "key"),
    [
        ("accuracy", {}, "accuracy"),
        ("f1", {}, "f1"),
        ("f1", {"average": "binary", "positive": 0}, "f1"),
        ("recall", {"average": "macro"}, "recall_macro"),
        ("f1_weighted", {}, "f1_weighted"),
        ("mean_absolute_error", {}, "mean_absolute_error"),
    ],
)
def test_single_metrics(metric: str, options: dict[str, Any], key: str) -> None:
    predictions, references = [1, 0, 0, 1, 1], [1, 0, 1, 0, 1]
    got = metrics.load(metric, **options).compute(predictions=predictions, references=references)
    if key == "f1":
        expected = sk.f1_score(references, predictions, pos_label=options.get("positive", 1))
    else:
        expected = (ANY_CLASSES | REGRESSION)[key](references, predictions)
    assert got == pytest.approx({key: expected})


@settings(examples, max_examples=15)
@given(class_pairs(most=2), st.integers(1, 7), st.sampled_from([0, 1]))
def test_class_rows_in_batches_one_by_one_or_at_once(
    pair: tuple[list[int], list[int]], size: int, positive: int
) -> None:
    predictions, labels = pair
    names = ["matthews_correlation", "f1", "accuracy"]
    expected = classification.compute(names, predictions, labels, positive=positive)
    metric = metrics.load("classification", compute=names, positive=positive)
    assert metric.compute(predictions=predictions, references=labels) == expected
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        metric.add_batch(predictions=np.array(predictions[rows]), references=labels[rows])
    assert metric.compute() == expected
    for prediction, label in zip(predictions, labels, strict=True):
        metric.add(prediction=prediction, reference=label)
    assert metric.compute() == expected


def test_regression_rows_in_batches_keep_double_precision() -> None:
    random = np.random.default_rng(1)
    labels = random.normal(size=101) * 1e3
    predictions = labels + random.normal(size=101) * 1e-7  # gone in float32
    metric = metrics.load("classification", compute=list(REGRESSION))
    for part in np.array_split(np.arange(101), 4):
        metric.add_batch(predictions=predictions[part], references=labels[part])
    assert metric.compute() == classification.compute(list(REGRESSION), predictions, labels)


def test_torch_tensors_are_rows_too() -> None:
    import torch

    metric = metrics.load("glue", "mrpc")
    metric.add_batch(predictions=torch.tensor([1, 0, 1]), references=torch.tensor([1, 1, 1]))
    assert metric.compute() == pytest.approx({"accuracy": 2 / 3, "f1": 0.8})


@pytest.mark.parametrize("arguments", [{}, {"predictions": [], "references": []}])
def test_computing_over_nothing_is_an_error(arguments: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="no rows to score"):
        metrics.load("accuracy").compute(**arguments)


SCRIPT = """
import sys
import bert_ft.metrics, bert_ft.metrics.classification as classification
assert "f1_macro" in bert_ft.metrics.METRIC_NAMES
try: classification.compute(["f2"], [0], [0])
except Exception as error: assert "f1" in str(error), error
heavy = {"evaluate", "datasets", "sklearn", "scipy", "numpy", "torch", "transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
classification.compute(["f1", "pearson"], [0, 1], [0, 1])
assert {"sklearn", "scipy"} <= set(sys.modules) and not {"evaluate", "datasets", "torch"} & set(sys.modules)
"""


def test_imports_are_lazy() -> None:
    root = str(Path(metrics.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_neither_disk_nor_network_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    cache, here = tmp_path / "cache", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", cache)
    monkeypatch.setattr("socket.socket.connect", refuse)
    metric = metrics.load("glue", "stsb")
    metric.add_batch(predictions=[1.0, 2.0], references=[0.0, 3.0])
    metric.compute()
    assert list(tmp_path.rglob("*")) == [here]
