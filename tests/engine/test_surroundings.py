"""What a person's own program has set in torch around a training."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bert_ft
from bert_ft.engine.surroundings import own_states
from bert_ft.errors import InputError

ROWS = [{"text": f"a {word} film {i}", "label": word} for i in range(12) for word in ("good", "bad")]


@pytest.fixture(autouse=True)
def _no_accelerator_before() -> Iterator[None]:
    AcceleratorState._reset_state()
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state()
    GradientState._reset_state()


def train(checkpoint: Path, output: Path, callbacks: Sequence[Any] = (), **more: Any) -> bert_ft.Run:
    options: dict[str, Any] = {
        "batch_size": 8,
        "max_steps": 6,
        "max_length": 16,
        "log_every": 1,
        "learning_rate": 1e-3,
        "baselines": False,
        "precision": "fp32",
    }
    return bert_ft.finetune(
        "classification",
        str(checkpoint),
        train=ROWS,
        validation=ROWS,
        output=output,
        callbacks=callbacks,
        **{**options, **more},
    )


@pytest.mark.parametrize(
    ("around", "message"),
    [
        # its copies of the weights would stay those of the first step: nothing is learned
        (lambda: torch.autocast("cpu", torch.bfloat16), "inside `torch.autocast`"),
        (torch.no_grad, "inside `torch.no_grad` or `torch.inference_mode`"),
        (torch.inference_mode, "inside `torch.no_grad` or `torch.inference_mode`"),
    ],
)
def test_a_training_that_could_not_learn_is_refused(
    around: Any, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with around(), pytest.raises(InputError, match=message):
        train(tiny_checkpoint, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()
    train(tiny_checkpoint, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_log_is_the_same_under_any_default_type(
    dtype: torch.dtype, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    expected = [line["loss"] for line in train(tiny_checkpoint, tmp_path / "plain").log if "loss" in line]
    torch.set_default_dtype(dtype)
    try:
        run = train(tiny_checkpoint, tmp_path / "run")
    finally:
        torch.set_default_dtype(torch.float32)
    assert [line["loss"] for line in run.log if "loss" in line] == expected


def test_answers_are_the_same_inside_a_persons_autocast(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """They were bfloat16's, and a model loaded there was padded: its self-check had compared such numbers."""
    path = train(tiny_checkpoint, tmp_path / "run").path
    texts = [row["text"] for row in ROWS]
    expected = bert_ft.load(path)
    answers = expected.predict(texts)
    with torch.autocast("cpu", torch.bfloat16):
        assert expected.predict(texts) == answers
        run = bert_ft.load(path)
        assert run.predict(texts) == answers
    assert "padding-free" in run.model.unpadding.reason == expected.model.unpadding.reason
    with torch.device("meta"), pytest.raises(InputError, match="default device is 'meta'"):
        bert_ft.load(path).predict(texts)


def drawn() -> list[float]:
    """What a person's program draws next, from each of the random states."""
    return [random.random(), float(np.random.random()), float(torch.rand(()))]


def seeded() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


def test_a_persons_random_numbers_go_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """They began anew after each run and each loading, by the run's seed."""
    seeded()
    expected = drawn()
    seeded()
    path = train(tiny_checkpoint, tmp_path / "run").path
    assert drawn() == expected
    seeded()
    bert_ft.load(path).predict(["a good film"])
    assert drawn() == expected
    seeded()
    with pytest.raises(KeyboardInterrupt):
        train(tiny_checkpoint, tmp_path / "broken", callbacks=[Interrupting()])
    assert drawn() == expected


class Interrupting(bert_ft.Callback):
    def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
        raise KeyboardInterrupt


def test_a_persons_accelerator_stays_theirs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """It computed in our precision and accumulated nothing from then on; and a training that came between two
    steps of theirs took none of its own."""
    path = train(tiny_checkpoint, tmp_path / "plain").path
    expected = [line["loss"] for line in bert_ft.load(path).log if "loss" in line]
    bert_ft.load(path).predict(["a good film"])
    mine = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4, cpu=True)  # it was refused
    layer = mine.prepare(torch.nn.Linear(2, 1))
    with mine.accumulate(layer):
        assert not mine.sync_gradients
    run = train(tiny_checkpoint, tmp_path / "run")
    assert [line["loss"] for line in run.log if "loss" in line] == expected
    bert_ft.load(path).predict(["a good film"])
    assert (mine.mixed_precision, mine.gradient_accumulation_steps) == ("bf16", 4)
    assert not mine.sync_gradients
    assert Accelerator().mixed_precision == "bf16"


def test_gradients_are_not_divided_by_what_a_launcher_says(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [line.get("grad_norm") for line in train(tiny_checkpoint, tmp_path / "plain").log]
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert [line.get("grad_norm") for line in train(tiny_checkpoint, tmp_path / "run").log] == expected


def seen(network: Any) -> dict[str, Any]:
    """What a person sees of their network beside its weights."""
    modules = list(network.modules())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules]
    return {
        "modes": [module.training for module in modules],
        "hooks": hooks,
        "attention": network.config._attn_implementation,
        "own": ["forward" in vars(module) for module in modules],
        "trained": [parameter.requires_grad for parameter in network.parameters()],
    }


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"lora": {"rank": 2}}])
def test_a_network_of_ones_own_is_left_as_it_was(
    options: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """It was left in training mode, so that it answered at random; and after Ctrl-C with all of our hooks."""
    network = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    before = seen(network)
    assert not any(before["modes"])
    own = {"model": network, "tokenizer": tokenizer, **options}
    with pytest.raises(KeyboardInterrupt):
        train(tiny_checkpoint, tmp_path / "broken", callbacks=[Interrupting()], **own)
    assert seen(network) == before
    run = train(tiny_checkpoint, tmp_path / "run", **own)
    assert seen(network) == before
    assert not run.model.network.training


def test_threads_put_back_the_states_that_were_there() -> None:
    """The one that came second kept those of the first, and left them to the program."""
    before = AcceleratorState._shared_state
    entered = threading.Event()

    def first() -> None:
        with own_states({}, {}):
            entered.set()
            time.sleep(0.2)

    def second() -> None:
        entered.wait()
        with own_states({}, {}):
            time.sleep(0.4)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AcceleratorState._shared_state is before
