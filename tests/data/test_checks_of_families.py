"""`bert-ft check` reads the words of ner and the questions and contexts of qa."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.shared_data
@pytest.mark.pretrained
def test_chinese_words_under_an_english_vocabulary(shared_data: Path, minilm: Path, cli: Any) -> None:
    folder = shared_data / "cluener_zh"
    done = cli(
        "check",
        "ner",
        "--train",
        folder / "train.jsonl",
        "--validation",
        folder / "dev.jsonl",
        "-c",
        minilm,
        "--json",
    )
    found = {(f["check"], f["set"]): f for f in json.loads(done.out)["findings"]}
    assert done.code == 0 and found["unknown", "train"]["severity"] == "warning"
    assert "57.2% of all tokens" in found["unknown", "train"]["message"]


def test_questions_of_two_sets(tmp_path: Path, cli: Any) -> None:
    rows = [{"id": str(k), "question": f"who is number {k} ?", "context": f"Anna is number {k} .",
             "answers": [{"text": "Anna", "answer_start": 0}]} for k in range(6)]  # fmt: skip
    for name, part in (("train", rows[:4]), ("validation", [*rows[4:], {**rows[1], "id": "again"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    done = cli(
        "check",
        "qa",
        "--train",
        tmp_path / "train.jsonl",
        "--validation",
        tmp_path / "validation.jsonl",
        "--json",
    )
    found = json.loads(done.out)["findings"]
    assert [(f["check"], f["set"], f["count"]) for f in found] == [("overlap", "validation", 1)]
