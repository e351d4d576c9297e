"""Promise 1: padding-free equals padded (logits, loss, gradients), for every supported architecture and head."""

from __future__ import annotations

import copy
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, HEADS, SIZES, batch, build, hooks, run, same
from torch import Tensor, nn

from bert_ft.kernels import attention_check, grouped_attention, packed_attention, padding_free
from bert_ft.kernels.groups import GROUP_COST, group_sizes
from bert_ft.kernels.packed_attention import Layout, attend, choose_kernel, runs
from bert_ft.kernels.padding_free import NAME, known_lengths, restore, unpad

PAIRS = [pair for pair in itertools.product(CONFIGS, HEADS) if hasattr(tf, "{}For{}".format(*pair))]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose by more, and other tests may run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """The layout of every packed attention, in the order of the calls."""
    seen: list[Layout] = []

    def watch(q: Tensor, k: Tensor, v: Tensor, layout: Layout, *rest: Any) -> Tensor:
        seen.append(layout)
        return attend(q, k, v, layout, *rest)

    monkeypatch.setattr(padding_free, "attend", watch)
    return seen


# ---- promise 1 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> Iterator[Callable[[str, str], tuple[Any, Any]]]:
    """(padded, padding-free), the same weights; built once for each architecture and head."""
    kept: dict[tuple[str, str], tuple[Any, Any]] = {}

    def get(name: str, head: str) -> tuple[Any, Any]:
        if (name, head) not in kept:
            padded = build(name, head)
            free = copy.deepcopy(padded)
            assert unpad(free).active
            kept[name, head] = padded, free
        return kept[name, head]

    return get


@pytest.mark.parametrize(("name", "head"), PAIRS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=9))
@example(lengths=[20, 1, 7, 1, 20, 13])
@example(lengths=[5])
def test_equals_padded(pairs: Any, name: str, head: str, lengths: list[int]) -> None:
    padded, free = pairs(name, head)
    inputs = batch(lengths)
    same(run(free, inputs), run(padded, inputs))


@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_dropout_path_equals_padded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention with dropout, its dropout mask held at ones, forward and backward."""
    padded, free = build(name), build(name)
    for module in free.modules():  # ModernBert reads the rate from an attribute, Bert from its Dropout
        if type(module).__name__.endswith("Attention"):
            module.attention_dropout = 0.5
            if isinstance(getattr(module, "dropout", None), nn.Dropout):
                module.dropout.p = 0.5
            if hasattr(module, "out_drop"):
                module.out_drop = nn.Identity()
    assert unpad(free).active  # its self-check would notice that nothing is dropped
    monkeypatch.setattr(grouped_attention, "keep", lambda like, rate: (torch.ones_like(like), 1.0))
    for lengths in ([20, 1, 7, 1, 20, 13], [3, 2], [40, 6, 30]):
        same(run(free, batch(lengths)), run(padded, batch(lengths)))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_layers_meet_real_tokens_only(name: str) -> None:
    model = build(name)
    shapes = []
    layers = padding_free._doors(model.base_model)[-1]
    linear = next(module for module in layers.modules() if isinstance(module, nn.Linear))
    linear.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape[:-1]))
    assert unpad(model).active
    shapes.clear()
    model(**batch([9, 2, 4]))
    assert set(shapes) == {(1, 15)}


@pytest.mark.parametrize("name", ["Bert", "Roberta", "ModernBert"])
def test_left_padding_holes_and_empty_rows(name: str) -> None:
    padded = build(name, "TokenClassification")
    free = copy.deepcopy(padded)
    assert unpad(free).active
    left, holes, empty = batch([20, 3, 11], left=True), batch([20, 3, 11]), batch([20, 3, 11])
    holes["attention_mask"][0, 4:6] = 0
    empty["attention_mask"][1] = 0
    same(run(free, left), run(padded, left))
    same(run(free, holes), run(padded, holes))
    same(run(free, empty), run(padded, empty))
    empty["attention_mask"][:] = 0
    assert torch.equal(free(**empty).logits, padded(**empty).logits)


@pytest.mark.parametrize("inputs", [batch([6, 6, 6]), {"input_ids": batch([6, 6])["input_ids"]}])
def test_without_padding_the_ordinary_path(inputs: dict[str, Tensor], attended: list[Layout]) -> None:
    padded, free = build("Bert"), build("Bert")
    assert unpad(free).active
    attended.clear()
    assert torch.equal(free(**inputs).logits, padded(**inputs).logits)
    assert not attended


def test_hidden_states_keep_their_shape() -> None:
    for name in ("Bert", "ModernBert"):
        padded, free, inputs = build(name), build(name), batch([9, 2, 4])
        assert unpad(free).active
        expected, got = (model(**inputs, output_hidden_states=True).hidden_states for model in (padded, free))
        assert len(got) == len(expected) == 3
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))


def test_evaluation_and_inference_mode(attended: list[Layout]) -> None:
    padded, free, inputs = build("Bert").eval(), build("Bert").eval(), batch([9, 2, 4])
    assert unpad(free).active
    attended.clear()
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            torch.testing.assert_close(free(**inputs).logits, padded(**inputs).logits, rtol=1e-5, atol=1e-6)
    assert len(attended) == 6
    free.train(), padded.train()  # and training goes on after it
    same(run(free, inputs), run(padded, inputs))


def test_lengths_from_the_collator(attended: list[Layout], monkeypatch: pytest.MonkeyPatch) -> None:
    free, padded, lengths = build("Bert"), build("Bert"), [9, 2, 4]
    assert unpad(free).active
    attended.clear()
    with monkeypatch.context() as without, known_lengths(lengths):
        without.setattr(torch, "stack", None)  # what reads the lengths off the mask
        got = run(free, batch(lengths))
        with known_lengths([9, 9, 9]):
            free(input_ids=batch([9] * 3)["input_ids"], attention_mask=batch([9] * 3)["attention_mask"])
    same(got, run(padded, batch(lengths)))
    with known_lengths([5, 5]):  # of another batch: the mask decides
        same(run(free, batch(lengths)), run(padded, batch(lengths)))
    assert [layout.lengths for layout in attended] == [[2, 4, 9]] * 4


@pytest.mark.parametrize(
    "name", ["Bert", "NomicBert"]
)  # under autocast NomicBert's q and k are wider than its v
def test_half_precision(name: str) -> None:
    padded, free, inputs = build(name, dropout=0.1), build(name, dropout=0.1), batch([9, 2, 4])
    assert unpad(free, torch.bfloat16).active
    with torch.autocast("cpu", torch.bfloat16):
        run(free, inputs)  # with dropout, through the backward written out
        free.eval(), padded.eval()
        same(run(free, inputs), run(padded, inputs), tolerance=5e-2)


# ---- dropout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_attention_drops_at_its_rate(rate: float) -> None:
    """Queries of zero attend evenly; with one-hot values the output is the probabilities after dropout."""
    torch.manual_seed(0)
    lengths = [20, 30, 30, 40]
    size = max(lengths)
    q = torch.zeros(sum(lengths), 8, size)
    v = torch.cat([torch.eye(size)[:n] for n in lengths])[:, None].expand(-1, 8, -1)
    out = attend(q, q, v, layout_of(lengths), 1.0, rate)
    values = torch.cat([x[..., :n].flatten() * n for x, n in zip(out.split(lengths), lengths, strict=True)])
    dropped = float((values == 0).float().mean())
    assert abs(dropped - rate) < 5 * (rate * (1 - rate) / values.numel()) ** 0.5
    torch.testing.assert_close(values[values > 0], torch.full_like(values[values > 0], 1 / (1 - rate)))
    assert float(out.split(lengths)[0][..., 20:].abs().sum()) == 0  # nothing seen of other sequences


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_gets_the_configured_rate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def watch(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
        rates.append(dropout)
        return attend(q, k, v, layout, scale, dropout)

    monkeypatch.setattr(padding_free, "attend", watch)
    model = build(name, dropout=0.25)
    with unpad(model):
        rates.clear()
        model(**batch([9, 2, 4]))
        assert rates == [0.25] * 2
        model.eval()(**batch([9, 2, 4]))
        assert rates[2:] == [0.0] * 2


@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_mean_loss_with_dropout_agrees(name: str) -> None:
    padded, free, inputs = build(name, dropout=0.2), build(name, dropout=0.2), batch([9, 2, 4, 12])
    inputs["labels"] = torch.tensor([0, 1, 0, 1])
    assert unpad(free).active
    torch.manual_seed(1)
    draws = 200
    with torch.no_grad():
        ours, theirs = (
            torch.stack([m(**inputs).loss for _ in range(draws)]).double() for m in (free, padded)
        )
    spread = float((ours.var() / draws + theirs.var() / draws) ** 0.5)
    assert ours.std() > 0
    assert abs(float(ours.mean() - theirs.mean())) < 4 * spread


# ---- with others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["Bert", "DistilBert", "ModernBert"])
def test_gradient_checkpointing(name: str, reentrant: bool) -> None:
    """With dropout: the second forward has to draw what the first one drew."""
    free, checkpointed, inputs = build(name, dropout=0.2), build(name, dropout=0.2), batch([20, 3, 11])
    enable = getattr(checkpointed, "activation_checkpointing_enable", None)  # 5.7 has the other name alone
    (enable or checkpointed.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    checkpointed.enable_input_require_grads()
    assert unpad(free).active
    assert unpad(checkpointed).active
    expected, got = [], []
    for model, results in ((free, expected), (checkpointed, got)):
        torch.manual_seed(3)
        results += run(model, inputs)
    same(tuple(got), tuple(expected))


@pytest.mark.parametrize("order", ["before", "after"])
def test_lora(order: str, attended: list[Layout]) -> None:
    peft = pytest.importorskip("peft")
    inputs, results = batch([20, 3, 11]), []
    for free in (True, False):
        model = build("Bert")
        if free and order == "before":
            assert unpad(model).active
        torch.manual_seed(5)
        config = peft.LoraConfig(target_modules=["query", "value"], lora_dropout=0.0, init_lora_weights=False)
        model = peft.get_peft_model(model, config).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if free and order == "after":
            assert unpad(model).active
        attended.clear()
        results.append(run(model, inputs))
        assert len(attended) == (2 if free else 0)
        if free:
            merged = model.merge_and_unload()
            torch.testing.assert_close(merged(**inputs).logits, results[0][0], rtol=1e-4, atol=1e-5)
            restore(merged)
            assert not hooks(merged)
    assert results[0][2].numel() < 5000  # the gradients of the adapters alone
    same(*results)


def _ddp_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = build("Bert")
    assert unpad(model).active
    grads = run(nn.parallel.DistributedDataParallel(model), batch([[20, 3, 11], [4, 9, 1]][rank]))[2]
    torch.save(grads, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ddp(tmp_path: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_ddp_rank, (port, str(tmp_path)), nprocs=2)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    padded = build("Bert")
    theirs = torch.stack([run(padded, batch(lengths))[2] for lengths in ([20, 3, 11], [4, 9, 1])]).mean(0)
    assert torch.equal(*ours)
    assert float((ours[0] - theirs).norm() / theirs.norm()) <= 1e-5


# ---- a model that leaves our hands is plain ------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_wrapping_and_removing_leave_no_trace(name: str, tmp_path: Any) -> None:
    model = build(name, dropout=0.1)
    run(model, batch([4, 2]))
    model.base_model.eval()  # part in evaluation mode, part in training mode
    model.save_pretrained(tmp_path / "plain")
    modes = [module.training for module in model.modules()]
    kept = [tensor.clone() for tensor in (*model.state_dict().values(), *model.buffers())]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    rng, config = torch.get_rng_state(), model.config.to_json_string()

    with unpad(model) as unpadding_:
        assert unpadding_.active, unpadding_.reason
        assert unpadding_.reason == "padding-free, attention: groups"
        assert model.config._attn_implementation == NAME
        assert hooks(model)
        assert torch.equal(rng, torch.get_rng_state())
        model.save_pretrained(tmp_path / "wrapped")

    assert not unpadding_.active
    assert not hooks(model)
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_json_string() == config
    assert modes == [module.training for module in model.modules()]
    now = [*model.state_dict().values(), *model.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) if grad is None else torch.equal(parameter.grad, grad)
    for file in sorted((tmp_path / "plain").iterdir()):
        assert (tmp_path / "wrapped" / file.name).read_bytes() == file.read_bytes(), file.name
        assert NAME.encode() not in file.read_bytes()
    assert len(list((tmp_path / "wrapped").iterdir())) == len(list((tmp_path / "plain").iterdir()))


def test_eager_is_given_back() -> None:
    model = build("Bert")
    model.set_attn_implementation("eager")
    unpad(model).remove()
    assert model.config._attn_implementation == "eager"


def test_deepcopy(attended: list[Layout]) -> None:
    free, padded, inputs = build("ModernBert"), build("ModernBert"), batch([20, 3, 11])
    first = unpad(free)
    twin = copy.deepcopy(free)
    first.remove()
    attended.clear()
    same(run(twin, inputs), run(padded, inputs))
    assert len(attended) == 2
    count = len(hooks(twin))
    assert unpad(twin).active  # anew, not twice
    assert len(hooks(twin)) == count
    restore(twin)
    assert not hooks(twin)
    assert twin.config._attn_implementation == "sdpa"


def test_a_model_from_our_config_has_no_doors_and_is_right() -> None:
    free, inputs = build("Bert"), batch([9, 2, 4])
    expected = run(build("Bert"), inputs)
    assert unpad(free).active
    other = tf.BertForSequenceClassification(copy.deepcopy(free.config)).train()
    other.load_state_dict(free.state_dict())
    for module in other.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert other.config._attn_implementation == NAME
    same(run(other, inputs), expected)


# ---- models that train padded, and why -----------------------------------------------------------------------


def _padded_models() -> dict[str, tuple[Callable[[], Any], str]]:
    sizes = SIZES | {"initializer_range": 0.02}
    return {
        "DebertaV2": (lambda: tf.DebertaV2Model(tf.DebertaV2Config(**sizes)), "AttentionInterface"),
        "MPNet": (lambda: tf.MPNetModel(tf.MPNetConfig(**sizes)), "AttentionInterface"),
        "Xmod": (
            lambda: tf.XmodModel(tf.XmodConfig(**sizes, languages=["en_XX"], default_language="en_XX")),
            "self-check",
        ),
        "chunks": (
            lambda: tf.BertModel(tf.BertConfig(**sizes, chunk_size_feed_forward=4)),
            "chunk_size_feed_forward",
        ),
        "decoder": (lambda: tf.BertModel(tf.BertConfig(**sizes, is_decoder=True)), "decoder"),
        "encoder-decoder": (
            lambda: tf.BartModel(
                tf.BartConfig(
                    vocab_size=60,
                    d_model=32,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                    encoder_ffn_dim=32,
                    decoder_ffn_dim=32,
                )
            ),
            "decoder",
        ),
        "not transformers": (lambda: nn.Linear(2, 2), "not a transformers model"),
    }


@pytest.mark.parametrize("name", _padded_models())
def test_trains_padded_and_says_why(name: str) -> None:
    make, reason = _padded_models()[name]
    model = make()
    result = unpad(model)
    assert not result.active
    assert result.reason.startswith("padded: ")
    assert reason in result.reason
    assert "\n" not in result.reason
    assert not hooks(model)
    assert getattr(model, "config", tf.BertConfig())._attn_implementation != NAME
    result.remove()


def test_self_check_catches_wrong_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixes_sequences(
        q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float
    ) -> Tensor:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(0, 1)

    def raises(*_: Any) -> Tensor:
        raise RuntimeError("no kernel\nfor this device")

    for wrong, reason in ((mixes_sequences, "differ by"), (raises, "RuntimeError: no kernel")):
        monkeypatch.setattr(padding_free, "attend", wrong)
        for name in ("Bert", "ModernBert"):
            model = build(name)
            result = unpad(model)
            assert not result.active
            assert reason in result.reason
            assert not hooks(model)
            assert model.config._attn_implementation == "sdpa"


def test_self_check_catches_wrong_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation is right in all of these: only gradients, or dropout, are not."""

    def cuts(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
        return attend(q, k.detach(), v, layout, scale, dropout)

    def never_drops(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
        return attend(q, k, v, layout, scale, 0.0)

    def keeps_the_sum(like: Tensor, rate: float) -> tuple[Tensor, float]:
        return torch.empty_like(like).bernoulli_(1 - rate), 1.0  # not scaled

    def fails(*_: Any) -> Tensor:
        raise ImportError("cannot import name 'flash_attn_varlen_func'")

    def no_dropout_kernel(
        q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float
    ) -> Tensor:
        return fails() if dropout > 0 else attend(q, k, v, layout, scale, dropout)

    faults = [
        (padding_free, "attend", cuts, "gradients differ by"),
        (attention_check, "attend", never_drops, "attention drops 0.000 of its weights instead of 0.1"),
        (grouped_attention, "keep", keeps_the_sum, "attention under dropout: output differs"),
        (
            padding_free,
            "attend",
            no_dropout_kernel,
            "ImportError: cannot import name 'flash_attn_varlen_func'",
        ),
    ]
    with (
        monkeypatch.context() as patch
    ):  # nor does half precision hide it, whatever a model's own rounding is
        patch.setattr(padding_free, "attend", cuts)
        for name in ("Bert", "NomicBert", "EuroBert"):
            reason = unpad(build(name, dropout=0.1), torch.bfloat16).reason
            assert "gradients differ by" in reason
    for module, function, fault, reason in faults:
        with monkeypatch.context() as patch:
            patch.setattr(module, function, fault)
            result = unpad(build("Bert", dropout=0.1))
            assert not result.active
            assert reason in result.reason
    assert unpad(build("Bert", dropout=0.1)).active


def test_a_flash_kernel_that_does_not_run_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has none; another version of torch may have another operator, or none."""
    assert not packed_attention.flash_runs("cpu")
    for error in (AttributeError, RuntimeError, TypeError):

        def fails(*_: Any, error: type[Exception] = error, **__: Any) -> Tensor:
            raise error("_flash_attention_forward")

        monkeypatch.setattr(packed_attention, "_flash", fails)
        packed_attention.flash_runs.cache_clear()
        assert not packed_attention.flash_runs("cpu")
    monkeypatch.setattr(packed_attention, "_flash", lambda q, *_: q * float("nan"))
    packed_attention.flash_runs.cache_clear()
    assert not packed_attention.flash_runs("cpu")
    packed_attention.flash_runs.cache_clear()


def test_self_check_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(padding_free, "attend", interrupt)
    model = build("Bert")
    with pytest.raises(KeyboardInterrupt):
        unpad(model)
    assert not hooks(model)
    assert model.training
    assert model.config._attn_implementation == "sdpa"


# ---- the pieces ----------------------------------------------------------------------------------------------


def layout_of(lengths: list[int], window: int | None = None) -> Layout:
    """The layout of ascending lengths in a batch as wide as the longest."""
    longest = max(lengths)
    tokens = runs([row * longest for row in range(len(lengths))], lengths)
    return Layout(len(lengths), longest, lengths, tokens, window, lambda: None)


@pytest.mark.parametrize("cost", [0, GROUP_COST, None])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), window=st.none() | st.integers(1, 6))
def test_attend_is_attention_per_sequence(
    lengths: list[int], window: int | None, dropout: float, cost: int | None
) -> None:
    """Each grouping, with and without the backward written out (its dropout mask held at ones), in float64."""
    lengths = sorted(lengths)
    layout = layout_of(lengths, window)
    generator = torch.Generator().manual_seed(0)
    shape = (sum(lengths), 2, 4)
    q, k, v, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped_attention, "keep", lambda like, rate: (torch.ones_like(like), 1.0))
        patch.setattr(packed_attention, "group_sizes", lambda lengths, _: group_sizes(lengths, cost))
        out = attend(q, k, v, layout, 0.7, dropout)
        got = [out, *torch.autograd.grad(out, leaves, grad)]
    pieces = []
    for q_, k_, v_ in zip(*(x.split(lengths) for x in leaves), strict=True):
        scores = torch.einsum("ihd,jhd->hij", q_, k_) * 0.7
        at = torch.arange(len(q_))
        if window is not None:
            scores = scores.masked_fill((at - at[:, None]).abs() > window, float("-inf"))
        pieces.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v_))
    out = torch.cat(pieces)
    for ours, theirs in zip(got, [out, *torch.autograd.grad(out, leaves, grad)], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_backward_with_dropout() -> None:
    """The backward written out against differences, the same tokens dropped in each of them."""
    shape, layout = (14, 2, 3), layout_of([2, 3, 9])
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def seeded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(7)
        return attend(q, k, v, layout, 0.7, 0.5)

    assert not torch.equal(seeded(*leaves), attend(*leaves, layout, 0.7, 0.0))
    assert torch.autograd.gradcheck(seeded, leaves)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=7), cost=st.integers(0, 2000))
def test_group_sizes_are_the_best(lengths: list[int], cost: int) -> None:
    lengths = sorted(lengths)

    def total(sizes: list[int]) -> int:
        ends = itertools.accumulate(sizes)
        return sum(cost + size * lengths[end - 1] ** 2 for size, end in zip(sizes, ends, strict=True))

    sizes = group_sizes(lengths, cost)
    cuts = itertools.product([False, True], repeat=len(lengths) - 1)
    best = min(
        total([len(list(g)) for _, g in itertools.groupby([0, *itertools.accumulate(c)])]) for c in cuts
    )
    assert sum(sizes) == len(lengths)
    assert total(sizes) == best
    assert group_sizes(lengths, None) == [len(lengths)]


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "flash", "expected"),
    [
        ("cpu", torch.float32, 64, True, "groups"),
        ("cpu", torch.bfloat16, 64, True, "groups"),
        ("cuda", torch.bfloat16, 64, True, "flash"),
        ("cuda", torch.float16, 64, True, "flash"),
        ("cuda", torch.bfloat16, 64, False, "block"),
        ("cuda", torch.float32, 64, True, "block"),
        ("cuda", torch.bfloat16, 20, True, "block"),
        ("cuda", torch.bfloat16, 512, True, "block"),
        ("mps", torch.float16, 64, True, "block"),
    ],
)
def test_choose_kernel(device: str, dtype: torch.dtype, head_dim: int, flash: bool, expected: str) -> None:
    assert choose_kernel(device, dtype, head_dim, lambda: flash) == expected
