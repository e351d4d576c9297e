"""`bert-ft predict`: any format in and out, rows at fault named, answers equal to the padded model's."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bert_ft
from bert_ft.tools.predict import files, writers

TEXTS = [f"a {word} film {'very ' * (i % 5)}{i}" for i in range(20) for word in ("good", "bad")]


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    rows = [{"text": text, "label": "good" if "good" in text else "bad"} for text in TEXTS]
    return bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows[:4], epochs=1, max_length=24,
                            batch_size=8, output=tmp_path_factory.mktemp("run") / "run", quiet=True)  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".txt":
        path.write_text("".join(row["text"] + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "txt", "parquet"])
@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
def test_every_format_keeps_columns_and_order(
    run: bert_ft.Run, tmp_path: Path, cli: Any, source: str, target: str
) -> None:
    rows = [{"id": f"r{k}", "text": text, "note": 'a "quoted", cell'} for k, text in enumerate(TEXTS)]
    given = _write(tmp_path / f"rows.{source}", rows)
    done = cli("predict", str(run.path), str(given), "--output", str(tmp_path / f"out.{target}"))
    assert done.code == 0 and all(
        "only that much is read" in line or "of the tokens are unknown" in line
        for line in done.err.splitlines()
    )
    found = _read(tmp_path / f"out.{target}")
    expected = run.predict(TEXTS)
    assert [row["text"] for row in found] == TEXTS and [row["prediction"] for row in found] == [
        e["prediction"] for e in expected
    ]
    if source != "txt":
        assert [list(row)[:3] for row in found] == [["id", "text", "note"]] * len(rows)
        assert [row["note"] for row in found] == [row["note"] for row in rows]
    p = [
        float(row["probability of good"]) if target == "csv" else row["probabilities"]["good"]
        for row in found
    ]
    assert p == pytest.approx([e["probabilities"]["good"] for e in expected], abs=1e-12)


def test_standard_input_to_standard_output(
    run: bert_ft.Run, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("a good film\nein schöner Film\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    done = cli("predict", str(run.path / "model"), "--from", "txt")
    assert done.code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["text"] for line in lines] == ["a good film", "ein schöner Film"]
    assert lines == [
        {"text": t["text"], **a} for t, a in zip(lines, run.predict([t["text"] for t in lines]), strict=True)
    ]


def test_equals_the_padded_model(run: bert_ft.Run) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(run.path / "model").eval()
    with torch.inference_mode():
        logits = model(
            **tokenizer(TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt")
        ).logits
    labels = [model.config.id2label[k] for k in range(2)]
    found = [[answer["probabilities"][label] for label in labels] for answer in run.predict(TEXTS)]
    assert np.allclose(found, logits.softmax(-1).numpy(), atol=1e-5)


MALFORMED = [
    ("not json at all", "line 2: not JSON"),
    ("[1, 2]", "line 3: list, not an object"),
    ('{"other": "x"}', "line 4: no 'text'"),
    ('{"text": null}', "line 5: no 'text'"),
    ('{"text": 5}', "line 6: 'text' is int, not text"),
    ('{"text": ["a"]}', "line 7: 'text' is list, not text"),
    ('{"text": "cut off', "line 8: not JSON"),
    ('{"text": "\\ud83d"}', "line 9: 'text' holds half a surrogate pair"),
    ("[" * 50_000, "line 10: not JSON"),
    ('{"text": "caf\udce9"}', "line 11: 'text' has bytes of another encoding: --set data.encoding=..."),
]


@pytest.mark.parametrize("keep", [False, True])
def test_ten_malformed_rows_give_ten_named_lines(
    run: bert_ft.Run, tmp_path: Path, cli: Any, keep: bool
) -> None:
    file = tmp_path / "rows.jsonl"
    lines = ['{"text": "fine"}', *(line for line, _ in MALFORMED), '{"text": "fine, too"}']
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    done = cli(
        "predict",
        str(run.path),
        str(file),
        "--output",
        str(tmp_path / "out.jsonl"),
        *(["--keep-bad"] if keep else []),
    )
    told = done.err.splitlines()
    assert [message in line for line, (_, message) in zip(told, MALFORMED, strict=False)] == [True] * 10, (
        done.err[:3000]
    )
    assert told[10:] == [
        "10 of 12 rows are at fault, and " + ("kept with their error" if keep else "left out")
    ]
    assert done.code == (0 if keep else 2)
    out = _read(tmp_path / "out.jsonl")
    assert len(out) == (12 if keep else 2)
    assert [bool(row.get("error")) for row in out] == (
        [False, *[True] * 10, False] if keep else [False, False]
    )


def test_malformed_tables(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('text,n\na good film,1\ntoo,many,cells\n"never closed\n')
    done = cli("predict", str(run.path), str(file))
    assert (
        done.code == 2
        and "line 3: 3 cells where the header has 2" in done.err
        and "line 4: a quote opens a cell and is never closed" in done.err
    )
    file.write_text("review\nfine\n")
    done = cli("predict", str(run.path), str(file))
    assert done.code == 2 and "no column 'text'" in done.err
    assert cli("predict", str(run.path), str(file), "--column", "text=review").code == 0
    done = cli(
        "predict",
        str(run.path),
        str(file),
        "--column",
        "text=review",
        "--output",
        str(tmp_path / "no" / "out.csv"),
    )
    assert done.code == 1 and "Traceback" not in done.err


def test_python_objects(run: bert_ft.Run) -> None:
    import datasets
    import pandas

    expected = run.predict(TEXTS)
    rows = [{"text": text, "id": k} for k, text in enumerate(TEXTS)]
    for given in (
        rows,
        datasets.Dataset.from_list(rows),
        pandas.DataFrame(rows),
        pandas.Series(TEXTS),
        tuple(TEXTS),
    ):
        assert run.predict(given) == expected
    assert run.predict({"text": TEXTS[0]})[0]["prediction"] == expected[0]["prediction"]
    with pytest.raises(bert_ft.InputError, match="input 2: no 'text'"):
        run.predict([{"text": "a"}, {"texts": "b"}])


def test_windows_do_not_show(run: bert_ft.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    files.predict(run.model, str(given), str(tmp_path / "one.jsonl"))
    monkeypatch.setattr(files, "WINDOW", 7)
    found = files.predict(run.model, str(given), str(tmp_path / "many.jsonl"))
    assert found.rows == len(TEXTS)
    one, many = _read(tmp_path / "one.jsonl"), _read(tmp_path / "many.jsonl")
    assert [row["prediction"] for row in one] == [row["prediction"] for row in many]
    assert [r["probabilities"]["good"] for r in one] == pytest.approx(
        [r["probabilities"]["good"] for r in many], abs=1e-6
    )


def test_what_comes_up_late_is_kept_or_told(
    run: bert_ft.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (files, writers):
        monkeypatch.setattr(module, "WINDOW", 4)
    rows: list[dict[str, Any]] = [
        {"text": None},
        *({"text": text, "n": k} for k, text in enumerate(TEXTS[:10])),
    ]
    rows[6] |= {"n": 0.5, "tags": []}
    rows[9]["tags"] = ["late"]
    rows.append({"text": None, "n": 9})
    given, told = _write(tmp_path / "rows.jsonl", rows), list[str]()
    for suffix in ("jsonl", "parquet", "csv"):
        files.predict(run.model, str(given), str(tmp_path / f"out.{suffix}"), keep_bad=True, tell=told.append)
    lines, table, cells = (_read(tmp_path / f"out.{suffix}") for suffix in ("jsonl", "parquet", "csv"))
    names = dict.fromkeys(name for line in lines for name in line)
    assert table == [{name: line.get(name) for name in names} for line in lines]
    assert (
        [row["n"] for row in table][6:8] == [0.5, 6] and table[9]["tags"] == ["late"] and table[11]["error"]
    )
    assert "tags" not in cells[0] and [
        line
        for line in told
        if line.startswith("Column 'tags' first appears after row 4, when the header had been written")
    ]
    assert list(tmp_path.glob("*.older*")) == [] == list(tmp_path.glob("*.tmp"))


def test_no_rows_and_mixed_types_as_parquet(run: bert_ft.Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    files.predict(run.model, str(tmp_path / "empty.jsonl"), str(tmp_path / "empty.parquet"))
    assert _read(tmp_path / "empty.parquet") == []
    given = _write(tmp_path / "mixed.jsonl", [{"text": "a", "id": 1}, {"text": "b", "id": "x"}])
    with pytest.raises(bert_ft.InputError, match=r"mixed\.parquet: these rows make no columns"):
        files.predict(run.model, str(given), str(tmp_path / "mixed.parquet"))
    assert not (tmp_path / "mixed.parquet").exists()


@pytest.mark.parametrize(("name", "content", "arguments", "what"), [
    ("a.csv", "text,text,n\nfirst,second,1\n", [], "a.csv: two columns are called 'text'"),
    ("a.csv", "text,prediction\nhello,said before\n", [], "a.csv, line 2: the rows have a column 'prediction' of their own"),
    ("a.csv", "text,error\nhello,none\n", ["--keep-bad"], "a.csv, line 2: the rows have a column 'error' of their own"),
    ("a.csv", "text,n\nhello,1\n", ["--column", "txt=n"], "--column: there is no role 'txt'\n  did you mean 'text'?"),
    ("a.csv", '"te"xt,n\na,1\n', [], "a.csv: the header can't be read"),
    ("a.csv", "text\nhello\n", ["--set", "nonsense=1"], "'nonsense' is no setting of predict"),
])  # fmt: skip
def test_what_would_lose_a_column_is_refused(
    run: bert_ft.Run, tmp_path: Path, cli: Any, name: str, content: str, arguments: list[str], what: str
) -> None:
    (tmp_path / name).write_text(content)
    done = cli(
        "predict", str(run.path), str(tmp_path / name), "--output", str(tmp_path / "out.csv"), *arguments
    )
    assert done.code == 2 and what in done.err.replace(f"{tmp_path}/", ""), done
    assert not (tmp_path / "out.csv").exists()


def test_the_form_of_tables_and_documents(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    rows = [{"text": '"a good film', "n": "1"}, {"text": 'a bad film"', "n": "2"}]
    (tmp_path / "plain.tsv").write_text("text\tn\n" + "".join(f"{row['text']}\t{row['n']}\n" for row in rows))
    literal = cli("predict", str(run.path), str(tmp_path / "plain.tsv"), "--to", "jsonl")
    assert [json.loads(line)["text"] for line in literal.out.splitlines()] == [row["text"] for row in rows]
    assert literal.err.startswith("1 row has a cell that begins with a quote") and "line 2" in literal.err
    (tmp_path / "broken.tsv").write_text('text\tn\n"a\nb"\t1\n')
    broken = cli("predict", str(run.path), str(tmp_path / "broken.tsv"), "--to", "jsonl")
    assert broken.err.startswith("1 rows hold line breaks within quotes; where each line is a row")
    more = "".join(f"film {i},{i % 2}\n" for i in range(9))
    (tmp_path / "plain.csv").write_text(f'text,n\n{more}"a good film,1\nx,0\na bad film",1\n{more}')
    doubtful = cli("predict", str(run.path), str(tmp_path / "plain.csv"), "--to", "jsonl")
    assert "whose lines look like rows of their own: is a quote left open?" in doubtful.err
    (tmp_path / "wide.csv").write_bytes("text,n\n好看的电影,4\n".encode("utf-16"))
    (tmp_path / "semicolons.csv").write_text(
        "text;n\n" + "".join(f"{row['text']};{row['n']}\n" for row in rows)
    )
    (tmp_path / "latin.csv").write_bytes("text,n\nein schöner Film,3\n".encode("latin-1"))
    (tmp_path / "document.json").write_text(json.dumps(rows, indent=2))
    for file, sets, texts in (
        ("plain.tsv", ["quoting=false"], [row["text"] for row in rows]),
        ("semicolons.csv", ["delimiter=;", "quoting=false"], [row["text"] for row in rows]),
        ("document.json", [], [row["text"] for row in rows]), ("latin.csv", ["encoding=latin-1"], ["ein schöner Film"]),
        ("wide.csv", [], ["好看的电影"]), ("wide.csv", ["encoding=utf-16"], ["好看的电影"]),
    ):  # fmt: skip
        settings = [word for key in sets for word in ("--set", key)]
        done = cli("predict", str(run.path), str(tmp_path / file), *settings, "--to", "jsonl")
        assert [json.loads(line)["text"] for line in done.out.splitlines()] == texts, (file, done)


def test_texts_and_tables_in_text_files(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """A line is a text, unless the first line is a header, or the task has a pattern that the line matches."""
    (tmp_path / "table.txt").write_text("text\tlabel\na good film\tpos\n")
    (tmp_path / "plain.txt").write_text("a good film\tpos\n好看的电影\n")
    (tmp_path / "fast.txt").write_text("__label__pos a good film\n\na bad one\n")
    pattern = r"data.pattern=__label__(?P<label>\S+) (?P<text>.*)"
    for name, sets, texts in (
        ("table.txt", [], ["a good film"]), ("plain.txt", [], ["a good film\tpos", "好看的电影"]),
        ("fast.txt", ["--set", pattern], ["a good film", "a bad one"]),
    ):  # fmt: skip
        done = cli("predict", str(run.path), str(tmp_path / name), *sets, "--to", "jsonl")
        assert [json.loads(line)["text"] for line in done.out.splitlines()] == texts, (name, done)
    (tmp_path / "escaped.csv").write_text('text,n\n"a \\"good\\" film, yes",1\n')
    done = cli(
        "predict", str(run.path), str(tmp_path / "escaped.csv"), "--set", "quoting=backslash", "--to", "jsonl"
    )
    assert json.loads(done.out)["text"] == 'a "good" film, yes'


@pytest.mark.parametrize(("key", "what"), [
    ("max_length=512", "is no setting of predict"), ("problem_type=regression", "is no setting of predict"),
    ("encoding=foo", "data.encoding: unknown encoding 'foo'"),
])  # fmt: skip
def test_settings_that_predicting_has_not(
    run: bert_ft.Run, tmp_path: Path, cli: Any, key: str, what: str
) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    done = cli("predict", str(run.path), str(tmp_path / "a.csv"), "--set", key)
    assert done.code == 2 and what in done.err, done


def test_columns_without_a_name_are_kept(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "a.csv").write_bytes("\ufefftext,n,,\na good film,1,x,y\n".encode())
    done = cli("predict", str(run.path), str(tmp_path / "a.csv"), "--set", "encoding=UTF8", "--to", "jsonl")
    assert done.code == 0, done
    assert list(json.loads(done.out).values())[:4] == ["a good film", "1", "x", "y"]


def test_an_empty_cell_is_no_text_and_a_quoted_one_is(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """As in training, where an empty cell is no text; in the columns that are passed on too."""
    (tmp_path / "a.csv").write_text('text,n\n,1\n"",\nfine,""\n')
    done = cli("predict", str(run.path), "a.csv", "--to", "jsonl")
    assert (
        done.code == 2 and "a.csv, line 2: no 'text'" in done.err and "1 of 3 rows are at fault" in done.err
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["text"], row["n"]) for row in rows] == [("", None), ("fine", "")]
    done = cli("predict", str(run.path), "a.csv", "--column", "text=n", "--to", "csv")
    assert [row["text"] for row in csv.DictReader(io.StringIO(done.out))] == ["", "fine"]


def test_rows_behind_one_at_fault_are_answered(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    """Also behind several lines of one row: the line that is named is the one where the row begins."""
    (tmp_path / "a.csv").write_text(
        'text,n\n"two\nlines",1\n"Good" he, said,2\na,b,3\n\n好看的电影,4\n"open\nx,6\n'
    )
    done = cli("predict", str(run.path), "a.csv", "--to", "jsonl")
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == ["two\nlines", "好看的电影"]
    told = done.err.splitlines()
    assert told[0].endswith("line 4: text stands behind a closing quote: ' he, said,2'")
    assert told[1].endswith("line 5: 3 cells where the header has 2")
    assert "line 8: a quote opens a cell and is never closed" in told[2]


@pytest.mark.parametrize(("content", "encoding", "what"), [
    ("text\na film\n".encode("utf-16-le"), "utf-8", "the file is UTF-16 without a byte-order mark\n  set data.encoding"),
    ("text\na film\n".encode("utf-16")[:-1], "utf-16", "the bytes are not utf-16: truncated data\n  name their encoding"),
    (b"", "utf-8", "the file is empty\n  it needs a header"),
    (b"\ntext\n", "utf-8", "the first line is empty\n  it has to name"),
    (b'"text\na\n', "utf-8", "the header can't be read: a quote opens"),
])  # fmt: skip
@pytest.mark.parametrize("standard_input", [False, True])
def test_streams_that_are_no_table(
    run: bert_ft.Run,
    tmp_path: Path,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    encoding: str,
    what: str,
    standard_input: bool,
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    source = ["-", "--from", "csv"] if standard_input else ["a.csv"]
    done = cli("predict", str(run.path), *source, "--set", f"encoding={encoding}")
    place = "standard input" if standard_input else "a.csv"
    assert done.code == 2 and done.err.startswith(f"bert-ft: {place}: {what}"), done


def test_chinese_tables(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    rows = '名字；text\n张三；好看，也好笑\n李四；"不错；很好"\n'
    (tmp_path / "a.csv").write_bytes(rows.encode("gb18030"))
    done = cli(
        "predict",
        str(run.path),
        "a.csv",
        "--set",
        "encoding=gb18030",
        "--set",
        "delimiter=；",
        "--to",
        "jsonl",
    )
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["名字"], row["text"]) for row in found] == [("张三", "好看，也好笑"), ("李四", "不错；很好")]


def test_chinese_tables_in_another_encoding_than_the_run_s(
    run: bert_ft.Run, tmp_path: Path, cli: Any
) -> None:
    rows = "名字,text\n张三,好看也好笑好看也好笑\n"
    (tmp_path / "gbk.csv").write_bytes(rows.encode("gbk"))
    done = cli("predict", run.path, "gbk.csv")
    assert done.code == 2 and done.err == (
        "bert-ft: gbk.csv: the bytes of the column names are not utf-8\n"
        "  name their encoding: --set data.encoding=gb18030 (Chinese), cp1252 (Western Europe), ...\n"
    )
    answered = cli("predict", run.path, "gbk.csv", "--set", "data.encoding=gb18030")
    (tmp_path / "utf8.csv").write_text(rows)
    done = cli("predict", run.path, "utf8.csv", "--set", "encoding=gbk")
    assert done.code == 2 and done.err.startswith("bert-ft: utf8.csv: the file is UTF-8, and not gbk\n")
    (tmp_path / "marked.csv").write_text(rows, encoding="utf-8-sig")
    done = cli("predict", run.path, "marked.csv", "--set", "encoding=gbk")
    assert answered.code == done.code == 0 and done.out == answered.out and "张三,好看" in done.out


def test_what_the_model_does_not_read_is_told(run: bert_ft.Run, tmp_path: Path, cli: Any) -> None:
    tokenizer, most = run.model.tokenizer, run.model.max_length
    texts = ["a good film", "a bad film " * 20, "这部电影很好看，很好看"]
    ids = [tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
    long = sum(len(tokenizer(text)["input_ids"]) > most for text in texts)
    share = sum(row.count(tokenizer.unk_token_id) for row in ids) / sum(map(len, ids))
    _write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    done = cli("predict", run.path, "a.jsonl")
    assert long == 1 and share > 0.1 and done.code == 0
    assert done.err.splitlines()[-2:] == [
        f"1 of 3 rows are longer than {most} tokens, and only that much is read",
        f"texts: {share:.1%} of the tokens are unknown and 0.0% of the characters are in no token, so the "
        "model does not see them; use a checkpoint that was pretrained on texts like these, with its own tokenizer",
    ]
    _write(tmp_path / "a.jsonl", [{"text": texts[0]}])
    assert "unknown" not in (err := cli("predict", run.path, "a.jsonl").err) and "longer" not in err


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_spreadsheet_knows_what_encoding_it_is(
    run: bert_ft.Run, tmp_path: Path, cli: Any, kind: str
) -> None:
    """Excel takes a file without a mark for GBK in China, and shows other characters."""
    rows = [{"text": "好看"}]
    _write(tmp_path / "a.jsonl", rows)
    (tmp_path / "many").mkdir()
    _write(tmp_path / "many" / "a.jsonl", rows)
    assert cli("predict", run.path, "a.jsonl", "-o", f"plain.{kind}").code == 0
    assert cli("predict", run.path, "a.jsonl", "-o", f"safe.{kind}", "--escape-formulas").code == 0
    assert cli("predict", run.path, "many", "-o", "out", "--to", kind, "--escape-formulas").code == 0
    plain = (tmp_path / f"plain.{kind}").read_bytes()
    assert plain.startswith(b"text") and "好看".encode() in plain
    for name in (f"safe.{kind}", f"out/a.{kind}"):
        assert (tmp_path / name).read_bytes() == b"\xef\xbb\xbf" + plain
    assert cli("predict", run.path, f"safe.{kind}", "-o", "again.jsonl").code == 2, "it has answers already"
    done = cli("predict", run.path, "a.jsonl", "--to", kind, "--escape-formulas")
    assert done.out.encode().replace(b"\r\n", b"\n") == plain.replace(b"\r\n", b"\n"), "a stream has no mark"
