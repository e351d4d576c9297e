"""From texts to tensors and back into order: against the tokenizer's own call, the usual collator, and brute force."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.data import sources
from bert_ft.data.rows import Rows
from bert_ft.engine import batches
from bert_ft.engine import feature_cache as cache
from bert_ft.families import tokenization
from bert_ft.families.features import Features

ragged = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def _features(lengths: list[int]) -> Features:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Features(offsets, {"input_ids": ids}, {"labels": np.arange(len(lengths))}, np.ones(len(lengths)))


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), min_size=1, max_size=12),
    st.booleans(),
    st.integers(8, 40),
)
def test_encoding_equals_the_tokenizers_own_call(
    tokenizer: Any, rows: Any, pairs: bool, max_length: int
) -> None:
    first, second = [a for a, _ in rows], [b for _, b in rows] if pairs else None
    theirs = tokenizer(first, second, truncation="longest_first", max_length=max_length)
    whole = tokenizer(first, second)["input_ids"]
    offsets, tokens, counts = tokenization.encode(tokenizer, first, second, max_length)
    for key in ("input_ids", "token_type_ids"):
        assert [tokens[key][a:b].tolist() for a, b in pairwise(offsets)] == theirs[key]
    assert counts["truncated"] == sum(len(ids) > max_length for ids in whole)
    assert counts["unknown"] == sum(ids.count(tokenizer.unk_token_id) for ids in theirs["input_ids"])


@given(ragged, st.data())
def test_collating_equals_the_usual_collator(tokenizer: Any, lengths: list[int], data: Any) -> None:
    from transformers import DataCollatorWithPadding

    features = _features(lengths)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9)))
    inputs, values = batches.collate(features, chosen, 0, torch.device("cpu"))
    rows = [
        {"input_ids": features.tokens["input_ids"][features.offsets[i] : features.offsets[i + 1]].tolist()}
        for i in chosen
    ]
    theirs = DataCollatorWithPadding(tokenizer)(rows)
    assert torch.equal(inputs["input_ids"], theirs["input_ids"])
    assert torch.equal(inputs["attention_mask"], theirs["attention_mask"])
    assert values["labels"].tolist() == chosen.tolist()


@given(ragged, st.integers(1, 200))
def test_evaluation_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    found = batches.by_length(_features(lengths), budget)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    for rows in found:
        assert len(rows) == 1 or len(rows) * max(lengths[i] for i in rows) <= budget


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_a_batch_is_divided_without_loss(size: int, processes: int, parts: int) -> None:
    rows = np.arange(size)
    shares = [batches.divide(rows, processes, rank, parts) for rank in range(processes)]
    assert np.concatenate([part for share in shares for part in share]).tolist() == rows.tolist()
    assert len({len(share) for share in shares}) == 1, "each collective call needs its partner"


@pytest.mark.parametrize("order", ["random", "length"])
def test_an_epoch_takes_every_row_once(order: str) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 1003)
    plan = batches.Plan(1003, 16, 2, seed=7, lengths=lengths if order == "length" else None)
    taken = [rows for _, rows in plan.batches()]
    assert len(taken) == plan.steps == 126
    for epoch in (taken[:63], taken[63:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(1003))
        assert [len(rows) for rows in epoch] == [16] * 62 + [11]
    waste = sum(len(rows) * lengths[rows].max() for rows in taken) / (2 * lengths.sum())
    assert waste < 1.2 if order == "length" else waste > 1.6
    again = [rows.tolist() for _, rows in plan.batches(start=70)]
    assert again == [rows.tolist() for rows in taken[70:]], "a function of seed and step alone"


def test_features_are_cached_and_a_damaged_cache_is_rebuilt(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_FT_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "WORTH", 1)
    adapter = bert_ft.Classification(bert_ft.load_task("classification"), ["a", "b"])
    table = sources.of_object(
        {"text": ["one film", "two films"], "label": ["a", "b"]}, ["text", "label"], (), ""
    ).table
    rows, calls = Rows(table, ""), []
    encode = bert_ft.Classification.encode

    def counting(*arguments: Any) -> Features:
        calls.append(1)
        return encode(*arguments)

    monkeypatch.setattr(bert_ft.Classification, "encode", counting)
    first = cache.encode(adapter, rows, tokenizer, 16)
    second = cache.encode(adapter, rows, tokenizer, 16)
    assert len(calls) == 1 and isinstance(second.tokens["input_ids"], np.memmap)
    assert (
        np.array_equal(first.tokens["input_ids"], second.tokens["input_ids"])
        and first.counts == second.counts
    )
    cache.encode(adapter, rows, tokenizer, 4)
    assert len(calls) == 2, "another length"
    for file in tmp_path.rglob("tokens.input_ids.npy"):
        file.write_bytes(file.read_bytes()[:-5])
    third = cache.encode(adapter, rows, tokenizer, 16)
    assert len(calls) == 3 and np.array_equal(first.tokens["input_ids"], third.tokens["input_ids"])


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that can't take more than 3 rows at once trains as one that can."""
    rows = [{"text": f"a {word} film {i}", "label": word} for i in range(12) for word in ("good", "bad")]
    options = {
        "batch_size": 10,
        "epochs": 1,
        "dropout": 0.0,
        "log_every": 1,
        "max_length": 16,
        "data.validation": "25%",
    }
    largest = []

    def limited(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        largest.append(len(logits))
        if len(logits) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    plain = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "a", **options
    )
    tight = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "b", loss=limited, **options
    )
    losses = [[entry["loss"] for entry in run.log if "loss" in entry] for run in (plain, tight)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert largest[:4] == [10, 5, 3, 3], "ten rows, two parts, four"
    assert tight.results["micro_batches"] == 4 and plain.results["micro_batches"] == 1
    assert "out of memory; each batch is computed in 4 parts" in capsys.readouterr().err
