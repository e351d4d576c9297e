"""`--int8` without a graph: answers near those of float32, each of its row alone, and what it costs is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bert_ft
from bert_ft.kernels.int8 import Int8Linear
from bert_ft.modeling import loading
from bert_ft.rundir.folder import RunDir
from bert_ft.tools import int8

WORDS = ("warm", "dull", "funny")
TEXTS = [f"a {WORDS[i % 3]} film {'very ' * (7 * i % 23)}{i}" for i in range(36)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": text, "label": text.split()[1]} for text in TEXTS],
    "ner": [
        {"tokens": text.split(), "tags": ["B-X" if word in WORDS else "O" for word in text.split()]}
        for text in TEXTS
    ],
    "qa": [
        {
            "id": str(i),
            "question": "which film is it ?",
            "context": text,
            "answers": {"text": [text.split()[1]], "answer_start": [2]},
        }
        for i, text in enumerate(TEXTS)
    ],
}
QUICK = {"epochs": 2, "batch_size": 8, "max_length": 24, "learning_rate": 2e-3, "quiet": True}


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`trained("ner")`: the folder of a small run, made once."""
    folder = tmp_path_factory.mktemp("int8")

    def make(family: str) -> Path:
        if not (folder / family).is_dir():
            rows = ROWS[family]
            bert_ft.finetune(family, str(tiny_checkpoint), train=rows[:24], validation=rows[24:], output=folder / family,
                             **QUICK)  # fmt: skip
        return folder / family

    return make


def _inputs(family: str) -> list[Any]:
    if family == "qa":
        return [(row["question"], row["context"]) for row in ROWS["qa"]]
    return [row["tokens" if family == "ner" else "text"] for row in ROWS[family]]


def _logits(model: Any, inputs: list[Any]) -> np.ndarray:
    found: np.ndarray = model.logits(model.encode(model.adapter.rows(inputs)))
    return found[(found > -1e4).all(-1)]  # below: where no answer may be


@pytest.mark.parametrize("family", ROWS)
def test_an_answer_is_of_its_row(trained: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    path = trained(family)
    plain, run = bert_ft.load(path), bert_ft.load(path, dtype="int8")
    model, inputs = run.model, _inputs(family)
    kinds = [type(m) for m in model.network.base_model.modules() if isinstance(m, torch.nn.Linear)]
    assert set(kinds) == {Int8Linear} and model.unpadding.active
    assert any(note.startswith(f"int8: linear layers in 8 bits: {len(kinds)}, ") for note in model.notes)
    together, exact = _logits(model, inputs), _logits(plain.model, inputs)
    alone = np.concatenate([_logits(model, [each]) for each in inputs])
    padded = bert_ft.load(
        path, dtype="int8", settings={"batching.unpad": False, "batching.first_token": False}
    )
    assert not padded.model.unpadding
    size = abs(exact).max()
    assert 1e-5 < abs(together - exact).max() / size < 0.2
    assert abs(together - alone).max() / size < 5e-3
    assert abs(together - _logits(padded.model, inputs)).max() / size < 5e-3
    answers = run.predict(inputs)
    assert [answer["prediction"] for answer in answers] == [
        run.predict([each])[0]["prediction"] for each in inputs
    ]
    rows = ROWS[family][24:]
    near, whole = (each.evaluate(rows, quiet=True)["validation"] for each in (run, plain))
    assert near.keys() == whole.keys() and near == pytest.approx(whole, abs=30)
    model_folder = bert_ft.load(path / "model", dtype="int8")
    assert _logits(model_folder, inputs) == pytest.approx(together, abs=float(5e-3 * size))


def test_what_it_costs_is_told_once(
    trained: Callable[[str], Path], cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(trained("classification"), tmp_path / "run")
    (tmp_path / "rows.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    first = cli("predict", path, "rows.txt", "-o", "answers.jsonl", "--int8")
    assert first.code == 0 and "linear layers in 8 bits" in first.err
    (line,) = [line for line in first.err.splitlines() if line.startswith("int8, 12 rows of validation: ")]
    known = json.loads((path / "int8.json").read_text())
    plain, small = (bert_ft.load(path, dtype=dtype) for dtype in ("float32", "int8"))
    metric = plain.task.best_metric[1]
    values = [
        each.evaluate(ROWS["classification"][24:], quiet=True)["validation"][metric]
        for each in (small, plain)
    ]
    assert f"{metric} {values[0]:.4f} where float32 has {values[1]:.4f}" in line
    assert known["int8"]["metrics"][metric] == pytest.approx(values[0])
    texts = TEXTS[24:]
    pairs = zip(plain.predict(texts), small.predict(texts), strict=True)
    others = sum(a["prediction"] != b["prediction"] for a, b in pairs)
    assert f", {others} answers are others" in line and known["rows"] == 12
    written = [json.loads(each) for each in (tmp_path / "answers.jsonl").open()]
    assert [each["prediction"] for each in written] == [each["prediction"] for each in small.predict(TEXTS)]
    # the second call reads it, as long as the weights are these
    monkeypatch.setattr(int8, "measured", lambda run: pytest.fail("measured again"))
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in ROWS["classification"][24:])
    )
    again = cli("evaluate", path, "--data", "rows.jsonl", "--int8", "--json")
    assert again.code == 0 and line in again.err
    assert json.loads(again.out)["validation"][metric] == pytest.approx(values[0])
    monkeypatch.undo()
    (path / "int8.json").write_text("[]")  # damaged: measured anew
    assert int8.line(small) == line and json.loads((path / "int8.json").read_text())["rows"] == 12
    (path / "int8.json").write_text(json.dumps(known | {"weights": "of others"}))
    assert int8.line(small) == line
    monkeypatch.setattr(
        int8.files, "write_json", lambda *_: (_ for _ in ()).throw(PermissionError("read-only"))
    )
    (path / "int8.json").unlink()
    assert int8.line(small) == line
    assert "is not known here" in int8.line(bert_ft.load(path / "model", dtype="int8"))
    shutil.rmtree(path / "predictions")
    assert "is not known here" in int8.line(bert_ft.load(path, dtype="int8"))


def test_the_file_goes_with_the_run(trained: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(trained("classification"), tmp_path / "run")
    int8.line(bert_ft.load(path, dtype="int8"))
    assert (path / "int8.json").is_file() and RunDir(path).state == "finished"
    RunDir(path).remove()
    assert not path.exists()


def test_only_some_rows_of_a_large_set(
    trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "ROWS", 5)
    known = int8.measured(bert_ft.load(trained("ner"), dtype="int8"))
    assert known is not None and (known["rows"], known["of"]) == (5, 12)
    assert ", 5 of 12 rows of validation: " in int8._told(known)


def test_an_unfinished_run(trained: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(trained("classification"), tmp_path / "run")
    (path / "results.json").unlink()
    (path / "checkpoints").mkdir(exist_ok=True)
    shutil.copy(path / "model" / "model.safetensors", path / "checkpoints" / "best-6.safetensors")
    run = bert_ft.load(path, dtype="int8")
    assert any(isinstance(module, Int8Linear) for module in run.model.network.modules())
    inputs = _inputs("classification")
    finished = bert_ft.load(trained("classification"), dtype="int8").model
    assert _logits(run.model, inputs) == pytest.approx(_logits(finished, inputs), abs=1e-2)
    assert "is not known here" in int8.line(run)


def test_what_is_refused(trained: Callable[[str], Path], cli: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = trained("classification")
    (tmp_path / "rows.txt").write_text("fine\n")

    def refused(*arguments: Any) -> str:
        left = cli("predict", path, "rows.txt", *arguments)
        assert left.code == 2 and left.err.count("bert-ft: ") == 1, left.err
        return str(left.err)

    assert "a model computes in one of them" in refused("--int8", "--dtype", "checkpoint")
    assert "none of auto, float32, bfloat16, int8 and checkpoint" in refused("--dtype", "int4")
    assert "a model with smaller numbers" in refused("--int8", "--label-sets", "0.5")
    with pytest.raises(bert_ft.InputError, match="its own precision"):
        bert_ft.load(path, dtype="int8", onnx="int8")
    real = loading.Model.settle

    def on_a_gpu(model: Any, *arguments: Any, **options: Any) -> Any:
        found = real(model, *arguments, **options)
        model.network.to("meta")
        return found

    monkeypatch.setattr(loading.Model, "settle", on_a_gpu)
    assert "no int8: it is for CPUs" in refused("--int8")
