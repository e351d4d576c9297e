"""`bert-ft predict` of files whose questions are nested in their contexts, as training reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.tools.app import answers

CONTEXTS = ["a warm film by anna bell", "otto saw a dull film in rome"]
QUESTIONS = [["who made it", "what is warm"], ["who saw it"]]
ROWS = [
    {"id": f"{n}-{i}", "question": question, "context": context}
    for n, (context, questions) in enumerate(zip(CONTEXTS, QUESTIONS, strict=True))
    for i, question in enumerate(questions)
]


def _nested(context: str, qas: str, key: str, question: str) -> list[dict[str, Any]]:
    return [
        {context: text, qas: [{key: f"{n}-{i}", question: asked} for i, asked in enumerate(QUESTIONS[n])]}
        for n, text in enumerate(CONTEXTS)
    ]


CUT = (
    "the end of 1 of 2 questions is not read: they are longer than max_query_length, or than half of "
    "max_length"
)
SQUAD = {"version": "1.1", "data": [{"paragraphs": _nested("context", "qas", "id", "question")}]}
FORMS: dict[str, str] = {
    "SQuAD, over lines": json.dumps(SQUAD, indent=1),
    "SQuAD, one line": json.dumps(SQUAD),
    "CMRC 2018": json.dumps(_nested("context_text", "qas", "query_id", "query_text")),
    "rows below data": json.dumps({"data": ROWS}),
    "rows": json.dumps(ROWS),
    "a row a line": "".join(json.dumps(row) + "\n" for row in ROWS),
}


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    rows = [row | {"answers": [{"text": row["context"].split()[2], "answer_start": -1}]} for row in ROWS]
    return bert_ft.finetune("qa", str(tiny_checkpoint), train=rows, validation=rows, epochs=1, max_length=32,
                            output=tmp_path_factory.mktemp("run") / "run", quiet=True)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_answered(form: str, run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "a.json").write_text(FORMS[form])
    done = cli("predict", run.path, "a.json")
    assert done.code == 0, done
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [{key: row[key] for key in ROWS[0]} for row in found] == ROWS
    alone = run.predict([{key: row[key] for key in ("question", "context")} for row in ROWS])
    assert [row["prediction"] for row in found] == [answer["prediction"] for answer in alone]


def test_a_question_that_is_cut_is_told_as_such(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """Contexts are read in windows: nothing of them is lost, however long they are."""
    rows = [ROWS[0] | {"context": " ".join([CONTEXTS[0]] * 20)}, ROWS[1] | {"question": "who made it " * 30}]
    for count, told in ((1, ""), (2, CUT)):
        (tmp_path / "a.json").write_text(json.dumps(rows[:count]))
        done = cli("predict", run.path, "a.json")
        assert done.code == 0 and done.err.strip() == told, done
    _, features = next(iter(run.model.blocks(run.model.rows([rows[1]], {}))))
    assert "The question is longer" in " ".join(answers.notes(features.counts, run.model.max_length, "en"))


def test_a_single_row_at_fault_is_no_document(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "a.json").write_text('{"question": "who made it", "contxt": "a film"}\n')
    done = cli("predict", run.path, "a.json", "--keep-bad")
    assert done.code == 0 and done.err.startswith("a.json, line 1: no 'context'\n"), done
    assert json.loads(done.out)["error"] == "no 'context'"


def test_a_document_without_questions_is_one_message(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    bad = {"data": [{"paragraphs": [{"qas": SQUAD["data"][0]["paragraphs"][0]["qas"]}]}]}  # type: ignore[index]
    (tmp_path / "a.json").write_text(json.dumps(bad, indent=1))
    done = cli("predict", run.path, "a.json")
    assert done.code == 2 and done.err.startswith("bert-ft: a.json, data[0].paragraphs[0]: no 'context'\n")
