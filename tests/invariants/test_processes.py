"""Promises 3 and 5: the recipe means the same on any number of processes, and each row is scored once.

Every run here is the real command, started by `accelerate launch` with the configurations that ship with bert-ft.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bert_ft

LAUNCH = Path(bert_ft.__file__).parent / "launch"
SETTINGS = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PREDICT = """
import json, sys, bert_ft
from bert_ft.files import first_process
run = bert_ft.load(sys.argv[1])
rows = [json.loads(line) for line in open(sys.argv[2])]
answers = run.predict([row["text"] for row in rows])
if first_process():
    json.dump(answers, open(sys.argv[3], "w"))
"""

SHARDED = """
import sys
from bert_ft.cli import main
from bert_ft.engine import loop
from torch.distributed.tensor import DTensor

run = loop._Training.run

def watched(training):
    assert all(isinstance(parameter, DTensor) for parameter in training.network.parameters())
    return run(training)

loop._Training.run = watched
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def reviews(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,600 training rows of the demo, and 13 to validate on: neither 2 nor 3 divide them."""
    from demo import fetch

    folder = tmp_path_factory.mktemp("reviews")
    with (fetch._cache(None) / "film-reviews" / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, part in (("train", rows[:1600]), ("validation", rows[1600:1613])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def _start(processes: int, *arguments: str, config: str = "one_machine") -> subprocess.Popen[str]:
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / f"{config}.yaml"),
                "--num_processes", str(processes)]  # fmt: skip
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    return subprocess.Popen(command, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, start_new_session=True)  # fmt: skip


def _launch(processes: int, *arguments: str, config: str = "one_machine") -> str:
    started = _start(processes, *arguments, config=config)
    output, _ = started.communicate(timeout=600)
    assert started.returncode == 0, output[-3000:]
    return output


def _training(checkpoint: Path, reviews: Path, output: Path, *more: str) -> list[str]:
    return ["-m", "bert_ft", "train", "classification", "--train", str(reviews / "train.jsonl"), "--validation",
            str(reviews / "validation.jsonl"), "--checkpoint", str(checkpoint), "--output", str(output), "--max-length", "24",
            "--lr", "5e-4", "--set", "precision=fp32", "--set", "dropout=0.0", "--set", "log_every=1", "--set", "warmup_ratio=0.2", *more]  # fmt: skip


def _steps(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def _predictions(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions" / "validation.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.pretrained
def test_processes_and_accumulation_only_divide_the_batch(
    minilm2: Path, reviews: Path, tmp_path: Path
) -> None:
    runs = {}
    for processes, accumulation in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)):
        run = tmp_path / f"{processes}x{accumulation}"
        _launch(processes, *_training(minilm2, reviews, run, "--batch-size", "32", "--epochs", "1", "--set",
                                      f"gradient_accumulation_steps={accumulation}"))  # fmt: skip
        assert json.loads((run / "environment.json").read_text())["processes"] == processes
        runs[processes, accumulation] = run
    one = _steps(runs[1, 1])
    assert len(one) == 50 and one[0]["loss"] - one[-1]["loss"] > 0.02, "it learns"
    for run in runs.values():
        steps = _steps(run)
        assert [s["learning_rate"] for s in steps] == [s["learning_rate"] for s in one], "the same schedule"
        assert [s["loss"] for s in steps] == pytest.approx([s["loss"] for s in one], rel=1e-5)
        found = _predictions(run)
        assert [p["row"] for p in found] == list(range(13)), "each row once, in order"
        for mine, first in zip(found, _predictions(runs[1, 1]), strict=True):
            assert mine["probabilities"] == pytest.approx(first["probabilities"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.pretrained
def test_a_saved_model_scores_the_same_on_any_number_of_processes(
    minilm2: Path, reviews: Path, tmp_path: Path
) -> None:
    run, script = tmp_path / "run", tmp_path / "predict.py"
    _launch(1, *_training(minilm2, reviews, run, "--max-steps", "4"))
    script.write_text(PREDICT)
    metrics, answers = [], []
    for processes in (1, 2, 3):
        printed = _launch(processes, "-m", "bert_ft", "evaluate", str(run), "--json")
        metrics.append(json.loads(printed[printed.index("{") :]))
        answered = tmp_path / f"{processes}.json"
        _launch(processes, str(script), str(run), str(reviews / "validation.jsonl"), str(answered))
        answers.append(json.loads(answered.read_text()))
    assert metrics[0] == metrics[1] == metrics[2]
    assert len(answers[0]) == 13 and answers[0] == answers[1] == answers[2]


def _killed(started: subprocess.Popen[str], run: Path, step: int, victim: int | None = None) -> str:
    """Kills a job, or its worker of rank `victim` alone, once it has saved `step`; gives what it printed."""
    deadline = time.monotonic() + 300
    while not (run / "checkpoints" / f"step-{step}").is_dir():
        assert started.poll() is None and time.monotonic() < deadline, started.communicate()[0][-3000:]
        time.sleep(0.02)
    ranks = {rank: pid for pid, rank in _workers(started.pid)}
    victims = [*ranks.values(), started.pid] if victim is None else [ranks[str(victim)]]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return started.communicate(timeout=120)[0]


def _workers(launcher: int) -> Iterator[tuple[int, str]]:
    """(process id, rank) of the processes that a launcher started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        rank = next((item[5:].decode() for item in environment if item.startswith(b"RANK=")), None)
        if parent == launcher and rank is not None:
            yield int(folder.name), rank


@pytest.mark.slow
@pytest.mark.pretrained
def test_sharded_training_equals_and_resumes(minilm2: Path, reviews: Path, tmp_path: Path) -> None:
    """FSDP on two CPU processes: the losses of one process; killed and resumed, the same bytes as left alone."""
    options = ("--batch-size", "32", "--max-steps", "20", "--save-every", "4", "--set", "eval_every=4")
    alone, whole, killed = tmp_path / "alone", tmp_path / "whole", tmp_path / "killed"
    _launch(1, *_training(minilm2, reviews, alone, *options))
    (tmp_path / "sharded.py").write_text(SHARDED)
    # each process has its part: it was DDP that was tested here, as accelerate's state forgot what it was told
    arguments = _training(minilm2, reviews, whole, *options)[2:]
    _launch(2, str(tmp_path / "sharded.py"), *arguments, config="fsdp")
    assert json.loads((whole / "environment.json").read_text())["distributed"] == "FSDP"
    expected = [step["loss"] for step in _steps(alone)]
    assert [step["loss"] for step in _steps(whole)] == pytest.approx(expected, rel=1e-5)
    best = [json.loads((run / "results.json").read_text())["best_step"] for run in (alone, whole)]
    assert best[0] == best[1] < 20, "and its weights are put back"

    _killed(_start(2, *_training(minilm2, reviews, killed, *options), config="fsdp"), killed, 8)
    assert not (killed / "results.json").exists()
    assert "resuming after step " in _launch(2, *_training(minilm2, reviews, killed, *options), config="fsdp")
    assert [s["loss"] for s in _steps(killed)] == [s["loss"] for s in _steps(whole)]
    assert (killed / "model/model.safetensors").read_bytes() == (
        whole / "model/model.safetensors"
    ).read_bytes()
    config = json.loads((whole / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.slow
@pytest.mark.pretrained
def test_a_worker_that_dies_ends_the_job_and_fewer_go_on(
    minilm2: Path, reviews: Path, tmp_path: Path
) -> None:
    options = ("--batch-size", "32", "--max-steps", "40", "--save-every", "4")
    alone, run = tmp_path / "alone", tmp_path / "run"
    _launch(1, *_training(minilm2, reviews, alone, *options))
    started = _start(2, *_training(minilm2, reviews, run, *options))
    output = _killed(started, run, 4, victim=1)
    assert started.returncode != 0 and not (run / "results.json").exists()
    assert "Signal 9 (SIGKILL)" in output[output.index("Root Cause") :], (
        "the launcher's last lines name the cause"
    )
    output = _launch(1, *_training(minilm2, reviews, run, *options))
    assert "the checkpoint is of 2 processes; training continues with 1" in output
    assert [s["loss"] for s in _steps(run)] == pytest.approx([s["loss"] for s in _steps(alone)], rel=1e-5)
    resumed = json.loads((run / "environment.json").read_text())["resumed"]
    assert [entry["processes"] for entry in resumed] == [1], "the other layout is recorded"


@pytest.mark.slow
def test_a_fault_of_the_user_is_named_by_the_launcher(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    started = _start(2, "-m", "bert_ft", "train", "classification", "--train", str(tmp_path / "train.csv"), "--label", "stars",
                     "--validation", "50%", "--checkpoint", str(tiny_checkpoint), "--output", str(tmp_path / "run"))  # fmt: skip
    output, _ = started.communicate(timeout=120)
    assert started.returncode != 0
    assert "bert-ft: " in output and "no column 'stars'" in output[output.index("Root Cause") :]


# sentences of up to 60 words: at 24 tokens they go through in windows
SENTENCES = [{"tokens": ["the", "plot", *["very"] * (i % 5 * 14), "Anna", "Lima"],
              "tags": ["O"] * (2 + i % 5 * 14) + ["S-PER", "S-LOC"]} for i in range(60)]  # fmt: skip


@pytest.mark.slow
def test_every_word_counts_once_on_any_number_of_processes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name, rows in (("train", SENTENCES[:-13]), ("validation", SENTENCES[-13:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for processes, accumulation in ((1, 1), (2, 1), (1, 3)):
        run = tmp_path / f"{processes}x{accumulation}"
        _launch(processes, "-m", "bert_ft", "train", "ner", "--train", str(tmp_path / "train.jsonl"), "--validation",
                str(tmp_path / "validation.jsonl"), "--checkpoint", str(tiny_checkpoint), "--output", str(run), "--batch-size",
                "8", "--epochs", "8", "--max-length", "24", "--lr", "1e-3", "--set", "precision=fp32", "--set", "dropout=0.0", "--set", "log_every=1",
                "--set", f"gradient_accumulation_steps={accumulation}")  # fmt: skip
        results = json.loads((run / "results.json").read_text())
        found.append(
            ([s["loss"] for s in _steps(run)], _predictions(run), results["metrics"], results["counts"])
        )
    losses, predictions, metrics, counts = found[0]
    assert counts["validation"]["windows"] > 13 and max(losses) - min(losses) > 0.1
    for other in found[1:]:
        assert other[0] == pytest.approx(losses, rel=1e-4), "a mean over the words of the global batch"
        assert other[1:] == (predictions, metrics, counts)
    assert [(p["row"], p["tokens"]) for p in predictions] == [
        (k, r["tokens"]) for k, r in enumerate(SENTENCES[-13:])
    ]


@pytest.mark.slow
@pytest.mark.pretrained
@pytest.mark.parametrize("settings", [
    ("layer_decay=0.8", "head_learning_rate=1e-3", "bias_correction=false"),
    ("reinitialize=1", "freeze=embeddings", "ema=0.9"),
    ("lora.rank=4", "ema=0.9", "lora.save=adapter", "head_learning_rate=1e-2"),
    ("train_only=biases", "schedule=constant_with_cooldown"),
    ("freeze=encoder", "head_learning_rate=2e-2"),
], ids=lambda settings: settings[0])  # fmt: skip
def test_the_recipes_of_papers_on_two_processes(
    minilm2: Path, reviews: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """Fifty steps have the losses of one process, in two parts each; killed and resumed, the bytes of one left alone."""
    words = [word for setting in settings for word in ("--set", setting)]
    options = ("--batch-size", "32", "--epochs", "1", "--save-every", "10", *words)
    alone, whole, killed = tmp_path / "alone", tmp_path / "whole", tmp_path / "killed"
    _launch(1, *_training(minilm2, reviews, alone, *options, "--set", "gradient_accumulation_steps=2"))
    _launch(2, *_training(minilm2, reviews, whole, *options))
    expected = [step["loss"] for step in _steps(alone)]
    assert len(expected) == 50 and max(expected) - min(expected) > 0.02
    assert [step["loss"] for step in _steps(whole)] == pytest.approx(expected, rel=1e-4)
    for mine, first in zip(_predictions(whole), _predictions(alone), strict=True):
        assert mine["probabilities"] == pytest.approx(first["probabilities"], abs=1e-4)
    _killed(_start(2, *_training(minilm2, reviews, killed, *options)), killed, 20)
    assert not (killed / "results.json").exists()
    assert "resuming after step " in _launch(2, *_training(minilm2, reviews, killed, *options))
    name = "adapter_model" if "lora.save=adapter" in settings else "model"
    saved = [(run / f"model/{name}.safetensors").read_bytes() for run in (killed, whole)]
    assert saved[0] == saved[1]
