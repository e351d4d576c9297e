"""Runs as child processes: one on a GPU, one at a time without, each in its own folder and with its own log
of what it said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bert_ft import files
from bert_ft.rundir.folder import HELD, RunDir

PAUSE = 0.2  # seconds between two looks at the children


class Command(Protocol):
    """A run to be made: `bert-ft *argv` leaves it in `folder`. `cause` is why it could not be made."""

    argv: list[str]
    folder: RunDir
    cause: str


@dataclass
class Child:
    """A run under way."""

    process: subprocess.Popen[bytes]
    device: str | None
    log: Path
    began: float

    def last(self) -> str:
        """What it said last."""
        lines = [
            line
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        return lines[-1].strip() if lines else ""

    def fault(self) -> str:
        """Its own message of what went wrong, or else the end of what it said."""
        text = self.log.read_text(encoding="utf-8", errors="replace").strip()
        own = text.rpartition("bert-ft: ")[2] if "bert-ft: " in text else "\n".join(text.splitlines()[-3:])
        code = self.process.returncode
        return own or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def devices() -> list[str | None]:
    """What `CUDA_VISIBLE_DEVICES` shall be for each child that may run at a time."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return [named[i] if i < len(named) and named[i] else str(i) for i in range(count)] or [None]


def environment(device: str | None) -> dict[str, str]:
    """The variables of a child: this process's own, its device, and where this very bert-ft lies; it imports
    nothing from the working directory."""
    root = Path(__file__).resolve().parents[2]
    paths = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    ]  # "" is the working directory
    if root.name not in ("site-packages", "dist-packages"):  # a checkout
        paths = [str(root), *paths]
    place = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **place, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, which must not come from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def run(
    commands: Sequence[Command],
    logs: Path,
    places: Sequence[str | None],
    tell: Callable[[Command, Child | None], None],
    look: Callable[[dict[str, Child]], Any],
    signals: bool,
) -> None:
    """Makes every run that is not finished; one that fails leaves its `cause`, and the rest goes on.

    A run that another process is at work on (one that was left behind when an earlier call was killed, or a
    job of a cluster) is waited for. SIGINT and, with `signals`, SIGTERM are handed on, and the children save
    and leave.

    Args:
        tell: called when a run starts (with its child) and when it ends.
        look: called a few times a second with the children, by the name of their folder.
    """
    waiting, free = deque(commands), list(places)
    running: dict[str, tuple[Command, Child]] = {}
    ended = signal.SIGINT

    def stop(number: int, frame: Any) -> None:
        nonlocal ended
        ended = signal.SIGTERM
        sys.exit(1)

    old = signal.signal(signal.SIGTERM, stop) if signals else None
    try:
        while waiting or running:
            for _ in range(len(waiting) if free else 0):
                command = waiting.popleft()
                if command.folder.state == "finished":
                    tell(command, None)
                elif command.folder.busy or not free:
                    waiting.append(command)
                else:
                    running[command.folder.path.name] = command, _start(command, logs, free.pop(0))
                    tell(*running[command.folder.path.name])
            look({name: child for name, (_, child) in running.items()})
            time.sleep(PAUSE)
            for name, (command, child) in list(running.items()):
                if child.process.poll() is None:
                    continue
                del running[name]
                free.append(child.device)
                command.cause = child.fault() if child.process.returncode else ""
                if HELD in command.cause:  # another process came first: its result is waited for
                    command.cause = ""
                    waiting.append(command)
                    continue
                tell(command, None)
    except BaseException:
        for _, child in running.values():
            child.process.send_signal(ended)
        try:
            for _, child in running.values():
                child.process.wait()
        except KeyboardInterrupt:  # once more: at once
            for _, child in running.values():
                child.process.kill()
        raise
    finally:
        if old is not None:
            signal.signal(signal.SIGTERM, old)


def _start(command: Command, logs: Path, device: str | None) -> Child:
    log = logs / f"{command.folder.path.name}.txt"
    with files.opened(log, "wb") as stream:
        # in a session of its own: Ctrl-C reaches it once, through us
        process = subprocess.Popen(
            python("bert_ft", *command.argv),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment(device),
            start_new_session=True,
        )
    return Child(process, device, log, time.monotonic())


def display(console: Any) -> Any:
    """A live region of a terminal; None as its value where there is none."""
    from rich.live import Live

    live = console.is_terminal and not console.quiet
    return Live(console=console, auto_refresh=False, transient=True) if live else nullcontext()
