"""A greedy soup of a reproduction's seeds, beside one made here by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bert_ft
from bert_ft.metrics import label_calibration
from bert_ft.tools.reproduce.plan import plan
from bert_ft.tools.reproduce.results import Outcome
from bert_ft.tools.reproduce.soup import greedy

ROWS = [
    {
        "text": f"the film {i} is {'warm' if i % 3 else 'dull'} {'and brave' * (i % 2)}",
        "label": "good" if i % 3 else "bad",
    }
    for i in range(40)
]


def test_the_seeds_are_averaged_as_far_as_validation_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, cli: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", ROWS[:24]), ("dev", ROWS[24:]), ("test", ROWS[::3])):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("films.toml").write_text(
        'family = "classification"\n[data]\ntrain = "train.jsonl"\nevaluate = "dev.jsonl"\ntest = "test.jsonl"\n[recipe]\n'
        "max_steps = 4\nbatch_size = 8\nmax_length = 24\nlearning_rate = 3e-3\n"
    )
    made = plan("films.toml", str(tiny_checkpoint), seeds=3, output="out", save_model=True)
    for run in made.runs:
        assert cli(*run.argv, "--quiet").code == 0
    done = cli(
        "reproduce",
        "films.toml",
        "--checkpoint",
        tiny_checkpoint,
        "--seeds",
        "3",
        "--output",
        "out",
        "--soup",
        "--json",
    )
    assert done.code == 0, done.err
    soup = json.loads(done.out)["soups"]["films"]

    runs = {run.task.run.seed: bert_ft.Run(run.folder.path) for run in made.runs}
    weights = {seed: load_file(run.path / "model/model.safetensors") for seed, run in runs.items()}
    model = runs[1].model

    def mean(seeds: list[int]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([weights[seed][name] for seed in seeds]).mean(0) for name in weights[1]}

    def accuracy(seeds: list[int], rows: list[dict[str, str]]) -> float:
        model.network.load_state_dict(mean(seeds), strict=False)
        answers = [answer["prediction"] for answer in model.predict([row["text"] for row in rows])]
        return 100 * sum(a == row["label"] for a, row in zip(answers, rows, strict=True)) / len(rows)

    dev, test = ROWS[24:], ROWS[::3]
    order = sorted(runs, key=lambda seed: (-runs[seed].metrics["validation"]["accuracy"], seed))
    chosen = order[:1]
    for seed in order[1:]:
        if accuracy([*chosen, seed], dev) >= accuracy(chosen, dev):
            chosen.append(seed)
    assert soup["seeds"] == chosen and soup["of"] == [1, 2, 3]
    assert soup["metrics"]["validation"]["accuracy"] == pytest.approx(accuracy(chosen, dev))
    assert soup["metrics"]["test"]["accuracy"] == pytest.approx(accuracy(chosen, test))
    saved = load_file(tmp_path / "out/soup-films/model/model.safetensors")
    for name, tensor in mean(chosen).items():
        torch.testing.assert_close(saved[name], tensor, rtol=0, atol=1e-6)
    loaded = bert_ft.load(tmp_path / "out/soup-films/model")
    assert [a["prediction"] for a in loaded.predict([row["text"] for row in test])]
    assert (
        f"films, greedy soup of seeds {', '.join(map(str, chosen))} of 3"
        in (tmp_path / "out/table.md").read_text()
    )
    # not made again; and without models it is refused
    stamp = (tmp_path / "out/soup-films/soup.json").stat().st_mtime_ns
    outcome = Outcome(plan("films.toml", str(tiny_checkpoint), seeds=3, output="out"), 1.0)
    outcome.make_soups()
    assert (
        outcome.soups["films"] == soup and (tmp_path / "out/soup-films/soup.json").stat().st_mtime_ns == stamp
    )
    # of other weights it is made again
    file = made.runs[0].folder.model / "model.safetensors"
    save_file(
        {name: tensor + 0.5 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    outcome.make_soups()
    assert (tmp_path / "out/soup-films/soup.json").stat().st_mtime_ns > stamp
    (made.runs[0].folder.model).rename(tmp_path / "elsewhere")
    with pytest.raises(
        bert_ft.InputError, match="a soup is an average of models, and these runs have kept none"
    ):
        outcome.make_soups()
    with pytest.raises(bert_ft.InputError, match="a soup is of two seeds or more"):
        bert_ft.reproduce("films.toml", str(tiny_checkpoint), seeds=1, output="one", soup=True)


@pytest.mark.slow
def test_a_soup_is_calibrated_anew(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """By its own probabilities, and not by what its best seed kept."""
    rows = [{**row, "label": "bad" if i % 7 == 0 else row["label"]} for i, row in enumerate(ROWS * 7)]
    for name, part in (("train", ROWS), ("dev", rows)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    (tmp_path / "films.toml").write_text(
        f'family = "classification"\n[data]\ntrain = "{tmp_path}/train.jsonl"\nevaluate = "{tmp_path}/dev.jsonl"\n[recipe]\n'
        'max_steps = 60\nbatch_size = 8\nmax_length = 24\nlearning_rate = 3e-3\nprecision = "fp32"\n[run]\ncalibration = "platt"\n'
    )
    made = plan(
        tmp_path / "films.toml", str(tiny_checkpoint), seeds=2, output=tmp_path / "out", save_model=True
    )
    runs = {}
    for run in made.runs:
        bert_ft.finetune(run.task, output=run.folder.path, quiet=True, check=False, baselines=False)
        runs[run.task.run.seed] = run
    record = greedy(runs, tmp_path / "soup")
    model = bert_ft.load(tmp_path / "soup" / "model")
    kept = model.adapter.tuned.pop("platt")
    others = [run.folder.results()["tuned"]["platt"] for run in runs.values()]
    answers = model.predict([row["text"] for row in rows])
    p = np.array([list(answer["probabilities"].values()) for answer in answers])
    truth = np.array([[row["label"] == name for name in answers[0]["probabilities"]] for row in rows])
    found = label_calibration.fits("platt", p, truth.astype(float), False)
    assert list(kept.values()) == [pytest.approx(each, rel=1e-3) for each in found]
    assert len(record["seeds"]) == 1 or all(kept != other for other in others)
