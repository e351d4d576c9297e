"""Runs are watched: how far they are while they are trained, whose they are, and that it ends."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.rundir import lease
from bert_ft.rundir.folder import RunDir
from bert_ft.tools import listing

ROWS = [{"text": text, "label": label} for text, label in (("good film", "a"), ("bad film", "b"))] * 16


class _Ends(bert_ft.Callback):
    """As a person who presses Ctrl-C, after some steps."""

    def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
        if step == 3:
            raise KeyboardInterrupt


@pytest.fixture
def unfinished(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A run that was broken off in its second epoch."""
    with pytest.raises(KeyboardInterrupt):
        bert_ft.finetune(
            "classification", str(tiny_checkpoint), train=ROWS, validation=ROWS[:4], output=tmp_path / "runs" / "mine", epochs=4,
            batch_size=16, log_every=1, eval_every="epoch", callbacks=[_Ends()], quiet=True,
        )  # fmt: skip
    return tmp_path / "runs" / "mine"


def test_how_far_a_run_is(unfinished: Path) -> None:
    assert re.fullmatch(
        r"epoch 1\.50 of 4, loss 0\.\d{4}, nobody works on it", listing.course(str(unfinished))
    )
    with RunDir(unfinished).lock():
        assert re.fullmatch(
            r"epoch 1\.50 of 4, loss 0\.\d{4}, about \d+ s left", listing.course(str(unfinished))
        )
    with lease.held(unfinished, 5.0):
        assert listing.course(str(unfinished)).endswith(f"process {os.getpid()} on {os.uname().nodename}")
    (unfinished / "log.jsonl").write_text("{")
    assert listing.course(str(unfinished)) == "nobody works on it"


def test_watching_ends_with_the_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "good film,a\nbad film,b\n" * 200)
    command = [
        sys.executable, "-P", "-m", "bert_ft", "train", "classification", "--checkpoint", str(tiny_checkpoint),
        "--train", str(rows), "--validation", "10%", "--epochs", "4", "--output", str(tmp_path / "runs" / "a"), "--no-baselines",
    ]  # fmt: skip
    shown: list[list[dict[str, Any]]] = []
    said: list[str] = []
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = listing.Runs(str(tmp_path / "runs"), lambda *lines: said.extend(lines))
        listing.watch(lambda: list(found.rows()), shown.append, 0.02)
    finally:
        assert child.wait(120) == 0
    assert [row["state"] for row in shown[-1]] == ["finished"] and shown[-1][0]["course"] == ""
    states = [row["state"] for rows in shown for row in rows]
    assert "unfinished" in states and set(states) <= {"unfinished", "finished"}
    assert any(row["course"] != "nobody works on it" for rows in shown for row in rows if row["course"])
    assert not said


def test_runs_that_vanish_are_left_out(unfinished: Path) -> None:
    """While they are looked for and read; nothing is told of them."""
    said: list[str] = []
    found = listing.Runs(str(unfinished.parent), lambda *lines: said.extend(lines))
    over = threading.Event()

    def make_and_delete() -> None:
        for number in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
            passing = unfinished.parent / f"passing-{number}"
            shutil.copytree(unfinished, passing)
            shutil.rmtree(passing)

    thread = threading.Thread(target=make_and_delete)
    thread.start()
    try:
        for _ in range(300):
            rows = list(found.rows())
            assert str(unfinished) in {row["run"] for row in rows}
    finally:
        over.set()
        thread.join()
    assert not [line for line in said if "no such task" in line]


def test_a_finished_run_is_read_once(
    unfinished: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = unfinished.parent / "other"
    bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=ROWS, validation=ROWS[:4], output=other, quiet=True
    )
    read: list[Path] = []
    original = RunDir.results
    monkeypatch.setattr(RunDir, "results", lambda self: (read.append(self.path), original(self))[1])
    found = listing.Runs(str(unfinished.parent), print)
    assert [list(found.rows()), list(found.rows())][0] == list(found.rows())
    assert read == [other]


def test_a_terminal_shows_it_and_lets_go(unfinished: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    command = [sys.executable, "-P", "-m", "bert_ft", "runs", str(unfinished.parent), "--watch"]
    child = subprocess.Popen(
        command, stdout=slave, stderr=slave,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )  # fmt: skip
    os.close(slave)
    seen = b""
    ends = time.monotonic() + 60
    while b"nobody works on it" not in seen and time.monotonic() < ends:
        if select.select([master], [], [], 1)[0]:
            seen += os.read(master, 4096)
    child.send_signal(signal.SIGINT)
    try:
        assert child.wait(30) == 0
    finally:
        child.kill()
        os.close(master)
    assert b"nobody works on it" in seen and b"Traceback" not in seen


def test_without_a_terminal_it_is_refused(unfinished: Path) -> None:
    command = [sys.executable, "-P", "-m", "bert_ft", "runs", str(unfinished.parent), "--watch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "runs are watched on a terminal" in done.stderr
