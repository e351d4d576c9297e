"""Every architecture of transformers' three auto mappings is padding-free, padded, of equal lengths, or refused in one
plain sentence; what trains also loads in a fresh process and answers the same, alone or together."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import census
import pytest
import tiny_models
import torch
import transformers
import zoo

from bert_ft.kernels import last_layer, padding_free

# padding-free, padded, an encoder-decoder, equal lengths in all families and in one, and two that are refused
TENTH = {
    "bert": ["classification", "ner", "qa"],
    "deberta": ["ner"],
    "bart": ["qa"],
    "mobilebert": ["classification"],
    "xlnet": ["classification", "qa"],
    "bros": ["ner"],
    "mra": ["classification"],
}
PAGE = census.PAGE.read_text(encoding="utf-8").splitlines()


def on_page(name: str, family: str) -> tuple[str, str]:
    """The state of a cell and the last column of its row, as the page has them."""
    row = next(line for line in PAGE if line.startswith(f"| {name.replace('+', ', ')} |"))
    columns = re.split(r"(?<!\\) \| ?", row)
    return columns[1 + census.FAMILIES.index(family)], columns[4].replace(r"\|", "|")


def hold(chosen: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Takes the census of these architectures and holds the promises and the page to it."""
    results = census.take(chosen, folder)
    faults = {
        f"{name}, {family}: {fault}": cell
        for name, families in results.items()
        for family, cell in families.items()
        for fault in faults_of(cell, *on_page(name, family))
    }
    assert not faults


def faults_of(cell: Mapping[str, Any], state: str, why: str) -> Iterator[str]:
    """What a cell of the census breaks of the promises, or has otherwise than the page."""
    if cell["state"] != state or not all(text in why for text in [cell["why"], *cell.get("notes", [])]):
        yield f"the page says {state}, {why}"
    if state not in ("padding-free", "padded", "equal lengths", "refused"):
        yield "no such state"
    if cell["state"] == "refused":
        if "Error" in cell["why"] or "\n" in cell["why"]:
            yield "no plain sentence"
        return
    if cell["process"] > 1e-6:
        yield "other answers in a fresh process"
    if max(cell["alone"], cell.get("plain", 0)) > 1e-5 or cell["answers"]:
        yield "other answers alone than together"
    if cell["spread"] <= 0.01:
        yield "answers so alike that no leak would show"


def test_a_tenth_of_the_census(tmp_path: Path) -> None:
    hold(TENTH, tmp_path)


@pytest.mark.slow
def test_the_whole_census(tmp_path: Path) -> None:
    hold({name: census.cells(name) for name in zoo.ZOO}, tmp_path)


# classifiers whose head reads the first token alone, and whose last layer is computed for it alone
FIRST = {
    *(
        "bert",
        "big_bird",
        "camembert",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
    ),
    *(
        "ernie",
        "esm",
        "esmc",
        "gte",
        "jina_embeddings_v3",
        "layoutlm",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
    ),
    *(
        "markuplm",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "nystromformer",
        "rembert",
    ),
    *(
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "tapas",
        "ultrabert",
        "xlm-roberta",
        "xlm-roberta-xl",
    ),
    "xmod",
}


@pytest.mark.slow
def test_the_last_layer_of_the_whole_census(tmp_path: Path) -> None:
    """Where it is computed for the first token alone, logits, loss and the gradient of every parameter are those of the
    plain padded model, in float64."""
    active = set()
    for name in zoo.ZOO:
        if "classification" not in census.cells(name):
            continue
        zoo.checkpoint(name, tmp_path / name)
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / name).double()
        for module in plain.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model = copy.deepcopy(plain)
        padding_free.unpad(model)
        if not last_layer.narrow(model).active:
            continue
        active.add(name.split("+")[0])
        for lengths in ([20, 1, 7, 1, 20, 13], [6, 6, 6]):
            tiny_models.same(
                tiny_models.run(model, tiny_models.batch(lengths)),
                tiny_models.run(plain, tiny_models.batch(lengths)),
                tolerance=1e-9,
            )
    assert active >= FIRST & {name.split("+")[0] for name in zoo.ZOO}


def test_every_model_type_is_placed() -> None:
    """A model type that a new version of transformers brings is added to the zoo, or to those left out."""
    everything = set().union(*zoo.MAPS.values())
    placed = {name.split("+")[0] for name in zoo.ZOO} | set(zoo.OTHER) | set(zoo.DECODERS)
    assert everything <= placed
    written_with = re.search(r"transformers (\d+\.\d+)", "\n".join(PAGE))
    if transformers.__version__.startswith(f"{written_with[1]}."):  # an older one has fewer
        assert everything == placed
    shown = {line.split("|")[1].strip() for line in PAGE if line.startswith("| ")}
    assert {name.replace("+", ", ") for name in zoo.ZOO} <= shown
