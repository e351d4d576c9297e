"""Promises 3 and 5: the recipe means the same on any number of processes, and each row is scored once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"text": f"a {word} film {'very ' * (i % 7)}{i}", "label": word} for i in range(30) for word in ("good", "bad")]


# sentences of up to 60 words: at 24 tokens they go through in windows
SENTENCES = [
    {
        "tokens": ["the", "plot", *["very"] * (i % 5 * 14), "Anna", "Lima"],
        "tags": ["O"] * (2 + i % 5 * 14) + ["S-PER", "S-LOC"],
    }
    for i in range(60)
]


def _run(
    checkpoint: Path,
    folder: Path,
    processes: int,
    accumulation: int,
    family: str = "classification",
    all_rows: Any = ROWS,
) -> dict[str, Any]:
    folder.mkdir()
    for name, rows in (("train", all_rows[:-13]), ("validation", all_rows[-13:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(processes),
        "--master_port",
        str(29400 + os.getpid() % 500),
    ]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "bert_ft", "train", family, "--train",
               str(folder / "train.jsonl"), "--validation", str(folder / "validation.jsonl"), "--checkpoint", str(checkpoint),
               "--output", str(folder / "run"), "--batch-size", "8", "--epochs", "8", "--max-length", "24", "--lr", "1e-3",
               "--set", "dropout=0.0", "--set", "log_every=1", "--set", "warmup_ratio=0.2",
               "--set", f"gradient_accumulation_steps={accumulation}", "--json"]  # fmt: skip
    settings = {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)  # one process prints
    environment = json.loads((folder / "run" / "environment.json").read_text())
    assert environment["processes"] == processes
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    predictions = [
        json.loads(line) for line in (folder / "run" / "predictions" / "validation.jsonl").read_text().splitlines()
    ]
    steps = [line for line in log if "loss" in line]
    return {
        "losses": [s["loss"] for s in steps],
        "rates": [s["learning_rate"] for s in steps],
        "predictions": predictions,
        "results": results,
    }


@pytest.mark.slow
def test_processes_and_accumulation_only_divide_the_batch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    one = _run(tiny_checkpoint, tmp_path / "one", 1, 1)
    assert one["results"]["steps"] == 48
    assert max(one["losses"]) - min(one["losses"]) > 0.01, "the losses move by far more than the tolerance"
    for processes, accumulation in ((1, 2), (2, 1), (2, 2), (3, 1)):
        other = _run(tiny_checkpoint, tmp_path / f"{processes}x{accumulation}", processes, accumulation)
        assert other["rates"] == one["rates"], "the same schedule"
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-4)
        assert [p["row"] for p in other["predictions"]] == list(range(13)), "each row once, in order"
        for mine, first in zip(other["predictions"], one["predictions"], strict=True):
            assert mine["probabilities"] == pytest.approx(first["probabilities"], abs=1e-4)


@pytest.mark.slow
def test_every_word_counts_once_on_two_processes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    one, two, parts = (
        _run(tiny_checkpoint, tmp_path / f"{processes}x{accumulation}", processes, accumulation, "ner", SENTENCES)
        for processes, accumulation in ((1, 1), (2, 1), (1, 3))
    )
    assert one["results"]["counts"]["validation"]["windows"] > 13 and max(one["losses"]) - min(one["losses"]) > 0.1
    for other in (two, parts):
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-4), "a mean over the words of the global batch"
        assert other["predictions"] == one["predictions"] and other["results"]["metrics"] == one["results"]["metrics"]
        assert other["results"]["counts"] == one["results"]["counts"]
    assert [(p["row"], p["tokens"]) for p in one["predictions"]] == [
        (k, r["tokens"]) for k, r in enumerate(SENTENCES[-13:])
    ]
