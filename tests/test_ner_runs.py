"""NER from end to end: files in, a run out; its model alone, in a pipeline, and what the command line refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import tag_every_word

import bert_ft

Cli = Callable[..., Any]
PEOPLE, PLACES = ["Anna", "Bob Stone", "Carla"], ["Paris", "New Rome", "Lima"]
QUICK = ["--max-length", "32", "--batch-size", "8", "--lr", "3e-3", "--epochs", "12", "--set", "dropout=0.0"]


def column_file(path: Path, rows: int, separator: str = "\t") -> Path:
    lines = []
    for number in range(rows):
        for word, kind in (
            (PEOPLE[number % 3], "PER"),
            ("went to", ""),
            (PLACES[number // 3 % 3], "LOC"),
            (f"in {number} .", ""),
        ):
            tags = [f"B-{kind}", *[f"I-{kind}"] * 9] if kind else ["O"] * 9
            lines += [f"{w}{separator}{tag}" for w, tag in zip(word.split(), tags, strict=False)]
        lines.append("")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> bert_ft.Run:
    from bert_ft.cli import main

    folder = tmp_path_factory.mktemp("ner")
    column_file(folder / "train.conll", 48)
    column_file(folder / "dev.conll", 12)
    with pytest.raises(SystemExit) as left:
        main(["train", "ner", "--train", str(folder / "train.conll"), "--validation", str(folder / "dev.conll"),
              "--checkpoint", str(tiny_checkpoint), "--output", str(folder / "run"), *QUICK])  # fmt: skip
    assert left.value.code == 0
    return bert_ft.load(folder / "run")


def test_errors_of_chinese_are_written_as_chinese_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [
        {"tokens": [*"他在北京", "New", "York"], "tags": ["O", "O", "B-LOC", "I-LOC", "B-LOC", "I-LOC"]}
    ] * 4
    run = bert_ft.finetune("ner", tiny_checkpoint, train=rows, validation=rows, output=tmp_path / "run", max_steps=1,
                           max_length=16, learning_rate=1e-9, quiet=True)  # fmt: skip
    first = run.errors()[0]
    assert first["text"] == "他在北京 New York"
    assert {"LOC: 北京", "LOC: New York"} & set(first["missed"]) and "北 京" not in str(first)


def test_it_learns_and_says_what_it_read(run: bert_ft.Run) -> None:
    metrics = run.metrics["validation"]
    assert (
        list(metrics) == ["f1", "precision", "recall", "accuracy", "f1_LOC", "f1_PER"] and metrics["f1"] > 0.9
    )
    assert run.task.data.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    lines = run.predictions()
    assert len(lines) == 12 and set(lines[0]) == {"row", "tokens", "prediction", "label"}
    from seqeval.metrics import f1_score

    assert metrics["f1"] == pytest.approx(
        f1_score(*([line[k] for line in lines] for k in ("label", "prediction")))
    )


def test_the_saved_model_alone_gives_the_same(run: bert_ft.Run) -> None:
    from transformers import pipeline

    dev = str(run.path.parent / "dev.conll")
    assert run.evaluate() == run.metrics
    alone = bert_ft.load(run.path / "model")
    assert bert_ft.evaluate(alone, dev) == run.metrics == run.evaluate(dev)
    texts = ["Anna went to New Rome in 3.", "bob stone (PARIS)"]
    answers = run.predict(texts)
    assert answers == alone.predict(texts)
    assert [(e["start"], e["end"], e["label"]) for e in answers[0]["entities"]] == [
        (0, 4, "PER"),
        (13, 21, "LOC"),
    ]
    theirs = pipeline("token-classification", str(run.path / "model"), aggregation_strategy="first")(texts)
    for answer, expected in zip(answers, theirs, strict=True):
        assert [(e["start"], e["end"], e["label"]) for e in answer["entities"]] == [
            (e["start"], e["end"], e["entity_group"]) for e in expected
        ]


def test_a_pipeline_reads_a_long_text_with_stride(run: bert_ft.Run) -> None:
    """As the card and the pages say: without it, nothing beyond `max_length` tokens."""
    from transformers import pipeline

    text = "Anna went to New Rome . " * 40
    ours = bert_ft.load(run.path / "model")
    short, long = (
        pipeline("token-classification", str(run.path / "model"), aggregation_strategy="first", **more)
        for more in ({}, {"stride": 14})
    )
    for network in (ours.network, short.model, long.model):
        tag_every_word(network)
    ends = [
        [entity["end"] for entity in found] for found in (short(text), long(text), ours(text)["entities"])
    ]
    assert ends[0][-1] < 200
    assert ends[1] == ends[2] == [match.end() for match in re.finditer(r"\w+|\.", text)]


def test_options_are_kept_with_the_model(run: bert_ft.Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Viterbi, document context and the way of counting, from JSONL and over a run that starts from a run."""
    rows = [{"tokens": ["Anna", "went"], "tags": ["S-PER", "O"], "doc": k // 3} for k in range(12)]
    settings = {"ner.decoding": "viterbi", "ner.context": "document", "data.columns": {"document": "doc"}, "quiet": True,
                "metric.mode": "seqeval-strict", "data.validation": "25%", "data.group": "doc", "max_steps": 2, "max_length": 24}  # fmt: skip
    new = bert_ft.finetune("ner", str(run.path), train=rows, output=tmp_path / "new", **settings)
    assert new.task.data.labels == ["O", "B-PER", "I-PER"], "another head for other labels"
    alone = bert_ft.load(tmp_path / "new" / "model")
    assert alone.adapter.task.options == new.task.options and new.task.options.decoding == "viterbi"
    assert new.evaluate(rows).keys() == {"validation"} and new.results["counts"]["train"]["windows"] == 9
    assert alone.predict([["Anna", "went"]]) == new.predict([["Anna", "went"]])


@pytest.mark.shared_data
def test_a_slice_of_wnut17(tiny_checkpoint: Path, shared_data: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "wnut17", "--data-dir", shared_data, "-c", tiny_checkpoint, "-o", tmp_path / "run", "--limit-train", 60,
               "--max-steps", 4, "--max-length", 32, "--json")  # fmt: skip
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert results["counts"]["validation"]["words"] == 15733
    assert len(bert_ft.load(tmp_path / "run").predictions()) == 1009
    assert "tags are IOB2" in done.err
    assert bert_ft.load(tmp_path / "run").evaluate() == results["metrics"]
    model = bert_ft.load(tmp_path / "run" / "model")
    assert bert_ft.evaluate(model, str(shared_data / "wnut17" / "emerging.dev.conll")) == results["metrics"]


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = "Anna\tB-PER\nwent\tO\n\nLima\tB-LOC\n"
SPANS = '{"text": "Anna went", "label": [[0, 4, "PER"]]}\n'


@pytest.mark.parametrize(("name", "train", "dev", "message"), [
    ("a.conll", GOOD + "\nx\n", GOOD, r"train-a.conll, line 6: 1 columns where the other lines have 2"),
    ("a.conll", GOOD, "x\tO\ny\tB-ORG\n", r"dev-a.conll, line 2: tag 'B-ORG': the training rows do not have it"),
    ("a.conll", "x\tO\n", GOOD, r"no word is part of an entity"),
    ("a.jsonl", SPANS + '{"text": "ab"}\n', SPANS, r"train-a.jsonl, row 2: 1 rows have no tags"),
    ("a.jsonl", SPANS + '{"text": "ab", "label": [[0, 9, "PER"]]}\n', SPANS, r"row 2: the span 0 to 9 \(PER\) lies outside"),
    ("a.jsonl", SPANS + "[]\n", SPANS, r"line 2: expected a JSON object"),
    ("a.csv", "tokens,tags\na b,O O\n", "tokens,tags\na b,O O\n", r"no word is part of an entity"),
    ("a.jsonl", '{"tokens": ["Anna", "left"], "tags": [{"type": "Loc", "start": 0, "end": 1}]}', '{"tokens": ["Anna", "left"], "tags": [{"type": "Loc", "start": 0, "end": 1}]}', r"holds lists of struct<.*>, not of tags"),
])  # fmt: skip
def test_refused(
    name: str, train: str, dev: str, message: str, cli: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for part, text in (("train", train), ("dev", dev)):
        (tmp_path / f"{part}-{name}").write_text(text)
    done = cli(
        "train",
        "ner",
        "--train",
        f"train-{name}",
        "--validation",
        f"dev-{name}",
        "-c",
        tiny_checkpoint,
        "-o",
        "run",
    )
    assert done.code == 2 and re.search(message, done.err), done.err


@pytest.mark.parametrize(("settings", "message"), [
    ({"ner.context": "document"}, "these rows have no documents"),
    ({"metric.compute": ["f1_macro"]}, "metric 'f1_macro' is none of ner"),
    ({"class_weights": "balanced"}, "ner has no class weights"),
    ({"ner.context": "document", "data.columns": {"document": "doc"}, "data.limit_train": 2}, "data.limit_train: this takes"),
    ({"ner.context": "document", "data.columns": {"document": "doc"}, "data.validation": "50%"}, "data.validation: this takes"),
])  # fmt: skip
def test_settings_refused(
    settings: dict[str, Any], message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"tokens": ["Anna"], "tags": ["B-PER"], "doc": k} for k in range(4)]
    held_out = None if "data.validation" in settings else rows
    with pytest.raises(bert_ft.InputError, match=re.escape(message)):
        bert_ft.finetune(
            "ner", str(tiny_checkpoint), train=rows, validation=held_out, output=tmp_path / "r", **settings
        )


def test_told_and_handled(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """I- after nothing, spans that overlap or cut a word, an empty sentence, one of 5,000 words."""
    long = json.dumps({"text": "Anna went to Lima " * 1250, "label": [[0, 4, "PER"]]}) + "\n"
    (tmp_path / "train.jsonl").write_text(
        SPANS
        + '{"text": "BobX", "label": [[0, 3, "PER"], [0, 2, "LOC"]]}\n{"text": " ", "label": []}\n'
        + long
    )
    (tmp_path / "dev.conll").write_text("a O\nb I-PER\n" + "c O\n" * 4998)
    done = cli("train", "ner", "--train", "train.jsonl", "--validation", "dev.conll", "-c", tiny_checkpoint, "-o", "run",
               "--max-length", "32", "--max-steps", "1", "--json")  # fmt: skip
    assert done.code == 0, done.err
    for told in ("train: 1 spans overlap a longer or equal one and are left out; the first: .*train.jsonl, row 2",
                 r"check: train: 1 span whose ends lie within a word.*\(row 2\)",
                 "train: 1 rows have no words; the first: .*train.jsonl, row 3", "validation: tags are IO, read as IOB2"):  # fmt: skip
        assert re.search(told, done.err), (told, done.err)
    counts = json.loads(done.out)["counts"]
    assert counts["validation"]["words"] == 5000 and counts["train"]["words"] == 5000 + 2 + 1
    assert len(bert_ft.load("run").predictions()[0]["prediction"]) == 5000


def test_who_named_the_columns_is_not_told_to(cli: Cli, tmp_path: Path) -> None:
    frame = pa.table({"words": ["a b"], "marks": ["O O"]})
    pq.write_table(frame, tmp_path / "a.parquet")
    named = (
        "check",
        "ner",
        "--train",
        "a.parquet",
        "--validation",
        "a.parquet",
        "--tokens",
        "words",
        "--tags",
        "marks",
    )
    done = cli(*named)
    assert (
        done.code == 2 and "lists of words and of tags are wanted" in done.err and "--tokens" not in done.err
    )


def test_a_tokenizer_without_offsets(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One that is written in Python, as CANINE's: refused, not worked around."""
    from transformers import BertConfig, BertModel, CanineTokenizer

    folder, tokenizer = tmp_path / "slow", CanineTokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").touch()
    (tmp_path / "a.conll").write_text(GOOD)
    done = cli(
        "train",
        "ner",
        "--train",
        "a.conll",
        "--validation",
        "a.conll",
        "-c",
        folder,
        "-o",
        "run",
        "--max-length",
        "32",
    )
    assert done.code == 2 and "no fast (Rust) tokenizer" in done.err, done.err


@pytest.mark.parametrize("separator", ["\t", " "])
def test_words_with_tags_are_not_answered_as_texts(
    run: bert_ft.Run, cli: Cli, tmp_path: Path, separator: str
) -> None:
    """The file that was trained on: each of its lines had become a text, without a word."""
    column_file(tmp_path / "tagged.txt", 6, separator)
    (tmp_path / "texts.txt").write_text("Anna went to Paris in 1 .\nO B-PER\nBob Stone went to Lima\n")
    done = cli("predict", run.path, "tagged.txt")
    assert done.code == 2 and not done.out
    assert done.err.startswith("bert-ft: tagged.txt: each line is a word with its tag")
    assert cli("evaluate", run.path, "--data", "tagged.txt").code == 0, "as it says"
    found = cli("predict", run.path, "tagged.txt", "--from", "txt")
    assert found.code == 0 and f"Anna{separator}B-PER" in json.loads(found.out.splitlines()[0])["text"]
    assert cli("predict", run.path, "texts.txt").code == 0
