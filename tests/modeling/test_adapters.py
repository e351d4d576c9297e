"""A run that saved an adapter: what it needs is named when it is missing, and it goes wherever a model goes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bert_ft
from bert_ft.engine.callbacks import Callback
from bert_ft.modeling.encoder import Encoder

peft = pytest.importorskip("peft")
ROWS = [
    {"text": f"the film {i} is {'warm' if i % 2 else 'dull'}", "label": "good" if i % 2 else "bad"}
    for i in range(24)
]
TEXTS = ["a warm film", "the plot is dull and the jokes fall flat"]
SHARED: dict[str, Any] = {"train": ROWS, "validation": ROWS[:8], "max_steps": 3, "batch_size": 8, "max_length": 24,
                          "learning_rate": 1e-2, "quiet": True, "check": False}  # fmt: skip
ADAPTER = {"rank": 2, "save": "adapter"}


@pytest.fixture
def base(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be moved and changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))


@pytest.fixture
def run(base: Path, tmp_path: Path) -> bert_ft.Run:
    return bert_ft.finetune("classification", base, output=tmp_path / "run", lora=ADAPTER, **SHARED)


def scores(loaded: Any) -> list[float]:
    return [answer["probabilities"]["good"] for answer in loaded.predict(TEXTS)]


def configured(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_base_that_moved_or_changed(run: Any, base: Path, tmp_path: Path) -> None:
    expected = scores(run)
    base.rename(tmp_path / "moved")
    with pytest.raises(
        bert_ft.InputError, match="the checkpoint that this adapter changes is not there"
    ) as caught:
        bert_ft.load(run.path).predict(TEXTS)
    assert "set base_model_name_or_path in its adapter_config.json" in str(caught.value)
    configured(run.path / "model", base_model_name_or_path=str(tmp_path / "moved"))  # as it says
    assert scores(bert_ft.load(run.path)) == pytest.approx(expected, abs=1e-6)
    (tmp_path / "gone").mkdir()
    configured(run.path / "model", base_model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(bert_ft.InputError, match="the checkpoint that this adapter changes is not there"):
        bert_ft.finetune("classification", run.path, output=tmp_path / "next", **SHARED)
    # a run is a checkpoint here, too
    first = bert_ft.finetune("classification", tmp_path / "moved", output=tmp_path / "first", **SHARED)
    second = bert_ft.finetune(
        "classification", first.path, output=tmp_path / "second", lora=ADAPTER, **SHARED
    )
    expected_second = scores(second)
    configured(second.path / "model", base_model_name_or_path=str(first.path))
    assert scores(bert_ft.load(second.path)) == pytest.approx(expected_second, abs=1e-6)
    configured(run.path / "model", base_model_name_or_path=str(tmp_path / "moved"))
    weights = load_file(tmp_path / "moved/model.safetensors")
    weights["embeddings.word_embeddings.weight"][5] += 1
    save_file(weights, tmp_path / "moved/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        bert_ft.InputError, match="the weights of the base are not those that this adapter was trained on"
    ):
        bert_ft.load(run.path).predict(TEXTS)


def test_adapters_of_other_forms_are_refused(run: Any) -> None:
    """Nothing but low-rank changes is read, and of peft's config no key that would import or draw anything."""
    folder = run.path / "model"
    whole = (folder / "adapter_config.json").read_text()
    for changes, message in (
        ({"peft_type": "IA3"}, "an adapter of the kind 'IA3' is not read here"),
        (
            {"megatron_config": {"a": 1}, "megatron_core": "os"},
            "is of a form that is not read here: megatron_co",
        ),
        ({"target_modules": ".*query"}, "target_modules are no names"),
        ({"base_model_name_or_path": None}, "does not say which checkpoint it changes"),
        ({"r": 3}, "the adapter does not fit its base"),
        ({"modules_to_save": None}, "the adapter does not fit its base"),
    ):
        configured(folder, **changes)
        with pytest.raises(bert_ft.InputError, match=message):
            bert_ft.load(folder)
        (folder / "adapter_config.json").write_text(whole)
    (folder / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(
        bert_ft.InputError, match=r"the weights of this adapter can't be read.*\n.*copy the file again"
    ):
        bert_ft.load(folder)


def test_it_goes_wherever_a_model_goes(run: Any, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    expected = scores(run)
    assert json.loads((run.path / "model/adapter_config.json").read_text())["modules_to_save"] == [
        "classifier"
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    done = cli("predict", run.path, tmp_path / "texts.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["probabilities"]["good"] for line in lines] == pytest.approx(expected, abs=1e-6)
    # the card's code is peft's, and gives the same logits
    card = (run.path / "model/README.md").read_text()
    blocks = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
    scopes: list[dict[str, Any]] = [{}, {}]
    for code, names in zip(blocks, scopes, strict=True):
        exec(code.replace("PATH_OF_THIS_MODEL", str(run.path / "model")), names)
    names, own = scopes
    assert [answer["probabilities"]["good"] for answer in own["model"].predict(TEXTS)] == pytest.approx(
        expected
    )
    tokens = run.model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = names["model"].eval()(**tokens).logits.softmax(-1)[:, 1]
    assert found.tolist() == pytest.approx(expected, abs=1e-5) and "library_name: peft" in card
    # merged by peft itself: the same encoder as ours reads, whose head another task replaces
    from transformers import AutoModelForSequenceClassification as Auto

    merged = peft.PeftModel.from_pretrained(
        Auto.from_pretrained(base, num_labels=2), run.path / "model"
    ).merge_and_unload()
    ours = Encoder.load(str(run.path)).body.state_dict()
    three = [row | {"label": f"{row['label']}{i % 3}"} for i, row in enumerate(ROWS)]
    onward = bert_ft.finetune("classification", run.path, output=tmp_path / "next", freeze="encoder",
                              **(SHARED | {"train": three, "validation": three[:8]}))  # fmt: skip
    for name, tensor in merged.bert.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)
        torch.testing.assert_close(onward.model.network.bert.state_dict()[name], tensor, rtol=0, atol=1e-6)
    with pytest.raises(bert_ft.InputError, match="the checkpoint is an adapter itself"):
        bert_ft.finetune("classification", run.path, output=tmp_path / "two", lora=ADAPTER, **SHARED)


def test_what_can_not_be_adapted_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str, **settings: Any) -> None:
        with pytest.raises(bert_ft.InputError, match=message):
            bert_ft.finetune("classification", base, output=tmp_path / "x", **(SHARED | settings))

    refused(
        "no linear module of the layers is called 'q_proj'.*\n.*they are called query, key",
        lora={"targets": ["q_proj"]},
    )
    refused("lora and freeze|freeze and lora", lora={}, freeze=1)
    refused("train_only and lora", lora={}, train_only="norms")
    refused("unknown key 'recipe.lora.rnak'\n  did you mean 'rank'", lora={"rnak": 3})
    refused("unknown key 'recipe.lora.rnak'", **{"lora.rnak": 3})
    refused(
        "saved in float32, whatever run.save_dtype says", lora=ADAPTER, **{"run.save_dtype": "checkpoint"}
    )
    refused("has no norms|begins with 'bert.pooller'", train_only=["bert.pooller"])
    monkeypatch.setitem(sys.modules, "peft", None)
    refused("low-rank changes need the package peft.*\n  pip install 'bert-ft\\[peft\\]'", lora={})


def test_a_network_of_ones_own_has_no_change_left(base: Path, tmp_path: Path) -> None:
    """Neither after a training, whose changes are in its weights then, nor after one that failed."""
    from transformers import AutoModelForSequenceClassification as Auto

    network = Auto.from_pretrained(base, num_labels=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    class Dies(Callback):
        def on_step(self, step: int, entry: Any) -> None:
            raise RuntimeError("the machine dies")

    with pytest.raises(RuntimeError, match="dies"):
        bert_ft.finetune(
            "classification",
            base,
            model=network,
            output=tmp_path / "a",
            lora={},
            callbacks=[Dies()],
            **SHARED,
        )
    assert network.state_dict().keys() == before.keys() and not hasattr(network, "peft_config")
    assert all(p.requires_grad for p in network.parameters())
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert network.state_dict()[name].equal(before[name])
    bert_ft.finetune("classification", base, model=network, output=tmp_path / "b", lora={}, **SHARED)
    after = network.state_dict()
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} == {
        "query",
        "value",
        "classifier",
    }
    adapted = peft.get_peft_model(network, peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(bert_ft.InputError, match="the model has an adapter already"):
        bert_ft.finetune("classification", base, model=adapted, output=tmp_path / "c", lora={}, **SHARED)


def test_an_interrupted_run_answers_with_its_best_weights(base: Path, tmp_path: Path) -> None:
    class Dies(Callback):
        def on_step(self, step: int, entry: Any) -> None:
            if step == 3:
                raise RuntimeError("the machine dies")

    settings = SHARED | {"eval_every": 2, "lora": ADAPTER, "ema": 0.5, "schedule": "constant"}
    with pytest.raises(RuntimeError, match="dies"):
        bert_ft.finetune(
            "classification",
            base,
            output=tmp_path / "cut",
            callbacks=[Dies()],
            **(settings | {"max_steps": 4}),
        )
    whole = bert_ft.finetune(
        "classification", base, output=tmp_path / "whole", **(settings | {"max_steps": 2})
    )
    cut = bert_ft.load(tmp_path / "cut")
    assert "lora" not in " ".join(cut.model.network.state_dict())
    assert scores(cut) == pytest.approx(scores(whole), abs=1e-6)
