"""Files of questions as their authors and tools write them, what is told of them, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft import families
from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.qa import answers
from bert_ft.tools.check import check

Write = Callable[..., Path]

MILL = "The mill of Orta was built by Otto Kern. Otto Kern sold it in 1901."
BELL = "Anna Bell was born in Rome in 1954 and later moved to Bern."
ZH = "奥尔塔磨坊由安娜建于一九五零年，后来搬到伯尔尼城。"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: Any) -> Path:
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8"
        )
        return path

    return write_file


def read(train: Any, **changes: Any) -> Splits:
    sets = overrides.sets(train, train, None)
    task = load_task("qa").override(overrides.changes(sets) | changes)
    return loading.load(task, families.find("qa"), overrides.objects(sets))


def golds(splits: Splits) -> list[tuple[str, list[str], list[int]]]:
    table = splits.train.table
    columns = (table[name].to_pylist() for name in ("id", "answers", "answer_starts"))
    return list(zip(*columns, strict=True))


QAS = [
    {"id": "1", "question": "Who built it?", "answers": [{"text": "Otto Kern", "answer_start": 41}]},
    {"id": "2", "question": "Who sold it?", "answers": [], "is_impossible": True},
]
EXPECTED = [("1", ["Otto Kern"], [41]), ("2", [], [])]
MRQA = [
    {"header": {"dataset": "NewsQA", "split": "dev"}},
    {
        "id": "", "context": MILL, "context_tokens": [["The", 0]],
        "qas": [
            {"qid": "1", "id": "x", "question": "Who built it?", "answers": ["otto kern", "Kern"],
             "detected_answers": [{"text": "Otto Kern", "char_spans": [[41, 49]], "token_spans": [[10, 11]]}]},
            {"qid": "2", "id": "x", "question": "When?", "answers": ["1901"], "detected_answers": []},
        ],
    },
]  # fmt: skip
KORQUAD = {"version": "KorQuAD_2.0_dev", "data": [{"title": "T", "url": "u", "context": MILL, "raw_html": "<p>", "qas": [
    {"id": "1", "question": "Who?", "answer": {"text": "Otto Kern", "answer_start": 41, "html_answer_start": 99, "html_answer_text": "<b>Otto Kern</b>"}}]}]}  # fmt: skip
HAYSTACK = [
    QAS[0],
    QAS[1] | {"answers": [{"text": "", "answer_start": 0, "answer_category": "NOT_GIVEN", "document_id": 7}]},
]
FORMS: dict[str, tuple[str, Any, list[Any]]] = {
    "simpletransformers": ("a.json", [{"context": MILL, "qas": QAS}], EXPECTED),
    "a paragraph a line": ("a.jsonl", [{"context": MILL, "qas": QAS}], EXPECTED),
    "a list of articles": ("a.json", [{"title": "t", "paragraphs": [{"context": MILL, "qas": QAS}]}], EXPECTED),
    "one article": ("a.json", {"title": "t", "paragraphs": [{"context": MILL, "qas": QAS}]}, EXPECTED),
    "rows below data": ("a.json", {"version": 1, "data": [{**qa, "context": MILL} for qa in QAS]}, EXPECTED),
    "Haystack": ("a.json", {"data": [{"paragraphs": [{"context": MILL, "qas": HAYSTACK}]}]}, EXPECTED),
    "impossible, -1": (
        "a.json",
        {"data": [{"paragraphs": [{"context": MILL, "qas": [QAS[0], QAS[1] | {"answers": [{"text": "", "answer_start": -1}]}]}]}]},
        EXPECTED,
    ),
    "MRQA": ("a.jsonl", MRQA, [("1", ["Otto Kern", "Kern"], [41, -1]), ("2", ["1901"], [62])]),
    "KorQuAD 2.0": ("a.json", KORQUAD, [("1", ["Otto Kern"], [41])]),
    "KLUE": (
        "a.json",
        {"data": [{"paragraphs": [{"context": MILL, "qas": [{"guid": "k-1", **{k: v for k, v in QAS[0].items() if k != "id"}}]}]}]},
        [("k-1", ["Otto Kern"], [41])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(write: Write, form: str) -> None:
    name, content, expected = FORMS[form]
    assert golds(read(write(name, content))) == expected


CELLS: list[tuple[Any, Any, list[tuple[str, int | None]] | None]] = [
    ('[{"text": "a", "answer_start": 3}]', None, [("a", 3)]),
    ("[{'text': 'a', 'answer_start': 3}]", None, [("a", 3)]),
    ("{'text': ['a', \"b's\"], 'answer_start': [1, 2]}", None, [("a", 1), ("b's", 2)]),
    ("{'text': array(['a', 'b'], dtype=object), 'answer_start': array([1, 2], dtype=int32)}", None, [("a", 1), ("b", 2)]),
    ("{'text': ['a'], 'answer_start': [np.int64(4)]}", None, [("a", 4)]),
    ("['a', 'b']", "[1, -1]", [("a", 1), ("b", None)]),
    ("[1]", None, [("[1]", None)]),
    ("[sic] so", 7, [("[sic] so", 7)]),
    ("a", 7.0, [("a", 7)]),
    ("a", "7", [("a", 7)]),
    ("a", "", [("a", None)]),
    ("a", float("nan"), [("a", None)]),
    ([{"text": 1992, "answer_start": "5"}], None, [("1992", 5)]),
    ([{"text": 39764.0}], None, [("39764.0", None)]),
    ({"text": [""], "answer_start": [-1]}, None, []),
    ("", None, []),
    (None, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "start", "expected"), CELLS)
def test_cells_of_answers(cell: Any, start: Any, expected: Any) -> None:
    assert answers.pairs(cell, starts=start) == expected


@pytest.mark.parametrize(
    ("cell", "start", "message"),
    [
        ([{"text": "a", "answer_start": 1.5}], None, "answer_start is 1.5, not a whole number"),
        ([{"text": "a", "answer_start": "one"}], None, "answer_start is 'one'"),
        (["a", "b"], 3, "2 answer texts have 1 answer_starts"),
        ("{'text': array(['a' 'b']), 'answer_start': [1, 2]}", None, "texts without commas"),
        ([{"text": True}], None, "an answer is True, not a text"),
    ],
)
def test_cells_that_cant_be_read(cell: Any, start: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answers.pairs(cell, starts=start)


def test_a_start_in_a_column_of_its_own(write: Write) -> None:
    """The answer stands twice, so that its text alone would not say where."""
    path = write(
        "flat.csv", f'id,question,context,answer_text,answer_start\n3,"Who?","{MILL}",Otto Kern,41\n'
    )
    splits = read(path, **{"data.columns": {"answers": "answer_text"}})
    assert golds(splits) == [("3", ["Otto Kern"], [41])]
    assert "answer_start in a column of its own; read (questions 3)" in splits.notes[0]
    path = write(
        "flat.csv",
        f'id,question,context,answers,begin,is_impossible\n3,Who?,"{MILL}",Otto Kern,41,False\n4,Who?,"{MILL}",,,True\n',
    )
    splits = read(path, **{"data.columns": {"answer_start": "begin"}})
    assert golds(splits) == [("3", ["Otto Kern"], [41]), ("4", [], [])]
    rows = [{"id": 5, "question": "Who?", "context": MILL, "answers": "Otto Kern", "answer_start": 30}]
    assert golds(read(rows)) == [("5", ["Otto Kern"], [30])]


def test_rows_whose_answers_differ_in_form(write: Write) -> None:
    """Which one column can't hold as they stand."""
    forms = [
        "Rome",
        ["Rome"],
        {"text": ["Rome"], "answer_start": [22]},
        [{"text": 1954, "answer_start": "30"}],
    ]
    rows = [{"id": str(i), "question": "?", "context": BELL, "answers": form} for i, form in enumerate(forms)]
    splits = read(write("a.jsonl", rows))
    assert golds(splits) == [(str(i), ["Rome"], [22]) for i in range(3)] + [("3", ["1954"], [30])]
    assert any("1 answers are numbers" in note and "(questions 3)" in note for note in splits.notes)


def test_cmrc_2018_in_both_forms(write: Write) -> None:
    """Answers that are numbers, -1 for no place, and an empty question."""
    qas = [
        ("D_0", "谁建的？", ["安娜", "安娜"]),
        ("D_1", "多少年？", ["一九五零年", 39764.0]),
        ("D_2", "", ["伯尔尼城"]),
    ]
    own = [
        {"context_id": "D", "context_text": ZH, "title": "t",
         "qas": [{"query_id": key, "query_text": text, "answers": texts} for key, text, texts in qas]}
    ]  # fmt: skip
    start = {"安娜": 6, "一九五零年": 10, "伯尔尼城": -1}
    like = {"version": "v1.0", "data": [{"id": "D", "title": "t", "paragraphs": [{"id": "D", "context": ZH, "qas": [
        {"id": key, "question": text, "answers": [{"text": str(a), "answer_start": start.get(str(a), -1)} for a in texts]}
        for key, text, texts in qas]}]}]}  # fmt: skip
    expected = [
        ("D_0", ["安娜", "安娜"], [6, 6]),
        ("D_1", ["一九五零年", "39764.0"], [10, -1]),
        ("D_2", ["伯尔尼城"], [20]),
    ]
    one, two = read(write("own.json", own)), read(write("like.json", like))
    assert golds(one) == golds(two) == expected
    notes = [note for note in one.notes if note.startswith("train")]
    assert any("1 answers are numbers, not texts" in note and "(questions D_1)" in note for note in notes)
    assert any("1 questions are empty texts; kept" in note and "(questions D_2)" in note for note in notes)
    assert any(
        "answers have no answer_start; found" in note and "(questions D_2)" in note for note in two.notes
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", [MRQA[0]], "there is no question in it"),
        ("a.json", {"data": [{"title": "t"}]}, "no 'paragraphs'|no key"),
        (
            "a.json",
            [{"context": MILL, "qas": [{**QAS[0], "is_impossible": True}]}],
            "leave its answers empty",
        ),
        ("a.json", [{"question": "?", "context": MILL, "answer": "x"}], "SQuAD's form is data, paragraphs"),
        ("a.json", "", "the file is empty"),
        ("a.jsonl", "\n", "the file is empty"),
    ],
)
def test_messages_name_the_form(write: Write, name: str, content: Any, message: str) -> None:
    if content == "\n":
        path = write("x", content).rename(write("x", "").parent / name)
        path.write_text("\n")
    else:
        path = write(name, content)
    with pytest.raises(InputError, match=message):
        read(path)


# --- the built-in tasks' own files

BUILTIN = {
    "squad": ["train-v1.1.json", "dev-v1.1.json"],
    "squad_v2": ["train-v2.0.json", "dev-v2.0.json"],
    "squadshifts_new_wiki": ["new_wiki_v1.0.json"],
    "squadshifts_nyt": ["nyt_v1.0.json"],
    "squadshifts_reddit": ["reddit_v1.0.json"],
    "squadshifts_amazon": ["amazon_reviews_v1.0.json"],
    "xquad": ["xquad.en.json"],
    "policy_qa": ["train.json", "dev.json", "test.json"],
    "drcd": ["DRCD_training.json", "DRCD_dev.json", "DRCD_test.json"],
    "cmrc2018": ["cmrc2018_train.json", "cmrc2018_dev.json"],
    "covid_qa": ["COVID-QA.json"],
}
"""Task -> the files of its authors' distribution."""


def test_every_task_is_listed() -> None:
    folder = Path(str(bert_ft.__file__)).parents[1] / "tasks" / "qa"
    tasks = {path.stem for path in folder.glob("*.toml") if ".references" not in path.name}
    assert tasks == {*BUILTIN, "almanac"}


@pytest.mark.parametrize("name", BUILTIN)
def test_tasks_read_their_authors_files(write: Write, tmp_path: Path, name: str) -> None:
    for number, file in enumerate(BUILTIN[name]):
        paragraphs = [
            {"context": f"{MILL} {n}", "document_id": n,
             "qas": [{"id": f"{number}-{n}", "question": "Who?", "answers": [{"id": "1", "text": "Otto Kern", "answer_start": 41}],
                      "is_impossible": False}]}
            for n in range(10)
        ]  # fmt: skip
        write(f"files/{file}", {"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]})
    task = load_task(name).override({"run.data_dir": str(tmp_path / "files")})
    splits = loading.load(task, families.find("qa"), training=bool(task.data.train))
    held_out = 1 if name == "covid_qa" else 0
    sizes = [len(rows) for rows in ([splits.train] if task.data.train else []) + [*splits.evaluation.values(), *splits.test.values()]]  # fmt: skip
    assert sum(sizes) == 10 * len(BUILTIN[name]) and len(sizes) == len(BUILTIN[name]) + held_out


# --- what is held out, and what is told


def shared(contexts: int, each: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{c}-{q}", "question": f"Which mill is {q}?", "context": f"Mill {c} is mill {c}.", "answers": ["mill"]}
        for c in range(contexts)
        for q in range(each)
    ]  # fmt: skip


def test_whole_contexts_are_held_out(write: Write) -> None:
    path = write("a.jsonl", shared(8, 3))
    report = check("qa", train=path, validation="25%")
    assert report.sets["validation"]["rows"] == 6 and not [
        f for f in report.findings if f.check == "contexts"
    ]
    assert any("held out (25%, by context" in note for note in report.notes)
    report = check("qa", train=path, validation="25%", **{"data.group": "id"})
    found = next(f for f in report.findings if f.check == "contexts")
    assert (found.severity, found.set, found.count) == (
        "warning",
        "validation",
        report.sets["validation"]["rows"],
    )
    assert found.phrase.startswith("rows whose context stands in train too: --set group=context")


def test_one_context_alone_names_the_way_out(write: Write) -> None:
    path = write("a.jsonl", shared(1, 8))
    with pytest.raises(InputError, match="--set group=id"):
        check("qa", train=path, validation="25%")
    assert check("qa", train=path, validation="25%", **{"data.group": "id"}).sets["validation"]["rows"] == 2


def test_what_training_refuses_or_allows_check_does_too(write: Write) -> None:
    rows = shared(4, 2)
    rows[1]["question"] = " "
    dev = write("dev.jsonl", shared(2, 2))
    report = check("qa", train=write("a.jsonl", rows), validation=dev)
    assert [f.severity for f in report.findings if f.check == "empty"] == ["note"]
    settings = {"qa.no_answer": True, "metric.compute": ["korquad_f1"], "metric.best": "korquad_f1"}
    faults = [
        f
        for f in check("qa", train=write("b.jsonl", rows), validation=dev, **settings).findings
        if f.severity == "fault"
    ]
    assert len(faults) == 1 and "korquad_f1" in faults[0].message


@pytest.mark.parametrize("start", ["-1", "-1.0"])
def test_an_empty_answer_at_no_place_is_none(write: Write, start: str) -> None:
    text = (
        f'id,question,context,answers,answer_start\n1,Who?,"{MILL}",Otto Kern,41\n2,Why?,"{MILL}",,{start}\n'
    )
    assert golds(read(write("flat.csv", text), **{"qa.no_answer": True}))[1] == ("2", [], [])


def test_files_that_share_contexts_are_told(write: Write) -> None:
    rows = shared(4, 3)
    train, dev = write("a.jsonl", rows[:8]), write("b.jsonl", rows[8:])
    found = next(f for f in check("qa", train=train, validation=dev).findings if f.check == "contexts")
    assert found.count == 1 and "validation 10%" in found.message


def test_a_task_of_an_earlier_run_keeps_its_rows(write: Write) -> None:
    """Its task.toml says nothing of a group, and the rows were held out one by one."""
    sets = overrides.sets(write("a.jsonl", shared(8, 3)), "25%", None)
    old = load_task("qa").override(overrides.changes(sets))
    splits = loading.load(old, families.find("qa"))
    assert old.data.group is None and "group" not in splits.train.table.column_names
    contexts = [
        set(part.table["context"].to_pylist()) for part in (splits.train, splits.evaluation["validation"])
    ]
    assert contexts[0] & contexts[1]
    new = loading.with_group(old, families.find("qa"))
    assert new.data.group == "context" and new.dump()["data"]["group"] == "context"
    rows = loading.load(old.override({"data.group": "id"}), families.find("qa"))
    held = [part.evaluation["validation"].table["id"].to_pylist() for part in (splits, rows)]
    assert held[0] == held[1], "--set group=id holds out what was held out before"


def test_an_earlier_run_is_evaluated_on_what_it_held_out(
    write: Write, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.jsonl", shared(8, 3))
    folder = tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr(families.find("qa"), "group_by", None)
        run = bert_ft.finetune(
            "qa",
            str(tiny_checkpoint),
            train=path,
            validation="25%",
            output=folder,
            max_steps=1,
            max_length=40,
        )
    assert "group" not in run.task.dump()["data"]
    assert bert_ft.Run(folder).evaluate()["validation"] == pytest.approx(run.metrics["validation"])


def rows_of(tokens: int, count: int = 3, filler: int = 5) -> list[dict[str, Any]]:
    answer = " ".join(["film"] * (tokens - 1) + ["heart"])
    around = " ".join(["the"] * filler)
    return [
        {"id": f"q{i}", "question": "what ?", "context": f"{around} {answer} {around}", "answers": [answer]}
        for i in range(count)
    ]


@pytest.mark.parametrize("tokens", [9, 12])
def test_answers_longer_than_the_limit_are_told(tiny_checkpoint: Path, tokens: int) -> None:
    settings = {"qa.max_answer_length": 8, "max_length": 64}
    rows = [*rows_of(tokens), {"id": "ok", "question": "what ?", "context": "a film", "answers": ["film"]}]
    report = check("qa", str(tiny_checkpoint), train=rows, validation=rows, **settings)
    found = [f for f in report.findings if f.check == "lengths"]
    assert [(f.set, f.count, f.severity) for f in found] == [("validation", 3, "warning")]
    assert found[0].message.endswith("they can't be answered right; --set qa.max_answer_length=16")
    assert found[0].examples[0] == f"question 'q0': {tokens} tokens"
    report = check(
        "qa", str(tiny_checkpoint), train=rows, validation=rows, **settings | {"qa.max_answer_length": tokens}
    )
    assert not [f for f in report.findings if f.check == "lengths"], (
        "an answer of just that many tokens is fine"
    )


def test_answers_in_no_window_are_told(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*rows_of(40), {"id": "ok", "question": "what ?", "context": "a film", "answers": ["film"]}]
    run = bert_ft.finetune(
        "qa",
        str(tiny_checkpoint),
        train=rows,
        validation=rows,
        output=tmp_path / "run",
        max_steps=1,
        max_length=32,
    )
    said = capsys.readouterr().err
    cut = "3 of 4 questions have only answers that are whole in no window of max_length = 32 tokens"
    assert (
        "train: 3 of 4 questions have an answer that is whole in no window of max_length = 32 tokens" in said
    )
    assert said.count(cut) == 1 and "--set max_length=128 --set qa.max_answer_length=40, where" in said
    assert any(cut in note for note in run.results["notes"])
    run.evaluate(rows)
    assert f"validation: {cut}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "metric"),
    [(["安娜", "一九五零年"], "cmrc"), (["ปารีส", "กรุงเทพ"], "drcd"), (["東京タワー", "ひらがな"], "drcd")],
)
def test_answers_without_white_space_are_told(texts: list[str], metric: str) -> None:
    rows = [
        {"id": str(i), "question": "?", "context": f"{text} {i}", "answers": [text]}
        for i, text in enumerate(texts)
    ]
    other = [{"id": "x", "question": "?", "context": "other", "answers": ["other"]}]
    found = [f for f in check("qa", train=other, validation=rows).findings if f.check == "spaces"]
    assert [f.count for f in found] == [2]
    assert (
        f'f1 is exact_match here; --set \'metric.compute=["{metric}_f1", "{metric}_exact_match"]\''
        in found[0].message
    )
    settings = {"metric.compute": [f"{metric}_f1"]}
    assert not [
        f for f in check("qa", train=other, validation=rows, **settings).findings if f.check == "spaces"
    ]
    assert not [f for f in check("qa", train=other, validation=other).findings if f.check == "spaces"]


# --- nothing is lost: a count of its own

TEXTS = st.text(st.sampled_from("ab \"'\n,中1["), min_size=1, max_size=6).filter(str.strip)
QUESTION = st.fixed_dictionaries(
    {
        "question": TEXTS,
        "answers": st.lists(
            st.fixed_dictionaries({"text": TEXTS, "answer_start": st.integers(-1, 9)}), max_size=2
        ),
    }
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    paragraphs=st.lists(st.tuples(TEXTS, st.lists(QUESTION, max_size=3)), min_size=1, max_size=4),
    form=st.sampled_from(["squad", "list", "lines", "flat"]),
)
def test_every_question_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: Any, form: str
) -> None:
    numbers = iter(range(100))
    tree = [
        {"context": context, "qas": [{"id": str(next(numbers)), **qa} for qa in qas]}
        for context, qas in paragraphs
    ]
    asked = [(qa["id"], qa["question"], p["context"], len(qa["answers"])) for p in tree for qa in p["qas"]]
    path = tmp_path_factory.mktemp("forms") / ("a.jsonl" if form in ("lines", "flat") else "a.json")
    flat = [{**qa, "context": p["context"]} for p in tree for qa in p["qas"]]
    content = {"squad": {"data": [{"paragraphs": tree}]}, "list": tree, "lines": tree, "flat": flat}[form]
    lines = (
        "".join(json.dumps(item) + "\n\n" for item in content)
        if form in ("lines", "flat")
        else json.dumps(content)
    )
    path.write_text(lines, encoding="utf-8")
    if not asked:
        with pytest.raises(InputError, match=r"no question|the file is empty"):
            read(path)
        return
    table = read(path).train.table
    columns = (table[name].to_pylist() for name in ("id", "question", "context", "answers"))
    assert [(key, q, c, len(golds)) for key, q, c, golds in zip(*columns, strict=True)] == asked
