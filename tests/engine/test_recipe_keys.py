"""Recipes of papers: rates by layer, what is frozen, drawn anew or dropped, Adam without its correction, schedules; each
beside a plain loop that is written out here."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tiny_models import CONFIGS, SIZES

import bert_ft
from bert_ft.config.recipe import SCHEDULE_KEYS, Recipe
from bert_ft.engine import batches, optimization, parameters, partial
from bert_ft.engine.callbacks import Callback

HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


def model(name: str, head: str = "SequenceClassification") -> Any:
    torch.manual_seed(0)
    config = tf.DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]) \
        if name == "DebertaV2" else CONFIGS[name]()  # fmt: skip
    return getattr(tf, f"{name}For{head}")(config)


# --- rates by layer

EMBEDDINGS, TOP = 0, 99
BY_HAND: dict[str, list[tuple[str, int]]] = {  # the first expression that a name matches says where it stands
    "Bert": [(r"bert\.embeddings\.", 0), (r"bert\.encoder\.layer\.(\d+)\.", 1), (r"bert\.pooler|classifier|qa_", TOP)],
    "Roberta": [(r"roberta\.embeddings\.", 0), (r"roberta\.encoder\.layer\.(\d+)\.", 1), (r"classifier|qa_", TOP)],
    "DistilBert": [(r"distilbert\.embeddings\.", 0), (r"distilbert\.transformer\.layer\.(\d+)\.", 1),
                   (r"pre_classifier|classifier|qa_", TOP)],
    "Albert": [(r"albert\.(embeddings|encoder\.embedding_hidden_mapping_in)\.", 0),
               (r"albert\.encoder\.albert_layer_groups\.(\d+)\.", 1), (r"albert\.pooler|classifier|qa_", TOP)],
    "Electra": [(r"electra\.embeddings(_project)?\.", 0), (r"electra\.encoder\.layer\.(\d+)\.", 1), (r"classifier|qa_", TOP)],
    "DebertaV2": [(r"deberta\.(embeddings|encoder\.rel_embeddings)\.", 0), (r"deberta\.encoder\.layer\.(\d+)\.", 1),
                  (r"pooler|classifier|qa_", TOP)],
    "ModernBert": [(r"model\.embeddings\.", 0), (r"model\.layers\.(\d+)\.", 1), (r"model\.final_norm|head|classifier|qa_", TOP)],
}  # fmt: skip


def by_hand(name: str, parameter: str, layers: int) -> int:
    """0 for the embeddings, 1 ... n for the layers, n + 2 above them."""
    for expression, place in BY_HAND[name]:
        if found := re.match(expression, parameter):
            return layers + 2 if place == TOP else int(found[1]) + 1 if place == 1 else 0
    raise AssertionError(parameter)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", BY_HAND)
def test_rates_fall_from_the_head_to_the_embeddings(name: str, head: str) -> None:
    """ELECTRA's formula, and weight decay as without it: no parameter is left out, none is in two groups."""
    network = model(name, head)
    layers = 1 if name == "Albert" else 2
    recipe = Recipe(learning_rate=1e-3, layer_decay=0.8, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimization.groups(network, recipe)
        for parameter in group["params"]
    }
    plain = {
        names[id(parameter)]: group["weight_decay"]
        for group in optimization.groups(network, Recipe(weight_decay=0.1))
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in optimization.groups(network, recipe)) == len(names)
    for parameter, (rate, decay) in found.items():
        expected = 1e-3 * 0.8 ** (layers + 2 - by_hand(name, parameter, layers))
        assert rate == pytest.approx(expected, rel=1e-9), parameter
        assert decay == plain[parameter]
    assert found.keys() == plain.keys() == set(names.values())
    apart = Recipe(learning_rate=1e-3, head_learning_rate=0.5)
    high = {
        names[id(p)]
        for group in optimization.groups(network, apart)
        if group["lr"] == 0.5
        for p in group["params"]
    }
    prefix = network.base_model_prefix + "."
    assert high == {parameter for parameter in found if not parameter.startswith(prefix)}


def test_layers_of_encoders_that_are_built_otherwise() -> None:
    """XLM's parts of a layer stand in lists side by side; a decoder's layers come after the encoder's."""
    xlm = parameters.depths(
        tf.XLMForSequenceClassification(tf.XLMConfig(emb_dim=16, n_layers=3, n_heads=2, vocab_size=50))
    )
    assert xlm.layers == 3
    assert xlm.of["transformer.attentions.2.q_lin.weight"] == xlm.of["transformer.ffns.2.lin1.weight"] == 3
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 50}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    bart = parameters.depths(
        tf.BartForSequenceClassification(tf.BartConfig(encoder_layers=2, decoder_layers=3, **sizes, **heads))
    )
    assert bart.layers == 5 and bart.of["model.decoder.layers.0.fc1.weight"] == 3
    t5 = tf.T5ForQuestionAnswering(
        tf.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, vocab_size=50)
    )
    assert parameters.depths(t5).head == {"qa_outputs.weight", "qa_outputs.bias"}


# --- what is trained


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("freeze", ["embeddings", 1, "encoder"])
def test_what_is_frozen(name: str, freeze: Any) -> None:
    network = model(name)
    layers = 1 if name == "Albert" else 2
    frozen = set(partial.frozen(network, Recipe(freeze=freeze), ["bert.pooler.dense.weight"]))
    for parameter, _ in network.named_parameters():
        depth = by_hand(name, parameter, layers)
        of_encoder = parameter.startswith(network.base_model_prefix + ".")
        expected = of_encoder if freeze == "encoder" else depth <= (0 if freeze == "embeddings" else 1)
        expected = expected and parameter != "bert.pooler.dense.weight"  # said to be new
        assert (parameter in frozen) == expected, parameter


def test_what_can_not_be_frozen_or_drawn_anew_is_refused() -> None:
    network = model("Bert")
    with pytest.raises(bert_ft.InputError, match="3 layers, but the encoder has 2"):
        partial.frozen(network, Recipe(freeze=3), [])
    with pytest.raises(bert_ft.InputError, match="3 layers, but the encoder has 2"):
        parameters.reinitialize(network, 3)
    with pytest.raises(bert_ft.InputError, match="no parameter's name begins with 'encoder"):
        partial.frozen(network, Recipe(freeze=["bert.embeddings", "encoder.layer"]), [])
    names = partial.frozen(network, Recipe(freeze=["bert.embeddings", "bert.encoder.layer.1."]), [])
    assert {name.split(".")[1] for name in names} == {"embeddings", "encoder"}
    with pytest.raises(bert_ft.InputError, match="no dropout before its head"):
        parameters.set_head_dropout(model("Bert", "QuestionAnswering"), 0.2)


@pytest.mark.parametrize("value", [-1, True, "bert.embeddings", [], [""], 0.5])
def test_what_freeze_means_is_said(value: Any) -> None:
    with pytest.raises(ValueError, match=r'"embeddings", "encoder", a number of layers from 0, or a list'):
        Recipe(freeze=value)


def test_a_network_of_ones_own_is_left_as_it_was(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Frozen for one training only, its dropouts as before, also after an error; what is drawn anew is trained."""
    network = tf.AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    network.bert.encoder.layer[1].requires_grad_(False)
    before = {name: p.requires_grad for name, p in network.named_parameters()}
    shared = {
        "train": ROWS,
        "validation": ROWS[:8],
        "max_steps": 1,
        "max_length": 32,
        "quiet": True,
        "model": network,
    }
    run = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "a", reinitialize=1, head_dropout=0.7,
                           freeze="embeddings", **shared)  # fmt: skip
    parts = {row["part"]: row for row in run.results["parameters"]}
    assert (
        parts["layer 2"]["trained"] == parts["layer 2"]["parameters"] and not parts["embeddings"]["trained"]
    )
    assert {name: p.requires_grad for name, p in network.named_parameters()} == before
    assert network.dropout.p == 0.1
    with pytest.raises(bert_ft.InputError, match="'classifier' is of the head, or new"):
        bert_ft.finetune(
            "classification", tiny_checkpoint, output=tmp_path / "b", freeze=["classifier"], **shared
        )
    network.requires_grad_(False)
    with pytest.raises(bert_ft.InputError, match="nothing is left to train"):
        bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "c", **shared)


@pytest.mark.parametrize("name", BY_HAND)
def test_layers_are_drawn_as_transformers_draws_new_ones(name: str) -> None:
    """The highest layer and the pooler, and nothing else; the same draws as a fresh model's have that distribution."""
    network = model(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(1)
    drawn = set(parameters.reinitialize(network, 1))
    layers = 1 if name == "Albert" else 2
    for parameter, values in network.named_parameters():
        of_encoder = parameter.startswith(network.base_model_prefix + ".")
        expected = of_encoder and by_hand(name, parameter, layers) >= layers
        assert (parameter in drawn) == expected, parameter
        assert bool((values == 7.0).all()) == (not expected), parameter
        if expected and values.dim() == 2:
            # ModernBERT's own rule divides by the depth where a layer writes to the residual stream
            spread = values.std().item() / network.config.initializer_range
            assert 0.3 < spread < 1.3, (parameter, spread)
        if expected and parameter.endswith("bias"):
            assert bool((values == 0).all()), parameter


@pytest.mark.parametrize(
    "name", ["Bert", "Roberta", "DistilBert", "Albert", "Electra", "DebertaV2", "ModernBert"]
)
def test_dropout_before_the_head(name: str) -> None:
    """Every dropout between the encoder and the logits, and no other; DeBERTa's pooler has a rate of its own."""
    network = model(name)
    before = {
        name: module.p for name, module in network.named_modules() if isinstance(module, torch.nn.Dropout)
    }
    parameters.set_head_dropout(network, 0.37)
    after = {
        name: module.p for name, module in network.named_modules() if isinstance(module, torch.nn.Dropout)
    }
    changed = {name for name in after if after[name] != before[name]}
    prefix = network.base_model_prefix + "."
    assert changed == {name for name in after if not name.startswith((prefix, "pooler."))} and changed


# --- schedules


def formula(kind: str, step: int, steps: int, warmup: int) -> float:
    """The share of the peak at a step, as the sources write it, with a floor of 0.1, power 2, a fifth of cooldown."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (steps - warmup)
    return {
        "polynomial": 0.9 * (1 - done) ** 2 + 0.1,
        "cosine": 0.9 * (1 + math.cos(math.pi * done)) / 2 + 0.1,
        "inverse_sqrt": (warmup / step) ** 0.5,
        "constant_with_cooldown": 1 - 0.9 * max(0.0, (step - (steps - 0.2 * steps)) / (0.2 * steps)),
    }[kind]


@pytest.mark.parametrize("kind", ["polynomial", "cosine", "inverse_sqrt", "constant_with_cooldown"])
def test_schedules(kind: str) -> None:
    keys = {"schedule_floor": 0.1, "schedule_power": 2, "cooldown_ratio": 0.2}
    mine = {key: value for key, value in keys.items() if kind in SCHEDULE_KEYS[key]}
    recipe = Recipe(learning_rate=0.01, schedule=kind, warmup_steps=10, layer_decay=0.5, **mine)
    for key in keys.keys() - mine.keys():
        with pytest.raises(ValueError, match=f"{key} is for the schedules .*, not for {kind}"):
            Recipe(schedule=kind, warmup_steps=10, **{key: keys[key]})
    built = optimization.optimizer(model("Bert"), recipe)
    scheduler = optimization.schedule(built, recipe, 50)
    peaks = [group["lr"] for group in optimization.groups(model("Bert"), recipe)]
    for step in range(50):
        share = formula(kind, step, 50, 10)
        assert scheduler.get_last_lr() == pytest.approx([peak * share for peak in peaks]), step
        scheduler.step()


def test_a_warmup_as_long_as_the_training() -> None:
    for kind in ("polynomial", "cosine", "linear", "inverse_sqrt"):
        recipe = Recipe(schedule=kind, warmup_steps=2, learning_rate=1.0)
        scheduler = optimization.schedule(optimization.optimizer(model("Bert"), recipe), recipe, 2)
        scheduler.step()
        assert scheduler.get_last_lr() == [pytest.approx(0.5)] * len(scheduler.get_last_lr()), kind
    long = Recipe(schedule="constant_with_cooldown", warmup_ratio=0.5, cooldown_ratio=0.8)
    with pytest.raises(
        bert_ft.InputError, match="5 steps of warmup and 8 of cooldown are more than the 10 of this training"
    ):
        optimization.schedule(optimization.optimizer(model("Bert"), long), long, 10)
    with pytest.raises(ValueError, match="set warmup_ratio"):
        Recipe(schedule="inverse_sqrt")


# --- fifty steps beside a plain loop

LABELS = ("bad", "good")
ROWS = [
    {"text": f"the {'warm' if i % 2 else 'dull'} film {i % 7} is {word}", "label": LABELS[i % 2]}
    for i, word in enumerate(["brave", "slow", "a riddle", "long and sad", "fine"] * 8)
]
RECIPES: dict[str, dict[str, Any]] = {
    "layer_decay": {"layer_decay": 0.7, "weight_decay": 0.1},
    "head_learning_rate": {"head_learning_rate": 2e-2},
    "no_bias_correction": {"bias_correction": False, "weight_decay": 0.1, "learning_rate": 5e-4},
    "frozen": {"freeze": 1},
    "encoder": {"freeze": "encoder", "head_learning_rate": 5e-2},
    "drawn_anew": {"reinitialize": 1, "layer_decay": 0.9},
    "polynomial": {"schedule": "polynomial", "schedule_power": 2.0, "schedule_floor": 0.1},
    "biases": {"train_only": "biases", "learning_rate": 1e-2},
    "norms": {"train_only": "norms", "learning_rate": 1e-2},
    "lora": {"lora": {"rank": 2, "alpha": 6.0}, "learning_rate": 1e-2},
    "average": {"ema": 0.9},
}


class AtStart(Callback):
    """Keeps the network as training begins with it, and what it is trained on."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def on_start(self, plan: batches.Plan, features: Any) -> None:
        self.state = copy.deepcopy(self.network.state_dict())
        self.trained = {name for name, p in self.network.named_parameters() if p.requires_grad}
        self.plan, self.features = plan, features


@pytest.mark.parametrize(("variant", "accumulation"), [
    ("layer_decay", 2), ("no_bias_correction", 1), ("lora", 2), ("average", 1),
    *[pytest.param(variant, 1, marks=pytest.mark.slow) for variant in ("drawn_anew", "head_learning_rate", "frozen", "encoder",
                                                                       "polynomial", "layer_decay", "biases", "norms", "lora")],
    *[pytest.param(variant, 2, marks=pytest.mark.slow) for variant in ("no_bias_correction", "frozen", "biases", "average")],
])  # fmt: skip
def test_fifty_steps_of_a_plain_loop(
    tiny_checkpoint: Path, tmp_path: Path, variant: str, accumulation: int
) -> None:
    """Adam, clipping, rates and schedule are written out below; the network runs padded, as `transformers` has it.
    In double precision: fifty steps of Adam make the rounding of float32 as large as a fault would be (up to
    2e-5, another at every start). What is left comes from the factor of clipping, which the optimizer takes in
    float32."""
    torch.manual_seed(0)  # of the head
    network = tf.AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2).double()
    start = AtStart(network)
    settings = {"learning_rate": 3e-3, "batch_size": 8, "dropout": 0.0, "max_steps": 50, "warmup_steps": 5}
    settings |= {"keep": "last", "log_every": 1, "precision": "fp32", "eval_every": 50, "max_length": 32}
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network.config.attention_probs_dropout_prob = 0.0
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, train=ROWS, validation=ROWS[:8], model=network, callbacks=[start],
        output=tmp_path / "run", quiet=True, gradient_accumulation_steps=accumulation, **(settings | RECIPES[variant]),
    )  # fmt: skip
    ours = [line["loss"] for line in run.log if "loss" in line]
    plain = tf.AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2).double()
    if "lora" in RECIPES[variant]:
        for layer in plain.bert.encoder.layer:
            layer.attention.self.query = LowRank(layer.attention.self.query, rank=2, alpha=6.0)
            layer.attention.self.value = LowRank(layer.attention.self.value, rank=2, alpha=6.0)
    plain.load_state_dict(start.state)
    average = torch.optim.swa_utils.AveragedModel(
        plain, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    theirs = plain_loop(plain.eval(), start, RECIPES[variant], average)
    assert len(ours) == len(theirs) == 50
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)  # logits are made float32
    assert max(ours) - min(ours) > 0.02, "nothing was learned"
    if variant in ("biases", "norms"):
        part = {"biases": r"\.bias$", "norms": r"LayerNorm"}[variant]
        assert start.trained == {n for n in start.state if re.search(rf"{part}|classifier", n)}
    if "lora" in RECIPES[variant]:
        assert all(re.search("lora_|classifier", name) for name in start.trained)
        for module in [module for module in plain.modules() if isinstance(module, LowRank)]:
            merged = (
                module.base_layer.weight
                + 3 * module.lora_B["default"].weight @ module.lora_A["default"].weight
            )
            assert not torch.equal(merged, module.base_layer.weight)
            module.base_layer.weight.data.copy_(merged.detach())
    final = average.module if "ema" in RECIPES[variant] else plain
    for name, values in final.named_parameters():
        if "lora_" in name or ".base_layer." in name:
            if name.endswith("base_layer.weight"):
                assert torch.allclose(
                    values, network.get_parameter(name.replace(".base_layer", "")), atol=1e-5
                ), name
            continue
        if not name.endswith("key.bias"):  # whose gradient is rounding alone, and Adam makes it large
            assert torch.allclose(values, network.get_parameter(name), rtol=1e-5, atol=1e-5), name
        assert bool((values == start.state[name]).all()) == (name not in start.trained), name


class LowRank(torch.nn.Module):
    """Hu et al. 2021, equation 3, under the names that peft gives the matrices."""

    def __init__(self, base: torch.nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base_layer, self.scale, dtype = base, alpha / rank, base.weight.dtype
        self.lora_A = torch.nn.ModuleDict(
            {"default": torch.nn.Linear(base.in_features, rank, bias=False, dtype=dtype)}
        )
        self.lora_B = torch.nn.ModuleDict(
            {"default": torch.nn.Linear(rank, base.out_features, bias=False, dtype=dtype)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.scale * self.lora_B["default"](self.lora_A["default"](x))


def plain_loop(network: Any, start: AtStart, recipe: dict[str, Any], average: Any) -> list[float]:
    """Losses of the steps of AdamW, written out; `average` takes the weights into account after each."""
    averages: dict[str, list[torch.Tensor]] = {}
    losses = []
    for step, rows in start.plan.batches():
        inputs, values = batches.collate(start.features, rows, 0, torch.device("cpu"))
        network.zero_grad()
        loss = network(**inputs, labels=values["labels"]).loss
        loss.backward()
        losses.append(loss.item())
        named = {name: p for name, p in network.named_parameters() if name in start.trained}
        norm = torch.sqrt(sum((p.grad**2).sum() for p in named.values()))
        for name, p in named.items():
            gradient = p.grad * min(1.0, 1.0 / (norm.item() + 1e-6))
            m, v = averages.setdefault(name, [torch.zeros_like(p), torch.zeros_like(p)])
            m.mul_(0.9).add_(0.1 * gradient)
            v.mul_(0.999).add_(0.001 * gradient**2)
            corrected = recipe.get("bias_correction", True)
            first = 1 - 0.9 ** (step + 1) if corrected else 1
            second = 1 - 0.999 ** (step + 1) if corrected else 1
            rate = rate_of(name, recipe) * share_of(step, recipe)
            decay = recipe.get("weight_decay", 0.0) * (not re.search(r"bias|LayerNorm", name))
            with torch.no_grad():
                p -= rate * (m / first / (torch.sqrt(v / second) + 1e-8) + decay * p)
        average.update_parameters(network)
    return losses


def rate_of(name: str, recipe: dict[str, Any]) -> float:
    if name.startswith("classifier") and "head_learning_rate" in recipe:
        return float(recipe["head_learning_rate"])
    return float(
        recipe.get("learning_rate", 3e-3)
        * recipe.get("layer_decay", 1.0) ** (2 + 2 - by_hand("Bert", name, 2))
    )


def share_of(step: int, recipe: dict[str, Any]) -> float:
    if recipe.get("schedule") == "polynomial":
        return formula("polynomial", step, 50, 5)
    return step / 5 if step < 5 else (50 - step) / 45


# --- a run from end to end


@pytest.mark.parametrize("settings", [
    {"layer_decay": 0.8, "bias_correction": False, "reinitialize": 1},
    pytest.param({"freeze": "encoder"}, marks=pytest.mark.slow),
    {"lora": {"rank": 2, "dropout": 0.1}, "ema": 0.8, "keep": "best", "eval_every": 6},
    pytest.param({"reinitialize": 1, "freeze": 1}, marks=pytest.mark.slow),
    pytest.param({"reinitialize": 1, "lora": {"targets": "all-linear"}}, marks=pytest.mark.slow),
])  # fmt: skip
def test_an_interrupted_run_ends_as_one_that_was_not(
    tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Bit for bit, dropout on: Adam's state without its correction, and what is frozen, come back."""
    shared = {"train": ROWS, "validation": ROWS[:8], "learning_rate": 3e-3, "batch_size": 8, "max_steps": 12,
              "max_length": 32, "quiet": True, "save_every": 5, "keep": "last", **settings}  # fmt: skip
    whole = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "whole", **shared)

    class Stop(Callback):
        def on_step(self, step: int, entry: Any) -> None:
            if step == 8:
                raise RuntimeError("the machine dies")

    with pytest.raises(RuntimeError, match="dies"):
        bert_ft.finetune(
            "classification", tiny_checkpoint, output=tmp_path / "cut", callbacks=[Stop()], **shared
        )
    cut = bert_ft.finetune("classification", tiny_checkpoint, output=tmp_path / "cut", **shared)
    files = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, cut)]
    assert files[0] == files[1]
    assert [line["loss"] for line in whole.log if "loss" in line] == [
        line["loss"] for line in cut.log if "loss" in line
    ]


def test_what_is_trained_is_shown_and_recorded(
    reviews: Path, tiny_checkpoint: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    done = cli(
        "train", "classification", "--train", reviews / "train.csv", "--validation", reviews / "validation.csv",
        "--checkpoint", tiny_checkpoint, "--max-steps", "2", "--output", "run", "--set", "freeze=1",
        "--set", "layer_decay=0.5", "--set", "head_learning_rate=0.1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "embeddings: 0 of " in done.err and "layer 1: 0 of " in done.err and "frozen" in done.err
    results = json.loads((tmp_path / "run/results.json").read_text())
    parts = {row["part"]: row for row in results["parameters"]}
    assert list(parts) == ["embeddings", "layer 1", "layer 2", "above the layers", "head"]
    assert parts["layer 1"]["trained"] == 0 and parts["layer 1"]["learning_rate"] is None
    assert parts["layer 2"]["learning_rate"] == pytest.approx(3e-5 * 0.25)
    assert (
        parts["head"]["learning_rate"] == 0.1
        and parts["head"]["trained"] == parts["head"]["parameters"] == 66
    )
    assert "what was trained" in (tmp_path / "run/report.html").read_text()
    again = cli("train", "classification", "--train", reviews / "train.csv", "--validation", reviews / "validation.csv",
                "--checkpoint", tiny_checkpoint, "--output", "other", "--set", "freeze=7")  # fmt: skip
    assert again.code == 2 and "7 layers, but the encoder has 2" in again.err


def test_a_new_pooler_is_trained_in_a_frozen_encoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint of masked language modelling has no pooler: what is drawn must not stay as it was drawn."""
    folder = tmp_path / "mlm"
    tf.AutoModelForMaskedLM.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    tf.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    run = bert_ft.finetune("classification", folder, train=ROWS, validation=ROWS[:8], max_steps=2, max_length=32,
                           freeze="encoder", output=tmp_path / "run", quiet=True)  # fmt: skip
    parts = {row["part"]: row for row in run.results["parameters"]}
    assert parts["above the layers"]["trained"] == parts["above the layers"]["parameters"] > 0
    assert parts["layer 2"]["trained"] == 0 and parts["embeddings"]["trained"] == 0


def test_pairs_in_both_orders(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pairs = [{"text": f"film {i}", "text_pair": f"the film {i}", "label": LABELS[i % 2]} for i in range(10)]
    seen: list[Any] = []

    class Look(Callback):
        def on_start(self, plan: batches.Plan, features: Any) -> None:
            seen.append((len(features), features.tokens["input_ids"].tolist()))

    shared = {"validation": pairs[:2], "max_steps": 1, "max_length": 32, "quiet": True, "callbacks": [Look()]}
    shared |= {"data.columns": {"text_pair": "text_pair"}}
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, train=pairs, both_orders=True, output=tmp_path / "a", **shared
    )
    exchanged = [{**row, "text": row["text_pair"], "text_pair": row["text"]} for row in pairs]
    bert_ft.finetune(
        "classification", tiny_checkpoint, train=pairs + exchanged, output=tmp_path / "b", **shared
    )
    assert seen[0] == seen[1] and seen[0][0] == 20
    assert any("each pair also in reverse order, 20 rows in all" in note for note in run.results["notes"])
    with pytest.raises(bert_ft.InputError, match="the rows have no second text"):
        bert_ft.finetune("classification", tiny_checkpoint, train=ROWS, validation=ROWS, both_orders=True,
                         output=tmp_path / "c", quiet=True)  # fmt: skip
