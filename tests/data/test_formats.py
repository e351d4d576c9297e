"""What stands in a file is what is read; what can't be read is told with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.data import loading
from bert_ft.data.formats.encodings import known, opened
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification

Load = Callable[..., Splits]

# --- GLUE's forms -----------------------------------------------------------------------------------------------------

MRPC = ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t1\t2\tHe said , " no .\t" No , he said .\n'
        '0\t3\t4\t"Yes .\tNA\n')  # fmt: skip
STSB = ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        '0\tnews\tf\t2012\t0\tnone\tnone\t"A plane lands\tA plane takes off"\t1.500\n'
        "1\tnews\tf\t2012\t1\tnone\tnone\tA\tNone\t5.000\n")  # fmt: skip
COLA = 'src\t1\t\tThey said "so .\nsrc\t0\t*\tSo they said" .\n'
COLA_TASK = {
    "name": "cola", "data": {"labels": ["unacceptable", "acceptable"], "original": {
        "folder": "CoLA", "train": "train.tsv", "evaluate": "dev.tsv", "test": "test.tsv",
        "columns": {"text": "sentence", "label": "label"}, "names": ["source", "label", "star", "sentence"],
        "label_names": {"0": "unacceptable", "1": "acceptable"}}},
}  # fmt: skip


def distribution(folder: Path, name: str, labelled: str, test: str) -> None:
    (folder / name).mkdir()
    for file, text in (("train.tsv", labelled), ("dev.tsv", labelled), ("test.tsv", test)):
        (folder / name / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("task", "folder", "labelled", "test", "rows", "texts"), [
    (load_task("mrpc"), "MRPC", MRPC, "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\t\"A\tB\n",
     {"text": ['He said , " no .', '"Yes .'], "text_pair": ['" No , he said .', "NA"],
      "label": ["equivalent", "not_equivalent"]}, ['"A']),
    (load_task("stsb"), "STS-B", STSB, STSB.replace("\tscore", "").replace("\t1.500", "").replace("\t5.000", ""),
     {"text": ['"A plane lands', "A"], "text_pair": ['A plane takes off"', "None"], "label": [1.5, 5.0]},
     ['"A plane lands', "A"]),
    (load_task("sst2"), "SST-2", "sentence\tlabel\nfine \t1\nnull \t0\n", "index\tsentence\n0\tdull\n",
     {"text": ["fine ", "null "], "label": ["positive", "negative"]}, ["dull"]),
    (Task.model_validate(COLA_TASK), "CoLA", COLA, "index\tsentence\n0\tShe \"said so\n",
     {"text": ['They said "so .', 'So they said" .'], "label": ["acceptable", "unacceptable"]}, ['She "said so']),
], ids=["MRPC", "STS-B", "SST-2", "CoLA"])  # fmt: skip
def test_glue_forms(
    tmp_path: Path, task: Task, folder: str, labelled: str, test: str, rows: dict[str, Any], texts: list[str]
) -> None:
    distribution(tmp_path, folder, labelled, test)
    for place in (tmp_path, tmp_path / folder):
        splits = loading.load(task.override({"run.data_dir": str(place)}), Classification)
        assert splits.train.table.to_pydict() == splits.evaluation["validation"].table.to_pydict() == rows
        assert splits.test["test"].table["text"].to_pylist() == texts
        assert splits.test["test"].table["label"].null_count == len(texts)


def test_glue_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no 'MRPC/train.tsv' and no 'train.tsv'"):
        loading.load(load_task("mrpc").override({"run.data_dir": str(tmp_path)}), Classification)


# --- other encodings and delimiters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "keys"), [
    ("text,label\nnaïve,1\nfine,0\n".encode("utf-8-sig"), {}),
    ("text,label\nnaïve,1\nfine,0\n".encode("latin-1"), {"data__encoding": "latin-1"}),
    ("text,label\nnaïve,1\nfine,0\n".encode("utf-16"), {"data__encoding": "utf-16"}),
    ("text,label\nnaïve,1\nfine,0\n".encode("utf-8-sig"), {"data__encoding": "gbk"}),  # the mark says so
    ("text;label\nnaïve;1\nfine;0\n".encode(), {"data__delimiter": ";"}),
    ("text,label\r\nnaïve,1\r\n\r\nfine,0".encode(), {}),
    ("text,label\rnaïve,1\rfine,0\r".encode(), {}),
    ("text;label\r\nnaïve;1\r\nfine;0\r\n".encode("utf-16-le"), {"data__encoding": "utf-16-le", "data__delimiter": ";"}),
    ("id,id,text,label\n1,2,naïve,1\n3,4,fine,0".encode(), {}),
    ("text；label\nnaïve；1\nfine；0\n".encode("gb18030"), {"data__encoding": "gb18030", "data__delimiter": "；"}),
    ('"text","label"\nnaïve,"1"\n"fine",0'.encode(), {}),
])  # fmt: skip
def test_csv(load_rows: Load, tmp_path: Path, content: bytes, keys: dict[str, Any]) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    assert load_rows(file, **keys).train.table.to_pydict() == {"text": ["naïve", "fine"], "label": ["1", "0"]}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_utf8_is_read_as_no_other_encoding(load_rows: Load, tmp_path: Path, suffix: str) -> None:
    """Of an even number of Chinese characters GBK reads other characters, without a fault."""
    text = "很好很好很差很差很好"
    assert text.encode().decode("gbk") != text
    content = f'{{"text": "{text}", "label": "a"}}\n' if suffix == ".jsonl" else f"text,label\n{text},a\n"
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(content.encode())
    message = f"{file}: the file is UTF-8, and not gbk\n  name its encoding, --set encoding=utf-8, or save"
    with pytest.raises(InputError, match="^" + re.escape(message)):
        load_rows(file, data__encoding="gbk")
    file.write_bytes(content.encode("gbk"))
    assert load_rows(file, data__encoding="gbk").train.table["text"].to_pylist() == [text]


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "shift_jis"])
def test_utf8_behind_pages_of_ascii_is_told_too(load_rows: Load, tmp_path: Path, encoding: str) -> None:
    """Accents are rare in most of Europe's texts: latin-1 reads them as other characters, without a fault."""
    words = ["écrit à l'œil noir, déjà"] if encoding == "latin-1" else ["很好很好很差很差"]
    lines = ["text,label", *["only ascii,a"] * 2000, *[f"{word},a" for word in words * 3]]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=f"the file is UTF-8, and not {known(encoding)}"):
        load_rows(file, data__encoding=encoding)
    with (
        pytest.raises(InputError, match=f"the file is UTF-8, and not {known(encoding)}"),
        file.open("rb") as raw,
    ):
        opened(raw, encoding, "rows.csv")
    text = "naïve, déjà" if encoding == "latin-1" else "好"
    file.write_bytes("\n".join([*lines[:2001], f"{text},a"]).replace(", ", "").encode(encoding))
    text = text.replace(", ", "")
    assert load_rows(file, data__encoding=encoding).train.table["text"].to_pylist()[-1] == text
    with file.open("rb") as raw, opened(raw, encoding, "rows.csv") as stream:
        assert stream.read().endswith(f"only ascii,a\n{text},a")


def test_the_encoding_of_the_column_names_is_asked_for(load_rows: Load, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("评论,标签\n很好,好\n".encode("gbk"))
    message = f"{file}, line 1: byte 0xc6 is not utf-8\n  save the file as UTF-8, or name its encoding: --set data.encoding=gb18030 (Chinese)"
    with pytest.raises(InputError, match="^" + re.escape(message)):
        load_rows(file, data__columns={"text": "评论", "label": "标签"})
    assert (
        len(load_rows(file, data__columns={"text": "评论", "label": "标签"}, data__encoding="gb18030").train)
        == 1
    )


def test_a_task_file_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    file.write_bytes('title = "评论"\n'.encode("gbk"))
    with pytest.raises(InputError, match=r"task\.toml: byte 0xc6 is not UTF-8\n  save the file as UTF-8"):
        load_task(str(file))


# --- what can't be read -----------------------------------------------------------------------------------------------

FAULTS: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "empty.csv: the file is empty"),
    ("empty.jsonl", b"\n\n", "empty.jsonl: the file is empty\n  it needs at least one object"),
    ("bom.csv", "\ufeff".encode(), "bom.csv: the file is empty"),
    ("header.csv", b"text,label\n", "header.csv: no rows below the header"),
    ("missing.csv", b"texts,label\na,b\n", "missing.csv: no column 'text'\n  did you mean 'texts'?"),
    ("semicolons.csv", b"text;label\na;b\n", "semicolons.csv: no column 'text'\n  known: text;label"),
    ("twice.csv", b"text,text,label\na,b,c\n", "twice.csv: two columns are called 'text'"),
    ("ragged.csv", b"text,label\na,b\nc,d,e\n", "ragged.csv, row 2: 3 cells where the header has 2: 'c,d,e'"),
    ("short.tsv", b"text\tlabel\na\tb\n\nc\n", "short.tsv, row 2: 1 cells where the header has 2: 'c'"),
    ("lines.csv", b'text,label\n"a\n\nb",1\nc\n', "lines.csv, row 2: 1 cells"),
    ("open.csv", b'text,label\n"a\nb,0\n', "open.csv, line 2: a quote opens a cell and is never closed"),
    ("open-last.csv", b'label,text\n1,a\n0,"b\n1,c,d\n', "open-last.csv, line 3: a quote opens a cell and is never closed"),
    ("behind.csv", b'text,label\n"Good", he said,1\n', "behind.csv, row 1: 3 cells where the header has 2"),
    ("behind-one.csv", b'text,label\n"Good" he, said,1\n',
     "behind-one.csv, line 2: text stands behind a closing quote: ' he, said,1'\n  write"),
    ("backslash.csv", b'text,label\n"he said \\"good\\" twice",1\n',
     "backslash.csv, line 2: text stands behind a closing quote: 'good\\\\\" twice\",1'; quotes are escaped by "
     "backslashes (\\\"), which --set quoting=backslash reads"),
    ("blank.csv", b"\ntext,label\na,1\n", "blank.csv: the first line is empty\n  it has to name the columns"),
    ("end.csv", b"text,label", "end.csv: no rows below the header"),
    ("header-long.csv", b'"text,label\n' + b"a,1\n" * 99, "header-long.csv: the header can't be read: a quote opens"),
    ("header-open.csv", b'"text,label\n' + b"a,1\n" * 50_000, "header-open.csv: the header can't be read: a quote opens"),
    ("null.csv", b"text,label\na,1\n,0\n", "null.csv, row 2: column 'text' has no text (1 such rows)\n  remove"),
    ("unlabelled.csv", b"text,label\na,1\nb,\n", "unlabelled.csv, row 2: 1 rows have no label"),
    ("latin.csv", b"text,label\na,1\nna\xefve,0\n", "latin.csv, line 3: byte 0xef is not utf-8\n  save the file as"),
    ("mixed.csv", "text,label\nnaïve,1\n".encode() + b"na\xefve,0\n", "mixed.csv, line 3: byte 0xef is not utf-8\n  save"),
    ("utf-16-le.csv", "text,label\na,1\n".encode("utf-16-le"), "utf-16-le.csv: the file is UTF-16 without a byte-order mark"),
    ("utf-16-cut.jsonl", '{"text": "a"}'.encode("utf-16")[:-1], "utf-16-cut.jsonl, line 1: byte 0x7d is not utf-16"),
    ("huge.csv", b"text,label\na,1\n" + b'"' + b"word " * 2_100_000 + b'",0\n',
     "huge.csv, row 2: column 'text' holds a text of 10 MB\n  look for a quote that is never closed"),
    ("swallowed.csv", b'text,label\n"a,1\n' + (b"word " * 20 + b",0\n") * 110_000 + b'",0\n',
     "swallowed.csv, row 1: column 'text' holds a text of 11 MB\n  look for a quote"),
    ("cut.json", b'[\n {"text": "a", "label": 1},\n {"text": "b"\n', "cut.json, line 4: not JSON"),
    ("cut.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"\n', "cut.jsonl, line 2: not JSON"),
    ("list.jsonl", b'{"text": "a", "label": 1}\n["b", 0]\n', "list.jsonl, line 2: expected a JSON object, got list"),
    ("uneven.json", b'{"text": ["a", "b"],\n "label": [1]}', "uneven.json: the lists have different lengths"),
    ("key.json", b'[{"text": "a", "lable": 1}]', "key.json: no key 'label'\n  did you mean 'lable'?"),
    ("types.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": "1"}', "types.jsonl, row 2: 'label' is str"),
    ("null.jsonl", b'{"text": "a", "label": 1}\n{"label": 1}', "null.jsonl, row 2: column 'text' has no text"),
    ("half.jsonl", b'{"text": "a", "label": 1}\n{"text": "b \\ud83d", "label": 0}', "half.jsonl, row 2: 'text'"),
    ("big.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": 1%s}' % (b"0" * 30), "big.jsonl, row 2: 'label'"),
    ("numbers.json", b'[{"text": 3, "label": 1}]', "numbers.json: column 'text' holds int64, not text\n  name the"),
    ("lists.json", b'[{"text": "a", "label": [1, 2]}]', "lists.json, row 1: column 'label' has 2 labels\n  --multi-label"),
    ("no.parquet", b"text,label\n", "no.parquet: not a parquet file"),
    ("no.arrow", b"text,label\n", "no.arrow: not a arrow file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_fault(load_rows: Load, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="^" + re.escape(f"{tmp_path}/{message}")):
        load_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["whole.parquet", "whole.arrow"])
def test_truncated_binary(load_rows: Load, tmp_path: Path, name: str) -> None:
    table = pa.table({"text": [f"text {i}" for i in range(50)], "label": [i % 2 for i in range(50)]})
    file = tmp_path / name
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table, max_chunksize=10)
    whole = file.read_bytes()
    assert len(load_rows(file).train) == 50
    for size in range(1, len(whole) - 8, 37):  # a stream without its end mark still is whole
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"not a {file.suffix[1:]} file"):
            load_rows(file)


@pytest.mark.parametrize(("columns", "message"), [
    ({"text": pa.array([1, 2]), "label": ["a", "b"]}, "column 'text' holds int64, not text\n  name the text column"),
    ({"text": pa.array([b"x", b"y"]), "label": ["a", "b"]}, "column 'text' holds binary, not text"),
    ({"text": [["x"], ["y"]], "label": ["a", "b"]}, "column 'text' holds list<element: string>, not text"),
    ({"text": ["x", "y"], "label": pa.array([0, 1], pa.timestamp("s"))}, "column 'label' holds timestamp[ms], not lab"),
    ({"text": ["x", "y"], "label": [{"a": 1}, {"a": 2}]}, "column 'label' holds struct<a: int64>, not labels"),
    ({"text": ["x", "y"], "label": [1.0, 0.5]}, ", row 2: column 'label' has 0.5: a number with a fraction can't be a label"),
    ({"text": ["x", None], "label": ["a", "b"]}, ", row 2: column 'text' has no text (1 such rows)"),
])  # fmt: skip
def test_parquet_of_the_wrong_types(
    load_rows: Load, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(InputError) as error:
        load_rows(tmp_path / "rows.parquet")
    assert str(error.value).removeprefix(f"{tmp_path}/rows.parquet").removeprefix(": ").startswith(message)


@pytest.mark.slow
def test_cell_of_200_mb(load_rows: Load, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\na,1\n" + b"word " * 40_000_000 + b",0\n")
    with pytest.raises(InputError, match=r"rows.csv, row 2: column 'text' holds a text of 200 MB"):
        load_rows(tmp_path / "rows.csv")


def test_of_parquet_only_the_columns_are_read_that_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors or images beside the texts are a few kB on the disk, and gigabytes in memory."""
    from bert_ft.data.formats import OTHERS, arrow

    path = tmp_path / "rows.parquet"
    whole = pa.table(
        {
            "text": ["a", "b"],
            "label": [0, 1],
            "score": [0.5, 0.25],
            "vector": [[0.0] * 8] * 2,
            "image": [b"\0" * 8] * 2,
            "parts": [{"text": "c"}] * 2,
            "a.b": ["d", "e"],
        }
    )
    pq.write_table(whole, path)
    read: list[Any] = []
    real = pq.ParquetDataset.read

    def recorded(self: Any, columns: Any = None, **options: Any) -> Any:
        read.append(columns)
        return real(self, columns, **options)

    monkeypatch.setattr(pq.ParquetDataset, "read", recorded)
    assert arrow.read(path, ["text", "label"])[0] == whole.select(["text", "label"])
    assert arrow.read(path, ["vector"])[0] == whole.select(["vector"])
    assert arrow.read(path, ["text", "parts"], optional=("parts",))[0] == whole.select(["text", "parts"])
    assert arrow.read(path, ["a.b"])[0] == whole.select(["a.b"])
    found = arrow.read(path, ["text"], optional=(OTHERS,))[0]
    assert found.column_names == ["text", "label", "score", "a.b"]
    assert read == [["text", "label"], ["vector"], ["text", "parts"], None, None]
