"""The recorder of a run: what it shows a person, its log, its trackers, and the notes in its results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bert_ft import display
from bert_ft.engine import optimization
from bert_ft.finetuning.experiment import Experiment
from bert_ft.modeling.model import Model
from bert_ft.prepared import Prepared
from bert_ft.rundir.space import Space


class Recorder:
    """Shows and records the course of one run; the main process alone writes.

    Attributes:
        notes: what a person should know of the run, a line each.
        parameters: what is trained of the network, and how fast, as `optimization.table` has it.
    """

    def __init__(self, experiment: Experiment, prepared: Prepared, model: Model) -> None:
        self.experiment = experiment
        self.task = prepared.task
        self.accelerator = model.accelerator
        self.network = model.network
        self.main = model.accelerator.is_main_process
        self.display = display.Display(experiment.execution.quiet or not self.main)
        self.say = self.display.say
        self.tracked = experiment.execution.log_with is not None
        self.seed = model.adapter.task.run.seed
        self.notes: list[str] = []
        self.parameters: list[dict[str, Any]] = []

    def note(self, line: str, style: str = "") -> None:
        """Shows a line, and keeps it in the results."""
        self.say(line, style)
        self.notes.append(line)

    def describe(self, prepared: Prepared, counts: Mapping[str, dict[str, int]]) -> None:
        """Shows what there is before the first step: rows and tokens, labels, disk space."""
        for name, counted in counts.items():
            self.say(display.count_line(name, counted, self.task.recipe.max_length))
            if unread := display.unread(name, counted):
                self.note(unread, "yellow")
        adapter = prepared.adapter
        if adapter.labels:
            kinds = "/".join(sorted({type(label).__name__ for label in adapter.labels}))
            more = " ..." if len(adapter.names) > 20 else ""
            self.say(f"{len(adapter.labels)} labels ({kinds}): {', '.join(adapter.names[:20])}{more}")
        self.parameters = optimization.table(self.network, self.task.recipe)
        for line in display.parameter_lines(self.parameters, self.task.recipe.learning_rate):
            self.say(line)
        execution = self.experiment.execution
        tables = [rows.table for rows in prepared.scored.values()]
        space = Space.of(self.parameters, tables, len(adapter.names), self.task.recipe, execution.save_model)
        for line in space.told(self.experiment.folder.path, execution.check):
            self.say(line)

    def start_trackers(self) -> None:
        """Starts the trackers of `log_with`, with the recipe."""
        if self.tracked:
            recipe = self.task.recipe.model_dump()
            plain = {key: value for key, value in recipe.items() if isinstance(value, (int, float, str))}
            self.accelerator.init_trackers("bert-ft", plain)

    def end_trackers(self) -> None:
        """Closes them."""
        if self.tracked:
            self.accelerator.end_training()

    def log(self, entry: dict[str, Any]) -> None:
        """Writes a line of the log, to the run's folder and to the trackers."""
        if "out_of_memory" in entry:
            remedy = f"{entry['out_of_memory']}, the batch size stays the same"
            self.say(f"step {entry['step']}: out of memory; {remedy}")
        if "graphs" in entry:  # a run that was resumed has recorded and replayed others
            return self.say(entry["graphs"])
        if self.main:
            seconds = round(time.perf_counter() - self.experiment.began, 3)
            self.experiment.folder.append_log({**entry, "seconds": seconds})
        if self.tracked:
            numbers = {key: value for key, value in entry.items() if isinstance(value, (int, float))}
            for name, values in entry.get("evaluation", {}).items():
                numbers |= {f"{name}/{key}": value for key, value in values.items()}
            self.accelerator.log(numbers, step=entry["step"])
