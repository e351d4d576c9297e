"""Windows and answers: three kinds of tokenizers, any sizes, against the tokenizer's own offsets and brute force."""

from __future__ import annotations

import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ft.config.catalog import load_task
from bert_ft.families.features import Features
from bert_ft.families.qa import decoding, encoding
from bert_ft.families.qa.adapter import ExtractiveQa
from bert_ft.families.qa.options import Options

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    "東京は日本の首都です。", "機器閱讀理解，答案在文中！", "ما هي عاصمة المغرب؟", "Москва — столица", "กรุงเทพ", "café naïve",
    "e\u0301a", "👩‍🚀🚀", "İstanbul", "ﬁne", "x²", "\u00a0", "\u200b", "\t\n", "don't", "(1,000)", "[UNK]", "U.S.",
]  # fmt: skip
TEXT = re.sub(r"[|`#*]", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
WORDS = [*TEXT.split()[:250], *SCRIPTS]
KINDS = ["wordpiece", "bpe", "unigram", "metaspace"]
CONTEXT = (
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=60)
    .map(" ".join)
    .filter(lambda text: text.strip() != "")
)


@cache
def tokenizer(kind: str) -> Any:
    """One trained on this project's README and a line of many scripts, with BERT's, RoBERTa's or XLM-R's template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    elif kind == "bpe":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        parts = [pre_tokenizers.Metaspace()]
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit()] * (kind == "unigram") + parts
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=500, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
    backend.train_from_iterator([TEXT, *SCRIPTS[:6]], trainer)
    ids = {token: backend.token_to_id(token) for token in special}
    double = "" if kind in ("wordpiece", "metaspace") else "[SEP] "
    second = 1 if kind == "wordpiece" else 0
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] {double}$B:{second} [SEP]:{second}",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", *["token_type_ids"] * second, "attention_mask"]
    options = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **options)


def words_of(kind: str, context: str) -> list[tuple[int, int]]:
    """The characters of each token, by the tokenizer's own call, without white space around them."""
    out = []
    for begin, end in tokenizer(kind)(context, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]:
        text = context[begin:end]
        out.append(
            (begin + len(text) - len(text.lstrip()), begin + len(text.rstrip()))
            if text.strip()
            else (end, end)
        )
    return out


def parts_of(
    kind: str, question: str, length: int, options: Options
) -> tuple[list[int], list[int], list[int], list[int], int]:
    """Special tokens before, the question's tokens kept, special tokens between and after, tokens left for the context."""
    own = tokenizer(kind)
    cls, sep = [own.cls_token_id], [own.sep_token_id]
    between = sep if kind in ("wordpiece", "metaspace") else sep * 2
    asked = own(question, add_special_tokens=False)["input_ids"]
    room = length - len(between) - 2
    asked = asked[: min(options.max_query_length, room // 2)]
    return cls, asked, between, sep, room - len(asked)


def encoded(
    kind: str, question: str, context: str, length: int, options: Options, gold: tuple[int, int]
) -> Features:
    """Row 1 is the one that is asked for."""
    return encoding.encode(tokenizer(kind), ["another?", question], ["other text", context],
                          np.array([(-1, -1), gold]), length, options)  # fmt: skip


OPTIONS = st.builds(
    Options,
    doc_stride=st.integers(1, 40) | st.just(128),
    max_query_length=st.integers(1, 12),
    max_answer_length=st.integers(1, 9),
    n_best=st.integers(1, 6),
)
examples = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gold_answer_comes_back_from_perfect_logits(kind: str) -> None:
    """Exactly where it lies on token boundaries; else the smallest run of tokens that covers it."""
    draw, cut = random.Random(kind), 0
    for _ in range(400):
        context = " ".join(draw.choices(WORDS, k=draw.randint(1, 60)))
        options = Options(doc_stride=draw.choice([draw.randint(1, 40), 128]), max_query_length=draw.randint(1, 12),
                     max_answer_length=draw.randint(1, 9), n_best=draw.randint(1, 6))  # fmt: skip
        length = draw.randint(9, 70)
        space = parts_of(kind, "what is it?", length, options)[-1]
        tokens = words_of(kind, context)
        longest = min(options.max_answer_length, space // 4 if len(tokens) > space else space)
        solid = [(a, b) for a, b in tokens if a < b]
        if not solid or not longest:
            continue
        i = draw.randrange(len(solid))
        begin, (first, last) = solid[i][0], solid[draw.randrange(i, min(len(solid), i + longest))]
        if draw.random() < 0.5:  # inside of tokens
            begin, last = draw.randrange(begin, solid[i][1]), draw.randint(max(begin, first) + 1, last)
        cover = [(a, b) for a, b in tokens if b > begin and a < last]
        if not cover or len(cover) > longest or last <= begin:
            continue
        features = encoded(kind, "what is it?", context, length, options, (begin, last))
        logits = np.zeros((int(features.offsets[-1]), 2), np.float32)
        for side, key in enumerate(("start_positions", "end_positions")):
            logits[features.offsets[:-1] + features.values[key], side] = 50
        places, scores, _ = decoding.n_best(logits, features, 2, n=options.n_best,
                                         max_answer_length=options.max_answer_length)  # fmt: skip
        assert scores[1, 0] == 100
        assert tuple(places[1, 0]) == (cover[0][0], cover[-1][1])
        cut += len(tokens) > space and len(cover) > 1
    assert cut > 50, "answers of several tokens in several windows"


@pytest.mark.parametrize("kind", KINDS)
@examples
@given(context=CONTEXT, question=CONTEXT, length=st.integers(9, 70), options=OPTIONS)
def test_windows_are_cut_from_the_tokenizers_own_tokens(
    kind: str, context: str, question: str, length: int, options: Options
) -> None:
    """Cut by hand; and each token may start an answer in one window alone, the one that gives it the most context."""
    own = tokenizer(kind)
    features = encoded(kind, question, context, length, options, (-1, -1))
    before, asked, between, after, space = parts_of(kind, question, length, options)
    tokens = own(context, add_special_tokens=False)["input_ids"]
    step = min(options.doc_stride, space - min(2 * options.max_answer_length, space // 2))
    cuts = [(0, tokens[:space])]
    while cuts[-1][0] + space < len(tokens):
        cuts.append((cuts[-1][0] + step, tokens[cuts[-1][0] + step :][:space]))
    mine = np.flatnonzero(features.values["row"] == 1)
    assert [features.tokens["input_ids"][slice(*features.offsets[i : i + 2])].tolist() for i in mine] == [
        [*before, *asked, *between, *part, *after] for _, part in cuts
    ]
    if len(cuts) == 1 and len(asked) == len(own(question, add_special_tokens=False)["input_ids"]):
        at, whole = slice(*features.offsets[mine[0] : mine[0] + 2]), own(question, context)
        for key, column in features.tokens.items():
            assert column[at].tolist() == whole[key]
    head = len(before) + len(asked) + len(between)
    low, high = (features.values[key][mine] - head for key in ("low", "high"))
    for place in range(len(tokens)):
        context_of = [min(place - start, start + len(part) - 1 - place) for start, part in cuts]
        allowed = [
            i
            for i, (start, part) in enumerate(cuts)
            if low[i] <= place - start <= high[i] and 0 <= place - start < len(part)
        ]
        assert allowed == [context_of.index(max(context_of))]


@examples
@given(context=CONTEXT, length=st.integers(9, 60), options=OPTIONS, seed=st.integers(0, 99))
def test_the_n_best_are_those_of_brute_force(context: str, length: int, options: Options, seed: int) -> None:
    """Every pair of a window's n best starts and ends; where no pair is valid, of all of them."""
    features = encoded("wordpiece", "what is it?", context, length, options, (-1, -1))
    logits = np.random.default_rng(seed).normal(size=(int(features.offsets[-1]), 2)).astype(np.float32)
    places, scores, null = decoding.n_best(
        logits, features, 2, n=options.n_best, max_answer_length=options.max_answer_length
    )
    found = []
    begin, end = features.places["begin"], features.places["end"]
    for i in np.flatnonzero(features.values["row"] == 1):
        base = int(features.offsets[i])
        inside = [j for j in range(features.lengths[i]) if begin[base + j] < end[base + j]]
        open_ = [j for j in inside if features.values["low"][i] <= j <= features.values["high"][i]]

        def valid(starts: list[int], ends: list[int], base: int = base) -> list[tuple[float, int, int]]:
            return [(float(logits[base + a, 0] + logits[base + b, 1]), int(begin[base + a]), int(end[base + b]))
                    for a in starts for b in ends if 0 <= b - a < options.max_answer_length]  # fmt: skip

        best = [sorted(js, key=lambda j, s=s, base=base: -logits[base + j, s])[: options.n_best]
                for s, js in enumerate((open_, inside))]  # fmt: skip
        found += valid(*best) or sorted(valid(open_, inside), reverse=True)[:1]
    found = sorted(found, reverse=True)[: options.n_best]
    assert np.allclose(scores[1, : len(found)], [score for score, _, _ in found], atol=1e-6)
    assert np.isneginf(scores[1, len(found) :]).all()
    assert [tuple(place) for place in places[1, : len(found)]] == [(a, b) for _, a, b in found]
    assert null[1] == min(
        logits[features.offsets[i]].sum() for i in np.flatnonzero(features.values["row"] == 1)
    )


@pytest.mark.parametrize("kind", KINDS)
@examples
@given(contexts=st.lists(CONTEXT, min_size=1, max_size=5), length=st.integers(9, 60), options=OPTIONS, seed=st.integers(0, 99),
       wild=st.booleans())  # fmt: skip
def test_every_question_has_one_answer_that_stands_in_its_context(
    kind: str, contexts: list[str], length: int, options: Options, seed: int, wild: bool
) -> None:
    """Whatever the sizes and the logits, also those of a training that has diverged."""
    task = load_task("qa").override(
        {"recipe.max_length": length, **{f"qa.{k}": v for k, v in options.model_dump().items()}}
    )
    adapter = ExtractiveQa(task)
    rows = adapter.rows([(f"what? {i}", context) for i, context in enumerate(contexts)])
    features = adapter.encode(rows, tokenizer(kind), length)
    logits = np.random.default_rng(seed).normal(size=(int(features.offsets[-1]), 2)).astype(np.float32)
    if wild:
        logits[seed % 2 :: 2] = [np.nan, np.inf, -np.inf][seed % 3]
    lines = list(adapter.lines(adapter.decode(logits, features, rows), rows))
    assert len(lines) == len(contexts)
    for line, context in zip(lines, contexts, strict=True):
        if any(a < b for a, b in words_of(kind, context)):
            assert line["prediction"] == context[line["start"] : line["end"]] != ""
            assert line["prediction"].strip() == line["prediction"]
            assert 0 < line["score"] <= 1


def test_an_answer_belongs_to_no_window_that_cuts_it() -> None:
    """As in BERT's script, a window with a part of the answer is trained as one without it: both on [CLS]."""
    context = " ".join(f"w{i}" for i in range(60))
    begin = context.index("w30")
    features = encoded(
        "wordpiece", "what?", context, 40, Options(doc_stride=7, max_answer_length=3), (begin, begin + 11)
    )
    whole = 0
    for i in np.flatnonzero(features.values["row"] == 1):
        at = slice(*features.offsets[i : i + 2])
        inside = (features.places["begin"][at] == begin).any() and (
            features.places["end"][at] == begin + 11
        ).any()
        start, end = (int(features.values[key][i]) for key in ("start_positions", "end_positions"))
        assert (start > 0) == inside and (end > 0) == inside
        if inside:
            assert (
                features.places["begin"][at][start] == begin and features.places["end"][at][end] == begin + 11
            )
            whole += 1
    assert 1 < whole < (features.values["row"] == 1).sum()
    assert all(b > a for a, b in pairwise(features.offsets))


def test_a_context_of_100_000_characters() -> None:
    context = "the old mill by the river " * 3900 + "was built in 1712 by nobody"
    begin = context.index("1712")
    adapter = ExtractiveQa(load_task("qa"))
    rows = adapter.rows([("when was it built?", context)])
    features = encoding.encode(
        tokenizer("wordpiece"),
        ["when was it built?"],
        [context],
        np.array([(begin, begin + 4)]),
        384,
        Options(),
    )
    logits = np.zeros((int(features.offsets[-1]), 2), np.float32)
    logits[features.offsets[:-1] + features.values["start_positions"], 0] = 9
    logits[features.offsets[:-1] + features.values["end_positions"], 1] = 9
    assert len(features) > 100
    assert adapter.decode(logits, features, rows)["prediction"].tolist() == ["1712"]
