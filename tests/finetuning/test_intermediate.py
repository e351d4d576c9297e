"""Training on another task first: one command makes both runs, shares the first, and states it as a condition."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file

import bert_ft
from bert_ft.config.references import Reference
from bert_ft.files import write_json
from bert_ft.rundir.folder import RunDir
from bert_ft.tools.reproduce.conditions import conditions, origin
from bert_ft.tools.reproduce.plan import plan
from bert_ft.tools.reproduce.results import Outcome

ROWS = [
    {"text": f"the film {i} is {'warm' if i % 2 else 'dull'}", "label": "good" if i % 2 else "bad"}
    for i in range(24)
]
SHARED: dict[str, Any] = {"max_steps": 2, "batch_size": 8, "max_length": 24}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two task files, the first with three labels: its head is of no use for the second."""
    monkeypatch.chdir(tmp_path)
    three = [row | {"label": f"{row['label']}-{i % 3 == 0}"} for i, row in enumerate(ROWS)]
    for name, rows in (("broad", three), ("narrow", ROWS)):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        Path(f"{name}.toml").write_text(
            f'family = "classification"\n[data]\ntrain = "{name}.jsonl"\nevaluate = "{name}.jsonl"\n[recipe]\n'
            "max_steps = 2\nbatch_size = 8\nmax_length = 24\nlearning_rate = 1e-3\n"
        )
    return tmp_path


def test_one_command_makes_both_runs(tasks: Path, tiny_checkpoint: Path, cli: Callable[..., Any]) -> None:
    """The second begins with the first one's encoder; two seeds share the first; and what is there is not repeated."""
    words = ["train", "narrow.toml", "--checkpoint", tiny_checkpoint, "--intermediate", "broad.toml"]
    for seed in ("1", "2"):
        done = cli(*words, "--seed", seed, "--set", "freeze=encoder")
        assert done.code == 0, done.err
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "broad-tiny-bert-seed42",
        "narrow-tiny-bert-intermediate=broad.toml-freeze=encoder-seed1",
        "narrow-tiny-bert-intermediate=broad.toml-freeze=encoder-seed2",
    ]
    before, after = (
        load_file(Path("runs", name, "model/model.safetensors"))
        for name in (
            "broad-tiny-bert-seed42",
            "narrow-tiny-bert-intermediate=broad.toml-freeze=encoder-seed1",
        )
    )
    original = load_file(tiny_checkpoint / "model.safetensors")
    for name, tensor in before.items():
        if name.startswith("bert.encoder"):
            assert tensor.equal(after[name]) and not tensor.equal(original[name.removeprefix("bert.")]), name
    assert before["classifier.weight"].shape != after["classifier.weight"].shape
    run = Path("runs/narrow-tiny-bert-intermediate=broad.toml-freeze=encoder-seed1")
    assert origin(str(run)) == ("tiny-bert", "broad+narrow")
    stamp = Path("runs/broad-tiny-bert-seed42/results.json").stat().st_mtime_ns
    again = cli(*words, "--seed", "1", "--set", "freeze=encoder")
    assert again.code == 0 and again.err.count("is finished already") == 2
    assert Path("runs/broad-tiny-bert-seed42/results.json").stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("tasks")
def test_what_can_not_come_first_is_refused(tiny_checkpoint: Path) -> None:
    for name, text in (("narrow.toml", None), ("namesake.toml", Path("broad.toml").read_text())):
        if text is not None:  # another task, which is called as this one is
            Path(name).write_text(f'name = "narrow"\n{text}')
        itself = rf"run.intermediate: '{name}' is the task itself\n.*its name is not to be 'narrow'"
        with pytest.raises(bert_ft.InputError, match=itself):
            bert_ft.finetune("narrow.toml", tiny_checkpoint, intermediate=name)
    for name, of_narrow, message in (
        ("classification", {}, "'classification' is a family, not a task"),
        ("chain.toml", {}, "'chain.toml' has a task that comes first itself: broad.toml"),
        (
            "adapted.toml",
            {"lora": {"save": "adapter"}},
            "the run on adapted, which comes first, is an adapter",
        ),
        ("broad.toml", {"output": "runs/broad-tiny-bert-seed42"}, "this is the folder of the run on broad"),
        ("long.toml", {}, "the run on long that comes first: max_length = 999, but the checkpoint has 128"),
    ):
        Path("chain.toml").write_text('extends = "broad.toml"\n[run]\nintermediate = "broad.toml"\n')
        Path("adapted.toml").write_text('extends = "broad.toml"\n[recipe.lora]\nsave = "adapter"\n')
        Path("long.toml").write_text('extends = "broad.toml"\n[recipe]\nmax_length = 999\n')
        with pytest.raises(bert_ft.InputError, match=message):
            bert_ft.finetune("narrow.toml", tiny_checkpoint, intermediate=name, quiet=True, **of_narrow)
    with pytest.raises(bert_ft.InputError, match="unknown task 'mnlo'"):
        bert_ft.finetune("narrow.toml", tiny_checkpoint, intermediate="mnlo")
    with pytest.raises(bert_ft.InputError, match="a model object can't be trained on another task first"):
        bert_ft.finetune("narrow.toml", tiny_checkpoint, model=object(), intermediate="broad.toml")


def test_it_is_a_condition_of_a_published_number(tmp_path: Path) -> None:
    """Of two published numbers the plan takes that of the same condition, and judges it once the runs are there."""
    number = {
        "checkpoint": "org/x", "split": "validation", "metric": "accuracy", "statistic": "mean", "runs": 5,
        "confidence": "C", "recipe": {"learning_rate": 2e-5, "batch_size": 32, "epochs": 3.0, "keep": "last"},
    }  # fmt: skip
    numbers = [
        number | {"value": 70.0, "source": "plain"},
        number | {"value": 78.0, "source": "after MNLI", "intermediate": "mnli"},
    ]
    file = tmp_path / "rte-x.toml"
    file.write_text('extends = "rte"\n' + tomli_w.dumps({"reference": numbers}))
    made = plan(file, "org/x", seeds=3, output=tmp_path / "out", intermediate="mnli")
    assert made.entries[0].reference.source == "after MNLI"  # type: ignore[union-attr]
    assert plan(file, "org/x", output=tmp_path / "plain").entries[0].reference.source == "plain"  # type: ignore[union-attr]
    assert all("intermediate=" in run.command for run in made.runs)
    first = tmp_path / "out/mnli-x-seed42"
    assert {run.task.run.checkpoint for run in made.runs} == {str(first)}
    base = bert_ft.load_task("mnli").override({"run.checkpoint": "org/x", "run.seed": 42})
    finished(RunDir(first), base, {"matched": {"accuracy": 0.87}})
    for run in made.runs:
        finished(run.folder, run.task, {"validation": {"accuracy": 0.779 + run.task.run.seed / 2000}})
    verdicts = {v["published"]["source"]: v for v in Outcome(made, 1.0).verdicts}
    assert verdicts["after MNLI"]["interval"], verdicts["after MNLI"]["why"]
    assert verdicts["plain"]["why"] == ["intermediate training: none published, mnli here"]


def test_first_is_told_where_it_differs() -> None:
    task = bert_ft.load_task("rte")
    reference = Reference(checkpoint="x", split="validation", metric="accuracy", value=78.0, statistic="mean", runs=5,
                          confidence="C", source="s", intermediate="mnli")  # fmt: skip
    bound = task.override({"run.checkpoint": "org/x"})
    lines = conditions(reference, task, bound, {}, "snli")
    assert "intermediate training: mnli published, snli here" in lines
    assert not any("intermediate" in line for line in conditions(reference, task, bound, {}, "mnli"))


def finished(folder: Any, task: Any, metrics: dict[str, Any]) -> None:
    """A run folder as training leaves it."""
    folder.path.mkdir(parents=True)
    folder.start(task, {"data_fingerprint": task.name, "versions": {"python": "3"}, "device": "cpu"})
    write_json(folder.results_json, {"metrics": metrics, "timing": {"train_seconds": 60.0}})
