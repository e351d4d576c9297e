"""The lease of a run: who may take it over, when, and what becomes of a holder that lost it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from bert_ft import files
from bert_ft.errors import InputError
from bert_ft.rundir import lease
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.lease import HELD, LOST, Lease

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    """A clock that stands still until it is told how long to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ended(Exception):
    pass


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_seen", {})


def test_it_is_over_once_it_was_seen_unchanged_for_its_whole_time(tmp_path: Path) -> None:
    """By the observer's own clock, whatever that shows: the holder's is years apart."""
    holder, observer = Clock(), Clock()
    observer.now = 5e8
    assert not lease.alive(tmp_path, observer)
    held = Lease(tmp_path / ".lease-1", 20.0, holder)
    for _ in range(3):
        assert lease.alive(tmp_path, observer)
        observer.now += 19.9
        assert lease.alive(tmp_path, observer), "a look that is too early"
        assert held.renew()
        observer.now += 100
        assert lease.alive(tmp_path, observer), (
            "it has changed since the last look, however long ago that was"
        )
    observer.now += 20.0
    assert not lease.alive(tmp_path, observer)
    held.release()
    assert not lease.alive(tmp_path, observer) and not list(tmp_path.iterdir())


def test_one_of_many_takes_over_and_the_former_holder_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, taken, refused = Clock(), list[Lease](), list[str]()
    former = Lease(tmp_path / ".lease-1", 1.0, clock)
    start, stop = threading.Barrier(12), threading.Event()

    def contend() -> None:
        start.wait()
        try:
            taken.append(lease.take(tmp_path, 1.0))
        except InputError as error:
            refused.append(str(error))
        else:
            taken[-1].keep(stop)

    threads = [threading.Thread(target=contend) for _ in range(12)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(taken) + len(refused) < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(taken) == 1 and len(refused) == 11 and all(HELD in text for text in refused)
    assert [entry.name for entry in tmp_path.iterdir()] == [".lease-2"]

    def end(self: Lease) -> NoReturn:
        raise Ended

    monkeypatch.setattr(Lease, "end", end)
    clock.now += 0.49
    former.guard()  # it renewed it so lately that nobody can have taken over
    clock.now += 0.02
    with pytest.raises(Ended):
        former.guard()
    assert not former.renew()
    former.release()
    assert [entry.name for entry in tmp_path.iterdir()] == [".lease-2"], "it takes nobody else's away"
    assert taken[0].renew()


def test_a_number_that_comes_again_is_another_lease(tmp_path: Path) -> None:
    former = Lease(tmp_path / ".lease-1", 20.0)
    (tmp_path / ".lease-1").unlink()
    other = Lease(tmp_path / ".lease-1", 20.0)
    assert not former.renew() and other.renew()


def test_what_two_dead_ones_left_is_taken_over(tmp_path: Path) -> None:
    """The second died while it took over from the first. A younger lease of a low number is nobody's to take."""
    gone = '{"owner": "gone", "count": 3, "seconds": 0.2}'
    for number in (3, 4):
        (tmp_path / f".lease-{number}").write_text(gone)
    lease.take(tmp_path, 0.2)
    assert [entry.name for entry in tmp_path.iterdir()] == [".lease-5"]


def test_another_lease_than_the_watched_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is taken over, it is counted up; or somebody else's came under a number that was free again."""
    real = Lease._write
    for number, content in ((1, b"later"), (2, b"watched")):
        (tmp_path / ".lease-2").write_bytes(b"watched")

        def write(self: Lease, create: bool = False, number: int = number, content: bytes = content) -> None:
            if create:
                (tmp_path / f".lease-{number}").write_bytes(content + b" otherwise")
            real(self, create)

        with monkeypatch.context() as patched:
            patched.setattr(Lease, "_write", write)
            patched.setattr(lease, "SECONDS", 0.2)
            with pytest.raises(InputError, match=HELD):
                lease.take(tmp_path, 0.2)
        left = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        assert left[f".lease-{number}"] == content + b" otherwise" and ".lease-3" not in left
        for entry in tmp_path.iterdir():
            entry.unlink()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"seconds": "x"}', b"\xff" * 300])
def test_a_damaged_one_is_waited_for_and_then_over(content: bytes, tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / ".lease-3").write_bytes(content)
    assert lease.alive(tmp_path, clock)
    assert "?" in lease.holder(tmp_path)
    clock.now += lease.SECONDS
    assert not lease.alive(tmp_path, clock)


def test_every_way_of_writing_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Ended

    (tmp_path / "there").write_text("")
    monkeypatch.setattr(files, "GUARDS", [refuse])
    run = RunDir(tmp_path / "run")
    for write in (
        lambda: files.write(tmp_path / "a", "x"),
        lambda: files.write_json(tmp_path / "a", {}),
        lambda: files.opened(tmp_path / "a"),
        lambda: files.clear(tmp_path, files.TEMPORARY),
        lambda: files.folder_beside(tmp_path / "b").__enter__(),
        lambda: run.append_log({}),
        lambda: run.clear(),
    ):
        with pytest.raises(Ended):
            write()
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_a_run_is_held_by_one_of_both_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's lease keeps a local command out, and a local command's lock a worker; a dead worker's lease is
    taken over, and what is left of it makes a folder no other thing than a run's."""
    run = RunDir(tmp_path / "run")
    with run.lock():
        assert run.busy and not list(run.path.glob(".lease-*")), "a local command has no lease"
        monkeypatch.setenv(lease.VARIABLE, "0.4")
        with pytest.raises(InputError, match=HELD), run.lock():
            pass
    with run.lock():
        assert run.busy and run.state == "new"
        text = (run.path / ".lease-1").read_text()
        assert json.loads(text)["process"] == os.getpid() and json.loads(text)["seconds"] == 0.4
        for seconds in ("", "0.4"):
            monkeypatch.setenv(lease.VARIABLE, seconds)
            with pytest.raises(InputError, match=f"{HELD}: process {os.getpid()} on"), run.lock():
                pass
    assert not run.path.exists(), "nothing came of it"
    run.path.mkdir()
    (run.path / ".lease-7").write_text('{"owner": "gone", "count": 3, "seconds": 0.4}')
    assert run.state == "new" and run.busy
    for seconds in ("", "0.4"):
        monkeypatch.setenv(lease.VARIABLE, seconds)
        began = time.monotonic()
        with run.lock():
            assert [entry.name for entry in run.path.glob(".lease-*")] == [".lease-8"]
            (run.path / "environment.json").write_text('{"data_fingerprint": ""}')
            (run.path / "task.toml").write_text("")
        assert seconds or time.monotonic() - began >= 0.4
        (run.path / ".lease-7").write_text('{"owner": "gone", "count": 3, "seconds": 0.4}')


WORKER = """
import sys, time
from pathlib import Path
from bert_ft import files
from bert_ft.rundir.folder import RunDir
run, name = RunDir(sys.argv[1]), sys.argv[2]
with run.lock():
    (run.path / "environment.json").write_text('{"data_fingerprint": ""}')
    (run.path.parent / f"has-{name}").touch()
    for number in range(100000):
        run.append_log({"by": name, "number": number})
        if name == "second" and number == 50:
            files.write(run.results_json, "{}")
        time.sleep(0.03)
"""


def test_a_stopped_worker_writes_nothing_once_another_has_taken_over(tmp_path: Path) -> None:
    """Two processes on one machine, where the kernel would have known better."""
    run = RunDir(tmp_path / "run")
    environment = os.environ | {"PYTHONPATH": str(ROOT), lease.VARIABLE: "2"}

    def start(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WORKER, str(run.path), name]
        return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def wait_for(path: Path) -> None:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert time.monotonic() < deadline, path
            time.sleep(0.02)

    first = start("first")
    try:
        wait_for(tmp_path / "has-first")
        alive = start("alive")
        _, error = alive.communicate(timeout=120)
        assert alive.returncode and HELD in error, "its holder lives"
        size = run.log_size()
        while (
            run.log_size() == size
        ):  # not between its look at the lease and the write that follows: it sleeps
            pass
        first.send_signal(signal.SIGSTOP)
        second = start("second")
        try:
            wait_for(run.results_json)
            first.send_signal(signal.SIGCONT)
            _, error = first.communicate(timeout=60)
            assert first.returncode == LOST and HELD in error and error.startswith("bert-ft: ")
            time.sleep(0.2)
        finally:
            second.kill()
            second.communicate()
    finally:
        first.kill()
        first.communicate()
    by = [entry["by"] for entry in run.log()]
    change = by.index("second")
    assert set(by[:change]) == {"first"} and set(by[change:]) == {"second"} and len(by) - change > 50
