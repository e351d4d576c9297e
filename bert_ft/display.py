"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere, on standard error;
in a notebook one output that is written anew."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from bert_ft import progress
from bert_ft.engine.batches import Plan
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.errors import shown
from bert_ft.families.features import Features

LOST = 0.02  # share of the tokens, or characters, from which unknown, or uncovered, ones are a warning
SECONDS = 10  # between two plain lines; a notebook's is written over


def table_of(metrics: Metrics) -> str:
    """`accuracy 0.9123 · f1 0.9001`, with the set's name in front where there are several."""
    parts = []
    for name, values in metrics.items():
        inner = " · ".join(
            f"{key} {'undefined' if value is None else f'{value:.4f}'}" for key, value in values.items()
        )
        parts.append(f"{name}: {inner}" if len(metrics) > 1 else inner)
    return shown("   ".join(parts))


def live_region(console: Console) -> Any:
    """A region of the terminal that is written over, as a context; its value is None where there is no
    terminal."""
    if not console.is_terminal or console.quiet:
        return nullcontext()
    return Live(console=console, auto_refresh=False, transient=True)


class UnderWay:
    """The jobs that run elsewhere, in a region that is written over: a line each with its node, what it
    printed last and its time. Any thread may tell of its own; without a terminal nothing is shown.

    Attributes:
        live: as `live_region` gives it.
        left: what is still to be done, said below the others.
    """

    def __init__(self, live: Any) -> None:
        self.live = live
        self.lines: dict[str, str] = {}
        self.left = ""
        self.alone = threading.Lock()

    def shows(self, name: str, node: str, line: str, seconds: float) -> None:
        """A job of this name has come so far."""
        self._update(name, f"{' on '.join(filter(None, (name, node)))}: {line} ({duration(seconds)})")

    def ended(self, name: str) -> None:
        """A job of this name has ended."""
        self._update(name, None)

    def _update(self, name: str, line: str | None) -> None:
        if self.live is None:
            return
        with self.alone:
            if line is None:
                self.lines.pop(name, None)
            else:
                self.lines[name] = line
            lines = [*self.lines.values(), *filter(None, [self.left])]
            self.live.update(Text("\n".join(map(shown, lines))), refresh=True)


def duration(seconds: float) -> str:
    """A time in words: "80 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Display(Callback):
    """Shows the course of one run."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal and not quiet
        self.bar: Progress | None = None
        self.cell = Text() if self.console.is_jupyter and not quiet else None
        self.handle: Any = None
        self.loss = ""

    def say(self, text: str, style: str = "") -> None:
        """Shows one line to the person, whatever it quotes."""
        text = shown(text)
        if self.cell is None:
            self.console.print(Text(text, style))
        else:
            self._show(self.cell.append(f"\n{text}" if self.cell else text, style))

    def _show(self, text: Text) -> None:
        from IPython.display import display

        self.handle = self.handle or display(text, display_id=True)  # type: ignore[no-untyped-call]
        self.handle.update(text)

    def on_start(self, plan: Plan, features: Features) -> None:
        self.plan = plan
        self.started_at = time.monotonic()
        self.last_line_at = time.monotonic()
        if self.live:
            steps = "{task.completed:.0f}/{task.total:.0f} steps"
            loss = "{task.fields[loss]}"
            times = TimeElapsedColumn(), "left", TimeRemainingColumn()
            self.bar = Progress(
                "{task.description}", BarColumn(32), steps, *times, loss, console=self.console, transient=True
            )
            self.bar.start()
            self.task = self.bar.add_task("training", total=plan.steps, loss="")
            self.alone = progress.watched_by(None)  # a terminal has one bar
            self.alone.__enter__()

    def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
        if entry is not None:
            self.loss = f"loss {entry['loss']:.4f}"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=self.loss)
        elif time.monotonic() - self.last_line_at > (SECONDS if self.cell is None else 1) and self.loss:
            self.last_line_at = time.monotonic()
            remaining = (self.last_line_at - self.started_at) / step * (self.plan.steps - step)
            line = f"{self._at(step)}  {_minutes(remaining)} left"
            if self.cell is None:
                self.say(line)
            else:
                self._show(self.cell.copy().append(f"\n{line}"))

    def on_evaluate(self, step: int, metrics: Metrics, best: bool) -> bool | None:
        suffix = "  best so far" if best else ""
        self.say(f"{self._at(step)}  {table_of(metrics)}{suffix}")
        self.last_line_at = time.monotonic()
        return None

    def _at(self, step: int) -> str:
        return f"step {step}/{self.plan.steps}  epoch {self.plan.epoch(step):.2f}  {self.loss}"

    def on_end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
            self.alone.__exit__(None, None, None)
        if self.cell is not None:
            self._show(self.cell)


def watching(quiet: bool = False) -> AbstractContextManager[None]:
    """Within: long work that tells how far it has come is shown, as `counting` shows it."""
    return progress.watched_by(None if quiet else lambda total, unit: counting(total, unit))


@contextmanager
def counting(total: int | None, unit: str, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Shows how far something has come: a bar on a terminal, a plain line now and then elsewhere.

    Args:
        total: how many there are; None where that is not known.
        unit: of what: "rows".
    Yields:
        a function that takes how many more are done.
    """
    console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
    started_at = last_line_at = time.monotonic()
    done = 0
    bar = None
    if console.is_terminal and not quiet:
        count = "{task.completed:,.0f}" + ("/{task.total:,.0f} " if total is not None else " ") + unit
        rate = "{task.fields[rate]}"
        times = TimeElapsedColumn(), "left", TimeRemainingColumn()
        bar = Progress(BarColumn(32), count, rate, *times, console=console, transient=True)
        task = bar.add_task("", total=total, rate="")

    def add(more: int) -> None:
        nonlocal done, last_line_at
        done += more
        now = time.monotonic()
        if bar is not None:
            bar.update(task, completed=done, rate=f"{done / (now - started_at):,.0f} a second")
        elif now - last_line_at > SECONDS:
            last_line_at = now
            of = f"/{total:,}" if total is not None else ""
            console.print(Text(f"{done:,}{of} {unit}, {done / (now - started_at):,.0f} a second"))

    with bar or nullcontext():
        yield add


class FilesBar:
    """A bar on a terminal of many files of rows, by their bytes, with files, rows, rows a second and the time
    left; nothing elsewhere. A context.

    Args:
        files: how many there are. size: their bytes.
    """

    def __init__(self, files: int, size: int) -> None:
        console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.live = console.is_terminal
        self.files, self.size, self.rows, self.done, self.done_size = files, size, 0, 0, 0
        self.started_at = time.monotonic()
        self.bar: Progress | None = None
        if self.live:
            times = TimeElapsedColumn(), "left", TimeRemainingColumn()
            self.bar = Progress(
                BarColumn(32), "{task.fields[counts]}", *times, console=console, transient=True
            )
            self.task = self.bar.add_task("", total=size, counts="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, rows: int, size: float) -> None:
        """More rows are answered, of a file whose share with them is `size` bytes so far."""
        self.rows += rows
        self._update(size)

    def ended(self, size: int, answered: bool) -> None:
        """A file is done; one that was there already counts for no time."""
        self.done += 1
        if answered:
            self.done_size += size
        else:
            self.size -= size
        self._update(0)

    def _update(self, more: float) -> None:
        if self.bar is None:
            return
        rate = self.rows / max(time.monotonic() - self.started_at, 1e-9)
        counts = f"{self.done:,}/{self.files:,} files  {self.rows:,} rows  {rate:,.0f} a second"
        self.bar.update(self.task, total=self.size, completed=self.done_size + more, counts=counts)


def parameter_lines(rows: Sequence[Mapping[str, Any]], rate: float) -> Iterator[str]:
    """What is trained of a network and how fast, a line a part; nothing where all of it has this rate.

    Args:
        rows: as `engine.optimization.table` has them.
    """
    if all(row["learning_rate"] == rate for row in rows):
        return
    yield "what is trained, and its peak learning rate:"
    for row in rows:
        peak = "frozen" if row["learning_rate"] is None else f"{row['learning_rate']:.3g}"
        yield f"  {row['part']}: {row['trained']:,} of {row['parameters']:,} parameters, {peak}"


def stalled(losses: list[float]) -> str | None:
    """A warning where the last quarter of the logged losses is no lower than the first; None where it is."""
    quarter = len(losses) // 4
    if quarter < 3 or None in losses:
        return None
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    if last < 0.99 * first:
        return None
    return (
        f"the training loss did not go down: {first:.4f} in the first quarter of the steps, {last:.4f} in "
        "the last; try another learning rate, or check the labels with `bert-ft check`"
    )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def count_line(name: str, counts: dict[str, int], max_length: int) -> str:
    """`train: 3,668 rows, 52.9 tokens a row; 0.5 % truncated at 128, 0.02 % unknown tokens`; behind it the
    characters that are in no token, where there are any."""
    rows = counts["rows"]
    tokens = max(1, counts["tokens"])
    truncated = counts.get("truncated", 0)
    unknown = counts.get("unknown", 0)
    cut = f"{truncated:,} rows ({truncated / rows:.1%}) truncated at {max_length}"
    if "windows" in counts:
        cut = f"{counts['windows']:,} windows of at most {max_length} tokens"
    if silent := counts.get("without_tokens", 0):
        cut += f", {silent:,} words without a token"
    line = (
        f"{name}: {rows:,} rows, {tokens / rows:.1f} tokens a row; {cut}, {unknown:,} unknown tokens "
        f"({unknown / tokens:.2%})"
    )
    if uncovered := counts.get("uncovered", 0):
        line += (
            f", {uncovered:,} of {counts['characters']:,} characters in no token "
            f"({uncovered / counts['characters']:.2%})"
        )
    return line


def unread(name: str, counts: Mapping[str, int]) -> str | None:
    """A warning where much of the texts does not reach the model: unknown tokens, characters in no token."""
    unknown = counts.get("unknown", 0) / max(1, counts["tokens"])
    uncovered = counts.get("uncovered", 0) / max(1, counts.get("characters", 0))
    if max(unknown, uncovered) <= LOST:
        return None
    characters = f" and {uncovered:.1%} of the characters are in no token" if "characters" in counts else ""
    return (
        f"{name}: {unknown:.1%} of the tokens are unknown{characters}, so the model does not see "
        "them; use a checkpoint that was pretrained on texts like these, with its own tokenizer"
    )


def not_read(counts: Mapping[str, int], max_length: int) -> list[str]:
    """What a person should know of answers to texts that the model did not read whole.

    Args:
        counts: of the encoded rows, as `Features` has them.
    """
    lines = []
    truncated = counts.get("truncated", 0)
    if truncated and "windows" in counts:  # of their contexts nothing is lost
        lines.append(
            f"the end of {truncated:,} of {counts['rows']:,} questions is not read: they are longer than "
            "max_query_length, or than half of max_length"
        )
    elif truncated:
        lines.append(
            f"{truncated:,} of {counts['rows']:,} rows are longer than {max_length} tokens, and only that "
            "much is read"
        )
    return [*lines, *([line] if (line := unread("texts", counts)) else [])]
