"""Jobs and who runs them: one process a device, what fails leaves its cause, what another holds is waited
for."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bert_ft.config.task import Task
from bert_ft.jobs import local
from bert_ft.jobs.base import Job, Running, Watcher
from bert_ft.rundir.folder import HELD, RunDir

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
what, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
def ended(*_):
    (folder / "interrupted").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, ended)
print("step 1", file=sys.stderr, flush=True)
began = time.time()
if what == "fail":
    sys.exit("  bert-ft: the data is at fault\\n  mend it")
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "held" and not (folder.parent / "free").exists():
    (folder.parent / "free").touch()
    sys.exit("bert-ft: HELD: process 1")
if what == "sleep":
    (folder / "started").touch()
    time.sleep(60)
time.sleep(0.5)
times = [os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.time()]
(folder / "times.json").write_text(json.dumps(times))
(folder / "environment.json").write_text('{"data_fingerprint": "x"}')
(folder / "task.toml").write_text("")
(folder / "results.json").write_text("{}")
""".replace("HELD", HELD)


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of `bert-ft` a child runs `SCRIPT`, which leaves what a run leaves."""
    monkeypatch.setattr(local, "python", lambda module, *words: [sys.executable, "-c", SCRIPT, *words])


def job(folder: Path, what: str = "run") -> Job:
    return Job(Task(), RunDir(folder), [what, str(folder)])


class Told(Watcher):
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.last: set[str] = set()

    def started(self, job: Job) -> None:
        self.lines.append(("started", job.name))

    def ended(self, job: Job) -> None:
        self.lines.append((job.state, job.name))

    def look(self, running: Sequence[Running]) -> None:
        self.last |= {each.last_line() for each in running if time.monotonic() > each.began}


def test_one_process_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "devices", lambda: ["3", "5"])
    jobs, told = [job(tmp_path / f"run-{i}") for i in range(5)], Told()
    local.Processes(tmp_path / "logs").run(jobs, told)
    assert [each.state for each in jobs] == ["finished"] * 5
    assert sorted(told.lines) == sorted((how, each.name) for each in jobs for how in ("started", "finished"))
    assert "step 1" in told.last
    assert (tmp_path / "logs/run-4.txt").read_text() == "step 1\n"
    times = [json.loads((each.folder.path / "times.json").read_text()) for each in jobs]
    assert {device for device, *_ in times} == {"3", "5"}
    for device in ("3", "5"):
        own = sorted((began, ended) for where, began, ended in times if where == device)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(own)), "one at a time"
    assert any(a[1] < b[2] and b[1] < a[2] for a in times for b in times if a[0] != b[0]), "side by side"
    again = Told()
    local.Processes(tmp_path / "logs").run(jobs, again)
    assert again.lines == [("finished", each.name) for each in jobs], "a finished run is not repeated"


def test_what_fails_leaves_its_cause_and_the_rest_goes_on(tmp_path: Path) -> None:
    jobs = [job(tmp_path / "a", "fail"), job(tmp_path / "b", "killed"), job(tmp_path / "c")]
    told = Told()
    local.Processes(tmp_path / "logs").run(jobs, told)
    assert [each.state for each in jobs] == ["failed", "failed", "finished"]
    assert jobs[0].cause == "the data is at fault\n  mend it" and jobs[2].cause == ""
    assert jobs[1].cause in ("step 1", "killed by SIGKILL")
    assert [line for line in told.lines if line[0] != "started"] == [
        ("failed", "a"),
        ("failed", "b"),
        ("finished", "c"),
    ]


def test_a_job_that_another_command_holds_is_waited_for(tmp_path: Path) -> None:
    """Whether that is seen before it is started, or only the child finds out."""
    held, found = job(tmp_path / "held"), job(tmp_path / "found", "held")
    lock = held.folder.lock()
    lock.__enter__()

    def finish() -> None:
        for name, text in (
            ("environment.json", '{"data_fingerprint": "x"}'),
            ("task.toml", ""),
            ("results.json", "{}"),
        ):
            (held.folder.path / name).write_text(text)
        lock.__exit__(None, None, None)

    timer = threading.Timer(2, finish)
    timer.start()
    told = Told()
    local.Processes(tmp_path / "logs").run([held, found], told)
    timer.join()
    assert held.state == found.state == "finished" and not held.cause and not found.cause
    assert told.lines.count(("started", "held")) == 0, "the other command made it"
    assert told.lines.count(("started", "found")) == 2 and told.lines.count(("finished", "found")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_us_ends_the_children(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    # a shell starts what runs in its background with SIGINT ignored
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    sleeping, waiting = job(tmp_path / "a", "sleep"), job(tmp_path / "b")
    handler = signal.getsignal(signal.SIGTERM)

    class Ending(Told):
        def look(self, running: Sequence[Running]) -> None:
            if (sleeping.folder.path / "started").exists():
                os.kill(os.getpid(), number)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        local.Processes(tmp_path / "logs", signals=True).run([sleeping, waiting], Ending())
    assert time.monotonic() - began < 30 and signal.getsignal(signal.SIGTERM) == handler
    assert (tmp_path / "a/interrupted").exists() == (number == signal.SIGINT), "it got the same signal"
    assert not (tmp_path / "a/results.json").exists() and not (tmp_path / "b").exists()


def test_in_this_process(tmp_path: Path) -> None:
    """One after the other; what goes wrong is raised, and the rest is left."""
    jobs, done, bad, told = [job(tmp_path / name) for name in "abc"], list[Any](), {"b"}, Told()

    def train(job: Job) -> None:
        if job.name in bad:
            raise ValueError(job.name)
        done.append(job.name)

    with pytest.raises(ValueError, match="b"):
        local.InProcess(train).run(jobs, told)
    assert done == ["a"] and told.lines == [("started", "a"), ("new", "a"), ("started", "b")]
    done.clear()
    bad.clear()
    local.InProcess(train).run(jobs)
    assert done == ["a", "b", "c"]


def test_a_command_is_one_for_the_shell(tmp_path: Path) -> None:
    words = ["train", "a task.toml", "--output", "it's"]
    assert Job(Task(), RunDir(tmp_path), words).command == "bert-ft train 'a task.toml' --output 'it'\"'\"'s'"


def test_what_a_run_asks_for_needs_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of this machine alone never grows: a run that asks for more would wait for good."""
    from bert_ft.config.schema import Execution
    from bert_ft.errors import InputError
    from bert_ft.jobs.cluster import Cluster, Connection
    from bert_ft.jobs.needs import needs

    class Ray:
        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 2.0, "memory": 2.0**32}}]

    with pytest.raises(ValueError, match="--on ray"):
        Execution(per_run="cpus=1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match=r"2 CPUs, 0 GPUs and 4\.0 GB"):
        Connection(Ray(), Cluster("ray", tmp_path, needs("cpus=64")), tmp_path / "token")
    assert Connection(Ray(), Cluster("ray", tmp_path, needs("cpus=2")), tmp_path / "token").room == 1
    named = Connection(Ray(), Cluster("ray://head:10001", tmp_path, needs("gpus=1")), tmp_path / "token")
    assert named.room == 0  # it may add a node
