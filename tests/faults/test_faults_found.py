"""Each fault that the campaigns of this folder have found, by itself."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_ft
from bert_ft import files
from bert_ft.engine import checkpoints, feature_cache
from bert_ft.errors import MachineError, disk
from bert_ft.finetuning import results
from bert_ft.rundir.folder import RunDir

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(8) for word in ("good", "bad")]
OPTIONS: dict[str, Any] = {"train": ROWS, "validation": ROWS, "max_steps": 4, "batch_size": 4, "eval_every": 2,
                           "save_every": 2, "max_length": 16, "quiet": True}  # fmt: skip


def _train(checkpoint: Path, folder: Path, **more: Any) -> bert_ft.Run:
    return bert_ft.finetune("classification", str(checkpoint), output=folder, **(OPTIONS | more))


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it. What it cleans up, a test makes anew."""


# --- what a killed command was writing --------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from bert_ft import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half written")
    print(temporary.name, flush=True)
    sys.stdin.readline() or os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["beside", "folder_beside"])
def test_what_a_killed_command_left_goes_and_what_one_writes_stays(tmp_path: Path, kind: str) -> None:
    """A temporary neighbour stood there for ever; large ones filled disks."""
    target = tmp_path / "answers"
    command = [sys.executable, "-c", KILLED, kind, str(target)]
    dead = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert dead.returncode == -9 and (tmp_path / dead.stdout.strip()).exists()
    alive = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert alive.stdout is not None and alive.stdin is not None
    living = tmp_path / alive.stdout.readline().strip()
    assert not (tmp_path / dead.stdout.strip()).exists()
    (tmp_path / ".answers.0123456789abcdef.tmp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".other.0123456789abcdef.tmp").write_text("of another target")
    with getattr(files, kind)(target) as temporary:
        assert living.exists(), "it is being written"
        (temporary / "mine" if temporary.is_dir() else temporary).write_text("mine")
    alive.communicate("go on\n")
    assert alive.returncode == 0 and not living.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "answers", ".answers.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp",
    }  # fmt: skip


def test_a_wider_column_leaves_nothing(tmp_path: Path) -> None:
    """Parquet that is written anew for a wider type keeps the file that is locked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bert_ft.tools.predict.writers import write_tables

    target = tmp_path / "rows.parquet"
    with files.beside(target) as temporary:
        before = temporary.stat().st_ino
        parts = [pa.table({"a": [1]}), pa.table({"a": [1.5]}), pa.table({"a": [2.5], "b": ["x"]})]
        write_tables(temporary, iter(parts), str(target))
        assert temporary.stat().st_ino == before
    assert pq.read_table(target).to_pylist() == [
        {"a": 1.0, "b": None},
        {"a": 1.5, "b": None},
        {"a": 2.5, "b": "x"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


# --- a training -------------------------------------------------------------------------------------------------------


def test_killed_before_its_pages_a_run_keeps_no_checkpoints(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stayed for ever where the end came between the report and their deletion."""

    def killed(folder: RunDir, *_: Any) -> None:
        folder.report_html.write_text("the report")
        raise Killed

    monkeypatch.setattr(results.run_page, "leave", killed)
    with pytest.raises(Killed):
        _train(tiny_checkpoint, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_half_of_best_weights_is_gone_at_the_end(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors writes beside its file under a name of its own (`.tmpXXXXXX`), which nothing deleted."""
    real = checkpoints.save

    def killed(tensors: Any, file: Path) -> None:
        if "best" in str(file):
            (file.parent / ".tmpAbCd12").write_bytes(b"half")
            raise Killed
        real(tensors, file)

    monkeypatch.setattr(checkpoints, "save", killed)
    with pytest.raises(Killed):
        _train(tiny_checkpoint, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").rglob(".tmp*"))
    monkeypatch.undo()
    run = _train(tiny_checkpoint, tmp_path / "run", keep_checkpoints=True)
    assert run.dir.state == "finished" and not list(run.path.rglob(".tmp*"))
    assert not list(run.path.glob("checkpoints/*.tmp"))


def test_folds_are_killed_while_they_are_begun_again(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the folder has folds and no task, and was taken for somebody else's."""
    options = {"folds": 2, "validation": None, "max_steps": 2}
    whole = _train(tiny_checkpoint, tmp_path / "run", **options)
    metrics = whole.results["metrics"]
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.setattr(RunDir, "_write_task", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        _train(tiny_checkpoint, tmp_path / "run", **options)
    monkeypatch.undo()
    assert RunDir(tmp_path / "run").state == "new" and (tmp_path / "run" / "fold-2").is_dir()
    assert _train(tiny_checkpoint, tmp_path / "run", **options).results["metrics"] == metrics


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [
    OSError(errno.EROFS, "Read-only file system"), RuntimeError("I/O error: Read-only file system (os error 30) at path x"),
])  # fmt: skip
def test_a_disk_of_any_library_is_told(error: Exception) -> None:
    with pytest.raises(MachineError, match="the disk is read-only"), disk(Path("x")):
        raise error


def test_another_error_of_a_library_is_none_of_the_disk() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"), disk(Path("x")):
        raise RuntimeError("shapes")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any, code: int
) -> None:
    run = _train(tiny_checkpoint, tmp_path / "run")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text\na good film\n")

    def refused(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    for place, act in (("other", lambda: _train(tiny_checkpoint, tmp_path / "other")), ("out", None)):
        if act is not None:
            with pytest.raises(MachineError) as told:
                act()
            message = str(told.value)
        else:
            done = cli("predict", run.path, "in", "-o", place)
            assert done.code == 1
            message = done.err
        assert "this file system has no locks" in message and place in message and "--output DIR" in message
    assert cli("predict", run.path, "in/a.csv", "-o", "answers.csv").code == 0, "one file needs no lock"


def test_memory_that_onednn_lacks_is_told(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In any command: it was called a fault of bert-ft."""
    from bert_ft import run as runs

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(runs, "load", full)
    (tmp_path / "a.csv").write_text("text\nx\n")
    done = cli("predict", "somewhere", "a.csv")
    assert done.code == 1 and "the memory is full" in done.err and "eval_tokens=256" in done.err


# --- the cache of rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "another was first"])
def test_a_cache_that_can_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What had been written of it filled the disk on; of two processes the second left a whole copy."""
    monkeypatch.setenv("BERT_FT_CACHE", str(tmp_path))
    monkeypatch.setattr(feature_cache, "VECTORS", 10)
    vectors = np.ones((20, 4), np.float32)
    if how == "full":
        real = np.save

        def full(file: Path, *arguments: Any, **options: Any) -> None:
            real(file, *arguments, **options)
            raise OSError(errno.ENOSPC, "")

        monkeypatch.setattr(np, "save", full)
    else:
        monkeypatch.setattr(feature_cache.shutil, "rmtree", _unless_key(feature_cache.shutil.rmtree))
        (tmp_path / "features" / "key").mkdir(parents=True)
        (tmp_path / "features" / "key" / "of another").write_text("")
    (tmp_path / "features" / f"{feature_cache.UNFINISHED}killed").mkdir(parents=True)
    assert (feature_cache.vectors("key", lambda: vectors) == vectors).all()
    assert [path.name for path in (tmp_path / "features").iterdir()] == ([] if how == "full" else ["key"])


def test_who_finds_an_entry_takes_away_what_a_killed_process_had_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs made it at once, and one of them was killed: nobody writes it again."""
    monkeypatch.setenv("BERT_FT_CACHE", str(tmp_path))
    monkeypatch.setattr(feature_cache, "VECTORS", 10)
    vectors = np.ones((20, 4), np.float32)
    feature_cache.vectors("key", lambda: vectors)
    killed, alive = (tmp_path / "features" / f"{feature_cache.UNFINISHED}{name}" for name in ("a", "b"))
    for folder in (killed, alive):
        folder.mkdir()
        (folder / "vectors.npy").write_bytes(b"half of it")
    held = files.hold(alive)
    try:
        found = feature_cache.vectors("key", lambda: pytest.fail("it is there"))
    finally:
        os.close(held)
    assert (found == vectors).all() and not killed.exists() and alive.exists()


def _unless_key(real: Any) -> Any:
    def remove(path: Path, **options: Any) -> None:
        if Path(path).name != "key":  # as if it had come right after
            real(path, **options)

    return remove


# --- a search ---------------------------------------------------------------------------------------------------------


def _trials(folder: Path, values: list[float]) -> Any:
    from bert_ft.tools.search.study import Trials

    return Trials(folder, {"learning_rate": values}, ("validation", "accuracy"), seed=1, storage=None, sampler=None,
                  pruner=None, made_from={}, say=print)  # fmt: skip


def test_a_trial_that_ended_before_it_took_its_recipe_has_it_again(tmp_path: Path) -> None:
    """The one that repeats it drew another, so that a search that was killed then tried its recipes in another order."""
    values = [1e-5, 1e-4, 1e-3, 1e-2]
    trials = _trials(tmp_path / "search", values)

    def killed(space: Any) -> None:
        assert trials.study._pop_waiting_trial_id() is not None
        raise Killed

    trials.study.ask = killed
    with pytest.raises(Killed):
        trials.step(4, lambda trial: 0.5)
    again = _trials(tmp_path / "search", values)
    while again.step(4, lambda trial: 0.5):
        pass
    assert [row["recipe"]["learning_rate"] for row in again.rows()] == values


def test_a_lock_on_a_full_disk_is_told_once(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written was tried again where the file was closed, and that had no message."""
    real = os.write

    def full(descriptor: int, content: bytes) -> int:
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")) in (".lock", ".trial-0.lock"):
            raise OSError(errno.ENOSPC, "")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MachineError, match=r"\.lock: the disk is full"):
        _train(tiny_checkpoint, tmp_path / "run")
    with pytest.raises(MachineError, match=r"\.trial-0\.lock: the disk is full"):
        _trials(tmp_path / "search", [1e-4]).step(1, lambda trial: 0.5)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_locks_that_end_in_a_search_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Of a statement or a commit: SQLite waited a minute for each, which Optuna began ten times again. The trial is repeated
    once they are back, and locks that are away for a moment are waited for."""
    from bert_ft.tools.search import storage

    real, asked, away = fcntl.lockf, 0, range(0)

    def lockf(probe: Any, how: int) -> None:
        nonlocal asked
        if how != fcntl.LOCK_UN:
            asked += 1
            if asked in away:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(probe, how)

    def losing(times: int) -> Any:
        def train(trial: Any) -> float:
            nonlocal away
            away = range(asked + after + 1, asked + after + 1 + times)
            trial.pruning.report(1, {"validation": {"accuracy": 0.5}}, last=True)
            return 0.5

        return train

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr(storage, "LOCKLESS", 0.3)
    trials = _trials(tmp_path / "search", [1e-4, 1e-3])
    with pytest.raises(MachineError, match="this file system has no locks") as told, trials.database.errors():
        trials.step(2, losing(10**9))
    assert str(tmp_path / "search") in str(told.value) and "--output DIR" in str(told.value)
    away = range(0)
    again = _trials(tmp_path / "search", [1e-4, 1e-3])
    while again.step(2, losing(2)):
        assert asked >= away.stop, "both were waited for"
    assert [(row["state"], row["value"]) for row in again.rows()] == [("complete", 0.5), ("complete", 0.5)]
    assert len(again.study.trials) == 3, "the first was repeated"


def test_a_search_that_ended_behind_its_last_word_leaves_no_lock(tmp_path: Path) -> None:
    """Of a trial: nobody deleted its file once the trial was complete. Those of trials that others train stay."""
    trials = _trials(tmp_path / "search", [1e-4, 1e-3, 1e-2])
    tell = trials.study.tell

    def told(*given: Any, **more: Any) -> None:
        tell(*given, **more)
        raise Killed

    trials.study.tell = told
    with pytest.raises(Killed):
        trials.step(3, lambda trial: 0.5)
    lock = tmp_path / "search" / ".trial-0.lock"
    assert lock.is_file()
    _, first, held = _trials(tmp_path / "search", [1e-4, 1e-3, 1e-2])._claim(3)  # by another process
    again = _trials(tmp_path / "search", [1e-4, 1e-3, 1e-2])
    while again.step(3, lambda trial: 0.5):
        pass
    assert first == 1 and not held.closed
    assert [path.name for path in (tmp_path / "search").glob(".trial-*")] == [".trial-1.lock"]
    assert [row["state"] for row in again.rows()] == ["complete", "running", "complete"]


# --- a clock that is set ----------------------------------------------------------------------------------------------


def test_a_trial_has_no_negative_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's dates are those of the wall clock."""
    import datetime

    from optuna.storages._rdb import storage

    class Back(datetime.datetime):
        looks = 0

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            cls.looks += 1
            return super().now(tz) - datetime.timedelta(days=365 * cls.looks)

    monkeypatch.setattr(storage, "datetime", Back)
    trials = _trials(tmp_path / "search", [1e-4, 1e-3])
    while trials.step(2, lambda trial: 0.5):
        pass
    assert Back.looks > 0 and all(trial.duration.days < 0 for trial in trials.study.trials)
    assert [0 <= row["seconds"] < 60 for row in trials.rows()] == [True, True]


def test_names_of_what_is_written() -> None:
    """A folder of a run is known by them, and nothing else of it may be swept."""
    ours = [".a.0123456789abcdef.tmp", ".a.0123456789abcdef.tmp.older"]
    assert all(files.TEMPORARY.fullmatch(name) for name in ours)
    assert not any(files.TEMPORARY.fullmatch(name) for name in ("a.tmp", ".a.tmp", ".a.0123.tmp", ".env"))
    assert re.fullmatch(r"\.a\.", files._stem(Path("x/a")))


def test_a_file_in_the_way_of_a_folder_is_the_users(cli: Any, tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Exit code 2: it was called a fault of the machine."""
    run = _train(tiny_checkpoint, tmp_path / "run")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text\na good film\n")
    (tmp_path / "file").write_text("mine")
    for source, target in (("in", "file/out"), ("in/a.csv", "file/out.csv")):
        done = cli("predict", run.path, source, "-o", target)
        assert done.code == 2 and "a file is in the way of a folder" in done.err and target in done.err
    assert (tmp_path / "file").read_text() == "mine"
