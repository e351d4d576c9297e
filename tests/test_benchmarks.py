"""Scripts that need a machine which the tests do not have, tried on the one that they do have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_gpu_script_runs_dry() -> None:
    page = ROOT / "benchmarks" / "results" / "gpu.md"
    before = page.read_bytes() if page.is_file() else None
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--dry"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr
    text = done.stdout[done.stdout.index("# Training on a GPU") :]
    assert "these are no measurements" in text
    assert text.count("| kept |") == 10 and "BROKEN" not in text
    assert text.count("first tokens only") == 10, "each promise with the speed-ups that it is about"
    for variant in ("default", "grouped", "ours", "ours grouped", "ours eager", "ours compiled"):
        rows = [line for line in text.splitlines() if f"| {variant} |" in line]
        assert len(rows) == 2 and all(row.endswith("| 1 |") for row in rows), (variant, rows)
    assert (page.read_bytes() if page.is_file() else None) == before, "a dry run writes nothing"
