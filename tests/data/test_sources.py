"""The same rows are the same, wherever they lie: files, saved folders, a hub's layout, Python objects."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_ft.config.catalog import load_task
from bert_ft.data import loading, splitting
from bert_ft.data.checks import findings
from bert_ft.data.checks.texts import of_rows
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification

datasets.disable_progress_bars()
Columns = dict[str, list[Any]]
Load = Callable[..., Splits]


def table(columns: Columns) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def objects(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def delimited(path: Path, columns: Columns, delimiter: str, quoting: Any, end: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def arrow(path: Path, columns: Columns, new: Any) -> Path:
    """In batches of three rows."""
    with new(str(path), table(columns).schema) as writer:
        writer.write_table(table(columns), max_chunksize=3)
    return path


def parquet(path: Path, columns: Columns) -> Path:
    encoded = table(columns)
    encoded = encoded.set_column(0, "text", encoded["text"].dictionary_encode())
    pq.write_table(encoded, path, row_group_size=2)
    return path


def saved(path: Path, what: Any) -> Path:
    what.save_to_disk(str(path))
    return path


# Name -> columns written below a folder; what it gives is passed as `train=`.
FORMS: dict[str, Callable[[Path, Columns], Any]] = {
    "csv": lambda f, c: delimited(f / "t.csv", c, ",", csv.QUOTE_ALL, "\n"),
    "tsv": lambda f, c: delimited(f / "t.tsv", c, "\t", csv.QUOTE_NONNUMERIC, "\r\n"),
    "csv of pandas": lambda f, c: written(
        f / "t.csv", pd.DataFrame(c).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    ),
    "json": lambda f, c: written(f / "t.json", json.dumps(objects(c), indent=1)),
    "json of columns": lambda f, c: written(f / "t.json", json.dumps(c, ensure_ascii=False)),
    "jsonl": lambda f, c: written(f / "t.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in objects(c))),
    "parquet": lambda f, c: parquet(f / "t.parquet", c),
    "arrow file": lambda f, c: arrow(f / "t.arrow", c, pa.ipc.new_file),
    "arrow stream": lambda f, c: arrow(f / "t.arrow", c, pa.ipc.new_stream),
    "Dataset": lambda f, c: datasets.Dataset.from_dict(c),
    "DatasetDict": lambda f, c: datasets.DatasetDict({"train": datasets.Dataset.from_dict(c)}),
    "view of a Dataset": lambda f, c: datasets.Dataset.from_dict({k: v[::-1] for k, v in c.items()}).select(
        range(len(c["text"]) - 1, -1, -1)
    ),
    "IterableDataset": lambda f, c: datasets.Dataset.from_dict(c).to_iterable_dataset(),
    "pandas": lambda f, c: pd.DataFrame(c),
    "dict of lists": lambda f, c: c,
    "list of dicts": lambda f, c: objects(c),
    "Arrow table": lambda f, c: table(c),
}  # fmt: skip

NASTY = ["", " ", "NA", "null", "None", "nan", "01", "1e3", "true", 'say "no"', '"', "a,b", "a\tb", "two\nlines",
         "\r\n", "naïve café", "👩‍👧 film", "\u2028", "\x85", "日本", "'", "\\", "#", "-", "=1+1", "\x00"]  # fmt: skip
texts = st.sampled_from(NASTY) | st.text(st.characters(codec="utf-8"), max_size=8)
label_sets = st.sampled_from([
    ("neg", "pos"), ("NA", "null"), ("01", "1"), ("a,b", 'say "no"'), ("²", "--1"), ("😀", "1.0"), ("False", "maybe"),
    (2, 10), (-1, 0), (False, True),
])  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> Columns:
    n = draw(st.integers(2, 7))
    names = draw(label_sets)
    labels = [*names, *draw(st.lists(st.sampled_from(names), min_size=n - 2, max_size=n - 2))]
    pairs = draw(st.lists(st.tuples(texts, texts), min_size=n, max_size=n))
    return {"text": [a for a, _ in pairs], "text_pair": [b for _, b in pairs], "label": labels}


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(columns=rows())
def test_every_form_gives_the_same_rows(load_rows: Load, columns: Columns) -> None:
    fingerprints = {}
    for name, make in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            splits = load_rows(make(Path(folder), columns), data__columns={"text_pair": "text_pair"})
            expected = {**columns, "label": [str(label) for label in columns["label"]]}
            assert splits.train.table.to_pydict() == expected, name
            fingerprints[name] = splits.fingerprint()
            labels = Classification.find_labels(splits.train, load_task("classification"))
            assert sorted(labels, key=str) == sorted(set(columns["label"]), key=str), name
            assert {type(label) for label in labels} == {type(label) for label in columns["label"]}, name
    assert len(set(fingerprints.values())) == 1, fingerprints


ROWS: Columns = {"text": ["good", "bad", "fine", "poor"], "label": ["pos", "neg", "pos", "neg"]}


def test_slices_keep_their_labels(load_rows: Load) -> None:
    """Arrow before 24 gave pieces of other rows' labels: an empty one becomes none, by its `if_else`."""
    whole = pa.table(
        {
            "text": [f"text {i}" for i in range(9)],
            "label": [("odd", "a", "three", "nil")[i % 4] for i in range(9)],
        }
    )
    parts = pa.concat_tables([whole.slice(5), whole.slice(1, 4)])
    assert parts["label"].num_chunks == 2 and parts["label"].chunk(0).offset == 5
    for rows in (whole.slice(3), parts):
        assert load_rows(rows).train.table.select(["text", "label"]).to_pydict() == rows.to_pydict()


@pytest.mark.parametrize("change", [
    {"text": ["good", "bad", "fine", "poor!"]}, {"label": ["pos", "neg", "neg", "neg"]},
    {"text": ["bad", "good", "fine", "poor"]}, {"text": ["goodb", "ad", "fine", "poor"]},
])  # fmt: skip
def test_other_rows_have_another_fingerprint(load_rows: Load, change: Columns) -> None:
    assert load_rows(ROWS | change).fingerprint() != load_rows(ROWS).fingerprint()


# --- folders ----------------------------------------------------------------------------------------------------------


def hub_layout(folder: Path, columns: Columns, names: list[str]) -> Path:
    """A data set as `git clone` brings it from the hub: a card with the features, Parquet below data/."""
    (folder / "data").mkdir(parents=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    for split, part in (("train", columns), ("validation", columns), ("test", columns | {"label": [-1] * 4})):
        rows = datasets.Dataset.from_dict(part, features=features)
        rows.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    listed = "".join(f"\n          '{i}': {name}" for i, name in enumerate(names))
    written(folder / "README.md", f"""---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:{listed}
---
""")  # fmt: skip
    return folder


@pytest.mark.parametrize("kind", ["saved", "hub's layout", "files"])
def test_folder(load_rows: Load, tmp_path: Path, kind: str) -> None:
    """Splits of a folder; codes become names in the order the source gives; -1 is no label."""
    names, coded = ["pos", "neg"], ROWS | {"label": [0, 1, 0, 1]}
    folder = tmp_path / "folder"
    if kind == "saved":
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        parts = {"train": coded, "dev": coded, "test": coded | {"label": [-1] * 4}}
        saved(
            folder,
            datasets.DatasetDict(
                {k: datasets.Dataset.from_dict(v, features=features) for k, v in parts.items()}
            ),
        )
    elif kind == "files":
        folder.mkdir()
        FORMS["csv"](folder, ROWS).rename(folder / "train.csv")
        FORMS["jsonl"](folder, ROWS).rename(folder / "val.jsonl")
        FORMS["tsv"](folder, {"text": ROWS["text"]}).rename(folder / "test.tsv")
    else:
        hub_layout(folder, coded, names)
    task = load_task("classification").override({"data.path": str(folder), "data.test": "test"})
    splits = loading.load(task, Classification)
    assert splits.train.table.to_pydict() == splits.evaluation["validation"].table.to_pydict() == ROWS
    assert splits.test["test"].table["label"].to_pylist() == [None] * 4
    assert Classification.find_labels(splits.train, task) == (["neg", "pos"] if kind == "files" else names)
    with pytest.raises(InputError, match=r"split .trial.") as error:
        loading.load(task.override({"data.train": "trial"}), Classification)
    assert str(folder) in error.value.where


def test_hub_offline() -> None:
    task = load_task("classification").override({"data.path": "nobody/has-this"})
    with pytest.raises(InputError, match=r"nobody/has-this \[train\].*hub") as error:
        loading.load(task, Classification)
    assert "--train" in error.value.remedy


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "found"), [
    (["b", "a", "c"], ["a", "b", "c"]),
    (["10", "2", "-3"], [-3, 2, 10]),
    (["01", "2", "10"], ["01", "10", "2"]),
    ([1.0, 0.0, 1.0], [0, 1]),
    ([True, False, True], [False, True]),
    (["no", "True", "False"], ["False", "True", "no"]),
    (pd.Categorical(["lo", "hi", "lo"], categories=["lo", "hi"]), ["hi", "lo"]),
], ids=str)  # fmt: skip
def test_labels(load_rows: Load, labels: Any, found: list[Any]) -> None:
    splits = load_rows({"text": ["x", "y", "z"], "label": list(labels)} if isinstance(labels, list)
                       else pd.DataFrame({"text": ["x", "y", "z"], "label": labels}))  # fmt: skip
    labels = Classification.find_labels(splits.train, load_task("classification"))
    assert labels == found
    assert [type(label) for label in labels] == [type(label) for label in found]


def test_labels_that_are_nearly_alike_are_told_and_kept_apart(load_rows: Load) -> None:
    splits = load_rows({"text": ["x", "y", "z", "w"], "label": ["pos", "Pos ", "neg", "pos"]})
    assert Classification.find_labels(splits.train, load_task("classification")) == ["Pos ", "neg", "pos"]
    told = findings.lines(
        of_rows(Classification(load_task("classification"), ["Pos ", "neg", "pos"]), splits.all())
    )
    assert [line for line in told if "differs in case or white space alone" in line and "'Pos '" in line]
    one = load_rows({"text": ["x", "y"], "label": ["pos", "Pos "]}, data__label_names={"Pos ": "pos"})
    assert one.train.table["label"].to_pylist() == ["pos", "pos"]


def test_class_label_without_rows_is_kept(load_rows: Load) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "m", "a"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [2, 0]}, features=features)
    for form in (rows, rows.to_iterable_dataset()):
        splits = load_rows(form, data__label_names={"m": "middle"})
        assert Classification.find_labels(splits.train, load_task("classification")) == ["z", "middle", "a"]
        assert splits.train.table["label"].to_pylist() == ["a", "z"]


@pytest.mark.parametrize(("labels", "numbers"), [
    (["5.000", "0", "-1e-1"], [5.0, 0.0, -0.1]), (np.array([3.8, 1.556, -0.1], "float32"), [3.8, 1.556, -0.1]), ([1, 2, 3], [1.0, 2.0, 3.0]), ([0.5, 1, 2], [0.5, 1.0, 2.0]),
], ids=str)  # fmt: skip
def test_numbers(load_rows: Load, labels: list[Any], numbers: list[float]) -> None:
    splits = load_rows({"text": ["x", "y", "z"], "label": labels}, data__problem_type="regression",
                       metric__compute=["pearson"])  # fmt: skip
    assert splits.train.table["label"].to_pylist() == numbers


@pytest.mark.parametrize("cell", ["three", " ", "1_000", "٣", "nan", "inf", "0x1"])
def test_no_number(load_rows: Load, cell: str) -> None:
    with pytest.raises(InputError, match="train rows, row 2: column 'label' has"):
        load_rows(
            {"text": ["x", "y"], "label": ["1", cell]},
            data__problem_type="regression",
            metric__compute=["pearson"],
        )


def test_fraction_is_no_label(load_rows: Load) -> None:
    with pytest.raises(InputError, match=r"row 2: column 'label' has 0.5") as error:
        load_rows({"text": ["x", "y"], "label": [1, 0.5]})
    assert "regression" in error.value.remedy


# --- a validation split of the training rows --------------------------------------------------------------------------


def test_held_out_share(load_rows: Load) -> None:
    columns = {
        "text": [f"text {i}" for i in range(200)],
        "label": ["rare" if i % 10 == 0 else "often" for i in range(200)],
    }
    splits = load_rows(columns, data__validation="10%")
    train, held = splits.train.table.to_pydict(), splits.evaluation["validation"].table.to_pydict()
    assert Counter(held["label"]) == {"often": 18, "rare": 2}
    assert sorted(train["text"] + held["text"]) == sorted(columns["text"])
    assert splits.notes == ["validation: 20 of 200 training rows held out (10%, stratified, split_seed 42)"]
    again = load_rows(columns, data__validation="10%", run__seed=7)
    assert again.fingerprint() == splits.fingerprint()
    assert (
        load_rows(columns, data__validation="10%", data__split_seed=7).fingerprint() != splits.fingerprint()
    )
    numbers = {"text": columns["text"], "label": [float(i) for i in range(200)]}
    regression = load_rows(
        numbers, data__validation="10%", data__problem_type="regression", metric__compute=["pearson"]
    )
    assert len(regression.train) == 180
    assert "stratified" not in regression.notes[0]
    some = splitting.limit(splits.train, 30, seed=1)
    assert some.table.to_pydict() == splitting.limit(splits.train, 30, seed=1).table.to_pydict()
    assert some.table.to_pydict() != splitting.limit(splits.train, 30, seed=2).table.to_pydict()
    row = columns["text"].index(some.table["text"][4].as_py())
    assert some.place(4) == f"train rows, row {row + 1}"  # the source's own count, after both


@pytest.mark.parametrize("share", ["0%", "100%", "99.9%"])
def test_share_that_can_not_be_held_out(load_rows: Load, share: str) -> None:
    message = f'validation = "{share}" can\'t be held out of 4 rows'
    with pytest.raises(InputError, match=message):
        load_rows(ROWS, data__validation=share)


# --- GLUE in its original distribution --------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "folder", "counts"), [
    ("cola", "CoLA", (8_551, 1_043, 1_063)), ("sst2", "SST-2", (67_349, 872, 1_821)),
    ("mrpc", "MRPC", (3_668, 408, 1_725)), ("stsb", "STS-B", (5_749, 1_500, 1_379)),
    ("rte", "RTE", (2_490, 277, 3_000)), ("wnli", "WNLI", (635, 71, 146)),
])  # fmt: skip
def test_glue(glue: Path, name: str, folder: str, counts: tuple[int, ...]) -> None:
    task = load_task(name).override({"run.data_dir": str(glue)})
    splits = loading.load(task, Classification)
    assert tuple(map(len, splits.all().values())) == counts
    assert splits.test["test"].table["label"].null_count == counts[2]
    near = loading.load(task.override({"run.data_dir": str(glue / folder)}), Classification)
    assert near.fingerprint() == splits.fingerprint()
    adapter = Classification(task, Classification.find_labels(splits.train, task))
    for part, found in splits.all().items():
        adapter.check(part, found)
    # every cell as it stands in the file: the n-th row is the n-th line, split at its tabs
    original = task.data.original
    assert original is not None
    lines = (glue / folder / "train.tsv").read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    names = original.names or lines.pop(0).split("\t")
    for role, column in original.columns.items():
        cells: list[Any] = [line.split("\t")[names.index(column)] for line in lines]
        if role == "label":
            as_float32 = name == "stsb"  # as on the hub
            cells = [
                float(str(np.float32(c))) if as_float32 else original.label_names.get(c, c) for c in cells
            ]
        assert splits.train.table[role].to_pylist() == cells, role


@pytest.mark.shared_data
def test_chnsenticorp(glue: Path) -> None:
    task = load_task("chnsenticorp").override({"run.data_dir": str(glue.parent / "chnsenticorp_zh")})
    splits = loading.load(task, Classification)
    assert {name: len(rows) for name, rows in splits.all().items()} == {"train": 9_600, "validation": 1_200}
    assert Counter(splits.train.table["label"].to_pylist()) == {"positive": 4_799, "negative": 4_801}


def test_files_of_clue(tmp_path: Path) -> None:
    """An object a line in files called .json, as that benchmark has them; its test rows have no label."""
    (tmp_path / "tnews_public").mkdir()
    rows = [{"label": "108", "label_desc": "news_edu", "sentence": "上课时学生手机响个不停", "keywords": ""},
            {"label": "104", "label_desc": "news_finance", "sentence": "商赢环球股份有限公司", "keywords": ""}]  # fmt: skip
    for name in ("train", "dev"):
        FORMS["jsonl"](tmp_path, {key: [row[key] for row in rows] for key in rows[0]}).rename(
            tmp_path / "tnews_public" / f"{name}.json"
        )
    written(tmp_path / "tnews_public" / "test.json", json.dumps({"id": 0, "sentence": "在设计史上"}))
    splits = loading.load(load_task("tnews").override({"run.data_dir": str(tmp_path)}), Classification)
    assert splits.train.table["label"].to_pylist() == ["news_edu", "news_finance"]
    assert splits.test["test"].table.to_pydict() == {"text": ["在设计史上"], "label": [None]}


def test_labels_that_are_none(load_rows: Load, tmp_path: Path) -> None:
    """An empty label is none, nan is none; on a test set it means that its labels are hidden."""
    (tmp_path / "rows.csv").write_text('text,label\na,x\nb,""\nc,y\n')
    with pytest.raises(InputError, match=r"rows\.csv, row 2: column 'label' has an empty label"):
        load_rows(str(tmp_path / "rows.csv"))
    named = load_rows(str(tmp_path / "rows.csv"), data__label_names={"": "none"})
    assert named.train.table["label"].to_pylist() == ["x", "none", "y"]
    good = {"text": ["a", "b"], "label": ["x", "y"]}
    assert load_rows(good, test=str(tmp_path / "rows.csv")).test["test"].table["label"].to_pylist() == [
        "x",
        None,
        "y",
    ]
    with pytest.raises(InputError, match="1 rows have no label"):
        load_rows([{"text": "a", "label": 1.0}, {"text": "b", "label": float("nan")}])


def test_rows_of_bits_are_no_lists_of_labels(load_rows: Load) -> None:
    multi = {"data__problem_type": "multi_label_classification"}
    with pytest.raises(InputError, match="a row of 0 and 1 is not a list of labels"):
        load_rows({"text": ["a", "b"], "label": [[1, 0, 0], [0, 1, 1]]}, **multi)
    splits = load_rows({"text": ["a", "b"], "label": [["x", "x", "y"], ["y"]]}, **multi)
    assert splits.train.table["label"].to_pylist() == [["x", "y"], ["y"]]
    assert "train: 1 labels are repeated within their row in column 'label', and count once" in splits.notes


def test_columns_nobody_asked_for_do_no_harm(load_rows: Load, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "mixed": [1, "one"]})
    assert len(load_rows(frame).train) == 2
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "b", "label": "1"}\n')
    with pytest.raises(InputError, match="the files have different columns"):
        load_rows([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    grouped = {"text": list("abcdef"), "label": ["x", "y"] * 3, "doc": [1, 1, 2, 2, 3, 3]}
    splits = load_rows(
        grouped, test={"text": ["g"], "label": ["x"]}, data__group="doc", data__validation="1/3"
    )
    assert len(splits.train) == 4 and "group" not in splits.test["test"].table.column_names


@pytest.mark.parametrize("encoding", ["utf8", "UTF-8", "utf-8"])
def test_every_name_of_utf8_knows_its_mark(load_rows: Load, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.csv").write_bytes("\ufefftext,label\na,x\nb,y\n".encode())
    assert len(load_rows(str(tmp_path / "rows.csv"), data__encoding=encoding).train) == 2
