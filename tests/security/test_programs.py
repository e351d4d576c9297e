"""No program and no module is started because somebody else's folder is the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.config.catalog import load_task
from bert_ft.jobs import local
from bert_ft.rundir import environment
from bert_ft.tools.reproduce import estimate


def git(folder: Path, *arguments: str) -> str:
    """With a configuration of its own, whatever this machine's says."""
    plain = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], env=os.environ | plain, check=True, text=True,
                          capture_output=True)  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("a")
    git(folder, "add", "a.txt")
    git(folder, "commit", "-qm", "one")
    return folder


def test_git_runs_nothing(checkout: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Neither the folder's filters nor its file-system monitor, which git asks for a description of changes."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark\ncat\n")
    program.chmod(0o755)
    (checkout / ".gitattributes").write_text("* filter=own\n")
    for key in ("filter.own.clean", "core.fsmonitor", "core.pager", "core.sshCommand"):
        git(checkout, "config", key, str(program))
    head = (checkout / ".git" / "refs" / "heads" / "main").read_text().strip()
    (checkout / "a.txt").write_text("b")
    os.utime(checkout / "a.txt", (1, 1))
    monkeypatch.chdir(checkout)
    assert environment.git_commit() == head
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("form", ["branch", "packed", "detached", "worktree", "below", "slashes"])
def test_the_commit_is_what_git_says(checkout: Path, tmp_path: Path, monkeypatch: Any, form: str) -> None:
    place = checkout
    if form == "packed":
        git(checkout, "pack-refs", "--all")
    elif form == "detached":
        git(checkout, "checkout", "-q", "--detach")
    elif form == "worktree":
        git(checkout, "worktree", "add", "-q", str(tmp_path / "beside"))
        place = tmp_path / "beside"
    elif form == "below":
        place = checkout / "x" / "y"
        place.mkdir(parents=True)
    elif form == "slashes":
        git(checkout, "checkout", "-q", "-b", "功能/一")
        git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    monkeypatch.chdir(place)
    assert environment.git_commit() == git(place, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "head", ["", "ref: ../../secret", "ref: refs/../../../secret", "ref: refs/heads/none", "words", "\0"]
)
def test_what_is_no_commit_is_none(tmp_path: Path, monkeypatch: Any, head: str) -> None:
    (tmp_path / "x" / ".git" / "refs").mkdir(parents=True)
    (tmp_path / "x" / ".git" / "HEAD").write_text(head)
    (tmp_path / "secret").write_text("of somebody")
    monkeypatch.chdir(tmp_path / "x")
    assert environment.git_commit() is None


def test_a_pipe_in_the_place_of_a_head_does_not_hang(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    monkeypatch.chdir(tmp_path)
    assert environment.git_commit() is None


# --- modules in the working directory ---------------------------------------------------------------------------------

MODULES = ("torch", "transformers", "bert_ft", "numpy", "typer", "safetensors", "sitecustomize", "tomllib")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: Any) -> Path:
    """A working directory with modules that leave a mark when they are imported."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'mark')!r}, 'w').close()\nraise SystemExit(9)"
        )
    monkeypatch.chdir(folder)
    return folder


def test_children_import_nothing_from_the_working_directory(trap: Path, tmp_path: Path) -> None:
    for module in ("bert_ft", "bert_ft.tools.reproduce.estimate"):
        done = subprocess.run(
            local.python(module, "--help"), env=local.environment(None), capture_output=True, text=True
        )
        assert done.returncode in (0, 2) or "no such task" in done.stderr or "unknown task" in done.stderr, (
            done
        )
        assert done.returncode != 9
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_the_estimate_imports_nothing_from_the_working_directory(
    trap: Path, reviews: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    task = load_task("classification").override({
        "data.train": str(reviews / "train.csv"), "data.evaluate": str(reviews / "validation.csv"),
        "run.checkpoint": str(tiny_checkpoint), "recipe.max_steps": 2, "recipe.max_length": 16,
    })  # fmt: skip
    assert estimate.cost(task, local.environment(None))["seconds"] > 0
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("path", ["", ":", "::/nowhere"])
def test_an_empty_part_of_pythonpath_is_not_the_working_directory(
    trap: Path, monkeypatch: Any, path: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", path)
    assert "" not in local.environment(None)["PYTHONPATH"].split(os.pathsep)[:-1]
    assert not local.environment(None)["PYTHONPATH"].endswith(os.pathsep)


def test_children_run_this_very_package(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import bert_ft; print(bert_ft.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=local.environment(None), text=True, capture_output=True
    )
    assert done.stdout.strip() == bert_ft.__file__, done


def test_the_module_and_the_installed_command(trap: Path, tmp_path: Path) -> None:
    """`python -m` itself looks for bert_ft in the working directory first, so that it must not be called so there."""
    script = Path(sys.executable).with_name("bert-ft")
    code = (
        f"import sys; sys.argv = ['bert-ft', 'tasks']; exec(open({str(script)!r}).read())"
        if script.is_file()
        else ""
    )
    for name in ("bert_ft", "sitecustomize", "tomllib"):
        (trap / f"{name}.py").unlink()
    root = str(Path(bert_ft.__file__).parents[1])
    commands = [[sys.executable, "-m", "bert_ft", "tasks"]] + ([[str(script), "tasks"]] if code else [])
    for command in commands:
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)
        assert done.returncode == 0 and "mrpc" in done.stdout, done
    assert not (tmp_path / "mark").exists()


def test_a_page_starts_no_program(tmp_path: Path) -> None:
    """matplotlib reads `matplotlibrc` of the working directory first: `text.usetex` there would start LaTeX."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    (tmp_path / "latex").write_text(f"#!/bin/sh\ntouch {tmp_path}/mark\n")
    (tmp_path / "latex").chmod(0o755)
    code = ("from bert_ft.report import plots\n"
            "import matplotlib; assert matplotlib.rcParams['text.usetex']\n"
            "log = [{'step': 1, 'loss': 1.0, 'learning_rate': 1.0}, {'step': 2, 'loss': 0.5, 'learning_rate': 0.5}]\n"
            "print(plots.svg(plots.figure(log, ('validation', 'accuracy')), 'curves')[:5])")  # fmt: skip
    root = str(Path(bert_ft.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
                          env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": root})  # fmt: skip
    assert done.returncode == 0 and not (tmp_path / "mark").exists(), done
