"""Many files in, many files out: one model, one file after the other, and what is answered already is left.

The answers of a file are those of `files.predict` for it alone, byte for byte. Several processes may work on
one folder, and each may be killed: see `records`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError, shown
from bert_ft.kernels import cpu
from bert_ft.modeling.model import Model
from bert_ft.tools.predict.files import Options, Outcome, form_of, predict
from bert_ft.tools.predict.folders import Item, Plan, few
from bert_ft.tools.predict.progress import FilesProgress
from bert_ft.tools.predict.records import Record, Records

PAUSE = 0.5  # seconds between two looks at files that another process is answering


@dataclass
class Result:
    """What became of a file.

    Attributes:
        state: `answered`; `present`, where that was done before, maybe by another process; `failed`, where it
            can't be read at all; `held`, where another process is answering it.
        rows: that were read; bad: of these at fault. told: the lines about them, or why the file failed.
        counts: of the encoded rows, as `Features` has them.
        reason: why answers that were there are made anew.
    """

    item: Item
    state: str
    rows: int = 0
    bad: int = 0
    told: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def present(cls, item: Item, record: Record) -> Result:
        """Of a file that was answered before."""
        return cls(item, "present", record.rows, record.bad, record.told, record.counts)


class Answering:
    """A model that answers files into a folder.

    Args:
        output: the folder of the answers. made_by: what they are made with. options: of `predict`.
    """

    def __init__(self, model: Model, output: Path, made_by: Mapping[str, Any], options: Options) -> None:
        cpu.give_back()
        self.model, self.options = model, options
        self.records = Records(output, made_by)

    def refuse(self, items: Sequence[Item]) -> None:
        """Refuses what would go wrong later, before anything is answered.

        Raises:
            InputError: options that the model or a format can't follow; a file in the place of answers.
        """
        for item in items:
            form_of(self.model, item.source, str(item.target), **self.options)
            self.records.refuse_foreign(item)

    def answer(self, item: Item, advance: Callable[[int], None] = lambda rows: None) -> Result:
        """What became of one file: it is answered, unless it has been or another process is at it.

        Raises:
            MachineError: its answers can't be written.
        """
        record, _ = self.records.valid(item)
        if record is not None:
            return Result.present(item, record)
        with self.records.claimed(item) as free:
            if not free:
                return Result(item, "held")
            record, reason = self.records.valid(item)  # another process may have come first
            if record is not None:
                return Result.present(item, record)
            try:
                return self._answered(item, reason, advance)
            except InputError as error:
                return Result(item, "failed", told=error.lines)
            except OSError as error:
                if str(error.filename) != item.source:
                    raise
                return Result(item, "failed", told=[f"{shown(item.source)}: {error.strerror}"])

    def _answered(self, item: Item, reason: str, advance: Callable[[int], None]) -> Result:
        told: list[str] = []
        outcome = Outcome()
        predict(
            self.model,
            item.source,
            str(item.target),
            tell=told.append,
            advance=advance,
            place=lambda target: self.records.writing(item, outcome, told),
            outcome=outcome,
            **self.options,
        )
        cpu.trim()
        return Result(item, "answered", outcome.rows, len(outcome.bad), told, dict(outcome.counts), reason)


@dataclass
class Summary:
    """What became of all files."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    bad: int = 0
    read: Counter[str] = field(
        default_factory=Counter
    )  # what the model read of the rows, as `Features` counts
    anew: Counter[str] = field(default_factory=Counter)  # why answers that were there were made again
    mixed: int = 0  # files whose answers another command has made meanwhile, with something else

    def add(self, result: Result, tell: Callable[[str], None]) -> None:
        """Counts what became of a file, and tells what there is to tell of it."""
        for line in result.told:
            tell(line)
        self.counts[result.state] += 1
        self.rows += result.rows
        self.bad += result.bad
        self.read.update(result.counts)
        if result.reason:
            self.anew[result.reason] += 1

    def lines(self, keep_bad: bool) -> list[str]:
        """The summary as a person reads it."""
        lines = [f"{count:,} answered anew: {reason}" for reason, count in sorted(self.anew.items())]
        parts = [f"{self.counts['answered']:,} answered"]
        if present := self.counts["present"]:
            parts.append(f"{present:,} there already")
        if failed := self.counts["failed"]:
            parts.append(f"{failed:,} failed")
        written = self.rows - (0 if keep_bad else self.bad)
        lines.append(
            f"{self.counts.total():,} files: {', '.join(parts)}; {self.rows:,} rows in, {written:,} out"
        )
        if self.bad:
            what = "kept with their error" if keep_bad else "left out"
            lines.append(f"{self.bad:,} of {self.rows:,} rows are at fault, and {what}")
        if self.mixed:
            lines.append(
                f"{self.mixed:,} files have answers of another command by now, made with something else: "
                "give each command a folder of its own"
            )
        return lines

    def exit_code(self, keep_bad: bool) -> int:
        """2 where rows were left out, or files, or answers are no longer these; else 0."""
        return 2 if self.counts["failed"] or self.mixed or (self.bad and not keep_bad) else 0


def answer_all(answering: Answering, plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Summary:
    """Answers files in turn; those that another process is answering come last, and are waited for.

    Args:
        tell: takes each line that there is to tell; those of a file once it is done.
    Raises:
        MachineError: answers can't be written.
    """
    summary, waiting, held, waits = Summary(), deque(plan.items), 0, False
    if plan.others:
        tell(plan.left_alone)
    with FilesProgress(plan.items, answering.options.get("read_as")) as progress:
        while waiting:
            item = waiting.popleft()
            result = answering.answer(item, progress.of(item))
            if result.state != "held":
                held = 0
                summary.add(result, tell)
                progress.ended_with(item, result.state == "answered")
                continue
            waiting.append(item)
            held += 1
            if held >= len(waiting):  # nothing else is left
                if not waits:
                    tell(f"{held:,} files are being answered by another process, and waited for")
                waits, held = True, 0
                time.sleep(PAUSE)
    look_at_end(answering.records, plan, summary, tell)
    return summary


def look_at_end(records: Records, plan: Plan, summary: Summary, tell: Callable[[str], None]) -> None:
    """Looks whether the folder has what this command answered, and nothing else."""
    summary.mixed = records.mixed(plan.items)
    if others := records.of_others(plan.items):
        tell(f"{len(others):,} files of answers here are of rows that are not among these: {few(others)}")
