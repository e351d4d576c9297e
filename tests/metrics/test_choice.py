"""The estimate of how far a choice leans, against brute force over every division, and against a truth that is
known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from bert_ft.metrics import choice, multilabel, scoring, squad
from bert_ft.metrics.choice import Candidate
from bert_ft.report.choices import Choice, Choices


def halves(n: int) -> list[np.ndarray]:
    """Every division of n rows into two halves."""
    return [np.isin(np.arange(n), chosen).astype(int) for chosen in combinations(range(n), n // 2)]


def evaluations(gold: np.ndarray, predictions: np.ndarray) -> list[Candidate]:
    return [choice.answers(np.stack([gold, p], axis=1), scoring.Classes(["0", "1"], 1)) for p in predictions]


def first_best(values: list[float]) -> int:
    return values.index(max(values))


@pytest.mark.parametrize("seed", range(4))
def test_every_division_by_hand(seed: int) -> None:
    """The best of three evaluations of eight rows: all 70 halvings."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, 8)
    predictions = np.where(rng.random((3, 8)) < 0.6, gold, 1 - gold)
    apparent, held = choice.cross_fitted(evaluations(gold, predictions), "accuracy", divisions=halves(8))
    values, scores = [], []
    for part in halves(8):
        fitted = np.empty(8, int)
        for number in (0, 1):
            rest = part != number
            best = first_best([accuracy_score(gold[rest], p[rest]) for p in predictions])
            fitted[~rest] = predictions[best][~rest]
        values.append(accuracy_score(gold, fitted))
        scores.append(f1_score(gold, fitted, zero_division=0))
    assert held["accuracy"] == pytest.approx(np.mean(values))
    assert held["f1"] == pytest.approx(np.mean(scores)), "of all rows together, not the mean of the halves"
    best = first_best([accuracy_score(gold, p) for p in predictions])
    assert apparent["accuracy"] == accuracy_score(gold, predictions[best])
    random = choice.cross_fitted(evaluations(gold, predictions), "accuracy", seed=seed)[1]
    assert random["accuracy"] == pytest.approx(held["accuracy"], abs=0.06), "50 of the 70 at random"


def test_thresholds_by_hand() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random((8, 3)) < 0.5
    p = rng.random((8, 3)) + gold * 0.3
    candidate = choice.label_sets(gold, p, per_label=True)
    apparent, held = choice.cross_fitted([candidate], "f1_micro", divisions=halves(8))
    values = []
    for part in halves(8):
        found = np.empty_like(gold)
        for number in (0, 1):
            rest = part != number
            found[~rest] = p[~rest] > multilabel.best_thresholds(p[rest], gold[rest])
        values.append(f1_score(gold, found, average="macro", zero_division=0))
    assert held["f1_macro_tuned"] == pytest.approx(np.mean(values))
    tuned = p > multilabel.best_thresholds(p, gold)
    assert apparent["f1_macro_tuned"] == pytest.approx(f1_score(gold, tuned, average="macro"))
    assert held["f1_macro"] == pytest.approx(apparent["f1_macro"]), "at 0.5 nothing is chosen"
    assert apparent["f1_macro_tuned"] > held["f1_macro_tuned"]


def test_thresholds_of_no_answer_by_hand() -> None:
    rng = np.random.default_rng(3)
    has = np.arange(8) % 2 == 0
    odds = rng.normal(size=8) - has
    exact = np.where(has, rng.random(8) < 0.6, 0.0).astype(float)
    f1 = np.where(has, np.maximum(exact, rng.random(8)), 0.0)
    candidate = choice.null_threshold({"exact": exact, "f1": f1}, has, np.ones(8, bool), odds, "f1")
    apparent, held = choice.cross_fitted([candidate], "best_f1", divisions=halves(8))

    def value(threshold: float, rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.where(odds > threshold, ~has, scores)[rows]

    def best(rows: np.ndarray, scores: np.ndarray, lowest: float) -> float:
        limits = [lowest, *sorted(odds[rows])]
        return limits[first_best([value(limit, rows, scores).sum() for limit in limits])]

    for name, scores, own in (
        ("best_exact", exact, exact),
        ("tuned_exact_match", exact, f1),
        ("best_f1", f1, f1),
    ):
        below = 1 if name.startswith("tuned") else 99  # where no answer is best for all of the rows

        def scored(fit: np.ndarray, on: np.ndarray, own: np.ndarray = own, below: int = below) -> float:
            return float(value(best(fit, own, odds[fit].min() - below), on, scores).mean())  # noqa: B023

        values = [np.mean([scored(part == 1 - k, part == k) for k in (0, 1)]) for part in halves(8)]
        assert held[name] == pytest.approx(100 * np.mean(values)), name
        every = np.ones(8, bool)
        assert apparent[name] == pytest.approx(100 * scored(every, every))


def test_equal_null_odds_as_the_official_sweep_has_them() -> None:
    """It cuts inside equal odds, which a threshold of the model's can't."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        has = rng.random(30) < 0.5
        odds = rng.integers(0, 4, 30).astype(float)
        texts = np.where(rng.random(30) < 0.3, "", np.where(rng.random(30) < 0.6, "b", "c"))
        golds = [["b"] if each else [] for each in has]
        raw = squad.raw_scores(texts, golds)
        candidate = choice.null_threshold(raw, has, texts != "", odds, "exact")
        found = choice.scores(candidate, candidate.keys(slice(None)))
        keys = [str(i) for i in range(30)]
        pairs = dict(zip(keys, texts.tolist(), strict=True)), dict(zip(keys, golds, strict=True))
        official = squad.squad_v2(*pairs, dict(zip(keys, odds.tolist(), strict=True)), 0.0)
        assert found["best_exact"] == pytest.approx(official["best_exact"])
        assert found["best_f1"] == pytest.approx(official["best_f1"])
        assert (found["f1"], found["exact_match"]) == pytest.approx((official["f1"], official["exact"]))


def test_the_metric_where_less_is_better_and_undefined_ones() -> None:
    rng = np.random.default_rng(5)
    gold = rng.normal(size=40)
    pairs = [np.stack([gold, gold + rng.normal(size=40)], axis=1) for _ in range(6)]
    constant = np.stack([gold, np.zeros(40)], axis=1)  # its correlation is undefined, and never the best
    candidates = [choice.answers(each, scoring.Numbers()) for each in (constant, *pairs)]
    errors = [np.square(np.diff(each)).mean() for each in (constant, *pairs)]
    apparent, held = choice.cross_fitted(candidates, "mean_squared_error")
    assert apparent["mean_squared_error"] == pytest.approx(min(errors))
    assert held["mean_squared_error"] > min(errors)
    apparent, _ = choice.cross_fitted(candidates, "pearson")
    assert apparent["pearson"] == pytest.approx(max(np.corrcoef(each.T)[0, 1] for each in pairs))
    assert choice.cross_fitted(candidates[:1] * 2, "pearson") == ({}, {}), "no evaluation has it"
    assert choice.cross_fitted(candidates, "my own") == ({}, {})
    few = [choice.answers(each[:3], scoring.Numbers()) for each in pairs]
    assert choice.cross_fitted(few, "mean_squared_error") == ({}, {}), "three rows are not divided"


@pytest.mark.parametrize("sizes", [[3] * 10, [17, 5, 4, 4], [30, 30]])
def test_groups_are_not_divided(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.repeat(np.arange(len(sizes)) * 7, sizes)
    seen = []
    real = choice._divisions
    monkeypatch.setattr(
        choice, "_divisions", lambda *given: (seen.append(part) or part for part in real(*given))
    )
    gold = np.arange(sum(sizes)) % 2
    candidates = evaluations(gold, np.random.default_rng(0).integers(0, 2, (4, len(gold))))
    assert choice.cross_fitted(candidates, "accuracy", groups)[1]
    whole = [all(len(set(part[groups == group])) == 1 for group in groups) for part in seen]
    assert seen and all(whole) is (len(sizes) >= 4), "two groups are no ground for a division"
    if len(sizes) == 10:
        assert {part.sum() for part in seen} == {15}, "halves"


@pytest.mark.slow
def test_the_held_out_value_is_the_fresh_one() -> None:
    """The best of ten equal evaluations of 300 rows: all of what it is above the truth is the choice."""
    rng = np.random.default_rng(0)
    gold = np.zeros(300, int)
    leans, off = [], []
    for _ in range(40):
        hard = rng.normal(size=300)
        wrong = (0.9 * hard + 0.45 * rng.normal(size=(10, 300)) > 1.05).astype(int)  # 14.8 % of them
        apparent, held = choice.cross_fitted(evaluations(gold, wrong), "accuracy", seed=1)
        leans.append(apparent["accuracy"] - 0.8517)
        off.append(held["accuracy"] - 0.8517)
    assert np.mean(leans) > 0.014
    assert abs(np.mean(off)) < np.mean(leans) / 3


def test_a_moved_interval_stays_on_its_scale() -> None:
    """Of a perfect score of few rows it still holds the perfect one; of a bad one it does not go below none."""
    metrics = {"validation": {"accuracy": 1.0, "f1": 0.05, "matthews_correlation": 0.02}}
    leans = {"accuracy": 0.0167, "f1": 0.04, "matthews_correlation": 0.1}
    made = Choice(
        "validation",
        list(leans),
        10,
        lean=leans,
        held_out={k: metrics["validation"][k] - v for k, v in leans.items()},
    )
    choices = Choices([made], metrics, ("validation", "accuracy"))
    low, high = choices.interval("validation", "accuracy", (0.94, 1.0), 1.0)
    assert low == pytest.approx(0.94 - 0.0167) and high == 1.0
    low, high = choices.interval("validation", "f1", (0.01, 0.2), 1.0)
    assert low == 0.0 and high == pytest.approx(0.16)
    low, high = choices.interval("validation", "matthews_correlation", (-0.2, 0.3), 1.0)
    assert (low, high) == pytest.approx((-0.3, 0.2))
    up = Choices([Choice("validation", ["accuracy"], 10, lean={"accuracy": -0.05}, held_out={"accuracy": 1.03})],
                 {"validation": {"accuracy": 0.98}}, ("validation", "accuracy"))  # fmt: skip
    assert up.interval("validation", "accuracy", (0.93, 0.995), 1.0) == (pytest.approx(0.98), 1.0)
