"""Recorded layers, with a stand-in for the GPU that repeats in Python what would be replayed, and attention that knows
no more of a batch than a CUDA kernel does: where its sequences begin."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bert_ft
from bert_ft.engine import lean
from bert_ft.kernels import graph, graphs, last_layer, padding_free
from bert_ft.kernels.packed_attention import Layout, attend
from tests.tiny_models import batch, build


class Again:
    """Records by keeping the function. `fault`: what happens to the results of a replay."""

    def __init__(self, fault: Callable[[], None] = lambda: None) -> None:
        self.fault = fault
        self.recorded = 0

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        function()
        self.recorded += 1

        def again() -> None:
            function()
            self.fault()

        return again

    def warm(self, function: Callable[[], None]) -> None:
        function()

    def draws(self) -> Tensor:
        return torch.get_rng_state()

    def draw_from(self, state: Tensor) -> None:
        torch.set_rng_state(state)


def by_places(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float = 0.0) -> Tensor:
    """Attention from `layout.boundaries` and `layout.starts` alone."""
    if not isinstance(layout, graph.Shape):
        return attend(q, k, v, layout, scale, dropout)
    of_key = torch.searchsorted(layout.boundaries, torch.arange(len(k)), right=True)
    of_query = of_key if len(q) == len(k) else torch.arange(1, len(q) + 1)
    scores = torch.einsum("ihd,jhd->hij", q.float(), k.float()) * scale
    weights = scores.masked_fill(of_query[:, None] != of_key, float("-inf")).softmax(-1)
    weights = torch.nn.functional.dropout(weights, dropout)
    return torch.einsum("hij,jhd->ihd", weights, v.float()).to(v.dtype)


@pytest.fixture(autouse=True)
def _attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding_free, "attend", by_places)


def step(model: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """What a model gives in training mode, and the gradients of its parameters; None: it has none."""
    model.train().zero_grad()
    output = model(**inputs)
    logits = (
        torch.stack([output.start_logits, output.end_logits]) if "start_logits" in output else output.logits
    )
    mask = inputs["attention_mask"] if logits.dim() == 3 else torch.ones(())
    mask = mask[..., None] if logits.shape[:2] == mask.shape else mask
    logits = logits.float() * mask
    logits.sin().sum().backward()
    return {"logits": logits.detach()} | {
        name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }


def ready(name: str, head: str = "SequenceClassification", dropout: float = 0.0) -> Any:
    model = build(name, head, dropout)
    assert padding_free.unpad(model).active
    last_layer.narrow(model)
    return model


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Electra", "Albert"])
def test_recorded_steps_equal_plain_ones(name: str, head: str) -> None:
    """Logits and the gradients of all parameters, over batches of other lengths and of one size."""
    model, exact = ready(name, head), build(name, head)
    with graphs.recorded(model, 4, None, Again()) as layers:
        assert layers is not None
        for number, lengths in enumerate([[9, 2, 5, 7], [3, 12, 1, 4], [30, 30, 29, 2], [9, 2, 5, 7]]):
            results, expected = (step(each, batch(lengths)) for each in (model, exact))
            largest = max(float(each.norm()) for each in expected.values() if each is not None)
            for key, reference in expected.items():
                assert (results[key] is None) == (reference is None), key
                # those of the keys' biases are zero but for rounding
                assert reference is None or float((results[key] - reference).norm()) < 1e-5 * (
                    float(reference.norm()) + largest
                ), key
            assert layers.replayed == number + 1
        assert len(layers.graphs) == 2
        assert layers.reason == "graphs: layers recorded for 2 sizes of batches"
    assert "forward" not in vars(layers.stack)


def test_steps_of_a_training_are_those_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With clipping and AdamW, whose state would show a gradient that is not the step's own."""
    losses = []
    for record in (False, True):
        model = ready("Bert")
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        torch.manual_seed(1)
        with graphs.recorded(model, 4, None, Again() if record else None) as layers:
            assert (layers is not None) == record
            for number in range(12):
                inputs = batch([5 + number % 3, 2, 9, 1 + number])
                loss = model(**inputs, labels=torch.tensor([0, 1, 1, 0])).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(float(loss.detach()))
        assert layers is None or layers.replayed == 12
    assert losses[12:] == pytest.approx(losses[:12], rel=1e-4)


def test_draws_anew_and_goes_on_from_a_state() -> None:
    """Two replays drop other elements; from the generator's state of before, the same."""
    model = ready("Bert", dropout=0.3)
    inputs = batch([9, 2, 5, 7])
    with graphs.recorded(model, 4, None, Again()) as layers:
        assert layers is not None
        before = torch.get_rng_state()
        first = step(model, inputs)["logits"]
        assert not torch.equal(step(model, inputs)["logits"], first)
        torch.set_rng_state(before)  # recording, which came first, has drawn nothing
        assert torch.equal(step(model, inputs)["logits"], first)


def test_what_a_graph_can_not_know_takes_the_ordinary_path() -> None:
    inputs = batch([9, 2, 5, 7])
    model = ready("Bert", dropout=0.1)
    with graphs.recorded(model, 4, None, Again()) as layers:
        assert layers is not None

        def replays(do: Callable[[], Any]) -> int:
            before = layers.replayed
            do()
            return layers.replayed - before

        def forward(**more: Any) -> Any:
            return model(**inputs, **more).logits.sum()

        assert replays(lambda: forward().backward()) == 1
        kept: list[Tensor] = []
        assert replays(lambda: kept.extend([forward(), forward()])) == 1  # the first one's backward may come
        torch.stack(kept).sum().backward()
        kept.clear()
        assert replays(forward) == 1
        assert replays(forward) == 1  # the one before was dropped without a backward
        assert replays(lambda: forward(output_hidden_states=True)) == 0
        assert replays(lambda: step(model, batch([9, 2, 5]))) == 0
        with torch.autocast("cpu", torch.bfloat16):
            assert replays(forward) == 1  # a graph of its own
        assert replays(lambda: step(model, batch([9, 9, 9, 9]))) == 0  # no padding, so nothing is packed
        model.eval()
        assert replays(forward) == 0
        model.train()
        with torch.no_grad():
            assert replays(forward) == 0
        seen: list[str] = []
        handle = model.bert.encoder.layer[0].register_forward_hook(lambda *_: seen.append("here"))
        assert replays(forward) == 0 and seen == ["here"]
        handle.remove()
        rate = model.bert.encoder.layer[0].output.dropout
        rate.p = 0.5
        assert replays(forward) == 0
        rate.p = 0.1
        model.bert.encoder.layer[1].requires_grad_(False)
        assert replays(forward) == 0
        model.bert.encoder.layer[1].requires_grad_(True)
        assert replays(forward) == 1


def test_a_backward_comes_once() -> None:
    model = ready("Bert")
    with graphs.recorded(model, 4, None, Again()):
        loss = model(**batch([9, 2, 5, 7])).logits.sum()
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="a replayed forward has one backward"):
            loss.backward()


def test_a_wrong_replay_ends_the_graphs() -> None:
    """The step that finds it is computed by the layers themselves."""
    model = ready("Bert")
    expected = step(ready("Bert"), batch([9, 2, 5, 7]))
    device = Again()

    def spoil() -> None:
        torch._foreach_mul_(layers.shared.grads[-4:], 3.0)

    device.fault = spoil
    with graphs.recorded(model, 4, None, device) as layers:
        assert layers is not None
        results = step(model, batch([9, 2, 5, 7]))
        assert layers.reason == "graphs: none, gradients of a replay differ by 2.0e+00"
        assert layers.replayed == 0 and not layers.graphs
    for key, value in expected.items():
        assert value is None or torch.equal(results[key], value), key


def test_attention_that_asks_for_lengths_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding_free, "attend", attend)
    model = ready("Bert")
    with graphs.recorded(model, 4, None, Again()) as layers:
        assert layers is not None
        step(model, batch([9, 2, 5, 7]))
        assert "attention asks for the lengths of a batch" in layers.reason
        assert layers.replayed == 0


def test_frozen_layers_and_a_copy() -> None:
    """Only what is learned has a gradient; a copy that was made inside runs on its own weights."""
    model = ready("Bert")
    model.bert.encoder.layer[0].requires_grad_(False)
    with graphs.recorded(model, 4, None, Again()) as layers:
        assert layers is not None
        results = step(model, batch([9, 2, 5, 7]))
        assert layers.replayed == 1
        frozen = [
            results[name] for name, _ in model.bert.encoder.layer[0].named_parameters("bert.encoder.layer.0")
        ]
        assert frozen and frozen == [None] * len(frozen)
        other = copy.deepcopy(model)
        for parameter in other.bert.encoder.parameters():
            parameter.data.zero_()
        model.eval(), other.eval()
        inputs = batch([9, 2, 5, 7])
        with torch.no_grad():
            assert not torch.allclose(model(**inputs).logits, other(**inputs).logits)


ROWS = [
    {"text": f"a {word} film {i} " * (1 + i % 3), "label": word}
    for i in range(15)
    for word in ("good", "bad")
]


class StopAt(bert_ft.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, entry: Any) -> None:
        if step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def trained(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[bert_ft.Run, Again]]:
    """A training of 30 rows in batches of 4 that a stand-in records, and that stand-in."""
    real = graphs.recorded
    monkeypatch.setattr(lean, "WORTH", 0)

    def train(name: str, **settings: Any) -> tuple[bert_ft.Run, Again]:
        device = Again()
        monkeypatch.setattr(graphs, "recorded", functools.partial(real, device=device))
        run = bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, output=tmp_path / name,
                               **{"batch_size": 4, "epochs": 2, "save_every": 3, "recipe.precision": "bf16", "log_every": 1,
                                  "data.validation": "10%", **settings})  # fmt: skip
        return run, device

    return train


def test_a_training_is_the_same_with_graphs_and_without(trained: Any) -> None:
    runs, devices = zip(
        *(trained(f"{on}", dropout=0.0, **{"batching.graphs": on}) for on in (True, False)), strict=True
    )
    assert devices[0].recorded and not devices[1].recorded
    losses = [[line["loss"] for line in run.log if "loss" in line] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2) and len(losses[0]) == 14


def test_a_training_that_was_broken_off_ends_with_the_same_bytes(trained: Any) -> None:
    """Dropout on: recording anew after a resume draws nothing."""
    whole, device = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("resumed", callbacks=[StopAt(8)])
    resumed, again = trained("resumed")
    assert device.recorded and again.recorded
    files = [run.path / "model" / "model.safetensors" for run in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    lines = [[{**line, "seconds": 0} for line in run.log] for run in (whole, resumed)]
    assert lines[0] == lines[1]


def test_accumulation_and_full_precision_record_nothing(trained: Any) -> None:
    for number, settings in enumerate([{"gradient_accumulation_steps": 2}, {"recipe.precision": "fp32"}]):
        assert not trained(f"{number}", max_steps=2, **settings)[1].recorded


def test_few_steps_are_not_worth_it(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained("worth", max_steps=3)[1].recorded
    monkeypatch.setattr(lean, "WORTH", 4)
    assert not trained("short", max_steps=3)[1].recorded


def test_sizes_are_few_and_near() -> None:
    sizes = {graphs.size(tokens) for tokens in range(1, 4097)}
    assert all(tokens <= graphs.size(tokens) < tokens + max(64, tokens / 8) for tokens in range(1, 4097))
    assert len(sizes) < 45


def test_models_that_are_not_recorded() -> None:
    assert graphs.refusal(build("Bert"), torch.bfloat16) == "the layers are not padding-free"
    assert (
        graphs.refusal(ready("ModernBert"), torch.bfloat16) == "the layers are not the matter of one module"
    )
    assert graphs.refusal(ready("Bert"), torch.bfloat16) == "attention is not flash attention"
    with graphs.recorded(ready("Bert"), 4, torch.bfloat16) as layers:
        assert layers is None
