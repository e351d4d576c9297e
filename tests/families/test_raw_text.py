"""Raw text in: the entities of `predict` are those of `transformers`' pipeline, and their offsets are right."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import bert_ft

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXTS = ["A run is the trip of one value: rows → features, then (again) logits.", "", "  Moscow  Москва столица!  ",
         "naïve café in Köln, €5 or 5€ 😀😀 ok", "東京は日本の首都です。", "don't e-mail me@example.com", "שלום עולם", "tab\there\nnew line"]  # fmt: skip


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A saved model with random weights, as `save_pretrained` leaves it, and whether its tokens tell where words begin."""
    from transformers import (
        BertConfig,
        BertForTokenClassification,
        RobertaConfig,
        RobertaForTokenClassification,
    )

    from bert_ft.families import fast_tokenizer

    roberta = tokenizer.pad_token == "<pad>"
    kind, head = (
        (RobertaConfig, RobertaForTokenClassification)
        if roberta
        else (BertConfig, BertForTokenClassification)
    )
    config = kind(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                  max_position_embeddings=80, pad_token_id=tokenizer.pad_token_id, id2label=dict(enumerate(NAMES)))  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    fast_tokenizer.leading_space(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = head(config)
        torch.nn.init.normal_(network.classifier.weight, std=2.0)
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, not roberta


def test_the_pipeline_gives_the_same_entities(model: tuple[Path, bool]) -> None:
    from transformers import pipeline

    folder, wordpiece = model
    theirs = pipeline("token-classification", str(folder), aggregation_strategy="first")
    loaded, count, texts = bert_ft.load(folder), 0, TEXTS
    if (
        not wordpiece
    ):  # there the pipeline's words are what white space parts, and a space that is a token is one too
        lines = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").splitlines() + TEXTS
        first = loaded.tokenizer.tokenize
        texts = [
            " ".join([w for w in line.split() if w.isalnum() and first(w)[0] not in "Ġ▁"][:15])
            for line in lines
        ]
    for text, answer in zip(texts, loaded.predict(texts), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = theirs(text) if text else []
        assert answer["text"] == text
        got = [(entity["start"], entity["end"], entity["label"]) for entity in answer["entities"]]
        for entity in expected:  # the pipeline's Unigram offsets take in the space before
            entity["start"] = entity["end"] - len(text[entity["start"] : entity["end"]].lstrip())
        assert got == [(entity["start"], entity["end"], entity["entity_group"]) for entity in expected]
        scores = [entity["score"] for entity in answer["entities"]]
        assert scores == pytest.approx([float(entity["score"]) for entity in expected], abs=1e-5)
        assert all(text[start:end] == text[start:end].strip() != "" for start, end, _ in got)
        count += len(got)
    assert count > 15


def test_texts_and_words_of_any_length(model: tuple[Path, bool]) -> None:
    loaded = bert_ft.load(model[0])
    long = " ".join(["A run is the trip"] * 100)
    answer = loaded(long)
    assert max(entity["end"] for entity in answer["entities"]) > 1000, "beyond the encoder's positions"
    words = loaded.predict([long.split(), [], ["x"]])
    assert [len(line["prediction"]) for line in words] == [500, 0, 1] and words[0]["tokens"] == long.split()
    with pytest.raises(bert_ft.InputError, match="texts, or lists of words"):
        loaded.predict(["a text", ["words"]])
