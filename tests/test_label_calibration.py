"""Platt's sigmoid and isotonic regression of every label against scikit-learn's, and runs that keep them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from scipy.special import expit, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import bert_ft
from bert_ft.families.classification.adapter import Classification
from bert_ft.metrics import label_calibration
from bert_ft.metrics.label_calibration import Method
from bert_ft.tools.app.answers import parts

THEIRS = {"platt": "sigmoid", "isotonic": "isotonic"}


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose features are its scores, one for two labels."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Scores:
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0] if x.shape[1] == 1 else x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[x.argmax(1)])


def odds(logits: np.ndarray) -> np.ndarray:
    """(N, C) log odds of the softmax; (N, 1) those of the second label of two, and of a label by itself."""
    if logits.shape[1] <= 2:
        return logits[:, -1:] - (logits[:, :1] if logits.shape[1] == 2 else 0)
    others = [logsumexp(np.delete(logits, k, 1), axis=1) for k in range(logits.shape[1])]
    return np.asarray(logits - np.stack(others, axis=1))


def theirs(method: Method, logits: np.ndarray, gold: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What scikit-learn makes of new logits; isotonic regression is fitted to hundredths of their deviation."""
    scores = odds(logits)
    if method == "isotonic":
        unit = scores.std(axis=0) / 100
        scores = (scores / unit).round() * unit
    fixed = FrozenEstimator(Scores().fit(scores, gold))
    oracle = CalibratedClassifierCV(fixed, method=THEIRS[method]).fit(scores, gold)
    return np.asarray(oracle.predict_proba(odds(new)))


def drawn(n: int, labels: int, sharper: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) logits and (N,) gold of a model that is `sharper` than it should be, and leans to the last."""
    random = np.random.default_rng(0)
    right = random.normal(size=(n, labels)) * 2
    gold = (softmax(right, axis=1).cumsum(1) > random.random((n, 1))).argmax(1)
    return right * sharper + np.arange(labels) / 2, gold


@pytest.mark.parametrize("method", ["platt", "isotonic"])
@pytest.mark.parametrize("labels", [2, 3, 6])
@pytest.mark.parametrize("sharper", [0.5, 3.0, 12.0])
def test_one_label_a_row_is_scikit_learn_s(method: Method, labels: int, sharper: float) -> None:
    logits, gold = drawn(2400, labels, sharper)
    fit, new = slice(0, 1400), slice(1400, None)
    oracle = theirs(method, logits[fit], gold[fit], logits[new])
    p = softmax(logits, axis=1)
    found = label_calibration.fits(method, p[fit], np.eye(labels)[gold[fit]], False)
    said = label_calibration.calibrated(method, p[new], found, False)
    assert None not in found and np.abs(said - oracle).max() < 1e-6
    assert (said.argmax(1) == oracle.argmax(1)).all()
    assert np.abs(said.sum(1) - 1).max() < 1e-12
    if labels == 2:
        assert (said.argmax(1) != p[new].argmax(1)).any(), "either can change an answer"
    kept = json.loads(json.dumps(found))
    assert all(label_calibration.valid(method, each) for each in kept)
    assert (label_calibration.calibrated(method, p[new], kept, False) == said).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_several_labels_a_row_are_scikit_learn_s(method: Method) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(2000, 3)) * [4, 1, 2] + [0, 2, -1]
    gold = random.random(logits.shape) < expit(logits / [4, 1, 0.5])
    fit, new = slice(0, 1200), slice(1200, None)
    found = label_calibration.fits(method, expit(logits[fit]), gold[fit].astype(float), True)
    said = label_calibration.calibrated(method, expit(logits[new]), found, True)
    for k in range(3):
        oracle = theirs(method, logits[fit, k : k + 1], gold[fit, k], logits[new, k : k + 1])
        assert np.abs(said[:, k] - oracle[:, 1]).max() < 1e-6


def test_log_odds_are_exact_where_a_label_is_certain() -> None:
    logits = np.random.default_rng(2).normal(size=(200, 7)) * 30
    expected = odds(logits)
    assert np.abs(expected).max() > 100
    assert label_calibration.log_odds(softmax(logits, axis=1), False) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_labels_that_can_t_be_fitted_keep_their_probabilities(method: Method) -> None:
    """One that too few rows have, and one whose scores mislead; and a sum of 0 is shared equally."""
    logits, gold = drawn(1200, 3, 1.0)
    p = softmax(logits, axis=1)
    truth = np.eye(3)[gold]
    truth[:, 0] = np.arange(1200) < 9
    truth[:, 1] = p[:, 1] < np.median(p[:, 1])
    rare, misled, fine = label_calibration.fits(method, p, truth, True)
    assert rare is None and misled is None and fine is not None
    said = label_calibration.calibrated(method, p, [rare, misled, fine], True)
    assert (said[:, :2] == p[:, :2]).all() and np.abs(said[:, 2] - p[:, 2]).max() > 0.01
    nothing: Any = [[0.0], [0.0]]
    assert label_calibration.calibrated("isotonic", p[:4], [nothing] * 3, False) == pytest.approx(1 / 3)


def test_votes_are_fitted_as_the_rows_they_stand_for() -> None:
    """A row of three votes for a label and one against it is four rows."""
    logits, _ = drawn(300, 2, 1.0)
    p = softmax(logits, axis=1)
    votes = np.random.default_rng(3).integers(0, 5, 300)
    held = np.stack([votes < np.arange(1, 5)[:, None]]).ravel()
    scores = label_calibration.log_odds(p, False)[:, 1]
    soft = label_calibration.fit("isotonic", scores, 1 - votes / 4)
    hard = label_calibration.fit("isotonic", np.tile(scores, 4), held.astype(float))
    assert soft is not None and hard is not None
    at = np.linspace(-5, 5, 50)
    both = (label_calibration.probability("isotonic", each, at) for each in (soft, hard))
    assert next(both) == pytest.approx(next(both), abs=1e-9)


@pytest.mark.parametrize(("method", "wrong"), [
    ("platt", [0.0, 1.0]), ("platt", [-1.0, 1.0]), ("platt", [1.0]), ("platt", [True, 1.0]), ("platt", [math.nan, 1.0]),
    ("platt", "12"), ("isotonic", [[1.0, 0.0], [0.1, 0.2]]), ("isotonic", [[0.0, 1.0], [0.2, 0.1]]),
    ("isotonic", [[0.0], [0.1, 0.2]]), ("isotonic", [[], []]), ("isotonic", [[0.0], [1.5]]), ("isotonic", [1.0, 2.0]),
])  # fmt: skip
def test_what_is_no_calibrator(method: Method, wrong: Any) -> None:
    assert not label_calibration.valid(method, wrong)


# --- a run ----------------------------------------------------------------------------------------------------------


def films(n: int, wrong: float, seed: int) -> list[dict[str, Any]]:
    """Reviews whose label follows from a word; a share of the good ones are said to be bad, so that probabilities
    are lopsided."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        kind = ["good", "bad", "fair"][random.integers(3)]
        word = {"good": "warm brave funny", "bad": "dull flat long", "fair": "plain quiet short"}[
            kind
        ].split()[random.integers(3)]
        label = "bad" if kind != "bad" and random.random() < wrong else kind
        rows.append(
            {
                "text": f"a {word} film {i % 40} {'and' if random.random() < 0.5 else 'but'} more",
                "label": label,
            }
        )
    return rows


@pytest.fixture(scope="module")
def noisy() -> dict[str, Any]:
    return {"train": films(64, 0.3, 1), "validation": films(1000, 0.55, 2), "test": films(200, 0.55, 3), "max_steps": 60,
            "learning_rate": 3e-3, "batch_size": 16, "max_length": 24, "eval_every": 60, "quiet": True, "check": False,
            "baselines": False, "precision": "fp32"}  # fmt: skip


def matrix(lines: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(line["probabilities"].values()) for line in lines])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_run_keeps_it(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any], method: Method, cli: Any
) -> None:
    """Its probabilities are scikit-learn's, of the logits that plain `transformers` gives; and what is scored, written,
    predicted and evaluated are the answers of these."""
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, output=tmp_path / "run", calibration=method, **noisy
    )
    network = tf.AutoModelForSequenceClassification.from_pretrained(run.path / "model").eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(run.path / "model")
    logits, gold = {}, {}
    for name in ("validation", "test"):
        texts = [row["text"] for row in noisy[name]]
        with torch.no_grad():
            logits[name] = (
                network(**tokenizer(texts, padding=True, return_tensors="pt")).logits.double().numpy()
            )
        gold[name] = np.array([network.config.label2id[row["label"]] for row in noisy[name]])
    names = [network.config.id2label[i] for i in range(3)]
    changed = 0
    for name in ("validation", "test"):
        lines = run.predictions(name)
        said = matrix(lines)
        assert (said.argmax(1) == [names.index(line["prediction"]) for line in lines]).all()
        changed += int((said.argmax(1) != logits[name].argmax(1)).sum())
        again = bert_ft.load(run.path).predict([row["text"] for row in noisy[name]])
        assert [each["prediction"] for each in again] == [line["prediction"] for line in lines]
        assert np.abs(matrix(again) - said).max() < 1e-12
        right = float((said.argmax(1) == gold[name]).mean())
        assert run.metrics[name]["accuracy"] == pytest.approx(right)
        oracle = theirs(method, logits["validation"], gold["validation"], logits[name])
        apart = np.abs(said - oracle).max(axis=1)  # in another batch a logit may be rounded to another step
        assert np.median(apart) < 1e-6 and (method == "isotonic" or apart.max() < 1e-5)
        flipped = int((said.argmax(1) != logits[name].argmax(1)).argmax())
        shown = parts(run.model.adapter, again[flipped], noisy[name][flipped])
        assert shown["chosen"] == [lines[flipped]["prediction"]] == [shown["bars"][0].label]
    assert changed > 0, "these rows were made for answers to change"
    assert run.evaluate(noisy["test"], quiet=True)["validation"] == pytest.approx(run.metrics["test"])
    told = [note for note in run.results["notes"] if f"by {method}, which can change answers" in note]
    assert len(told) == 1
    for name in ("validation", "test"):
        states = run.results["calibration"][name]
        assert (
            states["after"]["nll"] < states["before"]["nll"]
            and states["after"]["ece"] < states["before"]["ece"]
        )
    page, card = (run.path / "report.html").read_text(), (run.path / "model" / "README.md").read_text()
    assert (
        f"by {method} a label" in page and "It can change answers" in page and "changes no answer" not in page
    )
    assert f"by {method}, each label by itself" in card
    # what is read back is checked
    config = run.path / "model" / "config.json"
    values = json.loads(config.read_text())
    values["bert_ft"]["tuned"][method][names[0]] = [1.0]
    config.write_text(json.dumps(values))
    refused = cli("predict", run.path / "model", "in.txt")
    assert refused.code == 2 and f"calibration of '{names[0]}' is not one by {method}" in refused.err


def test_several_labels_and_their_thresholds(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any]
) -> None:
    """Thresholds are those of calibrated probabilities; a label that few rows have is told, and left as it is."""
    sets = {
        name: [{"text": row["text"], "label": [row["label"], *(["film"] if i % 5 else []), *(["rare"] if i % 300 == 7 else [])]}
               for i, row in enumerate(noisy[name])]
        for name in ("train", "validation", "test")
    }  # fmt: skip
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", calibration="platt",
                           problem_type="multi_label_classification", **{**noisy, **sets, "max_steps": 200})  # fmt: skip
    tuned = run.results["tuned"]
    assert {"bad", "film"} <= set(tuned["platt"]) and "rare" not in tuned["platt"]
    assert "Left as they are: " in run.results["notes"][-1] and "rare" in run.results["notes"][-1]
    for name in ("validation", "test"):
        lines = run.predictions(name)
        answers = bert_ft.load(run.path).predict([row["text"] for row in sets[name]])
        assert [answer["prediction"] for answer in answers] == [line["prediction"] for line in lines]
        for line in lines:
            chosen = [label for label, p in line["probabilities"].items() if p > tuned["thresholds"][label]]
            assert line["prediction"] == chosen
    assert run.evaluate(sets["test"], quiet=True)["validation"] == pytest.approx(run.metrics["test"])
    p, gold = (
        np.array(side)
        for side in zip(
            *[
                (
                    list(line["probabilities"].values()),
                    [name in line["label"] for name in line["probabilities"]],
                )
                for line in run.predictions("validation")
            ],
            strict=True,
        )
    )
    from bert_ft.metrics.multilabel import best_thresholds

    assert tuned["thresholds"]["bad"] == best_thresholds(p.reshape(-1, 1), gold.reshape(-1, 1))[0]


def test_what_is_refused_and_what_is_told(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any], capfd: Any
) -> None:
    few = {**noisy, "validation": noisy["validation"][:999], "test": None, "max_steps": 1}
    for method, rows in (("isotonic", 999), ("platt", 199)):
        few["validation"] = few["validation"][:rows]
        with pytest.raises(
            bert_ft.InputError, match=f"{method} wants 1?,?[20]00 rows of validation, here are {rows}"
        ):
            bert_ft.finetune(
                "classification", tiny_checkpoint, output=tmp_path / "few", calibration=method, **few
            )
    numbers = [{"text": row["text"], "label": float(i % 7)} for i, row in enumerate(noisy["validation"])]
    with pytest.raises(bert_ft.InputError, match="no probabilities of labels that platt could calibrate"):
        bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "numbers", problem_type="regression",
                         calibration="platt", **{**few, "train": numbers, "validation": numbers})  # fmt: skip

    class Own(Classification):
        def decode(self, logits: Any, features: Any, rows: Any) -> Any:
            return super().decode(logits, features, rows)

    with pytest.raises(bert_ft.InputError, match="no probabilities of labels that isotonic could calibrate"):
        bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "own", adapter=Own,
                         calibration="isotonic", **few)  # fmt: skip
    with pytest.raises(bert_ft.InputError, match=r"run\.calibration"):
        bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "x", calibration="beta", **few)
    assert not any((tmp_path / name).exists() for name in ("few", "numbers", "own", "x"))
    few["validation"] = noisy["validation"][:250]
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "none", calibration="platt",
                           save_model=False, **few)  # fmt: skip
    assert "probabilities are not calibrated by platt: no model is kept" in run.results["notes"]
    assert run.results["tuned"] == {}


@pytest.mark.parametrize("size", [10, 20, 30, 45])
def test_saturated_probabilities_are_fitted_as_their_logits_are(size: int) -> None:
    """Of several labels 1 - p is 0 from a logit of 37 on; a few such rows must not outweigh all others."""
    random = np.random.default_rng(size)
    logits = random.normal(0, size, 1000)
    truth = (random.random(1000) < expit(0.2 * logits)).astype(float)
    ours = label_calibration.fits("platt", expit(logits)[:, None], truth[:, None], True)[0]
    expected = label_calibration.fit("platt", np.clip(logits, -36, 36), truth)
    assert ours is not None and expected is not None
    assert ours == pytest.approx(expected, rel=1e-2, abs=1e-3)
    assert 0.05 < ours[0] < 0.5


def test_probabilities_of_exactly_0_and_1_end_no_training() -> None:
    probabilities = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]] * 100, float)
    truth = np.eye(3)[[0, 1, 2] * 100]
    found = label_calibration.fits("platt", probabilities, truth, False)
    assert all(each is None or np.isfinite(each).all() for each in found)
    assert np.isfinite(label_calibration.calibrated("platt", probabilities, found, False)).all()


def test_scores_that_hardly_differ_are_left_alone() -> None:
    """Else a rounding of a logit would show in the third digit of a probability."""
    truth = np.arange(400) % 2.0
    odds = truth / 10_000 + np.random.default_rng(0).normal(0, 1e-4, 400)
    assert label_calibration.fit("platt", odds, truth) is None
    assert label_calibration.fit("platt", 10_000 * odds, truth) is not None


def test_no_estimate_is_made_of_a_choice_that_a_calibrator_came_after(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any]
) -> None:
    """The lean of the best of several evaluations is one of answers before the calibrator was fitted, to all rows."""
    more = {**noisy, "eval_every": 20, "keep": "best"}
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, output=tmp_path / "run", calibration="platt", **more
    )
    (made,) = [each for each in run.results["chosen"] if each["set"] == "validation"]
    assert made["tuned"] == "a calibrator of every label" and made["evaluations"] == 3
    assert not made["lean"] and not made["held_out"] and "accuracy" in made["metrics"]
    note = next(line for line in run.results["notes"] if "calibrated on these rows by platt" in line)
    right = round(1000 * run.metrics["validation"]["accuracy"])
    assert f"were right before, {right} are now" in note.replace(",", "").replace(
        " right before", " right before,"
    )
