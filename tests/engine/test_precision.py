"""Which precision is computed in, steps and answers, and that it is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bert_ft
from bert_ft.cli import app
from bert_ft.engine.accelerator import accelerator
from bert_ft.errors import InputError
from bert_ft.kernels import cpu, processor, products
from bert_ft.rundir import environment

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(20) for word in ("good", "bad")]
OPTIONS: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 6,
    "max_length": 16,
    "log_every": 1,
    "eval_every": 3,
    "learning_rate": 1e-3,
    "baselines": False,
}


class Stop(Exception):
    pass


class StopAt(bert_ft.Callback):
    def on_step(self, step: int, entry: Any) -> None:
        if step == 5:
            raise Stop


@pytest.fixture
def good_at_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    monkeypatch.setattr(cpu, "bf16_gain", lambda: 2.2)


@pytest.fixture
def bad_at_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the instructions, and they are slow."""
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    monkeypatch.setattr(cpu, "bf16_gain", lambda: 0.3)


def train(checkpoint: Path, output: Path, **more: Any) -> bert_ft.Run:
    settings = OPTIONS | more
    return bert_ft.finetune(
        "classification", str(checkpoint), train=ROWS, validation=ROWS, output=output, **settings
    )


def recorded(run: bert_ft.Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "environment.json").read_text())
    return found


def linears() -> tuple[list[tuple[bool, torch.dtype]], Any]:
    """Fills a list with (training, type) of what each linear layer gives, until the handle is removed."""
    seen: list[tuple[bool, torch.dtype]] = []

    def note(module: torch.nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.append((module.training, output.dtype))

    return seen, register_module_forward_hook(note)


@pytest.mark.parametrize(
    ("precision", "steps", "answers", "written"),
    [
        ("bf16-steps", torch.bfloat16, torch.float32, "bf16-steps"),
        ("bf16", torch.bfloat16, torch.bfloat16, "bf16"),
        ("fp32", torch.float32, torch.float32, "fp32"),
        ("auto", torch.bfloat16, torch.float32, "bf16-steps"),
    ],
)
def test_steps_and_answers_are_computed_in_what_is_said(
    precision: str,
    steps: torch.dtype,
    answers: torch.dtype,
    written: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    good_at_bf16: None,
) -> None:
    given: list[torch.dtype] = []

    def loss(logits: torch.Tensor, values: Any) -> torch.Tensor:
        given.append(logits.dtype)
        return torch.nn.functional.cross_entropy(logits, values["labels"], reduction="none")

    seen, handle = linears()
    during: list[tuple[bool, torch.dtype]] = []

    class Watch(bert_ft.Callback):
        def on_start(self, *_: Any) -> None:
            seen.clear()  # the self-checks before it

        def on_end(self) -> None:
            during.extend(seen)

    try:
        run = train(tiny_checkpoint, tmp_path / "run", precision=precision, loss=loss, callbacks=[Watch()])
    finally:
        handle.remove()
    assert {dtype for training, dtype in during if training} == {steps}
    assert {dtype for training, dtype in during if not training} == {answers}
    assert set(given) == {torch.float32}, "a loss is computed in float32 whatever the steps are in"
    found = recorded(run)
    assert found["precision"] == written
    assert found.get("bf16_gain") == (None if written == "fp32" else 2.2)


def test_answers_of_bf16_steps_are_those_of_the_saved_model(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None
) -> None:
    """To the last digits of float32, by transformers alone."""
    run = train(tiny_checkpoint, tmp_path / "run", precision="bf16-steps", **{"run.calibration": "none"})
    folder = run.path / "model"
    tokenizer, model = (
        kind.from_pretrained(folder) for kind in (AutoTokenizer, AutoModelForSequenceClassification)
    )
    predictions = run.predictions()
    assert len(predictions) == len(ROWS)
    for row, kept in zip(ROWS, predictions, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits[0]
        expected = logits.softmax(-1).tolist()
        assert [kept["probabilities"][model.config.id2label[k]] for k in range(2)] == pytest.approx(
            expected, abs=1e-6
        )


def test_what_bf16_is_worth_on_this_cpu_is_said(bad_at_bf16: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "bf16 (products 0.3 times as fast as in fp32)" in environment.device_line(accelerator("bf16"))
    of_steps = environment.device_line(accelerator("bf16-steps", training=True))
    assert "bf16-steps (products 0.3 times as fast as in fp32)" in of_steps
    assert "fp32, " in environment.device_line(accelerator("bf16-steps")), "there are no steps"


@pytest.mark.parametrize(
    ("instructions", "gain", "training", "chosen"),
    [
        (True, 2.1, True, "bf16-steps"),
        (True, 2.1, False, "fp32"),
        (True, 1.2, True, "fp32"),
        (False, 2.1, True, "fp32"),
    ],
)
def test_what_auto_is_on_a_cpu(
    instructions: bool, gain: float, training: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "has_bf16", lambda: instructions)
    monkeypatch.setattr(cpu, "bf16_gain", lambda: gain)
    device = accelerator("auto", training=training)
    assert environment.precision(device) == chosen
    assert device.mixed_precision == "no", "answers are in float32 everywhere"


def test_what_was_begun_elsewhere_goes_on_in_its_precision(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was interrupted on a CPU with bfloat16 goes on without, and the other way round."""
    more: dict[str, Any] = {"save_every": 2}
    for name, begun, then in (("with", True, False), ("without", False, True)):
        whole = train(tiny_checkpoint, tmp_path / name, precision="bf16-steps" if begun else "fp32", **more)
        monkeypatch.setattr(processor, "has_bf16", lambda begun=begun: begun)
        with pytest.raises(Stop):
            train(tiny_checkpoint, tmp_path / f"{name}-parts", callbacks=[StopAt()], **more)
        monkeypatch.setattr(processor, "has_bf16", lambda then=then: then)
        parts = train(tiny_checkpoint, tmp_path / f"{name}-parts", **more)
        assert recorded(parts)["precision"] == recorded(whole)["precision"]
        weights = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, parts)]
        assert weights[0] == weights[1] and whole.predictions() == parts.predictions()
        again = train(tiny_checkpoint, tmp_path / f"{name}-parts", overwrite=True, **more)
        assert recorded(again)["precision"] == ("bf16-steps" if then else "fp32")


def test_what_was_killed_before_its_first_checkpoint_begins_anew(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "bf16_gain", lambda: 2.2)
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    with pytest.raises(Stop):
        train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt()])
    assert bert_ft.Run(tmp_path / "run").environment["precision"] == "fp32"
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    assert recorded(train(tiny_checkpoint, tmp_path / "run"))["precision"] == "bf16-steps"


def test_answers_of_an_unfinished_run_take_no_steps(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None
) -> None:
    with pytest.raises(Stop):
        train(tiny_checkpoint, tmp_path / "run", callbacks=[StopAt()], save_every=2)
    assert recorded(bert_ft.Run(tmp_path / "run"))["precision"] == "bf16-steps"
    assert bert_ft.load(tmp_path / "run").model.accelerator.step_dtype is None


def test_features_have_no_steps(tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None) -> None:
    settings: dict[str, Any] = {"method": "features", "baselines": False}
    run = bert_ft.finetune(
        "classification",
        str(tiny_checkpoint),
        train=ROWS,
        validation=ROWS,
        output=tmp_path / "run",
        **settings,
    )
    assert recorded(run)["precision"] == "fp32" and "bf16_gain" not in recorded(run)


@pytest.mark.parametrize(
    ("refused", "where"),
    [
        ("bf16 mixed precision requires a supported device.", "recipe.precision"),
        ("Unsupported logging capability: x.", "log_with"),
        ("FSDP requires PyTorch >= 2.1.0", "accelerate"),
    ],
)
def test_what_accelerate_refuses_is_told_where_it_is_mended(
    refused: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError(refused)

    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    with pytest.raises(InputError, match=f"^{re.escape(where)}: {re.escape(refused)}"):
        accelerator("bf16", log_with="x")


def test_no_instructions_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.bf16_gain.cache_clear()
    try:
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_f": True}
        )
        monkeypatch.setattr(processor, "seconds", None)  # nothing is multiplied
        assert cpu.bf16_gain() == 0.0
        assert "slow: no instructions for it" in environment.device_line(accelerator("bf16"))
    finally:
        cpu.bf16_gain.cache_clear()


@pytest.mark.parametrize(("onednn", "gain"), [(1.0, 2.0), (None, 4.2)])
def test_the_gain_is_over_the_faster_product_of_float32(
    onednn: float | None, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where oneDNN multiplies float32 twice as fast as MKL, bfloat16 gains twice, and not four times."""
    took = [0.5, 2.1] if onednn is None else [0.5, 2.1, onednn]
    monkeypatch.setattr(products, "faster", lambda: onednn is not None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(processor, "seconds", lambda ways: took[: len(ways)])
    assert cpu.bf16_gain.__wrapped__() == gain


def test_the_trial_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.bf16_gain.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert cpu.bf16_gain() > 0 and torch.get_num_threads() == 2
        assert cpu.bf16_gain() == cpu.bf16_gain(), "one trial a process"
    finally:
        torch.set_num_threads(before)
        cpu.bf16_gain.cache_clear()


def test_a_network_that_does_not_run_in_bf16_trains_in_fp32_and_it_is_said(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None
) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    plain = network.bert.encoder.layer[0].forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected float, got bfloat16")
        return plain(*args, **kwargs)

    network.bert.encoder.layer[0].forward = forward
    run = bert_ft.finetune(
        "classification",
        model=network,
        tokenizer=AutoTokenizer.from_pretrained(tiny_checkpoint),
        train=ROWS,
        validation=ROWS,
        output=tmp_path / "run",
        precision="bf16-steps",
        **OPTIONS,
    )
    assert recorded(run)["precision"] == "fp32" and "bf16_gain" not in recorded(run)
    notes = " ".join(run.results["notes"])
    assert "trained in fp32: bert does not run in bf16 (RuntimeError: expected float, got bfloat16)" in notes


class Counted(torch.nn.Module):
    """A head in the place of the model's own, which writes into a tensor of float32, and counts its calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(width)
        self.out = torch.nn.Linear(width, 2)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(pooled), 2)
        found[torch.arange(len(pooled))] = self.out(self.norm(pooled.float()))
        return found


def test_a_head_that_does_not_run_in_bf16_trains_in_fp32(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None
) -> None:
    """As it would if bfloat16 were not tried: the trial leaves no trace in it."""
    runs = []
    for name, precision in (("tried", "auto"), ("plain", "fp32")):
        torch.manual_seed(3)
        network = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
        network.classifier = Counted(network.config.hidden_size)
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
        output = tmp_path / name
        run = bert_ft.finetune(
            "classification", model=network, tokenizer=tokenizer, train=ROWS, validation=ROWS, output=output,
            precision=precision, keep="last", **OPTIONS,
        )  # fmt: skip
        assert int(network.classifier.norm.num_batches_tracked) == OPTIONS["max_steps"]
        runs.append(run)
    assert [recorded(run)["precision"] for run in runs] == ["fp32", "fp32"]
    assert "trained in fp32: bert does not run in bf16 (" in " ".join(runs[0].results["notes"])
    assert runs[0].predictions() == runs[1].predictions()


def test_interrupted_equals_uninterrupted_in_bf16(
    tiny_checkpoint: Path, tmp_path: Path, good_at_bf16: None
) -> None:
    more: dict[str, Any] = {"precision": "bf16-steps", "save_every": 2, "gradient_accumulation_steps": 2}
    whole = train(tiny_checkpoint, tmp_path / "whole", **more)
    with pytest.raises(Stop):
        train(tiny_checkpoint, tmp_path / "parts", callbacks=[StopAt()], **more)
    parts = train(tiny_checkpoint, tmp_path / "parts", **more)
    weights = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1] and whole.predictions() == parts.predictions()


def test_answers_in_bfloat16_where_they_are_asked_for(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run = train(tiny_checkpoint, tmp_path / "run", precision="fp32", **{"run.calibration": "none"})
    texts = [row["text"] for row in ROWS]
    exact = bert_ft.load(run.path).predict(texts)
    for loaded in (
        bert_ft.load(run.path, dtype="bfloat16"),
        bert_ft.load(run.path / "model", dtype="bfloat16"),
    ):
        seen, handle = linears()
        try:
            rounded = loaded.predict(texts)
        finally:
            handle.remove()
        assert torch.bfloat16 in {dtype for _, dtype in seen}
        apart = [
            abs(a["probabilities"][label] - b["probabilities"][label])
            for a, b in zip(exact, rounded, strict=True)
            for label in ("good", "bad")
        ]
        assert 0 < max(apart) < 2e-2
    assert run.task.recipe.precision == "fp32", "the run stays what it was"
    with pytest.raises(
        bert_ft.InputError, match="'half' is none of auto, float32, bfloat16, int8 and checkpoint"
    ):
        bert_ft.load(run.path, dtype="half")


def test_float32_that_is_asked_for_is_float32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Of a run that was trained, and scored, in bf16, too: as plain `transformers` answers."""
    run = train(tiny_checkpoint, tmp_path / "run", precision="bf16")
    texts = [row["text"] for row in ROWS[:4]]

    def answered(**how: Any) -> torch.Tensor:
        found = bert_ft.load(run.path, **how)
        model = found.model
        return torch.from_numpy(model.logits(model.encode(model.adapter.rows(texts))))

    plain = AutoModelForSequenceClassification.from_pretrained(run.path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    with torch.no_grad():
        expected = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    scored, narrow, exact = answered(), answered(dtype="bfloat16"), answered(dtype="float32")
    assert torch.equal(scored, narrow) and not torch.equal(scored, exact)
    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_run_trained_in_fp16_answers_on_a_cpu(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_checkpoint, tmp_path / "run", precision="fp32")
    expected = bert_ft.load(run.path).predict([row["text"] for row in ROWS[:4]])
    file = run.path / "task.toml"
    text = file.read_text()
    assert text.count('precision = "fp32"') == 1
    file.write_text(text.replace('precision = "fp32"', 'precision = "fp16"'))
    elsewhere = bert_ft.load(run.path)
    assert elsewhere.predict([row["text"] for row in ROWS[:4]]) == expected
    assert "trained in fp16, answers in fp32: there is no CUDA device" in elsewhere.model.notes
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    app(["evaluate", str(run.path), "--data", str(rows)], standalone_mode=False)
    assert "trained in fp16, answers in fp32" in capsys.readouterr().err


def test_around_8_bits_it_is_float32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Of a run that was trained and scored in bf16, too."""
    run = train(tiny_checkpoint, tmp_path / "run", precision="bf16")
    assert bert_ft.load(run.path).model.accelerator.mixed_precision == "bf16"
    assert bert_ft.load(run.path, dtype="int8").model.accelerator.mixed_precision == "no"
