"""A run from end to end: what its folder holds, the ways out, and what other libraries make of its model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bert_ft

WORDS = {"good": ["great", "lovely", "fine"], "bad": ["awful", "dull", "poor"]}
ROWS = [
    {"text": f"a {word} film {i}", "label": label}
    for i in range(12)
    for label in WORDS
    for word in WORDS[label]
]
QUICK = {
    "epochs": 3,
    "batch_size": 8,
    "max_length": 32,
    "learning_rate": 2e-3,
    "quiet": True,
    "data.validation": "25%",
}


def _run(checkpoint: Path, output: Path, **more: Any) -> bert_ft.Run:
    return bert_ft.finetune("classification", str(checkpoint), train=ROWS, output=output, **(QUICK | more))


def test_the_model_in_a_pipeline_gives_our_predictions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    run = _run(tiny_checkpoint, tmp_path / "run")
    texts = [row["text"] for row in ROWS] + ["a very " + "long " * 60 + "awful film"]
    theirs = pipeline("text-classification", str(run.path / "model"), top_k=None)(texts, truncation=True)
    ours = bert_ft.load(run.path).predict(texts)
    for mine, them in zip(ours, theirs, strict=True):
        scores = {entry["label"]: entry["score"] for entry in them}
        assert mine["prediction"] == max(scores, key=scores.__getitem__)
        assert mine["probabilities"] == pytest.approx(scores, abs=1e-6)
    bare = bert_ft.load(run.path / "model").predict(texts)
    assert [line["prediction"] for line in bare] == [line["prediction"] for line in ours]


def test_results_follow_from_predictions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run")
    lines = run.predictions("validation")
    assert [line["row"] for line in lines] == list(range(18))
    accuracy = np.mean([line["prediction"] == line["label"] for line in lines])
    assert run.metrics == {"validation": {"accuracy": pytest.approx(accuracy)}}
    assert run.evaluate(ROWS).keys() == {"validation"}
    with pytest.raises(bert_ft.InputError, match="Python objects"):  # which a run folder does not keep
        bert_ft.load(run.path).evaluate()
    assert set(json.loads((run.path / "results.json").read_text())) == {
        "task", "family", "checkpoint", "seed", "recipe", "metrics", "counts", "timing", "best_step", "steps", "micro_batches",
        "tuned", "notes", "version", "chosen", "parameters", "calibration",
    }  # fmt: skip
    assert "good" in repr(run.task.data.labels) and "accuracy" in run._repr_html_()


def test_best_weights_are_the_ones_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run", eval_every=2, epochs=6)
    evaluations = [e["evaluation"]["validation"]["accuracy"] for e in run.log if "evaluation" in e]
    assert len(evaluations) > 5 and len(set(evaluations)) > 1
    assert run.metrics["validation"]["accuracy"] == max(evaluations)
    assert run.evaluate(_validation_rows(run)) == run.metrics


def _validation_rows(run: bert_ft.Run) -> list[dict[str, str]]:
    from bert_ft.data import loading
    from bert_ft.families.classification.adapter import Classification

    table = loading.load(run.task, Classification, {"train": ROWS}).evaluation["validation"].table
    return table.to_pylist()


def test_patience_stops_early(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run", eval_every=1, patience=2, learning_rate=1e-9)
    assert run.results["steps"] == 3, "the first evaluation is the best, then two without a better one"
    assert run.results["best_step"] == 1


def test_the_ways_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """adapter=, loss=, metrics= and callbacks= take a user's own objects."""
    seen: list[int] = []

    class Watch(bert_ft.Callback):
        def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
            seen.append(step)

        def on_evaluate(self, step: int, metrics: Any, best: bool) -> bool:
            return step >= 7

    class Upper(bert_ft.Classification):
        def encode(self, rows: Any, tokenizer: Any, max_length: int) -> bert_ft.Features:
            seen.append(-len(rows))
            return super().encode(rows, tokenizer, max_length)

    def focal(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        p = logits.softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
        return -((1 - p) ** 2) * p.log()

    run = _run(
        tiny_checkpoint,
        tmp_path / "run",
        adapter=Upper,
        loss=focal,
        callbacks=[Watch()],
        metrics={"share": lambda p, y: (p == 1).mean()},
    )
    assert seen[:2] == [-54, -18] and seen[2:] == list(range(1, 8))
    assert 0 <= run.metrics["validation"]["share"] <= 1
    assert run.task.run.custom == ["adapter", "loss", "metrics"]
    assert run.log[0]["loss"] < 0.3, "a focal loss starts at a quarter of ln 2"


@pytest.mark.slow
def test_a_mean_loss_and_a_loss_a_row_train_alike(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def per_row(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    def mean(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, batch["labels"])

    losses = []
    for name, loss in (("none", None), ("rows", per_row), ("mean", mean)):
        run = _run(
            tiny_checkpoint,
            tmp_path / name,
            loss=loss,
            log_every=1,
            gradient_accumulation_steps=3,
            batch_size=7,
        )
        losses.append([entry["loss"] for entry in run.log if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and losses[0] == pytest.approx(losses[2], rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_and_smoothing_equal_torchs(smoothing: float) -> None:
    task = bert_ft.load_task("classification").override(
        {
            "data.labels": ["a", "b", "c"],
            "class_weights": {"a": 0.5, "b": 1.0, "c": 3.0},
            "label_smoothing": smoothing,
        }
    )
    from bert_ft.data import sources
    from bert_ft.data.rows import Rows

    adapter = bert_ft.Classification(task, ["a", "b", "c"])
    table = sources.of_object([{"text": "x", "label": y} for y in "aabcbca"], ["text", "label"], (), "").table
    rows = Rows(table, "")
    adapter.prepare(rows)
    labels = torch.tensor([0, 0, 1, 2, 1, 2, 0])
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    weights = np.array([0.5, 1.0, 3.0])[labels.numpy()]
    ours = adapter.loss(logits, {"labels": labels}).sum() / weights.sum()
    theirs = torch.nn.functional.cross_entropy(
        logits, labels, torch.tensor([0.5, 1.0, 3.0]), label_smoothing=smoothing
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_regression_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"a": f"{i} dogs", "b": "dogs", "score": float(i % 5)} for i in range(40)]
    settings = QUICK | {
        "data.problem_type": "regression",
        "metric.compute": ["mean_squared_error"],
        "eval_every": 2,
    }
    settings |= {"data.columns": {"text": "a", "text_pair": "b", "label": "score"}}
    run = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "r", **settings
    )
    errors = [e["evaluation"]["validation"]["mean_squared_error"] for e in run.log if "evaluation" in e]
    assert run.metrics["validation"]["mean_squared_error"] == min(errors), "lower is better"
    answer = bert_ft.load(run.path).predict([("3 dogs", "dogs")])[0]
    assert set(answer) == {"prediction"} and isinstance(answer["prediction"], float)


def test_a_trained_head_is_bound_by_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The labels in another order, or other labels: names decide, never positions."""
    run = _run(tiny_checkpoint, tmp_path / "run", epochs=6)
    reversed_ = bert_ft.load_task("classification").override(
        {"data.labels": ["good", "bad"], "max_length": 32}
    )
    from bert_ft.modeling.loading import load_folder

    texts = [row["text"] for row in ROWS]
    flipped = load_folder(str(run.path / "model"), reversed_)
    assert [a["prediction"] for a in flipped.predict(texts)] == [a["prediction"] for a in run.predict(texts)]
    other = bert_ft.load_task("classification").override({"data.labels": ["dog", "cat"], "max_length": 32})
    with pytest.raises(bert_ft.InputError, match="no trained head"):
        load_folder(str(run.path / "model"), other)


def test_trackers_get_losses_and_metrics(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from accelerate.tracking import GeneralTracker

    class Notes(GeneralTracker):
        name, requires_logging_directory, main_process_only = "notes", False, True

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[dict[str, Any]] = []

        @property
        def tracker(self) -> Any:
            return self.lines

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.lines.append(values)

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            self.lines.append(values | {"at": step})

    notes = Notes()
    run = _run(
        tiny_checkpoint,
        tmp_path / "run",
        log_with=[notes],
        metrics=[bert_ft.metrics.load("f1", average="macro")],
    )
    assert notes.lines[0]["learning_rate"] == 2e-3, "the recipe"
    assert [line["loss"] for line in notes.lines if "loss" in line] == [
        e["loss"] for e in run.log if "loss" in e
    ]
    assert notes.lines[-1]["validation/accuracy"] == run.log[-1]["evaluation"]["validation"]["accuracy"]
    assert 0 <= run.metrics["validation"]["f1_macro"] <= 1


def test_a_checkpoint_in_the_hubs_cache(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The hub's own layout on disk, no network: snapshots by commit, a ref that names it. Read by a process of its own."""
    import os
    import shutil
    import subprocess
    import sys

    repository, commit = (
        tmp_path / "hub" / "models--someone--tiny-bert",
        "0123456789abcdef0123456789abcdef01234567",
    )
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = [sys.executable, "-m", "bert_ft", "train", "classification", "--train", str(tmp_path / "rows.jsonl"),
               "--validation", "25%", "--checkpoint", "someone/tiny-bert", "--max-steps", "2", "--max-length", "32",
               "--output", str(tmp_path / "run")]  # fmt: skip
    offline = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bert_ft.load(tmp_path / "run").environment["checkpoint_commit"] == commit


LABELS = ("bad", "fine", "good")
THREE = [{"text": f"a {label} film {i}", "label": label} for i in range(8) for label in LABELS]


def _own(checkpoint: Path, output: Path, model: Any, **more: Any) -> bert_ft.Run:
    return bert_ft.finetune("classification", str(checkpoint), train=THREE, output=output, model=model,
                            **(QUICK | {"epochs": 1} | more))  # fmt: skip


@pytest.mark.parametrize("names", [None, ["good", "fine", "bad"], ["x", "y", "z"]], ids=str)
def test_a_model_of_ones_own_is_bound_by_name(
    tiny_checkpoint: Path, tmp_path: Path, names: list[str] | None
) -> None:
    from transformers import AutoModelForSequenceClassification as Auto
    from transformers import pipeline

    named = (
        {}
        if names is None
        else {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    )
    run = _own(
        tiny_checkpoint, tmp_path / "run", Auto.from_pretrained(tiny_checkpoint, num_labels=3, **named)
    )
    kept = json.loads((run.path / "model" / "config.json").read_text())["id2label"]
    assert list(kept.values()) == (names if names and set(names) == set(LABELS) else list(LABELS))
    texts = [row["text"] for row in THREE]
    ours = [answer["prediction"] for answer in run.predict(texts)]
    assert [answer["prediction"] for answer in bert_ft.load(run.path / "model").predict(texts)] == ours
    assert [
        answer["label"] for answer in pipeline("text-classification", str(run.path / "model"))(texts)
    ] == ours
    with pytest.raises(bert_ft.InputError, match="head has 5 labels, but the task has 3"):
        _own(tiny_checkpoint, tmp_path / "other", Auto.from_pretrained(tiny_checkpoint, num_labels=5))


def test_the_saved_model_of_lora_loads(tiny_checkpoint: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification as Auto

    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(Auto.from_pretrained(tiny_checkpoint, num_labels=3), lora)
    run = _own(tiny_checkpoint, tmp_path / "run", model)
    ours, theirs = (
        loaded.predict("a fine film")[0]["probabilities"]
        for loaded in (run, bert_ft.load(run.path / "model"))
    )
    assert theirs == pytest.approx(ours, abs=1e-6)


def test_metrics_of_ones_own_bear_their_names(tiny_checkpoint: Path, tmp_path: Path) -> None:
    of_bad = bert_ft.metrics.load("f1", positive=0)
    settings: dict[str, Any] = {"epochs": 1, "metric.compute": ["accuracy", "f1"], "metric.best": "of_bad"}
    run = _run(
        tiny_checkpoint, tmp_path / "run", metrics={"of_bad": of_bad, "none": lambda p, y: None}, **settings
    )
    from sklearn.metrics import f1_score

    lines = run.predictions()
    gold, found = ([line[key] for line in lines] for key in ("label", "prediction"))
    for name, label in (("f1", "good"), ("of_bad", "bad")):
        expected = f1_score(gold, found, pos_label=label, zero_division=0)
        assert run.metrics["validation"][name] == pytest.approx(expected)
    assert run.metrics["validation"]["none"] is None and "none undefined" in repr(run)
    with pytest.raises(bert_ft.InputError, match="two metrics are called 'accuracy'"):
        _run(tiny_checkpoint, tmp_path / "twice", metrics={"accuracy": lambda p, y: 0.5}, epochs=1)


@pytest.mark.parametrize(("more", "message"), [
    ({"overwrite": True, "resume": True}, "--resume continues a run that --overwrite would replace"),
    ({"loss": lambda logits, batch: logits.sum(), "class_weights": "balanced"}, "recipe.class_weights: a loss function of your own"),
    ({"log_with": "wandb"}, "log_with: the tracker 'wandb' is not installed"),
    ({"log_with": "nonsense"}, "log_with: .*nonsense"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, more: Any, message: str
) -> None:
    with pytest.raises(bert_ft.InputError, match=message):
        _run(tiny_checkpoint, tmp_path / "run", **more)


def test_a_checkpoint_is_not_trained_in_its_own_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run", epochs=1)
    for checkpoint in (run.path, run.path / "model"):
        with pytest.raises(bert_ft.InputError, match="is in the folder that this run would be written to"):
            _run(checkpoint, run.path, overwrite=True)
    assert (run.path / "model").is_dir()


def test_other_rows_take_the_place_of_named_sets(tiny_checkpoint: Path, tmp_path: Path) -> None:
    sets = {"easy": ROWS[:12], "hard": ROWS[12:24]}
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, validation=sets, output=tmp_path / "run",
                           **(QUICK | {"epochs": 1, "data.validation": None, "metric.best": "hard/accuracy"}))  # fmt: skip
    assert run.evaluate(ROWS).keys() == {"validation"}


def test_inputs_of_every_shape(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import datasets

    run = _run(tiny_checkpoint, tmp_path / "run", epochs=1)
    one, two = run.predict(["a great film", "a dull film"])
    columns = {"text": ["a great film", "a dull film"]}
    for several in (
        columns,
        datasets.Dataset.from_dict(columns)[:2],
        [{"text": text} for text in columns["text"]],
    ):
        assert [answer["probabilities"] for answer in run.predict(several)] == [
            pytest.approx(answer["probabilities"], abs=1e-6) for answer in (one, two)
        ]
    for wrong in ([None, "a"], [float("nan")], ["a", ("b", "c")]):
        with pytest.raises(bert_ft.InputError, match="a text, or a"):
            run.predict(wrong)


def test_a_task_that_names_no_labels_takes_the_models(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run", epochs=1)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "mine.toml").write_text('[data]\nevaluate = "rows.jsonl"\n')
    found = bert_ft.evaluate(run, task=bert_ft.load_task(tmp_path / "mine.toml"))
    assert found == run.evaluate(ROWS)


def test_long_settings_keep_the_seed_in_the_folders_name() -> None:
    from bert_ft.rundir.naming import run_name

    base = bert_ft.load_task("sst2")
    settings = {
        f"recipe.{key}": value for key, value in base.recipe.model_dump().items() if value is not None
    }
    names = {run_name(base, base.override({"run.seed": seed}), settings) for seed in (1, 2)}
    assert len(names) == 2 and all(len(name) < 200 for name in names)


@pytest.mark.parametrize(("more", "times"), [
    ({"eval_every": "epoch"}, {"validation": 3, "test": 1}),  # the last evaluation is that of the weights that stay
    ({"recipe.keep": "last", "eval_every": 2}, {"validation": 11, "test": 1}),
    ({"patience": 1, "learning_rate": 1e-9, "eval_every": 1}, {"validation": 3, "test": 1}),  # the best was the first
])  # fmt: skip
def test_no_set_is_predicted_twice_by_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: Any, times: dict[str, int]
) -> None:
    from bert_ft.modeling.model import Model

    real, seen = Model.infer, list[int]()

    def infer(self: Model, rows: Any, blocks: Any = None) -> Any:
        seen.append(len(rows))
        return real(self, rows, blocks)

    monkeypatch.setattr(Model, "infer", infer)
    run = _run(tiny_checkpoint, tmp_path / "run", test=ROWS[:7], **more)
    monkeypatch.undo()
    if more["eval_every"] == "epoch" and run.results["best_step"] != run.results["steps"]:
        times = times | {"validation": times["validation"] + 1}
    assert {"validation": seen.count(18), "test": seen.count(7)} == times
    again = bert_ft.load(run.path / "model").predict([row["text"] for row in ROWS[:7]])
    assert [line["prediction"] for line in run.predictions("test")] == [
        answer["prediction"] for answer in again
    ]
    assert run.results["timing"]["eval_samples_per_second"] > 1


def test_class_weights_follow_the_order_of_the_head(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification as Auto

    order = {0: "good", 1: "fine", 2: "bad"}
    model = Auto.from_pretrained(
        tiny_checkpoint, num_labels=3, id2label=order, label2id={n: i for i, n in order.items()}
    )
    weights = {"bad": 1.0, "fine": 2.0, "good": 30.0}
    adapter = _own(tiny_checkpoint, tmp_path / "run", model, class_weights=weights).model.adapter
    assert dict(zip(adapter.names, adapter.class_weights.tolist(), strict=True)) == weights
    assert adapter.names == ["good", "fine", "bad"]


def test_a_callback_may_change_the_weights_that_are_scored_last(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification as Auto

    model = Auto.from_pretrained(tiny_checkpoint, num_labels=3)

    class Average(bert_ft.Callback):
        def on_end(self) -> None:
            with torch.no_grad():
                model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 100.0]))

    run = _own(tiny_checkpoint, tmp_path / "run", model, callbacks=[Average()], **{"recipe.keep": "last"})
    assert {line["prediction"] for line in run.predictions()} == {"good"}


def test_rows_with_more_columns_and_arrays(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = _run(tiny_checkpoint, tmp_path / "run", epochs=1)
    assert len(run.predict({"text": "ab", "tags": ["a", "b"]})) == 1
    assert len(run.predict({"text": ["a film", "b"], "tags": [["x"], []]})) == 2
    pairs = bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "pairs",
                             train=[{**row, "text_pair": "a film"} for row in ROWS],
                             **(QUICK | {"epochs": 1, "data.columns": {"text_pair": "text_pair"}}))  # fmt: skip
    assert len(pairs.predict(np.array([["a film", "a good film"], ["b", "c"]], object))) == 2
    import pandas as pd

    frame = pd.DataFrame([["a fine film", "good"], ["a poor film", "bad"]])
    assert run.evaluate(frame.rename(columns={0: "text", 1: "label"})).keys() == {"validation"}
    with pytest.raises(bert_ft.InputError, match="no column 'text'\n  known: 0, 1"):
        run.evaluate(frame)


def test_another_task_is_evaluated_in_the_type_that_was_asked_for(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bert_ft.modeling import loading

    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "a fine film,good\na dull film,bad\n" * 4)
    run = bert_ft.finetune("classification", tiny_checkpoint, train=str(file), validation=str(file), max_steps=1,
                           output=tmp_path / "run", max_length=12, quiet=True)  # fmt: skip
    real, stored = loading.load_folder, list[bool]()

    def load_folder(*arguments: Any) -> Any:
        stored.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(loading, "load_folder", load_folder)
    for dtype in ("checkpoint", "float32"):
        bert_ft.evaluate(bert_ft.Run(run.path, dtype=dtype), task=run.task)
    assert stored == [True, False]


def test_a_kept_run_holds_its_weights_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The optimizer's state is twice the weights: a notebook that keeps ten runs held thirty models."""
    import gc

    def held() -> int:
        gc.collect()
        # of the types that have memory of their own: an export leaves others behind
        tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
        return sum({each.data_ptr(): each.nbytes for each in tensors}.values())

    rows = [{"text": f"a {word} film", "label": word} for word in ("good", "bad")] * 8
    before = held()
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, max_steps=2,
                           output=tmp_path / "run", quiet=True)  # fmt: skip
    weights = sum(each.nbytes for each in run.model.network.parameters())
    assert held() - before < 1.3 * weights
    assert len(run.predict([row["text"] for row in rows])) == len(rows)


def test_answers_to_texts_that_are_not_read_whole_warn(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"text": f"a {word} film", "label": word} for word in ("good", "bad")] * 4
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, max_steps=1, max_length=64,
                           output=tmp_path / "run", quiet=True)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = run.predict(["a good film", "a bad film " * 3])
    with pytest.warns(UserWarning, match="only that much is read|are unknown") as told:
        answers = bert_ft.load(tmp_path / "run").predict(["a good film", "a bad film " * 30, "很好看的电影"])
    lines = [str(each.message) for each in told]
    assert lines[0] == "1 of 3 rows are longer than 64 tokens, and only that much is read"
    assert lines[1].startswith("texts: ") and "of the tokens are unknown" in lines[1] and len(lines) == 2
    assert len(answers) == 3 and answers[0] == expected[0]
