"""`bert-ft embed`: any file of rows in, vectors out in every format, row for row; a published number, measured again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

import bert_ft
from bert_ft.tools.embed import files
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES, "北京欢迎你", SENTENCES[0], "", "fine " * 200]
BAD = ['{"id": 90}', "not json", '{"id": 91, "text": 5}', '{"id": 92, "text": "\\ud83d"}']


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint: Path) -> bert_ft.Embedder:
    return bert_ft.Embedder.load(tiny_checkpoint)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows, four of them at fault."""
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:3] + BAD + lines[3:]) + "\n")
    return tmp_path / "rows.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    assert pa.types.is_fixed_size_list(table.schema.field("vector").type)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("suffix", ["npy", "parquet", "arrow", "jsonl"])
def test_every_format_keeps_columns_and_order(
    embedder: bert_ft.Embedder, rows: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dtype: str
) -> None:
    """In blocks of five rows."""
    monkeypatch.setattr(files, "ROWS", 5)
    told: list[str] = []
    target = rows.with_suffix(f".out.{suffix}")
    outcome = files.embed_file(embedder, str(rows), str(target), dtype=dtype, tell=told.append)
    assert (outcome.rows, len(outcome.bad), outcome.empty, outcome.truncated, outcome.repeated) == (
        20,
        4,
        1,
        1,
        1,
    )
    assert (
        "line 5: not JSON" in told[1]
        and told[-1] == "1 of 20 texts have no token: their vectors are all zeros"
    )
    expected = embedder.vectors(TEXTS).vectors
    if suffix == "npy":
        vectors = np.load(target, mmap_mode="r")
        assert vectors.dtype == np.dtype(dtype) and vectors.shape == (20, 32) and not vectors[3:7].any()
        found = np.concatenate([vectors[:3], vectors[7:]]).astype(np.float32)
        if dtype == "int8":
            found *= np.abs(expected).max(1, keepdims=True) / 127
    else:
        out = read(target)
        assert [row["text"] for row in out] == TEXTS and [row["id"] for row in out] == [*range(len(TEXTS))]
        found = np.array([row["vector"] for row in out], np.float32)
        if dtype == "int8":
            found *= np.array([row["scale"] for row in out], np.float32)[:, None]
    assert np.abs(found - expected).max() < {"float32": 1e-5, "float16": 2e-3, "int8": 0.02}[dtype]
    assert [*rows.parent.glob(".*.tmp*")] == []


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_rows_at_fault_are_kept_with_their_error(embedder: bert_ft.Embedder, rows: Path, suffix: str) -> None:
    """Of a table's column all values have one type."""
    target = rows.with_suffix(f".out.{suffix}")
    if suffix != "jsonl":
        rows.write_text(rows.read_text().replace('"text": 5', '"text": null'))
    files.embed_file(embedder, str(rows), str(target), keep_bad=True, dtype="int8")
    out = read(target)
    third = "'text' is int, not text" if suffix == "jsonl" else "no 'text'"
    assert [row["error"] for row in out][2:8] == [
        None, "no 'text'", "not JSON: Expecting value", third, "'text' holds half a surrogate pair", None,
    ]  # fmt: skip
    assert [row["vector"] is None for row in out] == [3 <= i < 7 for i in range(20)]


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_words(embedder: bert_ft.Embedder, rows: Path, suffix: str) -> None:
    target = rows.with_suffix(f".out.{suffix}")
    files.embed_file(embedder, str(rows), str(target), words="mean")
    out = read(target)
    number = [0, 1, 2, *range(7, 20)]  # where each text stands in the file
    expected = [
        (row, word, *span, vector)
        for row, found in zip(number, embedder.words(TEXTS), strict=True)
        for word, span, vector in zip(found.words, found.spans.tolist(), found.vectors, strict=True)
    ]
    assert [(row["row"], row["word"], row["start"], row["end"]) for row in out] == [
        each[:4] for each in expected
    ]
    assert np.abs(np.array([row["vector"] for row in out]) - [each[4] for each in expected]).max() < 1e-5


def test_a_column_that_comes_late_and_files_without_rows(
    embedder: bert_ft.Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROWS", 2)
    source = tmp_path / "rows.jsonl"
    source.write_text(
        "".join(json.dumps({"text": "a film"} | ({"note": "late"} if i > 4 else {})) + "\n" for i in range(7))
    )
    for suffix in ("parquet", "arrow"):
        files.embed_file(embedder, str(source), str(tmp_path / f"out.{suffix}"))
        out = read(tmp_path / f"out.{suffix}")
        assert [row["note"] for row in out] == [None] * 5 + ["late"] * 2 and all(
            len(row["vector"]) == 32 for row in out
        )
    source.write_text("")
    for suffix in ("npy", "parquet", "arrow", "jsonl"):
        files.embed_file(embedder, str(source), str(tmp_path / f"none.{suffix}"))
    assert (
        np.load(tmp_path / "none.npy").shape == (0, 32)
        and pq.read_table(tmp_path / "none.parquet").num_rows == 0
    )


def test_what_is_kept_for_texts_that_come_again_is_bounded(
    embedder: bert_ft.Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROWS", 4)
    monkeypatch.setattr(files, "REMEMBERED", 6 * (4 * 32 + files.ENTRY))
    source = tmp_path / "rows.txt"
    source.write_text(
        "".join(f"film {i % 5}\n" for i in range(40)) + "".join(f"{i % 20} films\n" for i in range(40))
    )
    outcome = files.embed_file(embedder, str(source), str(tmp_path / "out.npy"))
    assert outcome.repeated == 35, "the five come again at once, the twenty too late"
    again = embedder.vectors(source.read_text().splitlines()).vectors
    assert np.abs(np.load(tmp_path / "out.npy") - again).max() < 1e-5


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_what_is_no_text_is_kept_beside_its_error(
    suffix: str, embedder: bert_ft.Embedder, tmp_path: Path
) -> None:
    """In a column of texts as JSON."""
    source = tmp_path / "rows.jsonl"
    values = ["a film", 5, ["a", "b"], None, "films"]
    source.write_text("".join(json.dumps({"text": value}) + "\n" for value in values))
    outcome = files.embed_file(embedder, str(source), str(tmp_path / f"out.{suffix}"), keep_bad=True)
    out = read(tmp_path / f"out.{suffix}")
    kept = ["a film", "5", '["a", "b"]', None, "films"] if suffix != "jsonl" else values
    assert [row["text"] for row in out] == kept and len(outcome.bad) == 3
    assert (
        [bool(row["error"]) for row in out]
        == [row["vector"] is None for row in out]
        == [False, True, True, True, False]
    )


def test_a_text_that_comes_again_as_others_take_its_place(
    embedder: bert_ft.Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block that asks for the oldest vector of those that are kept is the one that overwrites it."""
    monkeypatch.setattr(files, "ROWS", 4)
    monkeypatch.setattr(files, "REMEMBERED", 6 * (4 * 32 + files.ENTRY))
    texts = [f"film {word}" for word in (*"abcdefef", *"aghi", *"ijka", *"hgfa")]
    source = tmp_path / "rows.txt"
    source.write_text("\n".join(texts))
    outcome = files.embed_file(embedder, str(source), str(tmp_path / "out.npy"))
    assert outcome.repeated == 2 + 1 + 1 + 3
    again = np.stack([embedder.vectors([text]).vectors[0] for text in texts])
    assert np.abs(np.load(tmp_path / "out.npy") - again).max() < 1e-5


def test_the_command(tiny_checkpoint: Path, csv: Any, cli: Any, tmp_path: Path) -> None:
    csv("reviews.csv", [("id", "review"), (1, "a warm film"), (2, "这部电影很好"), (3, "")])
    done = cli(
        "embed",
        tiny_checkpoint,
        "reviews.csv",
        "--text",
        "review",
        "-o",
        "out.npy",
        "--layers",
        "-2,-1",
        "--normalize",
    )
    assert done.code == 0 and "1 of 3 texts have no token" in done.err
    vectors = np.load(tmp_path / "out.npy")
    assert vectors.shape == (3, 64) and np.allclose(np.linalg.norm(vectors[:2], axis=1), 1, atol=1e-6)
    done = cli("embed", tiny_checkpoint, "reviews.csv", "--text", "review", "--words")
    assert [json.loads(line)["word"] for line in done.out.splitlines()] == [
        *["a", "warm", "film"],
        *"这部电影很好",
    ]
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    off = ["--layers", "-2,-1", "--set", "unpad=false", "--set", "lean=false", "-o", "x.npy"]
    done = cli("embed", tiny_checkpoint, "reviews.csv", "--text", "review", *off)
    assert done.code == 0 and "padded: batching.unpad = false" in done.err
    plain = np.load(tmp_path / "x.npy")[:2]
    assert np.abs(plain / np.linalg.norm(plain, axis=1, keepdims=True) - vectors[:2]).max() < 1e-6
    done = cli("embed", tiny_checkpoint, "bad.jsonl", "-o", "out.npy")
    assert done.code == 2 and "1 of 2 rows are at fault, and have zeros" in done.err
    assert np.load(tmp_path / "out.npy").any(1).tolist() == [True, False]


@pytest.mark.parametrize(("arguments", "message"), [
    (["gone.csv"], "gone.csv: no such file"),
    (["rows.csv", "--text", "txt"], "no column 'txt'"),
    (["rows.csv", "-o", "out.xlsx"], "vectors can't be written as 'xlsx'"),
    (["rows.csv", "--to", "npy"], "npy can't be written to standard output"),
    (["rows.csv", "--words", "-o", "out.npy"], "has no place for the words"),
    (["rows.csv", "--words", "--prompt", "a: "], "a prompt is set before texts whose own vector is taken"),
    (["rows.csv", "--words", "--pooling", "cls"], "'cls' is not known"),
    (["rows.csv", "--layers", "last"], "'last' names no layers"),
    (["rows.csv", "--dtype", "int4"], "'int4' is not known"),
    (["rows.csv", "--set", "eval_token=3"], "'eval_token' is no setting of embed"),
    (["rows.csv", "--set", "delimiter=;;"], "delimiter"),
    (["rows.csv", "--set", "lean=2"], "batching.lean"),
    (["rows.csv", "--set", "leen=false"], "batching.unpad"),
    (["rows.csv", "--max-length", "500"], "max_length = 500, but the checkpoint has 128 positions"),
    (["taken.csv"], "the rows have a column 'vector' of their own"),
    (["rows.csv", "-o", "link.npy"], "this is a link"),
])  # fmt: skip
def test_bad_input(
    arguments: list[str], message: str, tiny_checkpoint: Path, csv: Any, cli: Any, tmp_path: Path
) -> None:
    csv("rows.csv", [("text",), ("a film",)])
    csv("taken.csv", [("text", "vector"), ("a film", "5")])
    (tmp_path / "link.npy").symlink_to("elsewhere.npy")
    done = cli("embed", tiny_checkpoint, *arguments)
    assert done.code == 2 and message in done.err
    assert not [*tmp_path.glob("out.*")]


@pytest.mark.slow
@pytest.mark.pretrained
@pytest.mark.shared_data
def test_a_published_number(minilm: Path, shared_data: Path, tmp_path: Path) -> None:
    """MTEB's result of this very checkpoint on STSBenchmark's test pairs: cosine Spearman 0.8203247, Pearson 0.8274064
    (mean pooling, 256 tokens)."""
    from scipy.stats import pearsonr, spearmanr

    with (shared_data / "stsb-test" / "sts-test.csv").open(encoding="utf-8", newline="") as stream:
        pairs = [row[4:7] for row in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(pairs) == 1379
    source = tmp_path / "texts.txt"
    source.write_text("".join(f"{text}\n" for _, *both in pairs for text in both), encoding="utf-8")
    embedder = bert_ft.Embedder.load(minilm, pooling="mean", normalize=True, max_length=256)
    files.embed_file(embedder, str(source), str(tmp_path / "vectors.npy"))
    vectors = np.load(tmp_path / "vectors.npy").reshape(1379, 2, -1)
    scores = [float(score) for score, *_ in pairs]
    cosines = (vectors[:, 0] * vectors[:, 1]).sum(1)
    assert spearmanr(cosines, scores).statistic == pytest.approx(0.8203247283, abs=1e-6)
    assert pearsonr(cosines, scores).statistic == pytest.approx(0.8274064, abs=1e-6)


@pytest.mark.parametrize("words", [False, True])
def test_texts_that_the_encoder_does_not_see_are_told(
    words: bool, tiny_checkpoint: Path, csv: Any, cli: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = ["a warm film", "这部电影很好"]
    csv("seen.csv", [("text",), (texts[0],)])
    csv("unseen.csv", [("text",), *((text,) for text in texts)])
    more = ["--words"] if words else []
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    ids = [number for text in texts for number in tokenizer(text, add_special_tokens=False)["input_ids"]]
    share = ids.count(tokenizer.unk_token_id) / len(ids)
    said = f"texts: {share:.1%} of the tokens are unknown, so the model does not see them; use a checkpoint"
    done = cli("embed", tiny_checkpoint, "unseen.csv", *more)
    assert share > 0.5 and done.code == 0 and said in done.err
    assert "unknown" not in cli("embed", tiny_checkpoint, "seen.csv", *more).err
    embedder = bert_ft.Embedder.load(tiny_checkpoint)
    bert_ft.embed(embedder, texts, words=words)
    assert said in "".join(capfd.readouterr())
    bert_ft.embed(embedder, texts[:1], words=words)
    assert "unknown" not in "".join(capfd.readouterr())
