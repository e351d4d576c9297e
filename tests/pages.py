"""The code of the documentation's pages, run from top to bottom in a folder with the small files that pages speak of."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FENCE = re.compile(
    r'^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
SHOWN = ("", "text", "diff")  # pictures, outputs, changes: nothing to run
WORDS = {1: "awful", 2: "dull", 3: "fair", 4: "good", 5: "great"}
CHECKPOINT = re.compile(r"\b(?:google-bert|BAAI|sentence-transformers|answerdotai|hfl)/[\w.-]+")


@dataclass
class Block:
    """A fenced block: what it is, why it is not run (if so), the file it stands for (if so), and its first line."""

    language: str
    code: str
    why: str | None
    title: str | None
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page in their order."""
    found = [Block(m["language"], m["code"], m["why"], m["title"], text.count("\n", 0, m.start("code")) + 1)
             for m in FENCE.finditer(text)]  # fmt: skip
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(found), "a fence that this can't read"
    return found


def commands(code: str) -> Iterator[list[list[str]]]:
    """The commands of a `sh` block, each as the parts of its pipe."""
    for line in code.replace("\\\n", " ").splitlines():
        parts: list[list[str]] = [[]]
        for word in shlex.split(line, comments=True):
            if word == "|":
                parts.append([])
            else:
                parts[-1] += sorted(glob.glob(word)) or [word]
        if parts[0]:
            yield parts


class Sandbox:
    """Runs blocks in the current folder. `runs` are those that the `run` of a python block stood for, in order."""

    def __init__(self, makefile: str) -> None:
        self.targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
        self.scope: dict[str, Any] = {}
        self.runs: list[Any] = []

    def run(self, block: Block) -> None:
        """Raises AssertionError: a block that is of no known kind, or a command that fails."""
        if block.why or block.language in SHOWN:
            return
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.code, f"line {block.line}", "exec"), self.scope)
            self.runs.append(self.scope.get("run"))
        else:
            assert block.language == "sh", (
                f"line {block.line}: neither run, nor a file (title=), nor marked `not run`"
            )
            for parts in commands(block.code):
                self.command(parts)

    def command(self, parts: list[list[str]]) -> None:
        from bert_ft.cli import main

        given = b""
        for argv in parts:
            if argv[0] == "make":
                assert argv[1] in self.targets, argv
            elif argv[0] in ("cat", "echo", "head", "ls"):
                given = subprocess.run(argv, input=given, capture_output=True, check=True).stdout
            else:
                assert argv[0] == "bert-ft", f"{argv}: neither run nor marked `not run`"
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
                    with pytest.raises(SystemExit) as left:
                        main(argv[1:])
                assert not left.value.code, f"{argv} left with {left.value.code}"


# --- what the pages speak of ------------------------------------------------------------------------------------------


def write_files(folder: Path) -> None:
    """Files under the names of the pages: reviews with stars, topics and a product, sentences, questions, GLUE's MRPC."""
    rows = [{"review": f"a {word}, {word} thing {i}", "title": f"thing {i}", "stars": stars, "product": f"p{i % 8}",
             "mood": "happy" if stars > 2 else "sad", "topics": "price,taste" if i % 2 else "taste",
             "score": stars / 5} for i in range(16) for stars, word in WORDS.items()]  # fmt: skip
    for name, part in {"reviews": rows, "train": rows, "validation": rows[:20], "new": rows[7:40:3]}.items():
        _table(folder / f"{name}.csv", part)
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.txt").write_text("".join(row["review"] + "\n" for row in rows[:5]))
    sentence = "Anna B-PER\nBell I-PER\nwent O\nto O\nRome B-LOC\n. O\n\n"
    for name, times in {"train": 24, "dev": 8}.items():
        (folder / f"{name}.conll").write_text("-DOCSTART- O\n\n" + sentence * times)
    for name, times in {"train": 16, "dev": 8}.items():
        (folder / f"{name}-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": [
            {"title": "Rome", "paragraphs": [{"context": f"Anna went to Rome in {1900 + i}.", "qas": [
                {"id": f"{name}{i}", "question": "Where did Anna go?", "is_impossible": False,
                 "answers": [{"text": "Rome", "answer_start": 13}]},
                {"id": f"{name}{i}n", "question": "Where did Otto go?", "is_impossible": True, "answers": []}]}]}
            for i in range(times)]}))  # fmt: skip
    glue = folder / "path" / "to" / "glue" / "MRPC"
    glue.mkdir(parents=True)
    for name, label in {"train": True, "dev": True, "test": False}.items():
        names = ["Quality"] * label + ["#1 ID", "#2 ID", "#1 String", "#2 String"] + ["index"] * (not label)
        lines = [[*([str(i % 2)] * label), str(i), str(i), f"thing {i} is good", f"thing {i + i % 2} is good",
                  *([str(i)] * (not label))] for i in range(24)]  # fmt: skip
        (glue / f"{name}.tsv").write_text("".join("\t".join(cells) + "\n" for cells in [names, *lines]))


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


class Builder:
    """In place of the hub's builder of a data set: 24 rows a split that a built-in task of that name can be trained on."""

    def __init__(self, path: str, name: str | None, revision: str | None) -> None:
        from bert_ft.config.catalog import builtin, load_task

        tasks = (load_task(file) for file in builtin().values())
        self.task = next(t for t in tasks if (t.data.path, t.data.name) == (path, name))

    def as_dataset(self, split: str) -> Any:
        import datasets

        data, columns = self.task.data, {}
        for role, column in data.columns.items():
            columns[column] = [f"thing {i} is {WORDS[1 + i % 5]}" for i in range(24)]
            if role == "label":
                labels = data.labels or [0.5, 4.0]
                columns[column] = [labels[i % len(labels)] for i in range(24)]
        return datasets.Dataset.from_dict(columns)


def fill_cache(hub: Path, names: set[str], checkpoint: Path) -> None:
    """Puts a checkpoint into the hub's cache under each of the names, in the hub's layout."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in names:
        repository = hub / f"models--{name.replace('/', '--')}"
        shutil.copytree(checkpoint, repository / "snapshots" / commit, dirs_exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
