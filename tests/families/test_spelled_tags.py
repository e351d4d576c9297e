"""Tags in another spelling than B-PER: what is read, what is warned of, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics.sequence_labeling import get_entities

import bert_ft
from bert_ft.data import loading
from bert_ft.data.finding import Finding
from bert_ft.errors import InputError
from bert_ft.families.ner.adapter import Ner

Lists = list[list[str]]


def read(rows: Lists, **keys: Any) -> tuple[Lists, list[str], list[Finding]]:
    table = [{"tokens": [f"w{k}" for k in range(len(tags))], "tags": tags} for tags in rows]
    task = bert_ft.load_task("ner").override({key.replace("__", "."): value for key, value in keys.items()})
    splits = loading.load(task, Ner, {"train": table, "validation": table})
    notes = [note.removeprefix("train: ") for note in splits.notes if note.startswith("train: ")]
    findings = [*splits.findings, *Ner(task).checks(splits.all())]
    return splits.train.table["tags"].to_pylist(), notes, [f for f in findings if f.set == "train"]


@pytest.mark.parametrize(("rows", "expected", "note"), [
    ([["B_PER", "I_PER", "O"], ["B_LOC"]], [["B-PER", "I-PER", "O"], ["B-LOC"]], "tags are PREFIX_TYPE (B_PER), read as B-PER"),
    ([["PER-B", "PER-I", "O", "LOC-B"]], [["B-PER", "I-PER", "O", "B-LOC"]], "tags are TYPE-PREFIX (PER-B), read as B-PER"),
    ([["PER_B", "PER_I", "-", "LOC_B"]], [["B-PER", "I-PER", "O", "B-LOC"]], "'-' is read as O"),
    ([["b-per", "o", "b-loc"]], [["B-per", "O", "B-loc"]], "'o' is read as O"),
    ([["S.PER", "O", "B.LOC", "E.LOC"]], [["B-PER", "O", "B-LOC", "I-LOC"]], "tags are PREFIX.TYPE (S.PER), read as S-PER"),
    ([["BPER", "IPER", "O", "BLOC"]], [["B-PER", "I-PER", "O", "B-LOC"]], "tags are PREFIXTYPE (BPER), read as B-PER"),
    ([["I_LOC", "I_LOC", "O", "I_PER"]], [["B-LOC", "I-LOC", "O", "B-PER"]], "tags are IO, read as IOB2"),
    ([["(PERSON*", "*", "*)", "*", "(GPE)"], ["*"]], [["B-PERSON", "I-PERSON", "I-PERSON", "O", "B-GPE"], ["O"]],
     "tags are brackets ((PERSON*), read as IOB2"),
    ([["*", "*"]], [["O", "O"]], "'*' is read as O"),
    ([["AT", "(", "NN", ")", "*"]], [["B-AT", "B-(", "B-NN", "B-)", "O"]], "'*' is read as O"),
    # real types, with a hyphen, an underscore or a letter for their name
    ([["B-creative-work", "I-creative-work", "O"]], [["B-creative-work", "I-creative-work", "O"]], "tags are IOB2"),
    ([["B_cell", "T_cell", "O", "e-mail"]], [["B-B_cell", "B-T_cell", "O", "B-e-mail"]], "tags are IO, read as IOB2"),
    ([["P", "I", "I", "O", "C"]], [["B-P", "B-I", "I-I", "O", "B-C"]], "tags are IO, read as IOB2"),
    ([["per", "per", "o"]], [["B-per", "I-per", "O"]], "tags are IO, read as IOB2"),
    ([["B", "I", "O"]], [["B-_", "I-_", "O"]], "tags are IOB2"),
])  # fmt: skip
def test_one_reading_makes_sense(rows: Lists, expected: Lists, note: str) -> None:
    got, notes, findings = read(rows)
    assert got == expected and not findings
    assert any(each.startswith(note) for each in notes), notes


@pytest.mark.parametrize(("rows", "told"), [
    ([["B_cell", "B_cell", "O"]], 'tags perhaps written PREFIX_TYPE.*ner.spelling = "PREFIX_TYPE"'),
    ([["B_PER", "I_PER", "DATE", "O"]], "tags perhaps written PREFIX_TYPE"),
    ([["vitamin-B", "vitamin-E", "O", "vitamin-B"]], "tags perhaps written TYPE-PREFIX"),
    ([["Begin-PER", "Inside-PER", "O"]], 'label_names = { "Begin-PER" = "B-PER"'),
    ([["PER B", "PER I", "O"]], 'label_names = { "PER B" = "B-PER"'),
    ([["S", "O", "S"]], 'if they are types, ner.spelling = "TYPE"'),
    ([["what", "comedy", "films"], ["star"]], "more types than there are different words: are --tokens and --tags swapped"),
    ([["PER", "OTHER", "OTHER"]], 'none of them O: if .OTHER. is for words outside, data.label_names = { "OTHER" = "O" }'),
    ([["O", *(f"t{k}" for k in range(12))]], "nearly as many types"),
])  # fmt: skip
def test_what_may_be_meant_is_told(rows: Lists, told: str) -> None:
    _, _, findings = read(rows)
    (found,) = findings
    assert found.severity == "warning" and re.search(told, found.message)


@pytest.mark.parametrize("tags", [
    "DET NOUN VERB ADP DET NOUN PUNCT",
    "ART NN VVFIN APPR ART NN $. $, PRELS",
    "DT NNP `` '' -LRB- -RRB- $ CD , . : PRP$",
    "ADJ X SYM",
])  # fmt: skip
def test_parts_of_speech_are_tags_like_others(tags: str) -> None:
    """No word is outside there, and nothing is wrong with that."""
    got, _, findings = read([tags.split(), tags.split()[:2]])
    assert not findings
    assert [tag[2:] for tag in got[0]] == tags.split()


@pytest.mark.parametrize(("train", "other", "expected"), [
    (["B_PER", "I_PER", "O", "B_LOC"], ["B_PER", "O"], ["B-PER", "O"]),
    (["B_PER", "I_PER", "O", "B_LOC"], ["B_LOC", "B_LOC", "-"], ["B-LOC", "B-LOC", "O"]),
    (["PER-B", "PER-I", "O", "LOC-B"], ["O", "LOC-B", "PER-I"], ["O", "B-LOC", "B-PER"]),
    (["BPER", "IPER", "O", "BLOC"], ["BLOC", "O"], ["B-LOC", "O"]),
    (["B-PER", "I-PER", "O"], ["B_PER", "O"], ["B-PER", "O"]),
    (["B_cell", "T_cell", "cell", "O"], ["B_cell", "O"], ["B-B_cell", "O"]),
])  # fmt: skip
def test_types_of_the_training_tell_the_spelling(
    train: list[str], other: list[str], expected: list[str]
) -> None:
    """A set may have too few tags to tell it; the types are known from training."""
    sets = {
        name: [{"tokens": ["w"] * len(tags), "tags": tags}]
        for name, tags in (("train", train), ("validation", other))
    }
    task = bert_ft.load_task("ner")
    splits = loading.load(task, Ner, sets)
    adapter = Ner(task, Ner.find_labels(splits.train, task))
    rows = splits.evaluation["validation"]
    assert not [*adapter.checks(splits.all())]
    adapter.check("validation", rows)
    assert rows.table["tags"].to_pylist() == [expected]


def test_the_keys_that_are_named() -> None:
    rows = [["B_cell", "B_cell", "O"]]
    assert read(rows, ner__spelling="TYPE")[::2] == ([["B-B_cell", "I-B_cell", "O"]], [])
    assert read(rows, ner__spelling="PREFIX_TYPE")[::2] == ([["B-cell", "B-cell", "O"]], [])
    assert read([["B", "I", "PER", "O"]], ner__spelling="TYPE")[0] == [["B-B", "B-I", "B-PER", "O"]]
    assert read([["PER", "OTHER"]], data__label_names={"OTHER": "O"})[::2] == ([["B-PER", "O"]], [])
    with pytest.raises(InputError, match="word 1: tag 'x' is not TYPE-PREFIX"):
        read([["x", "O"]], ner__spelling="TYPE-PREFIX")


@pytest.mark.parametrize(("tags", "message"), [
    (["(A*", "*", "*"], "word 3: the bracket of a 'A' is not closed"),
    (["*)", "(A)"], "word 1: the bracket '*)' closes what none opened"),
    (["(A*", "(B)"], "word 2: the bracket '(B)' opens within another"),
    (["((A*", "*)"], "word 1: the tag '((A*' can't be read"),
    (["B-PER", "x", "O"], 'data.label_names = { "x" = "O" }'),
])  # fmt: skip
def test_refused(tags: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        read([tags])
    assert message in str(error.value)


@pytest.mark.parametrize(("usual", "stray", "scheme"), [
    (["I-PER", "I-PER", "O", "I-LOC", "B-LOC", "O"], ["B-PER", "O", "B-LOC"], "IOB1"),
    (["B-PER", "I-PER", "O", "B-LOC", "B-LOC"], ["S-PER", "O", "I-LOC"], "IOB2"),
    (["B-PER", "E-PER", "O", "S-LOC"], ["U-PER", "O", "I-LOC"], "BIOES"),
    (["I-PER", "E-PER", "I-PER", "O", "I-LOC"], ["E-LOC", "O", "B-PER"], "IOE1"),
    (["I-PER", "E-PER", "E-PER", "O", "E-LOC"], ["I-LOC", "O", "B-PER"], "IOE2"),
])  # fmt: skip
def test_a_few_stray_tags_do_not_hide_the_scheme(usual: list[str], stray: list[str], scheme: str) -> None:
    got, notes, _ = read([usual] * 200 + [stray])
    assert any(scheme in note for note in notes if note.startswith("tags are"))
    assert any(note.startswith(f"2 tags break {scheme} ") and "row 201" in note for note in notes), notes
    assert read([usual] * 200)[0] == got[:200]


def test_ioe_is_read_as_its_entities() -> None:
    """Against seqeval, which knows both."""
    from seqeval.scheme import IOE1, IOE2, Entities

    for rows, scheme in (([["I-A", "E-A", "I-A", "O", "I-A"], ["I-B", "I-B"]], IOE1),
                         ([["I-A", "E-A", "E-A", "O", "E-A"], ["I-B", "E-B"]], IOE2)):  # fmt: skip
        for keys in ({}, {"ner__scheme": scheme.__name__}):
            got, notes, _ = read(rows, **keys)
            assert notes == [f"tags are {scheme.__name__}, read as IOB2"]
            expected = [
                [(e.tag, e.start, e.end - 1) for e in found]
                for found in Entities(rows, scheme=scheme).entities
            ]
            assert [get_entities(tags) for tags in got] == expected


def test_a_word_with_its_place_behind_it(tmp_path: Path) -> None:
    """Weibo's own files: the place of a character in its word is no part of it."""
    for name in ("train", "dev", "test"):
        text = "我0\tB-PER.NOM\n们1\tI-PER.NOM\n200\tO\n\n一0\tO\n"
        (tmp_path / f"weiboNER_2nd_conll.{name}").write_text(text, encoding="utf-8")
    splits = loading.load(bert_ft.load_task("weibo_ner").override({"run.data_dir": str(tmp_path)}), Ner)
    assert splits.train.table["tokens"].to_pylist() == [["我", "们", "20"], ["一"]]
    assert "train: 4 of 4 words end in [0-9], which these files add and is cut off" in splits.notes
