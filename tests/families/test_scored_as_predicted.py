"""What is scored of raw text is what `predict` gives for it: the words do not follow the gold spans, and a span that they
can't express is missed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.data import loading
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families import words
from bert_ft.families.ner.adapter import Ner
from bert_ft.families.ner.report import Entities
from bert_ft.rundir.folder import RunDir

Spans = list[tuple[int, int, str]]
ROWS: list[tuple[str, Spans]] = [
    ("Anna works in Bern", [(0, 4, "PER"), (14, 18, "LOC")]),
    ("김태웅이고 서울 산다", [(0, 3, "PER"), (6, 8, "LOC")]),
    ("give 200mg at Romnähe", [(5, 8, "DOSE"), (8, 10, "UNIT"), (14, 17, "LOC")]),
    ("きのうタローは東京へ", [(3, 6, "PER"), (7, 9, "LOC")]),
    ("pre-Otto von Bern x", [(2, 12, "PER"), (13, 17, "LOC")]),
]
KINDS = ("DOSE", "LOC", "PER", "UNIT")


def read(rows: list[tuple[str, Spans]], **keys: Any) -> Splits:
    table = [{"tokens": text, "tags": [dict(zip(("start", "end", "label"), span, strict=True)) for span in spans]}
             for text, spans in rows]  # fmt: skip
    return loading.load(bert_ft.load_task("ner").override(keys), Ner, {"train": table, "validation": table})


def f1(gold: set[Any], found: set[Any]) -> float:
    return 2 * len(gold & found) / (len(gold) + len(found)) if gold or found else 0.0


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_score_is_that_of_the_characters_that_predict_gives(chance: random.Random) -> None:
    """Against a count of (row, start, end, type), whatever the model answers."""
    rows = chance.choices(ROWS, k=3)
    splits = read(rows)
    adapter = Ner(bert_ft.load_task("ner"), ["O", *(f"{a}-{kind}" for kind in KINDS for a in "BI")])
    scored = splits.evaluation["validation"]
    raw = adapter.rows([text for text, _ in rows])
    assert raw.table["tokens"].to_pylist() == scored.table["tokens"].to_pylist()
    gold_tags = adapter._learned(scored)  # what a perfect training would answer, with some words changed
    noise = np.array([chance.randrange(len(adapter.names)) for _ in gold_tags])
    tags = np.where([chance.random() < 0.3 for _ in gold_tags], noise, gold_tags)
    predictions = {"prediction": tags, "score": np.ones(len(tags))}
    answers = list(adapter.decode_raw(predictions, raw))
    found = {(i, e["start"], e["end"], e["label"]) for i, a in enumerate(answers) for e in a["entities"]}
    gold = {(i, *span) for i, (_, spans) in enumerate(rows) for span in spans}
    metrics = adapter.score(predictions, scored)
    assert metrics["f1"] == pytest.approx(f1(gold, found))
    for kind in {kind for *_, kind in gold}:
        of_kind = [{each for each in side if each[3] == kind} for side in (gold, found)]
        assert metrics[f"f1_{kind}"] == pytest.approx(f1(*of_kind))


def test_spans_within_words_are_told_and_learned_as_whole_words() -> None:
    splits = read(ROWS)
    (told,) = [finding for finding in splits.findings if finding.set == "validation"]
    assert (told.severity, told.count) == ("warning", 5) and told.places[0].endswith("row 2")
    assert told.examples[:2] == ["김태웅 (PER) in 김태웅이고", "200 (DOSE) in 200mg"]
    table = splits.train.table
    assert table["missed"].to_pylist() == [[], ["PER"], ["DOSE", "UNIT", "LOC"], [], ["PER"]]
    assert table["tags"][2].as_py() == ["O"] * 4
    assert table["learned"][2].as_py() == ["O", "B-DOSE", "O", "B-LOC"]
    assert table["learned"][4].as_py() == ["O", "B-PER", "I-PER", "I-PER", "B-LOC", "O"]
    assert any("1 spans hold no beginning of a word" in note for note in splits.notes)
    labels = Ner.find_labels(splits.train, bert_ft.load_task("ner"))
    assert labels == ["O", *(f"{a}-{kind}" for kind in KINDS for a in "BI")], "of missed types too"
    known = Ner(bert_ft.load_task("ner"), ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    with pytest.raises(InputError, match=r"row 3: tag 'B-DOSE'"):
        known.check("validation", splits.train)


def test_rows_without_the_fault_stay_as_they_were() -> None:
    splits = read([ROWS[0], ROWS[3]])
    assert splits.train.table.column_names == ["tokens", "tags"] and not splits.findings


def test_the_report_counts_what_is_missed(tmp_path: Path) -> None:
    """Of the lines of predictions alone: the table of types, the intervals, the errors."""
    splits = read(ROWS)
    task = bert_ft.load_task("ner")
    adapter = Ner(task, Ner.find_labels(splits.train, task))
    predictions = {"prediction": adapter._learned(splits.train)}
    metrics = adapter.score(predictions, splits.train)
    folder = RunDir(tmp_path)
    folder.predictions.mkdir()
    lines = [json.dumps(line) for line in adapter.lines(predictions, splits.train)]
    folder.prediction_file("validation").write_text("\n".join(lines) + "\n")
    shown = Entities(folder, task, "validation", {"metrics": {"validation": metrics}})
    rows = {row[0]: row[1:] for row in shown.sections()[0].rows}  # type: ignore[union-attr]
    assert rows["UNIT"][:3] == [1, 0.0, 0.0] and rows["PER"][0] == 4
    assert {kind: row[3] for kind, row in rows.items()} == {k: metrics[f"f1_{k}"] for k in rows}
    assert shown.resamples.of()["f1"] == pytest.approx(metrics["f1"]) and shown.certainty.keys() >= {"f1"}
    assert any("UNIT: a part of a word" in error["missed"] for error in shown.errors())


LETTERS = {
    "きのうタローはトーキョー": list("きのうタローはトーキョー"),
    "ｶﾞｷﾞ が゙": ["ｶﾞ", "ｷﾞ", "が゙"],
    "ฉันชื่อ อยู่": ["ฉั", "น", "ชื่", "อ", "อ", "ยู่"],
    "ລາວ abc": ["ລ", "າ", "ວ", "abc"],
    "東京 200mg 로마에는": ["東", "京", "200mg", "로마에는"],
}


@pytest.mark.parametrize("text", LETTERS)
def test_scripts_without_spaces_are_cut_by_letter(text: str) -> None:
    assert words.split([text]).words == LETTERS[text]


def test_a_model_that_says_nothing_keeps_its_words() -> None:
    """One of before letters of other scripts than Chinese were words, or somebody else's."""
    task = bert_ft.load_task("ner")
    new, old = Ner(task, ["O"]), Ner(task, ["O"], {})
    assert new.rows(["タロー東"]).table["tokens"].to_pylist() == [["タ", "ロ", "ー", "東"]]
    assert old.rows(["タロー東"]).table["tokens"].to_pylist() == [["タロー", "東"]]
    again = Ner(task, ["O"], new.tuned)
    assert again.unspaced and again.reading is Ner and not old.rebound(task).unspaced
    table = [{"tokens": "タロー東", "tags": [{"start": 0, "end": 3, "label": "PER"}]}]
    read = loading.load(task, old.reading, {"train": table, "validation": table})
    assert read.train.table["tokens"].to_pylist() == [["タロー", "東"]], "evaluate reads as it predicts"
