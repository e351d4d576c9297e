"""A folder is a run because bert-ft wrote it, and nothing else than what bert-ft wrote is ever deleted."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft import files
from bert_ft.errors import InputError
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce.reproduce import reproduce

QUICK = ("--max-steps", "2", "--max-length", "16", "--batch-size", "8")
OWN = (
    "model/weights.bin",
    "predictions/mine.csv",
    "checkpoints/last/state.pt",
    "fold-1/notes.txt",
    "src/main.py",
)
HEADER = "# bert-ft train task.toml\n# what this run was made from, every default included\n\n"


@pytest.fixture
def project(tmp_path: Path, reviews: Path, tiny_checkpoint: Path) -> Path:
    """A folder of somebody's own: a task file, and folders that happen to be called as those of a run."""
    (tmp_path / "task.toml").write_text(
        f'family = "classification"\n[data]\ntrain = "train.csv"\nevaluate = "validation.csv"\n'
        f'[run]\ncheckpoint = "{tiny_checkpoint}"\n'
    )
    for name in OWN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def whole(project: Path) -> bool:
    return all((project / name).read_text() == name for name in OWN)


@pytest.mark.parametrize("more", [
    {}, {"results.json": "{}"}, {"results.json": "{}", "environment.json": '{"versions": {}}', "log.jsonl": "{}"},
    {"environment.json": "[]"}, {"environment.json": "data_fingerprint"}, {"environment.json": '["data_fingerprint"]'},
], ids=lambda more: ",".join(more))  # fmt: skip
@pytest.mark.parametrize(
    "flags", [(), ("--overwrite",), ("--resume",), ("--folds", "2", "--overwrite")], ids=" ".join
)
def test_a_project_with_a_task_file_is_no_run(
    cli: Any, project: Path, flags: Any, more: dict[str, str]
) -> None:
    for name, content in more.items():
        (project / name).write_text(content)
    before = sorted(project.rglob("*"))
    done = cli("train", "task.toml", "-o", ".", *flags, *QUICK)
    assert done.code == 2 and whole(project) and sorted(project.rglob("*")) == before, done
    assert RunDir(project).state == "foreign"
    with pytest.raises(InputError, match="not a run folder"):
        bert_ft.Run(project)


def test_a_task_file_that_a_run_wrote_makes_no_run(cli: Any, project: Path) -> None:
    """Copied into a project, its header and all."""
    (project / "task.toml").write_text(HEADER + (project / "task.toml").read_text())
    assert cli("train", "task.toml", "-o", ".", "--overwrite", *QUICK).code == 2
    assert whole(project) and RunDir(project).state == "foreign"
    assert json.loads(cli("runs", ".", "--json").out) == []


def test_what_is_not_ours_stays_in_a_run(cli: Any, project: Path) -> None:
    """With --overwrite too: in its folders, and in those of folds that are no longer there."""
    assert cli("train", "task.toml", "-o", "run", "--folds", "3", *QUICK).code == 0
    kept = (
        "run/notes.md",
        "run/predictions/mine.jsonl",
        "run/fold-1/model/mine.txt",
        "run/fold-3/why.txt",
        "run/fold-9/x.txt",
    )
    for name in kept:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    assert cli("train", "task.toml", "-o", "run", "--folds", "2", "--overwrite", *QUICK).code == 0
    assert [name for name in kept if (project / name).read_text() != name] == []
    assert (
        RunDir(project / "run" / "fold-3").state == "foreign"
        and RunDir(project / "run" / "fold-2").state == "finished"
    )
    assert cli("train", "task.toml", "-o", "single", *QUICK).code == 0
    (project / "single" / "model" / "mine.txt").write_text("mine")
    (project / "single" / "checkpoints").mkdir()
    (project / "single" / "checkpoints" / "mine.txt").write_text("mine")
    assert cli("train", "task.toml", "-o", "single", "--overwrite", "--epochs", "1", *QUICK).code == 0
    for folder in ("model", "checkpoints"):
        assert (project / "single" / folder / "mine.txt").read_text() == "mine"
    assert bert_ft.load(project / "single").predict(["a fine film"])


def test_names_of_ours_are_all_that_a_run_writes(cli: Any, project: Path) -> None:
    """So that --overwrite leaves nothing stale behind."""
    assert cli("train", "task.toml", "-o", "run", "--save-every", "1", "--keep-checkpoints", *QUICK).code == 0
    run = RunDir(project / "run")
    assert any(run.checkpoints.iterdir()) and any(run.model.iterdir()) and any(run.predictions.iterdir())
    run.remove()
    assert not run.path.exists()


# The layout that the commit before this rule wrote: these keys, this order, no other file.
BEFORE = {
    "environment.json": {"versions": {"python": "3.11", "bert-ft": "0.1.0"}, "platform": "Linux", "device": "cpu (x86_64)",
                         "precision": "fp32", "distributed": "NO", "processes": 1, "threads": 1, "git_commit": None,
                         "seed": 42, "data_fingerprint": "", "checkpoint_fingerprint": "", "checkpoint_commit": None},
}  # fmt: skip


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_run_of_the_commit_before_is_known(cli: Any, project: Path, state: str) -> None:
    """Recognised, not trained again, resumed; with its `trust_remote_code`, which older runs may have as true."""
    assert cli("train", "task.toml", "-o", "run", "--save-every", "1", "--keep-checkpoints", *QUICK).code == 0
    run = project / "run"
    now = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({key: now[key] for key in BEFORE["environment.json"]}))
    text = (run / "task.toml").read_text()
    (run / "task.toml").write_text(text.replace("trust_remote_code = false", "trust_remote_code = true"))
    (run / ".lock").write_text("process 1 on here, since 2026-01-01 00:00:00\n")
    if state == "unfinished":
        (run / "results.json").unlink()
        shutil.rmtree(run / "model")
    assert RunDir(run).state == state
    done = cli("train", "task.toml", "-o", "run", "--save-every", "1", *QUICK)
    assert (
        done.code == 0 and ("finished already" if state == "finished" else "resuming after step") in done.err
    ), done
    assert json.loads(cli("runs", ".", "--json").out)[0]["state"] == "finished"


def test_a_copied_run_is_resumed(cli: Any, project: Path) -> None:
    assert cli("train", "task.toml", "-o", "run", "--save-every", "1", "--keep-checkpoints", *QUICK).code == 0
    shutil.copytree(
        project / "run", project / "copy", ignore=shutil.ignore_patterns(".*")
    )  # as `cp run/* copy`
    (project / "copy" / "results.json").unlink()
    done = cli("train", "task.toml", "-o", "copy", "--resume", *QUICK)
    assert done.code == 0 and "resuming after step 2" in done.err, done


def test_a_run_is_read_where_nothing_can_be_written(cli: Any, project: Path, monkeypatch: Any) -> None:
    """Loaded, evaluated, compared: no file is opened for writing, and none is there afterwards."""
    assert cli("train", "task.toml", "-o", "run", *QUICK).code == 0
    run = project / "run"
    before = {str(path): path.stat().st_mtime_ns for path in run.rglob("*")}
    opened, real = list[str](), os.open

    def watched(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(run)):
            opened.append(str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        loaded = bert_ft.load(run)
        assert loaded.predict(["a fine film"]) and loaded.evaluate() and loaded.scored()
        assert (
            cli("predict", "run", "validation.csv").code == cli("report", "run", "-o", "page.html").code == 0
        )
    finally:
        for path in [run, *run.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert not opened and {str(path): path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("when", ["_write_task", "clear"])
def test_a_start_that_is_broken_off_can_be_repeated(
    cli: Any, project: Path, monkeypatch: Any, when: str
) -> None:
    """Between two files of its beginning; the same command goes on, and nothing of the user's is taken for the run's."""
    task = bert_ft.load_task(project / "task.toml")
    folder = RunDir(project / "run")
    folder.path.mkdir()
    monkeypatch.setattr(RunDir, when, lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        folder.start(task, {"data_fingerprint": "x", "checkpoint_fingerprint": "y"})
    monkeypatch.undo()
    assert folder.state == "new"
    monkeypatch.chdir(project)
    assert cli("train", "task.toml", "-o", "run", *QUICK).code == 0


def test_a_reproduction_leaves_other_results_alone(project: Path) -> None:
    for name in ("results.json", "table.md", "page.html"):
        for other in ("results.json", "table.md", "page.html"):
            (project / other).unlink(missing_ok=True)
        (project / name).write_text("{}")
        with pytest.raises(InputError, match="no reproduction"):
            reproduce("rte", "org/name", output=project, seeds=1, quiet=True)
        assert (project / name).read_text() == "{}"


def test_a_files_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    """A temporary file of the system's kind would be for its owner's eyes alone."""
    (tmp_path / "plain").write_text("")
    files.write(tmp_path / "written", "text")
    with files.folder_beside(tmp_path / "folder") as folder:
        (folder / "a").write_text("")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "made").mkdir()
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "made").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "made", "plain", "written"]


def test_a_set_that_was_renamed_leaves_nothing_stale(cli: Any, project: Path) -> None:
    """What the earlier run wrote for its own sets is deleted, whatever the next one's are called."""
    assert (
        cli("train", "task.toml", "-o", "run", "--set", 'data.evaluate={"a.b"="validation.csv"}', *QUICK).code
        == 0
    )
    assert (project / "run" / "predictions" / "a.b.jsonl").is_file()
    (project / "run" / "predictions" / "axb.jsonl").write_text("mine")
    assert cli("train", "task.toml", "-o", "run", "--overwrite", *QUICK).code == 0
    names = {path.name for path in (project / "run" / "predictions").iterdir()}
    assert names == {"axb.jsonl", "validation.jsonl", "validation.rows.parquet"}
