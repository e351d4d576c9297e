"""Runs on a Ray cluster equal the local runner's; what dies is made again, what fails is told, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bert_ft
from benchmarks.nodes import ENVIRONMENT, alone, below
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.jobs import cluster, ray
from bert_ft.jobs.base import Job, RunsFailed, refuse_failed
from bert_ft.jobs.needs import Needs, needs
from bert_ft.modeling import contradictions
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.lease import HELD

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., Any]


# --- without a cluster --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:1", "no cluster answers"),
        ("ray://127.0.0.1", "no address of a cluster"),
        ("ray://127.0.0.1:99999", "no cluster answers"),
        ("slurm", "no address of a cluster"),
    ],
)
def test_a_wrong_address_is_one_message(
    address: str, message: str, cli: Cli, reviews: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray, "TIMEOUT", 1)
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as caught, ray.connect(address):
        pass
    assert caught.value.where == f"--on {address}" and caught.value.remedy
    assert time.monotonic() - began < 20


def test_an_address_of_the_environment_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match="no cluster answers") as caught, ray.connect("ray"):
            pass
        assert f"RAY_ADDRESS={address}" in caught.value.where and "unset RAY_ADDRESS" in caught.value.remedy


def test_ray_that_is_not_installed_is_one_message(
    cli: Cli, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    task = write_task(tmp_path)
    for line in (
        ["reproduce", task, "--seeds", "2"],
        ["curve", task, "--shares", "50%", "100%", "--seeds", "2"],
        ["train", task, "--folds", "2"],
        ["search", task, "--trials", "2"],
    ):
        done = cli(*line, "-c", tiny_checkpoint, "--on", "ray", "--output", f"out-{line[0]}")
        assert done.code == 2 and 'pip install "bert-ft[ray]"' in done.err and "Traceback" not in done.err
        assert not list((tmp_path / f"out-{line[0]}").glob("*/environment.json")), "nothing was trained"


def test_what_a_cluster_does_not_do_is_refused(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    done = cli("train", task, "-c", tiny_checkpoint, "--on", "ray")
    assert done.code == 2 and "one run is made on this machine" in done.err
    done = cli("reproduce", task, "-c", tiny_checkpoint, "--on", "ray", "--plan")
    assert done.code == 2 and "--plan runs nothing" in done.err
    done = cli("reproduce", "stsbenchmark", "-c", tiny_checkpoint, "--on", "ray")
    assert done.code == 2 and "nothing is trained" in done.err
    done = cli("reproduce", task, "-c", tiny_checkpoint, "--on", "ray", "--per-run", "disks=2", "-o", "out")
    assert done.code == 2 and "'disks=2'" in done.err and "cpus=4,gpus=1" in done.err
    (tmp_path / "on.toml").write_text(task.read_text() + '\n[execution]\non = "ray"\n')
    done = cli("train", tmp_path / "on.toml", "-c", tiny_checkpoint, "--folds", "2")
    assert done.code == 2 and "a file can't set execution.on" in done.err
    with pytest.raises(InputError, match="Python objects"):
        contradictions.refuse_objects([{}, (), None, lambda: None])
    contradictions.refuse_objects([{}, (), None])
    rows = [{"text": "a film", "label": "yes"}, {"text": "no film", "label": "no"}] * 4
    for objects in ({"train": rows}, {"loss": print}, {"callbacks": [print]}):
        with pytest.raises(InputError, match="Python objects"):
            bert_ft.finetune(task, str(tiny_checkpoint), folds=2, on="ray", **objects)  # type: ignore[arg-type]


def test_nothing_of_ray_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, bert_ft.jobs.remote, bert_ft.tools.reproduce.reproduce; sys.exit('ray' in sys.modules)"
    )
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-P", "-c", code], env=own, check=False).returncode == 0


def test_what_a_run_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert needs(None) == Needs(1, None, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert needs("") == Needs(3, None, None)
    asked = needs("cpus=4, gpus=0.5,memory=1.5GB")
    assert asked == Needs(4, 0.5, 1.5 * 2**30)
    for wrong in ("cpus", "cpus=x", "gpus=1GB", "cpus=0", "memory=-1", "cpus=1;gpus=1"):
        with pytest.raises(InputError, match=r"--per-run|a run needs a CPU|nothing that a run can ask for"):
            needs(wrong)
    plain, gpus = {"CPU": 8.0, "memory": 4e9}, {"CPU": 8.0, "GPU": 3.0, "memory": 4e9}
    assert Needs(2).on([plain, plain]).gpus == 0 and Needs(2).on([plain, gpus]).gpus == 1
    assert Needs(2, 0).times(plain) == 4 and Needs(2, 1).times(gpus) == 3 and Needs(2, 1).times(plain) == 0
    assert Needs(1, 0, 3e9).times(plain) == 1


def test_how_often_a_job_is_tried(tmp_path: Path) -> None:
    """The user's own error at once, any other three times; a node's death is none of the run's."""

    def turn() -> cluster._Turn:
        return cluster._Turn(Job(Task(), RunDir(tmp_path / "run"), ["train"], node="there"))

    assert turn().over(0, "")
    mine = turn()
    assert mine.over(2, "the data is at fault") and mine.job.cause == "the data is at fault\n  on there"
    failing = turn()
    assert [failing.over(1, "the disk is full") for _ in range(3)] == [False, False, True]
    assert failing.job.state == "failed" and "the disk is full" in failing.job.cause
    dying = turn()
    assert [dying.over(None, "its worker died") for _ in range(3)] == [False] * 3 and dying.mine
    assert 15 < dying.not_before - time.monotonic() <= 20, "a cluster that is gone for a moment is waited for"
    assert not dying.over(1, "killed by SIGKILL") and dying.over(None, "its worker died")
    waiting = turn()
    for _ in range(20):
        assert not waiting.over(2, f"{HELD}: process 1 on there"), "it is waited for"
    assert not waiting.job.cause and 50 < waiting.not_before - time.monotonic() <= 60
    with pytest.raises(RunsFailed) as caught:
        refuse_failed([mine.job, turn().job, failing.job])
    assert caught.value.exit_code == 1 and caught.value.lines[0] == "2 of 3 runs failed"
    assert [line.strip() for line in caught.value.lines[1:3]] == ["run: the data is at fault", "on there"]


def test_the_child_goes_when_its_parent_does(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """A node's worker that is killed leaves no run behind; one that was started with signals blocked, as Ray's are,
    saves its state first."""
    words = [
        "train",
        str(write_task(tmp_path)),
        "-c",
        str(tiny_checkpoint),
        "--output",
        "run",
        "--set",
        "max_steps=1000000",
    ]
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})\n"
        "words = [sys.executable, '-P', '-m', 'bert_ft.jobs.child', str(os.getpid())]\n"
        "print(subprocess.Popen([*words, *sys.argv[1:]], start_new_session=True).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    log = tmp_path / "run/log.jsonl"
    wait_until(lambda: log.is_file() and log.stat().st_size > 0)
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(child))
    assert list((tmp_path / "run/checkpoints").glob("step-*/state.json"))


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- on a cluster of this machine ----------------------------------------------------------------------------------------


@pytest.fixture
def inside() -> list[str]:
    """What stands before a command that has a network of its own."""
    pytest.importorskip("ray", reason="Ray is not installed")
    if not (prefix := alone()):
        pytest.skip("this machine allows no network of one's own (unshare -n)")
    return prefix


def write_task(folder: Path) -> Path:
    for name, n in (("train", 40), ("validation", 24)):
        rows = [{"text": f"the {'warm' if i * i % 3 else 'dull'} film {i}", "label": "yes" if i * i % 3 else "no"} for i in range(n)]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "films.toml"
    file.write_text("""
        [data]
        train = "train.jsonl"
        evaluate = "validation.jsonl"
        [recipe]
        max_steps = 6
        batch_size = 8
        max_length = 16
        learning_rate = 3e-3
        """)
    return file


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BERT_FT_CACHE": str(folder / "cache")}
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | ENVIRONMENT | own | more


def outcome(folder: Path) -> dict[str, Any]:
    """What has to be equal, to the byte: predictions and the task; and the results without their times."""
    found: dict[str, Any] = {}
    for file in (*folder.glob("*/predictions/*"), *folder.glob("*/task.toml")):
        found[str(file.relative_to(folder))] = file.read_bytes()
    for file in folder.glob("*/results.json"):
        found[str(file.relative_to(folder))] = json.loads(file.read_text()) | {"timing": None}
    return found


SCRIPT = """
import json, sys
from pathlib import Path
from bert_ft.jobs.base import Job
from bert_ft.jobs.cluster import Cluster
from bert_ft.jobs.local import Processes
from bert_ft.jobs.needs import needs
from bert_ft.jobs.remote import Lines
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce.plan import plan

def jobs(output):
    made = [Job(run.task, run.folder, run.argv) for run in plan("films.toml", "tiny-bert", seeds=2, output=output).runs]
    bad = made[0].task.override({"run.checkpoint": "not-there"})
    return [*made, Job(bad, RunDir(Path(output) / "bad"), ["train", "films.toml", "--output", f"{output}/bad", "-c", "not-there"])]

here, there = jobs("local"), jobs("on-ray")
Processes(Path("local/logs")).run(here)
lines = []
with Cluster("ray", Path("on-ray/logs"), needs("cpus=1")).connected() as connection:
    said = str(connection)
    connection.run(there, Lines(lines.append, 3))
    again = jobs("on-ray")[:2]
    connection.run(again, Lines(lines.append, 2))
print(json.dumps({"here": [[j.state, j.cause] for j in here], "there": [[j.state, j.cause] for j in there],
                  "again": [j.state for j in again], "lines": lines, "said": said}))
"""


def test_a_cluster_s_runs_are_the_local_runner_s(
    inside: list[str], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """To the byte; a job that fails is told with its cause, and once; a finished one is not made again."""
    write_task(tmp_path)
    (tmp_path / "tiny-bert").symlink_to(tiny_checkpoint)
    done = subprocess.run(
        [*inside, sys.executable, "-P", "-c", SCRIPT], cwd=tmp_path, env=environment(tmp_path), text=True,
        capture_output=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [state for state, _ in told["here"]] == ["finished", "finished", "failed"]
    assert [state for state, _ in told["there"]] == ["finished", "finished", "failed"]
    cause, node = told["there"][2][1].rsplit("\n  on ", 1)
    assert cause == told["here"][2][1] and "not-there" in cause
    assert (
        outcome(tmp_path / "local") == outcome(tmp_path / "on-ray") and len(outcome(tmp_path / "local")) >= 6
    )
    assert told["again"] == ["finished", "finished"]
    assert [line.split(":")[1].split(" on ")[0] for line in told["lines"]].count(" started") == 3
    assert sum(f"started on {node}" in line for line in told["lines"]) == 3
    assert "1 node, with room for" in told["said"]
    assert not list((tmp_path / "on-ray/logs").glob(".*")), "the file that nodes look for is gone"
    assert not list((tmp_path / "on-ray").glob("*/.lease*"))


def started(folder: Path, inside: list[str], *words: str, **more: str) -> subprocess.Popen[bytes]:
    """A command under way in a network of its own, as a terminal starts it; what it prints is in out.txt."""
    log = (folder / "out.txt").open("ab")
    return subprocess.Popen(
        [*inside, sys.executable, "-P", "-m", "bert_ft", *words], cwd=folder, env=environment(folder, **more),
        stdout=log, stderr=log, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_us_leaves_nothing_behind_and_the_next_goes_on(
    number: signal.Signals, inside: list[str], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """No child, no worker, no daemon of Ray; the states are saved, and the same command goes on from them."""
    task = write_task(tmp_path)
    task.write_text(task.read_text().replace("max_steps = 6", "max_steps = 3000\neval_every = 1500"))
    words = ["reproduce", "films.toml", "-c", str(tiny_checkpoint), "--seeds", "2", "--output", "out"]
    process = started(tmp_path, inside, *words, "--on", "ray", "--per-run", "cpus=1")
    try:
        wait_until(lambda: len(list((tmp_path / "out").glob("*/log.jsonl"))) == 2)
        family = below(process.pid)
        runs = [
            each for each in family if b"bert_ft.jobs.child" in Path(f"/proc/{each}/cmdline").read_bytes()
        ]
        assert len(runs) == 2 and len(family) > 6
        began = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        process.wait(180)
        assert time.monotonic() - began < 60, "no task waited for its end in vain"
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(map(alive, family)), 60)
    text = (tmp_path / "out.txt").read_text()
    assert process.returncode in (130, 1) and "Traceback" not in text, text
    assert len(list((tmp_path / "out").glob("*/checkpoints/step-*/state.json"))) >= 2
    assert not list((tmp_path / "out").glob("*/.lease*")) and not list((tmp_path / "out/logs").glob(".*"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bert_ft", *words], cwd=tmp_path, env=environment(tmp_path), timeout=600
    )
    assert done.returncode == 0
    for file in (tmp_path / "out").glob("*/environment.json"):
        assert json.loads(file.read_text())["resumed"], "it went on where it was"


@pytest.mark.slow
def test_a_second_command_joins(inside: list[str], tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Two commands, each with a cluster of its own, over one folder: each run is made once."""
    task = write_task(tmp_path)
    task.write_text(task.read_text().replace("max_steps = 6", "max_steps = 600"))
    words = [
        "reproduce",
        "films.toml",
        "-c",
        str(tiny_checkpoint),
        "--seeds",
        "4",
        "--output",
        "out",
        "--on",
        "ray",
    ]
    both = [started(tmp_path, inside, *words, BERT_FT_LEASE="4") for _ in range(2)]
    for process in both:
        assert process.wait(600) == 0, (tmp_path / "out.txt").read_text()
    for log in (tmp_path / "out").glob("*/log.jsonl"):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line]
        assert steps == sorted(set(steps)), "by one worker, once"
    assert len(list((tmp_path / "out").glob("*/results.json"))) == 4


@pytest.mark.slow
def test_nodes_that_die(inside: list[str]) -> None:
    """A suite of 12 runs, three nodes killed: all finish, none is repeated, every table equals the local runner's."""
    script = ROOT / "benchmarks/cluster.py"
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), "--trials", "1"], capture_output=True, text=True, timeout=1500, env=own
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 trials: all 12 runs finished, none repeated, every table equal" in done.stdout


@pytest.mark.slow
def test_folds_curve_and_search(inside: list[str], tmp_path: Path, tiny_checkpoint: Path) -> None:
    """As the local ones: folds, points and trials, one at a time, so that the draws of a search are the same."""
    write_task(tmp_path)
    common = ["films.toml", "-c", str(tiny_checkpoint)]
    for name, *words in (
        ("folds", "train", *common, "--folds", "2"),
        ("curve", "curve", *common, "--shares", "50%", "100%", "--seeds", "2"),
        ("search", "search", *common, "--trials", "3", "--set", "max_steps=20", "--set", "eval_every=5"),
    ):
        for prefix, more in (([], []), (inside, ["--on", "ray", "--per-run", "cpus=2"])):
            place = f"{name}-{'there' if more else 'here'}"
            done = subprocess.run(
                [*prefix, sys.executable, "-P", "-m", "bert_ft", *words, "--output", place, *more], cwd=tmp_path,
                env=environment(tmp_path), capture_output=True, text=True, timeout=900,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        here, there = (outcome(tmp_path / f"{name}-{where}") for where in ("here", "there"))
        assert here == there and len(here) > 4, name
        for file in (tmp_path / f"{name}-here").glob("predictions/*"):
            assert file.read_bytes() == (tmp_path / f"{name}-there/predictions" / file.name).read_bytes()
