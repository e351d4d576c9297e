"""Jobs on a Ray cluster: each run is a task that starts the very process that `jobs.local` would start, on
the node that Ray chooses. Ray is imported once a connection is asked for, and by nobody else."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
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
from bert_ft.rundir import lease
from bert_ft.rundir.lease import HELD

HERE = "ray"
ADDRESS = re.compile(r"ray://(\[[^\]/]+\]|[^:/\[\]]+):(\d{1,5})")
TIMEOUT = 10  # seconds that a cluster's port has to answer
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment variables of what is started here, where the user has not set them: nothing is reported to
Ray's makers."""

PAUSE = 0.2  # seconds between two looks at the tasks
AGAIN = 5.0, 60.0  # seconds, first and at most, before a run that another command holds is tried again
TRIES = 3  # failures of a run, and deaths of its node, that end it
INPUT = 2  # exit code of a run whose user's input is at fault, on any node
WEAK = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "BERT_FT_", "CUBLAS_", "PYTORCH_")
SECRET = re.compile("TOKEN$|KEY|SECRET|PASSWORD")
"""Which of this process's environment variables a run has where its node has none of that name; no secret."""


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """A connection to a Ray cluster; its value is the module `ray`. What was begun here ends with it: the
    connection, and a cluster that was started for it. Where this process is connected already, that
    connection is used, and stays.

    Args:
        address: what `--on` takes: "ray://HOST:PORT", the port being that of Ray's client server (10001);
            None or "ray": the cluster that RAY_ADDRESS names or that runs on this machine, else one that is
            started here, of this machine alone.
    Raises:
        InputError: Ray is not installed; this is no address; or no cluster answers there.
    """
    where = "" if address in (None, HERE) else str(address)
    match = ADDRESS.fullmatch(where)
    if where and match is None:
        raise InputError(
            "this is no address of a cluster",
            where=f"--on {where}",
            remedy="--on ray, or --on ray://HOST:10001",
        )
    with _environment():
        try:
            import ray
        except ImportError:
            raise InputError(
                "Ray is not installed", where="--on", remedy='pip install "bert-ft[ray]"'
            ) from None
        if ray.is_initialized():
            yield ray
            return
        if match is not None:
            _refuse_silent(where, match[1].strip("[]"), int(match[2]))
        _initialize(ray, where)
        try:
            yield ray
        finally:
            ray.shutdown()


def _initialize(ray: Any, where: str) -> None:
    """Begins the connection. Ray's own handler of SIGTERM, which would take the place of the caller's, does
    not stay."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    own = {} if where else {"include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they repeat what the error says
            ray.init(where or None, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray's are of a dozen kinds: of another version, of no answer, of no memory
        ray.shutdown()
        cause = " ".join(str(error).split()) or type(error).__name__
        remedy = (
            "it needs the same versions of Ray and Python as this machine; one with tokens also "
            "RAY_AUTH_MODE=token and its token here"
        )
        raise InputError(
            f"the cluster can't be reached: {cause}", where=f"--on {where or HERE}", remedy=remedy
        ) from None
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _refuse_silent(where: str, host: str, port: int) -> None:
    """Refuses an address where nothing listens; Ray itself would try for half a minute."""
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"no cluster answers: {error}",
            where=f"--on {where}",
            remedy="HOST is the cluster's head node, PORT that of its client server (10001 by default)",
        ) from None


@contextmanager
def _environment() -> Iterator[None]:
    """Inside: the variables of `QUIET` that the user has not set. Ray sets some of its own (RAY_AUTH_MODE),
    which would be read as the user's by the next connection."""
    before = {key: value for key, value in os.environ.items() if key.startswith("RAY_")}
    os.environ.update(QUIET | before)
    try:
        yield
    finally:
        for key in [key for key in os.environ if key.startswith("RAY_") and key not in before]:
            del os.environ[key]


@dataclass
class Remote:
    """A job under way on the cluster, or waiting there for its turn; `began` once it has one."""

    job: Job
    ref: Any
    ray: Any
    log: Path
    began: float = 0.0

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
        """Has it save its state and leave."""
        self.ray.cancel(self.ref)

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
    """An open connection, over which jobs are run; several threads may do so.

    Attributes:
        room: how many runs the cluster has room for now.
    """

    def __init__(self, ray: Any, cluster: Cluster, token: Path) -> None:
        self.ray, self.cluster, self.token = ray, cluster, token
        nodes = [each.get("Resources", {}) for each in ray.nodes() if each.get("Alive")]
        self.needs = cluster.needs.on(nodes)
        self.room = sum(self.needs.times(resources) for resources in nodes)
        self.nodes = len(nodes)

    def __str__(self) -> str:
        """The cluster in words."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"a Ray cluster of {nodes}, with room for {self.room} at a time"

    def run(self, jobs: Sequence[Job], watcher: Watcher | None = None) -> None:
        """As `Runner.run`."""
        watcher = watcher or Watcher()
        waiting, running = deque(_Turn(job) for job in jobs), list[Remote]()
        turns = {id(turn.job): turn for turn in waiting}
        with local.ending_with_us(running, self.cluster.signals):
            while waiting or running:
                for turn in [turn for turn in waiting if self._due(turn, watcher)]:
                    waiting.remove(turn)
                    if turn.job.folder.state == "finished":
                        watcher.ended(turn.job)
                    else:
                        running.append(self._submit(turn.job))
                self._look(running, watcher)
                time.sleep(PAUSE)
                for remote in self._ended(running):
                    self._look([remote], watcher)
                    running.remove(remote)
                    turn = turns[id(remote.job)]
                    if turn.over(*self._outcome(remote)):
                        watcher.ended(turn.job)
                    else:
                        waiting.append(turn)

    def _due(self, turn: _Turn, watcher: Watcher) -> bool:
        """Whether it is finished by now, or may be submitted."""
        if turn.job.folder.state == "finished":
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
        cpus = str(max(1, int(self.needs.cpus)))
        own = {lease.VARIABLE: str(lease.requested() or lease.SECONDS), "OMP_NUM_THREADS": cpus}
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
            weak={k: v for k, v in os.environ.items() if k.startswith(WEAK) and not SECRET.search(k)},
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


@dataclass
class _Turn:
    """A job's tries so far."""

    job: Job
    deaths: int = 0
    failures: int = 0
    held: int = 0
    not_before: float = 0.0
    mine: bool = False

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
