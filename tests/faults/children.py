"""Commands as forked children of a process that has imported everything once, with a disk that can be at fault.

`shim.c` lies between a child and the C library (LD_PRELOAD), so that an event is counted whoever writes: Python,
safetensors, Arrow, SQLite. The parent never computes: a fork of a process with threads at work would hang.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("shim.c")
CREATE, WRITE, SYNC, RENAME, REMOVE, FOLDER, LOCK = (2**bit for bit in range(7))
CHANGES = CREATE | WRITE | SYNC | RENAME | REMOVE | FOLDER
ALWAYS = 2**62
SETTINGS = {
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONHASHSEED": "0", "COLUMNS": "200",
}  # fmt: skip


def library() -> Path | None:
    """The compiled shim; None where there is no C compiler, or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"bert-ft-faults-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{digest}.so"
    if not made.is_file():
        new = folder / f"{os.getpid()}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", new, SOURCE, "-ldl"], check=True)
        new.replace(made)
    return made


def preloaded(module: str) -> None:
    """Starts this program anew with the shim, unless it is there already."""
    made = library()
    if made is None:
        raise SystemExit("no C compiler: the faults need one")
    if str(made) not in os.environ.get("LD_PRELOAD", ""):
        environment = {**os.environ, **SETTINGS, "LD_PRELOAD": str(made)}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


@dataclass(frozen=True)
class Fault:
    """What happens to a child's writing: events `first` to `last` of these kinds below `folder`; `error` 0 is its
    end, at half of a write."""

    folder: Path
    first: int
    last: int = ALWAYS
    kinds: int = CHANGES
    error: int = 0

    def arm(self) -> None:
        shim().faults_arm(os.fsencode(self.folder), self.kinds, self.first, self.last, self.error)


def shim() -> Any:
    """The functions of the shim in this process."""
    found = ctypes.CDLL(None)
    found.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    found.faults_count.restype = ctypes.c_long
    return found


@dataclass(frozen=True)
class End:
    """How a child ended: its exit code, or minus its signal; what it showed; how many events it had."""

    code: int
    shown: str
    events: int
    seconds: float

    @property
    def is_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def is_told(self) -> bool:
        """Whether a person got a message and no traceback."""
        unforeseen = "Traceback" in self.shown or "this is a fault of bert-ft" in self.shown
        return not unforeseen and bool(self.shown.strip())


class Child:
    """A forked child that does some work, and shows into a file.

    Args:
        fault: what happens to its writing; None: nothing, its events are counted below `counted`.
    """

    def __init__(self, work: Callable[[], Any], folder: Path, fault: Fault | None = None) -> None:
        self.log = Path(tempfile.mkstemp(prefix="child-", dir=folder)[1])
        self.events = Path(f"{self.log}.events")
        self.began = time.monotonic()
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._live(work, fault)

    def _live(self, work: Callable[[], Any], fault: Fault | None) -> None:
        code = 99
        try:
            shown = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(shown, 1), os.dup2(shown, 2)
            if fault is not None:
                fault.arm()
            work()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush(), sys.stderr.flush()
            with suppress(Exception):
                events = shim().faults_count()
                shim().faults_disarm()
                self.events.write_text(str(events))
            os._exit(code)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 120) -> End:
        """How it ended; one that does not end in time is killed, and its code is 124."""
        late = False
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if not late and time.monotonic() - self.began > seconds:
                late = True
                self.kill()
            time.sleep(0.002)
        code = 124 if late else os.waitstatus_to_exitcode(found[1])
        events = int(self.events.read_text() or 0) if self.events.is_file() else 0
        end = End(code, self.log.read_text(errors="replace"), events, time.monotonic() - self.began)
        self.log.unlink()
        self.events.unlink(missing_ok=True)
        return end


def command(*arguments: Any, before: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Work that is a command of bert-ft."""

    def work() -> None:
        import torch

        from bert_ft.cli import main

        torch.set_num_threads(1)
        before()
        main([str(argument) for argument in arguments])

    return work


def importing(work: Callable[[], Any], folder: Path) -> End:
    """Does some work in a child, and imports here what it imported: the next one starts with that."""
    names = folder / "imported"

    def naming() -> None:
        try:
            work()
        finally:
            names.write_text("\n".join(sys.modules))

    end = Child(naming, folder).wait(600)
    for name in names.read_text().splitlines():
        if name.partition(".")[0] not in ("__main__", "tests", "torch_inductor"):
            with suppress(BaseException):
                importlib.import_module(name)
    names.unlink()
    gc.freeze()  # a child's collections leave what is shared alone
    return end


@contextmanager
def scratch(prefix: str = "faults-") -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
