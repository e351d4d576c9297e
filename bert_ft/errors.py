"""The errors a user can cause. Each is one message: what is wrong, where, and the remedy."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

MANY = 2000  # names that a wrong one is compared with
LONGEST = 2000  # characters of a value, or of one part of a message, that are shown
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e001f]"
)
"""What a person can't see and a terminal may obey: control characters, marks of direction, line and paragraph
separators, fillers, halves of surrogate pairs. The joiners (U+200C, U+200D), variation selectors and tags of
emoji stay."""


def escaped(text: str) -> str:
    """The text with what can't be seen as its escape: \\x1b, \\u202e, \\n."""
    return UNSEEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[match[0]]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def shown(value: object, most: int = LONGEST) -> str:
    """A value as a person sees it, in one line: escaped, and of more than `most` characters the beginning and
    the end. Letters of any script and emoji stay as they are."""
    text = str(value)
    if len(text) > most:
        end = most // 3
        text = f"{text[: most - end - 1]}…{text[-end:]}"
    return escaped(text)


class BertFtError(Exception):
    """Base of all errors that are shown without a traceback; `exit_code` is the exit code of the command."""

    exit_code = 1

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", details: Sequence[str] = ()
    ) -> None:
        self.message = message
        self.where = where
        self.remedy = remedy
        self.details = details
        super().__init__(str(self))

    @property
    def lines(self) -> list[str]:
        """The message, its details and the remedy as a person sees them: whatever they quote, each is one
        line."""
        message = shown(self.message)
        first = f"{shown(self.where)}: {message}" if self.where else message
        remedy = [f"  {shown(self.remedy)}"] if self.remedy else []
        return [first, *(f"    {shown(detail)}" for detail in self.details), *remedy]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class InputError(BertFtError):
    """What the user gave is at fault: a key, a file, a row, a checkpoint (exit code 2)."""

    exit_code = 2
    each: Sequence[tuple[str, str]] = ()
    """Where faults of rows are collected: (place, message) of every row that the error is about."""


@dataclass
class RowFaults:
    """Rows that could not be read, where they are collected instead of ending the reading.

    Attributes:
        errors: what is wrong with each.
        rows: their numbers in the source, from 1; in files that are joined the count goes on.
        before: the rows of those of them that were read already.
    """

    errors: list[InputError] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    before: int = 0


_collected: ContextVar[RowFaults | None] = ContextVar("row faults", default=None)


@contextmanager
def collecting() -> Iterator[RowFaults]:
    """Collects what `row_fault` is told of, in place of an exception at the first: a reader goes on behind a
    row that can't be read."""
    faults = RowFaults()
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def row_fault(error: InputError, row: int) -> None:
    """Raises the error of a row, or has it collected: then the reader leaves the row out.

    Args:
        row: its number in the source, from 1.
    """
    faults = _collected.get()
    if faults is None:
        raise error
    faults.errors.append(error)
    faults.rows.append(faults.before + row)


def is_collecting() -> bool:
    """Whether faults of rows are collected."""
    return _collected.get() is not None


def end_of_file(rows: int) -> int:
    """Returns how many rows a file has that is joined with others: those that were read, and those whose
    faults were collected since the last one ended."""
    faults = _collected.get()
    if faults is None:
        return rows
    rows += sum(row > faults.before for row in faults.rows)
    faults.before += rows
    return rows


class MachineError(BertFtError):
    """What the user gave is fine, but the machine can't do it: a full disk, no memory (exit code 1)."""


NO_MEMORY = ("can't allocate memory", "out of memory", "could not create a primitive", "bad_alloc")
"""What torch, CUDA, oneDNN and the C++ library say where there is none left."""


def no_memory(error: BaseException) -> MachineError | None:
    """The one message of memory that ran out; None where the error is another."""
    text = str(error)
    of_memory = isinstance(error, MemoryError)
    if isinstance(error, RuntimeError):
        of_memory = any(words in text for words in NO_MEMORY)
    if not of_memory:
        return None
    remedy = (
        "use less of it: --set gradient_accumulation_steps=4 or --set eval_tokens=256, with which a "
        "training goes on; or a smaller --max-length, which is another one"
    )
    return MachineError("the memory is full", remedy=remedy)


@contextmanager
def machine() -> Iterator[None]:
    """Turns memory that runs out, or a process of the job that is gone, into one message with exit code 1."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (message := no_memory(error)) is not None:
            raise message from error
        text = str(error)
        if "onnection closed by peer" in text or "onnection reset by peer" in text:
            remedy = (
                "its own message says why; run the same command again to continue from the last checkpoint"
            )
            raise MachineError("another process of this job has ended", remedy=remedy) from error
        raise


ELSEWHERE = {
    "lr": "learning_rate", "peak_learning_rate": "learning_rate",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "per_device_train_batch_size": "batch_size", "train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_tokens", "eval_batch_size": "eval_tokens",
    "max_seq_length": "max_length", "max_seq_len": "max_length", "model_max_length": "max_length",
    "warmup": "warmup_ratio", "lr_scheduler_type": "schedule", "scheduler": "schedule",
    "gradient_accumulation": "gradient_accumulation_steps",
    "model": "checkpoint", "model_name_or_path": "checkpoint", "model_name": "checkpoint",
    "output_dir": "output", "dataset": "path", "dataset_name": "path", "dev": "validation",
    "metric_for_best_model": "best", "metrics": "compute", "sep": "delimiter", "fp16": "precision",
    "doc_stride": "stride", "max_answer_len": "max_answer_length", "version_2_with_negative": "no_answer",
    "f1_binary": "f1", "binary_f1": "f1", "seqeval": "f1", "overall_f1": "f1", "entity_f1": "f1",
    "macro_f1": "f1_macro", "micro_f1": "f1_micro", "weighted_f1": "f1_weighted", "acc": "accuracy",
    "em": "exact_match", "exact": "exact_match", "mcc": "matthews_correlation",
    "matthews_corrcoef": "matthews_correlation", "spearman": "spearmanr", "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
}  # fmt: skip
"""What a setting or a metric is called in other tools -> here."""


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """A remedy line: the nearest valid name where there is one, otherwise all of them."""
    names = sorted(set(valid))
    comparable = [name for name in names[:MANY] if len(name) <= 100]
    elsewhere = ELSEWHERE.get(wrong.lower(), "")
    near = difflib.get_close_matches(wrong[:100], comparable, n=1, cutoff=0.6)
    if matches := [elsewhere] if elsewhere in names else near:
        return f"did you mean '{matches[0]}'?"
    quoted = [shown(name) if len(name) < 50 else f"'{shown(name, most=50)}'" for name in names[:30]]
    if not names:
        return "none is known"
    return "known: " + ", ".join([*quoted, *(["..."] if len(names) > 30 else [])])


FULL = {
    errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only", errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write", errno.EIO: "the disk has an input/output error",
    errno.EXDEV: "this file system can't rename a file that is written into its place",
}  # fmt: skip
OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How a library in Rust (safetensors, tokenizers) ends what it says of a disk, in an error of its own."""


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turns a disk that can't be written into one message: with exit code 1, or 2 where a file of the user's
    is in the way of a folder."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError):
            if (number := OF_RUST.search(str(error))) is None:
                raise
            error = OSError(int(number[1]), os.strerror(int(number[1])))
        where, remedy = str(error.filename or path), "choose another place with --output DIR"
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise InputError("a file is in the way of a folder", where=where, remedy=remedy) from None
        reason = FULL.get(error.errno or 0, error.strerror or str(error))
        raise MachineError(reason, where=where, remedy=remedy) from None


def no_locks(path: Path, error: OSError) -> MachineError:
    """The error of a file system on which nothing can be locked."""
    return MachineError(
        "this file system has no locks, which keep two commands from writing into one folder: "
        f"{error.strerror}",
        where=str(path),
        remedy="choose a folder on another disk with --output DIR",
    )


@contextmanager
def within(part: str, remedy: str) -> Iterator[None]:
    """Says of an error of the user's in which part of what was asked for it is, with a remedy for that."""
    try:
        yield
    except InputError as error:
        message = f"{part}: {error.message}"
        raise InputError(message, where=error.where, remedy=remedy, details=error.details) from None
