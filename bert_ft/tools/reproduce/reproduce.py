"""`bert-ft reproduce`: a task or a suite, trained over several seeds by the recipe of a published number, and
judged.

The plan is a list of `bert-ft train` commands, each with its own run folder. They are run as child processes,
or by anybody in any order: calling `reproduce` again collects what is there and makes what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bert_ft import display
from bert_ft.config import frozen
from bert_ft.config.schema import Execution
from bert_ft.errors import BertFtError, InputError, shown
from bert_ft.jobs import local, remote
from bert_ft.jobs.base import Job, Running, Watcher
from bert_ft.modeling import remote_code
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce import estimate, place
from bert_ft.tools.reproduce.frozen.measure import reproduce as measure_frozen
from bert_ft.tools.reproduce.frozen.outcome import FrozenOutcome
from bert_ft.tools.reproduce.plan import Entry, Plan, Planned, plan
from bert_ft.tools.reproduce.results import Outcome
from bert_ft.tools.reproduce.soup import refuse_without_models

MARGIN = 1.0  # points
NO_TRAINING = {"seeds": 5, "grid": False, "save_model": False, "soup": False, "on": None, "per_run": None}
"""Arguments that say how is trained, with what they are where nobody says it."""


def reproduce(
    name: str | Path,
    checkpoint: str,
    *,
    seeds: int | Sequence[int] = 5,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    reference: str | None = None,
    grid: bool = False,
    margin: float | None = None,
    save_model: bool = False,
    soup: bool = False,
    signals: bool = False,
    quiet: bool = False,
    on: str | None = None,
    per_run: str | None = None,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> Outcome | FrozenOutcome:
    """Trains a task or a suite over several seeds, or measures a frozen encoder, and says whether its
    published numbers were reached.

    Args:
        name: a built-in task, a TOML file, or a suite ("glue", "glue-small"); or a measurement of a frozen
            encoder ("stsbenchmark"), for which nothing is trained, so that what says how has no meaning.
        checkpoint: hub id, folder, or an earlier run (intermediate training).
        seeds: how many (1, 2, ...), or which.
        data_dir: folder of the benchmark's original files.
        output: what is below it is the runs, `results.json`, `table.md`, `page.html`, and `logs/` of the
            runs; `runs/reproduce-<name>-<checkpoint>` by default.
        reference: words of a source, to choose among published numbers; by default those of this checkpoint.
            The recipe is that of the one with the fewest conditions that can't be met, the first of several.
        grid: searches the reference's or the task's grid with every seed, and takes each seed's best on
            validation.
        margin: points that a reproduced number may differ by; 1, and of a frozen encoder 0.0001.
        save_model: whether the runs keep their models.
        soup: averages the weights of each task's seeds greedily, as far as validation does not become worse
            (Wortsman et al. 2022), below `soup-<task>`; the runs keep their models.
        signals: SIGTERM ends the children first; the command line's way.
        on: where the runs are made, "ray" or "ray://HOST:PORT"; this machine by default. per_run: what each
            asks the cluster for, "cpus=4,gpus=1,memory=16GB".
        trust_remote_code: as for `finetune`.
        settings: any other key of the task, for all runs: the published recipe is left then, and the verdict
            says so.
    Raises:
        InputError: as `plan`, of a frozen encoder as `frozen.measure.reproduce`; or files of something else
            lie where its own would be written. A run that fails raises nothing: its cause is in the outcome.
    """
    if frozen.is_frozen(name):
        given: dict[str, Any] = {"seeds": seeds, "grid": grid, "save_model": save_model, "soup": soup}
        given |= {"on": on, "per_run": per_run}
        refuse_training({key for key, value in given.items() if value != NO_TRAINING[key]})
        return measure_frozen(
            name,
            checkpoint,
            data_dir=data_dir,
            output=output,
            reference=reference,
            margin=margin,
            quiet=quiet,
            trust_remote_code=trust_remote_code,
            **settings,
        )
    show = display.Display(quiet)
    planned = plan(
        name,
        checkpoint,
        seeds=seeds,
        data_dir=data_dir,
        output=output,
        reference=reference,
        grid=grid,
        save_model=save_model or soup,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    execution = Execution(on=on, per_run=per_run, signals=signals)
    return _trained(planned, MARGIN if margin is None else margin, soup, save_model or soup, execution, show)


def _trained(
    planned: Plan, margin: float, soup: bool, save_model: bool, execution: Execution, show: display.Display
) -> Outcome:
    """Makes the runs that are missing and judges all of them; arguments as of `reproduce`."""
    place.refuse_others(planned.folder)
    if soup and len(planned.seeds) < 2:
        raise InputError("a soup is of two seeds or more", where="--seeds", remedy="--seeds 5")
    if soup:
        refuse_without_models(planned.runs)
    missing = [run for run in planned.runs if run.folder.state != "finished"]
    if missing:
        logs = planned.folder / "logs"
        with remote.connected(execution, logs) if execution.on else nullcontext() as connection:
            runner = connection or local.Processes(logs, execution.signals)
            if connection is None:
                _announce(planned, missing, local.devices(), save_model, show)
            else:
                show.say(f"{_count(planned, missing)}; on {connection}, below {planned.folder}", "bold")
            with display.live_region(show.console) as live:
                runner.run(missing, _Progress(planned, show, live))
    outcome = Outcome(planned, margin)
    if soup:
        outcome.write()  # whatever becomes of the soups
        outcome.make_soups()
    outcome.write()
    return outcome


def refuse_training(given: Iterable[str]) -> None:
    """Refuses arguments that say how is trained, of a measurement that trains nothing."""
    if key := min(given, default=None):
        raise InputError(
            "a frozen encoder is measured, and nothing is trained",
            where=f"--{key.replace('_', '-')}",
            remedy="leave it out",
        )


def _announce(
    planned: Plan,
    missing: Sequence[Planned],
    devices: Sequence[str | None],
    save_model: bool,
    show: display.Display,
) -> None:
    """Tells the runs, their time and the disk they need, from finished runs or from a few real steps of each
    task."""
    where = "one at a time" if len(devices) == 1 else f"on {len(devices)} GPUs"
    show.say(f"{_count(planned, missing)}; {where}, below {planned.folder}", "bold")
    for first in dict.fromkeys(Path(run.task.run.checkpoint or "") for run in missing):
        if first != Path(planned.checkpoint) and RunDir(first).state != "finished":
            show.say(f"  first, and in no estimate: {first.name}, which all of them begin with")
    total, kept, training = 0.0, 0.0, 0.0
    for entry in planned.entries:
        remaining = [run for run in entry.runs if run in missing]
        if not remaining:
            continue
        try:
            costs = _costs(entry, remaining[0], devices[0], planned)
        except BertFtError as error:
            show.say(f"{entry.base.name}: no estimate: {error.message}", "yellow")
            continue
        source = f"published by {entry.reference.source}" if entry.reference else "the task's own recipe"
        duration = display.duration(costs["seconds"])
        show.say(f"  {entry.base.name}: {len(remaining)} runs of about {duration}; {source}")
        model = costs["bytes_training"] / 8 if save_model else 0.0
        total += len(remaining) * costs["seconds"]
        kept += len(remaining) * (costs["bytes_kept"] + model)
        training = max(training, costs["bytes_training"])
    show.say(
        f"about {display.duration(total / len(devices))}; disk: {kept / 2**20:,.0f} MB kept, "
        f"and up to {len(devices) * training / 2**20:,.0f} MB while training"
    )


def _count(planned: Plan, missing: Sequence[Planned]) -> str:
    """How many runs there are, and how many of them are finished, in words."""
    return f"{len(planned.runs)} runs, {len(planned.runs) - len(missing)} of them finished"


def _costs(entry: Entry, run: Planned, device: str | None, planned: Plan) -> dict[str, float]:
    """What a run of this task costs, as `estimate.cost` has it: of the finished runs, or measured. Raises
    BertFtError: it can't be measured."""
    done = [run.folder for run in entry.runs if run.folder.state == "finished"]
    if not done:
        # a run on another task that comes first has not left its model yet
        task = run.task.override({"run.checkpoint": planned.checkpoint})
        return estimate.cost(task, local.environment(device), planned.trusted)
    seconds = sum(folder.log()[-1]["seconds"] for folder in done) / len(done)
    size = sum(file.stat().st_size for file in done[0].path.rglob("*") if file.is_file())
    return {"seconds": seconds, "bytes_kept": size, "bytes_training": 0.0}


class _Progress(Watcher):
    """Shows the runs: a live table on a terminal, elsewhere a line for each that starts; and a line for each
    that ends."""

    def __init__(self, planned: Plan, show: display.Display, live: Any) -> None:
        self.planned, self.show, self.live = planned, show, live

    def started(self, job: Job) -> None:
        if self.live is None:
            self.show.say(f"{job.name}: started{f' on {job.node}' if job.node else ''}")

    def ended(self, job: Job) -> None:
        if job.cause:
            self.show.say(f"{job.name}: failed: {job.cause}", "red")
            return
        runs = self.planned.runs
        done = sum(run.folder.state == "finished" for run in runs)
        scores = display.table_of(job.folder.results()["metrics"])
        self.show.say(f"{job.name}: {scores}  ({done} of {len(runs)} runs)")

    def look(self, running: Sequence[Running]) -> None:
        if self.live is None:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table("task", "finished", "under way", box=None, pad_edge=False)
        for entry in self.planned.entries:
            own = [each for each in running if each.job in entry.runs]
            lines = [
                f"{' on '.join(filter(None, (each.job.name, each.job.node)))}: {each.last_line()} "
                f"({display.duration(time.monotonic() - each.began)})"
                for each in own
            ]
            done = sum(run.folder.state == "finished" for run in entry.runs)
            text = "\n".join(map(shown, lines))
            table.add_row(Text(shown(entry.base.name)), f"{done} of {len(entry.runs)}", Text(text))
        if left := self._left(len(running)):
            table.add_row("", "", Text(f"about {left} left"))
        self.live.update(table, refresh=True)

    def _left(self, places: int) -> str:
        """How long the others will take, if they take as long as the finished ones of their tasks; empty
        where some task has none of these, or nothing is under way."""
        total = 0.0
        for entry in self.planned.entries:
            done = [run.folder.log()[-1]["seconds"] for run in entry.runs if run.folder.state == "finished"]
            if len(done) < len(entry.runs) and not done:
                return ""
            total += (len(entry.runs) - len(done)) * sum(done) / max(1, len(done))
        return display.duration(total / places) if places and total else ""
