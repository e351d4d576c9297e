"""Column files and spans as they come: what is read, and what is refused with file and line (or row)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.data import loading
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.ner.adapter import Ner

Read = Callable[..., Splits]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read("a.conll", text, ...)` writes and reads files; the keys of the task come by name, `__` for the dot."""

    def call(*files: str, **keys: Any) -> Splits:
        paths = []
        for name, text in zip(files[::2], files[1::2], strict=True):
            (tmp_path / name).write_bytes(text.encode())
            paths.append(str(tmp_path / name))
        changes = {"data.train": "+".join(paths), "data.evaluate": paths[0]}
        changes |= {key.replace("__", "."): value for key, value in keys.items()}
        return loading.load(bert_ft.load_task("ner").override(changes), Ner)

    return call


def columns(splits: Splits) -> tuple[list[list[str]], list[list[str]]]:
    return splits.train.table["tokens"].to_pylist(), splits.train.table["tags"].to_pylist()


TOKENS = [["EU", "rejects", "#", "\u00a0"], ["Peter"]]
TAGS = [["B-ORG", "O", "O", "O"], ["B-PER"]]


@pytest.mark.parametrize(("text", "keys"), [
    ("EU\tB-ORG\nrejects\tO\n#\tO\n\u00a0\tO\n\nPeter\tB-PER", {}),
    ("\ufeffEU\tB-ORG\r\nrejects\tO\r\n#\tO\r\n\u00a0\tO\r\n\t\r\n\r\nPeter\tB-PER\r\n\r\n", {}),
    ("# id = 1 of 2\nEU  B-ORG \nrejects O\n# O\n\u00a0 O\n\n# id = 2\n# more of it\nPeter B-PER\n", {}),
    ("EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n# x x O\n\u00a0 x x O\n\nPeter NNP I-NP I-PER\n", {}),
    ("B-ORG EU x\nO rejects x\nO # x\nO \u00a0 x\n\nB-PER Peter x\n", {"data__columns": {"tokens": "1", "tags": "0"}}),
    ("B-ORG EU x\nO rejects x\nO # x\nO \u00a0 x\n\nB-PER Peter x\n", {"data__columns": {"tokens": "-2", "tags": "-3"}}),
    ("-DOCSTART- -X- O O\n\nEU a b S-ORG\nrejects a b O\n# a b O\n\u00a0 a b O\n\n-DOCSTART- -X- O O\n\nPeter a b S-PER", {}),
])  # fmt: skip
def test_column_files(read: Read, text: str, keys: dict[str, Any]) -> None:
    splits = read("a.conll", text, **keys)
    assert columns(splits) == (TOKENS, TAGS)
    assert splits.fingerprint()
    rows = splits.train
    lines = [line.strip("\r \ufeff") for line in text.split("\n")]
    at = {word: number for number, line in enumerate(lines, 1) for word in re.split("[\t ]+", line)}
    assert rows.place(0, 1).endswith(f"a.conll, line {at['rejects']}") and rows.place(1).endswith(
        f"line {at['Peter']}"
    )


def test_empty_words_documents_and_several_files(read: Read) -> None:
    text = "-DOCSTART-\tO\n\n\tO\n \tB-X\n\n\nb\tO\n\n-DOCSTART-\tO\n\nc\tO\n"
    splits = read("a.bio", text, "b.bio", text)
    assert columns(splits)[0] == [["", " "], ["b"], ["c"]] * 2
    assert splits.train.table["document"].to_pylist() == [0, 0, 1, 2, 2, 3]
    assert splits.train.place(5).endswith("b.bio, line 11")
    same = read("c.bio", text, "d.bio", text)
    assert same.fingerprint() == splits.fingerprint(), "where rows stand is no part of them"
    grouped = read("a.bio", text * 5, data__validation="40%", data__group="document")
    documents = [
        set(rows.table["document"].to_pylist()) for rows in (grouped.train, *grouped.evaluation.values())
    ]
    assert not documents[0] & documents[1] and len(documents[0] | documents[1]) == 10


@pytest.mark.parametrize(("text", "message", "keys"), [
    ("a O\nb\n", "line 2: 1 columns where the other lines have 2: 'b'", {}),
    ("a\tO\n#tag\n", "line 2: 1 columns", {}),
    ("a\tO\n# a remark within a sentence\n", "line 2: 1 columns", {}),
    ("a\nb\n", "no column 'tags': the file has 1", {}),
    ("a O\n", "no column '4': the file has 2", {"data__columns": {"tags": "4"}}),
    ("a O\n", "no column 'word': the file has 2", {"data__columns": {"tokens": "word"}}),
    ("\n\n", "no sentences", {}),
    ("a O\nb B-X\n\nc X\n", "line 4: tag 'X' has no prefix", {}),
    ("a O\nb B-X\n\nc S-X\n", "line 4: tag 'S-X' is none of IOB2", {"ner__scheme": "IOB2"}),
    ("a\tO\nb\t\n", "line 2: tag '' ", {}),
    ("a O\n", "no column 'document'", {"data__group": "document"}),
])  # fmt: skip
def test_column_files_refused(read: Read, text: str, message: str, keys: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        read("a.conll", text, **keys)
    assert message in str(error.value) and "a.conll" in str(error.value)


def test_what_breaks_the_scheme_is_told_with_its_line(read: Read) -> None:
    splits = read("a.conll", "a\tB-X\nb\tI-X\n\n# said\n# more\nc\tO\nd\tI-X\n")
    assert columns(splits)[1][1] == ["O", "B-X"]
    assert any(
        re.search("train: 1 tags break IOB2 .*: I-X at .*a.conll, line 7$", note) for note in splits.notes
    )


TEXT = "Anna met Bob in New York."
WORDS = ["Anna", "met", "Bob", "in", "New", "York", "."]
GOLD = ["B-PER", "O", "B-PER", "O", "B-LOC", "I-LOC", "O"]
SPANS = [(0, 4, "PER"), (9, 12, "PER"), (16, 24, "LOC")]
FORMS = {
    "Doccano": {"id": 3, "text": TEXT, "label": [list(span) for span in SPANS]},
    "Doccano, relations": {"text": TEXT, "entities": [
        {"id": 1, "start_offset": a, "end_offset": b, "label": k} for a, b, k in SPANS], "relations": []},
    "Label Studio": {"id": 1, "data": {"text": TEXT}, "annotations": [{"was_cancelled": True, "result": []}, {"result": [
        {"type": "labels", "value": {"start": a, "end": b, "text": TEXT[a:b], "labels": [k]}} for a, b, k in SPANS]}]},
    "Label Studio, short": {"text": TEXT, "label": [
        {"start": a, "end": b, "text": TEXT[a:b], "labels": [k]} for a, b, k in SPANS]},
    "Prodigy": {"text": TEXT, "tokens": [{"text": "Anna", "start": 0, "end": 4, "id": 0}], "answer": "accept", "spans": [
        {"start": a, "end": b, "token_start": 0, "token_end": 0, "label": k} for a, b, k in SPANS]},
    "CLUENER": {"text": TEXT, "label": {"PER": {"Anna": [[0, 3]], "Bob": [[9, 11]]}, "LOC": {"New York": [[16, 23]]}}},
    "ours": {"text": TEXT, "entities": [{"start": a, "end": b, "label": k, "score": 0.5} for a, b, k in SPANS]},
    "words": {"tokens": WORDS, "tags": GOLD},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_spans(read: Read, form: str) -> None:
    row, other = (
        FORMS[form],
        {"words": {"tokens": ["x"], "tags": ["O"]}}.get(form, FORMS[form] | {"text": "x"}),
    )
    if form != "words":
        other = {"text": "x", "label": {} if form == "CLUENER" else []}
    line = json.dumps(row) + "\n" + json.dumps(other) + "\n"
    assert columns(read("a.jsonl", line)) == ([WORDS, ["x"]], [GOLD, ["O"]])
    assert columns(read("a.json", json.dumps([row, other]))) == ([WORDS, ["x"]], [GOLD, ["O"]])
    if form == "Doccano":
        renamed = json.dumps({"content": TEXT, "marks": row["label"]})
        keys = {"data__columns": {"tokens": "content", "tags": "marks"}}
        assert columns(read("b.jsonl", renamed, **keys)) == ([WORDS], [GOLD])


@pytest.mark.parametrize(("rows", "message"), [
    ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b"]}], "row 2: 1 rows have no tags"),
    ([{"tokens": ["a"], "tags": ["O"]}, {"tags": ["O"]}], "row 2: no 'tokens'"),
    ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b", "c"], "tags": ["O"]}], "row 2: 2 words and 1 tags"),
    ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b", None], "tags": ["O", "O"]}], "row 2, word 2: a word is null"),
    ([{"tokens": ["a"], "tags": [None]}], "row 1, word 1: a word has no tag"),
    ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": [3], "tags": ["O"]}], "row 2: 'tokens' can't be read"),
    ([{"tokens": [1], "tags": ["O"]}], "holds lists of int64, not of words"),
    ([{"tokens": ["a"], "tags": [1]}], "row 1, word 1: column 'tags' holds numbers"),
    ([{"tokens": ["a"], "tags": "O"}], "column 'tags' holds string, not lists"),
    ([{"words": ["a"]}], "row 1: no 'tokens' (a list of words) and no 'text'"),
    ([{"text": "a b", "label": [[0, 1, "X"]]}, {"text": "a b", "label": [[2, 9, "X"]]}], "row 2: the span 2 to 9 (X) lies"),
    ([{"text": "a b", "label": [[1, 2, "X"]]}], "row 1: the span 1 to 2 (X) holds no word"),
    ([{"text": "a b", "label": [[0, 1]]}], "row 1: no span: (0, 1)"),
    ([{"text": "a b", "label": ["X"]}], "row 1: no span: ('X',)"),
    ([{"text": "a b"}], "row 1: 1 rows have no tags"),
    ([{"text": "a b", "label": {"X": {"b": [[0, 0]]}}}], "row 1: the span 0 to 1 is 'a' in the text, and 'b' beside it"),
    ([{"text": "a", "spans": [], "answer": "reject"}], "no row is left\n  1 rows whose answer is 'reject'"),
    ([{"data": {"text": "a"}, "annotations": [{"result": []}, {"result": []}]}], "row 1: 2 annotations of one text"),
])  # fmt: skip
def test_json_refused(read: Read, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as error:
        read("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert message in str(error.value)


def test_codes_by_the_sources_names_or_the_tasks() -> None:
    import datasets

    rows = {"tokens": [["a", "b"], ["c"]], "tags": [[1, 2], [0]]}
    named = datasets.Features({"tokens": datasets.List(datasets.Value("string")),
                               "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X", "I-X"]))})  # fmt: skip
    task = bert_ft.load_task("ner")
    mapping = {"data.label_names": {"0": "O", "1": "S-X", "2": "S-Y"}}
    for source, changes, expected in ((datasets.Dataset.from_dict(rows, named), {}, [["B-X", "I-X"], ["O"]]),
                                      (rows, mapping, [["B-X", "B-Y"], ["O"]])):  # fmt: skip
        splits = loading.load(task.override(changes), Ner, {"train": source, "validation": source})
        assert splits.train.table["tags"].to_pylist() == expected
    with pytest.raises(InputError, match="word 2: the tag 2 has no name"):
        loading.load(
            task.override({"data.label_names": {"0": "O", "1": "S-X"}}),
            Ner,
            {"train": rows, "validation": rows},
        )


def test_empty_sentences_are_told(read: Read) -> None:
    splits = read("a.jsonl", '{"tokens": ["a"], "tags": ["B-X"]}\n{"tokens": [], "tags": []}')
    assert columns(splits) == ([["a"], []], [["B-X"], []])
    assert any("1 rows have no words; the first:" in note and "row 2" in note for note in splits.notes)


SETS = {"wnut17": "wnut17/wnut17train.conll", "wikigold": "wikigold/wikigold.conll.txt", "btc": "btc/h.conll"}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SETS)
def test_every_word_of_a_file_is_read(name: str, shared_data: Path) -> None:
    """Against a reading line by line."""
    file = shared_data / SETS[name]
    expected: list[list[str]] = [[]]
    for line in file.read_text(encoding="utf-8").split("\n"):
        if not line.strip() or line.startswith("-DOCSTART-"):
            expected.append([])
        else:
            expected[-1].append(line.rpartition(" " if name == "wikigold" else "\t")[0])
    keys = {"data.train": str(file), "data.evaluate": str(file)}
    splits = loading.load(bert_ft.load_task("ner").override(keys), Ner)
    assert splits.train.table["tokens"].to_pylist() == [sentence for sentence in expected if sentence]


@pytest.mark.parametrize("label", ['{"PER": [[0, 4]]}', "3", '[{"start": 0}]', '"PER"'])
def test_spans_of_no_known_form_are_one_message(read: Read, label: str) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl, row 1: no span"):
        read("a.jsonl", '{"text": "Anna came", "label": ' + label + "}\n")


def test_rows_without_tags_among_others_are_told(read: Read, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["b"], "tags": null}\n')
    splits = read("a.conll", "EU\tB-ORG\nno\tO\n", data__test=str(tmp_path / "t.jsonl"))
    assert [note for note in splits.notes if "1 of 2 rows have no tags, so that none is scored" in note]


def test_accuracy_of_a_head_in_bioes(tmp_path: Path) -> None:
    """Gold tags are read as IOB2; a prediction of the same entity in the head's own scheme is right."""
    import numpy as np

    names = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    (tmp_path / "a.conll").write_text("Anna\tB-PER\nLee\tE-PER\nsaw\tO\nBob\tS-PER\n")
    task = bert_ft.load_task("ner").override(
        {"data.train": str(tmp_path / "a.conll"), "data.evaluate": str(tmp_path / "a.conll")}
    )
    adapter, rows = Ner(task, names), loading.load(task, Ner).train
    scores = adapter.score({"prediction": np.array([1, 3, 0, 4])}, rows)
    assert scores["f1"] == 1 and scores["accuracy"] == 1
    assert adapter.score({"prediction": np.array([1, 2, 0, 0])}, rows)["accuracy"] == 0.75
