"""`bert-ft predict` of a folder or a glob: each file as if it were alone, killed at any moment, shared, and never twice."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import bert_ft
from bert_ft import display
from bert_ft.errors import MachineError
from bert_ft.tools.predict import folders, many, on_ray, records
from bert_ft.tools.predict.identity import made_by
from bert_ft.tools.predict.progress import FilesProgress

TEXTS = [f"a {word} film {'very ' * (i % 5)}{i}" for i in range(20) for word in ("good", "bad")]

NOT_READ = ("only that much is read", "of the tokens are unknown")


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    return _trained(tiny_checkpoint, tmp_path_factory.mktemp("run") / "run", 1)


def _trained(checkpoint: Path, folder: Path, seed: int) -> bert_ft.Run:
    rows = [{"text": text, "label": "good" if "good" in text else "bad"} for text in TEXTS]
    return bert_ft.finetune("classification", str(checkpoint), train=rows, validation=rows[:4], epochs=1, max_length=24,
                            batch_size=8, seed=seed, output=folder, quiet=True)  # fmt: skip


def _rows(start: int, count: int) -> list[dict[str, Any]]:
    return [{"id": start + i, "text": TEXTS[(start + i) % len(TEXTS)]} for i in range(count)]


def _folder(place: Path) -> Path:
    """Files of all formats, some of them with rows at fault."""
    (place / "deep" / "er").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(_rows(0, 30)), place / "one.parquet")
    pq.write_table(pa.Table.from_pylist(_rows(5, 7)), place / "deep" / "one.parquet")
    for name, delimiter in (("cells.csv", ","), ("deep/er/cells.tsv", "\t")):
        with (place / name).open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter)
            writer.writerows([["text", "n"], ["a good film", 1], ["too", "many", "cells"], ["a bad one", 2]])
    lines = [json.dumps(row) for row in _rows(3, 12)]
    lines.insert(4, "not json")
    lines.insert(9, '{"id": 5}')
    (place / "deep" / "lines.jsonl").write_text("\n".join(lines))
    (place / "document.json").write_text(json.dumps(_rows(1, 3)))
    (place / "texts.txt").write_text("a good film\na bad one\n")
    (place / ".hidden.csv").write_text("text\nno\n")
    (place / ".hidden").mkdir()
    (place / ".hidden" / "a.csv").write_text("text\nno\n")
    return place


def _visible(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for name, path in found.items() if not name.startswith(f"{records.FOLDER}/")
    }


# --- each file as if it were alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--keep-bad"], ["--to", "jsonl"], ["--to", "parquet"]])
def test_each_file_as_if_it_were_alone(
    run: bert_ft.Run, tmp_path: Path, cli: Any, options: list[str]
) -> None:
    _folder(tmp_path / "in")
    kind = options[1] if "--to" in options else None
    if kind == "parquet":  # whose answers would have one name
        (tmp_path / "in" / "deep" / "lines.jsonl").rename(tmp_path / "in" / "deep" / "rows.jsonl")
    names = {
        "one.parquet": "parquet", "deep/one.parquet": "parquet", "cells.csv": "csv", "deep/er/cells.tsv": "tsv",
        "deep/rows.jsonl" if kind == "parquet" else "deep/lines.jsonl": "jsonl", "document.json": "jsonl", "texts.txt": "jsonl",
    }  # fmt: skip
    expected, told, cut, codes = {}, [], [], []
    for name in sorted(names, key=lambda name: Path("in", name)):
        target = Path(name).with_suffix(f".{kind or names[name]}")
        (tmp_path / "alone" / target).parent.mkdir(parents=True, exist_ok=True)
        done = cli(
            "predict", run.path, f"in/{name}", "-o", f"alone/{target}", *(w for w in options if w != "--to" and w != kind)
        )  # fmt: skip
        expected[target.as_posix()] = (tmp_path / "alone" / target).read_bytes()
        lines = [line for line in done.err.splitlines() if " rows are at fault" not in line]
        cut += [int(line.split()[0]) for line in lines if "only that much is read" in line]
        told += [line for line in lines if not any(said in line for said in NOT_READ)]
        codes.append(done.code)
    done = cli("predict", run.path, "in", "-o", "out", *options)
    assert _visible(tmp_path / "out") == expected and len(expected) == 7
    keep = "--keep-bad" in options
    assert done.err.splitlines()[: len(told)] == told and len(told) == 4
    of_all, unknown, *rest = done.err.splitlines()[len(told) :]
    assert of_all == f"{sum(cut)} of 58 rows are longer than 24 tokens, and only that much is read"
    assert unknown.startswith("texts: ") and NOT_READ[1] in unknown and len(cut) > 1
    assert rest == [
        f"7 files: 7 answered; 62 rows in, {62 if keep else 58} out",
        f"4 of 62 rows are at fault, and {'kept with their error' if keep else 'left out'}",
    ]
    assert done.code == max(codes) == (0 if keep else 2) and not done.out
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]


def test_a_glob_and_its_names(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    _folder(tmp_path / "in")
    for pattern, found in (
        ("in/*.parquet", {"one.parquet"}),
        ("in/**/*.parquet", {"one.parquet", "deep/one.parquet"}),
        (f"{tmp_path}/in/d*/**", {"deep/one.parquet", "deep/lines.jsonl", "deep/er/cells.tsv"}),
        ("*/deep/on[ef].p*", {"in/deep/one.parquet"}),
    ):
        done = cli("predict", run.path, pattern, "-o", f"out-{len(pattern)}")
        assert {*_visible(tmp_path / f"out-{len(pattern)}")} == found, done
    (tmp_path / "in[1].csv").write_text("text\na file whose name is a pattern\n")
    assert cli("predict", run.path, "in[1].csv", "-o", "answers.csv").code == 0
    assert (tmp_path / "answers.csv").is_file()


def test_files_that_can_not_be_read(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """They are told, and the others answered; once mended, they alone are."""
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.parquet").write_bytes(b"PAR1 it is not")
    (source / "b.csv").write_text("review\nno such column\n")
    (source / "c.csv").write_bytes("text\nein schöner Film\n".encode("latin-1"))
    (source / "d.csv").write_text("text,prediction\nanswered,before\n")
    (source / "e.csv").write_text("text\na good film\n")
    os.mkfifo(source / "f.csv")
    (source / "notes.md").write_text("# notes")
    done = cli("predict", run.path, "in", "-o", "out")
    lines = done.err.splitlines()
    assert lines[0] == "1 files are left alone, which have no suffix of rows: in/notes.md"
    for part in (
        "in/a.parquet: not a Parquet file", "in/b.csv: no column 'text'", "in/c.csv, line 2: 'text' has bytes of another encoding: --set data.encoding=...",
        "in/d.csv, line 2: the rows have a column 'prediction' of their own", "in/f.csv: not a regular file",
    ):  # fmt: skip
        assert [line for line in lines if line.startswith(part)], (part, lines)
    assert lines[-2:] == [
        "6 files: 2 answered, 4 failed; 2 rows in, 1 out",
        "1 of 2 rows are at fault, and left out",
    ]
    assert done.code == 2 and {*_visible(tmp_path / "out")} == {"c.csv", "e.csv"}
    (source / "b.csv").write_text("text\nnow it is\n")
    (source / "f.csv").unlink()
    done = cli("predict", run.path, "in", "-o", "out")
    assert (
        "5 files: 1 answered, 2 there already, 2 failed; 3 rows in, 2 out" in done.err
        and "b.csv" not in done.err
    )


# --- what is missing --------------------------------------------------------------------------------------------------


def test_only_what_is_missing_or_other_is_answered(
    run: bert_ft.Run, tiny_checkpoint: Path, tmp_path: Path, cli: Any
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abc":
        pq.write_table(pa.Table.from_pylist(_rows(0, 10)), source / f"{name}.parquet")

    def made() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in out.glob("*.parquet")}

    def again(*options: str, of: Any = run.path) -> tuple[set[str], list[str]]:
        before = made()
        # an inode that is free at once may be taken again
        held = [path.open() for path in out.glob("*.parquet")]
        done = cli("predict", of, "in", "-o", "out", *options)
        changed = {name for name, number in made().items() if before.get(name) != number}
        for stream in held:
            stream.close()
        assert done.code == 0
        cut, unknown, *lines = done.err.splitlines()
        # told of what was answered before, too
        assert cut == "3 of 30 rows are longer than 24 tokens, and only that much is read"
        assert unknown.startswith("texts: 5.5% of the tokens are unknown and")
        return changed, lines[:-1]

    every = {"a.parquet", "b.parquet", "c.parquet"}
    assert again() == (every, [])
    first = _visible(out)
    assert again() == (set(), [])
    (out / "b.parquet").unlink()
    assert again() == ({"b.parquet"}, []) and _visible(out) == first
    time_of = (source / "a.parquet").stat().st_mtime_ns
    content = (source / "a.parquet").read_bytes().replace(b"a good film 0", b"a good film 9")
    assert content != (source / "a.parquet").read_bytes()
    (source / "a.parquet").write_bytes(content)
    os.utime(source / "a.parquet", ns=(time_of, time_of))  # as many bytes at the same time
    assert again() == ({"a.parquet"}, ["1 answered anew: its rows have changed"])
    damaged = bytearray((out / "c.parquet").read_bytes())
    damaged[20] ^= 1
    (out / "c.parquet").write_bytes(damaged)
    assert again() == ({"c.parquet"}, ["1 answered anew: the answers have changed"])
    for options in (
        ["--keep-bad"],
        ["--set", "eval_tokens=512"],
        ["--abstain-below", "0.6"],
        ["--probabilities"],
    ):
        assert again(*options) == (every, ["3 answered anew: other settings"]), options
        assert again(*options) == (set(), [])
    assert again() == (every, ["3 answered anew: other settings"])
    other = _trained(tiny_checkpoint, tmp_path / "other", 2)
    assert again(of=other.path) == (every, ["3 answered anew: another model"])
    moved = tmp_path / "moved"
    other.path.rename(moved)
    assert again(of=moved) == (set(), [])
    for path in (out / records.FOLDER).glob("*.json"):
        path.write_text('{"name": 5}')
        break
    assert len(again(of=moved)[0]) == 1, "a record that can't be read is none"


@pytest.mark.parametrize("key", ["weights", "tokenizer", "threshold"])
def test_the_model_is_known_by_all_that_answers(run: bert_ft.Run, key: str) -> None:
    def now() -> tuple[Any, dict[str, Any]]:
        model = bert_ft.load(run.path).model
        return model, made_by(model, {}, {"dtype": "float32"})

    model, before = now()
    assert now()[1] == before
    model.predict(["an answer changes nothing of the model"])
    if key == "weights":
        next(model.network.parameters()).data[0, 0] += 1e-3
    elif key == "tokenizer":
        model.tokenizer.add_tokens(["zebra"])
    else:
        model.adapter.tuned["temperature"] = 3.0
    changed = made_by(model, {}, {"dtype": "float32"})
    assert changed["model"] != before["model"]


def test_what_was_not_written_here_is_left_alone(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.csv").write_text("text\na good film\n")
    (tmp_path / "out" / "b.csv").write_text("somebody's\n")
    done = cli("predict", run.path, "in", "-o", "out")
    assert done.code == 2 and "out/b.csv: this file is in the way" in done.err
    assert _visible(tmp_path / "out") == {"b.csv": b"somebody's\n"}, "nothing was answered"


def test_rows_that_change_meanwhile(
    run: bert_ft.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.csv"
    file.write_text("text\na good film\n")
    real = many.predict

    def changing(*arguments: Any, **options: Any) -> Any:
        options["advance"] = lambda rows: file.write_text("text\nanother film\n")
        return real(*arguments, **options)

    monkeypatch.setattr(many, "predict", changing)
    told: list[str] = []
    plan = folders.plan(str(tmp_path / "in"), str(tmp_path / "out"))
    answering = many.Answering(run.model, plan.output, {"model": ""}, {})
    summary = many.answer_all(answering, plan, told.append)
    assert told == [f"{file}: the file was changed while it was answered"] and summary.exit_code(False) == 2
    assert not _visible(tmp_path / "out")
    monkeypatch.undo()
    assert many.answer_all(answering, plan).counts == {"answered": 1}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "output", "options", "message"), [
    ("in", "-", [], "in: the answers of many files need a folder\n  name one with --output FOLDER"),
    ("in", "in", [], "in: this folder lies among the files to answer"),
    ("in", "in/out", [], "in/out: this folder lies among the files to answer"),
    ("in", ".", [], ".: this folder holds the files to answer"),
    ("in/deep", "in", [], "in: this folder holds the files to answer"),
    ("in/**/*.csv", "in/out", [], "in/out: this folder lies among the files to answer"),
    ("in/*.csv", "in", [], "in: this folder lies among the files to answer"),
    ("in", "file.txt", [], "file.txt: this is a file; the answers of many files need a folder"),
    ("in", "link", [], "link: this is a link"),
    ("*.nothing", "out", [], "*.nothing: no file of rows is there"),
    ("empty", "out", [], "empty: no file of rows is there; it has empty/notes.md\n  jsonl, csv"),
    ("nowhere", "out", [], "nowhere: no such file"),
    ("twins", "out", ["--to", "jsonl"], "out: the answers of twins/a.csv and twins/a.parquet would both be a.jsonl"),
    ("linked", "out", [], "linked/b.csv: this is a link; links among many files are not followed"),
    ("linked/*", "out", [], "linked/b.csv: this is a link"),
    ("linked-folder", "out", [], "linked-folder/deep: this is a link"),
    ("linked-folder/**/*.parquet", "out", [], "linked-folder/deep: this is a link"),
    ("in", "out", ["--to", "txt"], "out: answers have several columns: a .txt can't hold them"),
    ("in", "out", ["--to", "xml"], "unknown format 'xml'"),
    ("in", "out", ["--from", "xml"], "unknown format 'xml'"),
    ("in", "out", ["--column", "txt=n"], "--column: there is no role 'txt'"),
    ("in", "out", ["--escape-formulas"], "--escape-formulas: jsonl holds no formulas"),
    ("-", "folder", [], "folder: this is a folder; the answers of one file need a file"),
    ("in/cells.csv", "folder", [], "folder: this is a folder; the answers of one file need a file"),
])  # fmt: skip
def test_refused_in_one_message(
    run: bert_ft.Run, tmp_path: Path, cli: Any, source: str, output: str, options: list[str], message: str
) -> None:
    _folder(tmp_path / "in")
    (tmp_path / "file.txt").write_text("mine\n")
    for name in ("empty", "twins", "linked", "linked-folder", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / "notes.md").write_text("# notes")
    (tmp_path / "twins" / "a.csv").write_text("text\nx\n")
    pq.write_table(pa.Table.from_pylist(_rows(0, 2)), tmp_path / "twins" / "a.parquet")
    (tmp_path / "linked" / "a.csv").write_text("text\nx\n")
    (tmp_path / "linked" / "b.csv").symlink_to(tmp_path / "in" / "cells.csv")
    (tmp_path / "linked-folder" / "deep").symlink_to(tmp_path / "in" / "deep")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    before = sorted(tmp_path.rglob("*"))
    done = cli("predict", run.path, source, "-o", output, *options)
    assert done.code == 2 and done.err.startswith(f"bert-ft: {message}"), done
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and records.FOLDER not in path.parts] in (
        [], [tmp_path / "out"],
    )  # fmt: skip


def test_links_in_the_way_of_answers(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.csv").write_text("text\na good film\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    for entry in (records.FOLDER, "deep"):
        (tmp_path / "out" / entry).symlink_to(tmp_path / "elsewhere")
        done = cli("predict", run.path, "in", "-o", "out")
        assert done.code == 2 and f"out/{entry}: this is a link" in done.err
        (tmp_path / "out" / entry).unlink()
        assert not any((tmp_path / "elsewhere").iterdir())


# --- killed and shared ------------------------------------------------------------------------------------------------


def _fork(work: Callable[[], Any]) -> int:
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def _answer(model: Any, source: Path, out: Path, done: Path) -> None:
    """Answers all of a folder; the name of each file that this process answered goes behind the others'."""
    answered = many.Answering._answered

    def noted(self: Any, item: Any, *arguments: Any) -> Any:
        result = answered(self, item, *arguments)
        with done.open("a") as stream:
            stream.write(f"{item.name}\n")
        return result

    many.Answering._answered = noted  # type: ignore[method-assign]  # of a process that was forked for this
    told: list[str] = []
    many.answer_all(
        many.Answering(model, out, {"model": "it"}, {}), folders.plan(str(source), str(out)), told.append
    )
    (done.parent / "told.txt").write_text("\n".join(told))


def _dying(after: int) -> None:
    """From now on the n-th step of writing answers is the process's end, just before it is done."""
    left = iter(range(after))

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for module, name in (
        (records, "_digest"), (records, "_status"), (records, "_create"), (records.Records, "_make_folders"),
        (os, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync"),
    ):  # fmt: skip
        setattr(module, name, counted(getattr(module, name)))


def _many_files(place: Path, files: int, rows: int) -> Path:
    (place / "deep").mkdir(parents=True)
    for number in range(files):
        lines = [json.dumps(row) for row in _rows(number, rows)]
        lines[number % rows] = "not json"
        (place / ("deep" if number % 2 else "") / f"part-{number:02}.jsonl").write_text(
            "\n".join(lines) + "\n"
        )
    return place


def test_killed_at_any_moment_equals_undisturbed(run: bert_ft.Run, tmp_path: Path) -> None:
    source = _many_files(tmp_path / "in", 12, 30)
    model = run.model
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    began = time.monotonic()
    child = _fork(lambda: _answer(model, source, tmp_path / "whole" / "out", tmp_path / "whole" / "done"))
    assert os.waitpid(child, 0)[1] == 0
    seconds = time.monotonic() - began
    whole = _visible(tmp_path / "whole" / "out")
    assert len(whole) == 12
    draw, kills, trial = random.Random(0), Counter[str](), 0
    while kills.total() < 60:
        folder = tmp_path / "killed" / f"trial-{trial}"
        folder.mkdir()
        out, trial = folder / "out", trial + 1
        while True:
            inside = draw.random() < 0.6
            after = draw.randint(1, 60)

            def work(
                inside: bool = inside, after: int = after, out: Path = out, done: Path = folder / "done"
            ) -> None:
                if inside:
                    _dying(after)
                _answer(model, source, out, done)

            child = _fork(work)
            if not inside:
                time.sleep(draw.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            # half a file is never visible, and nothing else is but answers
            assert all(whole[name] == content for name, content in _visible(out).items())
            if code == 0:
                break
            assert code == -signal.SIGKILL, (folder, code)
            kills["inside" if inside else "outside"] += 1
        child = _fork(lambda out=out, folder=folder: _answer(model, source, out, folder / "done"))
        assert os.waitpid(child, 0)[1] == 0
        assert _visible(out) == whole
        assert not list((out / records.FOLDER).glob("*.tmp*")), "nothing is left of what was killed"
        names = (folder / "done").read_text().split()
        assert len(names) == len(set(names)), "no file is answered twice"
        lines = (folder / "told.txt").read_text().splitlines()
        assert lines == [
            line.replace(str(tmp_path / "whole"), str(folder))
            for line in (tmp_path / "whole" / "told.txt").read_text().splitlines()
        ]
        assert len(lines) == 12
    assert min(kills.values()) >= 3 and len(kills) == 2, kills


def test_processes_share_the_files(run: bert_ft.Run, tmp_path: Path) -> None:
    """Three of them, one of which is killed; each file is answered once, and each process tells of all."""
    source, model = _many_files(tmp_path / "in", 12, 30), run.model
    out = tmp_path / "out"
    work = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        work.append(_fork(lambda n=number: _answer(model, source, out, tmp_path / str(n) / "done")))
    deadline = time.monotonic() + 60
    while not (tmp_path / "0" / "done").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(work[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in work]
    assert codes[0] in (0, -signal.SIGKILL) and codes[1:] == [0, 0]
    names = [name for n in range(3) for name in (tmp_path / str(n) / "done").read_text().split()]
    assert len(names) == len(set(names)) and len({*names}) >= 11, "the killed one may not have noted its last"
    _answer_alone = _fork(lambda: _answer(model, source, tmp_path / "alone" / "out", tmp_path / "done"))
    assert os.waitpid(_answer_alone, 0)[1] == 0
    assert _visible(out) == _visible(tmp_path / "alone" / "out") and len(_visible(out)) == 12
    told = [
        [
            line
            for line in (tmp_path / str(n) / "told.txt").read_text().splitlines()
            if "waited for" not in line
        ]
        for n in (1, 2)
    ]
    assert sorted(told[0]) == sorted(told[1]) and len(told[0]) == 12


# --- on a terminal ----------------------------------------------------------------------------------------------------


def test_a_bar_on_a_terminal_alone(
    run: bert_ft.Run, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _many_files(tmp_path / "in", 3, 5)
    assert "files  " not in cli("predict", run.path, "in", "-o", "out").err
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(display, "Console", functools.partial(Console, force_terminal=True))
    done = cli("predict", run.path, "in", "-o", "out")
    assert "3/3 files  15 rows" in done.err and "a second" in done.err
    assert "in/part-00.jsonl, line 1: not JSON" in done.err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    done = cli("predict", run.path, str(source / "part-00.jsonl"), "-o", "one.jsonl")
    assert "5/5 rows" in done.err


# --- on a cluster -----------------------------------------------------------------------------------------------------

ALONE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""What runs a command in a network of its own, with loopback alone."""


def _workers() -> list[int]:
    """The processes that answer."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::Worker"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_workers_of_a_cluster_that_are_killed(run: bert_ft.Run, tmp_path: Path) -> None:
    """Each file is answered once, and as without a cluster, although each worker is killed when it has just begun."""
    pytest.importorskip("ray")
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("a network of one's own needs root")
    source = _many_files(tmp_path / "in", 12, 2000)
    arguments = [sys.executable, "-m", "bert_ft", "predict", str(run.path), str(source), "-o"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"}
    whole = subprocess.run(
        [*arguments, "whole"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert whole.returncode == 2
    process = subprocess.Popen([*ALONE, *arguments, "out", "--on", "ray", "--workers", "2"], cwd=tmp_path, text=True,
                               stderr=subprocess.PIPE, env=environment)  # fmt: skip
    killed: set[int] = set()
    out, deadline = tmp_path / "out", time.monotonic() + 400
    while process.poll() is None and len(killed) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
        if list(out.glob(f"{records.FOLDER}/*.tmp")):  # something is being answered
            for worker in set(_workers()) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
    _, told = process.communicate(timeout=400)
    assert process.returncode == 2 and len(killed) >= 3, (process.returncode, killed, told)
    assert _visible(out) == _visible(tmp_path / "whole") and len(_visible(out)) == 12
    assert not list(out.glob(f"{records.FOLDER}/*.tmp*"))

    def lines(text: str) -> list[str]:
        return sorted(
            line for line in text.splitlines() if line.startswith((str(source), "12 files", "12 of"))
        )

    assert lines(told) == lines(whole.stderr) and len(lines(told)) == 14
    assert not _workers()


@pytest.mark.parametrize(("arguments", "message"), [
    (["in/cells.csv", "-o", "out.csv", "--on", "ray"], "--on ray: one file is answered by one process"),
    (["-", "--on", "ray"], "--on ray: one file is answered by one process"),
    (["in", "-o", "out", "--workers", "2"], "--workers: workers are those of a cluster"),
    (["in", "-o", "out", "--on", "nowhere"], "--on nowhere: this is no address of a cluster"),
    (["in", "-o", "out", "--on", "ray"], 'Ray is not installed\n  pip install "bert-ft[ray]"'),
])  # fmt: skip
def test_clusters_refused(
    run: bert_ft.Run,
    tmp_path: Path,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    _folder(tmp_path / "in")
    done = cli("predict", run.path, *arguments)
    assert done.code == 2 and message in done.err and not _visible(tmp_path / "out"), done


class FakeRay:
    """As much of Ray as the pool of workers needs, in this process; a call of `fatal` is the death of its worker."""

    class exceptions:
        class RayActorError(Exception):
            pass

        class RayTaskError(Exception):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[-1:], references[:-1]  # the last first: orders must not matter

    def get(self, reference: Callable[[], Any]) -> Any:
        return reference()


class Remote:
    """A method of a worker, and what calls it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self.method(*arguments)


@dataclass
class FakeWorker:
    work: Callable[[Any], Any]

    @property
    def ready(self) -> Remote:
        return Remote(lambda: 1)

    @property
    def answer(self) -> Remote:
        return Remote(self.work)


def _pool(work: Callable[[Any], Any], items: list[folders.Item], told: list[str]) -> many.Summary:
    return on_ray._Pool(
        FakeRay(), [FakeWorker(work) for _ in range(2)], told.append, FilesProgress(items)
    ).answer(items)  # fmt: skip


def test_pool_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that another command holds come last; one whose worker dies again and again is told, and the others go on;
    a disk that is full ends it all."""
    monkeypatch.setattr(on_ray, "PAUSE", 0.01)
    source = _many_files(tmp_path / "in", 6, 3)
    items, calls = folders.plan(str(source), str(tmp_path / "out")).items, list[str]()

    def work(item: folders.Item) -> many.Result:
        calls.append(item.name)
        if item.name.endswith("01.jsonl"):
            raise FakeRay.exceptions.RayActorError("the node has no memory left")
        if item.name.endswith("02.jsonl") and len(calls) < 9:
            return many.Result(item, "held")
        return many.Result(item, "answered", 3, 1, [f"{item.name} is fine"])

    told: list[str] = []
    summary = _pool(work, items, told)
    assert summary.counts == {"answered": 5, "failed": 1} and (summary.rows, summary.bad) == (15, 5)
    assert summary.exit_code(keep_bad=True) == 2
    assert Counter(calls).pop("part-02.jsonl") > 1 and {*Counter(calls).values()} > {1}
    assert sorted(told) == sorted(
        [f"{source}/deep/part-01.jsonl: its worker died 3 times: the node has no memory left"]
        + [f"{item.name} is fine" for item in items if "01" not in item.name]
    )

    def full(item: folders.Item) -> many.Result:
        raise FakeRay.exceptions.RayTaskError(MachineError("the disk is full", where="out"))

    with pytest.raises(MachineError, match="out: the disk is full"):
        _pool(full, items, [])

    def none() -> int:
        raise FakeRay.exceptions.RayActorError("no module named bert_ft")

    monkeypatch.setattr(FakeWorker, "ready", Remote(none))
    with pytest.raises(MachineError, match="workers can't start: no module named bert_ft"):
        _pool(work, items, [])


# --- what another command did -----------------------------------------------------------------------------------------


def test_answers_of_another_command_are_told(run: bert_ft.Run, tmp_path: Path) -> None:
    """Two commands with other settings in one folder left a mixture, and both were content."""
    _folder(tmp_path / "in")
    plan = folders.plan(str(tmp_path / "in"), str(tmp_path / "out"))
    mine, theirs = (
        many.Answering(run.model, tmp_path / "out", made_by(run.model, options, {}), options)
        for options in ({}, {"keep_bad": True})
    )
    real, done = mine.answer, list[str]()

    def answered(item: folders.Item, *rest: Any) -> many.Result:
        result = real(item, *rest)
        if not done:
            done.append(theirs.answer(item).state)  # the other command comes behind
        return result

    mine.answer = answered  # type: ignore[method-assign]
    summary = many.answer_all(mine, plan)
    assert done == ["answered"]
    assert summary.mixed == 1 and summary.exit_code(keep_bad=True) == 2
    assert any("1 files have answers of another command by now" in line for line in summary.lines(False))
    mine.answer = real  # type: ignore[method-assign]
    assert many.answer_all(mine, plan).mixed == 0


def test_answers_without_their_rows_are_told(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    _folder(tmp_path / "in")
    cli("predict", run.path, "in", "-o", "out")
    (tmp_path / "in" / "one.parquet").rename(tmp_path / "in" / "other.parquet")
    told = "1 files of answers here are of rows that are not among these: one.parquet"
    assert told in cli("predict", run.path, "in", "-o", "out").err
    (tmp_path / "out" / "one.parquet").unlink()
    assert "not among these" not in cli("predict", run.path, "in", "-o", "out").err


def test_parquet_without_the_column_is_one_message(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    pq.write_table(pa.table({"review": ["a film"] * 40}), tmp_path / "rows.parquet")
    done = cli("predict", run.path, "rows.parquet", "-o", "out.jsonl")
    assert done.code == 2 and len(done.err.splitlines()) == 2 and "no column 'text'" in done.err
    (tmp_path / "rows.csv").write_text("review,n\na film,1\n")
    done = cli("predict", run.path, "rows.csv", "-o", "out.jsonl")
    assert done.code == 2 and "--column text=1" in done.err and "--label" not in done.err


def test_records_of_an_earlier_version_are_read(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """They do not say what the model read of the rows; what holds no numbers where they belong is no record."""
    (tmp_path / "in").mkdir()
    for name in "abc":
        pq.write_table(pa.Table.from_pylist(_rows(0, 10)), tmp_path / "in" / f"{name}.parquet")
    assert cli("predict", run.path, "in", "-o", "out").code == 0
    for file in (tmp_path / "out" / ".answered").glob("*.json"):
        record = json.loads(file.read_text())
        if record["name"] == "a.parquet":
            del record["counts"]
        if record["name"] == "b.parquet":
            record["rows"] = None
        file.write_text(json.dumps(record))
    done = cli("predict", run.path, "in", "-o", "out")
    assert "2 of 20 rows are longer" in done.err
    assert "3 files: 1 answered, 2 there already; 30 rows in, 30 out" in done.err
