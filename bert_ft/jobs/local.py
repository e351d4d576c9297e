"""Jobs on this machine: in processes of their own, one on a GPU, one at a time without; or in this very
process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bert_ft import files
from bert_ft.errors import disk
from bert_ft.jobs.base import Job, Watcher
from bert_ft.rundir.lease import HELD

PAUSE = 0.2  # seconds between two looks at the children


class InProcess:
    """Runs jobs in this process, one after the other: those that Python objects take part in (a callback, a
    loss, rows in memory). What goes wrong in one is raised, so that the jobs behind it are left.

    Args:
        train: makes a job's run, or finds that it is finished.
    """

    def __init__(self, train: Callable[[Job], object]) -> None:
        self.train = train

    def run(self, jobs: Sequence[Job], watcher: Watcher | None = None) -> None:
        watcher = watcher or Watcher()
        for job in jobs:
            watcher.started(job)
            self.train(job)
            watcher.ended(job)


@dataclass
class Child:
    """A job under way in a process of its own."""

    job: Job
    process: subprocess.Popen[bytes]
    device: str | None
    log: Path
    began: float

    def last_line(self) -> str:
        """What it printed last; empty before it printed anything."""
        lines = [line for line in self._log_text().splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def fault(self) -> str:
        """Its own message of what went wrong, or else the end of what it printed; empty where nothing did."""
        return fault(self.process.returncode, self._log_text())

    def interrupt(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def wait(self) -> None:
        """Returns once it has ended."""
        self.process.wait()

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()

    def _log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def fault(code: int, printed: str) -> str:
    """What went wrong with a process of this exit code: its own message, or else the end of what it printed;
    empty where nothing did."""
    if code == 0:
        return ""
    text = printed.strip()
    own = text.rpartition("bert-ft: ")[2] if "bert-ft: " in text else "\n".join(text.splitlines()[-3:])
    return own or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


class Processes:
    """Runs jobs as child processes, one on each device; one that fails leaves its `cause`, and the others go
    on.

    A run that another process is at work on (one that was left behind when an earlier call was killed, or a
    job of a cluster) is waited for. SIGINT and, with `signals`, SIGTERM are handed on, so that the children
    save and leave.

    Args:
        logs: the folder for what each job prints, `<name of its folder>.txt`.
    """

    def __init__(self, logs: Path, signals: bool = False) -> None:
        self.logs = logs
        self.signals = signals
        self.devices = devices()

    def run(self, jobs: Sequence[Job], watcher: Watcher | None = None) -> None:
        watcher = watcher or Watcher()
        with disk(self.logs):
            self.logs.mkdir(parents=True, exist_ok=True)
        waiting = deque(jobs)
        free = list(self.devices)
        running: list[Child] = []
        with ending_with_us(running, self.signals):
            while waiting or running:
                self._start_waiting(waiting, free, running, watcher)
                watcher.look(running)
                time.sleep(PAUSE)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    free.append(child.device)
                    fault = child.fault()
                    if HELD in fault:  # another process came first: its result is waited for
                        waiting.append(child.job)
                        continue
                    child.job.cause = fault
                    watcher.ended(child.job)

    def _start_waiting(
        self, waiting: deque[Job], free: list[str | None], running: list[Child], watcher: Watcher
    ) -> None:
        """Starts as many jobs as there are free devices; those that are finished by now only end."""
        for _ in range(len(waiting) if free else 0):
            job = waiting.popleft()
            if job.folder.state == "finished":
                watcher.ended(job)
            elif job.folder.busy or not free:
                waiting.append(job)
            else:
                running.append(self._start(job, free.pop(0)))
                watcher.started(job)

    def _start(self, job: Job, device: str | None) -> Child:
        assert job.argv, "a job with Python objects runs in the process that has them"
        log = self.logs / f"{job.name}.txt"
        with files.opened(log, "wb") as stream:
            # in a session of its own: Ctrl-C reaches it once, through us
            process = subprocess.Popen(
                python("bert_ft", *job.argv),
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=environment(device),
                start_new_session=True,
            )
        return Child(job, process, device, log, time.monotonic())


class Endable(Protocol):
    """A job under way that can be ended."""

    def interrupt(self, number: int) -> None:
        """Asks it to save its state and leave, with the signal that this process got."""

    def wait(self) -> None:
        """Returns once it has ended."""

    def kill(self) -> None:
        """Ends it at once."""


@contextmanager
def ending_with_us(running: Sequence[Endable], signals: bool) -> Iterator[None]:
    """Inside: what ends this process ends the children first, with the signal that it got; Ctrl-C once more
    ends them at once. With `signals` SIGTERM does so too."""
    received = signal.SIGINT

    def stop(number: int, frame: Any) -> None:
        nonlocal received
        received = signal.SIGTERM
        sys.exit(1)

    old = signal.signal(signal.SIGTERM, stop) if signals else None
    try:
        yield
    except BaseException:
        for child in running:
            child.interrupt(received)
        try:
            for child in running:
                child.wait()
        except KeyboardInterrupt:
            for child in running:
                child.kill()
        raise
    finally:
        if old is not None:
            signal.signal(signal.SIGTERM, old)


def devices() -> list[str | None]:
    """The value of `CUDA_VISIBLE_DEVICES` for each child that may run at a time; [None] without a GPU."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return [named[i] if i < len(named) and named[i] else str(i) for i in range(count)] or [None]


def environment(device: str | None) -> dict[str, str]:
    """The variables of a child: this process's own, its device, and where this very bert-ft lies; it imports
    nothing from the working directory."""
    # an empty part of PYTHONPATH is the working directory
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if root := checkout():
        paths = [str(root), *paths]
    place = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **place, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}


def checkout() -> Path | None:
    """Where this very bert-ft lies, if that is a checkout and no installed package."""
    root = Path(__file__).resolve().parents[2]
    return None if root.name in ("site-packages", "dist-packages") else root


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, which must not come from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]
