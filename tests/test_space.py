"""A disk that is too small is told before the training, not after it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.rundir.space import Space

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(8) for word in ("good", "bad")]


def _written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("keep", ["best", "last"])
def test_what_is_said_holds_what_is_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    """Watched at every step of a training that saves its state at each of them."""
    spaces: list[Space] = []
    real = Space.told
    monkeypatch.setattr(Space, "told", lambda self, *rest: spaces.append(self) or real(self, *rest))
    most = 0

    class Watch(bert_ft.Callback):
        def on_step(self, *arguments: Any, **named: Any) -> None:
            nonlocal most
            most = max(most, _written(tmp_path / "run"))

    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, validation=ROWS, max_steps=4, eval_every=1,
                           save_every=1, keep=keep, callbacks=[Watch()], output=tmp_path / "run", quiet=True)  # fmt: skip
    (space,) = spaces
    small = 200_000  # task.toml, log, report, tokenizer: the tiny model is no larger
    assert space.after <= _written(run.path / "model") <= space.after + small
    assert 0 < most <= space.training + small
    assert space.surely < space.training


@pytest.mark.parametrize("check", [True, False])
def test_too_small_a_disk_is_refused_before_the_first_step(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))

    def train() -> bert_ft.Run:
        return bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, validation=ROWS, max_steps=1,
                                output=tmp_path / "run", quiet=True, check=check)  # fmt: skip

    if not check:
        assert train().results["steps"] == 1
        return
    with pytest.raises(
        bert_ft.InputError, match=r"this disk has 0 MB left, and the run writes \d+ MB"
    ) as fault:
        train()
    assert "--output" in str(fault.value)
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    monkeypatch.undo()
    assert train().results["steps"] == 1  # once there is room


def test_a_disk_that_may_be_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    space = Space(training=36_500, surely=8_500, after=4_000)
    for free, lines in ((space.training, 1), (space.training - 1, 2), (space.surely, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert len(list(space.told(tmp_path / "not" / "there", checked=True))) == lines
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=space.surely - 1))
    assert len(list(space.told(tmp_path, checked=False))) == 1
    with pytest.raises(bert_ft.InputError):
        list(space.told(tmp_path, checked=True))
