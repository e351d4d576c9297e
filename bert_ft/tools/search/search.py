"""`bert-ft search`: the recipe that does best on the validation set, found with Optuna; each trial an
ordinary run."""

from __future__ import annotations

import math
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from bert_ft import families, files
from bert_ft.config.catalog import load_task
from bert_ft.config.task import CONTROL, Task
from bert_ft.data import loading, overrides
from bert_ft.display import Display
from bert_ft.errors import InputError
from bert_ft.finetuning.finetune import finetune
from bert_ft.modeling import pretrained
from bert_ft.report.rendering import show
from bert_ft.rundir import environment, naming
from bert_ft.tools.search import page

if TYPE_CHECKING:
    from bert_ft.tools.search.study import Trial, Trials


SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}, "batch_size": [16, 32],
    "epochs": {"low": 2, "high": 4, "step": 1},
}  # fmt: skip
"""Where a task has no `recipe.search`, and its `recipe.grid` not that key: what Devlin et al. 2019 tried
(appendix A.3), with learning rates around theirs."""

HOPELESS = 3  # trials that fail before any other end the search


def search(
    task: str | Path | Task,
    checkpoint: str | None = None,
    *,
    trials: int = 20,
    timeout: float | str | None = None,
    space: Mapping[str, Any] | None = None,
    storage: Any = None,
    sampler: Any = None,
    pruner: Any = "median",
    output: str | Path | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    train: Any = None,
    validation: Any = None,
    folds: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Search:
    """Searches the recipe that gives the best metric on the validation set; test sets are left alone.

    The best of many trials is chosen for its score, which therefore leans high: a fresh seed or a test set
    tells more.

    Args:
        trials: of the whole search, over all calls and all processes that share its storage; the same call
            again goes on with what is missing. A trial whose process was ended is repeated, and counts once;
            equal recipes are trained once, and a space of no more recipes than trials is tried whole.
        timeout: seconds, "10min" or "2h" after which this call begins no other trial.
        space: recipe key -> a list of values, or `{"low":, "high":, "log": or "step":}`, in place of what
            `recipe.search` says, else `recipe.grid` with `SPACE`. A key that is among `settings` is not
            searched.
        storage: an Optuna storage or its URL; an SQLite file in the folder by default.
        sampler, pruner: Optuna's, in place of TPE seeded with the run's seed, and of the median rule; pruner
            None: no trial is pruned. Trials are compared at equal shares of an epoch.
        output: the search's folder, also the study's name; `runs/search-<task>-<checkpoint>` by default.
        folds: a trial is a cross-validation, pruned by its first fold.
        settings: of every trial: `finetune`'s other arguments, and keys of the task.
    Raises:
        InputError: another search lies there; nothing to search; all trials failed; Optuna is not installed.
    """
    from bert_ft.tools.search.study import Trials

    began = time.monotonic()
    limit = _seconds(timeout)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            "a trial is trained by one process",
            where="search",
            remedy="start the same command several times: they share the trials",
        )
    own = {key: settings.pop(key) for key in [*settings] if key in signature(finetune).parameters}
    for key in own.keys() & {"model", "test", "overwrite", "resume", "save_model"}:
        raise InputError(
            f"`{key}` is not for a search", where="search", remedy="give it to the training of best.toml"
        )
    sets = overrides.sets(train, validation, None)
    own_run = {"checkpoint": checkpoint, "seed": seed, "data_dir": data_dir, "folds": folds}
    bound = _with_space(overrides.bound(load_task(task), sets, settings, **own_run), settings, space or {})
    blind = bound.override(
        {"data.test": None, "recipe.search": {}}
        | ({"data.original.test": None} if bound.data.original else {})
    )
    rows = (
        None
        if bound.run.folds
        else loading.load(blind, families.find(blind.family), overrides.objects(sets)).fingerprint()
    )
    made_from = {
        "task": bound.dump(),
        "data": rows,
        "checkpoint": pretrained.fingerprint(bound.run.checkpoint),
    }
    name = "-".join(
        map(naming.clean, ("search", bound.name, naming.short_name(bound.run.checkpoint or "model")))
    )
    path = Path(output if output is not None else Path("runs") / name)
    display = Display(quiet)
    shared = Trials(
        path,
        bound.recipe.search,
        bound.best_metric,
        seed=bound.run.seed,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        made_from=made_from,
        say=display.say,
    )

    def trained(trial: Trial) -> float:
        run = finetune(
            blind.override({f"recipe.{key}": value for key, value in trial.recipe.items()}),
            output=trial.folder,
            overwrite=not trial.again,
            train=train,
            validation=validation,
            save_model=False,
            quiet=True,
            **{
                "check": trial.folder.name == "trial-0",
                **own,
                "callbacks": [display, *own.get("callbacks", ()), trial.pruning],
            },
        )
        part, metric = run.task.best_metric
        if (value := run.metrics[part][metric]) is None:
            raise InputError(f"{metric} on {part} is undefined")
        return value

    found = Search(path, bound, shared)
    while time.monotonic() - began < limit and (row := shared.step(trials, trained)) is not None:
        found.leave()
        best = f"; best {show(found.best['value'])}, trial {found.best['trial']}" if found.best else ""
        display.say(
            f"trial {row['trial']} {row['state']}, {bound.best_metric[1]} {show(row['value'])}, "
            f"{show(row['recipe'])}"
            f"{' ' * bool(row['note'])}{row['note']}{best}"
        )
        if len(found.trials) >= HOPELESS and found.hopeless:
            break
    found.leave()
    files.write(path / "search.html", page.html(path, found.results()))
    if found.hopeless:
        raise InputError(
            f"all {len(found.trials)} trials failed", where=str(path), remedy=found.trials[-1]["note"]
        )
    return found


class Search:
    """A search as far as it has come.

    Attributes:
        path: its folder: `study.db`, a run folder a trial, `best.toml`, `results.json`, `search.html`.
        study: Optuna's.
    """

    def __init__(self, path: Path, task: Task, shared: Trials) -> None:
        self.path, self._task, self._shared, self.study = path, task, shared, shared.study

    @property
    def trials(self) -> list[dict[str, Any]]:
        """A row a trial: trial, state, value (of a pruned one its last), recipe, epoch (of its last
        evaluation), seconds, note (a failure's cause)."""
        return self._shared.rows()

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best complete trial, the first where several are equal; None where none is
        complete."""
        return self._shared.best()

    @property
    def task(self) -> Task:
        """The task with the best recipe, as `best.toml` has it."""
        recipe = self.best["recipe"] if self.best else {}
        return self._task.override(
            {"recipe.search": {}} | {f"recipe.{key}": value for key, value in recipe.items()}
        )

    @property
    def command(self) -> str:
        """The command that trains with the best recipe, as a shell takes it."""
        return shlex.join(["bert-ft", "train", f"{self.path}/best.toml", "--output", f"{self.path}-best"])

    @property
    def hopeless(self) -> bool:
        """Whether trials have failed, and no other has come to anything."""
        return bool(self.trials) and all(row["state"] == "failed" for row in self.trials)

    def results(self) -> dict[str, Any]:
        """The content of `results.json`."""
        task, rows = self._task, self.trials
        counted = Counter(row["state"] for row in rows)
        over = len(rows) - counted["running"]
        return {
            "task": task.name,
            "family": task.family,
            "checkpoint": task.run.checkpoint,
            "seed": task.run.seed,
            "metric": "/".join(task.best_metric),
            "direction": self.study.direction.name.lower(),
            "space": task.model_dump(exclude_none=True)["recipe"]["search"],
            "counts": dict(counted),
            "best": self.best,
            "caution": f"the best of {over} trials, chosen by this very score, so that it leans high: a "
            "fresh seed or a test "
            "set tells more",
            "importance": self._shared.importance(),
            "trials": rows,
            "version": environment.version("bert-ft"),
        }

    def leave(self) -> None:
        """Writes `results.json` and `best.toml` from what the study knows now."""
        with self._shared.alone():
            results = self.results()
            files.write_json(self.path / "results.json", results)
            if best := results["best"]:
                told = (
                    self.command,
                    f"{results['metric']} {best['value']} in trial {best['trial']} with seed "
                    f"{results['seed']}:",
                    results["caution"],
                )
                header = "".join(f"# {CONTROL.sub('?', ' '.join(line.split()))}\n" for line in told)
                files.write(self.path / "best.toml", f"{header}\n{tomli_w.dumps(self.task.dump())}")

    def _repr_html_(self) -> str:
        return page.html(self.path, self.results(), whole=False)

    def __repr__(self) -> str:
        return (
            f"Search({str(self.path)!r}: {len(self.trials)} trials, best "
            f"{show(self.best and self.best['value'])})"
        )


def _with_space(task: Task, settings: Mapping[str, Any], space: Mapping[str, Any]) -> Task:
    """The task with what is searched in its `recipe.search`: without the keys that are set, and with those of
    `space`."""
    fixed = {key.rpartition(".")[2] for key in settings}
    if twice := sorted(fixed & set(space)):
        raise InputError(
            f"'{twice[0]}' is set, and searched as well", where="space", remedy="leave one of them out"
        )
    known: Mapping[str, Any] = task.recipe.search or SPACE | task.recipe.grid
    wanted = {key: values for key, values in known.items() if key not in fixed} | dict(space)
    if not wanted:
        raise InputError(
            "nothing is left to search", where="space", remedy="name a key: learning_rate, batch_size, ..."
        )
    return task.override({"recipe.search": wanted}, where="space")


def _seconds(given: float | str | None) -> float:
    if given is None:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|)", str(given))
    if not found:
        raise InputError(f"'{given}' is no time", where="timeout", remedy="seconds (600), 10min or 2h")
    return float(found[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[found[2]]
