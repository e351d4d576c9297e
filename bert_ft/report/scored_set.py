"""A scored set of a run: its predictions and rows, and what the page shows of it whatever the family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac
from pyarrow import parquet as pq

from bert_ft import files
from bert_ft.config.task import Task
from bert_ft.data.rows import TOGETHER, together
from bert_ft.errors import InputError, disk
from bert_ft.metrics import bootstrap
from bert_ft.metrics.bootstrap import Groups, Interval, Resamples
from bert_ft.report.elements import Chart, Table
from bert_ft.report.suspects import Suspect
from bert_ft.rundir.folder import RunDir


@contextmanager
def consistent(folder: Path) -> Iterator[None]:
    """What is read of a run's folder may be damaged, or anybody's: files that do not fit together are one
    InputError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # Arrow's own errors are among them
        message = f"the files of this run do not fit together: {type(error).__name__}: {error}"
        raise InputError(message, where=str(folder), remedy="was one of them changed, or damaged?") from error


class Scored:
    """A scored set of a run, and what a page and `compare` need of it; a family brings a subclass. This one
    shows the set's metrics alone, whatever the family.

    Class attributes:
        length: the unit in which inputs are measured, and the columns that they stand in.
        answers: keys of an error's line that say what the model gave; one alone is shown as its value.
        sized_errors: whether a prediction is not right or wrong, but off by the `error` of its line.
    Attributes:
        lines: those of `predictions/<name>.jsonl`. rows: the canonical rows, None where the run keeps none.
    """

    length: ClassVar[tuple[str, tuple[str, ...]]] = ("characters", ("text", "text_pair"))
    answers: ClassVar[tuple[str, ...]] = ("prediction",)
    sized_errors: ClassVar[bool] = False

    def __init__(self, folder: RunDir, task: Task, name: str, results: Mapping[str, Any]) -> None:
        self.folder = folder
        self.task = task
        self.name = name
        self.tuned = results.get("tuned", {})
        self.metrics: dict[str, float] = results["metrics"].get(name, {})
        self.lines = list(files.read_jsonl(folder.prediction_file(name)))
        self.rows = _rows(_rows_file(folder, name))

    @cached_property
    def resamples(self) -> Resamples | None:
        """The rows as the metrics count them."""
        return None

    @cached_property
    def clusters(self) -> Groups | None:
        """The rows that hang together: those of a document, context or article, or of equal `data.group`,
        whichever are the largest; None where no such column parts the rows."""
        found = None if self.rows is None else together(self.rows)
        if found is None:
            return None
        column, numbers = found
        unit = f"groups ({self.task.data.group})" if column == "group" else TOGETHER[column]
        return Groups(unit, numbers)

    @cached_property
    def certainty(self) -> dict[str, Interval | str]:
        """The 95 % interval of each metric that comes out as in results.json, or why there is none."""
        if self.resamples is None:
            return {}
        whole = self.resamples.of()
        return {
            name: found
            for name, found in self.resamples.intervals().items()
            if self.metrics.get(name) is not None and abs(whole[name] - self.metrics[name]) < 1e-6
        }

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The ends of the intervals of `certainty`."""
        return {name: found[:2] for name, found in self.certainty.items() if isinstance(found, Interval)}

    @property
    def drawn(self) -> str:
        """What the intervals are over: "47 documents", "the 300 rows"."""
        return str(self.clusters or f"the {len(self.lines):,} rows")

    def methods(self) -> str:
        """How the intervals come about, for a table of several sets."""
        by: dict[str, list[str]] = {}
        for name, found in self.certainty.items():
            if isinstance(found, Interval):
                by.setdefault(found.method, []).append(name)
        how = "; ".join(f"{method}: {', '.join(names)}" for method, names in by.items())
        return f"{self.name} over {self.drawn}: {how if len(by) > 1 else next(iter(by), '')}"

    @property
    def independence(self) -> str:
        """What should be known of intervals and tests of rows that are taken one by one; empty where groups
        are known."""
        if self.resamples is None or self.clusters is not None:
            return ""
        return (
            "The rows are taken as independent: if several come of one document, article or person, intervals"
            " are too narrow and p-values too small; data.group (--set group=COLUMN) names what they come of."
        )

    def sections(self) -> list[Table | Chart]:
        """What the page shows of the set beside its metrics and errors."""
        sizes = self.sizes()
        title = f"by length of the input in {self.length[0]}"
        return [] if sizes is None else [self.groups(title, bootstrap.bins(sizes))]

    def sizes(self) -> np.ndarray | None:
        """(N,) how long each input is."""
        columns = [] if self.rows is None else [c for c in self.length[1] if c in self.rows.column_names]
        if self.rows is None or not columns or self.resamples is None:
            return None
        return np.asarray(sum(pac.fill_null(pac.utf8_length(self.rows[c]), 0).to_numpy() for c in columns))

    def groups(self, title: str, groups: Iterable[tuple[str, np.ndarray]]) -> Table:
        """The main metric of parts of the set."""
        assert self.resamples is not None
        whole = self.resamples.of()
        names = [name for name in self.main() if name in whole]
        parts = [(name, rows, self.resamples.of(rows)) for name, rows in groups if len(rows)]
        table: list[list[Any]] = [
            [name, len(rows), *(of[metric] for metric in names)] for name, rows, of in parts
        ]
        tops = {
            i: max([1.0, *(row[i] for row in table if np.isfinite(row[i]))]) for i in range(2, 2 + len(names))
        }
        return Table(
            title, [title.partition(" in ")[0].removeprefix("by "), "rows", *names], table, bars=tops
        )

    def main(self) -> list[str]:
        """The metrics that parts of the set are shown by."""
        return [self.task.best_metric[1]]

    @property
    def share_of_right(self) -> str:
        """The metric that is the share of the rows that `errors` does not list; empty where none is."""
        return ""

    def counted_by(self) -> dict[str, Any]:
        """Keys of the task, and their values, that the metrics of this family depend on beside the rows and
        the predictions; `metric` and `data.problem_type` need not be among them."""
        return {}

    def errors(self) -> list[dict[str, Any]]:
        """The wrong predictions, the most confident first."""
        raise InputError(
            f"of the family '{self.task.family}' no errors can be listed here",
            where=f"task {self.task.name}",
            remedy="look at its predictions: run.predictions()",
        )

    def suspects(self) -> list[Suspect]:
        """Labels that are likely wrong, the likeliest first; of a set whose rows no model learned that
        predicted them."""
        raise InputError(
            f"the family '{self.task.family}' has no measure of wrong labels",
            where=f"task {self.task.name}",
            remedy="a family of your own brings one: `suspects` of its report",
        )

    def given(self, row: int, said: Mapping[str, Any]) -> dict[str, Any]:
        """What another model said of a row (column of its file -> value) as keys of a prediction's line.

        Raises:
            ValueError: what is wrong with it.
        """
        raise InputError(
            f"of the family '{self.task.family}' no file of predictions can be compared here",
            where=f"task {self.task.name}",
        )

    def told(self, order: Iterable[int], **columns: Sequence[Any]) -> list[dict[str, Any]]:
        """Rows of the set in some order: their inputs, where the run keeps them, and other columns."""
        texts = [] if self.rows is None else [c for c in self.length[1] if c in self.rows.column_names]
        return [
            {"row": i}
            | {c: self.rows[c][i].as_py() for c in texts if self.rows is not None}
            | {name: column[i] for name, column in columns.items()}
            for i in map(int, order)
        ]

    def column(self, key: str) -> list[Any]:
        """One key of all prediction lines."""
        return [line[key] for line in self.lines]

    @property
    def names(self) -> list[str]:
        """The task's labels as strings."""
        return [str(label) for label in self.task.data.labels or []]


def _rows_file(folder: RunDir, name: str) -> Path:
    return folder.predictions / f"{name}.rows.parquet"


def _rows(file: Path) -> pa.Table | None:
    """The rows that a run keeps; None where there are none."""
    try:
        return pq.read_table(file) if file.is_file() else None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a parquet file: {error}", where=str(file), remedy="was it damaged?") from None


def keep(folder: RunDir, name: str, rows: pa.Table) -> None:
    """Keeps the canonical rows of a scored set with the run: what makes its report possible without the
    data."""
    with disk(folder.predictions), files.beside(_rows_file(folder, name)) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
