"""The last layer for the first token alone: logits, loss and every gradient are those of the plain padded model, and
whatever reads more gets all of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tiny_models import CONFIGS, SIZES, batch, build, hooks, plain, run, same
from torch import Tensor, nn

import bert_ft
from bert_ft.kernels import cpu, grouped_attention, last_layer, padding_free
from bert_ft.kernels.packed_attention import absorbed
from bert_ft.kernels.padding_free import unpad
from bert_ft.modeling import loading

LENGTHS = [[20, 1, 7, 1, 20, 13], [6, 6, 6], [9, 2, 4], [5], [1, 1]]
PADDED: dict[str, Any] = {
    "DebertaV2": lambda: tf.DebertaV2Config(
        **SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
    "MPNet": lambda: tf.MPNetConfig(**SIZES),
}
FIRST = [name for name in CONFIGS if name not in ("Albert", "EuroBert")] + list(PADDED)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values are absorbed of tiny batches, too, where that takes longer."""
    monkeypatch.setattr(last_layer, "WORTH", float("-inf"))


def made(name: str, head: str = "SequenceClassification") -> Any:
    """A tiny model in training mode without dropout."""
    if name in CONFIGS:
        return build(name, head)
    model = plain(name, head, PADDED[name]()).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def widths(model: Any) -> list[int]:
    """How many tokens each linear layer of the last layer gets, from now on."""
    seen: list[int] = []
    for module in last_layer.last(model).modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(
                lambda module, args, output: seen.append(output.shape[0] * output.shape[1])
            )
    return seen


@pytest.mark.parametrize("name", FIRST)
def test_equals_the_plain_model(name: str) -> None:
    """Padding-free and padded, in float64, so that nothing hides behind rounding."""
    for free in (True, False) if name in CONFIGS else (False,):
        padded, model = made(name), made(name)
        assert not free or unpad(model).active
        handle = last_layer.narrow(model)
        assert handle.active, handle.reason
        for lengths in LENGTHS:
            inputs = batch(lengths)
            same(run(model.double(), inputs), run(padded.double(), inputs), tolerance=1e-9)


@pytest.mark.parametrize(("name", "linears"), [("Bert", [3, 15, 15, 3, 3, 3]), ("ModernBert", [15, 3, 3, 3])])
def test_only_keys_and_values_meet_every_token(name: str, linears: list[int]) -> None:
    """The keys and values where somebody looks at them; else none (`absorbed`)."""
    model = made(name)
    assert unpad(model).active and last_layer.narrow(model).active
    seen = widths(model)
    model(**batch([9, 2, 4]))
    assert seen == linears
    seen.clear()
    model(**batch([5, 5, 5]))  # no padding: the ordinary path
    assert seen == linears


@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_the_path_with_dropout_equals_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention with dropout, its mask held at ones, forward and backward."""
    padded, model = made(name), made(name)
    for module in model.modules():
        if type(module).__name__.endswith("Attention"):
            module.attention_dropout = 0.5
            if isinstance(getattr(module, "dropout", None), nn.Dropout):
                module.dropout.p = 0.5
            if hasattr(module, "out_drop"):
                module.out_drop = nn.Identity()
    assert unpad(model).active and last_layer.narrow(model).active
    monkeypatch.setattr(grouped_attention, "keep", lambda like, rate: (torch.ones_like(like), 1.0))
    for lengths in ([20, 1, 7, 1, 20, 13], [3, 2]):
        same(run(model, batch(lengths)), run(padded, batch(lengths)))


@pytest.fixture
def absorbing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Linear, ...]]:
    """The layers of keys and values that attention did without, a call each; the self-check's are there, too."""
    calls: list[tuple[nn.Linear, ...]] = []

    def watched(q: Tensor, hidden: Any, projections: Any, *rest: Any) -> Tensor:
        calls.append(tuple(projections))
        return absorbed(q, hidden, projections, *rest)

    monkeypatch.setattr(padding_free, "absorbed", watched)
    return calls


@pytest.mark.parametrize("name", FIRST)
def test_keys_and_values_are_absorbed_where_they_are_in_the_open(name: str, absorbing: list[Any]) -> None:
    """And all is the plain model's, in float64: `test_equals_the_plain_model`, without hooks that look."""
    if name in PADDED:
        return
    padded, model = made(name), made(name)
    assert unpad(model).active and last_layer.narrow(model).active
    absorbing.clear()  # of the self-check
    same(
        run(model.double(), batch([20, 1, 7, 1, 20, 13])),
        run(padded.double(), batch([20, 1, 7, 1, 20, 13])),
        1e-9,
    )
    # one layer for all three, positions that turn keys, or a window
    apart = name in ("ModernBert", "NomicBert", "JinaEmbeddingsV3", "LayoutLMv3", "EuroBert")
    assert len(absorbing) == (0 if apart else 1), name


def test_answers_have_their_keys_and_values(absorbing: list[Any]) -> None:
    """What a row is answered would else depend on whether the rows beside it leave padding."""
    model, inputs = made("Bert").eval(), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    absorbing.clear()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            model(**inputs)
    assert not absorbing
    model(**inputs)
    assert len(absorbing) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lean_steps_absorb_them_too(dtype: torch.dtype, absorbing: list[Any]) -> None:
    """Whose dropouts, and on some CPUs linear layers, have forwards of ours; before them and after. Not under
    autocast, where it gains nothing."""
    model, inputs = build("Bert", "SequenceClassification", 0.1), batch([9, 2, 4])
    assert unpad(model, dtype).active and last_layer.narrow(model, dtype).active
    absorbing.clear()
    for lean in (False, True, False):
        with cpu.lean(model, lean), torch.autocast("cpu", dtype, dtype != torch.float32):
            model(**inputs).logits.sum().backward()
    assert len(absorbing) == (3 if dtype == torch.float32 else 0)


def looks(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda *_: None)


def changes(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda module, args, output: 2 * output)


def halves(layer: nn.Linear) -> None:
    layer.register_forward_pre_hook(lambda module, args: (args[0] / 2,))


def replaces(layer: nn.Linear) -> None:
    plain_forward = layer.forward
    layer.forward = lambda x: plain_forward(x).sin()  # type: ignore[method-assign]


def parametrizes(layer: nn.Linear) -> None:
    nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(3)  # type: ignore[operator, union-attr]


def looks_back(layer: nn.Linear) -> None:
    layer.register_full_backward_hook(lambda module, grads, outs: (3 * grads[0],))


def looks_first(layer: nn.Linear) -> None:
    layer.register_full_backward_pre_hook(lambda module, outs: (3 * outs[0],))


class Doubled(Tensor):
    """A weight that a linear layer takes for its double, as quantized ones are integers until then."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            args = [2 * x.as_subclass(Tensor) if isinstance(x, cls) else x for x in args]
        return super().__torch_function__(func, types, args, kwargs or {})


def has_a_weight_of_its_own(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().clone().as_subclass(Doubled))


@pytest.mark.parametrize("part", ["key", "value"])
@pytest.mark.parametrize(
    "change",
    [looks, changes, halves, replaces, parametrizes, looks_back, looks_first, has_a_weight_of_its_own],
)
def test_what_is_put_on_a_projection_is_heard(change: Any, part: str, absorbing: list[Any]) -> None:
    """Hooks, forwards and parametrizations that came after the self-check."""
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    absorbing.clear()  # of the self-check
    same(run(model, inputs), run(padded, inputs))
    assert len(absorbing) == 1
    for each in (model, padded):
        change(getattr(last_layer.last(each).attention.self, part))
    same(run(model, inputs), run(padded, inputs))
    assert len(absorbing) == 1


def test_keys_and_values_stay_where_that_is_faster(
    absorbing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as few tokens as two for each sequence and so many multiplications of one projection."""
    monkeypatch.setattr(last_layer, "WORTH", 9.0 * 32 * 32)
    padded, model = made("Bert"), made("Bert")
    assert unpad(model).active and last_layer.narrow(model).active
    assert absorbing  # the self-check's
    for lengths, calls in (([9, 2, 3], 0), ([9, 2, 4], 1), ([3, 2, 2, 2, 2], 0)):
        absorbing.clear()
        same(run(model, batch(lengths)), run(padded, batch(lengths)))
        assert len(absorbing) == calls, lengths


@pytest.mark.parametrize("change", [looks_back, looks_first, has_a_weight_of_its_own])
def test_what_is_on_a_projection_before_leaves_the_rest_narrow(change: Any, absorbing: list[Any]) -> None:
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    for each in (model, padded):
        change(last_layer.last(each).attention.self.key)
    assert unpad(model).active and last_layer.narrow(model).active
    same(run(model, inputs), run(padded, inputs))
    assert not absorbing


class Wrapper(nn.Module):
    """Hands on what a linear layer gives until it is told otherwise, as peft's layers, switched off or merged."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.factor = linear, 1

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if self.factor == 1 else self.factor * self.linear(x)


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_wrapper_of_a_projection_that_changes_its_mind(part: str, absorbing: list[Any]) -> None:
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    attentions = [last_layer.last(each).attention.self for each in (model, padded)]
    for attention in attentions:
        setattr(attention, part, Wrapper(getattr(attention, part)))
    assert unpad(model).active and last_layer.narrow(model).active
    for attention in attentions:
        getattr(attention, part).factor = 3
    same(run(model, inputs), run(padded, inputs))
    assert not absorbing


@pytest.mark.parametrize("state", ["off", "merged"])
def test_lora_that_is_off_or_merged_by_then(state: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["key", "value"], lora_dropout=0.0, init_lora_weights=False)
    inputs, models = batch([9, 2, 4]), []
    for fast in (True, False):
        model = made("Bert")
        torch.manual_seed(5)
        model = peft.get_peft_model(model, config).train()
        tuner = model.base_model
        tuner.disable_adapter_layers() if state == "off" else tuner.merge_adapter()
        if fast:
            assert unpad(model).active and last_layer.narrow(model).active
        tuner.enable_adapter_layers() if state == "off" else tuner.unmerge_adapter()
        models.append(model)
    same(run(models[0], inputs), run(models[1], inputs), tolerance=1e-4)


def test_attention_with_another_forward_is_heard(absorbing: list[Any]) -> None:
    """That of the module, and that of its class."""
    for replaced in (lambda attention: attention, type):
        padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
        assert unpad(model).active and last_layer.narrow(model).active
        absorbing.clear()
        for each in (model, padded):
            attention = last_layer.last(each).attention.self
            attention.__class__ = type("Mine", (type(attention),), {})
            forward = attention.forward if replaced is not type else type(attention).forward
            replaced(attention).forward = lambda *args, forward=forward, **kwargs: forward(*args, **kwargs)
        same(run(model, inputs), run(padded, inputs))
        assert not absorbing


def test_a_hook_of_all_modules_is_heard(absorbing: list[Any]) -> None:
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    absorbing.clear()
    keys = [last_layer.last(each).attention.self.key for each in (model, padded)]
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: 2 * output if module in keys else None
    )
    try:
        same(run(model, inputs), run(padded, inputs))
    finally:
        handle.remove()
    assert not absorbing


def test_a_derivative_of_functions() -> None:
    """Without dropout it goes through, as it does through torch's attention."""
    model, inputs = made("Bert").double(), batch([9, 2, 4])
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        arguments = dict(**inputs, labels=torch.arange(3) % 2)
        result: Tensor = torch.func.functional_call(model, weights, (), arguments).loss
        return result

    expected = torch.func.grad(loss)(weights)
    assert unpad(model).active and last_layer.narrow(model).active
    torch.testing.assert_close(torch.func.grad(loss)(weights), expected)


@pytest.mark.parametrize(
    ("heads", "lengths"),
    [
        (1, [10, 12, 10]),  # as many tokens as a head has numbers
        (1, [10, 12, 11]),  # or as hidden states have, and their bias
        (4, [2, 2, 2, 26]),  # as many rows as heads, the last one alone in its group
        (4, [2, 2, 2, 27]),
    ],
)
def test_sizes_that_are_alike_by_chance(heads: int, lengths: list[int], absorbing: list[Any]) -> None:
    """The matrices of attention are taken for no hidden states."""
    models = []
    for _ in range(2):
        sizes = SIZES | {"num_attention_heads": heads, "hidden_dropout_prob": 0.0}
        config = tf.BertConfig(**sizes, attention_probs_dropout_prob=0.0)
        models.append(plain("Bert", "SequenceClassification", config).train())
    padded, model = models
    assert unpad(model).active
    handle = last_layer.narrow(model)
    assert handle.active, handle.reason
    absorbing.clear()
    same(run(model.double(), batch(lengths)), run(padded.double(), batch(lengths)), 1e-9)
    assert len(absorbing) == 1


def test_a_copy_and_weights_that_change(absorbing: list[Any]) -> None:
    """A deep copy computes with its own layers, and a step of the optimizer is seen by the next forward."""
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    absorbing.clear()  # of the self-check
    twin = copy.deepcopy(model)
    for each in (model, padded):
        with torch.no_grad():
            last_layer.last(each).attention.self.value.weight.mul_(-2)
    same(run(model, inputs), run(padded, inputs))
    same(run(twin, inputs), run(made("Bert"), inputs))
    assert all(layer in set(model.modules()) for call in absorbing for layer in call)


@pytest.mark.parametrize("targets", [["key"], ["value"], ["query", "key", "value"]])
@pytest.mark.parametrize("order", ["before", "after"])
def test_lora_on_keys_and_values(order: str, targets: list[str], absorbing: list[Any]) -> None:
    """Padding-free, where the adapter comes after the self-check or before; merged, off and on again."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=targets, lora_dropout=0.0, init_lora_weights=False)
    inputs, models = batch([9, 2, 4]), []
    for fast in (True, False):
        model = made("Bert")
        if fast and order == "before":
            assert unpad(model).active and last_layer.narrow(model).active
            absorbing.clear()
        torch.manual_seed(5)
        model = peft.get_peft_model(model, config).train()
        if fast and order == "after":
            assert unpad(model).active and last_layer.narrow(model).active
            absorbing.clear()
        models.append(model)
    same(run(models[0], inputs), run(models[1], inputs))
    assert not absorbing
    with models[0].disable_adapter(), models[1].disable_adapter():
        torch.testing.assert_close(*(model(**inputs).logits for model in models))
    same(run(models[0], inputs), run(models[1], inputs))
    merged = [model.merge_and_unload() for model in models]
    torch.testing.assert_close(*(model(**inputs).logits for model in merged))


@pytest.mark.parametrize("name", ["Bert", "DebertaV2"])
def test_a_reader_of_hidden_states_gets_them_all(name: str) -> None:
    padded, model, inputs = made(name), made(name), batch([9, 2, 4])
    if name in CONFIGS:
        assert unpad(model).active
    assert last_layer.narrow(model).active
    mask = inputs["attention_mask"].bool()
    expected = padded.base_model(**inputs)[0][mask]
    torch.testing.assert_close(model.base_model(**inputs)[0][mask], expected)  # the encoder without its head
    recorded = model(**inputs, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(recorded[mask], expected)
    model.config.output_hidden_states = True
    torch.testing.assert_close(model(**inputs).hidden_states[-1][mask], expected)
    model.config.output_hidden_states = False
    for module in (model.base_model, model.base_model.encoder, last_layer.last(model)):
        caught: list[Tensor] = []
        handle = module.register_forward_hook(lambda module, args, output, into=caught: into.append(output))
        model(**inputs)
        handle.remove()
        output = caught[0] if isinstance(caught[0], Tensor) else caught[0][0]
        output = (
            output[0] if output.shape[0] == 1 else output[mask]
        )  # within the layers: packed, in another order
        torch.testing.assert_close(output.sort(0).values, expected.sort(0).values)
    seen = widths(model)
    model(**inputs)
    assert min(seen) == 3, "and once nobody looks, the first tokens alone are computed again"


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_another_attention_gets_all_queries(free: bool, attention: str) -> None:
    """Once narrow, a model whose attention a person changed ended in a traceback of shapes."""
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert not free or unpad(model).active
    assert last_layer.narrow(model).active
    for each in (attention, "sdpa", attention):
        model.set_attn_implementation(each)
        same(run(model.double(), inputs), run(padded.double(), inputs), tolerance=1e-9)


@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering"])
def test_heads_that_read_every_token(head: str) -> None:
    model = made("Bert", head)
    handle = last_layer.narrow(model)
    assert not handle.active and "more than the first token" in handle.reason
    assert not hooks(model)


class Secret(nn.Module):
    """A pooler that reads every token where no gradient shows it."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 0] + hidden[:, 1:].detach().mean(1)


class Last(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, -1]


def test_a_head_that_only_seems_to_read_the_first_token() -> None:
    for pooler, reason in ((Secret(), "would differ"), (Last(), "more than the first token")):
        model = made("Bert")
        model.bert.pooler = pooler
        assert reason in last_layer.narrow(model).reason
        assert not hooks(model)
    model = made("Bert")
    nn.init.zeros_(model.classifier.weight)  # nothing flows back: nothing is known
    assert "nothing shows" in last_layer.narrow(model).reason
    assert "no head" in last_layer.narrow(made("Bert").bert).reason
    assert "not a transformers model" in last_layer.narrow(nn.Linear(2, 2)).reason


def test_left_padding_and_holes() -> None:
    padded, model = made("Bert"), made("Bert")
    assert unpad(model).active and last_layer.narrow(model).active
    left, holes = batch([20, 3, 11], left=True), batch([20, 3, 11])
    holes["attention_mask"][0, 4:6] = 0
    same(run(model, holes), run(padded, holes))
    expected = padded(**left).logits[:1]  # the row without padding: of the others the head reads the padding
    torch.testing.assert_close(model(**left).logits[:1], expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_computes_all(reentrant: bool) -> None:
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    same(run(model, inputs), run(padded, inputs))


@pytest.mark.parametrize("order", ["before", "after"])
def test_lora(order: str) -> None:
    """Also on the output projection and the feed-forward, whose parts then meet both shapes."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        target_modules=["query", "value", "dense"], lora_dropout=0.0, init_lora_weights=False
    )
    inputs, models = batch([9, 2, 4]), []
    for narrowed in (True, False):
        model = made("Bert")
        if narrowed and order == "before":
            assert last_layer.narrow(model).active
        torch.manual_seed(5)
        model = peft.get_peft_model(model, config).train()
        if narrowed and order == "after":
            assert last_layer.narrow(model).active
        models.append(model)
    seen = widths(models[0].base_model.model)
    same(run(models[0], inputs), run(models[1], inputs))
    assert min(seen) == 3


def test_a_forward_that_fails_leaves_nothing_on() -> None:
    model, inputs = made("Bert"), batch([9, 2, 4])
    assert unpad(model).active and last_layer.narrow(model).active
    handle = last_layer.last(model).output.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**inputs)
    handle.remove()
    assert last_layer._rows.get() is None and last_layer._head.get() is None
    assert not torch.overrides._get_current_function_mode_stack()
    padded = made("Bert")
    same(run(model, inputs), run(padded, inputs))


def test_it_leaves_as_it_came() -> None:
    model = made("Bert")
    handle = unpad(model)
    count = len(hooks(model))
    narrowing = last_layer.narrow(model)
    twin = copy.deepcopy(model)
    assert narrowing.active and len(hooks(model)) == len(hooks(twin)) > count
    narrowing.remove()
    assert len(hooks(model)) == count
    assert last_layer.narrow(model).active
    handle.remove()  # makes the model plain
    assert not hooks(model)
    inputs, padded = batch([9, 2, 4]), made("Bert")
    same(run(twin, inputs), run(padded, inputs))


def test_half_precision() -> None:
    padded, model, inputs = made("Bert"), made("Bert"), batch([9, 2, 4])
    assert unpad(model, torch.bfloat16).active and last_layer.narrow(model, torch.bfloat16).active
    with torch.autocast("cpu", torch.bfloat16):
        same(run(model, inputs), run(padded, inputs), tolerance=5e-2)


def test_the_key_turns_it_off(tiny_checkpoint: Path) -> None:
    for value in (True, False):
        task = bert_ft.load_task("classification").override(
            {"data.labels": ["a", "b"], "run.checkpoint": str(tiny_checkpoint), "batching.first_token": value}
        )
        model, _ = loading.build(task, bert_ft.Classification(task, ["a", "b"]), "fp32")
        assert (model.narrowing is not None and model.narrowing.active) == value
        assert model.unpadding.active
        model.plain()
        assert not hooks(model.network)
