"""Promise 4: interrupted equals uninterrupted; and what stands in the way of it is told."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.engine import checkpoints
from bert_ft.kernels import embeddings, last_layer, seen_rows
from bert_ft.rundir.folder import RunDir

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(20) for word in ("good", "bad")]
OPTIONS: dict[str, Any] = {
    "batch_size": 4,
    "epochs": 3,
    "max_length": 16,
    "log_every": 2,
    "data.validation": "20%",
    "save_every": 5,
}


@pytest.fixture(scope="module", autouse=True)
def steps_of_a_large_model() -> Iterator[None]:
    """Whatever a large model's steps do, those of a tiny one do here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "LARGE", 1)
        patch.setattr(last_layer, "WORTH", 0.0)
        patch.setattr(seen_rows, "MOST", 1.0)
        yield


class Stop(Exception):
    pass


class StopAt(bert_ft.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, entry: Any) -> None:
        if step == self.step:
            raise Stop


def _train(checkpoint: Path, output: Path, **more: Any) -> bert_ft.Run:
    return bert_ft.finetune("classification", str(checkpoint), train=ROWS, output=output, **(OPTIONS | more))


def _content(run: bert_ft.Run) -> tuple[Any, ...]:
    log = [{key: value for key, value in line.items() if key != "seconds"} for line in run.log]
    results = {key: value for key, value in run.results.items() if key != "timing"}
    return (run.path / "model" / "model.safetensors").read_bytes(), run.predictions(), log, results


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return _content(_train(tiny_checkpoint, tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.pretrained
@pytest.mark.parametrize(("checkpoint", "kills"), [
    ("tiny_checkpoint", 3), pytest.param("minilm2", 20, marks=pytest.mark.slow),
])  # fmt: skip
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    request: pytest.FixtureRequest, checkpoint: str, kills: int
) -> None:
    from demo import fetch

    command = [
        sys.executable,
        str(Path(__file__).with_name("killing.py")),
        "--checkpoint",
        str(request.getfixturevalue(checkpoint)),
        "--kills",
        str(kills),
    ]
    done = subprocess.run(
        [*command, "--reviews", str(fetch.film_reviews())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= kills and found["different"] == 0 and found["resumed"] > 0, found


@pytest.mark.parametrize("damage", ["truncated", "flipped", "half deleted", "no checksums"])
def test_a_damaged_checkpoint_is_passed_over(
    tiny_checkpoint: Path, tmp_path: Path, whole: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stop):
        _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(13)])
    newest = tmp_path / "run" / "checkpoints" / "step-10"
    state = newest / "state.safetensors"
    raw = state.read_bytes()
    if damage == "truncated":
        state.write_bytes(raw[:-100])
    elif damage == "flipped":
        state.write_bytes(raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:])
    else:
        (state if damage == "half deleted" else newest / "checksums.json").unlink()
    run = _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(-1)])
    told = capsys.readouterr().err
    assert "step-10 is damaged" in told and "resuming after step 5" in told
    assert _content(run) == whole
    assert not (run.path / "checkpoints").exists(), "deleted when the run succeeds"


def test_another_run_is_refused_and_the_same_one_goes_on(
    tiny_checkpoint: Path, tmp_path: Path, whole: Any
) -> None:
    with pytest.raises(bert_ft.InputError, match="no interrupted run"):
        _train(tiny_checkpoint, tmp_path / "run", resume=True)
    with pytest.raises(Stop):
        _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(17)])
    for change, message in (
        ({"learning_rate": 1e-3}, "recipe.learning_rate: 3e-05 -> 0.001"),
        ({"seed": 3}, "run.seed: 42 -> 3"),
        ({"data.split_seed": 7}, "fingerprint.data"),
    ):
        with pytest.raises(bert_ft.InputError, match="this folder holds another run") as told:
            _train(tiny_checkpoint, tmp_path / "run", **change)
        assert message in str(told.value)
    run = _train(tiny_checkpoint, tmp_path / "run", resume=True, keep_checkpoints=True)
    assert _content(run) == whole
    assert (
        sorted(p.name for p in (run.path / "checkpoints").glob("step-*")) == ["step-20", "step-24"]
        or len(list((run.path / "checkpoints").glob("step-*"))) == checkpoints.KEPT
    )
    assert run.environment["resumed"][0]["processes"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_signal_saves_and_leaves(tiny_checkpoint: Path, tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 40))
    command = [sys.executable, "-m", "bert_ft", "train", "classification", "--train", str(tmp_path / "rows.jsonl"), "--validation",
               "10%", "--checkpoint", str(tiny_checkpoint), "--output", str(tmp_path / "run"), "--epochs", "200", "--set",
               "log_every=1"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not log.is_file() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == code, told
    assert (
        "Traceback" not in told
        and "run the same command (without --overwrite) to continue from there" in told
    )
    assert RunDir(tmp_path / "run").state == "unfinished"
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1


def test_a_second_command_changes_nothing_and_is_told_who_works(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    class Second(bert_ft.Callback):
        def on_step(self, step: int, entry: Any) -> None:
            if step == 6:
                before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
                for overwrite in (False, True):
                    with pytest.raises(
                        bert_ft.InputError, match=f"another command .* process {os.getpid()} "
                    ):
                        _train(tiny_checkpoint, tmp_path / "run", overwrite=overwrite)
                assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}

    assert _train(tiny_checkpoint, tmp_path / "run", callbacks=[Second()]).dir.state == "finished"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_can_not_be_written_damages_nothing(
    tiny_checkpoint: Path, tmp_path: Path, whole: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoints.save, []

    def failing(tensors: Any, file: Path) -> None:
        calls.append(file)
        if "step-10" in str(file):
            raise OSError(code, os.strerror(code), str(file))
        real(tensors, file)

    monkeypatch.setattr(checkpoints, "save", failing)
    with pytest.raises(bert_ft.MachineError) as told:
        _train(tiny_checkpoint, tmp_path / "run")
    assert told.value.exit_code == 1 and ("full" in str(told.value) or "read-only" in str(told.value))
    monkeypatch.setattr(checkpoints, "save", real)
    assert _content(_train(tiny_checkpoint, tmp_path / "run", resume=True)) == whole


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs the right to mount a small disk"
)
def test_a_full_disk(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False
    ).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        done = cli("train", "classification", "--train", str(tmp_path / "rows.jsonl"), "--validation", "20%", "--checkpoint",
                   str(tiny_checkpoint), "--output", str(disk / "run"), "--max-length", "16", "--batch-size", "4", "--save-every", "2")  # fmt: skip
        assert done.code == 1 and "the disk is full" in done.err and "Traceback" not in done.err
        assert RunDir(disk / "run").state != "finished"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_loss_that_is_no_number_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import torch

    def broken(logits: Any, batch: Any) -> Any:
        broken.calls += 1
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none") * (
            float("nan") if broken.calls == 12 else 1
        )

    broken.calls = 0
    with pytest.raises(bert_ft.InputError) as told:
        _train(tiny_checkpoint, tmp_path / "run", loss=broken)
    assert "step 12: the loss is nan (learning rate" in str(told.value) and "training features" in str(
        told.value
    )
    assert {p.name for p in (tmp_path / "run" / "checkpoints").glob("step-*")} == {"step-5", "step-10"}


def test_memory_that_runs_out_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A child whose address space may grow by 64 MB more, and a batch that needs far more than that."""
    script = tmp_path / "train.py"
    script.write_text(f"""
import resource, bert_ft

class Full(bert_ft.Callback):
    def on_start(self, plan, features):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))

rows = [{{"text": "a warm and funny film " * 20, "label": k % 2}} for k in range(2000)]
try:
    bert_ft.finetune("classification", {str(tiny_checkpoint)!r}, train=rows, validation=rows[:4], batch_size=2000,
                     max_length=100, epochs=1, output={str(tmp_path / "run")!r}, callbacks=[Full()], quiet=True)
except bert_ft.MachineError as error:
    print("told:", error)
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "told: the memory is full\n  use less of it: --set gradient_accumulation_steps=4" in done.stdout
    assert RunDir(tmp_path / "run").state == "unfinished"


def test_a_training_that_does_not_learn_is_told(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    """Labels that follow from nothing, and a learning rate far too small."""
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "text,label\n" + "".join(f"a film {k % 4},{'yes' if k % 3 else 'no'}\n" for k in range(60))
    )
    arguments = ("train", "classification", "--train", str(rows), "--validation", str(rows), "--checkpoint", str(tiny_checkpoint),
                 "--max-length", "16", "--batch-size", "4", "--epochs", "2", "--set", "log_every=1", "--set", "dropout=0.0")  # fmt: skip
    done = cli(*arguments, "--lr", "1e-9", "--output", str(tmp_path / "run"))
    assert done.code == 0 and "the training loss did not go down: 0." in done.err
    assert "every prediction is '" in done.err and "the training has collapsed" in done.err


@pytest.mark.parametrize("damage", ["half of it zero", "truncated", "gone"])
def test_damaged_best_weights_are_noticed(
    tiny_checkpoint: Path, tmp_path: Path, whole: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stop):
        _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(13)])
    (best,) = (tmp_path / "run" / "checkpoints").glob("best-*.safetensors")
    raw = best.read_bytes()
    half = raw[: len(raw) // 2]
    best.write_bytes(half + bytes(len(raw) - len(half)) if damage == "half of it zero" else half)
    if damage == "gone":
        best.unlink()
    run = _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(-1)])
    assert "step-10 is damaged" in capsys.readouterr().err
    assert _content(run) == whole


def test_a_step_that_is_broken_off_leaves_the_random_states_before_it(
    tiny_checkpoint: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C of a notebook comes in the middle of a forward, which has drawn its dropout by then."""
    from bert_ft.engine import loop

    real, calls = loop._Training._loss, [0]

    def broken(*arguments: Any) -> Any:
        loss = real(*arguments)
        calls[0] += 1
        if calls[0] == 13:
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(loop._Training, "_loss", broken)
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_checkpoint, tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "checkpoints" / "step-12").is_dir()
    assert _content(_train(tiny_checkpoint, tmp_path / "run")) == whole


def test_a_run_that_was_copied_goes_on_elsewhere(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Data and checkpoint lie in other places there: their fingerprints are what counts."""
    text = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)

    def train(place: str, **more: Any) -> bert_ft.Run:
        return bert_ft.finetune("classification", str(tmp_path / place / "bert"), train=tmp_path / place / "rows.csv",
                                output=tmp_path / place / "run", quiet=True, **(OPTIONS | more))  # fmt: skip

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "rows.csv").write_text(text)
    shutil.copytree(tiny_checkpoint, tmp_path / "here" / "bert")
    with pytest.raises(Stop):
        train("here", callbacks=[StopAt(13)])
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here = train("here")
    shutil.move(tmp_path / "here", tmp_path / "gone")
    there = train("there")
    assert len(there.environment["resumed"]) == 1 and there.task.run.checkpoint == str(
        tmp_path / "there" / "bert"
    )
    assert there.metrics == there.evaluate()
    here = bert_ft.Run(tmp_path / "gone" / "run")
    assert (here.path / "model" / "model.safetensors").read_bytes() == (
        there.path / "model" / "model.safetensors"
    ).read_bytes()
    (tmp_path / "there" / "rows.csv").write_text(text + "another film,good\n")
    with pytest.raises(bert_ft.InputError, match="this folder holds another run"):
        train("there")


def test_an_evaluation_that_draws_does_not_show(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import torch

    options: dict[str, Any] = {"metrics": {"drawn": lambda p, y: float(torch.rand(()))}, "eval_every": 2, "save_every": 6,
                               "recipe.keep": "last"}  # fmt: skip
    plain = _train(tiny_checkpoint, tmp_path / "plain", **options)
    with pytest.raises(Stop):
        _train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt(7)], **options)
    again = _train(tiny_checkpoint, tmp_path / "run", **options)
    assert _content(again)[0] == _content(plain)[0]
