"""Promise 7: same seed, same numbers, bit for bit in two fresh processes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import bert_ft

ROWS = "text,label\n" + "".join(
    f"this film is {word} number {i},{word}\n" for i in range(20) for word in ("good", "bad")
)


def _train(checkpoint: Path, rows: Path, output: Path, seed: int) -> tuple[str, dict]:
    command = [
        sys.executable,
        "-m",
        "bert_ft",
        "train",
        "classification",
        "--checkpoint",
        str(checkpoint),
        "--train",
        str(rows),
        "--validation",
        "25%",
        "--output",
        str(output),
        "--seed",
        str(seed),
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--max-length",
        "32",
        "--lr",
        "1e-3",
        "--no-baselines",
    ]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((output / "results.json").read_text())
    results.pop("timing")
    return _sha256(output), results


def _sha256(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_two_fresh_processes_give_the_same_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    first = _train(tiny_checkpoint, rows, tmp_path / "a", seed=1)
    assert first == _train(tiny_checkpoint, rows, tmp_path / "b", seed=1)
    other = bert_ft.finetune(
        "classification", tiny_checkpoint, train=str(rows), validation="25%", output=tmp_path / "c", seed=2,
        epochs=2, batch_size=8, max_length=32, learning_rate=1e-3, quiet=True,
    )  # fmt: skip
    assert first[0] != _sha256(other.path), "the seed does nothing"


def test_two_threads_train_what_one_after_the_other_does(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """They shared one stream of random numbers and one state of accelerate, and ended with other weights."""
    from concurrent.futures import ThreadPoolExecutor

    rows = [{"text": f"a {word} film {i}", "label": word} for i in range(8) for word in ("good", "bad")]

    def losses(seed: int, name: str) -> list[float]:
        run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows[:4], max_steps=6,
                               log_every=1, seed=seed, output=tmp_path / f"{name}-{seed}", quiet=True)  # fmt: skip
        return [line["loss"] for line in run.log if "loss" in line]

    alone = [losses(seed, "alone") for seed in (1, 2, 3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(losses, (1, 2, 3), ["together"] * 3))
    assert together == alone
