"""`bert-ft reproduce`: a task or a suite, trained over several seeds by the recipe of a published number, and
judged.

The plan is a list of `bert-ft train` commands, each with its own run folder. They are run as child processes,
or by anybody in any order: calling `reproduce` again collects what is there and makes what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import display, files
from bert_ft.errors import BertFtError, InputError, disk, shown
from bert_ft.jobs import estimate, local
from bert_ft.modeling import remote_code
from bert_ft.tools.reproduce.plan import Plan, Planned, plan
from bert_ft.tools.reproduce.results import Outcome

OWN = ("results.json", "table.md", "page.html")  # what an outcome writes; the first is written first


def reproduce(
    name: str | Path,
    checkpoint: str,
    *,
    seeds: int | Sequence[int] = 5,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    reference: str | None = None,
    grid: bool = False,
    margin: float = 1.0,
    save_model: bool = False,
    signals: bool = False,
    quiet: bool = False,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> Outcome:
    """Trains a task or a suite over several seeds and says whether its published numbers were reached.

    Args:
        name: a built-in task, a TOML file, or a suite ("glue", "glue-small").
        checkpoint: hub id, folder, or an earlier run (intermediate training).
        seeds: how many (1, 2, ...), or which.
        data_dir: folder of the benchmark's original files.
        output: what is below it is the runs, `results.json`, `table.md`, `page.html`, and `logs/` of the
            runs; `runs/reproduce-<name>-<checkpoint>` by default.
        reference: words of a source, to choose among published numbers; by default those of this checkpoint.
            The recipe is that of the one with the fewest conditions that can't be met, the first of several.
        grid: searches the reference's or the task's grid with every seed, and takes each seed's best on
            validation.
        margin: points that a reproduced number may differ by.
        save_model: whether the runs keep their models.
        signals: SIGTERM ends the children first; the command line's way.
        trust_remote_code: as for `finetune`.
        settings: any other key of the task, for all runs: the published recipe is left then, and the verdict
            says so.
    Raises:
        InputError: as `plan`; or files of something else lie where its own would be written. A run that fails
            raises nothing: its cause is in the outcome.
    """
    show = display.Display(quiet)
    made = plan(
        name,
        checkpoint,
        seeds=seeds,
        data_dir=data_dir,
        output=output,
        reference=reference,
        grid=grid,
        save_model=save_model,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    _refuse_others(made.folder)
    missing = [run for run in made.runs if run.folder.state != "finished"]
    if missing:
        places = local.devices()
        _announce(made, missing, places, save_model, show)
        logs = made.folder / "logs"
        with disk(logs):
            logs.mkdir(parents=True, exist_ok=True)
        _make(made, missing, logs, places, show, signals)
    outcome = Outcome(made, margin)
    outcome.write()
    return outcome


def _refuse_others(folder: Path) -> None:
    """Leaves alone a folder whose results.json, table.md or page.html are not of a reproduction, or are
    links."""
    for name in (*OWN, "logs"):
        files.refuse_link(folder / name)
    if not any((folder / name).exists() for name in OWN):
        return
    try:
        value = json.loads((folder / OWN[0]).read_bytes())
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "verdicts" not in value:
        raise InputError(
            "something that is no reproduction lies here, and is left alone",
            where=str(folder),
            remedy="choose another place with --output DIR",
        )


def _announce(
    made: Plan,
    missing: Sequence[Planned],
    places: Sequence[str | None],
    save_model: bool,
    show: display.Display,
) -> None:
    """Tells the runs, their time and the disk they need, from finished runs or from a few real steps of each
    task."""
    where = "one at a time" if len(places) == 1 else f"on {len(places)} GPUs"
    show.say(
        f"{len(made.runs)} runs, {len(made.runs) - len(missing)} of them finished; "
        f"{where}, below {made.folder}",
        "bold",
    )
    total, kept, training = 0.0, 0.0, 0.0
    for entry in made.entries:
        todo = [run for run in entry.runs if run in missing]
        done = [run.folder for run in entry.runs if run.folder.state == "finished"]
        if not todo:
            continue
        if done:
            seconds = sum(run.log()[-1]["seconds"] for run in done) / len(done)
            size = sum(file.stat().st_size for file in done[0].path.rglob("*") if file.is_file())
            found = {"seconds": seconds, "bytes_kept": size, "bytes_training": 0.0}
        else:
            try:
                found = estimate.cost(todo[0].task, local.environment(places[0]), made.trusted)
            except BertFtError as error:
                show.say(f"{entry.base.name}: no estimate: {error.message}", "yellow")
                continue
        source = f"published by {entry.reference.source}" if entry.reference else "the task's own recipe"
        show.say(f"  {entry.base.name}: {len(todo)} runs of about {_words(found['seconds'])}; {source}")
        total += len(todo) * found["seconds"]
        kept += len(todo) * (found["bytes_kept"] + save_model * found["bytes_training"] / 8)
        training = max(training, found["bytes_training"])
    show.say(
        f"about {_words(total / len(places))}; disk: {kept / 2**20:,.0f} MB kept, "
        f"and up to {len(places) * training / 2**20:,.0f} MB while training"
    )


def _make(
    made: Plan,
    missing: Sequence[Planned],
    logs: Path,
    places: Sequence[str | None],
    show: display.Display,
    signals: bool,
) -> None:
    from rich.table import Table
    from rich.text import Text

    with local.display(show.console) as live:

        def tell(run: Any, child: local.Child | None) -> None:
            name = run.folder.path.name
            done = sum(run.folder.state == "finished" for run in made.runs)
            if child is not None:
                show.say(f"{name}: started") if live is None else None
            elif run.cause:
                show.say(f"{name}: failed: {run.cause}", "red")
            else:
                log = run.folder.results()["metrics"]
                show.say(f"{name}: {display.table_of(log)}  ({done} of {len(made.runs)} runs)")

        def look(running: Mapping[str, local.Child]) -> None:
            if live is None:
                return
            table = Table("task", "finished", "under way", box=None, pad_edge=False)
            for entry in made.entries:
                names = {run.folder.path.name for run in entry.runs}
                lines = [
                    f"{name}: {child.last()} ({_words(time.monotonic() - child.began)})"
                    for name, child in running.items()
                    if name in names
                ]
                done = sum(run.folder.state == "finished" for run in entry.runs)
                said = "\n".join(map(shown, lines))
                table.add_row(Text(shown(entry.base.name)), f"{done} of {len(entry.runs)}", Text(said))
            live.update(table, refresh=True)

        local.run(missing, logs, places, tell, look, signals)


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
