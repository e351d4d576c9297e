"""A suite on a Ray cluster whose nodes die: does every run finish, none twice, and every table equal the local one's?

    python benchmarks/cluster.py --trials 20

Each trial is `bert-ft reproduce TASK --seeds 12 --on ray` on three nodes of one CPU (and a head), all on this machine,
in a network of its own with nothing but loopback. At three random moments one of the three is killed, every process of
it at once by SIGKILL, as a power cut would; another one joins two seconds later. The task is made up, the checkpoint a
random BERT of 2 layers of 32, so that a run takes seconds; its state is saved every 40 of 400 steps. Compared with the
local runner's: the bytes of every file of predictions, the metrics of every run, and the table with its verdicts but
for the line that tells times. A run is repeated where its results.json, once there, is written again. `--output FILE`
writes the Markdown table, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nodes import Nodes, alone

ROOT = Path(__file__).resolve().parents[1]
RUNS, NODES, KILLS, LEASE = 12, 3, 3, 6.0
TASK = """
title = "Made up"
[data]
train = "train.jsonl"
evaluate = "validation.jsonl"
[recipe]
max_steps = 400
batch_size = 16
max_length = 16
learning_rate = 3e-3
eval_every = 100
[execution]
save_every = 40
"""


def write_task(folder: Path) -> None:
    """A task of two classes, and a checkpoint that is random but always the same."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    draw = random.Random(0)
    words = {"fine": "warm funny brave love finest", "dull": "flat tired empty dull lazy"}
    for name, n in (("train", 400), ("validation", 120)):
        rows = []
        for label in draw.choices(["fine", "dull"], k=n):
            others = words["dull" if label == "fine" else "fine"].split()
            text = draw.choices([*words[label].split(), *others[:3], "a", "film", "the", "plot"], k=6)
            rows.append(json.dumps({"text": " ".join(text), "label": label}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(rows))
    (folder / "made_up.toml").write_text(TASK)
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *" ".join(words.values()).split(),
        "a",
        "film",
        "the",
        "plot",
    ]
    tokenizer = BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=64)
    tokenizer.save_pretrained(folder / "tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder / "tiny-bert")


def command(output: str, *more: str) -> list[str]:
    words = [
        "reproduce",
        "made_up.toml",
        "--checkpoint",
        "tiny-bert",
        "--seeds",
        str(RUNS),
        "--output",
        output,
    ]
    return [sys.executable, "-P", "-m", "bert_ft", *words, *more]


def environment(folder: Path) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return os.environ | own | {"BERT_FT_CACHE": str(folder / "cache"), "BERT_FT_LEASE": str(LEASE)}


def state(folder: Path) -> dict[str, Any]:
    """What of a suite has to be equal: predictions, metrics, tables."""
    found: dict[str, Any] = {"table": (folder / "table.md").read_text().rpartition("\n\n")[0]}
    for file in sorted(folder.glob("*/predictions/*.jsonl")):
        found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    for file in sorted(folder.glob("*/results.json")):
        found[file.parent.name] = json.loads(file.read_text())["metrics"]
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Which runs are finished, and which files say so."""
    found = {}
    for file in folder.glob("*/results.json"):
        about = file.stat()
        found[file.parent.name] = (about.st_ino, about.st_mtime_ns)
    return found


def trial(number: int, folder: Path, expected: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One suite on a cluster whose nodes die."""
    draw = random.Random(1000 + number)
    moments = sorted(draw.uniform(0, seconds) for _ in range(KILLS))
    nodes = Nodes(NODES, folder)
    output = folder / f"trial-{number}"
    repeated, first, hit, joining = set[str](), dict[str, tuple[int, int]](), 0, list[float]()
    with (folder / f"trial-{number}.txt").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command(output.name, "--on", "ray"),
            cwd=folder,
            env=environment(folder) | {"RAY_ADDRESS": nodes.address},
            stdout=log,
            stderr=log,
        )
        while process.poll() is None and time.monotonic() - began < 900:
            now = time.monotonic() - began
            if moments and now >= moments[0] and nodes.nodes:
                moments.pop(0)
                hit += nodes.kill(draw.randrange(len(nodes.nodes)))
                joining.append(now + 2)
            if joining and now >= joining[0]:
                joining.pop(0)
                nodes.replace()
            for name, stamp in stamps(output).items():
                if first.setdefault(name, stamp) != stamp:
                    repeated.add(name)
            time.sleep(0.1)
        wall = time.monotonic() - began
        if process.poll() is None:
            process.kill()
    nodes.close()
    finished = len(stamps(output))
    resumed = sum(
        len(json.loads(file.read_text()).get("resumed", [])) for file in output.glob("*/environment.json")
    )
    got = state(output) if (output / "table.md").is_file() else {}
    return {"trial": number, "exit code": process.returncode, "kills": KILLS - len(moments), "runs hit": hit,
            "resumed": resumed, "finished": finished, "repeated": len(repeated), "equal": got == expected,
            "seconds": round(wall)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first trial, which its moments follow from"
    )
    parser.add_argument("--span", type=float, default=90.0, help="seconds within which the nodes are killed")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        prefix = alone()
        if not prefix:
            sys.exit("this machine allows no network of one's own (unshare -n)")
        os.execvp(prefix[0], [*prefix, sys.executable, *sys.argv, "--inside"])
    rows = []
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as place:
        folder = Path(place)
        write_task(folder)
        began = time.monotonic()
        done = subprocess.run(
            command("local"), cwd=folder, env=environment(folder), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        print(f"{RUNS} runs by the local runner: {time.monotonic() - began:.0f} s", flush=True)
        expected = state(folder / "local")
        assert len(expected) == 1 + 2 * RUNS
        for number in range(options.first, options.first + options.trials):
            rows.append(trial(number, folder, expected, options.span))
            if len(rows) == 1:
                print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}", flush=True)
            print(f"| {' | '.join(map(str, rows[-1].values()))} |", flush=True)
            if not rows[-1]["equal"] or rows[-1]["repeated"]:
                print((folder / f"trial-{number}.txt").read_text(), flush=True)
    good = sum(
        row["finished"] == RUNS and row["equal"] and not row["repeated"] and not row["exit code"]
        for row in rows
    )
    summary = f"{good} of {len(rows)} trials: all {RUNS} runs finished, none repeated, every table equal"
    print(summary, flush=True)
    if options.output:
        lines = [f"| {' | '.join(map(str, row.values()))} |" for row in rows]
        options.output.write_text(
            "\n".join([f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}", *lines, "", summary, ""])
        )
    sys.exit(good < len(rows))


if __name__ == "__main__":
    main()
