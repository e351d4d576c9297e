"""`bert-ft check`: every planted fault is found where it stands, clean rows have none, and its three outputs."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_ft.config.catalog import load_task
from bert_ft.data import loading
from bert_ft.data.checks.texts import of_texts
from bert_ft.data.finding import Finding
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families.classification import checks
from bert_ft.families.classification.adapter import Classification
from bert_ft.tools import check as tool

Sets = dict[str, dict[str, list[Any]]]  # name -> column -> cells
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "in", "or", "u")]


def prose(
    n: int, seed: int, names: tuple[str, ...] = ("neg", "pos"), pairs: bool = False
) -> dict[str, list[Any]]:
    """`n` distinct rows of made-up words, with labels that nothing tells."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, 1 + i % 3)) for i in range(300)]
    texts = [
        f"{' '.join(rng.choice(words, rng.integers(4, 20)))} {seed}x{i}y {rng.choice(words)}"
        for i in range(n)
    ]
    labels = [names[i % len(names)] for i in rng.permutation(n)]
    return {"text": texts, **({"text_pair": texts[::-1]} if pairs else {}), "label": labels}


def built_in(pairs: bool) -> Sets:
    return {
        name: prose(n, seed, pairs=pairs)
        for seed, (name, n) in enumerate({"train": 300, "validation": 80, "test": 80}.items())
    }


def of_glue(folder: Path, task: str) -> Sets:
    """The first rows of each set; the test rows have no labels."""
    columns = {"SST-2": ("sentence",), "RTE": ("sentence1", "sentence2")}[task]
    out = {}
    for name, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        lines = (folder / task / f"{file}.tsv").read_text(encoding="utf-8").splitlines()
        rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:301]]
        texts = {
            role: [row[c] for row in rows] for role, c in zip(("text", "text_pair"), columns, strict=False)
        }
        out[name] = texts | {"label": [row.get("label") for row in rows]}
    return out


@pytest.fixture(params=["single", "pair", pytest.param("SST-2", marks=pytest.mark.shared_data),
                        pytest.param("RTE", marks=pytest.mark.shared_data)])  # fmt: skip
def sets(request: pytest.FixtureRequest) -> Sets:
    if request.param in ("SST-2", "RTE"):
        return of_glue(request.getfixturevalue("glue"), request.param)
    return built_in(request.param == "pair")


def report_of(sets: Sets, **keys: Any) -> tool.Report:
    return tool.check("classification", **sets, **settings_of(sets), **keys)


def settings_of(sets: Sets) -> dict[str, Any]:
    return {"data.columns": {"text_pair": "text_pair"}} if "text_pair" in sets["train"] else {}


def key_of(finding: Finding) -> tuple[str, str]:
    return finding.set, finding.message


def found(report: tool.Report) -> Counter[tuple[str, str]]:
    return Counter({key_of(finding): finding.count for finding in report.findings})


# --- planted faults ---------------------------------------------------------------------------------------------------


def again(sets: Sets, source: int, name: str, **changes: Any) -> None:
    """Adds training row `source` to a set, written in another case, width and spacing."""
    for column, cells in sets["train"].items():
        cell = cells[source]
        if column.startswith("text"):
            cell = "  " + "\u3000".join(cell.upper().split()).replace("A", "Ａ") + "\t"
        sets[name][column].append(changes.get(column, cell))


def edit(name: str, row: int, **cells: Any) -> Callable[[Sets], None]:
    def plant(sets: Sets) -> None:
        for column, cell in cells.items():
            sets[name][column][row] = cell(sets[name][column][row]) if callable(cell) else cell

    return plant


def other(sets: Sets, row: int) -> str:
    return next(label for label in sets["train"]["label"] if label != sets["train"]["label"][row])


def rewrite(how: Callable[[str, str], str]) -> Callable[[Sets], None]:
    def plant(sets: Sets) -> None:
        train = sets["train"]
        train["label"] = ["good" if label == train["label"][0] else "bad" for label in train["label"]]
        sets["validation"]["label"] = (["good", "bad"] * 200)[: len(sets["validation"]["label"])]
        sets["test"]["label"] = [None] * len(sets["test"]["label"])
        train["text"] = [how(text, label) for text, label in zip(train["text"], train["label"], strict=True)]

    return plant


def column(sets: Sets) -> None:
    sets["train"]["stars"] = [
        "5" if label == sets["train"]["label"][0] else "1" for label in sets["train"]["label"]
    ]


def ranges(sets: Sets) -> None:
    first = sets["train"]["label"][0]
    sets["train"]["score"] = [i / 1000 + (label == first) for i, label in enumerate(sets["train"]["label"])]


def few(sets: Sets) -> None:
    sets["train"]["label"][:3] = ["scarce"] * 3


def partly(sets: Sets) -> None:
    n = len(sets["test"]["label"])
    sets["test"]["label"] = [sets["train"]["label"][0]] * (n - 2) + [None] * 2


def dominant(sets: Sets) -> None:
    n = len(sets["train"]["label"])
    sets["train"]["label"] = [sets["train"]["label"][0]] * (n - 12) + [other(sets, 0)] * 12


PLANTS: dict[str, tuple[Callable[[Sets], None], tuple[str, str, str, int | None], str]] = {
    "no text": (edit("train", 7, text=" \u00a0 "), ("empty", "fault", "train", 1), "row 8"),
    "a null in words": (edit("validation", 0, text="NaN"), ("empty", "warning", "validation", 1), "row 1"),
    "duplicate": (lambda s: again(s, 4, "train"), ("duplicates", "note", "train", 1), "as row 5"),
    "overlap": (lambda s: again(s, 5, "validation"), ("overlap", "warning", "validation", 1), "train row 6"),
    "overlap with test": (lambda s: again(s, 5, "test", label=None), ("overlap", "warning", "test", 1), "train row 6"),
    "conflict": (lambda s: again(s, 6, "train", label=other(s, 6)), ("conflicts", "warning", "train", 2), "in train row"),
    "conflict across": (
        lambda s: again(s, 6, "validation", label=other(s, 6)), ("conflicts", "warning", "validation", 1), "train row 7"),
    "unknown label": (edit("validation", 9, label="stray"), ("labels", "fault", "validation", 1), "row 10"),
    "test label unknown": (edit("test", 9, label="stray"), ("labels", "fault", "test", 1), "row 10"),
    "labels missing": (partly, ("labels", "warning", "test", 2), "row"),
    "twins": (edit("train", 2, label=lambda name: f"{name} "), ("labels", "warning", "all", 1), ""),
    "rare": (few, ("balance", "warning", "train", 1), ""),
    "dominant": (dominant, ("balance", "warning", "train", None), ""),
    "mojibake": (edit("train", 3, text="un café crème".encode().decode("cp1252")), ("encoding", "warning", "train", 1), "row 4"),
    "mojibake of quotes": (edit("train", 3, text="it’s".encode().decode("cp1252")), ("encoding", "warning", "train", 1), "row 4"),
    "mojibake of Cyrillic": (edit("train", 3, text="привет".encode().decode("latin-1")), ("encoding", "warning", "train", 1), "row 4"),
    "mojibake of Chinese": (edit("train", 3, text="中文很好".encode().decode("latin-1")), ("encoding", "warning", "train", 1), "row 4"),
    "lost character": (edit("train", 3, text="caf\ufffd"), ("encoding", "warning", "train", 1), "row 4"),
    "control character": (edit("train", 3, text="a\x00b"), ("encoding", "note", "train", 1), "row 4"),
    "label in front": (rewrite(lambda t, label: f"__{label}: {t}"), ("leak", "warning", "train", None), "row 1"),
    "label behind": (rewrite(lambda t, label: f"{t} [{label[0]}]"), ("leak", "warning", "train", None), "row 1"),
    "label within": (rewrite(lambda t, label: f"x{t[:9]} {label} {t[9:]}z"), ("leak", "warning", "train", None), "row 1"),
    "column": (column, ("leak", "note", "train", 1), "stars"),
    "column of numbers": (ranges, ("leak", "note", "train", 1), "score"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_faults_are_found(sets: Sets, plant: str) -> None:
    before = found(report_of(sets))
    spoil, (*wanted, count), shown = PLANTS[plant]
    spoil(sets)
    report = report_of(sets)
    grown = {key: n - before[key] for key, n in found(report).items() if n > before[key]}
    hits = [
        f
        for f in report.findings
        if f.count and [f.check, f.severity, f.set] == wanted and key_of(f) in grown
    ]
    assert hits, report.findings
    assert count is None or count in [grown[key_of(f)] for f in hits]
    assert any(shown in text for f in hits for text in (*f.places, *f.examples, f.message))
    assert report.clean == all(f.severity == "note" for f in report.findings)


@given(seed=st.integers(100, 10**6), names=st.sampled_from([("neg", "pos"), ("0", "1", "2"), ("a b", "a c", "b", "c")]),
       pairs=st.booleans())  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True)
def test_clean_rows_have_no_finding(seed: int, names: tuple[str, ...], pairs: bool) -> None:
    sets = {
        name: prose(n, seed + i, names, pairs)
        for i, (name, n) in enumerate({"train": 200, "validation": 60, "test": 60}.items())
    }
    sets["train"] |= {"id": [f"r{i}" for i in range(200)], "length": list(map(len, sets["train"]["text"]))}
    assert report_of(sets).findings == []


# --- against brute force ----------------------------------------------------------------------------------------------

LETTERS = ["a", "A", "ß", "SS", "ﬁ", "fi", "Ａ", " ", "\u3000", "\t", "İ", "é", "e\u0301"]
TEXTS = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4).map("".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["x", "y", None])), min_size=1, max_size=12)


def same(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


@given(train=ROWS, validation=ROWS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_equal_rows_as_counted_one_by_one(
    train: list[tuple[Any, ...]], validation: list[tuple[Any, ...]]
) -> None:
    given_ = {"train": train, "validation": validation}
    tables = {
        name: pa.table(dict(zip(("text", "text_pair", "label"), map(list, zip(*rows, strict=True)), strict=True)),
                       pa.schema([(c, pa.string()) for c in ("text", "text_pair", "label")]))
        for name, rows in given_.items()
    }  # fmt: skip
    keys = {name: [(same(a), same(b)) for a, b, _ in rows] for name, rows in given_.items()}
    wanted = Counter({("overlap", "validation"): sum(key in keys["train"] for key in keys["validation"])})
    for name, rows in given_.items():
        wanted["duplicates", name] = len(rows) - len(set(keys[name]))
        labelled = [
            (key, row[2])
            for home in {name, "train"}
            for key, row in zip(keys[home], given_[home], strict=True)
        ]
        wanted["conflicts", name] = sum(
            label is not None and any(k == key and other not in (label, None) for k, other in labelled)
            for key, (_, _, label) in zip(keys[name], rows, strict=True)
        )
        for side in (0, 1):
            wanted["empty", name] += sum(not key[side] for key in keys[name])
    findings = of_texts({name: Rows(t, name) for name, t in tables.items()}, ("text", "text_pair"), "label")
    counted: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        counted[finding.check, finding.set] += finding.count
    assert +counted == +wanted


def test_several_labels_a_row_and_numbers() -> None:
    several = pa.array([["a", "b"], ["a"], ["c"], None, ["a", "b"]], pa.list_(pa.string()))
    rows = {"train": Rows(pa.table({"text": ["one", "two", "One", "three", "two "], "label": several}), "t")}
    assert {
        (f.check, f.count)
        for f in checks.of_classes(rows, ["a", "b"], ("text",), "label")
        if f.check == "labels"
    } == {("labels", 1)}
    assert [f.count for f in of_texts(rows, ("text",), "label") if f.check == "conflicts"] == [4]
    rng = np.random.default_rng(0)
    numbers = {
        "text": [f"row {i}" for i in range(50)] + ["ROW  3", "row 4"],
        "label": [*rng.uniform(1, 2, 50), 9.0, 0.0],
    }
    numbers["label"][4] = 0.001  # nearer than a standard deviation: raters differ
    report = tool.check("classification", train=numbers, validation=numbers | {"label": [3.0] * 52},
                        **{"data.problem_type": "regression", "metric.compute": ["pearson"]})  # fmt: skip
    told = {(f.check, f.set): f for f in report.findings}
    assert told["balance", "validation"].count == 52
    assert [place.split(" (")[0] for place in told["conflicts", "train"].places] == [
        "train rows, row 4",
        "train rows, row 51",
    ]


def test_lengths_and_unknown_tokens_are_the_tokenizers(tiny_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    sets = {name: prose(40, seed, pairs=True) for seed, name in enumerate(("train", "validation", "test"))}
    sets["train"]["text"][:20] = ["这家酒店的服务很好" + "啊" * i for i in range(20)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    encoded = tokenizer(sets["train"]["text"], sets["train"]["text_pair"])["input_ids"]
    lengths = np.array(list(map(len, encoded)))
    limit = int(np.median(lengths))
    report = report_of(sets, checkpoint=str(tiny_checkpoint), max_length=limit)
    told = {(f.check, f.set): f for f in report.findings}
    assert told["length", "train"].count == (lengths > limit).sum()
    assert f"{(lengths - limit).clip(0).sum() / lengths.sum():.1%}" in told["length", "train"].message
    assert told["unknown", "train"].count == sum(tokenizer.unk_token_id in row for row in encoded)
    assert told["unknown", "train"].severity == "warning"
    assert report.sets["train"]["tokens"]["longest"] == lengths.max()
    assert not report.skipped and report_of(sets).skipped


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_columns_nobody_asked_for_are_read_from_every_format(form: str, tmp_path: Path) -> None:
    train = built_in(False)["train"]
    column({"train": train})
    file, objects = (
        tmp_path / f"train.{form}",
        [dict(zip(train, row, strict=True)) for row in zip(*train.values(), strict=True)],
    )
    if form == "parquet":
        pq.write_table(pa.table(train), file)
    elif form == "csv":
        file.write_text("\n".join(",".join(row) for row in [list(train), *zip(*train.values(), strict=True)]))
    else:
        file.write_text(json.dumps(objects) if form == "json" else "\n".join(map(json.dumps, objects)))
    report = tool.check("classification", train=str(file), **{"data.validation": "20%"})
    assert [f.examples[0].split(":")[0] for f in report.findings if f.check == "leak"] == ["stars"]


def test_columns_of_any_type_and_a_task_of_one_label() -> None:
    train = built_in(False)["train"]
    column({"train": train})
    strange = pa.table(train).append_column("seconds", pa.array(range(300), pa.duration("s")))
    strange = strange.append_column("bytes", pa.array([b"\xff"] * 300)).append_column(
        "lists", pa.array([[1]] * 300)
    )
    report = tool.check("classification", train=strange, **{"data.validation": "20%"})
    assert [f.examples[0].split(":")[0] for f in report.findings if f.check == "leak"] == ["stars"]
    alone = tool.check("classification", train=train | {"label": ["pos"] * 300}, **{"data.validation": "20%"})
    faults = [f for f in alone.findings if f.severity == "fault"]
    assert [f.message for f in faults] == ["only one label ('pos')"] and not alone.clean


# --- the command line -------------------------------------------------------------------------------------------------

HOSTILE = "[bold red]x[/] [/nope] \x1b[31m {0} <b> \u202e"


@pytest.fixture
def files(csv: Any) -> Path:
    for seed, name in enumerate(("train", "validation")):
        rows = prose(60, seed)
        file: Path = csv(f"{name}.csv", [("text", "label"), *zip(rows["text"], rows["label"], strict=True)])
    return file.parent


def test_strict_decides_the_exit_code(cli: Any, files: Path) -> None:
    flags = [
        "check",
        "classification",
        "--train",
        files / "train.csv",
        "--validation",
        files / "validation.csv",
    ]
    clean = cli(*flags, "--strict")
    assert clean.code == 0 and "nothing to report" in clean.out
    train = (files / "train.csv").read_text()
    (files / "train.csv").write_text(train + train.splitlines()[3] + "\n")
    note = cli(*flags, "--strict")
    assert note.code == 0 and "row 61 (as row 3)" in note.out  # a note is no fault
    (files / "validation.csv").write_text(
        (files / "validation.csv").read_text() + train.splitlines()[3] + "\n"
    )
    assert cli(*flags, "--strict").code == 1
    assert cli(*flags).code == 0
    (files / "train.csv").write_text(train + '"a text","pos","more"\n')
    refused = cli(*flags)
    assert refused.code == 2 and re.search(r"row 61\b.*\n", refused.out) and "3 cells" in refused.out


def test_json_has_everything(cli: Any, files: Path) -> None:
    with (files / "validation.csv").open("a") as stream:
        stream.write('"",pos\n"  ",neg\n')
    flags = ["--train", files / "train.csv", "--validation", files / "validation.csv", "--json", "--limit", 1]
    done = cli("check", "classification", *flags)
    report = json.loads(done.out)
    assert report.keys() == {"task", "sets", "findings", "notes", "skipped"}
    assert report["sets"]["train"] == {
        "rows": 60, "where": str(files / "train.csv"), "labels": {"neg": 30, "pos": 30}}  # fmt: skip
    empty = next(f for f in report["findings"] if f["check"] == "empty")
    assert empty == {"check": "empty", "severity": "fault", "set": "validation", "count": 2,
                     "message": "rows without text", "examples": [""],
                     "places": [f"{files / 'validation.csv'}, row 61"]}  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 120])
def test_hostile_texts_do_not_break_the_table(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    sets = built_in(False)
    for name in sets:
        sets[name]["text"][0] = HOSTILE
        sets[name]["label"][1] = HOSTILE
    sets["train"]["[/x]"] = sets["train"]["label"]
    tool.show(report_of(sets), 3, width)
    out = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", out)
    assert max(map(len, out.splitlines())) <= width
    if width > 80:
        assert r"[bold red]x[/] [/nope] \x1b[31m {0} <b> \u202e" in out


def test_the_short_form_stands_before_training(cli: Any, reviews: Path, tiny_checkpoint: Path) -> None:
    flags = ["train", "classification", "--train", reviews / "train.csv", "--validation", reviews / "validation.csv",
             "--checkpoint", tiny_checkpoint, "--max-steps", 1]  # fmt: skip
    told = [line for line in cli(*flags).err.splitlines() if line.startswith("check:")]
    assert told == ["check: validation: 12 rows also found in train (rows 1, 2, 3, ...)"]
    assert "check:" not in cli(*flags, "--no-check", "--overwrite").err


GOOD = "good film,a\nbad film,b\nfine film,a\nugly film,b\n"
BAD = {"x,y,z": "3 cells", ",a": "no text", "no label,": "no label", "one": "1 cells"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_check_lists_every_row_that_can_not_be_read(tmp_path: Path, cli: Any, kind: str) -> None:
    """One bad row does not hide the rest; read and refused rows are as many as an independent count has."""
    if kind == "csv":
        lines = ["text,label", *(line for bad in BAD for line in [*GOOD.splitlines(), bad])]
        places = [5, 10, 15, 20]
    else:
        good = [json.dumps({"text": f"film {i}", "label": "ab"[i % 2]}) for i in range(4)]
        bad = ['{"text":', "[1]", '{"text": null, "label": "a"}', '{"text": "x", "label": ""}']
        lines = [line for each in bad for line in [*good, each]]
        places = [5, 10, 15, 20]
    file = tmp_path / f"rows.{kind}"
    file.write_text("".join(f"{line}\n" for line in lines))
    done = cli(
        "check", "classification", "--train", str(file), "--validation", str(file), "--json", "--limit", "9"
    )
    report = json.loads(done.out)
    refused = [f for f in report["findings"] if f["check"] == "unreadable" and f["set"] == "train"]
    assert done.code == 2 and {f["severity"] for f in refused} == {"fault"}
    assert report["sets"]["train"]["rows"] + len(refused) == len(lines) - (kind == "csv")
    header = kind == "csv"
    found = sorted(
        int(number) - (header and unit == "line")
        for f in refused
        for unit, number in re.findall(r", (line|row) (\d+)$", f["places"][0])
    )
    assert found == places
    trained = cli(
        "train", "classification", "--train", str(file), "--validation", str(file), "--checkpoint", "x"
    )
    assert trained.code == 2 and len(trained.err.splitlines()) <= 2  # training stops at the first


def test_rows_behind_an_unreadable_one_keep_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\nx,y,z\ngood,a\nbad,b\n" + "other,a\nthing,b\n" * 9 + "good,a\n")
    report = tool.check("classification", train=str(file), validation=str(file))
    repeated = next(f for f in report.findings if f.check == "overlap")
    assert repeated.places[0] == f"{file}, row 2 (train row 2)"


@pytest.mark.parametrize(
    ("name", "text", "place", "message"),
    [
        ("ragged.csv", "text,label\n" + "x,y,z\n" * 15, "row 1", "3 cells"),
        ("broken.jsonl", '{"text":\n' * 15, "line 1", "not JSON"),
        ("none.csv", "text,label\n" + "x,\n" * 15, "row 1", "no label"),
        ("few.csv", "text,label\ny,a\n" + "x,\n" * 15 + "z,b\n", "row 2", "no label"),
    ],
)
def test_a_fault_of_most_rows_is_the_error_of_the_file(
    tmp_path: Path, name: str, text: str, place: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InputError, match=f"{name}, {place}: .*{message}.* 14 more rows that can't be read"):
        tool.check("classification", train=str(file), validation="25%")


def test_rows_with_the_same_fault_are_one_finding_however_many(tmp_path: Path) -> None:
    labels = ["" if i % 3 == 0 else "ab"[i % 2] for i in range(120)]
    file = tmp_path / "a.csv"
    file.write_text("text,label\n" + "".join(f"film {i},{label}\n" for i, label in enumerate(labels)))
    report = tool.check("classification", train=str(file), validation="25%")
    (refused,) = [finding for finding in report.findings if finding.check == "unreadable"]
    assert refused.statement == "40 rows that can't be read: no label"
    assert refused.places == [f"{file}, row {i + 1}" for i in range(0, 120, 3)]
    assert report.sets["train"]["rows"] + report.sets["validation"]["rows"] == labels.count(
        "a"
    ) + labels.count("b")


def test_rows_of_joined_files_stand_in_their_own(tmp_path: Path) -> None:
    good = [f"film {i},{'ab'[i % 2]}" for i in range(12)]
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("\n".join(["text,label", *good[:3], "x,y,z", "no label,", *good[3:6], ""]))
    second.write_text("\n".join(["text,label", "again,", *good[6:8], "x,y,z", *good[8:], good[0], ""]))
    report = tool.check("classification", train=f"{first}+{second}", validation=str(second))
    places = {f.message: f.places for f in report.findings if f.check == "unreadable" and f.set == "train"}
    assert places == {
        "rows that can't be read: 3 cells where the header has 2: 'x,y,z'": [
            f"{first}, row 4",
            f"{second}, row 4",
        ],
        "rows that can't be read: no label": [f"{first}, row 5", f"{second}, row 1"],
    }
    repeated = next(f for f in report.findings if f.check == "duplicates" and f.set == "train")
    assert repeated.places == [f"{second}, row 9 (as 1.csv row 1)"]
    second.write_text("text,label\nfilm,a\nx,\n")  # training names the file too
    first.write_text("\n".join(["text,label", *good, ""]))
    task = load_task("classification").override({"data.train": f"{first}+{second}"})
    with pytest.raises(InputError, match=r"^\S+2\.csv, row 2: 1 rows have no label"):
        loading.load(task, Classification)


def test_rows_that_were_left_out_before_a_bad_one_shift_no_place(tmp_path: Path) -> None:
    """The row that can't be read is the one that is named and taken out, by its number in the file."""
    rows: list[dict[str, Any]] = [
        {"text": name, "answer": answer, "spans": [{"start": 0, "end": end, "label": "PER"}]}
        for name, answer, end in [("skip me", "reject", 4), ("Otto left", "accept", 4), ("Eva left", "accept", 3),
                                  ("Anna", "accept", 9), ("Ida left", "accept", 3)]
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tool.check("ner", train=str(file), validation=str(file))
    refused = [f for f in report.findings if f.check == "unreadable" and f.set == "train"]
    assert [f.places for f in refused] == [[f"{file}, row 4"]] and report.sets["train"]["rows"] == 3
