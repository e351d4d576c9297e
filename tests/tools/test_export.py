"""`bert-ft export`: a graph that gives the run's own answers, in one folder with all that answering needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, SIZES, batch, build, hooks, plain

import bert_ft
from bert_ft.kernels import last_layer
from bert_ft.modeling import exported
from bert_ft.tools.export import export as exporting
from bert_ft.tools.export import graph, parity

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="the extra onnx is not installed")

TEXTS = [
    f"a {word} film {'very ' * (7 * i % 23)}{i}" for i in range(12) for word in ("warm", "dull", "funny")
]
QUICK = {"epochs": 2, "batch_size": 8, "max_length": 24, "learning_rate": 2e-3, "quiet": True}
KINDS: dict[str, dict[str, Any]] = {
    "labels": {"task": "classification", "rows": [{"text": t, "label": t.split()[1]} for t in TEXTS]},
    "calibrated": {"task": "classification", "rows": [
        {"text": f"{t} {i}", "label": "dull" if i % 4 == 0 else t.split()[1]} for i, t in enumerate(TEXTS * 7)]},
    "platt": {"task": "classification", "calibration": "platt", "rows": [
        {"text": f"{t} {i}", "label": "dull" if i % 4 == 0 else t.split()[1]} for i, t in enumerate(TEXTS * 7)]},
    "isotonic": {"task": "classification", "calibration": "isotonic", "epochs": 40, "learning_rate": 1e-2, "rows": [
        {"text": f"{t} {i}", "label": "dull" if i % 4 == 0 else t.split()[1]} for i, t in enumerate(TEXTS * 30)]},
    "platt sets": {"task": "classification", "calibration": "platt", "data.problem_type": "multi_label_classification",
                   "epochs": 40, "learning_rate": 1e-2,
                   "rows": [{"text": f"{t} {i}", "label": [w for w in ("warm", "very") if w in t and i % 5]} for i, t in enumerate(TEXTS * 7)]},
    "windows": {"task": "classification", "rows": [{"text": t, "label": t.split()[1]} for t in TEXTS],
                "classification.windows": True, "classification.stride": 4},
    "pairs": {"task": "classification", "columns": {"text": "a", "text_pair": "b", "label": "label"},
              "rows": [{"a": t, "b": u, "label": int(t < u)} for t, u in zip(TEXTS, TEXTS[5:], strict=False)]},
    "numbers": {"task": "classification", "data.problem_type": "regression",
                "rows": [{"text": t, "label": len(t) / 10} for t in TEXTS]},
    "sets": {"task": "classification", "data.problem_type": "multi_label_classification",
             "rows": [{"text": t, "label": [w for w in ("warm", "very") if w in t]} for t in TEXTS]},
    "features": {"task": "classification", "method": "features", "min_steps": None,
                 "rows": [{"text": t, "label": t.split()[1]} for t in TEXTS]},
    "lora": {"task": "classification", "lora.rank": 2, "lora.save": "adapter",
             "rows": [{"text": t, "label": t.split()[1]} for t in TEXTS]},
    "entities": {"task": "ner",
                 "rows": [{"tokens": t.split(), "tags": ["B-X" if w == "film" else "O" for w in t.split()]} for t in TEXTS]},
    "answers": {"task": "qa",
                "rows": [{"id": str(i), "question": "which film is it ?", "context": t,
                          "answers": {"text": [t.split()[1]], "answer_start": [2]}} for i, t in enumerate(TEXTS)]},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`trained("labels")`: the folder of a small run of that kind, exported with int8; made once."""
    folder = tmp_path_factory.mktemp("exported")

    def make(kind: str) -> Path:
        if not (folder / kind).is_dir():
            more = dict(KINDS[kind])
            task, rows = more.pop("task"), more.pop("rows")
            run = bert_ft.finetune(task, str(tiny_checkpoint), train=rows[:24], validation=rows[24:], output=folder / kind,
                                   **(QUICK | more))  # fmt: skip
            exporting.export(run.path, precisions=["int8"])
        return folder / kind

    return make


def _inputs(kind: str) -> list[Any]:
    roles = {"pairs": ("a", "b"), "answers": ("question", "context")}.get(kind, ("text",))
    rows = KINDS[kind]["rows"] if kind != "entities" else [{"text": t} for t in TEXTS]
    several = [tuple(row[role] for role in roles) for row in rows]
    return several if len(roles) > 1 else [one[0] for one in several]


def _close(one: Any, other: Any) -> bool:
    """Whether two answers are the same but for the last digits of their numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == pytest.approx(other, abs=1e-4) if isinstance(one, float) else bool(one == other)


@pytest.mark.parametrize(
    "kind", [kind if kind == "labels" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_the_graph_answers_as_the_run(trained: Callable[[str], Path], kind: str) -> None:
    path = trained(kind)
    told = json.loads((path / "onnx" / "parity.json").read_text())
    fp32 = told["onnx"]["fp32"]
    assert fp32["largest_logit_difference"] < 1e-4 and not fp32["rows_with_another_answer"]
    assert fp32["metrics"] == pytest.approx(told["torch"]["metrics"], abs=1e-4)
    ours, theirs = bert_ft.load(path), bert_ft.load(path, onnx="fp32")
    assert ("temperature" in theirs.model.adapter.tuned) == (kind == "calibrated")
    for method in ("platt", "isotonic"):
        assert (method in theirs.model.adapter.tuned) == kind.startswith(method)
    assert isinstance(theirs.model.network, exported.Graph)
    inputs = _inputs(kind)
    assert _close(theirs.predict(inputs), ours.predict(inputs))
    assert _close(theirs.predict(inputs[:1]), ours.predict(inputs[:1]))
    rows = KINDS[kind]["rows"][24:]
    assert _close(theirs.evaluate(rows, quiet=True), ours.evaluate(rows, quiet=True))
    smaller = bert_ft.load(path, onnx="int8")
    assert len(smaller.predict(inputs)) == len(inputs)
    assert told["onnx"]["int8"]["largest_logit_difference"] > fp32["largest_logit_difference"]


def test_every_length(trained: Callable[[str], Path]) -> None:
    path = trained("labels")
    ours, theirs = bert_ft.load(path).model, bert_ft.load(path, onnx="fp32").model
    ids = np.random.default_rng(0).integers(5, len(ours.tokenizer), 24)
    for length in range(1, 25):
        features = bert_ft.Features(
            np.array([0, length]),
            {"input_ids": ids[:length].astype(np.int32), "token_type_ids": np.zeros(length, np.int32)},
            values={},
            weights=np.ones(1),
        )
        assert theirs.logits(features) == pytest.approx(ours.logits(features), abs=1e-4)


def _example(path: Path, *texts: str) -> str:
    command = [sys.executable, str(path / "onnx" / "example.py"), *texts]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=path).stdout


def test_the_example_runs(trained: Callable[[str], Path]) -> None:
    text = "a warm film 影片"
    (answer,) = bert_ft.load(trained("labels")).predict([text])
    assert json.loads(_example(trained("labels"), text)) == pytest.approx(answer["probabilities"], abs=1e-4)
    code = (trained("labels") / "onnx" / "example.py").read_text()
    assert "odds" not in code
    assert "bert_ft" not in code and "torch" not in code


@pytest.mark.slow
def test_the_examples_of_the_other_families_run(trained: Callable[[str], Path]) -> None:
    text = "a warm film 影片"
    (tagged,) = bert_ft.load(trained("entities")).predict([text.split()])
    assert _example(trained("entities"), text).count("B-X") == tagged["prediction"].count("B-X")
    question, context = _inputs("answers")[3]
    (found,) = bert_ft.load(trained("answers")).predict([(question, context)])
    assert _example(trained("answers"), question, context).strip() == found["prediction"]
    (number,) = bert_ft.load(trained("numbers")).predict([text])
    assert float(_example(trained("numbers"), text)) == pytest.approx(number["prediction"], abs=1e-4)
    for kind in ("platt", "isotonic", "platt sets"):
        (said,) = bert_ft.load(trained(kind)).predict([text])
        assert json.loads(_example(trained(kind), text)) == pytest.approx(said["probabilities"], abs=1e-4)
    (sets,) = bert_ft.load(trained("sets")).predict([text])
    assert json.loads(_example(trained("sets"), text)) == pytest.approx(sets["probabilities"], abs=1e-4)


def test_the_commands_and_the_report(trained: Callable[[str], Path], cli: Any, tmp_path: Path) -> None:
    path = trained("labels")
    (tmp_path / "rows.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    assert cli("predict", path, "rows.txt", "-o", "torch.jsonl").code == 0
    for flags in (["--onnx"], ["--onnx", "--int8"]):
        assert cli("predict", path, "rows.txt", "-o", "onnx.jsonl", *flags).code == 0
        ours, theirs = (
            [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("torch", "onnx")
        )
        assert [line["text"] for line in theirs] == [line["text"] for line in ours]
        assert len(flags) == 2 or _close(theirs, ours)
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in KINDS["labels"]["rows"][24:])
    )
    answers = [
        json.loads(cli("evaluate", path, "--data", "rows.jsonl", "--json", *more).out)
        for more in ([], ["--onnx"])
    ]
    assert answers[0]["validation"] == pytest.approx(answers[1]["validation"], abs=1e-6)
    assert cli("report", path).code == 0
    page = (path / "report.html").read_text()
    assert "exported, beside the model" in page and "ONNX, int8" in page
    left = cli("predict", path, "rows.txt", "--onnx", "--dtype", "int8")
    assert left.code == 2 and 'onnx="int8"' in left.err


def test_what_is_refused(trained: Callable[[str], Path], cli: Any, tmp_path: Path, monkeypatch: Any) -> None:
    run = shutil.copytree(trained("labels"), tmp_path / "run")
    (tmp_path / "rows.txt").write_text("fine\n")

    def refused(*arguments: Any) -> str:
        left = cli(*arguments)
        assert left.code == 2 and left.err.count("bert-ft: ") == 1, left.err
        return str(left.err)

    (run / "onnx" / "model_int8.onnx").unlink()
    assert "bert-ft export run --to onnx --int8" in refused("predict", "run", "rows.txt", "--onnx", "--int8")
    before = (run / "onnx" / "model.onnx").read_bytes()
    (run / "onnx" / "model.onnx").write_bytes(before[:1000])
    assert "can't read this file" in refused("predict", "run", "rows.txt", "--onnx")
    (run / "onnx" / "model.onnx").write_bytes(before)
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "other weights" in refused("predict", "run", "rows.txt", "--onnx")
    shutil.copy(trained("labels") / "model" / "model.safetensors", weights)
    (run / "onnx" / "answering.json").write_text("[]")
    assert "not what bert-ft writes" in refused("evaluate", "run", "--data", "rows.txt", "--onnx")
    shutil.rmtree(run / "onnx")
    assert "has not been exported" in refused("predict", "run", "rows.txt", "--onnx")
    assert "and this is none" in refused("predict", "run/model", "rows.txt", "--onnx")
    assert "--to gguf" in refused("export", "run", "--to", "gguf")
    assert "something else" in refused("export", "run", "-o", "run/model")
    monkeypatch.setattr(graph, "LARGEST", 1000)
    assert "one ONNX file holds 2 GB" in refused("export", "run")
    assert not (run / "onnx").exists() and not list(run.glob(".*.tmp"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'bert-ft[onnx]'" in refused("export", "run")


def test_a_graph_that_is_off_is_not_written(
    trained: Callable[[str], Path], cli: Any, monkeypatch: Any
) -> None:
    path = trained("labels")
    before = (path / "onnx" / "model.onnx").read_bytes()

    def wrong(network: Any, inputs: Any, file: Path) -> list[str]:
        file.write_bytes(before)
        return ["logits"]

    def off(graph: exported.Graph, **inputs: Any) -> Any:
        found = call(graph, **inputs)
        found.logits = found.logits + (inputs["attention_mask"].sum(1) == 7)[:, None] * 2e-4
        return found

    call = exported.Graph.__call__
    monkeypatch.setattr(graph, "write", wrong)
    monkeypatch.setattr(exported.Graph, "__call__", off)
    left = cli("export", path, "-o", "other")
    assert left.code == 2 and "nothing is exported" in left.err
    assert not Path("other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bert", "DistilBert", "DebertaV2", "ModernBert"])
def test_the_last_layer_is_computed_for_the_first_token_alone(name: str, tmp_path: Path) -> None:
    """The widths that onnxruntime saw in the feed-forwards of both layers, and the logits of the plain model."""
    network = build(name).eval() if name in CONFIGS else small_deberta()
    file = tmp_path / "model.onnx"
    inputs = batch([7, 5, 3])
    exporting._draw(network, inputs, file, lean=True)
    assert not hooks(network)
    assert sorted(_widths(file, batch([9, 2, 4]))) == [1, 9]
    for lengths in ([20, 1, 7], [1], [1, 1], [30, 30]):
        rows = batch(lengths)
        with torch.no_grad():
            expected = network(**rows).logits
        assert (exported.Graph(file)(**rows).logits - expected).abs().max() < 2e-5
    exporting._draw(network, inputs, file, lean=False)
    assert sorted(_widths(file, batch([9, 2, 4]))) == [9, 9]


def small_deberta() -> Any:
    import transformers

    more = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
    return plain("DebertaV2", "SequenceClassification", transformers.DebertaV2Config(**SIZES, **more)).eval()


def _widths(file: Path, inputs: dict[str, Any]) -> list[int]:
    """How many tokens of a row each activation of a feed-forward got."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    nodes = [
        event["args"] for event in json.loads(Path(session.end_profiling()).read_text()) if "args" in event
    ]
    shapes = [
        next(iter(shape.values()))
        for args in nodes
        if args.get("op_name") in ("Erf", "Gelu")
        for shape in args["output_type_shape"]
    ]
    return [shape[1] for shape in shapes if len(shape) == 3]


@pytest.mark.slow
def test_what_the_exporter_cannot_follow_is_written_whole(
    trained: Callable[[str], Path], cli: Any, monkeypatch: Any
) -> None:
    """The tracer trips over the hooks: the graph is the plain network's, and stays right."""
    path = trained("labels")

    def untraceable(rows: Any, x: Any) -> Any:
        return plain_spread(rows, x) if float(x.sum()) > -1e9 else None  # which no tracer can decide

    plain_spread = last_layer.Rows.spread
    monkeypatch.setattr(last_layer.Rows, "spread", untraceable)
    told = json.loads(cli("export", path, "-o", "whole", "--json").out)
    assert told["onnx"]["fp32"]["largest_logit_difference"] < 1e-4


@pytest.mark.slow
def test_an_architecture_that_cannot_be_exported_is_one_message(
    trained: Callable[[str], Path], cli: Any, monkeypatch: Any
) -> None:
    from transformers import BertForSequenceClassification

    path, plain = trained("labels"), BertForSequenceClassification.forward

    def branching(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        return found if float(found.logits.sum()) > -1e9 else None  # which no tracer can decide

    monkeypatch.setattr(BertForSequenceClassification, "forward", branching)
    left = cli("export", path, "-o", "other")
    assert left.code == 2 and "can't make a graph of BertForSequenceClassification" in left.err
    assert not Path("other").exists()


@pytest.mark.slow
def test_half_precision_answers_too(trained: Callable[[str], Path], cli: Any) -> None:
    path = trained("labels")
    told = json.loads(cli("export", path, "--fp16", "-o", "half", "--json").out)
    assert 0 < told["onnx"]["fp16"]["largest_logit_difference"] < 0.01
    assert told["onnx"]["fp16"]["bytes"] < told["onnx"]["fp32"]["bytes"]
    assert sorted(file.name for file in Path("half").glob("*.onnx")) == ["model.onnx", "model_fp16.onnx"]
    assert cli("export", path, "-o", "half").code == 0  # which replaces all of it
    assert sorted(file.name for file in Path("half").glob("*.onnx")) == ["model.onnx"]
    assert str(Path.cwd()).encode() not in Path("half/model.onnx").read_bytes()


def test_lengths_of_the_probe(trained: Callable[[str], Path]) -> None:
    run = bert_ft.load(trained("labels"))
    rows, name = exporting._rows(run)
    features = parity.of_lengths(run.model, rows)
    assert name == "validation" and features is not None
    assert [int(features.lengths.min()), int(features.lengths.max())] == [1, 24]
    assert features.tokens["input_ids"][0] == run.model.tokenizer.cls_token_id
