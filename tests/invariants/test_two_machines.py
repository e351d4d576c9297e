"""Promise 3 on two machines: network namespaces with a cable between them, each with a launcher of its own.

What two processes of one machine share, these do not: the loopback, and with it every address that only works at home.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.invariants.test_processes import LAUNCH, SETTINGS, _predictions, _steps, _training, reviews

__all__ = ["reviews"]  # a fixture

ADDRESSES = ("10.213.0.1", "10.213.0.2")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces, whose `eth0` are the ends of one cable."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2's `ip`")
    names = [f"bert-ft-{os.getpid()}-{number}" for number in (0, 1)]
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel gives no network namespace: {error.stderr.strip()}")
        _ip(
            "link",
            "add",
            "eth0",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            names[1],
        )
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _start(machines: tuple[str, str], number: int, config: str, *arguments: str) -> subprocess.Popen[str]:
    """One machine's launcher, which starts one process."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / f"{config}.yaml"), "--num_machines", "2",
                "--num_processes", "2", "--machine_rank", str(number), "--main_process_ip", ADDRESSES[0],
                "--main_process_port", "29511", "--rdzv_backend", "static"]  # fmt: skip
    return subprocess.Popen(["ip", "netns", "exec", machines[number], sys.executable, *launcher, *arguments],
                            env={**os.environ, **SETTINGS, "GLOO_SOCKET_IFNAME": "eth0"}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip


def _of_machine(name: str, what: str) -> list[int]:
    """The processes of a machine whose command holds some words."""
    found = []
    for pid in subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
    ).stdout.split():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if what in command and "launch" not in command:
            found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.pretrained
@pytest.mark.parametrize("config", ["several_machines", "fsdp"])
def test_two_machines_give_one_machines_losses(
    machines: tuple[str, str], minilm2: Path, reviews: Path, tmp_path: Path, config: str
) -> None:
    command = _training(minilm2, reviews, tmp_path / "two", "--batch-size", "32", "--max-steps", "30")
    started = [_start(machines, number, config, *command) for number in (0, 1)]
    outputs = [each.communicate(timeout=600)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0], "\n".join(outputs)[-3000:]
    assert "run folder" in outputs[0] and "run folder" not in outputs[1], "the first machine alone tells"

    alone = _training(minilm2, reviews, tmp_path / "one", "--batch-size", "32", "--max-steps", "30")
    subprocess.run([sys.executable, *alone], env={**os.environ, **SETTINGS}, check=True, capture_output=True)
    losses = [[step["loss"] for step in _steps(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == 30
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    found = _predictions(tmp_path / "two")
    assert [line["row"] for line in found] == list(range(13)), "each row once, in order"
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


@pytest.mark.slow
@pytest.mark.pretrained
def test_a_machine_that_dies_ends_the_job_which_goes_on_with_the_other(
    machines: tuple[str, str], minilm2: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = _training(minilm2, reviews, run, "--batch-size", "32", "--max-steps", "40", "--save-every", "5")
    started = [_start(machines, number, "several_machines", *command) for number in (0, 1)]
    deadline = time.monotonic() + 300
    while not list(run.glob("checkpoints/step-*/state.json")) and time.monotonic() < deadline:
        assert started[0].poll() is None, started[0].communicate()[0][-3000:]
        time.sleep(0.05)
    victims = _of_machine(machines[1], "bert_ft")
    assert victims, "a worker on the second machine"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    os.killpg(started[1].pid, signal.SIGKILL)  # and the launcher with it: the machine is gone
    output, _ = started[0].communicate(timeout=300)
    assert started[0].returncode not in (0, None), output[-3000:]
    assert "connection" in output.lower(), output[-3000:]
    assert not (run / "results.json").exists()

    subprocess.run(
        [sys.executable, *command], env={**os.environ, **SETTINGS}, check=True, capture_output=True
    )
    environment = json.loads((run / "environment.json").read_text())
    assert len(environment["resumed"]) == 1
    steps = [step["step"] for step in _steps(run)]
    assert steps == list(range(1, 41)), "no step is missing, none is there twice"
