"""The trials of a search: an Optuna study that several processes work on, and that outlives each of them.

All that they share is the storage and the search's folder. Each holds a lock on the trial it trains, so that
a trial whose process is gone is known at once; it is failed, and repeated in the folder where it was.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import IO, Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from bert_ft import files
from bert_ft.config.recipe import Range
from bert_ft.engine.batches import Plan
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Interrupted
from bert_ft.errors import BertFtError, InputError, MachineError, disk
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.rundir.folder import RunDir

try:
    import optuna

    from bert_ft.tools.search import distributions, stored
    from bert_ft.tools.search import pruners as pruners
    from bert_ft.tools.search import storage as storages
    from bert_ft.tools.search.storage import Database, is_of_storage, opened
except ImportError:
    raise InputError("Optuna is not installed", remedy='pip install "bert-ft[search]"') from None

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
OWN = ("study.db*", ".search.lock", ".trial-*.lock", "trial-*", "best.toml", "results.json", "search.html")
ENOUGH = 10  # complete trials before importances say anything
# named, since versions differ: 5.0 turned constant_liar on (several processes share a study) and multivariate
# to None
TPE: dict[str, Any] = {
    "n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": False, "group": False,
    "constant_liar": True,
}  # fmt: skip


@dataclass
class Trial:
    """A trial to train. `again`: in the folder of one that was left; `pruning` goes among the training's
    callbacks."""

    folder: Path
    recipe: dict[str, Any]
    again: bool
    pruning: Pruning


FIXED = "fixed_params"
"""Where Optuna keeps the recipe of a trial that was put into its queue."""


class Trials:
    """The trials in a storage.

    Args:
        folder: of the search; its name is the study's. space: as `recipe.search`. metric: the set and metric
            to improve.
        storage: Optuna's, or its URL; None: an SQLite file in the folder.
        sampler, pruner: Optuna's; None: TPE seeded with `seed` (a space of no more recipes than trials is
            tried whole), and nothing is pruned.
        made_from: what all trials have in common; a study made from something else is refused.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, list[Any] | Range],
        metric: tuple[str, str],
        *,
        seed: int,
        storage: Any,
        sampler: Any,
        pruner: Any,
        made_from: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        pruner = pruners.pruner_of(pruner)
        self.folder, self.metric, self.seed, self.sampler, self.say = folder, metric, seed, sampler, say
        self.space = {key: distributions.of(values) for key, values in space.items()}
        self.sign = -1 if metric[1] in LOWER_IS_BETTER else 1
        self.name = folder.resolve().name  # of the study
        self.elsewhere = storage is not None  # other processes may have a disk of their own
        if (
            folder.exists()
            and not (folder / ".search.lock").exists()
            and (folder.is_file() or any(folder.iterdir()))
        ):
            raise InputError(
                "something that is no search lies here, and is left alone",
                where=str(folder),
                remedy="choose another place with --output DIR",
            )
        self.database = Database(None) if storage is None else opened(storage)
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for entry in (entry for pattern in OWN for entry in folder.glob(pattern)):
            files.refuse_link(entry)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.database.errors(), stored.readable(str(folder)), self.alone():
            if storage is None:
                self.database.storage = storages.in_file(folder / "study.db")
                named = optuna.study.get_all_study_names(self.database.storage)
                self.name = named[0] if len(named) == 1 else self.name  # its folder may have been renamed
            self.study = optuna.create_study(
                storage=self.database.storage,
                study_name=self.name,
                load_if_exists=True,
                pruner=pruner or optuna.pruners.NopPruner(),
                sampler=sampler,
                direction="maximize" if self.sign > 0 else "minimize",
            )
            before = self.study.user_attrs.get("made_from", made_from)
            if changes := files.difference(before if isinstance(before, dict) else {}, made_from):
                raise InputError(
                    "another search lies here; it differs in",
                    details=changes,
                    where=str(folder),
                    remedy="--output DIR puts the new one elsewhere",
                )
            self.study.set_user_attr("made_from", made_from)

    def step(self, limit: int, train: Callable[[Trial], float]) -> dict[str, Any] | None:
        """Takes a trial, trains it and returns its row; None where `limit` trials have been taken, by
        whichever process."""
        if (claimed := self._claim(limit) or self._late(limit)) is None:
            return None
        trial, first, lock = claimed
        folder = self.folder / f"trial-{first}"
        began = time.monotonic()  # Optuna's own dates are of a clock that may be set meanwhile
        with lock:
            with self.database.beating(trial._trial_id):
                state, value = self._train(trial, folder, train)
            for run in (RunDir(folder), *map(RunDir, folder.glob("fold-*"))):
                if run.state in ("finished", "unfinished") and not run.path.is_symlink():
                    run.clear("checkpoints")
            with self.alone():
                final = value if state is TrialState.COMPLETE else None
                trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
                self.study.tell(trial, final, state=state, skip_if_finished=True)
                self._lock_file(first).unlink(missing_ok=True)
        return next(row for row in self.rows() if row["trial"] == first)

    def _train(
        self, trial: optuna.Trial, folder: Path, train: Callable[[Trial], float]
    ) -> tuple[TrialState, float | None]:
        """What comes of a trial: that of an equal recipe where one has been trained; a failure's cause is
        noted."""
        try:
            trials = self._trials()
            for twin in trials:
                if twin.params == trial.params and twin.values and twin.state.is_finished():
                    trial.set_user_attr("note", f"as trial {_first(twin)}")
                    return twin.state, twin.value
            pruning = Pruning(trial, trials[trial.number], self.metric)
            again = "repeats" in trial.user_attrs
            return TrialState.COMPLETE, train(Trial(folder, trial.params, again, pruning))
        except optuna.TrialPruned:
            return TrialState.PRUNED, None
        except Exception as error:
            full = isinstance(error, MachineError) and isinstance(error.__context__, OSError)
            if full or isinstance(error, Interrupted) or is_of_storage(error):
                raise  # the trial is repeated when the search goes on
            cause = str(error) if isinstance(error, BertFtError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr("note", " ".join(cause.split()))
            return TrialState.FAIL, None

    def _claim(self, limit: int) -> tuple[optuna.Trial, int, IO[str]] | None:
        """A trial with its recipe drawn, the number of its folder, and the lock that says that it is being
        trained."""
        with self.alone():
            self._take_back()
            taken = len(self._counted())
            if taken >= limit:
                return None
            waiting = self._trials((TrialState.WAITING,))
            recipes = [] if waiting or self.sampler is not None else [*islice(self._recipes(), limit + 1)]
            if recipes and len(recipes) <= limit:
                tried = [trial.params for trial in self._counted()]
                if not (rest := [recipe for recipe in recipes if recipe not in tried]):
                    self.say(f"all {len(recipes)} recipes of the space have been tried")
                    return None
                self.study.enqueue_trial(rest[0])
            elif self.sampler is None:
                # a draw depends on what is known, not on which process makes it, and when
                draw = np.random.SeedSequence(self.seed, spawn_key=(taken,)).generate_state(1)
                self.study.sampler = optuna.samplers.TPESampler(seed=int(draw[0]), **TPE)
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "Heartbeat of storage", UserWarning
                )  # we have our own thread
                trial = self.study.ask(self.space)
            self.database.beat(trial._trial_id)
            first = trial.user_attrs.get("first", trial.number)
            lock = files.locked(self._lock_file(first), wait=False)
            assert lock is not None
            # instead of an earlier trial of this folder, which this one repeats
            files.fill(lock, self._lock_file(first), str(trial.number))
        return trial, first, lock

    def _late(self, limit: int) -> tuple[optuna.Trial, int, IO[str]] | None:
        """As `_claim`, where nothing is left to take but trials run elsewhere: their processes may be dead,
        and nobody be there to see it. They are watched for as long as a heartbeat may stay out."""
        deadline = time.monotonic() + storages.GRACE + storages.HEARTBEAT
        said = False
        while self.database.has_heartbeats and time.monotonic() < deadline and self._elsewhere():
            if not said:
                self.say("trials run in other processes: whether these are alive shows within some minutes")
            said = True
            time.sleep(storages.HEARTBEAT / 2)
            if (claimed := self._claim(limit)) is not None:
                return claimed
        return None

    def _elsewhere(self) -> bool:
        """Whether trials run that no process of this folder holds."""
        running = self._trials((TrialState.RUNNING,))
        return any(not self._is_held_here(trial) for trial in running)

    def _is_held_here(self, trial: FrozenTrial) -> bool:
        """Whether a running trial is, or was, that of a process of this folder, whose lock tells which."""
        file = self._lock_file(_first(trial))
        return not self.elsewhere or (file.is_file() and file.read_text() == str(trial.number))

    def _recipes(self) -> Iterator[dict[str, Any]]:
        """All recipes of the space; without end where there is no end of them."""
        values = [distributions.values(distribution) for distribution in self.space.values()]
        return (dict(zip(self.space, recipe, strict=True)) for recipe in product(*values))

    def _take_back(self) -> None:
        """Fails the trials whose process is gone, each with a successor that waits to be taken. Locks of
        those that have ended go."""
        trials = self._trials()
        succeeded = {trial.user_attrs.get("repeats") for trial in trials}
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        # one whose process ended between telling its end and deleting its lock
        unfinished = {self._lock_file(_first(trial)) for trial in trials if not trial.state.is_finished()}
        for file in {*self.folder.glob(".trial-*.lock")} - unfinished:
            file.unlink(missing_ok=True)
        silent = self.database.stale(self.study._study_id, {trial._trial_id for trial in running})
        for trial in running:
            file = self._lock_file(first := _first(trial))
            held_here = self._is_held_here(trial)
            if not held_here and trial._trial_id not in silent:
                continue
            lock = files.locked(file, wait=False) if held_here else nullcontext()
            if lock is None:
                continue
            with lock:
                drawn = trial.params.keys() == self.space.keys()
                if trial.number not in succeeded:  # unless it was killed right here
                    self.study.add_trial(
                        optuna.create_trial(
                            state=TrialState.WAITING,
                            user_attrs={"repeats": trial.number, "first": first},
                            # the recipe that it was to have, where it ended before it took it
                            system_attrs={k: v for k, v in trial.system_attrs.items() if k == FIXED},
                            params=trial.params if drawn else {},
                            distributions=trial.distributions if drawn else {},
                            intermediate_values=trial.intermediate_values,
                        )
                    )
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                file.unlink(missing_ok=True)
            self.say(f"trial {first} was left running: it is repeated")

    def _counted(self) -> list[FrozenTrial]:
        """Without those that wait, and those that have a successor."""
        trials = self._trials()
        left = {trial.user_attrs.get("repeats") for trial in trials}
        return [trial for trial in trials if trial.state.name in STATES and trial.number not in left]

    def _trials(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The study's trials, of all states or of these. Raises InputError: they are not of this search."""
        with stored.readable(str(self.folder)):
            trials = self.study.get_trials(deepcopy=False, states=states)
        return stored.checked(trials, self.space, str(self.folder))

    def _lock_file(self, first: int) -> Path:
        return self.folder / f".trial-{first}.lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process takes or ends a trial."""
        lock = files.locked(self.folder / ".search.lock", wait=True)
        assert lock is not None
        with lock, self.database.alone(self.name):
            yield

    def rows(self) -> list[dict[str, Any]]:
        """A row a trial: trial, state, value (of a pruned one its last), recipe, epoch (of its last
        evaluation), seconds, note (a failure's cause)."""
        rows = []
        for trial in sorted(self._counted(), key=_first):
            seconds = trial.user_attrs.get("seconds")
            if seconds is None and trial.duration is not None:  # of an earlier version
                seconds = round(trial.duration.total_seconds(), 1)
            epoch = None if trial.last_step is None else trial.last_step / 1000
            rows.append(
                {
                    "trial": _first(trial),
                    "state": STATES[trial.state.name],
                    "value": trial.value,
                    "recipe": trial.params,
                    "epoch": epoch,
                    "seconds": seconds,
                    "note": trial.user_attrs.get("note", ""),
                }
            )
        return rows

    def best(self) -> dict[str, Any] | None:
        """The row of the best complete trial, the first where several are equal; None where none is
        complete."""
        rows = [row for row in self.rows() if row["state"] == "complete"]
        return max(rows, key=lambda row: self.sign * row["value"], default=None)

    def importance(self) -> dict[str, float]:
        """Recipe key -> its share in what makes a trial good, by Optuna's default evaluator; empty below 10
        complete trials."""
        complete = self._trials((TrialState.COMPLETE,))
        enough = len(complete) >= ENOUGH and len(self.space) > 1
        return optuna.importance.get_param_importances(self.study) if enough else {}


class Pruning(Callback):
    """Tells the study each evaluation, by thousandths of an epoch, and ends a training that Optuna's pruner
    gives up."""

    def __init__(self, trial: optuna.Trial, before: FrozenTrial, metric: tuple[str, str]) -> None:
        self.trial, self.metric = trial, metric
        self.reported = set(before.intermediate_values)  # by an earlier attempt, or in an earlier fold

    def on_start(self, plan: Plan, features: Any) -> None:
        self.plan = plan

    def on_evaluate(self, step: int, metrics: Metrics, best: bool) -> bool | None:
        self.report(round(1000 * self.plan.epoch(step)), metrics, step >= self.plan.steps)
        return None

    def report(self, at: int, metrics: Metrics, last: bool) -> None:
        """Tells the evaluation at a thousandth of an epoch, once. Raises TrialPruned: it is not the `last`,
        and the trial is given up."""
        if at not in self.reported:
            self.reported.add(at)
            self.trial.report(metrics[self.metric[0]][self.metric[1]], at)
            if not last and self.trial.should_prune():
                raise optuna.TrialPruned


def _first(trial: FrozenTrial) -> int:
    """The trial's number; of one that repeats another, that one's."""
    return int(trial.user_attrs.get("first", trial.number))
