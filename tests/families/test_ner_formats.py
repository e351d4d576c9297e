"""Files of the field: each is read as the tool that writes it means it, and what is left out is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.config.schema import Data
from bert_ft.data import loading
from bert_ft.data.formats import arrow
from bert_ft.data.rows import Splits
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError
from bert_ft.families.ner.adapter import Ner
from bert_ft.families.ner.formats.readers import READERS

ROOT = Path(__file__).resolve().parents[2]
Read = Callable[..., Splits]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read("a.conll", text)` writes a file, and one beside it, and reads it; columns by their roles' names."""

    def call(name: str, content: str, beside: str = "", **columns: str) -> Splits:
        file = tmp_path / name
        file.write_bytes(content.encode())
        if beside:
            file.with_suffix(".txt").write_bytes(beside.encode())
        keys = {"data.train": str(file), "data.evaluate": str(file), "data.columns": columns}
        return loading.load(bert_ft.load_task("ner").override(keys), Ner)

    return call


def direct(file: Path, content: str, labelled: bool = True, **columns: str) -> Raw:
    """What the reader of a file gives."""
    file.write_bytes(content.encode())
    names = [columns.get(role, role) for role in ("tokens", "tags")]
    return READERS[file.suffix](file, names, Data(columns=columns), () if labelled else (names[1],))


TEXT = "Anna Bell saw Rome."
WORDS = [["Anna", "Bell", "saw", "Rome", "."]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC", "O"]]
SPACY = [TEXT, {"entities": [[0, 9, "PER"], [14, 18, "LOC"]]}]
STUDIO = [
    {"type": "labels", "value": {"start": s, "end": e, "text": TEXT[s:e], "labels": [k]}}
    for s, e, k in ((0, 9, "PER"), (14, 18, "LOC"))
]
PRODIGY = {
    "text": TEXT,
    "spans": [{"start": 0, "end": 9, "label": "PER"}, {"start": 14, "end": 18, "label": "LOC"}],
}
WEBANNO = """#FORMAT=WebAnno TSV 3.2
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.lexmorph.type.pos.POS|PosValue
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity|identifier|value


#Text=Anna Bell saw Rome.
1-1\t0-4\tAnna\tNE\t*[1]\tPER[1]\t
1-2\t5-9\tBell\tNE\t*[1]\tPER[1]\t
1-3\t10-13\tsaw\tV\t_\t_\t
1-3.1\t10-11\ts\t_\t*\tMISC\t
1-4\t14-18\tRome\tNE\t*\tLOC\t
1-5\t18-19\t.\tP\t_\t_\t
"""
BIOC = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE collection SYSTEM "BioC.dtd">
<collection><source/><date/><key/><document><id>1</id>
<passage><offset>0</offset></passage>
<passage><offset>100</offset><text>{TEXT}</text>
<annotation id="1"><infon key="type">PER</infon><location offset="100" length="9"/><text>Anna Bell</text></annotation>
<annotation id="2"><infon key="type">LOC</infon><location offset="114" length="4"/><text>Rome</text></annotation>
<annotation id="3"><infon key="type">X</infon><location offset="100" length="4"/><location offset="114" length="4"/>
<text>Anna Rome</text></annotation>
</passage><relation id="r"/></document></collection>
"""
CONLLU = """# newdoc id = a
# text = It's Rome
1-2\tIt's\t_\t_\t_\t_\t_\t_\t_\t_
1\tIt\tit\tPRON\tPRP\t_\t0\troot\t_\t_
2\t's\tbe\tAUX\tVBZ\t_\t1\tcop\t_\t_
3\tRome\tRome\tPROPN\tNNP\t_\t1\tobl\t_\t{misc}
3.1\tleft\tleave\tVERB\tVBD\t_\t_\t_\t1:conj\t_

"""
FORMS: dict[str, tuple[str, str, list[Any], list[Any], list[str]]] = {
    "CoNLL columns": ("a.conll", "# id 7 u\tdomain=en\nAnna _ _ B-PER\nsaw _ _ O\n", [["Anna", "saw"]], [["B-PER", "O"]],
                      ["1 comment lines"]),
    "CoNLL-U": ("a.conllu", CONLLU.format(misc="SpaceAfter=No|NER=B-LOC"), [["It", "'s", "Rome"]], [["O", "O", "B-LOC"]],
                ["2 comment lines", "1 lines of multiword tokens", "1 empty nodes"]),
    "WebAnno TSV 3": ("a.tsv", WEBANNO, WORDS, TAGS, ["1 parts of words"]),
    "BRAT standoff": ("a.ann", "T1\tPER 0 9\tAnna Bell\nR1\tat Arg1:T1 Arg2:T2\nT2\tLOC 14 18\tRome\nT3\tX 0 4;14 18\tAnna Rome\n",
                      WORDS, TAGS, ["1 relations, events", "1 discontinuous spans"]),
    "BioC": ("a.xml", BIOC, WORDS, TAGS, ["1 passages without text", "1 discontinuous spans", "1 relations"]),
    "PubTator": ("a.txt", "7|t|Anna Bell saw\n7|a|Rome.\n7\t0\t9\tAnna Bell\tPER\tx\n7\tin\ta\tb\n7\t14\t18\tRome\tLOC\n\n",
                 WORDS, TAGS, ["1 relations"]),
    "Label Studio": ("a.json", json.dumps([
        {"data": {"text": TEXT}, "annotations": [{"result": [*STUDIO, {"type": "relation", "from_id": "a"}]}]},
        {"data": {"text": TEXT}, "annotations": []}, {"data": {"text": "x"}, "annotations": [{"result": []}]},
        {"data": {"text": TEXT}, "annotations": [{"was_cancelled": True, "result": STUDIO}]}]),
        [*WORDS, ["x"]], [*TAGS, ["O"]],
        ["1 Label Studio results of the type 'relation'", "1 rows that nobody has annotated", "1 rows that an annotator"]),
    "Label Studio JSON_MIN": ("a.json", json.dumps([{"text": TEXT, "label": [x["value"] for x in STUDIO], "annotation_id": 1},
                                                    {"text": "x", "annotation_id": 2}]), [*WORDS, ["x"]], [*TAGS, ["O"]], []),
    "Prodigy": ("a.jsonl", "\n".join(json.dumps(row) for row in (
        PRODIGY | {"answer": "accept"}, PRODIGY | {"answer": "reject"}, PRODIGY | {"answer": "ignore"}, PRODIGY | {"answer": "ignore"})),
        WORDS, TAGS, ["1 rows whose answer is 'reject'", "2 rows whose answer is 'ignore'"]),
    "Doccano": ("a.jsonl", json.dumps({"id": 1, "text": TEXT, "label": [[0, 9, "PER"], [14, 18, "LOC"]], "Comments": []}),
                WORDS, TAGS, []),
    "CLUENER": ("a.json", json.dumps({"text": "在上海", "label": {"LOC": {"上海": [[1, 2]]}}}), [["在", "上", "海"]],
                [["O", "B-LOC", "I-LOC"]], []),
    "spaCy pairs": ("a.json", json.dumps([SPACY, ["x", {"entities": []}], ["x", None]]), [*WORDS, ["x"]], [*TAGS, ["O"]],
                    ["1 rows that nobody has annotated"]),
    "NER annotator": ("a.json", json.dumps({"classes": ["PER"], "annotations": [None, SPACY]}), WORDS, TAGS,
                      ["1 rows that nobody has annotated are left out; the first: {file}, row 1"]),
    "GLiNER": ("a.jsonl", json.dumps({"tokenized_text": WORDS[0], "ner": [[0, 1, "PER"], [3, 3, "LOC"], [0, 0, "X"]]}), WORDS, TAGS,
               ["1 spans that overlap a longer or equal one"]),
    "words and tags": ("a.jsonl", f"{{'tokens': {WORDS[0]}, 'tags': {tuple(TAGS[0])}}}\n", WORDS, TAGS, []),
    "CSV, a word a row": ("a.csv", "Sentence #,Word,Tag\nSentence: 1,Anna,B-PER\n,saw,O\nSentence: 2,x,O\n",
                          [["Anna", "saw"], ["x"]], [["B-PER", "O"], ["O"]], []),
    "CSV, a sentence a row": ("a.csv", "tokens,tags\n\"['Anna' 'it\\'s'\n \"\"x\"\"]\",\"['B-PER', 'O', 'O']\"\n",
                              [["Anna", "it's", "x"]], [["B-PER", "O", "O"]], []),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(read: Read, tmp_path: Path, form: str) -> None:
    name, content, words, tags, told = FORMS[form]
    splits = read(name, content, TEXT if name.endswith(".ann") else "")
    table = splits.train.table
    assert (table["tokens"].to_pylist(), table["tags"].to_pylist()) == (words, tags)
    for part in told:
        part = part.format(file=tmp_path / name)
        assert any(part in note and "are left out; the first: " in note for note in splits.notes), part
    left = [note for note in splits.notes if "left out" in note and note.startswith("train")]
    assert len(left) == len(told), "nothing else is left out"


def test_the_table_of_the_documentation_is_what_is_tested() -> None:
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (.+?) \| ner \|", page, re.MULTILINE) == list(FORMS)


COMMENTED = {
    "germeval.tsv": ("#\thttp://x [1]\n1\tIn\tO\tO\n2\tRom\tB-LOC\tO\n\n#\thttp://y\n1\tx\tO\tO\n", {"tokens": "1", "tags": "2"}),
    "klue.tsv": ("## id-1\t<Rom:LC> in\nIn\tO\nRom\tB-LOC\n\n## id-2\tx\nx\tO\n", {}),
    "coco.conll": ("#begin document (nw/1); part 000\nIn NN O\nRom NN B-LOC\n\n#end document\n#begin document (nw/2); part 000\nx NN O\n#end document", {}),
    "bare.conll": ("# doc 1 2\nIn NN _ O\nRom NN _ LOC\n\n# doc nr 2\nx _ _ O\n", {}),
    "first.tsv": ("# B\tsaid\nO\tIn\nB-LOC\tRom\n\nO\tx\n", {"tokens": "1", "tags": "0"}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMENTED)
def test_comment_lines(read: Read, name: str) -> None:
    text, columns = COMMENTED[name]
    splits = read(name, text, **columns)
    assert splits.train.table["tokens"].to_pylist() == [["In", "Rom"], ["x"]]
    assert splits.train.table["tags"].to_pylist() == [["O", "B-LOC"], ["O"]]
    count = sum(line.startswith("#") for line in text.split("\n"))
    assert any(note.startswith(f"train: {count} comment lines are left out") for note in splits.notes)
    if name == "coco.conll":
        assert splits.train.table["document"].to_pylist() == [0, 1]


@pytest.mark.parametrize(("text", "words"), [
    ("# O\nx B-PER\n\n# B-PER\ny O\n", [["#", "x"], ["#", "y"]]),
    ("#\tO\n#begin\tO\n##\tI-PER\n\nx\tB-PER\n", [["#", "#begin", "##"], ["x"]]),
    ("# PER\nx PER\n", [["#", "x"]]),
    ("# O\n\n# O\n", [["#"], ["#"]]),
    ("a DT\n# #\n# SYM\n1 CD\n", [["a", "#", "#", "1"]]),
    ("a\tB-X\n#\tI-UNIT\n", [["a", "#"]]),
])  # fmt: skip
def test_a_hash_can_be_a_word(tmp_path: Path, text: str, words: list[list[str]]) -> None:
    assert direct(tmp_path / "a.conll", text).table["tokens"].to_pylist() == words


@pytest.mark.parametrize(("name", "content", "columns"), [
    ("a.conll", "token\ttag\nAnna\tB-PER\nsaw\tO\n\nx\tO\n", {}),
    ("a.txt", "Word POS Chunk NER\n\nAnna N B-NP B-PER\nsaw V O O\n\nx N O O\n", {}),
    ("a.tsv", "Sentence #\tLABEL\tTokens\n1\tB-PER\tAnna\n1\tO\tsaw\n\n2\tO\tx\n", {"tokens": "-1", "tags": "1"}),
    ("a.conll", "ner word lemma\nB-PER Anna a\nO saw see\n\nO x x\n", {"tokens": "word", "tags": "ner"}),
])  # fmt: skip
def test_a_header_is_no_word(read: Read, name: str, content: str, columns: dict[str, str]) -> None:
    splits = read(name, content, **columns)
    assert splits.train.table["tokens"].to_pylist() == [["Anna", "saw"], ["x"]]
    assert splits.train.table["tags"].to_pylist() == [["B-PER", "O"], ["O"]]
    assert any("the first line is a header and left out" in note for note in splits.notes)


def test_sentences_of_several_widths(read: Read) -> None:
    """CoNLL-2012 has a column for each predicate of a sentence."""
    content = "#begin document (a); part 000\na 0 0 Anna (PER) *\na 0 1 saw * (V*)\n\na 1 0 x * * (A) -\n\n#end document\n"
    splits = read("a.v4_gold_conll.conll", content, tokens="3", tags="4")
    assert splits.train.table["tokens"].to_pylist() == [["Anna", "saw"], ["x"]]
    assert splits.train.table["tags"].to_pylist() == [["B-PER", "O"], ["O"]]


@pytest.mark.parametrize("filler", ["_", "-"])
def test_a_test_set_that_nobody_has_tagged(tmp_path: Path, filler: str) -> None:
    (tmp_path / "train.conll").write_text("Anna B-PER\n")
    (tmp_path / "test.conll").write_text(f"Otto {filler}\nleft {filler}\n")
    keys = {"data.train": str(tmp_path / "train.conll"), "data.evaluate": str(tmp_path / "train.conll"),
            "data.test": str(tmp_path / "test.conll")}  # fmt: skip
    splits = loading.load(bert_ft.load_task("ner").override(keys), Ner)
    assert splits.test["test"].table["tags"].to_pylist() == [None]
    assert any(f"'{filler}' stands at each word" in note for note in splits.notes)


@pytest.mark.parametrize(("name", "content", "message", "columns"), [
    ("a.conll", "x LOC\n\n# Sport\ny O\n", "line 3: this line may be a comment or a word: '# Sport'", {}),
    ("a.conll", "x B-LOC\n# of it\ny O\n", "line 2: 3 columns", {}),
    ("a.conll", "x B-LOC\n# it\ny O\n", "line 2: tag 'it' has no prefix", {}),
    ("a.conll", "x a O\n\ny b c O\n", "give those of words and tags from the left: --tokens 3", {}),
    ("a.conll", "x a O\n\ny b c O\nz O\n", "line 3: 4 columns", {"tokens": "0", "tags": "2"}),
    ("a.conll", "x _\ny _\n", "line 1: no word has a tag: '_' stands at each", {}),
    ("a.conll", "x a b B-LOC\n\n# O\ny a b O\n", "line 3: this line may be a comment", {}),
    ("a.tsv", "1\tIn\tO\n2\tRom\tB-LOC\n", "the first column numbers the words", {}),
    ("a.conllu", "1\tx\n", "line 1: 2 columns where CoNLL-U has 10", {}),
    ("a.conllu", CONLLU.format(misc="Entity=(e1-place)"), "in brackets (CorefUD)", {}),
    ("a.conllu", CONLLU.format(misc="_").replace("3\tRome", "4\tRome"), "line 6: the number '4' where the word 3", {}),
    ("a.conllu", CONLLU.format(misc="_"), "column 8 is '_'", {"tags": "8"}),
    ("a.tsv", WEBANNO.replace("value", "kind"), "3 features may be the tags", {}),
    ("a.tsv", WEBANNO, "0 features are called 'type'", {"tags": "type"}),
    ("a.xml", BIOC.replace('"114" length="4"/><text>', '"14" length="4"/><text>'), "row 2: the span -86 to -82 is ''", {}),
    ("a.xml", BIOC.replace('SYSTEM "BioC.dtd"', '[<!ENTITY a "b">]'), "line 2: the entity 'a' is declared", {}),
    ("a.xml", BIOC.replace("Anna Bell saw", "&ent; saw"), "the entity 'ent'", {}),
    ("a.xml", "<collection>" + "<x>" * 99, "more than 50 levels deep", {}),
    ("a.xml", "<html/>", "not BioC: its root is <html>", {}),
    ("a.xml", BIOC, "no infon 'kind'", {"tags": "kind"}),
    ("a.json", json.dumps([{"data": {"text": "ab"}, "annotations": []}]), "no row is left", {}),
    ("a.json", json.dumps([{"text": "ab", "label": [{"start": 0, "end": 2, "labels": ["A", "B"]}]}]), "has 2 labels: A, B", {}),
    ("a.json", json.dumps([{"text": "ab c", "label": [{"start": 0, "end": 2, "text": "b", "labels": ["A"]}]}]), 'take "text" out', {}),
    ("a.json", json.dumps([{"text": "ab", "label": [{"label": ["A"], "points": [{"start": 0, "end": 1}]}]}]),
     "without a start and an end; it has label, points", {}),
    ("a.json", json.dumps([["ab", {"entities": [[0, 2]]}]]), "row 1: no span", {}),
    ("a.json", json.dumps([["ab", {"entities": [[0, 2, "X"]]}], ["cd"]]), "row 2: no pair of a text", {}),
    ("a.jsonl", json.dumps({"text": "ab", "label": [[0, 1, "X"]]}) + "\n" + json.dumps({"text": "ab", "label": [[0, 10**21, "X"]]}),
     "row 2: a whole number of more than 64 bits", {}),
    ("a.json", json.dumps([["ab", {"entities": [[-10**21, 2, "X"]]}]]), "row 1: a whole number of more than 64 bits", {}),
    ("a.jsonl", json.dumps({"tokenized_text": ["a"], "ner": [[0, 1, "X"]]}), "row 1: the span of the words 0 to 1", {}),
    ("a.csv", "Word,Tag\nAnna,B-PER\nsaw,O\n", "line 2: a word a row ('Anna'), and nothing says", {"tokens": "Word", "tags": "Tag"}),
    ("a.csv", "s,Word,Tag\n,Anna,B-PER\n1,saw,O\n", "line 2: the first word has no sentence",
     {"tokens": "Word", "tags": "Tag", "sentence": "s"}),
    ("a.csv", "tokens,tags\n['a' ... 'b'],['O' ... 'O']\n", "shortened when it was written", {}),
    ("a.csv", "tokens,tags\n\"['a', ['b']]\",\"['O', 'O']\"\n", "line 2: 'tokens' holds a list that can't be read", {}),
    ("a.csv", "tokens,tags\nAnna saw,O\n", "2 words and 1 tags", {}),
])  # fmt: skip
def test_refused(read: Read, name: str, content: str, message: str, columns: dict[str, str]) -> None:
    with pytest.raises(InputError) as error:
        read(name, content, **columns)
    assert message in str(error.value) and name in str(error.value)
    assert "\n  " in str(error.value) or "column" in message, "a remedy"


@pytest.mark.parametrize(
    "value", ["[" * 99999, "{'a': " * 9999, "('" + "\\a" * 9999, "-" * 9999, "__import__('os')"]
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_hostile_literals_are_one_message(tmp_path: Path, name: str, value: str) -> None:
    content = f'tokens,tags\n"[{value}]","[{value}]"\n' if name.endswith("csv") else value
    try:
        raw = direct(tmp_path / name, content)
    except InputError:
        return
    assert name == "a.csv" and raw.table.num_rows == 1, "a bare word of a list"


def test_unlabelled_rows_stay_where_nothing_has_to_be_scored(tmp_path: Path) -> None:
    name, content, *_ = FORMS["Label Studio"]
    raw = direct(tmp_path / name, content, labelled=False)
    assert [tags is None for tags in raw.table["tags"].to_pylist()] == [False, True, False]
    assert len(raw.notes) == 2 and not any("nobody has annotated" in note for note in raw.notes)


@pytest.mark.parametrize(("name", "content"), [
    ("a.conllu", CONLLU.format(misc="_").replace("PRON", "_").replace("AUX", "_").replace("PROPN", "_")),
    ("a.tsv", "#FORMAT=WebAnno TSV 3.3\n\n\n#Text=It's Rome\n1-1\t0-2\tIt\t\n1-2\t2-4\t's\t\n1-3\t5-9\tRome\t\n"),
])  # fmt: skip
def test_files_without_annotations_can_be_predicted(tmp_path: Path, name: str, content: str) -> None:
    raw = direct(tmp_path / name, content, labelled=False)
    assert raw.table["tokens"].to_pylist() == [["It", "'s", "Rome"]] and "tags" not in raw.table.column_names
    with pytest.raises(InputError, match=r"'_' in each line|0 features may be the tags"):
        direct(tmp_path / name, content)


def test_an_answer_that_is_not_prodigys_leaves_nothing_out(tmp_path: Path) -> None:
    raw = direct(tmp_path / "a.jsonl", json.dumps(PRODIGY | {"answer": "Rome"}))
    assert raw.table.num_rows == 1 and not raw.notes


def test_places_are_those_of_the_file(read: Read, tmp_path: Path) -> None:
    rows = [
        {"text": "a", "answer": "reject"},
        {"text": "ab", "spans": [{"start": 0, "end": 9, "label": "X"}]},
    ]
    with pytest.raises(InputError, match=r"a\.jsonl, row 2: the span 0 to 9"):
        read("a.jsonl", "\n".join(map(json.dumps, rows)))
    folder = tmp_path / "corpus"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (folder / f"{name}.txt").write_text(TEXT)
        (folder / f"{name}.ann").write_text("T1\tPER 0 9\tAnna Bell\n")
    (folder / "readme.txt").write_text("x")
    keys = {"data.train": str(folder), "data.evaluate": str(folder)}
    splits = loading.load(bert_ft.load_task("ner").override(keys), Ner)
    assert splits.train.table["tokens"].to_pylist() == WORDS * 2
    assert splits.train.place(1) == f"{folder / 'inner' / 'b.txt'}, row 1"
    assert (
        f"train: 1 rows that nobody has annotated are left out; the first: {folder / 'readme.txt'}, row 1"
        in splits.notes
    )
    (folder / "c.ann").write_text("")
    with pytest.raises(InputError, match=r"no text beside 'c\.ann'"):
        loading.load(bert_ft.load_task("ner").override(keys), Ner)


def test_offsets_of_browsers(tmp_path: Path) -> None:
    text = "😀 Anna\n saw  Rome"
    label = [
        {"start": s, "end": e, "text": t, "labels": ["X"]}
        for s, e, t in ((3, 7, "Anna"), (14, 18, "Rome"), (9, 18, "saw Rome"))
    ]
    raw = direct(tmp_path / "a.json", json.dumps([{"text": text, "label": label}]))
    assert [(span["start"], span["end"]) for span in raw.table["tags"][0].as_py()] == [
        (2, 6),
        (13, 17),
        (8, 17),
    ]
    assert raw.notes == ["1 rows whose offsets count UTF-16 units, as browsers do, are read so"]


@pytest.mark.parametrize(("row", "tags"), [
    ({"text": "aspirin now", "entities": [{"start_idx": 0, "end_idx": 6, "type": "dru", "entity": "aspirin"}]}, ["B-dru", "O"]),
    ({"text": "糖尿病", "entities": [{"start_idx": 0, "end_idx": 2, "type": "dis", "entity": "糖尿病"}]}, ["B-dis", "I-dis", "I-dis"]),
    ({"text": "Anna Bell", "label": [[0, 9, "Z"], [0, 9, "A"]]}, ["B-Z", "I-Z"]),
    ({"text": "Anna Bell", "spans": [{"start": 0, "end": 4, "type": "PER"}]}, ["B-PER", "O"]),
])  # fmt: skip
def test_more_forms_of_spans(read: Read, row: dict[str, Any], tags: list[str]) -> None:
    splits = read("a.jsonl", json.dumps(row))
    assert splits.train.table["tags"].to_pylist() == [tags]


@pytest.mark.parametrize(("header", "cells", "columns"), [
    ("id,tokens,tags", "0,\"['Anna' 'saw']\",[1 0]", {}),
    ("id,tokens,tags", '0,"[""Anna"", ""saw""]","[1, 0]"', {}),
    ("id,Sentence,Tag", "0,Anna saw,1 0", {"tokens": "Sentence", "tags": "Tag"}),
    ("Sentence #,Sentence,Tag", "Sentence: 1,Anna saw,\"('1', '0')\"", {"tokens": "Sentence", "tags": "Tag"}),
])  # fmt: skip
def test_lists_in_cells(read: Read, tmp_path: Path, header: str, cells: str, columns: dict[str, str]) -> None:
    raw = direct(tmp_path / "a.csv", f"{header}\n{cells}\n", **columns)
    words, tags = (raw.table[columns.get(role, role)].to_pylist() for role in ("tokens", "tags"))
    assert words == [["Anna", "saw"]] and [[str(tag) for tag in row] for row in tags] == [["1", "0"]]


def test_sentences_of_a_table(tmp_path: Path) -> None:
    rows = "sentence_id,words,labels\n7,Anna,B-PER\n7,saw,O\n8,x,O\n7,y,O\n"
    raw = direct(tmp_path / "a.csv", rows)
    assert raw.table["tokens"].to_pylist() == [["Anna", "saw"], ["x"], ["y"]]
    (found,) = raw.findings
    assert (found.count, found.examples, found.places) == (1, ["7"], [f"{tmp_path / 'a.csv'}, line 5"])
    blank = direct(tmp_path / "b.csv", "w,t\nAnna,B-PER\nsaw,O\n\nx,O\n", tokens="w", tags="t")
    assert blank.table["w"].to_pylist() == [["Anna", "saw"], ["x"]]
    empty = direct(tmp_path / "e.csv", "w,t\nAnna,B-PER\nsaw,O\n,\nx,O\n,\n", tokens="w", tags="t")
    assert empty.table["w"].to_pylist() == [["Anna", "saw"], ["x"]]
    ids = direct(tmp_path / "f.csv", "Sentence #,Word,Tag\n1,Anna,B-PER\n,saw,O\n,,\n2,x,O\n")
    assert ids.table["tokens"].to_pylist() == [["Anna", "saw"], ["x"]]
    index = direct(tmp_path / "i.csv", ",Sentence #,Word,Tag\n0,1,Anna,B-PER\n1,2,x,O\n")
    assert index.table["tokens"].to_pylist() == [["Anna"], ["x"]]
    bare = "Anna,B-PER\nsaw,O\n\nx,O\n"
    numbered = direct(tmp_path / "g.csv", bare, tokens="0", tags="1")
    assert numbered.table["0"].to_pylist() == [["Anna", "saw"], ["x"]]
    assert numbered.table["1"].to_pylist() == [["B-PER", "O"], ["O"]]
    (tmp_path / "h.csv").write_text(bare)
    named = READERS[".csv"](tmp_path / "h.csv", ["tokens", "tags"], Data(names=["tokens", "tags"]), ())
    assert named.table["tokens"].to_pylist() == [["Anna", "saw"], ["x"]]
    tabs = direct(tmp_path / "c.tsv", rows.replace(",", "\t"), tokens="words", tags="labels")
    assert tabs.table["words"].to_pylist() == [["Anna", "saw"], ["x"], ["y"]]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_label_names_in_the_metadata_of_a_file(tmp_path: Path, suffix: str) -> None:
    import datasets

    names = ["O", "B-X", "I-X"]
    kinds = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(datasets.ClassLabel(names=names)),
                               "label": datasets.ClassLabel(names=["no", "yes"])})  # fmt: skip
    rows = datasets.Dataset.from_dict({"tokens": [["a", "b"]], "tags": [[1, 2]], "label": [1]}, kinds)
    file = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        rows.to_parquet(str(file))
    else:
        rows.save_to_disk(str(tmp_path / "saved"))
        (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(file)
    keys = {"data.train": str(file), "data.evaluate": str(file)}
    splits = loading.load(bert_ft.load_task("ner").override(keys), Ner)
    assert splits.train.table["tags"].to_pylist() == [["B-X", "I-X"]]
    assert arrow.read(file, ["label", "tags"])[1] == {"label": ["no", "yes"], "tags": names}


@pytest.mark.parametrize("metadata", [b"", b"[", b'{"info": 1}', b'{"info": {"features": {"a": {"names": [1], "_type": "ClassLabel"}}}}',
                                      b'{"info": {"features": {"a": [[]]}}}', b"\xff", b"[" * 9999])  # fmt: skip
def test_metadata_of_strangers_names_nothing(tmp_path: Path, metadata: bytes) -> None:
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"a": [1]}).replace_schema_metadata({b"huggingface": metadata}), tmp_path / "a.parquet"
    )
    assert arrow.read(tmp_path / "a.parquet", ["a"])[1] == {}


# --- rows read and left out add up to an independent count ------------------------------------------------------------

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORD = st.text("ab#'\"éß漢,.[](){}|\\-", min_size=1, max_size=4)
SENTENCES = st.lists(st.lists(WORD, min_size=1, max_size=4), min_size=1, max_size=5)
TAG = st.sampled_from(["O", "B-X", "I-X"])


def left(raw: Raw, what: str) -> int:
    """How many of a kind the notes say are left out."""
    found = [re.match(r"([\d,]+) (.*?) are left out; the first: .+", note) for note in raw.notes]
    return sum(int(match[1].replace(",", "")) for match in found if match and match[2].startswith(what))


@SLOW
@given(SENTENCES, st.data())
def test_every_line_of_a_column_file(tmp_path: Path, sentences: list[list[str]], data: st.DataObject) -> None:
    # where every word begins with a hash, nothing tells words from comments
    assume(any(not word.startswith("#") for words in sentences for word in words))
    lines = []
    comments = 0
    for words in sentences:
        for comment in data.draw(
            st.lists(
                st.sampled_from(["# id = 1", "#\thttp://a b", "## x y z", "#begin document (a)"]), max_size=2
            )
        ):
            lines.append(comment)
            comments += 1
        lines += [f"{word} {data.draw(TAG)}" for word in words]
        lines += [""] * data.draw(st.integers(1, 3))
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    raw = direct(tmp_path / "a.conll", text)
    assert raw.table["tokens"].to_pylist() == sentences
    assert left(raw, "comment lines") == comments
    assert sum(map(len, sentences)) + comments == sum(bool(line) for line in lines)


@SLOW
@given(SENTENCES, st.data())
def test_every_line_of_conllu(tmp_path: Path, sentences: list[list[str]], data: st.DataObject) -> None:
    lines = []
    for words in sentences:
        lines += ["# c"] * data.draw(st.integers(0, 2))
        for number, word in enumerate(words, 1):
            extra = data.draw(st.sampled_from(["", f"{number}-{number + 1}", f"{number - 1}.1"]))
            lines += ["\t".join([extra, *"x________"])] if extra else []
            lines.append("\t".join([str(number), word, "_", data.draw(TAG), *"______"]))
        lines.append("")
    raw = direct(tmp_path / "a.conllu", "\n".join(lines))
    assert raw.table["tokens"].to_pylist() == sentences
    counted = sum(left(raw, what) for what in ("comment", "lines of multi", "empty nodes"))
    assert sum(map(len, sentences)) + counted == sum(map(bool, lines))


@SLOW
@given(st.lists(st.tuples(st.sampled_from(["accept", "reject", "ignore"]), st.booleans()), min_size=1, max_size=8),
       st.sampled_from(["text", "words", "pairs", "studio"]))  # fmt: skip
def test_every_row_of_json(tmp_path: Path, kinds: list[tuple[str, bool]], form: str) -> None:
    def row(answer: str, empty: bool) -> Any:
        accepted = answer == "accept"
        if form == "pairs":
            return [TEXT, {"entities": [] if empty else [[0, 4, "X"]]}] if accepted else ["x", None]
        if form == "studio":
            result = [] if empty else STUDIO
            done = [] if answer == "ignore" else [{"result": result, "was_cancelled": not accepted}]
            return {"data": {"text": TEXT}, "annotations": done}
        spans: dict[str, Any] = {"text": TEXT, "spans": [] if empty else PRODIGY["spans"]}
        return ({"tokens": ["a"], "tags": ["O"]} if form == "words" else spans) | {"answer": answer}

    content = json.dumps([row(*kind) for kind in kinds])
    accepted = sum(answer == "accept" for answer, _ in kinds)
    if not accepted:
        with pytest.raises(InputError, match="no row is left"):
            direct(tmp_path / "a.json", content)
        return
    raw = direct(tmp_path / "a.json", content)
    assert raw.table.num_rows == accepted and accepted + left(raw, "rows") == len(json.loads(content))


@SLOW
@given(SENTENCES, st.sampled_from([str, repr, json.dumps, "numpy", "words"]))
def test_every_row_of_a_table(tmp_path: Path, sentences: list[list[str]], form: Any) -> None:
    import csv

    import numpy as np

    file = tmp_path / "a.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sentence_id", "words", "labels"])
        for number, words in enumerate(sentences):
            tags = ["B-X"] * len(words)
            if form == "words":
                writer.writerows([number, word, "B-X"] for word in words)
            elif form == "numpy":
                writer.writerow([number, np.array(words, object), np.array(tags, object)])
            else:
                writer.writerow([number, form(words), form(tags)])
    raw = direct(file, file.read_bytes().decode())
    assert raw.table["tokens"].to_pylist() == sentences
    assert raw.table["tags"].to_pylist() == [["B-X"] * len(words) for words in sentences]


@SLOW
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=5))
def test_every_passage_of_bioc(tmp_path: Path, passages: list[tuple[bool, int]]) -> None:
    mark = '<annotation><infon key="type">X</infon>{}</annotation>'
    inner = "".join(
        f"<passage><offset>{7 * k}</offset>{'<text>é 漢 b</text>' * text}"
        + mark.format(f'<location offset="{7 * k}" length="1"/>') * n + mark.format("") + "</passage>"
        for k, (text, n) in enumerate(passages)
    )  # fmt: skip
    content = f"<collection><document>{inner}</document></collection>"
    texts = sum(text for text, _ in passages)
    if not texts:
        with pytest.raises(InputError, match="no row is left"):
            direct(tmp_path / "a.xml", content)
        return
    raw = direct(tmp_path / "a.xml", content)
    assert raw.table.num_rows == texts and texts + left(raw, "passages") == len(passages)
    spans = sum(map(len, raw.table["tags"].to_pylist()))
    assert spans + left(raw, "annotations") == content.count("<annotation>")


@SLOW
@given(SENTENCES, st.data())
def test_every_line_of_webanno(tmp_path: Path, sentences: list[list[str]], data: st.DataObject) -> None:
    lines = [*WEBANNO.split("\n")[:1], "#T_SP=x.NamedEntity|value", ""]
    parts = 0
    tags = []
    for number, words in enumerate(sentences, 1):
        lines.append("#Text=" + " ".join(words))
        tags.append(
            data.draw(
                st.lists(
                    st.sampled_from(["_", "X", "X[1]", "X|Y[2]"]), min_size=len(words), max_size=len(words)
                )
            )
        )
        for at, (word, tag) in enumerate(zip(words, tags[-1], strict=True), 1):
            tag = tag.replace("1]", f"1{at}]").replace("2]", f"2{at}]")
            lines.append(f"{number}-{at}\t0-1\t" + re.sub(r"([\\|\[\]])", r"\\\1", word) + f"\t{tag}\t")
            if data.draw(st.booleans()):
                lines.append(f"{number}-{at}.1\t0-1\tx\tZ\t")
                parts += 1
        lines.append("")
    raw = direct(tmp_path / "a.tsv", "\n".join(lines))
    assert raw.table["tokens"].to_pylist() == sentences
    assert sum(map(len, sentences)) + left(raw, "parts of words") == sum(line[:1].isdigit() for line in lines)
    found = sum(tag[0] == "B" for row in raw.table["tags"].to_pylist() for tag in row)
    assert found + left(raw, "spans") == sum(
        0 if tag == "_" else tag.count("|") + 1 for row in tags for tag in row
    )


@SLOW
@given(
    st.lists(
        st.sampled_from(
            [
                "T1\tX 0 4\tAnna",
                "T2\tX 0 4;5 9\tAnna Bell",
                "R1\tat Arg1:T1 Arg2:T2",
                "#1\tNote T1\tx",
                "*\tEquiv T1",
                "",
            ]
        )
    )
)
def test_every_line_of_brat(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    raw = direct(tmp_path / "a.ann", "\n".join(lines))
    spans = raw.table["tags"].to_pylist()[0]
    assert len(spans) + left(raw, "relations") + left(raw, "discontinuous") == sum(map(bool, lines))


@SLOW
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).map(sorted), max_size=4) | st.none(),
        min_size=1,
        max_size=5,
    )
)
def test_every_row_of_gliner(tmp_path: Path, rows: list[Any]) -> None:
    spans = [None if row is None else [[*span, "X"] for span in row] for row in rows]
    content = "\n".join(json.dumps({"tokenized_text": WORDS[0], "ner": row}) for row in spans)
    raw = direct(tmp_path / "a.jsonl", content)
    assert raw.table.num_rows == len(rows)
    if any(spans):
        found = sum(tag[0] == "B" for row in raw.table["tags"].to_pylist() for tag in row or ())
        assert found + left(raw, "spans") == sum(len({tuple(span) for span in row}) for row in spans if row)
