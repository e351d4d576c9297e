"""An experiment is bound and refused before anything heavy is loaded; what a run depends on is read once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bert_ft
from bert_ft.modeling import pretrained

CONTRADICTIONS = [
    "overwrite=True, resume=True",
    "save_every='soon'",
    "folds=3, validation=[{'text': 'a', 'label': 'b'}]",
    "learning_rat=1e-4",
    "**{'metric.best': 'f1_macro'}",
]


def test_contradictions_are_refused_without_torch() -> None:
    calls = "\n".join(
        f"try: bert_ft.finetune('classification', 'org/name', train=[], {call}); print('trained')\n"
        "except bert_ft.InputError: print('refused', 'torch' in sys.modules)"
        for call in CONTRADICTIONS
    )
    code = f"import sys, bert_ft\n{calls}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["refused False"] * len(CONTRADICTIONS), done


def test_weights_are_hashed_once_a_run(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of a large checkpoint take seconds to read."""
    real, calls = pretrained.fingerprint, list[str | None]()

    def counted(checkpoint: str | None) -> str | None:
        calls.append(checkpoint)
        return real(checkpoint)

    monkeypatch.setattr(pretrained, "fingerprint", counted)
    rows = [{"text": f"a {word} film", "label": word} for word in ("good", "bad")] * 4
    run = bert_ft.finetune("classification", tiny_checkpoint, train=rows, validation=rows, output=tmp_path / "run",
                           max_steps=1, max_length=12, quiet=True)  # fmt: skip
    assert calls == [str(tiny_checkpoint)]
    assert run.environment["checkpoint_fingerprint"] == real(str(tiny_checkpoint))
