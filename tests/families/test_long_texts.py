"""Long texts: what truncation keeps, and windows that leave short texts exactly as they were."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.data.rows import Rows
from bert_ft.engine import inference
from bert_ft.families import tokenization
from bert_ft.families.classification.adapter import Classification

WORDS = ["the", "plot", "is", "dull", "and", "fall", "flat", "in", "a", "warm", "film", "with", "brave"]
KINDS = ["bert", "roberta"]


@pytest.fixture(scope="module")
def tokenizers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A WordPiece one with token types, and a byte-level one without."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoTokenizer, RobertaTokenizerFast

    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(
        [" ".join(WORDS)] * 3, vocab_size=300, special_tokens=special, show_progress=False
    )
    folder = tmp_path_factory.mktemp("byte-level")
    pieces.save_model(str(folder))
    roberta = RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    return {"bert": AutoTokenizer.from_pretrained(tiny_checkpoint), "roberta": roberta}


def texts(*lengths: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, n)) for n in lengths]


def ragged(offsets: np.ndarray, column: np.ndarray) -> list[list[int]]:
    return [column[a:b].tolist() for a, b in pairwise(offsets)]


long = st.lists(st.text(max_size=80) | st.integers(0, 90).map(lambda n: texts(n)[0]), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(long, st.integers(8, 40), st.sampled_from(KINDS))
def test_head_tail_and_both(tokenizers: Any, rows: list[str], max_length: int, kind: str) -> None:
    tokenizer = tokenizers[kind]
    whole = tokenizer(rows)["input_ids"]
    for keep in ("head", "tail", "head+tail"):
        if keep == "head+tail":
            offsets, tokens, counts = tokenization.encode_head_and_tail(tokenizer, rows, max_length)
        else:
            offsets, tokens, counts = tokenization.encode(tokenizer, rows, None, max_length, keep=keep)
        room = max_length - 2
        head = {"head": room, "tail": 0, "head+tail": round(room / 4)}[keep]
        expected = [
            ids
            if len(ids) <= max_length
            else [ids[0], *ids[1:-1][:head], *ids[-1 - room + head : -1], ids[-1]]
            for ids in whole
        ]
        assert ragged(offsets, tokens["input_ids"]) == expected
        assert ("token_type_ids" in tokens) == (kind == "bert") and not tokens.get(
            "token_type_ids", np.zeros(1)
        ).any()
        assert counts["truncated"] == sum(len(ids) > max_length for ids in whole)


def test_head_and_tail_of_512_are_the_papers(tokenizers: Any) -> None:
    text = texts(900)
    offsets, tokens, _ = tokenization.encode_head_and_tail(tokenizers["bert"], text, 512)
    whole = tokenizers["bert"](text, add_special_tokens=False)["input_ids"][0]
    assert tokens["input_ids"].tolist()[1:-1] == whole[:128] + whole[-382:] and offsets.tolist() == [0, 512]


@settings(deadline=None, max_examples=40)
@given(long, st.integers(8, 40), st.integers(0, 5), st.sampled_from(KINDS))
def test_windows_cover_every_token(
    tokenizers: Any, rows: list[str], max_length: int, stride: int, kind: str
) -> None:
    tokenizer = tokenizers[kind]
    whole = tokenizer(rows)["input_ids"]
    offsets, tokens, counts, owners = tokenization.encode_windows(tokenizer, rows, max_length, stride)
    found = ragged(offsets, tokens["input_ids"])
    assert counts["windows"] == len(found) and counts["truncated"] == 0
    assert owners.tolist() == sorted(owners) and set(owners) == set(range(len(rows)))
    for row, ids in enumerate(whole):
        mine = [window for window, owner in zip(found, owners, strict=True) if owner == row]
        if len(ids) <= max_length:
            assert mine == [ids]
            continue
        # each window after the first begins where `stride` tokens or more are still those before
        assert all(
            len(window) == max_length and window[0] == ids[0] and window[-1] == ids[-1] for window in mine
        )
        *front, last = [window[1:-1] for window in mine]
        step = max_length - 2 - stride
        assert [ids[1 + k * step :][: max_length - 2] for k in range(len(front))] == front
        assert last == ids[1:-1][-(max_length - 2) :] and len(front) * step <= len(ids) - 2 - stride


def adapter(labels: list[str], **options: Any) -> Classification:
    settings = {f"classification.{key}": value for key, value in options.items()}
    made = Classification(
        bert_ft.load_task("classification").override({"data.labels": labels} | settings), labels
    )
    return made


def rows_of(lengths: list[int]) -> Rows:
    return Rows(
        pa.table({"text": texts(*lengths), "label": [["neg", "pos"][i % 2] for i in range(len(lengths))]}),
        "rows",
    )


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooled_logits_and_weighted_losses_against_a_loop(tokenizers: Any, pooling: str) -> None:
    rows = rows_of([10, 300, 3, 90, 5000, 31])
    plain, windowed = (
        adapter(["neg", "pos"]),
        adapter(["neg", "pos"], windows=True, pooling=pooling, stride=8),
    )
    features = windowed.encode(rows, tokenizers["bert"], 64)
    owners = features.values["row"]
    logits = np.random.default_rng(0).normal(size=(len(features), 2)).astype(np.float32)
    pooled = [
        getattr(np, pooling)(logits[owners == row].astype(np.float64), axis=0) for row in range(len(rows))
    ]
    expected = plain.decode(np.array(pooled), plain.encode(rows, tokenizers["bert"], 64), rows)
    assert windowed.decode(logits, features, rows)["probabilities"] == pytest.approx(
        expected["probabilities"]
    )
    batch = {key: torch.from_numpy(features.values[key]) for key in ("labels", "weight")}
    losses = windowed.loss(torch.from_numpy(logits), batch).numpy()
    each = -torch.log_softmax(torch.from_numpy(logits), 1).numpy()[np.arange(len(logits)), batch["labels"]]
    by_row = [each[owners == row].mean() for row in range(len(rows))]
    assert losses.sum() == pytest.approx(sum(by_row), rel=1e-5), "a row counts once, whatever its windows"
    assert features.weights.sum() == pytest.approx(len(rows))


def test_where_one_window_suffices_windows_change_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of 10 to 5,000 words under a trained model: the short ones' lines are the same to the last bit in one
    batch with all windows, and to the last digits of float32 in batches of 1,024 positions, with others beside them."""
    lengths = [10, 20, 5000, 40, 15, 700, 25]
    settings = {"max_steps": 3, "batch_size": 4, "max_length": 64, "quiet": True, "data.validation": "25%"}
    rows = rows_of([8] * 24).table.to_pylist()
    run = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "run", **settings
    )
    long_rows, plain = rows_of(lengths), run.model
    task = run.task.override({"classification.windows": True})
    from bert_ft.modeling import loading

    windowed = loading.load_folder(str(run.path / "model"), task)
    counts = windowed.encode(long_rows).counts
    assert (
        counts["windows"] > 80
        and counts["truncated"] == 0
        and plain.encode(long_rows).counts["truncated"] == 2
    )
    short = [i for i, n in enumerate(lengths) if n < 100]
    parted = [list(m.adapter.lines(m.infer(long_rows), long_rows)) for m in (plain, windowed)]
    for a, b in ((parted[0][i], parted[1][i]) for i in short):
        assert a["prediction"] == b["prediction"]
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-7)
    monkeypatch.setattr(inference, "useful", lambda tokens, _: tokens)
    both = [list(m.adapter.lines(m.infer(long_rows), long_rows)) for m in (plain, windowed)]
    assert [both[0][i] for i in short] == [both[1][i] for i in short]
    assert all(both[0][i]["probabilities"] != both[1][i]["probabilities"] for i in (2, 5))
    only = long_rows.take(np.array(short))
    assert windowed.score(windowed.infer(only), only) == plain.score(plain.infer(only), only)


@pytest.mark.slow
def test_training_on_windows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The label stands at the end of a long text: windows and tails see it, heads do not. The saved model keeps it so."""
    from transformers import pipeline

    word = {"good": "heart", "bad": "jokes"}
    rows = [{"text": f"{text} {word[label]}" + f" {word[label]}" * 7, "label": label}
            for text in texts(*[60] * 16) for label in word]  # fmt: skip
    common = {"epochs": 15, "batch_size": 8, "max_length": 32, "learning_rate": 2e-3, "quiet": True}
    found = {}
    for name, options in {"head": {}, "tail": {"truncation": "tail"}, "head+tail": {"truncation": "head+tail"},
                          "windows": {"windows": True, "stride": 8, "pooling": "max"}}.items():  # fmt: skip
        run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, output=tmp_path / name,
                               **common, **{f"classification.{key}": value for key, value in options.items()})  # fmt: skip
        found[name] = run.metrics["validation"]["accuracy"]
        again = bert_ft.load(run.path / "model").predict([row["text"] for row in rows])
        assert [a["prediction"] for a in again] == [line["prediction"] for line in run.predictions()], name
        assert run.results["counts"]["train"]["truncated"] == (0 if name == "windows" else len(rows))
        if name == "tail":
            theirs = pipeline("text-classification", str(run.path / "model"))(
                [r["text"] for r in rows], truncation=True
            )
            assert [a["prediction"] for a in again] == [entry["label"] for entry in theirs]
    assert found["head"] < 0.8 < 0.95 < min(found["tail"], found["head+tail"], found["windows"]), found


@pytest.mark.parametrize(("options", "message"), [
    ({"windows": True}, "classification.windows: windows and head+tail are for single texts"),
    ({"truncation": "head+tail"}, "classification.truncation: windows and head+tail are for single texts"),
    ({"windows": True, "truncation": "tail"}, "classification.windows leaves nothing to truncate"),
])  # fmt: skip
def test_what_makes_no_sense_for_long_texts(tokenizers: Any, options: Any, message: str) -> None:
    rows = adapter(["neg", "pos"]).rows([("one", "two")])
    with pytest.raises(bert_ft.InputError) as error:
        adapter(["neg", "pos"], **options).encode(rows, tokenizers["bert"], 16)
    assert message in str(error.value)


def test_a_stride_as_wide_as_the_window(tokenizers: Any) -> None:
    with pytest.raises(bert_ft.InputError, match="windows of 30 tokens can't share 30"):
        adapter(["neg", "pos"], windows=True, stride=30).encode(rows_of([40]), tokenizers["bert"], 32)
