"""Question answering from end to end: training, evaluating and answering from the command line, and bad input."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft import families
from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.qa import golds

Write = Callable[..., Path]

FILM = "a warm and funny film with a brave heart , and one of the finest pictures of the year"
PLAY = "the plot is dull and the jokes fall flat ; she plays the part with grace and wit"
FACTS = [
    ("what is warm ?", FILM, "funny film"),
    ("what is brave ?", FILM, "heart"),
    ("one of what ?", FILM, "the finest pictures of the year"),
    ("what is dull ?", PLAY, "the plot"),
    ("how do the jokes fall ?", PLAY, "flat"),
    ("with what does she play ?", PLAY, "grace and wit"),
]


def articles(no_answer: bool = False, copies: int = 3) -> dict[str, Any]:
    """SQuAD JSON of these questions, `copies` times with other ids; every second copy asks what has no answer."""
    out = []
    for n in range(copies):
        paragraphs = []
        for context in (FILM, PLAY):
            qas: list[dict[str, Any]] = [
                {"id": f"{n}-{i}", "question": q, "answers": [{"text": a, "answer_start": c.index(a)}] * 2}
                for i, (q, c, a) in enumerate(FACTS)
                if c == context
            ]
            if no_answer:
                qas += [
                    {
                        "id": f"{n}-{context[:6]}-none",
                        "question": "who drags on ?",
                        "answers": [],
                        "is_impossible": True,
                    }
                ]
            paragraphs.append({"context": context, "qas": qas})
        out.append({"title": f"article {n}", "paragraphs": paragraphs})
    return {"version": "v2.0" if no_answer else "1.1", "data": out}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_json(name: str, tree: Any) -> Path:
        text = "".join(json.dumps(row) + "\n" for row in tree) if name.endswith("l") else json.dumps(tree)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_json


FEW = ["--max-length", "40", "--set", "doc_stride=8", "--set", "max_answer_length=8", "--set", "dropout=0.0"]


def test_train_on_squad_files_without_a_task_file(cli: Any, write: Write, tiny_checkpoint: Path) -> None:
    train, dev = write("train.json", articles()), write("dev.json", articles(copies=1))
    command = ["train", "qa", "--train", train, "--validation", dev, "-c", tiny_checkpoint, "-o", "run", *FEW]
    done = cli(*command, "--lr", "3e-3", "--epochs", "30", "--batch-size", "8", "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert set(results["metrics"]["validation"]) == {"f1", "exact_match"}
    assert results["metrics"]["validation"]["f1"] > 60, "what it was trained on; untrained 5"
    assert results["counts"]["validation"]["rows"] == 6 and results["counts"]["train"]["rows"] == 18
    run = bert_ft.load("run")
    lines = run.predictions()
    assert [line["id"] for line in lines] == [f"0-{i}" for i in range(6)], "each question once, in order"
    for line, (_, context, _) in zip(lines, FACTS, strict=True):
        assert line["prediction"] == context[line["start"] : line["end"]]
    files = {
        kind: json.loads(Path(f"run/predictions/validation.{kind}.json").read_text())
        for kind in ("official", "nbest")
    }
    assert files["official"] == {line["id"]: line["prediction"] for line in lines}
    assert all(best[0]["text"] == files["official"][key] for key, best in files["nbest"].items())
    assert all(
        sum(item["probability"] for item in best) == pytest.approx(1) for best in files["nbest"].values()
    )

    again = cli("evaluate", "run", "--json")  # of the saved model, in a fresh load
    assert json.loads(again.out)["validation"] == pytest.approx(results["metrics"]["validation"], abs=1e-9)
    model = bert_ft.load("run/model")
    for line, (question, context, _) in zip(lines, FACTS, strict=True):
        answer = model(question, context)
        assert answer == {key: pytest.approx(line[key]) if key == "score" else line[key] for key in answer}
        assert set(answer) == {"prediction", "start", "end", "score"}
    several = [{"id": "x", "question": FACTS[0][0], "context": FILM}, FACTS[3][:2]]
    assert [answer.get("id") for answer in model.predict(several)] == ["x", None]
    with pytest.raises(InputError, match=r"input 2: no context in it: a \(question, context\) is wanted"):
        model.predict([("a ?", FILM), ("a ?", " ")])

    rows = [{"id": 7, "question": "a ?", "context": FILM}, {"id": 8, "question": "a ?", "context": ""}]
    done = cli("predict", "run", write("rows.jsonl", [*rows, {"question": "a ?", "context": PLAY}]))
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 2 and "rows.jsonl, line 2: no context in it" in done.err, (
        "told, and the others are answered"
    )
    assert [answer.get("id") for answer in answers] == [7, None] and all(
        "prediction" in answer for answer in answers
    )


def test_no_answer_from_file_to_saved_threshold(cli: Any, write: Write, tiny_checkpoint: Path) -> None:
    path = write("all.json", articles(no_answer=True, copies=5))
    command = [
        "train",
        "qa",
        "--train",
        path,
        "--validation",
        "20%",
        "-c",
        tiny_checkpoint,
        "-o",
        "run",
        *FEW,
    ]
    command += [
        "--set",
        "group=title",
        "--set",
        "no_answer=true",
        "--set",
        "dropout=0.0",
        "--lr",
        "3e-3",
        "--epochs",
        "20",
        "--batch-size",
        "8",
    ]
    done = cli(*command, "--json")
    assert done.code == 0, done.err
    assert "training rows held out (20%, by title" in done.err
    metrics = json.loads(done.out)["metrics"]["validation"]
    names = [
        "f1",
        "exact_match",
        "HasAns_f1",
        "NoAns_f1",
        "best_f1",
        "best_f1_thresh",
        "tuned_f1",
        "tuned_exact_match",
    ]
    assert set(names) <= set(metrics)
    assert metrics["tuned_f1"] == pytest.approx(metrics["best_f1"]), (
        "the threshold does what the sweep promised"
    )
    assert metrics["best_f1"] >= metrics["f1"] - 1e-9
    config = json.loads(Path("run/model/config.json").read_text())["bert_ft"]
    assert (
        config["task"]["qa"]["no_answer"] and config["tuned"]["null_threshold"] == metrics["best_f1_thresh"]
    )
    odds = json.loads(Path("run/predictions/validation.null_odds.json").read_text())
    model = bert_ft.load("run/model")
    for line in bert_ft.load("run").predictions():
        assert (line["prediction"] == "") == (odds[line["id"]] > config["tuned"]["null_threshold"])
        assert (line["start"] is None) == (line["prediction"] == "") and 0 < line["score"] <= 1
    assert isinstance(model("who drags on ?", FILM)["prediction"], str)
    assert json.loads(cli("evaluate", "run", "--json").out)["validation"] == pytest.approx(metrics, abs=1e-6)


def test_a_task_of_test_sets_alone_is_evaluated(cli: Any, write: Write, tiny_checkpoint: Path) -> None:
    train = write("train.json", articles())
    command = [
        "train",
        "qa",
        "--train",
        train,
        "--validation",
        train,
        "-c",
        tiny_checkpoint,
        "-o",
        "run",
        "--max-steps",
        "2",
    ]
    assert cli(*command, *FEW).code == 0
    write("nyt_v1.0.json", articles(copies=1))
    done = cli(
        "evaluate",
        "run/model",
        "--task",
        "squadshifts_nyt",
        "--data-dir",
        ".",
        *FEW[2:],
        "--set",
        "max_length=40",
        "--json",
    )
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["validation"]) == {"f1", "exact_match"}
    refused = cli("train", "squadshifts_nyt", "-c", tiny_checkpoint)
    assert refused.code == 2 and "the task has no training split" in refused.err


@pytest.mark.slow
def test_two_processes_answer_every_question_once(
    write: Write, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train = write("train.json", articles())
    runs = []
    for processes in (1, 2):
        launch = [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--master_port",
            str(29900 + os.getpid() % 90),
        ]
        command = [sys.executable, *launch * (processes > 1), "-m", "bert_ft", "train", "qa", "--train", str(train),
                   "--validation", str(train), "-c", str(tiny_checkpoint), "-o", f"run{processes}", "--max-steps", "4",
                   "--batch-size", "6", "--max-length", "24", *FEW[2:]]  # fmt: skip
        settings = {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append(bert_ft.load(tmp_path / f"run{processes}").predictions())
    one, two = runs
    assert [line["id"] for line in two] == [f"{n}-{i}" for n in range(3) for i in range(6)]
    for mine, other in zip(one, two, strict=True):
        assert mine == {**other, "score": pytest.approx(other["score"], rel=1e-3)}


# --- rows, however they are written -----------------------------------------------------------------------------------


def read(train: Any, **changes: Any) -> Splits:
    sets = overrides.sets(train, train, None)
    task = load_task("qa").override(overrides.changes(sets) | changes)
    return loading.load(task, families.find("qa"), overrides.objects(sets))


def test_one_table_whatever_the_form(write: Write, tmp_path: Path) -> None:
    tree = articles(no_answer=True, copies=1)
    flat = [
        {"id": qa["id"], "question": qa["question"], "context": p["context"], "answers": qa["answers"]}
        for p in tree["data"][0]["paragraphs"]
        for qa in p["qas"]
    ]
    hub = [
        {**row, "answers": {k: [a[k] for a in row["answers"]] for k in ("text", "answer_start")}}
        for row in flat
    ]
    texts = [{**row, "answers": [a["text"] for a in row["answers"]]} for row in flat]
    cmrc = [
        {"context_id": "c", "context_text": p["context"], "title": "t", "qas": [
            {"query_id": qa["id"], "query_text": qa["question"], "answers": [a["text"] for a in qa["answers"]]}
            for qa in p["qas"]]}
        for p in tree["data"][0]["paragraphs"]
    ]  # fmt: skip
    import pandas
    import pyarrow.parquet

    cells = pandas.DataFrame([{**row, "answers": json.dumps(row["answers"])} for row in flat])
    cells.to_csv(tmp_path / "flat.csv", index=False)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(hub), tmp_path / "hub.parquet")
    forms = [write("squad.json", tree), write("flat.json", flat), write("flat.jsonl", flat), write("hub.jsonl", hub),
             tmp_path / "flat.csv", tmp_path / "hub.parquet", hub, write("texts.jsonl", texts), write("cmrc.json", cmrc)]  # fmt: skip
    sets = [read(form) for form in forms]
    tables = [splits.train.table for splits in sets]
    columns = ["id", "question", "context", "answers", "answer_starts"]
    assert all(table.select(columns).equals(tables[0].select(columns)) for table in tables), (
        "answers without a place are found where they are"
    )
    titles = [table["article"].to_pylist()[0] for table in tables if "article" in table.column_names]
    named = [part["title"] for part in tree["data"][:1] if "title" in part]
    assert titles == [*named, "t"], "of the files that have some"
    assert len({splits.fingerprint() for splits in sets}) == 1, "a title is no part of the data"
    assert (
        tables[0]["answers"].to_pylist()[0] == ["funny film"] * 2
        and tables[0]["answers"].to_pylist()[-1] == []
    )


def test_wrong_places_are_mended_where_that_is_safe(write: Write) -> None:
    """Only where the text occurs once; all of it is told, by id; what is lost still scores and is not trained on."""
    tree = articles(copies=1)
    film, play = tree["data"][0]["paragraphs"]
    film["qas"][0]["answers"] = [{"text": "funny film", "answer_start": 3}]
    film["qas"][1]["answers"] = [{"text": "a", "answer_start": 1}]  # stands there several times
    play["qas"][0]["answers"] = [{"text": "a car", "answer_start": 0}, {"text": "dull", "answer_start": 12}]
    splits = read(write("wrong.json", tree))
    assert (
        splits.notes[0].startswith("train: 1 answers had a wrong answer_start; mended")
        and "(questions 0-0)" in splits.notes[0]
    )
    assert (
        "train: 2 answers are not where they should be" in splits.notes[1]
        and "(questions 0-1, 0-3)" in splits.notes[1]
    )
    rows = splits.train
    assert rows.table["answer_starts"].to_pylist()[0] == [FILM.index("funny film")]
    assert rows.table["answer_starts"].to_pylist()[1] == [-1]
    assert rows.table["answer_starts"].to_pylist()[3] == [-1, 12]
    assert golds.weights(rows).tolist() == [1, 0, 1, 1, 1, 1]


QUESTION: dict[str, Any] = {
    "id": "q7",
    "question": "what ?",
    "context": FILM,
    "answers": [{"text": "film", "answer_start": 17}],
}
FAULTS: list[tuple[dict[str, Any], str]] = [
    (
        {"answers": [{"text": "film", "answer_start": -2}]},
        "'q7' has answers that can't be read: answer_start is -2",
    ),
    ({"answers": [{"text": True, "answer_start": 0}]}, "an answer is True, not a text"),
    ({"answers": {"text": ["a", "b"], "answer_start": [1]}}, "2 answer texts have 1 answer_starts"),
    ({"answers": None}, "question 'q7' has no answers"),
    ({"answers": []}, "question 'q7' has no answer, as 1 of 1\n  --set no_answer=true"),
    ({"context": "  "}, "question 'q7' has an empty context"),
    ({"question": ""}, "question 'q7' has an empty question"),
    ({"context": None}, "question 'q7' has no context"),
    ({"id": None}, "a question has no id: 'what ?'"),
    (
        {"answers": [{"text": "a cow", "answer_start": 2}]},
        "no answer is where its answer_start says, that of question 'q7'",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_bad_questions_are_named(
    cli: Any, write: Write, tiny_checkpoint: Path, change: dict[str, Any], message: str
) -> None:
    path = write("bad.jsonl", [QUESTION | change])
    done = cli("train", "qa", "--train", path, "--validation", path, "-c", tiny_checkpoint)
    assert done.code == 2 and message in done.err and "bad.jsonl" in done.err


def test_bad_files_are_named(cli: Any, write: Write, tiny_checkpoint: Path) -> None:
    good = articles(copies=1)

    def refused(tree: Any, *more: str) -> str:
        path = write("bad.json", tree)
        done = cli("train", "qa", "--train", path, "--validation", path, "-c", tiny_checkpoint, *more)
        assert done.code == 2
        return str(done.err)

    twice = copy.deepcopy(good)
    twice["data"][0]["paragraphs"][1]["qas"][0]["id"] = "0-0"
    assert "bad.json, row 4: question '0-0' is there twice, first in row 1" in refused(twice)
    torn = copy.deepcopy(good)
    del torn["data"][0]["paragraphs"][1]["context"]
    assert "data[0].paragraphs[1]: no 'context" in refused(torn)
    odd = copy.deepcopy(good)
    odd["data"][0]["paragraphs"][0]["qas"][1] |= {"is_impossible": True}
    assert "qas[1] (question '0-1'): is_impossible is true, and yet there are answers" in refused(odd)
    assert "there is no question in it" in refused({"data": []})
    assert "question '0-a warm-none' has no answer, as 2 of 8" in refused(articles(no_answer=True, copies=1))
    assert "metric 'cmrc_f1' is not one of questions with no_answer" in refused(
        articles(no_answer=True, copies=1), "--set", "no_answer=true", "--set", 'compute=["cmrc_f1"]'
    )
    assert "the qa family does not have it" in refused(good, "--set", "label_smoothing=0.1")


def test_a_context_of_100_000_characters_is_answered(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [
        QUESTION
        | {"context": f"{PLAY} " * 1300 + FILM, "answers": [{"text": "brave heart", "answer_start": 0}]}
    ]
    run = bert_ft.finetune("qa", str(tiny_checkpoint), train=rows, validation=rows, output=tmp_path / "run", max_steps=1,
                           max_length=128, quiet=True, **{"qa.no_answer": True})  # fmt: skip
    assert run.results["counts"]["train"]["windows"] > 250
    assert len(run.predictions()) == 1
