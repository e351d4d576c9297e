"""Host memory that ends in an evaluation: one message with a remedy, nothing lost, and the remedy resumes the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.rundir.folder import RunDir

SCRIPT = """
import resource, sys, bert_ft

class Full(bert_ft.Callback):
    \"\"\"From the step before the first evaluation on the address space may grow by little.\"\"\"
    def on_step(self, step, entry):
        if step == 7 and sys.argv[3] == "full":
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used, used))

def rows(n):
    return [{"text": f"a warm and funny film {k} " * 18, "label": k % 2} for k in range(n)]

more = {"eval_tokens": int(sys.argv[4])} if len(sys.argv) > 4 else {}
try:
    run = bert_ft.finetune("classification", sys.argv[1], train=rows(80), validation=rows(600), batch_size=4, max_length=100,
                           precision="fp32",  # steps in bfloat16 leave more free than this evaluation takes
                           max_steps=12, eval_every=8, save_every=3, output=sys.argv[2], callbacks=[Full()], quiet=True, **more)
    print("finished", run.metrics)
except bert_ft.MachineError as error:
    print("told:", error)
"""


def _run(folder: Path, *arguments: Any) -> str:
    (folder / "train.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(folder / "train.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_memory_that_ends_in_an_evaluation(tiny_checkpoint: Path, tmp_path: Path) -> None:
    told = _run(tmp_path, tiny_checkpoint, tmp_path / "run", "full", 2**20)
    assert "told: the memory is full" in told and "--set eval_tokens=" in told, told
    folder = RunDir(tmp_path / "run")
    assert folder.state == "unfinished"
    assert {path.name for path in folder.checkpoints.glob("step-*")} == {"step-3", "step-6"}, (
        "its state is kept"
    )
    # what the message advises goes on from there
    assert "finished" in _run(tmp_path, tiny_checkpoint, tmp_path / "run", "enough", 256)
    run = bert_ft.Run(tmp_path / "run")
    assert len(run.environment["resumed"]) == 1
    assert "finished" in _run(tmp_path, tiny_checkpoint, tmp_path / "whole", "enough")
    whole = bert_ft.Run(tmp_path / "whole")
    weights = [(each.path / "model" / "model.safetensors").read_bytes() for each in (run, whole)]
    assert weights[0] == weights[1] and run.predictions() == whole.predictions()


def test_torch_that_finds_no_memory_for_the_last_predictions(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is over by then: nothing of it is repeated."""
    from bert_ft.finetuning import train_run as module

    rows = [{"text": f"a {word} film", "label": word} for word in ("good", "bad")] * 8
    options: dict[str, Any] = {
        "train": rows,
        "validation": rows,
        "max_steps": 6,
        "save_every": 2,
        "quiet": True,
    }

    def full(*_: Any) -> Any:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(module, "write_predictions", full)
    with pytest.raises(bert_ft.MachineError, match="the memory is full"):
        bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "run", **options)
    monkeypatch.undo()
    run = bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "run", **options)
    assert len(run.environment["resumed"]) == 1
    assert [line["step"] for line in run.log if "evaluation" in line] == [
        line["step"] for line in bert_ft.finetune(
            "classification", str(tiny_checkpoint), output=tmp_path / "whole", **options
        ).log if "evaluation" in line
    ]  # fmt: skip
