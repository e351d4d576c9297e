"""A few of each campaign of this folder; `benchmarks/results/faults.md` has the whole ones."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import children

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(children.library() is None, reason="needs Linux and a C compiler")


def _campaign(name: str, *arguments: str, before: tuple[str, ...] = ()) -> list[list[str]]:
    """The cells of its table; it found no fault."""
    done = subprocess.run(
        [*before, sys.executable, "-m", f"tests.faults.{name}", *arguments], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return rows[1:]


def test_a_few_kills() -> None:
    names = ("training", "embed, Parquet")
    rows = _campaign("kills", "--each", "4", "--seed", "1", "--writers", *names)
    assert [row[0] for row in rows] == [*names]
    assert all(int(row[1]) >= 4 and row[6] == "0" for row in rows)


def test_a_few_disks() -> None:
    rows = _campaign(
        "disks", "--most", "2", "--writers", "predict, a file", "--faults", "full", "read-only", "write error"
    )
    assert [(row[0], row[3]) for row in rows] == [("full", "0"), ("read-only", "0"), ("write error", "0")]
    assert (
        "the disk is full" in rows[0][4] and "read-only" in rows[1][4] and "input/output error" in rows[2][4]
    )


@pytest.mark.slow
def test_kills_of_each_writer() -> None:
    rows = _campaign("kills", "--each", "12", "--seed", "2")
    assert len(rows) >= 13 and all(int(row[1]) >= 12 for row in rows)


@pytest.mark.slow
def test_disks_of_each_writer() -> None:
    rows = _campaign("disks", "--most", "3")
    assert {row[0] for row in rows} >= {"full", "read-only", "no locks", "no rename", "no sync"}


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="needs the right to mount a small disk",
)  # fmt: skip
def test_disks_of_so_many_pages() -> None:
    """A real one: a tmpfs with 0, 12, 24, ... pages left."""
    rows = _campaign(
        "disks",
        "--tmpfs",
        "--every",
        "12",
        "--writers",
        "training",
        "predict, files",
        before=("unshare", "-m"),
    )
    assert [row[1] for row in rows] == ["training", "predict, files"] and "the disk is full" in rows[0][4]


@pytest.mark.slow
def test_pairs_of_commands() -> None:
    rows = _campaign("pairs", "--seed", "1")
    assert len(rows) > 60


@pytest.mark.slow
def test_clocks_that_jump() -> None:
    rows = _campaign("clocks")
    assert all(int(row[1]) > 50 and row[3] == "none" for row in rows)


def test_the_shim_counts_and_strikes(tmp_path: Path) -> None:
    """The harness itself: at the n-th event, by half, with that error, and nowhere else."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
from pathlib import Path
from tests.faults.children import *
ours, other, logs = (Path({str(tmp_path)!r}) / name for name in ("ours", "other", "logs"))
for each in (ours, other, logs):
    each.mkdir()

def write():
    for folder in (other, ours):
        with (folder / "a").open("wb", buffering=0) as stream:
            stream.write(b"x" * 100)
            stream.write(b"y" * 100)
        (folder / "a").rename(folder / "b")

end = Child(write, logs, Fault(ours, ALWAYS)).wait()
assert (end.code, end.events) == (0, 4), end
for file in (ours / "b", other / "b"):
    file.unlink()
end = Child(write, logs, Fault(ours, 3)).wait()
assert end.is_killed and (ours / "a").read_bytes() == b"x" * 100 + b"y" * 50, end
assert (other / "b").stat().st_size == 200
end = Child(write, logs, Fault(ours, 2, kinds=WRITE, error={errno.ENOSPC})).wait()
assert end.code == 99 and "No space left" in end.shown and (ours / "a").read_bytes() == b"x" * 100
end = Child(write, logs, Fault(ours, 1, 1, WRITE, {errno.EIO})).wait()
assert end.code == 99 and "Input/output error" in end.shown and (ours / "a").read_bytes() == b""
""")
    environment = {**os.environ, "LD_PRELOAD": str(children.library()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
