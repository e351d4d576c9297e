"""What a node of a cluster does for a job: it starts the run as a process of its own, and waits for it.

This module travels to the node as it stands (pickled by value), since the process that receives it may not
have bert-ft among its modules: nothing of ours is imported here.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PAUSE = 0.2  # seconds between two looks at the process
PATIENCE = 10  # seconds that a new file of another machine may need to be seen
GRACE = 60  # seconds that an interrupted run has to save its state


@dataclass(frozen=True)
class Order:
    """A job as it travels.

    Attributes:
        argv: the words behind `bert-ft`. folder, log: of the run.
        token: a file of the caller, which a node that shares the caller's disk sees.
        cwd: where the caller works; relative: a path that begins there, if there is one.
        variables: environment variables of the run; those in `weak` only where the node has none of its own.
        root: the checkout that the caller's bert-ft lies in; empty: it is installed on the nodes.
    """

    argv: list[str]
    folder: str
    log: str
    token: str
    cwd: str
    relative: str
    variables: dict[str, str]
    weak: dict[str, str]
    root: str = ""


@dataclass(frozen=True)
class Done:
    """What came of it: the exit code, or, where no process was started, the `fault`."""

    node: str
    code: int = 0
    fault: str = ""


def name() -> str:
    """The node's, with Ray's short id of it: several nodes may be on one machine."""
    import ray

    return f"{platform.node()} ({ray.get_runtime_context().get_node_id()[:6]})"


def work(order: Order) -> Done:
    """Makes the run; nothing where it is finished by now."""
    # Ray cancels a task by SIGINT, which a cluster that a shell started in its background ignores
    signal.signal(signal.SIGINT, signal.default_int_handler)
    node = name()
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(order.token):
        if time.monotonic() > deadline:
            place = os.path.dirname(order.token)
            remedy = "the folder of the runs must be on a disk that all nodes share"
            return Done(node, 2, f"{node} does not see {place}: {remedy}")
        time.sleep(PAUSE)
    if order.relative and not os.path.exists(os.path.join(order.cwd, order.relative)):
        remedy = "put it on a disk that all nodes share, and give its absolute path"
        return Done(node, 2, f"{node} does not see {order.relative} in {order.cwd}: {remedy}")
    if all(os.path.exists(os.path.join(order.folder, name)) for name in ("results.json", "report.html")):
        return Done(node)
    environment = {**order.weak, **os.environ, **order.variables, "PYTHONSAFEPATH": "1"}
    # an empty part of PYTHONPATH is the working directory
    paths = [order.root, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-P", "-m", "bert_ft.jobs.child", str(os.getpid()), *order.argv]
    # somebody else may write on that disk, too: through no link, and a pipe is not waited for
    how = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(order.log, how, 0o666)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(f"{node}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment,
            cwd=order.cwd if os.path.isdir(order.cwd) else str(Path(order.log).parent),
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            time.sleep(PAUSE)
    except BaseException:  # the task is cancelled, or this worker ended
        process.send_signal(signal.SIGINT)
        process.wait(GRACE)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return Done(node, process.returncode)
