"""Kills a real training with SIGKILL again and again, resumes it, and compares it with one that was left alone.

    python tests/invariants/killing.py --checkpoint FOLDER --reviews .demo/film-reviews --kills 200

Half of the kills come at moments drawn uniformly over the training, half from inside the writing of a checkpoint.
Prints one JSON line: kills, how many of the runs differ from the uninterrupted one, how often a checkpoint was resumed.
Everything is imported once and each training is a forked child, so that a kill costs seconds and not a start of Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import pandas as pd
import torch
import transformers.models.bert.modeling_bert  # noqa: F401

import bert_ft
from bert_ft.engine import checkpoints
from bert_ft.kernels import embeddings, last_layer
from bert_ft.rundir.folder import RunDir

torch.set_num_threads(1)
embeddings.LARGE = 1  # whatever a large model's steps do, those of a tiny one do here
last_layer.WORTH = 0.0


def train(folder: Path, checkpoint: Path, rows: Path, die_in: int | None = None) -> int:
    """One training in a child; `die_in` kills it at the n-th file operation of checkpoint writing. Gives the child's pid."""
    child = os.fork()
    if child:
        return child
    try:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(
                os.open(folder.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno()
            )
        if die_in is not None:
            _dying(die_in)
        bert_ft.finetune(
            "classification", str(checkpoint), train=rows / "train.csv", validation=rows / "validation.csv", output=folder,
            batch_size=8, epochs=2, max_length=32, save_every=3, eval_every=5, log_every=2, learning_rate=1e-4, baselines=False,
        )  # fmt: skip
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _dying(after: int) -> None:
    count = 0

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == after:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("_sha256", "_sync", "save"):
        setattr(checkpoints, name, counted(getattr(checkpoints, name)))
    checkpoints.shutil.rmtree = counted(shutil.rmtree)


def fingerprint(folder: Path) -> str:
    """Of weights, predictions, results and log, their time fields aside."""
    digest = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes())
    digest.update((folder / "predictions" / "validation.jsonl").read_bytes())
    for line in RunDir(folder).log():
        digest.update(json.dumps({key: value for key, value in line.items() if key != "seconds"}).encode())
    digest.update(json.dumps({k: v for k, v in RunDir(folder).results().items() if k != "timing"}).encode())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="killing-"))
    pd.read_csv(options.reviews / "train.csv").head(96).to_csv(work / "train.csv", index=False)
    pd.read_csv(options.reviews / "validation.csv").head(40).to_csv(work / "validation.csv", index=False)
    draw = random.Random(options.seed)
    (work / "whole").mkdir()
    start = time.monotonic()
    assert os.waitpid(train(work / "whole" / "run", options.checkpoint, work), 0)[1] == 0
    seconds, expected = time.monotonic() - start, fingerprint(work / "whole" / "run")
    found = {"kills": 0, "different": 0, "resumed": 0, "seconds_of_a_run": round(seconds, 1)}
    while found["kills"] < options.kills:
        folder = work / f"trial{found['kills']}" / "run"
        folder.parent.mkdir()
        for _ in range(draw.randint(1, 3)):  # some runs are killed more than once
            inside = draw.random() < 0.5
            child = train(folder, options.checkpoint, work, draw.randint(1, 60) if inside else None)
            if not inside:
                time.sleep(draw.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            found["kills"] += int(os.WIFSIGNALED(status))
        assert os.waitpid(train(folder, options.checkpoint, work), 0)[1] == 0, (
            folder.parent / "output.txt"
        ).read_text()
        found["resumed"] += (folder.parent / "output.txt").read_text().count("resuming after step")
        if fingerprint(folder) != expected:
            found["different"] += 1
            print(f"{folder} differs", file=sys.stderr)
        else:
            shutil.rmtree(folder.parent)
    print(json.dumps(found))
    if not found["different"]:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
