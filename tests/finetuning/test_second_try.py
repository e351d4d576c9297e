"""A training on few rows that collapses is tried again, with another seed: that run is the one of that seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import bert_ft
from bert_ft.config import few_rows
from bert_ft.engine import methods
from bert_ft.finetuning.evaluator import Evaluator

ROWS = [
    {"text": f"a {'warm' if i % 2 else 'dull'} film {i % 7}", "label": "good" if i % 2 else "bad"}
    for i in range(24)
]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "PASSES", 1)
    monkeypatch.setattr(few_rows, "LEAST", 9)


def trained(checkpoint: Path, folder: Path, **settings: Any) -> bert_ft.Run:
    return bert_ft.finetune("classification", checkpoint, train=ROWS, validation=ROWS, output=folder, quiet=True,
                            **settings)  # fmt: skip


def collapsing(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[int]:
    """Trainings with this seed are taken for collapsed; the seeds of all that are looked at."""
    looked = list[int]()

    def collapse(self: Evaluator) -> str | None:
        looked.append(self.adapter.task.run.seed)
        return "every prediction is 'bad'" if looked[-1] == seed else None

    monkeypatch.setattr(Evaluator, "collapse", collapse)
    return looked


def same(one: bert_ft.Run, other: bert_ft.Run) -> bool:
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (one, other)]
    return all((weights[1][name] == values).all() for name, values in weights[0].items())


def test_the_second_try_is_the_run_of_its_seed(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = collapsing(monkeypatch, 7)
    run = trained(tiny_checkpoint, tmp_path / "run", seed=7)
    plain = trained(tiny_checkpoint, tmp_path / "plain", seed=1007)
    assert looked == [7, 1007]
    assert same(run, plain) and run.metrics == plain.metrics
    assert run.predictions() == plain.predictions()
    note = "the training with seed 7 collapsed: this is a second one, with seed 1007"
    assert note in run.results["notes"] and note not in plain.results["notes"]
    assert run.results["seed"] == run.environment["seed"] == 1007 and run.task.run.seed == 7
    assert [line["step"] for line in run.log if "evaluation" in line] == [3, 6, 9]
    assert "seed: 1007" in (run.path / "model" / "README.md").read_text()
    # the same command finds it finished
    before = (run.path / "results.json").stat().st_mtime_ns
    trained(tiny_checkpoint, tmp_path / "run", seed=7)
    assert (run.path / "results.json").stat().st_mtime_ns == before
    # and trained anew, it begins with its own seed
    looked.clear()
    trained(tiny_checkpoint, tmp_path / "run", seed=7, overwrite=True)
    assert looked == [7]


def test_an_interrupted_second_try_goes_on(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = collapsing(monkeypatch, 7)
    real = methods.train

    def broken(model: Any, *args: Any, evaluate: Any, **options: Any) -> Any:
        def stopping() -> Any:
            found = evaluate()
            if model.adapter.task.run.seed == 1007 and evaluate.evaluations == 2:
                raise KeyboardInterrupt
            return found

        return real(model, *args, evaluate=stopping, **options)

    monkeypatch.setattr(methods, "train", broken)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_checkpoint, tmp_path / "run", seed=7, save_every=2)
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    monkeypatch.setattr(methods, "train", real)
    run = trained(tiny_checkpoint, tmp_path / "run", seed=7, save_every=2)
    assert looked == [7]
    assert run.environment["resumed"] and run.results["seed"] == 1007
    assert same(run, trained(tiny_checkpoint, tmp_path / "plain", seed=1007))


def test_both_collapse(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A rate at which nothing is learned: told twice, and no third training."""
    run = trained(tiny_checkpoint, tmp_path / "run", seed=7, learning_rate=5.0)
    told = "\n".join(run.results["notes"])
    assert "seed 7 collapsed" in told and "every prediction is" in told
    assert run.results["seed"] == 1007


@pytest.mark.parametrize(
    "own", [{"max_steps": 9}, {"callbacks": [bert_ft.Callback()]}, {"method": "features"}]
)
def test_a_recipe_of_ones_own_is_trained_once(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: dict[str, Any]
) -> None:
    looked = collapsing(monkeypatch, 7)
    run = trained(tiny_checkpoint, tmp_path / "run", seed=7, **own)
    assert looked == [] and run.results["seed"] == 7
