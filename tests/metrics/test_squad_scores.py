"""SQuAD's scores against the official scripts: rewritten here step by step, and golden values they printed."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft.metrics as metrics
from bert_ft.metrics import squad

examples = settings(max_examples=60, deadline=None, derandomize=True)

WORDS = [
    "The",
    "the",
    "a",
    "An",
    "Cat",
    "cat's",
    "U.S.",
    "1,000",
    "Ärger",
    "東京",
    "«x»",
    "–",
    "-",
    "İ",
    "ﬁn",
    "\u00a0",
    "ab",
]
TEXT = st.lists(st.sampled_from([*WORDS, *string.punctuation[:6]]), max_size=5).map(" ".join) | st.text(
    max_size=8
)
KEYS = [f"q{i}" for i in range(8)]


# --- the scripts, rewritten: one question at a time, in their order ---------------------------------------------------


def normalize(text: str) -> str:
    kept = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def overlap_f1(predicted: list[str], gold: list[str]) -> float:
    same = sum(min(n, Counter(gold)[word]) for word, n in Counter(predicted).items())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


def evaluate_v1(golds: dict[str, list[str]], predictions: dict[str, str]) -> dict[str, float]:
    f1 = exact = total = 0.0
    for key, answers in golds.items():
        total += 1
        if key not in predictions:
            continue
        exact += max(normalize(predictions[key]) == normalize(answer) for answer in answers)
        f1 += max(
            overlap_f1(normalize(predictions[key]).split(), normalize(answer).split()) for answer in answers
        )
    return {"exact_match": 100.0 * exact / total, "f1": 100.0 * f1 / total}


def evaluate_v2(golds: dict[str, list[str]], predictions: dict[str, str], odds: dict[str, float], threshold: float) -> dict[str, float]:  # fmt: skip
    exact: dict[str, float] = {}
    f1: dict[str, float] = {}
    for key, answers in golds.items():
        wanted = [answer for answer in answers if normalize(answer)] or [""]
        pairs = [(normalize(predictions[key]), normalize(answer)) for answer in wanted]
        exact[key] = max(int(a == b) for a, b in pairs)
        f1[key] = max(overlap_f1(a.split(), b.split()) if a and b else int(a == b) for a, b in pairs)
    out: dict[str, float] = {}
    for prefix, keys in (
        ("", list(golds)),
        ("HasAns_", [k for k in golds if golds[k]]),
        ("NoAns_", [k for k in golds if not golds[k]]),
    ):
        for name, raw in (("exact", exact), ("f1", f1)):
            kept = {k: float(not golds[k]) if odds[k] > threshold else raw[k] for k in golds}
            if keys:
                out[prefix + name] = 100.0 * sum(kept[k] for k in keys) / len(keys)
        if keys:
            out[f"{prefix}total"] = len(keys)
    for name, raw in (("exact", exact), ("f1", f1)):
        current = best = float(sum(1 for k in golds if not golds[k]))
        best_threshold = 0.0
        for key in sorted(odds, key=lambda k: odds[k]):
            if key in raw:
                current += raw[key] if golds[key] else -1 if predictions[key] else 0
                if current > best:
                    best, best_threshold = current, odds[key]
        out[f"best_{name}"], out[f"best_{name}_thresh"] = 100.0 * best / len(raw), best_threshold
    return out


# --- generated predictions --------------------------------------------------------------------------------------------


@examples
@given(st.lists(st.lists(TEXT, min_size=1, max_size=3), min_size=1, max_size=8), st.data())
def test_scores_equal_version_1(golds: list[list[str]], data: st.DataObject) -> None:
    answers = dict(zip(KEYS, golds, strict=False))
    near = TEXT | st.sampled_from([text for texts in golds for text in texts])
    predictions = data.draw(st.dictionaries(st.sampled_from([*KEYS, "another"]), near))
    assert squad.squad(predictions, answers) == evaluate_v1(answers, predictions)


@examples
@given(st.lists(st.lists(TEXT, max_size=3), min_size=1, max_size=8), st.data())
def test_scores_equal_version_2(golds: list[list[str]], data: st.DataObject) -> None:
    answers = dict(zip(KEYS, golds, strict=False))
    near = TEXT | st.sampled_from(["", *(text for texts in golds for text in texts)])
    predictions = data.draw(st.fixed_dictionaries(dict.fromkeys(answers, near)))
    number = st.sampled_from([-2.5, 0.0, 1.0]) | st.floats(-9, 9)  # with ties
    keys = data.draw(st.permutations([*answers, "another"]))  # their order decides ties
    odds = {key: data.draw(number) for key in keys}
    threshold = data.draw(number)
    theirs = evaluate_v2(answers, predictions, {k: v for k, v in odds.items() if k in answers}, threshold)
    assert squad.squad_v2(predictions, answers, odds, threshold) == theirs


def test_the_tuned_threshold_scores_what_the_sweep_promises() -> None:
    """Predicting with the threshold gives the best score, also where only empty answers are right."""
    answers = {"a": ["cat"], "b": [], "c": ["dog"], "d": []}
    predictions = {"a": "cat", "b": "cow", "c": "cow", "d": "cow"}
    for odds in ({"a": -3.0, "b": -1.0, "c": -2.0, "d": 2.0}, {"a": 5.0, "b": -1.0, "c": -2.0, "d": -4.0}):
        raw = squad.raw_scores(predictions.values(), answers.values())["f1"]
        has, given_, values = (squad.np.array(x) for x in ([1, 0, 1, 0], [1, 1, 1, 1], list(odds.values())))
        threshold = squad.null_threshold(raw, has.astype(bool), given_.astype(bool), values)
        scored = squad.squad_v2(predictions, answers, odds, threshold)
        assert scored["f1"] == scored["best_f1"] >= 50.0


# --- what the scripts themselves printed ------------------------------------------------------------------------------

GOLDS: dict[str, list[str]] = {
    "q1": ["The Old Mill", "mill"],
    "q2": ["in 1066, at Hastings"],
    "q3": [],
    "q4": ["São Paulo"],
    "q5": [],
    "q6": ["the", "a"],
}
PREDICTIONS = {
    "q1": "an old mill!",
    "q2": "1066 at Hastings",
    "q3": "",
    "q4": "Sao Paulo",
    "q5": "Rome",
    "q6": "an",
}
ODDS = {"q1": -4.0, "q2": 0.5, "q3": 3.25, "q4": -1.0, "q5": 1.5, "q6": 2.0}
GOLDEN_V1 = {"exact_match": 50.0, "f1": 46.42857142857143}
GOLDEN_V2 = {
    "exact": 50.0,
    "f1": 58.333333333333336,
    "total": 6,
    "HasAns_exact": 25.0,
    "HasAns_f1": 37.5,
    "HasAns_total": 4,
    "NoAns_exact": 100.0,
    "NoAns_f1": 100.0,
    "NoAns_total": 2,
    "best_exact": 50.0,
    "best_exact_thresh": -4.0,
    "best_f1": 72.6190476190476,
    "best_f1_thresh": 0.5,
}


def test_golden_values_of_the_official_scripts() -> None:
    """`python evaluate-v1.1.py data.json predictions.json` (questions with answers only) and
    `python evaluate-v2.0.py data.json predictions.json -n odds.json -t 0`, on the questions above as SQuAD JSON."""
    answered = {key: golds for key, golds in GOLDS.items() if golds}
    assert squad.squad({k: v for k, v in PREDICTIONS.items() if k != "q4"}, answered) == GOLDEN_V1
    assert squad.squad_v2(PREDICTIONS, GOLDS, ODDS, 0.0) == GOLDEN_V2


# --- the interface of the hub's metrics -------------------------------------------------------------------------------


def test_metrics_have_the_hubs_interface() -> None:
    references: list[Any] = [
        {"id": k, "answers": {"text": v, "answer_start": [0] * len(v)}} for k, v in GOLDS.items()
    ]
    predictions = [{"id": k, "prediction_text": v} for k, v in PREDICTIONS.items()]
    pairs = [(p, r) for p, r in zip(predictions, references, strict=True) if r["answers"]["text"]]
    found = metrics.load("squad").compute(predictions=[p for p, _ in pairs], references=[r for _, r in pairs])
    assert found == squad.squad(PREDICTIONS, {k: v for k, v in GOLDS.items() if v})
    with_odds = [p | {"no_answer_probability": ODDS[p["id"]]} for p in predictions]
    metric = metrics.load("squad_v2")
    metric.add_batch(predictions=with_odds[:2], references=references[:2])
    metric.add_batch(predictions=with_odds[2:], references=references[2:])
    assert metric.compute(no_answer_threshold=0.0) == GOLDEN_V2


def test_what_the_scripts_cannot_score_is_refused() -> None:
    with pytest.raises(ValueError, match="'q3' has no gold answer"):
        squad.squad(PREDICTIONS, GOLDS)
    with pytest.raises(ValueError, match="1 questions have no prediction: q2"):
        squad.squad_v2({k: v for k, v in PREDICTIONS.items() if k != "q2"}, GOLDS, ODDS)
