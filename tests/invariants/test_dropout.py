"""Promise 11: a speed-up changes no training. Dropout falls where the plain padded model lets it fall, at its rates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from dropouts import Dropout, recorded
from tiny_models import CONFIGS, HEADS, SIZES
from torch import Tensor, nn

import bert_ft
from bert_ft.config.recipe import Recipe
from bert_ft.engine import accelerator, batches, loop, partial
from bert_ft.families.features import Features
from bert_ft.kernels import cpu, last_layer
from bert_ft.kernels.padding_free import unpad

LENGTHS = [23, 3, 11, 1, 17]
QUICK = ("Bert", "Albert", "ModernBert")  # with every head by default
HALVES = {"fp32": None, "bf16": torch.bfloat16, "bf16-steps": torch.bfloat16}
WHOLE = {
    "albert",
    "eurobert",
    "squeezebert",
    "xlm",
}  # last layers that can't be computed for the first token alone
# models whose layers keep their padding: dropout of modules, of functions, of other attentions
PADDED: dict[str, Any] = {
    "DebertaV2": lambda: tf.DebertaV2Config(
        **SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, pooler_dropout=0.2
    ),
    "MPNet": lambda: tf.MPNetConfig(**SIZES),
    "SqueezeBert": lambda: tf.SqueezeBertConfig(
        **SIZES, embedding_size=32, q_groups=2, k_groups=2, v_groups=2
    ),
    "Longformer": lambda: tf.LongformerConfig(**SIZES, attention_window=8),
    "XLM": lambda: tf.XLMConfig(vocab_size=60, emb_dim=32, n_layers=2, n_heads=4, max_position_embeddings=64),
}
MODELS = CONFIGS | PADDED
AUTO = {head: getattr(tf, f"AutoModelFor{head}") for head in HEADS}
PAIRS = [
    (name, head)
    for name, head in itertools.product(MODELS, HEADS)
    if type(MODELS[name]()) in AUTO[head]._model_mapping
    and (name, head) != ("Longformer", "QuestionAnswering")  # wants three separators in each row
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rated(name: str, head: str = "SequenceClassification") -> Any:
    """A tiny random model in training mode with another rate at each kind of place, so that none can stand for another."""
    config = MODELS[name]()
    rates = itertools.cycle([0.11, 0.23, 0.31, 0.17, 0.37])
    for key in sorted(config.to_dict()):
        if "dropout" in key and isinstance(getattr(config, key), (int, float, type(None))):
            setattr(config, key, next(rates))
    torch.manual_seed(0)
    return AUTO[head].from_config(config).train()


class Headed:
    """The least of an adapter: the head's own logits, and a loss a row."""

    def __init__(self, task: bert_ft.Task) -> None:
        self.task = task

    def logits(self, outputs: Any) -> Tensor:
        return (
            outputs.logits
            if "logits" in outputs
            else torch.stack([outputs.start_logits, outputs.end_logits], -1)
        )

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        return logits.flatten(1).mean(1)


def features(lengths: list[int] = LENGTHS) -> Features:
    ids = np.random.default_rng(0).integers(4, 60, sum(lengths)).astype(np.int32)
    return Features(np.cumsum([0, *lengths]), {"input_ids": ids}, {}, np.ones(len(lengths)))


def reads_one(model: Any) -> bool:
    """Whether of the last layer only the first token is computed."""
    return "SequenceClassification" in type(model).__name__ and model.config.model_type not in WHOLE


def ours(model: Any, precision: str, lean: bool, free: bool, first: bool = True) -> list[Dropout]:
    """The dropouts of one optimizer step of the engine."""
    task = bert_ft.load_task("classification").override(
        {"max_steps": 1, "batch_size": len(LENGTHS), "batching.lean": lean, "recipe.precision": precision}
    )
    handle = unpad(model, HALVES[precision]) if free else None
    narrowing = last_layer.narrow(model, HALVES[precision]) if first else None
    with recorded(model, LENGTHS) as record:
        trained = SimpleNamespace(network=model, adapter=Headed(task), tokenizer=SimpleNamespace(pad_token_id=1),
                                  accelerator=accelerator.accelerator(precision, training=True), sharing=None)  # fmt: skip
        loop.train(
            trained, features(), evaluate=lambda: {"validation": {"accuracy": 0.0}}, log=lambda entry: None
        )
    assert handle is None or handle.active
    assert narrowing is None or narrowing.active == reads_one(model), narrowing.reason
    return record


def theirs(model: Any, precision: str) -> list[Dropout]:
    """The dropouts of a forward of `transformers` alone, padded."""
    inputs, _ = batches.collate(features(), np.arange(len(LENGTHS)), 1, torch.device("cpu"))
    half = HALVES[precision]
    with recorded(model, LENGTHS) as record, torch.autocast("cpu", half, enabled=half is not None):
        model(**inputs)
    return record


@pytest.mark.parametrize(("name", "head", "precision"), [
    pytest.param(*pair, precision, marks=() if "Sequence" in pair[1] or (precision == "fp32" and pair[0] in QUICK) else pytest.mark.slow)
    for pair in PAIRS for precision in ("fp32", "bf16")
])  # fmt: skip
def test_the_same_places_rates_and_tensors(name: str, head: str, precision: str) -> None:
    expected = theirs(rated(name, head), precision)
    assert len(expected) >= 2, "a layer drops at least its attention"
    frees = [True, False] if name in CONFIGS else [False]
    ways = [(lean, free, "Sequence" in head) for lean, free in itertools.product([True, False], frees)]
    if "Sequence" in head:
        ways.append((True, frees[0], False))
    for lean, free, first in ways:
        record = ours(rated(name, head), precision, lean, free, first)
        assert record == expected, f"lean={lean}, padding-free={free}, first token only={first}"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-steps"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "ModernBert"])
def test_the_recipes_of_the_papers_keep_every_dropout(name: str, precision: str) -> None:
    """With a rate of its own before the head, and with half of the network frozen: the list of a plain padded model
    that is treated alike, lean or not, padded or not."""
    recipe = Recipe(head_dropout=0.37, freeze=1)

    def treated() -> Any:
        model = rated(name, "SequenceClassification")
        partial.fit(model, recipe, [])
        return model

    expected = theirs(treated(), precision)
    assert {drop.rate for drop in expected if not drop.place.startswith(treated().base_model_prefix)} == {
        0.37
    }
    assert len({drop.rate for drop in expected}) > 1
    for lean, free in ((True, True), (True, False), (False, True)):
        assert ours(treated(), precision, lean, free) == expected, (lean, free)


def mutations(model: Any) -> Iterator[str]:
    """Faults of one layer, one rate and one dtype each, set into the model, and taken back."""
    layer = model.bert.encoder.layer[1]
    for module, where in ((layer.attention.self, "attention"), (layer.output, "hidden"), (model, "head")):
        kept = module.dropout.p
        for rate, what in ((0.0, "off"), (kept + 0.01, "of another rate")):
            module.dropout.p = rate
            yield f"{where}, {what}"
        module.dropout.p = kept
    handle = layer.output.dropout.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    back = layer.output.dropout.register_forward_hook(lambda module, inputs, output: output.float())
    yield "hidden, of another dtype"
    handle.remove()
    back.remove()
    model.dropout.forward, forward = (lambda x: x), model.dropout.forward
    yield "head, its forward replaced"
    model.dropout.forward = forward


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("free", [True, False])
def test_the_record_sees_a_fault_of_one_layer(lean: bool, free: bool) -> None:
    expected = theirs(rated("Bert"), "fp32")
    model = rated("Bert")
    count = 0
    for fault in mutations(model):
        if fault.endswith("replaced") and lean:
            continue  # lean steps put their own there
        count += 1
        assert ours(model, "fp32", lean, free) != expected, fault
    assert count >= 7
    assert ours(rated("Bert"), "fp32", lean, free) == expected


DRAWS, COPIES, SHORT = 2000, 50, [9, 2, 5]


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, its squared standard error, variance, its squared standard error; over the first dimension."""
    n, mean, variance = len(x), x.mean(0), x.var(0)
    fourth = (x - mean).pow(4).mean(0)
    return mean, variance / n, variance, (fourth - variance**2) / n


def draws(model: Any, lean: bool) -> Tensor:
    """(DRAWS, logits and loss) of one batch under dropout: many copies of its rows in a forward, each a draw of its own."""
    inputs, _ = batches.collate(
        features(SHORT * COPIES), np.arange(len(SHORT) * COPIES), 1, torch.device("cpu")
    )
    inputs["input_ids"] = inputs["input_ids"][: len(SHORT)].repeat(COPIES, 1)
    labels = torch.arange(len(SHORT)) % 2
    torch.manual_seed(1)
    results = []
    with cpu.lean(model, lean), torch.no_grad():
        for _ in range(DRAWS // COPIES):
            logits = (
                model(**inputs).logits.reshape(COPIES, len(SHORT), -1)[..., :2].double()
            )  # a tagger's first token
            losses = nn.functional.cross_entropy(
                logits.transpose(1, 2), labels.expand(COPIES, -1), reduction="none"
            )
            results.append(torch.cat([logits.flatten(1), losses.mean(1, keepdim=True)], 1))
    return torch.cat(results)


def differences(ours: Tensor, theirs: Tensor) -> Tensor:
    """Differences of the means and of the variances, in standard errors."""
    (mean, mean_error, variance, variance_error), expected = moments(ours), moments(theirs)
    means = (mean - expected[0]) / (mean_error + expected[1]).sqrt()
    variances = (variance - expected[2]) / (variance_error + expected[3]).sqrt()
    return torch.cat([means, variances]).abs()


def only_attention(model: Any) -> Any:
    """The model with no other dropout left: what varies then varies by attention alone."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not (
            name.endswith(("self.dropout", "attention.dropout", "attention_dropout"))
        ):
            module.p = 0.0
    return model


@pytest.mark.parametrize(
    "model_of", [rated, lambda *names: only_attention(rated(*names))], ids=["all", "attention"]
)
@pytest.mark.parametrize(("name", "head"), [
    pytest.param(*pair, marks=() if pair[0] in QUICK and "Sequence" in pair[1] else pytest.mark.slow)
    for pair in PAIRS if pair[1] != "QuestionAnswering"
])  # fmt: skip
def test_losses_and_logits_have_the_same_distribution(name: str, head: str, model_of: Any) -> None:
    expected = draws(model_of(name, head), lean=False)
    assert (expected.var(0) > 0).all()
    free = model_of(name, head)
    assert unpad(free).active == (name in CONFIGS)
    assert last_layer.narrow(free).active == reads_one(free)
    result = draws(free, lean=True)
    assert float(differences(result, expected).max()) < 4


def test_the_distribution_sees_attention_dropout_that_is_off() -> None:
    expected = draws(only_attention(rated("Bert")), lean=False)
    model = only_attention(rated("Bert"))
    model.bert.encoder.layer[1].attention.self.dropout.p = 0.0
    assert unpad(model).active and last_layer.narrow(model).active
    assert float(differences(draws(model, lean=True), expected).max()) > 6
