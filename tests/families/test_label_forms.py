"""Labels as tools write them: rows that a person rejected, lists of one, lists as text, and what means no label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bert_ft import load_task
from bert_ft.data import loading
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification
from bert_ft.tools import check as tool

TEXTS = [f"a film number {i}" for i in range(6)]
SETS = {"data.problem_type": "multi_label_classification"}


def read(path: Path, **settings: Any) -> tuple[list[Any], list[str]]:
    """The labels of a file, and the notes."""
    task = load_task("classification").override(
        {"data.train": str(path), "data.evaluate": str(path)}
        | {k.replace("__", "."): v for k, v in settings.items()}
    )
    splits = loading.load(task, Classification)
    return splits.train.table["label"].to_pylist(), [
        note for note in splits.notes if note.startswith("train")
    ]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_that_a_person_rejected_are_left_out(tmp_path: Path) -> None:
    answers = ["accept", "reject", "accept", "ignore", "accept", "reject"]
    labels = ["a", "b", "b", None, "a", "a"]  # an ignored row may have none
    rows = [{"text": t, "label": x, "answer": a} for t, x, a in zip(TEXTS, labels, answers, strict=True)]
    found, notes = read(jsonl(tmp_path / "a.jsonl", rows))
    assert found == ["a", "b", "a"]
    assert notes == ["train: rows answered 'ignore' (1) and 'reject' (2) are left out; the first: row 2"]
    assert answers.count("accept") + 1 + 2 == len(rows)
    rows[4]["label"] = None  # a place is that of the file
    with pytest.raises(InputError, match=r"a\.jsonl, row 5: 1 rows have no label"):
        read(jsonl(tmp_path / "a.jsonl", rows))
    with pytest.raises(InputError, match="every row is left out"):
        read(jsonl(tmp_path / "b.jsonl", [row | {"answer": "reject"} for row in rows]))


def test_an_answer_that_is_the_label_or_another_thing_leaves_all_rows(tmp_path: Path) -> None:
    rows = [{"text": t, "answer": a} for t, a in zip(TEXTS, ["accept", "reject"] * 3, strict=True)]
    found, notes = read(jsonl(tmp_path / "a.jsonl", rows), data__columns={"label": "answer"})
    assert found == ["accept", "reject"] * 3 and not notes
    rows = [{"text": t, "label": "a", "answer": "yes" if i else "reject"} for i, t in enumerate(TEXTS)]
    assert len(read(jsonl(tmp_path / "b.jsonl", rows))[0]) == 6


def test_lists_of_one_label_are_labels(tmp_path: Path) -> None:
    labels = [["a"], ["b"], ["a"], ["b"], ["a"], ["好"]]
    rows = [{"text": t, "label": x} for t, x in zip(TEXTS, labels, strict=True)]
    found, notes = read(jsonl(tmp_path / "a.jsonl", rows))
    assert found == ["a", "b", "a", "b", "a", "好"] and "lists of one label" in notes[0]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)  # ['a'], as pandas writes a list
    assert read(tmp_path / "a.csv")[0] == found
    rows[3]["label"] = ["a", "b"]
    with pytest.raises(InputError, match=r"row 4: column 'label' has 2 labels\n  --multi-label"):
        read(jsonl(tmp_path / "a.jsonl", rows))
    rows[3]["label"] = []
    with pytest.raises(InputError, match="row 4: 1 rows have no label"):
        read(jsonl(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize(
    "form", [str, json.dumps, lambda x: json.dumps({"choices": x}) if len(x) > 1 else "".join(x)]
)
def test_sets_of_labels_in_cells_of_text(tmp_path: Path, form: Any) -> None:
    labels = [["a"], ["a", "b"], [], ["b", "c"], ["a", "c"], ["c"]]
    pd.DataFrame({"text": TEXTS, "label": [form(x) for x in labels]}).to_csv(tmp_path / "a.csv", index=False)
    found, notes = read(tmp_path / "a.csv", **SETS)
    assert found == labels and "written as text" in notes[0]


@pytest.mark.parametrize(
    "bits", [[[1, 0], [0, 1]] * 3, [[0, 0, 1], [1, 1, 0]] * 3, [[True, False], [False, True]] * 3]
)
def test_rows_of_zero_and_one_are_no_lists_of_labels(tmp_path: Path, bits: list[list[int]]) -> None:
    rows = [{"text": t, "label": x} for t, x in zip(TEXTS, bits, strict=True)]
    with pytest.raises(InputError, match="a row of 0 and 1 is not a list of labels"):
        read(jsonl(tmp_path / "a.jsonl", rows), **SETS)


@pytest.mark.parametrize("mark", ["-", "?", "N/A", "nan", "—", ".", "N.A."])
def test_labels_that_mean_none_are_told_and_left_out_when_asked(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "text,label\n" + "".join(f"{t},{x}\n" for t, x in zip(TEXTS, ["a", mark, "b"] * 2, strict=True))
    )
    report = tool.check("classification", train=str(file), validation=str(file))
    told = [finding for finding in report.findings if "may mean no label" in finding.message]
    assert [finding.severity for finding in told] == ["warning"] and json.dumps(
        [mark], ensure_ascii=False
    ) in told[0].message
    found, notes = read(file, data__skip_labels=[mark])
    assert found == ["a", "b"] * 2 and notes == [
        f"train: 2 rows are left out, by data.skip_labels; the first: {file}, row 2"
    ]


def csv_of(path: Path, labels: list[Any]) -> Path:
    pd.DataFrame({"text": [f"film {i}" for i in range(len(labels))], "label": labels}).to_csv(
        path, index=False
    )
    return path


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["[27]", "[3]"], [["27"], ["3"]]),
        (["[0, 9]", "[]"], [["0", "9"], []]),
        (["['a' 'b']", "['好']"], [["a", "b"], ["好"]]),
        (["[3 9]", "[ 4\n 12]"], [["3", "9"], ["12", "4"]]),
        (["{'b', 'a'}", "set()"], [["a", "b"], []]),
        (["('a', 'b')", "('c',)"], [["a", "b"], ["c"]]),
    ],
)
def test_lists_as_python_and_numpy_write_them(tmp_path: Path, cells: list[str], expected: Any) -> None:
    assert read(csv_of(tmp_path / "a.csv", cells * 3), **SETS)[0] == expected * 3


def test_one_hot_text_is_told_as_such_in_either_problem(tmp_path: Path) -> None:
    file = csv_of(tmp_path / "a.csv", ["[0, 1, 1]", "[1, 0, 0]"] * 3)
    for settings in (SETS, {}):
        with pytest.raises(InputError, match=r"row 1: .*a row of 0 and 1 is not a list of labels"):
            read(file, **settings)


def test_skipped_labels_in_lists_and_in_sets_that_need_none(tmp_path: Path) -> None:
    file = csv_of(tmp_path / "a.csv", ["['-']", "['a']", "['b']", ""])
    labels, notes = read(file, data__skip_labels=["-"], **SETS)
    assert labels == [["a"], ["b"], []] and "1 of 4 rows have an empty cell" in notes[-1]
    file = csv_of(tmp_path / "b.csv", ["['-']", "['a']", "['b']"])
    assert read(file, data__skip_labels=["-"])[0] == ["a", "b"]
    task = load_task("classification").override(
        {"data.train": str(file), "data.evaluate": str(file), "data.skip_labels": ["-"]}
    )
    task = task.override({"data.test": str(csv_of(tmp_path / "c.csv", ["-"] * 4))})
    assert loading.load(task, Classification).test["test"].table["label"].to_pylist() == [None] * 4


def test_codes_that_a_program_wrote_as_floats_have_their_names(tmp_path: Path) -> None:
    file = csv_of(tmp_path / "a.csv", ["0.0", "1.0", "2.0", "-1"] * 3)
    settings = {"train": str(file), "validation": str(file), "data.label_names": ["neg", "pos"]}
    report = tool.check("classification", **settings)
    assert list(report.sets["train"]["labels"]) == ["neg", "pos", "2.0", "-1"]
    told = [f.message for f in report.findings if f.set == "train" and "without a name" in f.message]
    assert told == ["labels without a name in data.label_names: '2.0', '-1'"]
    csv_of(tmp_path / "b.csv", ["0", "1", "1.0", "2"] * 3)
    report = tool.check("classification", train=str(tmp_path / "b.csv"), validation=str(file))
    twins = next(f for f in report.findings if "the same number" in f.message)
    assert "'1' (3 rows) and '1.0' (6 rows)" in twins.examples


@pytest.mark.parametrize("wrong", [{"metric.positive": "yes"}, {"metric.compute": ["exact_match"]}])
def test_check_says_what_training_would_refuse(tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = str(csv_of(tmp_path / "a.csv", ["a", "b"] * 6))
    report = tool.check("classification", train=file, validation=file, **wrong)
    assert [f.check for f in report.findings if f.severity == "fault"] == ["refused"]
