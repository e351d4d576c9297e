"""Intermediate training: a checkpoint's head is kept for the task it was made for; else it alone is new, and it is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import bert_ft
from bert_ft.config.schema import RunSpec
from bert_ft.families.classification.adapter import Classification
from bert_ft.modeling import pretrained

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
MODELS = {"Bert": SMALL, "Roberta": SMALL, "DistilBert": DISTIL}
ABC = {0: "a", 1: "b", 2: "c"}
SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "regression": ("SequenceClassification", {"num_labels": 1, "problem_type": "regression"}),
    "abc": ("SequenceClassification", {"id2label": ABC, "problem_type": SINGLE}),
    "abc, not said": ("SequenceClassification", {"id2label": ABC}),
    "abc, several": ("SequenceClassification", {"id2label": ABC, "problem_type": SEVERAL}),
    "cba": ("SequenceClassification", {"id2label": {0: "c", 1: "b", 2: "a"}, "problem_type": SINGLE}),
    "xyz": ("SequenceClassification", {"id2label": {0: "x", 1: "y", 2: "z"}, "problem_type": SINGLE}),
    "xy": ("SequenceClassification", {"id2label": {0: "x", 1: "y"}, "problem_type": SINGLE}),
    "tags": ("TokenClassification", {"id2label": ABC}),
    "answers": ("QuestionAnswering", {}),
    "words": ("MaskedLM", {}),
}


def classes(labels: list[str], problem: str = SINGLE) -> Classification:
    task = bert_ft.load_task("classification").override(
        {"data.problem_type": problem, "data.labels": labels or None}
    )
    return Classification(task, labels)


def other(head: str, config: dict[str, Any]) -> Any:
    """What `load_model` needs of an adapter of another family."""
    names = list(config.get("id2label", {}).values())
    return SimpleNamespace(head=f"AutoModelFor{head}", config=lambda: config, names=names, labels=list(names),
                           task=bert_ft.load_task("classification"))  # fmt: skip


TARGETS = {
    "abc": lambda: classes(["a", "b", "c"]),
    "abc, several": lambda: classes(["a", "b", "c"], SEVERAL),
    "regression": lambda: classes([], "regression"),
    "tags": lambda: other("TokenClassification", {"num_labels": 3, "id2label": ABC}),
    "answers": lambda: other("QuestionAnswering", {"num_labels": 2}),
}
KEPT = {"abc": {"abc", "abc, not said", "cba"}, "abc, several": {"abc, several"}, "regression": {"regression"},
        "tags": {"tags"}, "answers": {"answers"}}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, torch.Tensor]]:
    """Folder of each checkpoint -> its weights."""
    folder, weights = tmp_path_factory.mktemp("checkpoints"), {}
    for kind, size in MODELS.items():
        for name, (head, options) in SOURCES.items():
            torch.manual_seed(len(name))
            config = getattr(transformers, f"{kind}Config")(**size, **options)
            model = getattr(transformers, f"{kind}For{head}")(config)
            model.save_pretrained(folder / kind / name)
            weights[folder / kind / name] = model.state_dict()
    return weights


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_head_is_kept_or_all_new(
    checkpoints: dict[Path, dict[str, torch.Tensor]], kind: str, target: str
) -> None:
    for where, old in checkpoints.items():
        if where.parent.name != kind:
            continue
        name = where.name
        adapter = pretrained.in_order_of_checkpoint(TARGETS[target](), RunSpec(checkpoint=str(where)))
        torch.manual_seed(7)
        model, notes, _ = pretrained.load_model(RunSpec(), str(where), adapter)
        body, told = f"{model.base_model_prefix}.", "\n".join(notes)
        new = model.state_dict()
        shared = [key for key in new if key.startswith(body) and "pooler" not in key]
        assert shared and all(torch.equal(old[key], new[key]) for key in shared), (
            name,
            "the encoder is kept",
        )
        parts = [key for key in new if not key.startswith(body)]
        if name in KEPT[target]:
            assert all(torch.equal(old[key], new[key]) for key in parts) and not notes, name
            assert adapter.names == (["c", "b", "a"] if name == "cba" else TARGETS[target]().names)
            continue
        for key in parts:  # biases are zero anew
            same = key in old and old[key].shape == new[key].shape and torch.equal(old[key], new[key])
            assert not same or not new[key].any(), (name, key)
            assert key in told, (name, key, "every new weight is named")
        assert ("the head is replaced, the encoder kept" in told) == (name != "words"), (name, told)
        wanted = adapter.config()
        assert (model.config.num_labels, model.config.problem_type) == (
            wanted["num_labels"],
            wanted.get("problem_type"),
        )
        torch.manual_seed(7)
        again = pretrained.load_model(RunSpec(), str(where), adapter)[0].state_dict()
        assert all(torch.equal(new[key], again[key]) for key in new), (name, "the seed decides")


def test_a_run_as_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Classes, then the same names as sets: told on the way, and `predict` follows the new task."""
    rows = [
        {"text": f"a {word} film", "label": label} for word, label in (("fine", "pos"), ("dull", "neg"))
    ] * 4
    common = {"max_steps": 2, "batch_size": 4, "max_length": 16, "data.validation": "25%"}
    first = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "first", **common
    )
    capfd.readouterr()
    sets = [row | {"label": [row["label"]]} for row in rows]
    second = bert_ft.finetune("classification", str(first.path), train=sets, output=tmp_path / "second",
                              problem_type="multi_label_classification", **common)  # fmt: skip
    assert ("the head is replaced, the encoder kept: the checkpoint's head (BertForSequenceClassification) is for "
            "single_label_classification of neg, pos") in capfd.readouterr().err  # fmt: skip
    assert isinstance(bert_ft.load(second.path / "model").predict("a fine film")[0]["prediction"], list)
