"""Nothing is written or deleted through a link; reading through one stays, since the hub's cache is made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft import files
from bert_ft.errors import InputError
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce.reproduce import reproduce

QUICK = ("--max-steps", "2", "--max-length", "16", "--batch-size", "8")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of the user's, with files that a run's are called as."""
    folder = tmp_path / "elsewhere"
    for name in ("step-1", "step-2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "mine").write_text("mine")
    for name in ("mine", "validation.jsonl", "best-1.safetensors", "config.json", "study.db", "results.json"):
        (folder / name).write_text("mine")
    return folder


def whole(folder: Path) -> bool:
    names = {
        "step-1",
        "step-2",
        "mine",
        "validation.jsonl",
        "best-1.safetensors",
        "config.json",
        "study.db",
        "results.json",
    }
    every = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in folder.iterdir()} == names and all(
        path.read_text() == "mine" for path in every
    )


@pytest.fixture
def train(cli: Any, reviews: Path, tiny_checkpoint: Path) -> Callable[..., Any]:
    def run(*more: Any) -> Any:
        return cli("train", "classification", "-c", tiny_checkpoint, "--train", "train.csv", "--validation", "validation.csv",
                   "-o", "run", *more, *QUICK)  # fmt: skip

    return run


@pytest.mark.parametrize("entry", ["checkpoints", "model", "predictions", "log.jsonl", "task.toml", "environment.json",
                                   "results.json", "report.html", ".lock"])  # fmt: skip
@pytest.mark.parametrize("flags", [(), ("--overwrite",)], ids=" ".join)
def test_a_runs_own_entries_are_no_links(
    train: Any, tmp_path: Path, elsewhere: Path, entry: str, flags: tuple[str, ...]
) -> None:
    """In a run that somebody sent, interrupted, and with a marker and all."""
    assert train("--save-every", "1", "--keep-checkpoints").code == 0
    run = tmp_path / "run"
    (run / "results.json").unlink()
    place = run / entry
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    if entry in ("task.toml", "environment.json"):  # these are read, through links too
        return
    place.symlink_to(elsewhere if entry in ("checkpoints", "model", "predictions") else elsewhere / "mine")
    done = train(*flags)
    assert done.code == 2 and "link" in done.err and entry in done.err, done
    assert whole(elsewhere) and place.is_symlink()


@pytest.mark.parametrize("entry", ["task.toml", "environment.json"])
def test_the_links_that_are_read_are_not_written(train: Any, tmp_path: Path, entry: str) -> None:
    assert train().code == 0
    run, other = tmp_path / "run", tmp_path / "other"
    (run / entry).rename(other)
    (run / entry).symlink_to(other)
    before = other.read_bytes()
    assert RunDir(run).state == "finished" and bert_ft.load(run).predict(["a fine film"])
    assert train("--overwrite").code == 2 and other.read_bytes() == before


def test_temporary_names_can_not_be_foreseen(tmp_path: Path, elsewhere: Path) -> None:
    """The names that were used before are links; nothing is written through them."""
    for name in ("out.json.tmp", "out.json", "folder.tmp"):
        (tmp_path / name).symlink_to(elsewhere if name.startswith("folder") else elsewhere / "mine")
    (tmp_path / "out.json").unlink()
    files.write_json(tmp_path / "out.json", {"a": 1})
    with files.folder_beside(tmp_path / "folder") as made:
        (made / "x").write_text("x")
    assert whole(elsewhere) and (tmp_path / "out.json").read_text() == '{\n  "a": 1\n}\n'
    names = set()
    for _ in range(5):
        with files.beside(tmp_path / "again") as temporary:
            names.add(temporary.name)
            with pytest.raises(FileExistsError):
                os.open(temporary, os.O_CREAT | os.O_EXCL)
    assert len(names) == 5 and all(files.TEMPORARY.fullmatch(name) for name in names)


def test_temporary_names_of_a_training(train: Any, tmp_path: Path, elsewhere: Path) -> None:
    """An interrupted run that somebody sent has links where its next files would be written."""
    assert train("--save-every", "1", "--keep-checkpoints").code == 0
    run = tmp_path / "run"
    (run / "results.json").unlink()
    for name in ("task.toml.tmp", "results.json.tmp", "environment.json.tmp", "report.html.tmp", "predictions/validation.jsonl.tmp",
                 "checkpoints/best.tmp"):  # fmt: skip
        (run / name).symlink_to(elsewhere / "mine")
    for name in ("model.tmp", "checkpoints/step-3.tmp"):
        (run / name).symlink_to(elsewhere)
    shutil.rmtree(run / "checkpoints" / "step-2")
    assert train("--save-every", "1").code == 0
    assert whole(elsewhere)


def test_predictions_that_are_links(train: Any, tmp_path: Path, elsewhere: Path) -> None:
    """They are deleted as links; what they point to is not."""
    assert train("--save-every", "1", "--keep-checkpoints").code == 0
    run = tmp_path / "run"
    (run / "results.json").unlink()
    for name in ("validation.jsonl", "validation.rows.parquet"):
        (run / "predictions" / name).unlink()
        (run / "predictions" / name).symlink_to(elsewhere / "mine")
    assert train().code == 2
    assert whole(elsewhere)
    assert train("--overwrite").code == 0
    assert whole(elsewhere) and not (run / "predictions" / "validation.jsonl").is_symlink()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_outputs_that_are_no_files_are_refused(
    train: Any, cli: Any, tmp_path: Path, elsewhere: Path, kind: str
) -> None:
    assert train().code == 0
    out = tmp_path / "out"
    os.mkfifo(out) if kind == "pipe" else out.symlink_to(elsewhere / ("mine" if kind == "link" else "none"))
    for arguments in (("predict", "run", "validation.csv", "--to", "csv"), ("predict", "run", "validation.csv", "--to", "parquet"),
                      ("report", "run"), ("reproduce", "submission", "run", "--fill")):  # fmt: skip
        done = cli(*arguments, "-o", "out")
        assert done.code == 2 and out.is_symlink() == (kind != "pipe"), done
    assert whole(elsewhere) and not (elsewhere / "none").exists()
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "report.html").symlink_to(elsewhere / "mine")
    assert cli("report", "run").code == 2 and whole(elsewhere)


def test_a_log_with_a_second_name_is_not_written(train: Any, tmp_path: Path) -> None:
    """A hard link, as `cp -al` makes them: going on with the copy would change the first."""
    assert train("--save-every", "1", "--keep-checkpoints").code == 0
    (tmp_path / "run" / "results.json").unlink()
    os.link(tmp_path / "run" / "log.jsonl", tmp_path / "second")
    before = (tmp_path / "second").read_bytes()
    done = train()
    assert done.code == 2 and "hard link" in done.err and (tmp_path / "second").read_bytes() == before


@pytest.mark.parametrize(
    "entry", ["study.db", ".search.lock", "trial-0", "results.json", ".trial-0.lock", "best.toml"]
)
def test_a_searchs_own_entries_are_no_links(
    cli: Any, reviews: Path, tiny_checkpoint: Path, tmp_path: Path, elsewhere: Path, entry: str
) -> None:
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / ".search.lock").write_text("")
    (tmp_path / "look" / entry).unlink(missing_ok=True)
    (tmp_path / "look" / entry).symlink_to(elsewhere if entry == "trial-0" else elsewhere / "mine")
    done = cli("search", "classification", "-c", tiny_checkpoint, "--train", "train.csv", "--validation", "validation.csv",
               "-o", "look", "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1")  # fmt: skip
    assert done.code == 2 and "link" in done.err, done
    assert whole(elsewhere)


@pytest.mark.parametrize("entry", ["results.json", "table.md", "page.html", "logs"])
def test_a_reproductions_own_entries_are_no_links(tmp_path: Path, elsewhere: Path, entry: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / entry).symlink_to(elsewhere if entry == "logs" else elsewhere / "mine")
    with pytest.raises(InputError, match="link"):
        reproduce("rte", "org/name", output=tmp_path / "out", seeds=1, quiet=True)
    assert whole(elsewhere)


def test_reading_goes_through_links(train: Any, tmp_path: Path) -> None:
    """A run whose model is a link to another disk, and a checkpoint of links, as the hub's cache has them."""
    assert train().code == 0
    run = tmp_path / "run"
    (run / "model").rename(tmp_path / "disk")
    (run / "model").symlink_to(tmp_path / "disk")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "disk").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    (tmp_path / "by-another-name").symlink_to(run)
    for name in ("run", "by-another-name", "snapshot"):
        assert bert_ft.load(tmp_path / name).predict(["a fine film"])
