"""The data of our own, the Gazette and the Almanac: right in every tag and offset, clean, apart, counted, and shipped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bert_ft.config.catalog import load_task, tasks_root
from bert_ft.families import words
from bert_ft.tools.check import check

GAZETTE, ALMANAC = tasks_root() / "ner" / "gazette", tasks_root() / "qa" / "almanac"
SPLITS = ("train", "validation", "test")


def documents(split: str) -> list[list[list[list[str]]]]:
    """Document -> sentence -> word -> its two columns, read without our reader."""
    text = (GAZETTE / f"{split}.conll").read_text(encoding="utf-8")
    parts = [part.strip().split("\n\n") for part in text.split("-DOCSTART-\tO")[1:]]
    return [[[line.split("\t") for line in sentence.split("\n")] for sentence in part] for part in parts]


def paragraphs(split: str) -> list[dict[str, Any]]:
    articles = json.loads((ALMANAC / f"{split}.json").read_text(encoding="utf-8"))["data"]
    return [paragraph for article in articles for paragraph in article["paragraphs"]]


def table(folder: Path) -> dict[str, dict[str, int]]:
    """The counts that a README states: split -> column -> number."""
    rows = [
        line.strip("| ").split(" | ")
        for line in (folder / "README.md").read_text().splitlines()
        if line[:2] == "| "
    ]
    return {row[0]: dict(zip(rows[0][1:], map(int, row[1:]), strict=True)) for row in rows[1:]}


@pytest.mark.pretrained
@pytest.mark.parametrize("task", ["gazette", "almanac"])
def test_check_finds_nothing(task: str, minilm: Path) -> None:
    report = check(task, str(minilm))
    assert report.findings == [] and report.skipped == [] and list(report.sets) == list(SPLITS)
    told = [f"{name}: tags are IOB2" for name in SPLITS] if task == "gazette" else []
    assert report.notes == told, "nothing is mended or left out on reading"


def test_tags_and_counts_of_the_gazette() -> None:
    counted, seen = {}, set()
    for split in SPLITS:
        found = documents(split)
        sentences = [sentence for document in found for sentence in document]
        begun = []
        for sentence in sentences:
            tokens, tags = (list(column) for column in zip(*sentence, strict=True))
            assert words.split([" ".join(tokens)]).words == tokens, "cut as raw text is"
            for before, tag in zip(["O", *tags], tags, strict=False):
                assert re.fullmatch("O|[BI]-(PER|ORG|LOC|DATE)", tag)
                assert tag[0] != "I" or before[1:] == tag[1:], f"{tag} behind {before}: {' '.join(tokens)}"
            begun += [tag[2:] for tag in tags if tag[0] == "B"]
        texts = {" ".join(word.lower() for word, _ in sentence) for sentence in sentences}
        assert len(texts) == len(sentences) and not texts & seen
        seen |= texts
        counted[split] = {
            "documents": len(found),
            "sentences": len(sentences),
            "words": sum(map(len, sentences)),
        }
        counted[split] |= {kind: begun.count(kind) for kind in ("PER", "ORG", "LOC", "DATE")}
    assert counted == table(GAZETTE)


def test_answers_and_counts_of_the_almanac() -> None:
    counted: dict[str, dict[str, int]] = {}
    contexts: list[str] = []
    asked: list[tuple[str, str]] = []
    for split in SPLITS:
        found = paragraphs(split)
        qas = [(paragraph["context"], qa) for paragraph in found for qa in paragraph["qas"]]
        for context, qa in qas:
            golds = qa["answers"]
            assert qa["is_impossible"] == (not golds) == ("plausible_answers" in qa) and qa[
                "question"
            ].endswith("?")
            for answer in [*golds, *qa.get("plausible_answers", [])]:
                start, text = answer["answer_start"], answer["text"]
                end = start + len(text)
                assert context[start:end] == text == text.strip(), qa["id"]
                assert not re.match(r"\w", context[start - 1 : start]) and not re.match(
                    r"\w", context[end:]
                ), "whole words"
            assert len({answer["text"] for answer in golds}) == len(golds) and (
                split != "train" or len(golds) < 2
            )
            asked.append((qa["id"], qa["question"]))
        assert all(80 <= len(paragraph["context"].split()) <= 150 for paragraph in found)
        contexts += [paragraph["context"] for paragraph in found]
        counted[split] = {"passages": len(found), "questions": len(qas),
                          "without an answer": sum(qa["is_impossible"] for _, qa in qas),
                          "accepted answers": sum(len(qa["answers"]) for _, qa in qas),
                          "words of the passages": sum(len(paragraph["context"].split()) for paragraph in found)}  # fmt: skip
    assert len(set(contexts)) == len(contexts) and len({key for key, _ in asked}) == len(asked) == len(
        set(asked)
    )
    assert counted == table(ALMANAC)


def test_a_copy_brings_its_rows(cli: Any, tmp_path: Path) -> None:
    done = cli("tasks", "copy", "gazette", tmp_path / "own.toml")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "own.toml"))
    assert load_task(tmp_path / "own.toml").data.path == str(tmp_path / "gazette")
    assert {p.name: p.read_bytes() for p in (tmp_path / "gazette").iterdir()} == {p.name: p.read_bytes() for p in GAZETTE.iterdir()}  # fmt: skip
    again = cli("tasks", "copy", "gazette", tmp_path / "other.toml")
    assert (
        again.code == 2 and "there is a file already" in again.err and not (tmp_path / "other.toml").exists()
    )


def test_the_wheel_holds_them() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    root = tasks_root().parent
    files = {
        file.distribution_path: Path(file.path).stat().st_size
        for file in wheel.WheelBuilder(str(root)).recurse_included_files()
    }
    ours = {name: size for name, size in files.items() if re.search(r"/(gazette|almanac)[/.]", name)}
    names = [f"ner/gazette/{split}.conll" for split in SPLITS] + [
        f"qa/almanac/{split}.json" for split in SPLITS
    ]
    names += ["ner/gazette/README.md", "qa/almanac/README.md", "ner/gazette.toml", "qa/almanac.toml"]
    assert set(ours) == {f"bert_ft/_tasks/{name}" for name in names} and sum(ours.values()) < 300_000
    assert {Path(name).suffix for name in files if "_tasks" in name} == {".toml", ".md", ".conll", ".json"}
    tomls = {f"bert_ft/_tasks/{path.relative_to(tasks_root())}" for path in tasks_root().rglob("*.toml")}
    assert tomls <= set(files) and "bert_ft/_tasks/classification/glue/mnli.references.toml" in tomls
