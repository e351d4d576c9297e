"""The errors a user can cause. Each is one message: what is wrong, where, and the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class BertFtError(Exception):
    """Base of all errors that are told without a traceback; `exit_code` is what the command leaves with."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message, self.where, self.remedy = message, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.remedy}" if self.remedy else text


class InputError(BertFtError):
    """What the user gave is at fault: a key, a file, a row, a checkpoint (exit code 2)."""

    exit_code = 2


class MachineError(BertFtError):
    """What the user gave is fine, but the machine can't do it: a full disk, no memory (exit code 1)."""


@contextmanager
def machine() -> Iterator[None]:
    """Memory that runs out, and a process of the job that is gone, are one message with exit code 1."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
            remedy = "compute a batch in parts: --set gradient_accumulation_steps=4; or a smaller --max-length"
            raise MachineError("the memory is full", remedy=f"{remedy}, --set eval_tokens=1024") from error
        if "onnection closed by peer" in text or "onnection reset by peer" in text:
            remedy = "its own message says why; the same command goes on from the last checkpoint"
            raise MachineError("another process of this job has ended", remedy=remedy) from error
        raise


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A remedy line: the nearest known name where there is one, otherwise all of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    told = [name if len(name) < 50 else f"{name[:47]!r}..." for name in names[:30]]
    return "known: " + ", ".join(told) + ", ..." * (len(names) > 30) if names else "none is known"


FULL = {
    errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission to write", errno.EPERM: "no permission to write",
}  # fmt: skip


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """A disk that can't be written is one message with exit code 1; safetensors has an error of its own for a full one."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError):
            if "No space left" not in str(error):
                raise
            error = OSError(errno.ENOSPC, "")
        reason = FULL.get(error.errno or 0, error.strerror or str(error))
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason = "it is in the way: a file where a folder is wanted"
        remedy = "choose another place with --output DIR"
        raise MachineError(reason, where=str(error.filename or path), remedy=remedy) from None
