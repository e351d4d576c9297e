"""Calibration against scikit-learn's, hand-worked cases and simulations; and a run that keeps its temperature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers as tf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import bert_ft
from bert_ft.data.rows import Rows
from bert_ft.metrics import calibration


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(torch.tensor(logits).softmax(-1))


def drawn(n: int, labels: int, sharper: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) logits and (N,) gold of a model whose logits are `sharper` times those that would be right."""
    random = np.random.default_rng(seed)
    right = random.normal(size=(n, labels)) * 2
    gold = (softmax(right).cumsum(1) > random.random((n, 1))).argmax(1)
    return right * sharper, gold


class Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose features are its logits."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Logits:
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 1] - x[:, 0] if x.shape[1] == 2 else x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[x.argmax(1)])


# --- the temperature and the measures -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_temperature_is_scikit_learns(labels: int, sharper: float) -> None:
    logits, gold = drawn(600, labels, sharper)
    oracle = CalibratedClassifierCV(FrozenEstimator(Logits().fit(logits, gold)), method="temperature").fit(
        logits, gold
    )
    found = calibration.temperature(softmax(logits), gold)
    assert found is not None and found == pytest.approx(sharper, rel=0.2)
    assert np.abs(calibration.scaled(softmax(logits), found) - oracle.predict_proba(logits)).max() < 2e-4
    assert (calibration.scaled(softmax(logits), found).argmax(1) == logits.argmax(1)).all()
    assert np.abs(calibration.scaled(softmax(logits), found) - softmax(logits / found)).max() < 1e-12


def test_rows_that_are_told_apart_have_no_temperature() -> None:
    """Scikit-learn sharpens them by 45.6 in silence."""
    logits, _ = drawn(300, 3, 1.0)
    assert calibration.temperature(softmax(logits), logits.argmax(1)) is None
    for p in (0.6, 0.9, 0.97, 0.99, 0.99999, 1.0):  # where the likelihood is flat in floating point, too
        sure = calibration.two_sided(np.full(300, p))
        assert calibration.temperature(sure, np.ones(300, int)) is None
        assert (calibration.cross_fitted(sure, np.ones(300, int)) == sure).all()
    random = np.random.default_rng(0)  # and answers that say nothing have none either
    assert calibration.temperature(softmax(logits * 30), random.integers(3, size=300)) is None
    assert (calibration.cross_fitted(softmax(logits), logits.argmax(1)) == softmax(logits)).all()


def test_measures_worked_by_hand() -> None:
    """Thirty rows in fifteen bins of two: half of 0.9's are right, all of 0.6's."""
    p = np.array([0.9] * 14 + [0.6] * 16)
    gold = np.array([0, 1] * 7 + [0] * 16)
    found = calibration.measures(calibration.two_sided(1 - p), gold)
    assert found.ece == pytest.approx((14 * 0.4 + 16 * 0.4) / 30)
    assert found.classwise == pytest.approx(found.ece), "the second label is the first one turned round"
    assert found.nll == pytest.approx(-(7 * np.log(0.9) + 7 * np.log(0.1) + 16 * np.log(0.6)) / 30)
    assert found.brier == pytest.approx((7 * 2 * 0.01 + 7 * 2 * 0.81 + 16 * 2 * 0.16) / 30)
    assert [n for _, _, n in found.bins] == [2] * 15 and sum(n for _, _, n in found.bins) == 30
    several = calibration.measures(np.array([[0.8, 0.3]] * 10), np.array([[True, False]] * 10))
    assert several.ece == pytest.approx((0.2 + 0.3) / 2) and several.brier == pytest.approx((0.04 + 0.09) / 2)
    assert several.nll == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)


def test_what_is_right_has_the_error_of_chance() -> None:
    """Of 40 samples of a model that is right, the mean error is what `by_chance` says; cross-fitting mends one that is
    not, on rows that its temperature has not seen."""
    right, told, mended, sharp = [], [], [], []
    for seed in range(40):
        logits, gold = drawn(300, 3, 1.0, seed)
        found = calibration.measures(softmax(logits), gold)
        right.append(found.ece)
        told.append(found.by_chance)
        assert found.low < found.high
        sharp.append(calibration.measures(softmax(logits * 3), gold).ece)
        mended.append(calibration.measures(calibration.cross_fitted(softmax(logits * 3), gold), gold).ece)
    assert np.mean(right) == pytest.approx(np.mean(told), rel=0.1)
    assert np.mean(mended) < np.mean(right) * 1.1 and np.mean(sharp) > 2 * np.mean(right)


# --- a run ----------------------------------------------------------------------------------------------------------


def films(n: int, wrong: float, seed: int) -> list[dict[str, Any]]:
    """Reviews whose label follows from a word, but for a share of them."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        good = bool(random.random() < 0.5)
        word = random.choice(["warm", "brave", "funny"] if good else ["dull", "flat", "long"])
        label = good != bool(random.random() < wrong)
        rows.append({"text": f"a {word} film {i % 9}", "label": "good" if label else "bad"})
    return rows


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"train": films(64, 0.0, 1), "validation": films(260, 0.3, 2), "test": films(260, 0.3, 3),
            "max_steps": 60, "learning_rate": 3e-3, "batch_size": 16, "max_length": 16, "eval_every": 20, "quiet": True,
            "check": False}  # fmt: skip


def test_a_run_keeps_its_temperature(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any], cli: Any
) -> None:
    """Predictions, `evaluate`, `load` and plain `transformers` with the logits divided: the same numbers."""
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **noisy)
    plain = bert_ft.finetune(
        "classification", tiny_checkpoint, output=tmp_path / "none", calibration="none", **noisy
    )
    divisor = run.results["tuned"]["temperature"]
    assert abs(np.log(divisor)) > 0.1 and "temperature" not in plain.results["tuned"]
    assert run.metrics == plain.metrics
    for name, part in (("validation", noisy["validation"]), ("test", noisy["test"])):
        texts = [row["text"] for row in part]
        tokenizer = tf.AutoTokenizer.from_pretrained(run.path / "model")
        network = tf.AutoModelForSequenceClassification.from_pretrained(run.path / "model").eval()
        with torch.no_grad():
            logits = network(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
        said = np.array([list(line["probabilities"].values()) for line in run.predictions(name)])
        assert np.abs(said - softmax(logits / divisor)).max() < 1e-5
        as_they_are = np.array([list(line["probabilities"].values()) for line in plain.predictions(name)])
        assert np.abs(as_they_are - softmax(logits)).max() < 1e-5
        loaded = bert_ft.load(run.path).predict(texts)
        again = np.array([list(line["probabilities"].values()) for line in loaded])
        assert np.abs(again - said).max() < 1e-6
        found = run.results["calibration"][name]
        gold = np.array([network.config.label2id[row["label"]] for row in part])
        assert found["before"]["ece"] == pytest.approx(calibration.measures(as_they_are, gold).ece, abs=1e-6)
        assert (
            found["after"]["nll"] < found["before"]["nll"] and found["after"]["ece"] < found["before"]["ece"]
        )
    # on the set that it was fitted to, what is told is of rows that a temperature has not seen
    fitted = calibration.measures(said_of(run, "validation"), golds(run, noisy["validation"]))
    assert run.results["calibration"]["validation"]["after"]["nll"] > fitted.nll
    assert (
        "before" in (run.path / "report.html").read_text()
        and "reliability" in (run.path / "report.html").read_text()
    )
    # what is read back is checked
    config = run.path / "model" / "config.json"
    values = json.loads(config.read_text())
    values["bert_ft"]["tuned"]["temperature"] = 0
    config.write_text(json.dumps(values))
    with pytest.raises(bert_ft.InputError, match="temperature"):
        bert_ft.load(run.path / "model")


def said_of(run: bert_ft.Run, name: str) -> np.ndarray:
    return np.array([list(line["probabilities"].values()) for line in run.predictions(name)])


def golds(run: bert_ft.Run, rows: list[dict[str, Any]]) -> np.ndarray:
    names = list(run.predictions("validation")[0]["probabilities"])
    return np.array([names.index(row["label"]) for row in rows])


def test_several_labels_have_a_temperature_each(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any]
) -> None:
    """Thresholds are tuned on calibrated probabilities, and a loaded model gives the same sets."""
    sets = {
        name: [{"text": row["text"], "label": ["film", row["label"]] if i % 5 else [row["label"]]} for i, row in enumerate(noisy[name])]
        for name in ("train", "validation")
    }  # fmt: skip
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", problem_type="multi_label_classification",
                           **{**noisy, "test": None, **sets})  # fmt: skip
    divisors = run.results["tuned"]["temperature"]
    assert {"good", "bad"} <= set(divisors) and abs(np.log(divisors["good"])) > 0.1
    lines = run.predictions()
    answers = bert_ft.load(run.path).predict([row["text"] for row in sets["validation"]])
    assert [answer["prediction"] for answer in answers] == [line["prediction"] for line in lines]
    limits = run.results["tuned"]["thresholds"]
    for line in lines:
        assert line["prediction"] == [name for name, p in line["probabilities"].items() if p > limits[name]]
    found = run.results["calibration"]["validation"]
    assert found["after"]["ece"] < found["before"]["ece"]


def test_few_rows_and_folds_have_none(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any], capfd: Any
) -> None:
    few = {**noisy, "validation": noisy["validation"][:199], "test": None, "quiet": False, "max_steps": 1}
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "few", **few)
    told = capfd.readouterr()
    assert "probabilities are not calibrated: 199 rows" in told.out + told.err
    assert run.results["tuned"] == {} and set(run.results["calibration"]["validation"]) == {"before"}
    numbers = [{"text": row["text"], "label": float(i % 7)} for i, row in enumerate(noisy["validation"])]
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "numbers", problem_type="regression",
                           **{**noisy, "train": numbers, "validation": numbers, "test": None, "max_steps": 1})  # fmt: skip
    assert run.results["calibration"] == {} and run.results["tuned"] == {}


def test_answers_that_are_left_open(
    tiny_checkpoint: Path, tmp_path: Path, noisy: dict[str, Any], cli: Any
) -> None:
    """`predict --abstain-below` and `--label-sets`: what they leave open, and how often the sets are right."""
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "run", **noisy)
    rows = films(400, 0.3, 9)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    done = cli(
        "predict", run.path, "in.jsonl", "-o", "out.jsonl", "--abstain-below", "0.7", "--label-sets", "0.9"
    )
    assert done.code == 0, done
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    plain = run.predict([row["text"] for row in rows])
    for line, answer in zip(lines, plain, strict=True):
        assert line["abstained"] == (max(answer["probabilities"].values()) < 0.7)
        assert line["prediction"] == (None if line["abstained"] else answer["prediction"])
        assert answer["prediction"] in line["label_set"]
    held = np.mean([row["label"] in line["label_set"] for row, line in zip(rows, lines, strict=True)])
    assert held > 0.84, "0.9 on average, over rows to calibrate on and rows to answer"
    for arguments, said in (
        (("--abstain-below", "1.5"), "no share"),
        (("--label-sets", "0.9999"), "too few to promise"),
    ):
        refused = cli("predict", run.path, "in.jsonl", *arguments)
        assert refused.code == 2 and said in refused.err
    refused = cli("predict", run.path / "model", "in.jsonl", "--label-sets", "0.9")
    assert refused.code == 2 and "name the run" in refused.err
    page = (run.path / "report.html").read_text()
    assert "answering fewer rows" in page and "an accuracy that is promised" in page


@pytest.mark.parametrize("thresholds", ["one", "per-label"])
def test_no_set_changes(thresholds: str) -> None:
    """Labels of very different sharpness, and one that no row has: every set of labels stays as it was."""
    from types import SimpleNamespace

    from bert_ft.metrics.multilabel import best_thresholds
    from bert_ft.modeling import calibrating

    random = np.random.default_rng(5)
    logits = random.normal(size=(500, 3)) * [1, 2, 1] - [0, 0, 6]
    gold = random.random((500, 3)) < 1 / (1 + np.exp(-logits))
    gold[:, 2] = False
    p = 1 / (1 + np.exp(-logits * [4, 0.3, 1]))
    width = 3 if thresholds == "per-label" else 1
    found = np.resize(best_thresholds(p.reshape(-1, width), gold.reshape(-1, width)), 3)
    names = ["a", "b", "rare"]
    run = SimpleNamespace(calibration="temperature")
    task = SimpleNamespace(options=SimpleNamespace(thresholds=thresholds), run=run)
    tuned = {"thresholds": dict(zip(names, found.tolist(), strict=True))}
    adapter: Any = SimpleNamespace(task=task, names=names, tuned=tuned, references=lambda rows: gold)
    predictions = {"probabilities": p.copy(), "prediction": p > found}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "_calibrates", lambda *_: True)
        said = calibrating.fit(adapter, predictions, Rows(pa.table({"text": [""] * 500}), "rows"))
    limits = np.array([tuned["thresholds"][name] for name in names])
    assert ((predictions["probabilities"] > limits) == (p > found)).all(), said
    each = adapter.tuned["temperature"]
    assert len(set(each.values())) == (1 if thresholds == "one" else 2) and ("rare" in each) == (
        thresholds == "one"
    )
    assert abs(predictions["probabilities"] - p).max() > 0.01


def test_of_very_many_answers_groups_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 labels of 1,000 rows are two million answers: their interval is that of rows drawn one by one."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40_000)
    right = (random.random(40_000) < confidence**1.2).astype(float)
    whole = calibration.errors(confidence, right, 0)
    monkeypatch.setattr(calibration, "DRAWN", 4_000)
    grouped = calibration.errors(confidence, right, 0)
    assert grouped["ece"] == whole["ece"]
    assert grouped["bins"] == whole["bins"]
    width = whole["high"] - whole["low"]
    for end in ("low", "high"):
        assert grouped[end] == pytest.approx(whole[end], abs=0.2 * width)
    assert grouped["by_chance"] == pytest.approx(whole["by_chance"], rel=0.1)
