"""Files of predictions as they are in the world: joined by what they say or told, read in the forms that pipelines and
tables have, refused where an answer would be made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_compare import Made, N, made
from test_compare_file import written

import bert_ft
from bert_ft.errors import InputError
from bert_ft.report import given
from bert_ft.report.scored_set import Scored
from bert_ft.tools.compare.given import Predictions

__all__ = ["made"]  # the fixture

NAMES = ["a", "b", "c"]
Read = Callable[..., tuple[list[Any], str]]
Rows = list[dict[str, Any]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The answers that a file gives in the set's order, and what is noted of it, or the message that refuses it."""

    def of(first: Scored, name: str, content: Rows | str | bytes, **columns: str) -> tuple[list[Any], str]:
        path = tmp_path / name
        if isinstance(content, list):
            written(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        file = Predictions(path, columns)
        try:
            answers = file.scored(first).column("prediction")
        except InputError as error:
            return [], str(error)
        return answers, "\n".join(file.notes)

    return of


def without_rows(first: Scored) -> Scored:
    """A set whose texts the run has not kept."""
    first.rows = None
    return first


def test_rows_are_joined_or_it_is_told(made: Made, read: Read) -> None:
    first = made("classes", 1).scored()
    answers = [NAMES[i % 3] for i in range(N)]
    texts = first.rows["text"].to_pylist()  # type: ignore[index]
    lines = [{"id": i, "prediction": p} for i, p in enumerate(answers)]
    found, message = read(first, "id.jsonl", lines[::-1])
    assert not found and "have no 'id' to find those of the file by" in message and "row=COLUMN" in message
    assert read(first, "id.jsonl", lines[::-1], row="id") == (answers, "")
    found, note = read(first, "counted.jsonl", lines)
    assert found == answers and "taken in their order" in note and "no 'id'" in note
    found, note = read(first, "bare.txt", "\n".join(answers))
    assert found == answers and "taken in their order" in note
    assert "has no 'row', and others have" in read(first, "some.jsonl", [
        {"row": N - 1 - i, "prediction": p} if i != 11 else {"prediction": p} for i, p in enumerate(answers)
    ])[1]  # fmt: skip
    by_text = [{"Text": text, "prediction": p} for text, p in zip(texts, answers, strict=True)][::-1]
    found, note = read(first, "Text.csv", by_text)
    assert found == answers and "found by their texts" in note
    first.task = first.task.override({"data.columns": {"text": "review"}})
    of_source = [{"review": row["Text"], "prediction": row["prediction"]} for row in by_text]
    assert read(first, "review.csv", of_source) == (found, note.replace("Text.csv", "review.csv"))
    by_text[3].pop("Text")
    message = read(first, "one.jsonl", by_text)[1]
    assert "has no 'text', and others have one" in message and "one.jsonl, line 4" in message
    message = read(first, "from1.jsonl", [{"row": i + 1, "prediction": "a"} for i in range(N)])[1]
    assert "'row' counts from 1 to 60, and rows are counted from 0" in message
    wrong = [{"row": i, "text": texts[i - 1], "prediction": "a"} for i in range(N)]
    assert "row 0 of the set has another text" in read(first, "both.jsonl", wrong)[1]
    spaced = [{"text": text.replace("text 7", "text  7"), "prediction": "a"} for text in texts]
    message = read(first, "space.csv", spaced)[1]
    assert "differs in white space: 'text  7 <" in message and "not 'text 7 <" in message
    floats = [{"row": f"{i}.0", "prediction": p} for i, p in enumerate(answers)]
    assert read(without_rows(first), "floats.csv", floats[::-1]) == (answers, "")


def test_equal_texts_in_another_order_are_told(made: Made, read: Read) -> None:
    first = made("classes", 1).scored()
    texts = first.rows["text"].to_pylist()  # type: ignore[index]
    first.rows = first.rows.set_column(0, "text", [[*texts[:-1], texts[0]]])  # type: ignore[union-attr]
    rows = [{"text": text, "prediction": "a"} for text in [*texts[1:-1], texts[0], texts[0]]]
    assert "and not its answer" not in read(first, "equal.csv", rows)[1]
    rows[-1]["prediction"] = "b"
    assert "2 of them have the text of another and not its answer" in read(first, "unlike.csv", rows)[1]


def test_gold_labels_are_no_answers(made: Made, read: Read) -> None:
    first = made("classes", 1).scored()
    rows = [{"label": line["label"], "answer": "a"} for line in first.lines]
    message = read(first, "both.csv", rows)[1]
    assert "the set's own label in every row" in message and "answer" in message and "--column" in message
    assert read(first, "both.csv", rows, prediction="answer")[0] == ["a"] * N
    assert read(first, "both.csv", rows, prediction="label")[0] == first.column("label")
    rows[0]["label"] = "a" if rows[0]["label"] != "a" else "b"
    assert "read from its column 'label'; other columns: answer" in read(first, "nearly.csv", rows)[1]
    assert "read from its column 'label'" in read(first, "label.csv", [{"label": "a"}] * N)[1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({}, "no prediction"),
        ({"a": 0.2}, "sum to 0.2, not to 1"),
        ({"a": 2.0, "b": -1.5, "c": 0.0}, "2 of 'a' where a probability from 0 to 1"),
        ({"a": 70.5, "b": 29.5}, "divide percentages by 100"),
        ({"a": 0.2, "b": 0.3, "0": 0.5}, "'a' has two probabilities"),
        ('{"a": 0.5, "a": 1.0}', "'a' appears twice"),
        ({"a": True}, "where a number is expected"),
        ([{"label": "a", "score": 0.7}], "sum to 0.7, not to 1"),
        ([0.5, 0.5], "a probability for each label"),
    ],
)
def test_probabilities_that_are_none(cell: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given.one_label({"probabilities": cell}, NAMES, {"0": "a"})


@pytest.mark.parametrize(
    "cell",
    [
        {"a": 0.2, "b": 0.8},
        {"a": 0.2, "b": 0.8, "c": None},
        "{'a': 0.2, 'b': 0.8}",
        [{"label": "b", "score": 0.8}, {"label": "a", "score": 0.2}],
        [[{"label": "b", "score": 0.8}, {"label": "a", "score": 0.2}]],
        [0.2, 0.8, 0.0],
    ],
)
def test_forms_of_probabilities(cell: Any) -> None:
    found = given.one_label({"probabilities": cell}, NAMES, {})
    assert found == {"prediction": "b", "probabilities": {"a": 0.2, "b": 0.8, "c": 0.0}}
    assert given.label_set({"prediction": None, "probabilities": cell}, NAMES, {})["prediction"] == ["b"]


def test_labels_and_lists_in_cells() -> None:
    for code in ("1", "1.0", " 1", 1, 1.0, "a ", " a"):
        assert given.one_label({"prediction": code}, NAMES, {"1": "a"})["prediction"] == "a"
    names = ["hard", "rock", "hard rock", "jazz"]
    sets = {"hard rock": ["hard rock"], "hard, jazz": ["hard", "jazz"], "['hard', 'jazz']": ["hard", "jazz"],
            "hard;jazz": ["hard", "jazz"], '["jazz"]': ["jazz"], "['hard' 'jazz']": ["hard", "jazz"],
            "": [], "[]": []}  # fmt: skip
    for cell, labels in sets.items():
        assert given.label_set({"prediction": cell}, names, {})["prediction"] == labels, cell
    assert given.label_set({"prediction": "hard/jazz"}, names, {}, "/")["prediction"] == ["hard", "jazz"]
    with pytest.raises(ValueError, match="write several as a list"):
        given.label_set({"prediction": "hard jazz"}, names, {})
    for cell in ("['B-PER', 'O']", "['B-PER' 'O']", '["B-PER", "O"]', "B-PER O"):
        assert given.tags({"prediction": cell}, 2, ["O", "B-PER"], {}) == {"prediction": ["B-PER", "O"]}
    assert given.tags({"prediction": [1, 0]}, 2, ["O"], {"0": "O", "1": "B"}) == {"prediction": ["B", "O"]}
    assert given.tags({"prediction": ["1", "0"]}, 2, ["0", "1"], {}) == {"prediction": ["1", "0"]}
    with pytest.raises(ValueError, match="the number 1 where the name of a tag"):
        given.tags({"prediction": [1, 0]}, 2, ["O", "B-PER"], {})


def test_what_pipelines_write(made: Made, read: Read) -> None:
    first = made("classes", 1).scored()
    texts = first.rows["text"].to_pylist()  # type: ignore[index]
    answers = [NAMES[i % 3] for i in range(N)]
    each = [
        [{"label": p, "score": 0.9}, {"label": NAMES[(i + 1) % 3], "score": 0.1}]
        for i, p in enumerate(answers)
    ]
    assert read(first, "all.json", json.dumps(each))[0] == answers
    assert read(first, "all.jsonl", "\n".join(map(json.dumps, each)))[0] == answers
    assert read(first, "texts.json", json.dumps(answers))[0] == answers
    assert read(first, "top.json", json.dumps([row[0] for row in each]))[0] == answers
    zero = [{"sequence": text, "labels": [item["label"] for item in row], "scores": [0.9, 0.1]}
            for text, row in zip(texts, each, strict=True)]  # fmt: skip
    found, note = read(first, "zero.json", json.dumps(zero[::-1]))
    assert found == answers and "found by their texts" in note
    cells = [{key: str(value) for key, value in row.items()} for row in zero]
    assert read(first, "zero.csv", cells) == (answers, "")


def test_tag_files(made: Made, read: Read) -> None:
    first = made("entities", 1).scored()
    tags = first.column("label")
    lines = [
        "".join(f"{word} {tag}\n" for word, tag in zip(line["tokens"], line["label"], strict=True))
        for line in first.lines
    ]
    assert read(first, "a.conll", "\n".join(lines)) == (tags, "")
    for name in ("a.bio", "a.txt", "a.tsv"):
        assert read(first, name, "\n".join(lines))[0] == tags
    table = [{"tokens": json.dumps(line["tokens"]), "answer": str(line["label"])} for line in first.lines]
    assert read(first, "a.csv", table, prediction="answer") == (tags, "")
    assert read(first, "line.txt", "\n".join(" ".join(row) for row in tags))[0] == tags
    found, note = read(first, "back.conll", "\n".join(lines[::-1]))
    assert found == tags and "found by their texts" in note
    message = read(first, "other.conll", "\n".join(lines).replace("saw7 ", "sees "))[1]
    assert "row 7 of the set has another text" in message and "other.conll" in message


def test_answers_by_id(made: Made, read: Read) -> None:
    first = made("questions", 1).scored()
    answers: dict[str, Any] = {f"q{i}": "text" for i in range(N)}
    answers["q3"] = None
    found, _ = read(first, "bom.json", b"\xef\xbb\xbf" + json.dumps(answers).encode())
    assert found == ["" if i == 3 else "text" for i in range(N)]
    message = read(first, "number.json", json.dumps(answers | {"q4": 1066}))[1]
    assert "1066 where a text is expected; write it in quotes" in message and "id 'q4'" in message
    message = read(first, "missing.json", json.dumps({"q0": "text"}))[1]
    assert "no answer to id 'q1' (59 in all)" in message
    assert "id 'z' is none of the set's" in read(first, "z.json", json.dumps({"z": "text"}))[1]


def test_encodings(made: Made, read: Read) -> None:
    labels = {"好": "a", "坏": "b", "中": "c"}
    rows = "prediction\n" + "好\n坏\n中\n" * (N // 3)
    first = made("classes", 1, **{"data.label_names": labels, "data.encoding": "gbk"}).scored()
    found, note = read(first, "gbk.csv", rows.encode("gbk"))
    assert found == NAMES * (N // 3) and "is read as gbk" in note
    assert "read as" not in read(first, "utf8.csv", rows)[1]
    first = made("classes", 2, **{"data.label_names": labels}).scored()
    message = read(first, "gbk.csv", rows.encode("gbk"))[1]
    assert "is not utf-8" in message and "save the file as UTF-8" in message and "--set" not in message


def test_notes_reach_the_comparison(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a\n" * N)
    found = bert_ft.compare(made("classes", 1), file, draws=10)
    assert any("are taken in their order" in line for line in found.lines())


def test_why_measures_of_distributions_are_not_compared(made: Made, tmp_path: Path) -> None:
    run = made("classes", 1)
    results = json.loads((run.path / "results.json").read_text())
    results["metrics"]["validation"] |= {"cross_entropy": 0.5, "kl_divergence": 0.1}
    (run.path / "results.json").write_text(json.dumps(results))
    run, file = bert_ft.Run(run.path), written(tmp_path / "o.jsonl", run.predictions())
    (note,) = [line for line in bert_ft.compare(run, file, draws=10).lines() if "not compared" in line]
    assert "cross_entropy, kl_divergence (measured against distributions" in note and "undefined" not in note
    with pytest.raises(InputError, match="it is measured against distributions"):
        bert_ft.compare(run, file, draws=10, metrics=["cross_entropy"])
