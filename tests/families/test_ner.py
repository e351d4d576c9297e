"""Alignment, windows, decoding: every word once, with any tokenizer, at any length; against the tokenizer's own call."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.data import loading
from bert_ft.data.rows import Rows
from bert_ft.families import fast_tokenizer
from bert_ft.families.features import Features
from bert_ft.families.ner import decoding
from bert_ft.families.ner.adapter import Ner

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
ODD = ["", " ", "\u200b", "a\u200bb", "e\u0301", "\u0301", "👩‍👩‍👧", "😀", "日本", "שלום", "\u202eabc", "London.", "naïve ", "x" * 90, "\ufffd",
       "\x00", "</s>", "[SEP]", "don't", "Köln"]  # fmt: skip
word = (
    st.text(max_size=8)
    | st.sampled_from(ODD)
    | st.sampled_from(["the", "run", "is", "a", "task", "of", "its", "own"])
)
sentences = st.lists(st.lists(word, max_size=14), min_size=1, max_size=5)
anything = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))


def adapter(**keys: Any) -> Ner:
    task = bert_ft.load_task("ner").override({key.replace("__", "."): value for key, value in keys.items()})
    return Ner(task, NAMES)


def rows_of(
    tokens: list[list[str]], tags: list[list[str]] | None = None, documents: list[int] | None = None
) -> Rows:
    lists = pa.list_(pa.string())
    columns = {
        "tokens": pa.array(tokens, lists),
        "tags": pa.nulls(len(tokens), lists) if tags is None else pa.array(tags, lists),
    }
    return Rows(
        pa.table(columns | ({} if documents is None else {"document": pa.array(documents, pa.int32())})),
        "rows",
    )


def tagged(tokens: list[list[str]]) -> list[list[str]]:
    return [[NAMES[(3 * i + len(w)) % 5] for i, w in enumerate(sentence)] for sentence in tokens]


def pieces(tokenizer: Any, sentence: list[str]) -> list[tuple[int, int]]:
    """(token, word number) of a sentence by the tokenizer's own call, special tokens left out."""
    fast_tokenizer.leading_space(tokenizer)
    encoding = tokenizer(sentence, is_split_into_words=True)
    return [(i, w) for i, w in zip(encoding["input_ids"], encoding.word_ids(), strict=True) if w is not None]


def parts(features: Features) -> list[tuple[list[int], list[int], list[int]]]:
    """(ids, labels, words) of each feature without its first and last token."""
    columns = features.tokens["input_ids"], features.targets["labels"], features.places["word"]
    return [
        tuple(c[a + 1 : b - 1].tolist() for c in columns) for a, b in itertools.pairwise(features.offsets)
    ]  # type: ignore[misc]


@anything
@given(tokens=sentences)
def test_alignment_is_the_tokenizers_own(tokenizer: Any, tokens: list[list[str]]) -> None:
    """The first token of a word bears its tag; label_all_tokens lets the others go on with it."""
    rows = rows_of(tokens, tagged(tokens))
    for every in (False, True):
        features = adapter(label_all_tokens=every).encode(rows, tokenizer, 4000)
        assert len(features) == len(tokens)
        base = 0
        for sentence, tags, (ids, labels, words) in zip(tokens, tagged(tokens), parts(features), strict=True):
            expected, last = [], None
            for _, w in pieces(tokenizer, sentence):
                inner = tags[w].replace("B-", "I-") if every else None
                expected.append(tags[w] if w != last else inner)
                last = w
            assert ids == [i for i, _ in pieces(tokenizer, sentence)]
            assert labels == [-100 if tag is None else NAMES.index(tag) for tag in expected]
            firsts = [base + w if k == 0 or pieces(tokenizer, sentence)[k - 1][1] != w else -1
                      for k, (_, w) in enumerate(pieces(tokenizer, sentence))]  # fmt: skip
            assert words == firsts
            base += len(sentence)
        assert features.weights.tolist() == [
            sum(label >= 0 for label in labels) for _, labels, _ in parts(features)
        ]
        whole = tokenizer(tokens, is_split_into_words=True)["input_ids"]
        assert features.tokens["input_ids"].tolist() == list(itertools.chain.from_iterable(whole))


@anything
@given(tokens=sentences, length=st.integers(3, 20), stride=st.integers(0, 12))
def test_a_word_stands_where_it_has_most_context(
    tokenizer: Any, tokens: list[list[str]], length: int, stride: int
) -> None:
    """By brute force over the windows of its sentence; neighbouring windows share `stride` tokens."""
    features = adapter(stride=stride).encode(rows_of(tokens, tagged(tokens)), tokenizer, length)
    assert features.lengths.max() <= length
    budget, queue, base = length - 2, parts(features), 0
    for sentence in tokens:
        flat = pieces(tokenizer, sentence)
        ids, windows, at = [i for i, _ in flat], [], 0
        count = max(1, -(-(len(ids) - min(stride, budget // 2)) // (budget - min(stride, budget // 2))))
        count = 1 if len(ids) <= budget else count
        windows, queue = queue[:count], queue[count:]
        starts = [round(k * (len(ids) - budget) // (count - 1)) if count > 1 else 0 for k in range(count)]
        for at, (part, _, _) in zip(starts, windows, strict=True):
            assert part == ids[at : at + budget] and (count == 1 or len(part) == budget)
        assert all(a + budget - b >= min(stride, budget // 2) for a, b in itertools.pairwise(starts))
        seen = {}
        for k, (_, labels, words) in enumerate(windows):
            for position, w in enumerate(words):
                assert (w >= 0) == (labels[position] >= 0)
                if w >= 0:
                    assert w not in seen, "a word counts twice"
                    seen[w] = (starts[k] + position, min(position, budget - 1 - position))
        for place in {w: p for p, (_, w) in reversed(list(enumerate(flat)))}.items():
            w, p = place
            room = max(min(p - a, a + budget - 1 - p) for a in starts if a <= p < a + budget)
            assert seen.pop(base + w) == (p, room)
        assert not seen
        base += len(sentence)
    assert not queue


@anything
@given(
    tokens=st.lists(st.lists(word, max_size=6), min_size=1, max_size=9),
    length=st.integers(3, 40),
    data=st.data(),
)
def test_the_document_fills_the_window(
    tokenizer: Any, tokens: list[list[str]], length: int, data: Any
) -> None:
    steps = data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    documents = list(itertools.accumulate(map(int, steps)))
    near = adapter(context="document")
    rows = rows_of(tokens, tagged(tokens), documents)
    features = near.encode(rows, tokenizer, length)
    alone = adapter().encode(rows, tokenizer, length)
    ids = [[i for i, _ in pieces(tokenizer, sentence)] for sentence in tokens]
    words = [w for _, _, part in parts(features) for w in part if w >= 0]
    assert words == [w for _, _, part in parts(alone) for w in part if w >= 0], "the same words, once each"
    queue = parts(features)
    for row, own in enumerate(ids):
        if len(own) > length - 2:
            continue
        part = next(part for part in queue if _contains(part[2], tokens, row)) if own else None
        whole = [i for k, other in enumerate(ids) if documents[k] == documents[row] for i in other]
        if part is not None:
            assert len(part[0]) == min(length - 2, len(whole)), "as much context as there is room for"
            assert any(whole[at : at + len(part[0])] == part[0] for at in range(len(whole)))
    blocks = list(near.blocks(rows, 3))
    assert [r for block in blocks for r in block.table["tokens"].to_pylist()] == tokens
    edges = [set(block.table["document"].to_pylist()) for block in blocks]
    assert all(not a & b for a, b in itertools.pairwise(edges)), "a block cuts no document"
    joined = np.concatenate([near.encode(block, tokenizer, length).tokens["input_ids"] for block in blocks])
    assert np.array_equal(joined, features.tokens["input_ids"])


def _contains(words: list[int], tokens: list[list[str]], row: int) -> bool:
    base = sum(map(len, tokens[:row]))
    return any(base <= w < base + len(tokens[row]) for w in words)


@anything
@given(
    tokens=sentences,
    length=st.integers(3, 30),
    decoding=st.sampled_from(["argmax", "viterbi"]),
    seed=st.integers(0, 9),
)
def test_decoding_gives_every_word_a_tag(
    tokenizer: Any, tokens: list[list[str]], length: int, decoding: str, seed: int
) -> None:
    """Of the scores at its first token; a word without tokens goes on with the entity around it."""
    model, rows = adapter(decoding=decoding), rows_of(tokens)
    features = model.encode(rows, tokenizer, length)
    logits = np.random.default_rng(seed).normal(size=(features.offsets[-1], 5)).astype(np.float32) * 3
    found = model.decode(logits, features, rows)
    assert len(found["prediction"]) == sum(map(len, tokens)) == len(found["score"])
    place = {w: k for k, w in enumerate(features.places["word"].tolist()) if w >= 0}
    lines = list(model.lines(found, rows))
    assert [line["tokens"] for line in lines] == tokens and all(line["label"] is None for line in lines)
    base = 0
    for line in lines:
        tags, numbers = line["prediction"], range(base, base + len(line["tokens"]))
        spoken = [w for w in numbers if w in place]
        for w in spoken:
            chance = torch.tensor(logits[place[w]]).double().softmax(0)
            assert found["score"][w] == pytest.approx(float(chance[NAMES.index(tags[w - base])]))
            assert decoding == "viterbi" or tags[w - base] == NAMES[int(logits[place[w]].argmax())]
        for w in set(numbers) - set(spoken):
            left = next((tags[v - base] for v in reversed(spoken) if v < w), "O")
            right = next((tags[v - base] for v in spoken if v > w), "O")
            inside = right.startswith("I-") and left[2:] == right[2:]
            assert tags[w - base] == (right if inside else "O") and np.isnan(found["score"][w])
        if decoding == "viterbi":
            pairs = itertools.pairwise(["O", *tags])
            assert all(b[0] != "I" or (a != "O" and a[2:] == b[2:]) for a, b in pairs)
        base += len(tags)


def test_a_fold_keeps_the_probabilities_of_each_word(tokenizer: Any) -> None:
    """What looks for wrong labels takes them; other runs do not pay for them."""
    model, rows = adapter(), rows_of([["Ann", "sang", "\u200b"], ["Bob"]])
    features = model.encode(rows, tokenizer, 16)
    logits = np.random.default_rng(0).normal(size=(features.offsets[-1], 5)).astype(np.float32) * 3
    assert "probabilities" not in model.decode(logits, features, rows)
    fold = model.rebound(model.task.override({"data.validation": "1/2"}))
    lines = list(fold.lines(fold.decode(logits, features, rows), rows))
    assert [len(line["probabilities"]["O"]) for line in lines] == [3, 1]
    place = {w: k for k, w in enumerate(features.places["word"].tolist()) if w >= 0}
    for w, (row, item) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
        said = [lines[row]["probabilities"][name][item] for name in NAMES]
        if w in place:
            assert said == pytest.approx(torch.tensor(logits[place[w]]).softmax(0).tolist(), rel=1e-3)
        else:
            assert np.isnan(said).all()


def test_probabilities_of_other_schemes_are_summed() -> None:
    found = decoding.by_tag(
        np.array([[0.1, 0.2, 0.3, 0.15, 0.25]], np.float32), [0, 1], ["O", "B-X", "I-X", "E-X", "S-X"]
    )
    assert found == [{"O": [0.1], "B-X": [pytest.approx(0.45)], "I-X": [pytest.approx(0.45)]}]


def test_the_loss_is_transformers_token_mean(tiny_checkpoint: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from bert_ft.engine import batches

    tokens = [["a", "warm", "film"], ["the", "plot", "is", "dull", "and", "long"], ["\u200b"], []]
    network = (
        AutoModelForTokenClassification.from_pretrained(tiny_checkpoint, num_labels=5)
        .eval()
        .requires_grad_(False)
    )
    for smoothing in (0.0, 0.1):
        model = adapter(label_smoothing=smoothing)
        features = model.encode(
            rows_of(tokens, tagged(tokens)), AutoTokenizer.from_pretrained(tiny_checkpoint), 64
        )
        assert features.weights.tolist() == [3, 6, 0, 0]
        inputs, values = batches.collate(features, np.arange(4), 0, torch.device("cpu"))
        logits = network(**inputs).logits
        ours = model.loss(logits, values).sum() / features.weights.sum()
        theirs = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), values["labels"].flatten(), label_smoothing=smoothing
        )
        assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert float(network(**inputs, labels=values["labels"]).loss) == pytest.approx(
        float(adapter().loss(logits, values).sum() / 9), rel=1e-6
    )


FILES = {"wnut17": ["wnut17/emerging.dev.conll"], "wikigold": ["wikigold/wikigold.conll.txt"],
         "btc": [f"btc/{section}.conll" for section in "abefgh"], "cluener": ["cluener_zh/dev.jsonl"]}  # fmt: skip
WORDS = {"wnut17": 15733, "wikigold": 39007, "btc": 150387}  # lines with a word


@pytest.mark.shared_data
@pytest.mark.pretrained
@pytest.mark.parametrize("name", FILES)
def test_every_gold_word_is_scored(name: str, shared_data: Path, minilm: Path) -> None:
    """Perfect logits at any length give each word of the file its own tag: nothing is lost to truncation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    file = "+".join(str(shared_data / part) for part in FILES[name])
    task = bert_ft.load_task("ner").override({"data.train": file, "data.evaluate": file})
    rows = loading.load(task, Ner).train
    model = Ner(task, Ner.find_labels(rows, task))
    if (
        "missed" in rows.table.column_names
    ):  # spans that no words express count as missed; the words are the point here
        perfect = {"prediction": model.references(rows)}
        missed, whole = sum(map(len, rows.table["missed"].to_pylist())), model.score(perfect, rows)
        rows = Rows(rows.table.select(["tokens", "tags"]), rows.where)
        expressed = sum(tag.startswith("B-") for tags in rows.table["tags"].to_pylist() for tag in tags)
        assert whole["precision"] == 1 and whole["recall"] == expressed / (expressed + missed) > 0.99
    gold = model.references(rows)
    assert len(gold) == WORDS.get(name, len(gold)) and gold.min() >= 0
    if name == "cluener":
        texts = [json.loads(line)["text"] for line in Path(file).read_text(encoding="utf-8").splitlines()]
        words = [w for sentence in rows.table["tokens"].to_pylist() for w in sentence]
        assert "".join(words) == "".join("".join(text.split()) for text in texts), (
            "every character is in a word"
        )
    for length in (128, 32):
        features = model.encode(rows, tokenizer, length)
        logits = np.zeros((features.offsets[-1], len(model.labels)), np.float32)
        places = np.flatnonzero(features.targets["labels"] >= 0)
        logits[places, features.targets["labels"][places]] = 9
        found = model.decode(logits, features, rows)
        assert len(found["prediction"]) == len(gold)
        silent = np.isnan(found["score"])
        assert silent.sum() == features.counts["without_tokens"] == len(gold) - len(places) < 60
        assert np.array_equal(found["prediction"][~silent], gold[~silent])
        assert model.score(found, rows)["f1"] > 0.9999
    if name == "cluener":
        assert 0.5 < features.counts["unknown"] / features.counts["tokens"] < 0.7


def test_where_all_fit_the_length_changes_nothing(tiny_checkpoint: Path) -> None:
    from bert_ft.modeling.loading import build

    tokens = [
        ["a", "warm", "and", "funny", "film"],
        ["it", "drags"],
        ["she", "plays", "the", "part", "with", "grace"],
    ] * 5
    logits = []
    for length in (32, 128):
        task = bert_ft.load_task("ner").override(
            {"run.checkpoint": str(tiny_checkpoint), "max_length": length}
        )
        built = build(task, Ner(task, NAMES), "fp32")[0]
        logits.append(built.infer(rows_of(tokens))["score"])
    assert np.array_equal(*logits) and np.isfinite(logits[0]).all()
