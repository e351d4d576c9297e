"""`bert-ft search`: the recipe that does best on the validation set, found with Optuna; each trial an
ordinary run."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from bert_ft import families, files, reading
from bert_ft.config import few_rows
from bert_ft.config.catalog import load_task
from bert_ft.config.schema import Execution
from bert_ft.config.task import CONTROL, Task
from bert_ft.data import overrides
from bert_ft.display import Display
from bert_ft.errors import InputError
from bert_ft.finetuning.finetune import finetune
from bert_ft.jobs import remote
from bert_ft.jobs.base import Job
from bert_ft.jobs.local import InProcess
from bert_ft.modeling import contradictions, pretrained, remote_code
from bert_ft.prepared import read
from bert_ft.report.rendering import show
from bert_ft.rundir import environment, naming
from bert_ft.rundir.folder import RunDir
from bert_ft.tools import repeated
from bert_ft.tools.search import page

if TYPE_CHECKING:
    from bert_ft.tools.search.remote import Trainer
    from bert_ft.tools.search.study import Trial, Trials


SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}, "batch_size": [16, 32],
    "epochs": {"low": 2, "high": 4, "step": 1},
}  # fmt: skip
"""Where a task has no `recipe.search`, and its `recipe.grid` not that key: what Devlin et al. 2019 tried
(appendix A.3), with learning rates around theirs."""

HOPELESS = 3  # trials that fail before any other end the search
CAUTION = (
    "the best of {trials} trials, chosen by this very score, so that it leans high: "
    "a fresh seed or a test set tells more"
)


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
        storage: an Optuna storage or its URL (`postgresql://USER@HOST/DATABASE`, `grpc://HOST:PORT` of
            Optuna's proxy); an SQLite file in the folder by default.
        sampler, pruner: Optuna's, in place of TPE seeded with the run's seed, and of "median", the median
            rule; "asha": successive halving; pruner None: no trial is pruned. Trials are compared at equal
            shares of an epoch.
        output: the search's folder, also the study's name; `runs/search-<task>-<checkpoint>` by default.
        folds: a trial is a cross-validation, pruned by its first fold.
        settings: of every trial: `finetune`'s other arguments, and keys of the task.
    Returns:
        the search as far as all processes have come.
    Raises:
        InputError: another search lies there; nothing to search; all trials failed; Optuna is not installed.
    """
    from bert_ft.tools.search.study import Trials, pruners

    pruner = pruners.pruner_of(pruner)
    deadline = time.monotonic() + _seconds(timeout)
    repeated.refuse_launched("search", "start the same command several times: they share the trials")
    options = repeated.options(settings, "search", "give it to the training of best.toml")
    execution = repeated.execution(options)
    sets = overrides.sets(train, validation, None)
    if execution.on is not None:
        contradictions.refuse_objects(repeated.objects(options, overrides.objects(sets)))
    run_keys = {"checkpoint": checkpoint, "seed": seed, "data_dir": data_dir, "folds": folds}
    bound = _with_space(overrides.bound(load_task(task), sets, settings, **run_keys), settings, space or {})
    parts = ("search", bound.name, naming.short_name(bound.run.checkpoint or "model"))
    path = reading.path(output if output is not None else Path("runs") / "-".join(map(naming.clean, parts)))
    display, blind = Display(quiet), repeated.without_tests(bound)
    shared = Trials(
        path,
        bound.recipe.search,
        bound.best_metric,
        seed=bound.run.seed,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        made_from=_identity(bound, blind, sets),
        say=display.say,
    )
    result = Search(path, bound, shared)
    training = _Training(blind, train, validation, options, display)
    with shared.database.errors():
        if execution.on is None:
            result._train(training, trials, deadline)
        else:
            training.remotely(execution, path, lambda: result._train(training, trials, deadline), trials)
        result._end()
    return result


def _identity(bound: Task, blind: Task, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What all trials of a search have in common; with folds the rows are those of each fold's own check."""
    rows = None
    if not bound.run.folds:
        rows = read(blind, families.find(blind.family), overrides.objects(sets)).splits.fingerprint()
    checkpoint = pretrained.fingerprint(bound.run.checkpoint)
    return {"task": bound.dump(), "data": rows, "checkpoint": checkpoint}


@dataclass
class _Training:
    """Trains a trial and returns its score.

    A trial is a job that this very process runs: its recipe is drawn when its turn comes, and the study
    prunes it through a callback. What processes share is the study, not a list of jobs.
    """

    task: Task  # without a recipe of the search
    train: Any
    validation: Any
    options: Mapping[str, Any]
    display: Display
    trainer: Trainer | None = None
    """On a cluster, who makes the runs there."""

    def remotely(self, execution: Execution, folder: Path, work: Callable[[], None], most: int) -> None:
        """Does the work, which calls this, in threads while a cluster is connected, no more than `most`."""
        from bert_ft.tools.search.remote import Trainer

        logs = folder / "logs"
        own = {f"execution.{key}": value for key, value in repeated.remote_execution(execution).items()}
        self.task = self.task.override(own)
        with remote.connected(execution, logs) as connection:
            self.display.say(f"on {connection}, below {folder}", "bold")
            trusted = remote_code.names(self.options.get("trust_remote_code"))
            self.trainer = Trainer(connection, logs, trusted, self.display)
            self.trainer.in_threads(work, most, execution.signals)

    def __call__(self, trial: Trial) -> float:
        recipe = {f"recipe.{key}": value for key, value in trial.recipe.items()}
        job = Job(self.task.override(recipe), RunDir(trial.folder))
        first = trial.folder.name == "trial-0"
        if self.trainer is not None:
            checked = first and self.task.execution.check
            job.task = job.task.override({"execution.check": checked})
            self.trainer.train(job, trial)
            return self._value(job)
        own = {"check": first and self.task.execution.check, **self.options}
        own["callbacks"] = [self.display, *self.options.get("callbacks", ()), trial.pruning]
        own["quiet"] = True

        def train(job: Job) -> None:
            finetune(
                job.task,
                output=job.folder.path,
                overwrite=not trial.again,
                train=self.train,
                validation=self.validation,
                save_model=False,
                baselines=False,
                **own,
            )

        InProcess(train).run([job])
        return self._value(job)

    def _value(self, job: Job) -> float:
        """The score of a finished run."""
        part, metric = job.folder.task().best_metric
        value: float | None = job.folder.results()["metrics"][part][metric]
        if value is None:
            raise InputError(f"{metric} on {part} is undefined")
        return value


def _line(row: Mapping[str, Any], metric: str, best: Mapping[str, Any] | None) -> str:
    """What is said of a trial that has ended."""
    parts = [f"trial {row['trial']} {row['state']}, {metric} {show(row['value'])}, {show(row['recipe'])}"]
    if row["note"]:
        parts.append(f" {row['note']}")
    if best:
        parts.append(f"; best {show(best['value'])}, trial {best['trial']}")
    return "".join(parts)


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

    def _train(self, training: _Training, most: int, deadline: float) -> None:
        """Trains trials until there are `most` of them, by whichever process, or the time is up."""
        while time.monotonic() < deadline and (row := self._shared.step(most, training)) is not None:
            self.leave()
            line = _line(row, self._task.best_metric[1], self.best)
            left = training.trainer.left(self.trials, most) if training.trainer is not None else ""
            training.display.say(line + left)
            if len(self.trials) >= HOPELESS and self.hopeless:
                break

    def _end(self) -> None:
        """Writes what all trials come to. Raises InputError: all of them failed."""
        self.leave()
        files.write(self.path / "search.html", page.html(self.path, self.results()))
        if self.hopeless:
            raise InputError(
                f"all {len(self.trials)} trials failed", where=str(self.path), remedy=self.trials[-1]["note"]
            )

    def results(self) -> dict[str, Any]:
        """The content of `results.json`.

        Raises:
            MachineError: the storage can't be read.
        """
        with self._shared.database.errors():
            return self._results()

    def _results(self) -> dict[str, Any]:
        task, rows = self._task, self.trials
        counts = Counter(row["state"] for row in rows)
        return {
            "task": task.name,
            "family": task.family,
            "checkpoint": task.run.checkpoint,
            "seed": task.run.seed,
            "metric": "/".join(task.best_metric),
            "direction": self.study.direction.name.lower(),
            "space": task.model_dump(exclude_none=True)["recipe"]["search"],
            "counts": dict(counts),
            "best": self.best,
            "caution": CAUTION.format(trials=len(rows) - counts["running"]),
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
                trial = f"trial {best['trial']} with seed {results['seed']}"
                score = f"{results['metric']} {best['value']} in {trial}:"
                lines = (self.command, score, results["caution"])
                header = "".join(f"# {CONTROL.sub('?', ' '.join(line.split()))}\n" for line in lines)
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
    own: Mapping[str, Any] = task.recipe.search or SPACE | task.recipe.grid
    searched = {key: values for key, values in own.items() if key not in fixed} | dict(space)
    if not searched:
        raise InputError(
            "nothing is left to search", where="space", remedy="name a key: learning_rate, batch_size, ..."
        )
    if task.recipe.method == "features" and not set(searched) - few_rows.STEPS:
        raise InputError(
            'the method "features" takes no steps, so all these recipes would be one',
            where="space",
            remedy='name a key that matters, such as max_length, or method = ["features", "contrastive"]',
        )
    return task.override({"recipe.search": searched}, where="space")


def _seconds(timeout: float | str | None) -> float:
    """A number of seconds, "10min" or "2h" in seconds; infinity where there is no limit."""
    if timeout is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|)", str(timeout))
    if not match:
        raise InputError(f"'{timeout}' is no time", where="timeout", remedy="seconds (600), 10min or 2h")
    return float(match[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[match[2]]
