"""A search: killed, shared and pruned as Optuna's own study has it; the best recipe gives the best trial's score again."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

import bert_ft
from bert_ft.cli.search import _space
from bert_ft.config.catalog import load_task
from bert_ft.config.recipe import Range
from bert_ft.engine.batches import Plan
from bert_ft.errors import InputError
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.search.study import Trial, Trials

SPACE = {"learning_rate": Range(low=1e-5, high=1e-3, log=True), "batch_size": [16, 32]}


@pytest.fixture(autouse=True)
def no_sync() -> Any:
    """The death of a process needs none, and the disks of test machines are slow."""

    def off(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", off)
    yield
    event.remove(Engine, "connect", off)


def trials(folder: Path, space: Any = SPACE, **options: Any) -> Trials:
    given = {"seed": 1, "storage": None, "sampler": None, "pruner": "median", "made_from": {}, "say": print}
    return Trials(folder, space, ("validation", "accuracy"), **(given | options))


def study(folder: Path) -> optuna.Study:
    """As Optuna alone sees it."""
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


def score(trial: Trial) -> float:
    return float(-abs(np.log10(trial.recipe["learning_rate"]) + 4) + trial.recipe["batch_size"] / 100)


def fork(work: Callable[[], Any]) -> int:
    """A process that does this; gives its id."""
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def all_of(folder: Path, most: int, train: Callable[[Trial], float]) -> None:
    shared = trials(folder)
    while shared.step(most, train):
        pass


def dying(after: int) -> None:
    """From now on the n-th write to a database is the process's end, just before it is done."""
    left = iter(range(after))

    def count(connection: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", count)


def table(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["state"], row["value"], row["recipe"]) for row in trials(folder).rows()]


# --- the trials of a study, with a training that costs nothing --------------------------------------------------------


def test_killed_search_equals_one_left_alone(tmp_path: Path) -> None:
    all_of(tmp_path / "alone", 5, score)
    draw, kills, folder = random.Random(0), 0, tmp_path / "killed"
    while True:
        after = draw.randint(5, 30)
        child = fork(lambda after=after: (dying(after), all_of(folder, 5, score)))
        if (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) != -signal.SIGKILL:
            break
        kills += 1
    assert code == 0 and kills > 2
    assert table(folder) == table(tmp_path / "alone") and len(table(folder)) == 5
    known = study(folder).trials
    left = [trial.user_attrs["repeats"] for trial in known if "repeats" in trial.user_attrs]
    assert sum(trial.state.name == "COMPLETE" for trial in known) == 5
    assert len(left) == len(set(left)) == len(known) - 5
    assert all(known[number].state.name == "FAIL" for number in left)


def test_processes_share_a_study(tmp_path: Path) -> None:
    """Three of them; one is killed in the middle of its first trial, which another repeats; a living one's is let alone."""
    folder = tmp_path / "shared"
    taken, gone = tmp_path / "taken.txt", tmp_path / "gone"
    taken.touch()

    def lines() -> list[list[str]]:
        return [line.split() for line in taken.read_text().splitlines()]

    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 100
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def train(trial: Trial) -> float:
        with taken.open("a") as stream:
            stream.write(f"{os.getpid()} {trial.folder.name}\n")
        until(
            lambda: (
                os.getpid() != lost
                and (len(lines()) < 6 or gone.exists())
                and len({pid for pid, _ in lines()}) == 3
            )
        )
        return score(trial)

    lost = 0  # in the process that is forked first, `lost` is its own id

    def first() -> None:
        nonlocal lost
        lost = os.getpid()
        all_of(folder, 9, train)

    killed = fork(first)
    others = [fork(lambda: all_of(folder, 9, train)) for _ in range(2)]
    until(lambda: len(lines()) >= 6)
    assert len({number for _, number in lines()}) == len(lines())
    os.kill(killed, signal.SIGKILL)
    gone.touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (killed, *others)] == [-9, 0, 0]
    known = study(folder).trials
    assert Counter(trial.state.name for trial in known) == {"COMPLETE": 9, "FAIL": 1}
    twice = [number for number, n in Counter(number for _, number in lines()).items() if n > 1]
    assert twice == [number for pid, number in lines() if pid == str(killed)] and len(lines()) == 10
    recipes = {tuple(trial.params.values()) for trial in known if trial.state.name == "COMPLETE"}
    assert len(recipes) == 9, "the processes draw apart"


def test_another_storage_and_its_other_machines(tmp_path: Path) -> None:
    """What runs on another disk is left alone; a smaller number of trials takes none."""
    storage = f"sqlite:///{tmp_path / 'ours.db'}"
    here = trials(tmp_path / "a" / "name", storage=storage)
    there = trials(tmp_path / "b" / "name", storage=storage)
    claimed = there._claim(5)
    assert claimed is not None and claimed[1] == 0
    assert [here.step(3, score)["trial"] for _ in range(2)] == [1, 2] and here.step(3, score) is None  # type: ignore[index]
    assert [row["state"] for row in here.rows()] == ["running", "complete", "complete"]
    claimed[2].close()  # its process is gone
    assert here.step(3, score) is None
    assert there.step(3, score)["trial"] == 0  # type: ignore[index]
    with pytest.raises(InputError, match=r"another search lies here; it differs in\n    task: .none. -> x"):
        trials(tmp_path / "a" / "name", storage=storage, made_from={"task": "x"})
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(InputError, match="something that is no search lies here"):
        trials(tmp_path / "b")


def test_a_folder_that_was_renamed_is_the_same_search(tmp_path: Path) -> None:
    """It goes on where it was, and another space is still refused."""
    shared = trials(tmp_path / "a", made_from={"space": "x"})
    assert [shared.step(2, score)["trial"] for _ in range(2)] == [0, 1]  # type: ignore[index]
    (tmp_path / "a").rename(tmp_path / "b")
    again = trials(tmp_path / "b", made_from={"space": "x"})
    assert again.step(3, score)["trial"] == 2 and again.step(3, score) is None  # type: ignore[index]
    with pytest.raises(InputError, match="another search lies here"):
        trials(tmp_path / "b", made_from={"space": "y"})


def test_trials_of_an_earlier_version_keep_their_seconds(tmp_path: Path) -> None:
    """That did not write them down, and had Optuna's own times."""
    shared = trials(tmp_path / "a")
    shared.step(1, score)
    with sqlite3.connect(tmp_path / "a" / "study.db") as base:
        base.execute("DELETE FROM trial_user_attributes WHERE key = 'seconds'")
        base.execute("UPDATE trials SET datetime_complete = datetime(datetime_start, '+8 seconds')")
    assert trials(tmp_path / "a").rows()[0]["seconds"] == pytest.approx(8, abs=1)


@pytest.mark.parametrize("metric", ["accuracy", "mean_squared_error"])
def test_pruned_by_the_median_rule(tmp_path: Path, metric: str) -> None:
    """Against the rule itself (Golovin et al. 2017, section 3.2.2), at each epoch but the last, with batches of two sizes."""
    sign = -1 if metric == "mean_squared_error" else 1
    draw, done, expected = np.random.default_rng(0), [], []
    storage = optuna.storages.InMemoryStorage()
    shared = Trials(tmp_path / "s", SPACE, ("validation", metric), seed=0, storage=storage, sampler=None, pruner="median",
                    made_from={}, say=print)  # fmt: skip

    def train(trial: Trial) -> float:
        values = draw.normal(size=4)
        plan = Plan(100, trial.recipe["batch_size"], 4, 0)
        out = [len(done) >= 5 and sign * max(sign * values[: k + 1]) * sign < np.median([v[k] for v in done]) * sign
               for k in range(3)]  # fmt: skip
        expected.append("pruned" if any(out) else "complete")
        trial.pruning.on_start(plan, None)  # type: ignore[arg-type]
        for epoch, value in enumerate(values, 1):
            trial.pruning.on_evaluate(
                epoch * plan.steps_per_epoch, {"validation": {metric: float(value)}}, False
            )
        done.append(values)
        return float(values[-1])

    rows = [shared.step(25, train) for _ in range(25)]
    assert [row["state"] for row in rows] == expected and 5 < expected.count("pruned") < 20  # type: ignore[index]
    assert shared.best()["value"] == shared.study.best_value  # type: ignore[index]
    assert shared.importance().keys() == SPACE.keys()


def test_small_space_is_tried_whole(tmp_path: Path) -> None:
    space = {
        "batch_size": [8, 16],
        "epochs": Range(low=2, high=4, step=1),
        "weight_decay": Range(low=0.0, high=0.1, step=0.1),
    }
    shared = trials(tmp_path / "s", space, storage=optuna.storages.InMemoryStorage())
    for most in (5, 12, 100):
        while shared.step(most, lambda trial: 0.5 / trial.recipe["epochs"] ** 2):
            pass
    tried = [tuple(row["recipe"].values()) for row in shared.rows() if not row["note"]]
    assert sorted(tried) == sorted(product([8, 16], [2, 3, 4], [0.0, 0.1]))
    twins = {row["note"]: row for row in shared.rows() if row["note"]}
    assert all(row["recipe"] == shared.rows()[int(note.split()[-1])]["recipe"] for note, row in twins.items())


# --- whole searches ---------------------------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path: Path) -> Path:
    draw = random.Random(0)
    words = {"fine": "warm funny brave love finest", "dull": "flat tired empty dull lazy"}
    for name, n in (("train", 64), ("validation", 41), ("test", 23)):
        rows = [{"text": " ".join(draw.choices([*words[label].split(), "a", "film", "the", "plot"], k=6)),
                 "label": draw.choice(["fine", "dull"]) if i % 4 == 0 else label}
                for i, label in enumerate(draw.choices(["fine", "dull"], k=n))]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "films.toml"
    file.write_text("""
        [data]
        train = "train.jsonl"
        evaluate = "validation.jsonl"
        test = "test.jsonl"
        [recipe]
        epochs = 2
        batch_size = 8
        learning_rate = 3e-3
        [recipe.search]
        max_length = [12, 999, 16]
        """)
    return file


def test_a_search_its_best_recipe_and_its_interruption(
    task: Path, tiny_checkpoint: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    line = ["search", task, "-c", tiny_checkpoint, "--output", "s"]
    done = cli(*line, "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)
    rows = results["trials"]
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"] and "999" in rows[1]["note"]
    known = study(tmp_path / "s")
    assert [trial.value for trial in known.trials] == [row["value"] for row in rows]
    assert results["best"]["value"] == known.best_value and results["best"]["recipe"] == known.best_params
    run = RunDir(tmp_path / "s" / f"trial-{results['best']['trial']}")
    assert run.results()["metrics"].keys() == {"validation"}, "the test set is left alone"
    assert not run.model.exists() and "search" not in run.results()["recipe"]
    assert json.loads((tmp_path / "s" / "results.json").read_text()) == results
    page = (tmp_path / "s" / "search.html").read_text()
    assert "<script" not in page and "the best of 3 trials" in page and page.count("<svg") == 2

    trained = cli("train", "s/best.toml", "--output", "best")
    assert trained.code == 0, trained.err
    best = RunDir(tmp_path / "best")
    assert best.results()["metrics"]["validation"]["accuracy"] == known.best_value
    assert best.prediction_file("validation").read_bytes() == run.prediction_file("validation").read_bytes()
    assert best.results()["metrics"].keys() == {"validation", "test"}

    listed = json.loads(cli("runs", "s", "--json").out)
    assert [(Path(row["run"]).name, row["value"]) for row in listed if row["state"] == "finished"] == [
        (f"trial-{row['trial']}", row["value"]) for row in rows if row["state"] == "complete"
    ]
    again = cli(*line)
    assert again.code == 0 and "the best of 3 trials, chosen by this very score" in again.out
    assert (
        len(study(tmp_path / "s").trials) == 3 and (tmp_path / "s" / "results.json").read_text() == done.out
    )
    other = cli(*line, "--space", "max_length=12,16")
    assert (
        other.code == 2
        and "another search lies here; it differs in\n    task.recipe.search.max_length" in other.err
    )

    class Leaving(bert_ft.Callback):
        def on_evaluate(self, step: int, metrics: Any, best: bool) -> bool | None:
            raise KeyboardInterrupt

    given = {"output": tmp_path / "interrupted", "space": {"max_length": [12]}, "trials": 1, "quiet": True}
    with pytest.raises(KeyboardInterrupt):
        bert_ft.search(task, str(tiny_checkpoint), callbacks=[Leaving()], **given)
    assert trials_of(tmp_path / "interrupted") == ["RUNNING"]
    found = bert_ft.search(task, str(tiny_checkpoint), **given)
    assert trials_of(tmp_path / "interrupted") == ["FAIL", "COMPLETE"]
    assert [(row["trial"], row["value"], row["recipe"]) for row in found.trials] == [
        (row["trial"], row["value"], row["recipe"]) for row in rows[:1]
    ]
    assert len(RunDir(found.path / "trial-0").environment()["resumed"]) == 1 and "<h1>" in found._repr_html_()


def trials_of(folder: Path) -> list[str]:
    return [trial.state.name for trial in study(folder).trials]


class Always(optuna.pruners.BasePruner):
    def prune(self, study: Any, trial: Any) -> bool:
        return True


def test_pruned_and_hopeless(task: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    found = bert_ft.search(
        task, str(tiny_checkpoint), trials=1, pruner=Always(), output=tmp_path / "p", quiet=True
    )
    assert found.best is None and found.trials[0]["state"] == "pruned" and found.trials[0]["epoch"] == 1
    run = RunDir(tmp_path / "p" / "trial-0")
    assert run.state == "unfinished" and not run.checkpoints.exists()
    with pytest.raises(InputError, match=r"all 3 trials failed\n.*max_length"):
        bert_ft.search(
            task,
            str(tiny_checkpoint),
            space={"max_length": [996, 997, 998, 999]},
            output=tmp_path / "h",
            quiet=True,
        )
    assert trials_of(tmp_path / "h") == ["FAIL"] * 3


def test_what_carries_out_a_run_is_no_key_of_the_recipe(
    task: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches each trial, with or without its table's name, and is no part of what the search is, whatever
    parameters `finetune` names."""
    given = list[dict[str, Any]]()

    def few_parameters(
        task: Any, *, output: Any, train: Any, validation: Any, callbacks: Any, **settings: Any
    ) -> Any:
        given.append(settings)
        sets = {"train": train, "validation": validation}
        return bert_ft.finetune(task, output=output, callbacks=callbacks, **sets, **settings)

    monkeypatch.setattr("bert_ft.tools.search.search.finetune", few_parameters)
    call = {
        "output": tmp_path / "s",
        "space": {"batch_size": [8, 16]},
        "trials": 2,
        "max_length": 16,
        "quiet": True,
    }
    bert_ft.search(
        task, str(tiny_checkpoint), **call, keep_checkpoints=True, metrics=[], **{"execution.save_every": 3}
    )
    assert [each.pop("check") for each in given] == [True, False], "the data's faults are told once"
    assert {*given[0]} == {
        "keep_checkpoints",
        "metrics",
        "save_every",
        "overwrite",
        "save_model",
        "baselines",
        "quiet",
    }
    assert all(each["save_every"] == 3 and each["quiet"] and not each["save_model"] for each in given)
    found = bert_ft.search(task, str(tiny_checkpoint), **call, save_every=500)
    assert len(found.trials) == 2 and len(given) == 2, "the same search"


# --- the space --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "values", "message"), [
    ("learning_rat", [1e-5], "recipe.search: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
    ("grid", [1], "recipe.search: unknown key 'grid'"),
    ("learning_rate", 1e-5, "recipe.search.learning_rate = 1e-05: Input should be a valid list"),
    ("learning_rate", [], "recipe.search: learning_rate has no values"),
    ("learning_rate", [1e-5, 20], "recipe.search: learning_rate = 20: Input should be less than 10"),
    ("batch_size", [16.5], "recipe.search: batch_size = 16.5: Input should be a valid integer"),
    ("batch_size", {"low": 8, "high": 9, "step": 0.5}, "recipe.search: batch_size = 8.5: Input should be a valid integer"),
    ("schedule", {"low": 1, "high": 2}, "recipe.search: schedule = 1: Input should be 'linear'"),
    ("epochs", {"low": 3, "high": 3}, "recipe.search.epochs: low has to be below high"),
    ("epochs", {"low": 0, "high": 3, "log": True}, "recipe.search.epochs: log goes with a low above 0"),
    ("epochs", {"low": 2, "high": 5, "step": 2}, "recipe.search.epochs: no number of steps leads from low to high"),
    ("epochs", {"low": 2, "hihg": 5}, "unknown key 'recipe.search.epochs.hihg'\n  did you mean 'high'?"),
])  # fmt: skip
def test_space_at_fault(key: str, values: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_task("classification").override({"recipe.search": {key: values}})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("text", "values"), [
    ("1e-5..1e-4", {"low": 1e-5, "high": 1e-4}), ("1e-5..1e-4:log", {"low": 1e-5, "high": 1e-4, "log": True}),
    ("2..5:1", {"low": 2, "high": 5, "step": 1}), ("16,32", [16, 32]), ("linear, cosine", ["linear", "cosine"]),
])  # fmt: skip
def test_space_on_the_line(text: str, values: Any) -> None:
    assert _space([f"key={text}"]) == {"key": values}


@pytest.mark.parametrize(("options", "message"), [
    ({"space": {"epochs": [2]}, "epochs": 3}, "space: 'epochs' is set, and searched as well"),
    ({"max_length": 16}, "space: nothing is left to search"),
    ({"model": object()}, "search: `model` is not for a search"),
    ({"execution.overwrite": True}, "search: `overwrite` is not for a search"),
    ({"timeout": "2 days"}, "timeout: '2 days' is no time\n  seconds (600), 10min or 2h"),
])  # fmt: skip
def test_search_at_fault(task: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        bert_ft.search(task, "nowhere", **options)
    assert str(error.value).startswith(message)


def test_without_optuna(task: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "bert_ft.tools.search.study")
    done = cli("search", task, "-c", "nowhere")
    assert done.code == 2 and 'Optuna is not installed\n  pip install "bert-ft[search]"' in done.err
