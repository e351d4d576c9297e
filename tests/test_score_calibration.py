"""Calibrated scores of entities and of answers to questions, against scikit-learn's and brute force; and runs that keep
what calibrates them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import bert_ft
from bert_ft.families.ner import decoding
from bert_ft.families.qa import choices
from bert_ft.metrics import score_calibration
from bert_ft.metrics.label_calibration import Method


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose only feature is its score."""

    classes_ = np.array([False, True])

    def fit(self, x: np.ndarray, y: np.ndarray) -> Scores:
        self.fitted_ = True
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x[:, 0] > 0)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(A,) scores of a model that is far too sure, and which of its answers are right."""
    random = np.random.default_rng(seed)
    honest = random.normal(size=n) * 1.5
    return expit(3 * honest + 2), random.random(n) < expit(honest)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_scores_are_scikit_learn_s_and_keep_their_order(method: Method) -> None:
    scores, right = drawn(2000)
    fit, new = slice(0, 1200), slice(1200, None)
    odds = logit(scores)
    if method == "isotonic":
        unit = odds[fit].std() / 100
        odds[fit] = (odds[fit] / unit).round() * unit
    oracle = CalibratedClassifierCV(
        FrozenEstimator(Scores().fit(odds[:, None], right)), method={"platt": "sigmoid"}.get(method, method)
    )
    oracle.fit(odds[fit, None], right[fit])
    found = score_calibration.fit(method, scores[fit], right[fit])
    said = score_calibration.calibrated({method: found}, scores[new])
    assert np.abs(said - oracle.predict_proba(odds[new, None])[:, 1]).max() < 1e-6
    order = np.argsort(scores[new])
    assert (np.diff(said[order]) >= 0).all() and (method == "isotonic" or (np.diff(said[order]) > 0).all())
    before, after = (score_calibration.measures(each, right[new]) for each in (scores[new], said))
    assert before.ece > 0.15 and after.ece < 0.06 and after.nll < before.nll and after.brier < before.brier
    crossed = score_calibration.cross_fitted(method, scores[fit], right[fit])
    by_it = score_calibration.calibrated({method: found}, scores[fit])
    plain, seen, held = (
        score_calibration.measures(each, right[fit]).brier for each in (scores[fit], by_it, crossed)
    )
    assert seen < held < plain


def test_scores_of_exactly_one_do_not_outweigh_the_others() -> None:
    scores, right = drawn(600)
    plain = score_calibration.fit("platt", scores, right)
    sure = score_calibration.fit("platt", np.append(scores, [1.0, 0.0]), np.append(right, [False, True]))
    assert plain is not None and sure is not None
    assert sure == pytest.approx(plain, rel=0.25)
    assert np.isfinite(score_calibration.calibrated({"platt": sure}, np.array([0.0, 1.0]))).all()


def test_what_can_t_be_fitted() -> None:
    scores, right = drawn(600)
    assert score_calibration.fit("platt", scores, np.ones(600, bool)) is None
    assert score_calibration.fit("platt", 1 - scores, right) is None, "scores that mislead"
    assert (score_calibration.cross_fitted("platt", scores, np.ones(600, bool)) == scores).all()
    assert score_calibration.calibrated({}, scores) is scores


def test_measures_worked_by_hand() -> None:
    scores = np.array([0.9] * 14 + [0.2] * 16)
    right = np.array([True, False] * 7 + [False] * 16)
    found = score_calibration.measures(scores, right)
    assert found.ece == pytest.approx((14 * 0.4 + 16 * 0.2) / 30)
    assert found.brier == pytest.approx((7 * 0.01 + 7 * 0.81 + 16 * 0.04) / 30)
    assert found.nll == pytest.approx(-(7 * np.log(0.9) + 7 * np.log(0.1) + 16 * np.log(0.8)) / 30)
    assert found.classwise is None and found.low < found.ece < found.high


# --- which answers are right, and with what score ----------------------------------------------------------------------


def spans(tags: list[str]) -> list[tuple[int, int, str]]:
    """(first, last, type) of IOB2 tags, where an I that nothing goes before begins an entity."""
    found: list[tuple[int, int, str]] = []
    for at, tag in enumerate(tags):
        if tag == "O":
            continue
        goes_on = tag[0] == "I" and found and found[-1][1] == at - 1 and found[-1][2] == tag[2:]
        if goes_on:
            found[-1] = (found[-1][0], at, tag[2:])
        else:
            found.append((at, at, tag[2:]))
    return found


def test_entities_and_their_scores_are_brute_force_s() -> None:
    names = ["O", "B-A", "I-A", "B-B", "I-B"]
    random = np.random.default_rng(0)
    rights = 0
    for _ in range(60):
        sizes = random.integers(0, 9, size=4)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        gold = random.integers(5, size=offsets[-1])
        tags = np.where(random.random(offsets[-1]) < 0.3, random.integers(5, size=offsets[-1]), gold)
        score = random.random(offsets[-1])
        expected, right = [], []
        for a, b in itertools.pairwise(offsets):
            said, true = ([names[tag] for tag in side[a:b]] for side in (tags, gold))
            expected += [score[a + first : a + last + 1].mean() for first, last, _ in spans(said)]
            right += [span in spans(true) for span in spans(said)]
        found, hits = decoding.rated({"prediction": tags, "score": score}, gold, offsets, names)
        assert found == pytest.approx(expected) and hits.tolist() == right
        rights += sum(right)
    assert rights > 100


def test_words_without_a_score_do_not_count() -> None:
    scores = np.array([0.5, np.nan, 0.9, 0.1])
    assert decoding.means(scores, np.array([0, 3]), np.array([2, 3])) == pytest.approx([0.7, 0.1])
    assert len(decoding.means(scores, np.zeros(0, int), np.zeros(0, int))) == 0


def test_an_answer_is_right_by_the_task_s_own_exact_match() -> None:
    golds = [["The cat", "dog"], ["cat"], [], ["x"]]
    said = ["cat", "dog", "", ""]
    assert choices.exact(said, golds, True, ["f1"]).tolist() == [True, False, True, False]
    assert choices.exact(said[:2], golds[:2], False, ["f1", "exact_match"]).tolist() == [True, False]
    assert choices.exact(["《猫》"], [["猫"]], False, ["cmrc_exact_match"]).tolist() == [True]
    assert choices.exact(["《猫》"], [["猫"]], False, ["exact_match"]).tolist() == [False]


# --- runs -------------------------------------------------------------------------------------------------------------


def tagged(n: int, wrong: float, seed: int) -> list[dict[str, Any]]:
    """Places after "in"; some of the words that may be one are none in a share of the rows."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        fine = bool(random.random() < 0.5)
        word = random.choice(["warm", "brave", "funny"] if fine else ["dull", "flat", "long"])
        none = not fine and bool(random.random() < wrong)
        rows.append(
            {"tokens": ["a", word, "film", str(i % 9)], "tags": ["O", "O" if none else "B-X", "O", "O"]}
        )
    return rows


def asked(n: int, wrong: float, seed: int) -> list[dict[str, Any]]:
    """Questions whose answer is the second word; of some words it is another in a share of the rows."""
    rows = []
    for i, row in enumerate(tagged(n, wrong, seed)):
        context = " ".join(row["tokens"])
        text = row["tokens"][1] if row["tags"][1] == "B-X" else "film"
        answers = {"text": [text], "answer_start": [context.index(text)]}
        rows.append({"id": str(i), "question": "which film ?", "context": context, "answers": answers})
    return rows


QUICK = {"max_steps": 80, "learning_rate": 3e-3, "batch_size": 16, "max_length": 24, "eval_every": 80, "quiet": True,
         "check": False, "baselines": False, "precision": "fp32"}  # fmt: skip


def both(
    family: str, make: Any, checkpoint: Path, folder: Path, **more: Any
) -> tuple[bert_ft.Run, bert_ft.Run]:
    """A run that calibrates its scores, and the same one without."""
    sets = {"train": make(96, 0.2, 1), "validation": make(400, 0.6, 2), "test": make(300, 0.6, 3)}
    made = [
        bert_ft.finetune(family, checkpoint, output=folder / name, calibration=name, **sets, **QUICK, **more)
        for name in ("temperature", "none")
    ]
    return made[0], made[1]


def held(run: bert_ft.Run, cli: Any) -> None:
    """What a run with calibrated scores tells and refuses."""
    assert set(run.results["tuned"]["scores"]) == {"platt"}
    for name in ("validation", "test"):
        states = run.results["calibration"][name]
        assert (
            states["after"]["ece"] < states["before"]["ece"]
            and states["after"]["nll"] < states["before"]["nll"]
        )
        assert states["before"]["classwise"] is None
    page, card = (run.path / "report.html").read_text(), (run.path / "model" / "README.md").read_text()
    assert "by platt" in page and "It changes no answer" in page and "reliability" in page
    assert "The scores of bert-ft's answers are calibrated on validation by platt" in card
    config = run.path / "model" / "config.json"
    values = json.loads(config.read_text())
    values["bert_ft"]["tuned"]["scores"]["platt"] = [1.0]
    config.write_text(json.dumps(values))
    refused = cli("predict", run.path / "model", "in.txt")
    assert refused.code == 2 and "calibration of 'scores' is not one by platt" in refused.err


def test_entities_of_a_run(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    """The tags of a run that calibrates nothing, and its scores through the sigmoid; loaded again the same."""
    run, plain = both("ner", tagged, tiny_checkpoint, tmp_path)
    assert run.metrics == plain.metrics and "scores" not in plain.results["tuned"]
    for name in ("validation", "test"):
        assert run.predictions(name) == plain.predictions(name)
    texts = [" ".join(row["tokens"]) for row in tagged(300, 0.6, 3)]
    slope, intercept = run.results["tuned"]["scores"]["platt"]
    loaded = bert_ft.load(run.path).predict(texts)
    assert loaded == run.predict(texts) == run.predict(texts[:1]) + run.predict(texts[1:])
    count = 0
    for said, before in zip(loaded, plain.predict(texts), strict=True):
        for one, other in zip(said["entities"], before["entities"], strict=True):
            assert one["score"] == pytest.approx(expit(slope * logit(other["score"]) + intercept), abs=1e-9)
            assert {**one, "score": 0} == {**other, "score": 0}
            count += 1
    assert count > 200
    assert run.evaluate(tagged(300, 0.6, 3), quiet=True)["validation"] == pytest.approx(plain.metrics["test"])
    held(run, cli)


@pytest.mark.parametrize("no_answer", [False, True])
def test_answers_of_a_run(tiny_checkpoint: Path, tmp_path: Path, cli: Any, no_answer: bool) -> None:
    def make(n: int, wrong: float, seed: int) -> list[dict[str, Any]]:
        rows = asked(n, wrong, seed)
        for i, row in enumerate(rows):
            if no_answer and i % 4 == 0:
                row["context"], row["answers"] = "the other film", {"text": [], "answer_start": []}
        return rows

    run, plain = both("qa", make, tiny_checkpoint, tmp_path, **{"qa.no_answer": no_answer})
    assert run.metrics == plain.metrics
    assert ("null_threshold" in run.results["tuned"]) == no_answer
    slope, intercept = run.results["tuned"]["scores"]["platt"]
    for name in ("validation", "test"):
        for one, other in zip(run.predictions(name), plain.predictions(name), strict=True):
            assert one["score"] == pytest.approx(
                expit(slope * logit(min(other["score"], 1 - 1e-9)) + intercept), abs=1e-6
            )
            assert {**one, "score": 0} == {**other, "score": 0}
    rows = make(300, 0.6, 3)
    loaded = bert_ft.load(run.path).predict([(row["question"], row["context"]) for row in rows])
    for said, line in zip(loaded, run.predictions("test"), strict=True):
        assert said == {
            **{key: value for key, value in line.items() if key != "id"},
            "score": pytest.approx(line["score"]),
        }
    assert run.evaluate(rows, quiet=True)["validation"] == pytest.approx(plain.metrics["test"])
    held(run, cli)


def test_few_entities_are_told(tiny_checkpoint: Path, tmp_path: Path, capfd: Any) -> None:
    sets = {"train": tagged(96, 0.2, 1), "validation": tagged(190, 0.6, 2)}
    run = bert_ft.finetune(
        "ner",
        tiny_checkpoint,
        output=tmp_path / "few",
        calibration="isotonic",
        **sets,
        **{**QUICK, "quiet": False},
    )
    told = capfd.readouterr()
    assert (
        "scores are not calibrated by isotonic: " in told.out + told.err
        and "1,000 are the least" in told.out + told.err
    )
    assert any("scores are not calibrated by isotonic" in note for note in run.results["notes"])
    assert "scores" not in run.results["tuned"] and set(run.results["calibration"]["validation"]) == {
        "before"
    }
