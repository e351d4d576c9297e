"""Jobs on a Ray cluster: each run is a task that starts the very process that `jobs.local` would start, on
the node that Ray chooses."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.errors import InputError, disk
from bert_ft.jobs import local, node
from bert_ft.jobs.base import Job, Watcher
from bert_ft.jobs.needs import Needs
from bert_ft.jobs.ray import HERE, connect
from bert_ft.rundir import lease
from bert_ft.rundir.lease import HELD

PAUSE = 0.2  # seconds between two looks at the tasks
AGAIN = 5.0, 60.0  # seconds, first and at most, before a run that another command holds is tried again
TRIES = 3  # failures of a run, and deaths of its node, that end it
INPUT = 2  # exit code of a run whose user's input is at fault, on any node
WEAK = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "BERT_FT_", "CUBLAS_", "PYTORCH_")
SECRET = re.compile("TOKEN$|KEY|SECRET|PASSWORD")
"""Which of this process's environment variables a run has where its node has none of that name; no secret."""
CREDENTIALS = re.compile(r"://[^/@]*@")
"""A name and a password within an address."""


@dataclass
class Remote:
    """A job under way on the cluster, or waiting there for its turn; `began` once it has one."""

    job: Job
    ref: Any
    ray: Any
    log: Path
    began: float = 0.0
    stopped: bool = False
    asked: bool = False

    def started(self) -> bool:
        """Whether it has got its turn; then its job has its node."""
        if not self.began and (first := self._log_text().partition("\n"))[1]:
            self.job.node = first[0]
            self.began = time.monotonic()
        return bool(self.began)

    def last_line(self) -> str:
        """What it printed last; empty before it printed anything."""
        lines = [line for line in self.printed().splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def printed(self) -> str:
        """All that it printed."""
        return self._log_text().partition("\n")[2]

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Has it save its state and leave; once, since a second time would break that off."""
        if not self.asked:
            self.asked = True
            self.ray.cancel(self.ref)

    def stop(self) -> None:
        """Has it save its state and leave; the job fails with that, and is not tried again."""
        self.stopped = True
        self.interrupt()

    def wait(self) -> None:
        """Returns once it has ended."""
        self.ray.wait([self.ref], timeout=node.GRACE + 10)

    def kill(self) -> None:
        """Ends it at once."""
        self.ray.cancel(self.ref, force=True)

    def _log_text(self) -> str:
        with suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""


class Cluster:
    """Runs jobs on a Ray cluster, as many at a time as it has room for; a run whose node dies goes on from
    its last state on another one.

    What a run's node holds is a lease (`rundir.lease`). A run that another command is at work on is waited
    for. One fails at once where the user's input is at fault, else after three times; each death of a worker
    or a node counts by itself, and at the fourth the run has failed.

    Args:
        on: the address, as of `connect`. logs: as of `local.Processes`, on the disk that all nodes share.
        needs: what each run asks for. signals: SIGTERM ends the tasks first.
    """

    def __init__(self, on: str, logs: Path, needs: Needs, signals: bool = False) -> None:
        self.on, self.logs, self.needs, self.signals = on, logs.absolute(), needs, signals

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """The connection, over which jobs are run; errors as of `connect`."""
        with disk(self.logs):
            self.logs.mkdir(parents=True, exist_ok=True)
        token = self.logs / f".{secrets.token_hex(8)}.shared"
        with connect(self.on) as ray:
            ray.cloudpickle.register_pickle_by_value(sys.modules[node.__name__])
            files.write(token, "")
            try:
                yield Connection(ray, self, token)
            finally:
                token.unlink(missing_ok=True)


class Connection:
    """An open connection, over which jobs are run. Several threads may do so; who ends them ends this.

    Attributes:
        room: how many runs the cluster has room for now. ended: whether it was ended: no job begins any more.
    """

    def __init__(self, ray: Any, cluster: Cluster, token: Path) -> None:
        self.ray, self.cluster, self.token = ray, cluster, token
        nodes = [each.get("Resources", {}) for each in ray.nodes() if each.get("Alive")]
        self.needs = cluster.needs.on(nodes)
        self.room = sum(self.needs.times(resources) for resources in nodes)
        self.nodes = len(nodes)
        if not self.room and cluster.on == HERE and not os.environ.get("RAY_ADDRESS"):  # it never grows
            raise InputError(
                f"this machine has not what a run asks for: it has {_resources(nodes)}",
                where="per_run",
                remedy="ask for less, or name a cluster with --on ray://HOST:PORT",
            )
        self.ended = False
        self.running = list[Remote]()

    def __str__(self) -> str:
        """The cluster in words."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"a Ray cluster of {nodes}, with room for {self.room} at a time, each with {self.needs}"

    def run(self, jobs: Sequence[Job], watcher: Watcher | None = None) -> None:
        """As `Runner.run`."""
        watcher = watcher or Watcher()
        waiting, running = deque(_Turn(job) for job in jobs), list[Remote]()
        turns = {id(turn.job): turn for turn in waiting}
        alone = threading.current_thread() is threading.main_thread()
        with local.ending_with_us(running if alone else [], alone and self.cluster.signals):
            while running or (waiting and not self.ended):
                for turn in [turn for turn in waiting if not self.ended and self._due(turn)]:
                    waiting.remove(turn)
                    if turn.finished:
                        watcher.ended(turn.job)
                    else:
                        running.append(self._submit(turn.job))
                        self.running.append(running[-1])
                for remote in running if self.ended else ():
                    remote.interrupt()
                self._look(running, watcher)
                time.sleep(PAUSE)
                for remote in self._ended(running):
                    self._look([remote], watcher)
                    running.remove(remote)
                    self.running.remove(remote)
                    turn = turns[id(remote.job)]
                    if remote.stopped or self.ended:
                        turn.job.cause = "" if turn.job.folder.state == "finished" else "it was stopped"
                        watcher.ended(turn.job)
                    elif turn.over(*self._outcome(remote)):
                        watcher.ended(turn.job)
                    else:
                        waiting.append(turn)

    def interrupt(self, number: int) -> None:
        """Has all runs save their states and leave."""
        self.ended = True
        for remote in [*self.running]:
            remote.interrupt(number)

    def wait(self) -> None:
        """Returns once all have ended."""
        while self.running:
            time.sleep(PAUSE)

    def kill(self) -> None:
        """Ends all at once."""
        for remote in [*self.running]:
            remote.kill()

    def _due(self, turn: _Turn) -> bool:
        """Whether it is finished by now, or may be submitted."""
        if turn.finished:
            return True
        # what held it before it died is told from what holds it now by the worker that is sent there
        return time.monotonic() >= turn.not_before and (turn.mine or not turn.job.folder.busy)

    def _look(self, running: Sequence[Remote], watcher: Watcher) -> None:
        for remote in running:
            if not remote.began and remote.started():
                watcher.started(remote.job)
        watcher.look([remote for remote in running if remote.began])

    def _submit(self, job: Job) -> Remote:
        assert job.argv, "a job with Python objects runs in the process that has them"
        log = self.cluster.logs / f"{job.name}.txt"
        files.refuse_link(log)
        log.unlink(missing_ok=True)  # its first line says that the job has its turn
        # sums in another order are other numbers: as many threads as there would be here, where that is said
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, int(self.needs.cpus)))
        own = {lease.VARIABLE: str(lease.requested() or lease.SECONDS), "OMP_NUM_THREADS": threads}
        if not self.needs.gpus:
            own["CUDA_VISIBLE_DEVICES"] = ""
        order = node.Order(
            argv=_with_output(job),
            folder=str(job.folder.path.absolute()),
            log=str(log),
            token=str(self.token),
            cwd=os.getcwd(),
            relative=_relative(job),
            variables=own,
            weak={key: value for key, value in os.environ.items() if _travels(key, value)},
            root=str(local.checkout() or ""),
        )
        task = self.ray.remote(
            num_cpus=self.needs.cpus,
            num_gpus=self.needs.gpus or 0,
            memory=self.needs.memory,
            max_retries=0,
            scheduling_strategy="SPREAD",
            name=f"bert-ft {job.name}",
        )(node.work)
        return Remote(job, task.remote(order), self.ray, log)

    def _ended(self, running: Sequence[Remote]) -> list[Remote]:
        refs = [remote.ref for remote in running]
        done = set(self.ray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else set()
        return [remote for remote in running if remote.ref in done]

    def _outcome(self, remote: Remote) -> tuple[int | None, str]:
        """(exit code, fault) of a job that has ended; the code is None where its worker or node died."""
        try:
            done = self.ray.get(remote.ref)
        except self.ray.exceptions.RayTaskError as error:  # of `work` itself: a log that can't be written
            return 1, " ".join(str(error.cause or error).split())
        except self.ray.exceptions.RayError as error:
            return None, f"its worker died: {str(error).partition(chr(10))[0] or type(error).__name__}"
        remote.job.node = done.node
        fault = done.fault or local.fault(done.code, remote.printed())
        if not fault and remote.job.folder.state != "finished":
            place = remote.job.folder.path
            return (
                INPUT,
                f"{done.node} has made the run, and {place} here has it not: that disk is not shared",
            )
        return done.code, fault


def _travels(key: str, value: str) -> bool:
    """Whether an environment variable of this process goes along with a job."""
    return key.startswith(WEAK) and not SECRET.search(key) and not CREDENTIALS.search(value)


def _resources(nodes: Sequence[Any]) -> str:
    """What there is on the nodes, in words."""
    cpus, gpus = (sum(each.get(kind, 0) for each in nodes) for kind in ("CPU", "GPU"))
    memory = sum(each.get("memory", 0) for each in nodes) / 2**30
    return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory:,.1f} GB of memory"


@dataclass
class _Turn:
    """A job's tries so far."""

    job: Job
    deaths: int = 0
    failures: int = 0
    held: int = 0
    not_before: float = 0.0
    mine: bool = False

    @property
    def finished(self) -> bool:
        """Whether its run is. Where a worker died over it, the pages, which come last, have to be there."""
        folder = self.job.folder
        return folder.state == "finished" and (not self.mine or folder.report_html.is_file())

    def over(self, code: int | None, fault: str) -> bool:
        """Whether the job has ended, one way or the other; else it is tried again."""
        self.mine = code is None
        if code == 0:
            return True
        if HELD in fault:  # another command came first: its result is waited for
            self.not_before = time.monotonic() + min(AGAIN[0] * 2**self.held, AGAIN[1])
            self.held += 1
            return False
        if code is None:
            self.deaths += 1
        else:
            self.failures += 1
        # a cluster takes a while to notice that a node is gone, and would send it there again
        self.not_before = time.monotonic() + AGAIN[0] * 2 ** (self.deaths + self.failures - 1)
        if fault and self.job.node:
            fault += f"\n  on {self.job.node}"
        if code == INPUT or self.failures >= TRIES or self.deaths > TRIES:
            self.job.cause = fault
        return bool(self.job.cause)


PLACES = ("--checkpoint", "--data-dir", "--train", "--validation", "--test")
"""The options of `bert-ft train` that name files and folders; its first argument may be one, too."""


def _with_output(job: Job) -> list[str]:
    """The words of the job's command, with an absolute path of its folder."""
    place = str(job.folder.path.absolute())
    return [place if job.argv[at - 1] == "--output" else word for at, word in enumerate(job.argv)]


def _relative(job: Job) -> str:
    """A path of the job that begins at the working directory; empty where there is none."""
    words = [word for at, word in enumerate(job.argv) if at == 1 or job.argv[at - 1] in PLACES]
    words.append(job.task.run.checkpoint or "")
    return next((word for word in words if word and not os.path.isabs(word) and os.path.exists(word)), "")
