"""Odd values: each is one message with its place, or one row or one run that is told and passed over; never a traceback, and
never the end of a whole file because of a column that nobody reads."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bert_ft
from bert_ft import reading
from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides
from bert_ft.data.rows import Splits
from bert_ft.errors import BertFtError, InputError
from bert_ft.families.classification.adapter import Classification
from bert_ft.families.ner.adapter import Ner
from bert_ft.families.qa.adapter import ExtractiveQa

DIGITS, DEEP = "9" * 5000, "[" * 20_000 + "]" * 20_000
ODD_JSON = {  # a value of JSON -> what is said of it where it is read
    "digits": (DIGITS, "a number of 5,000 digits"), "negative digits": (f"-{DIGITS}", "a number of 5,000 digits"),
    "deep": (DEEP, "nested more than 50 levels deep"), "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, "levels deep"),
    "half a surrogate": ('"\\ud83d"', "can't be read"), "other half": ('"a\\udc00b"', "can't be read"),
    "inner": (f'[1, {{"a": {DIGITS}}}]', "a number of 5,000 digits"), "inner doubled": ('{"a": 1, "a": 2}', "the key 'a' twice"),
}  # fmt: skip
PLAIN_JSON = {"beyond a float": "1e999", "minus zero": "-0", "not a number": "NaN", "infinite": "-Infinity", "null": "null",
              "empty list": "[]", "a long text": json.dumps("x" * 10**6), "more than 64 bits": str(2**70)}  # fmt: skip


def load(path: Any, family: Any = Classification, name: str = "classification", **keys: Any) -> Splits:
    sets = overrides.sets(path, path, None)
    bound = load_task(name).override(
        overrides.changes(sets) | {key.replace("__", "."): value for key, value in keys.items()}
    )
    return loading.load(bound, family, overrides.objects(sets), others=name == "classification")


def lines(path: Path, odd: str, key: str = "note") -> Path:
    """Three rows, in the second one of which a key has an odd value."""
    rows = [{"text": f"row {i}", "label": "ab"[i % 2], "note": "fine"} for i in range(3)]
    texts = [json.dumps(row) for row in rows]
    texts[1] = json.dumps(rows[1] | {key: "ODD"}).replace('"ODD"', odd)
    path.write_text("[" + ",\n".join(texts) + "]" if path.suffix == ".json" else "\n".join(texts) + "\n")
    return path


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    "odd", [*(value for value, _ in ODD_JSON.values()), *PLAIN_JSON.values()], ids=[*ODD_JSON, *PLAIN_JSON]
)
def test_an_odd_value_in_a_column_nobody_reads_stops_no_file(tmp_path: Path, suffix: str, odd: str) -> None:
    splits = load(lines(tmp_path / f"rows{suffix}", odd))
    assert splits.train.table["text"].to_pylist() == ["row 0", "row 1", "row 2"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("key", ["text", "label"])
@pytest.mark.parametrize(("odd", "said"), ODD_JSON.values(), ids=[*ODD_JSON])
def test_an_odd_value_that_is_read_is_told_with_its_row(
    tmp_path: Path, suffix: str, key: str, odd: str, said: str
) -> None:
    with pytest.raises(InputError) as error:
        load(lines(tmp_path / f"rows{suffix}", odd, key))
    assert f"rows{suffix}, row 2: '{key}'" in str(error.value) and said in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("key", ["text", "note"])
def test_a_key_that_is_there_twice_is_a_fault_where_it_is_read(tmp_path: Path, key: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"text": "a", "label": "x", "note": 1}\n' + f'{{"text": "b", "label": "y", "{key}": "c"}}\n'
    )
    if key == "note":
        file.write_text(file.read_text().replace('"note": 1', '"note": 1, "note": 2'))
        assert len(load(file).train) == 2
    else:
        with pytest.raises(InputError, match=r"rows\.jsonl, row 2: 'text' appears twice"):
            load(file)


@pytest.mark.parametrize("text", ['{"text": "a", "label": "x"}\n\ufeff{"text": "b", "label": "y"}\n', "[" * 10**5, "{" * 10**5,
                         '{"a":' * 10**5, DIGITS, '"' * 999, "[[[[]]]]", "\0", "{}", '{"text": []}', "[1, 2]", "5", "null"], ids=str.__len__)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("family", [Classification, Ner, ExtractiveQa])
def test_json_that_holds_no_rows_is_one_message(tmp_path: Path, text: str, suffix: str, family: Any) -> None:
    (tmp_path / f"rows{suffix}").write_text(text)
    name = {Ner: "ner", ExtractiveQa: "qa"}.get(family, "classification")
    with pytest.raises(InputError):
        load(tmp_path / f"rows{suffix}", family, name)


def squad(path: Path, odd: str, where: str) -> Path:
    tree: dict[str, Any] = {"context": "a warm film", "note": 1, "qas": [{"id": "q", "question": "what", "note": 1,
            "answers": [{"text": "warm", "answer_start": 2}]}]}  # fmt: skip
    target = {"context": tree, "id": tree["qas"][0], "note": tree["qas"][0], "question": tree["qas"][0],
              "text": tree["qas"][0]["answers"][0], "answer_start": tree["qas"][0]["answers"][0]}[where]  # fmt: skip
    target[where] = "ODD"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [tree]}]}).replace('"ODD"', odd))
    return path


@pytest.mark.parametrize("where", ["context", "id", "question", "text", "answer_start", "note"])
@pytest.mark.parametrize("odd", [value for value, _ in ODD_JSON.values()], ids=[*ODD_JSON])
def test_odd_values_in_squad_files(tmp_path: Path, odd: str, where: str) -> None:
    file = squad(tmp_path / "rows.json", odd, where)
    if where == "note":
        assert len(load(file, ExtractiveQa, "qa").train) == 1
    else:
        with pytest.raises(InputError, match=r"rows\.json"):
            load(file, ExtractiveQa, "qa")


@pytest.mark.parametrize("odd", [value for value, _ in ODD_JSON.values()], ids=[*ODD_JSON])
@pytest.mark.parametrize("key", ["text", "spans", "note"])
def test_odd_values_in_files_of_spans(tmp_path: Path, odd: str, key: str) -> None:
    row = {"text": "Anna sings", "spans": [{"start": 0, "end": 4, "label": "PER"}], "note": 1}
    good = json.dumps(row)
    file = tmp_path / "rows.jsonl"
    file.write_text(good + "\n" + json.dumps(row | {key: "ODD"}).replace('"ODD"', odd) + "\n")
    if key == "note":
        assert len(load(file, Ner, "ner").train) == 2
    else:
        with pytest.raises(InputError, match=r"rows\.jsonl, row 2"):
            load(file, Ner, "ner")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_bytes_of_another_encoding_in_a_column_nobody_reads(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"text,label,note\nfine,a,caf\xe9\nfiner,b,x\n")
    splits = load(file)
    assert splits.train.table["text"].to_pylist() == ["fine", "finer"]
    file.write_bytes(b"text,label,note\nfine,a,x\ncaf\xe9,b,x\n")
    with pytest.raises(InputError, match=r"rows\.csv, line 3: byte 0xe9 is not utf-8\n.*data\.encoding"):
        load(file)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_bytes_of_another_encoding_in_json(tmp_path: Path, suffix: str) -> None:
    for key in ("note", "text"):
        file = lines(tmp_path / f"rows{suffix}", '"caf\x01"', key)
        file.write_bytes(file.read_bytes().replace(b"\x01", b"\xe9"))
        if key == "note":
            assert len(load(file).train) == 3
        else:
            with pytest.raises(InputError, match="line 2: byte 0xe9 is not utf-8"):
                load(file)


def test_a_table_of_very_many_columns(tmp_path: Path) -> None:
    wide = 100_000
    head = ",".join(f"c{i}" for i in range(wide))
    file = tmp_path / "rows.csv"
    file.write_text(
        f"text,label,{head},c1\n"
        + "".join(f"t{i},{'ab'[i % 2]}" + ",1" * (wide + 1) + "\n" for i in range(4))
    )
    start = time.perf_counter()
    sets = overrides.sets(str(file), str(file), None)
    loading.load(load_task("classification").override(overrides.changes(sets)), Classification)
    with pytest.raises(InputError, match="no column 'txet'"):
        load(file, data__columns={"text": "txet", "label": "label"})
    assert time.perf_counter() - start < 20  # it was a matter of hours


def test_a_very_long_cell(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label,note\na,x," + "n" * 20_000_000 + "\nb,y,z\n")
    assert len(load(file).train) == 2
    file.write_text("text,label\na,x\n" + "n" * 20_000_000 + ",y\n")
    with pytest.raises(InputError, match=r"row 2: column 'text' holds a text of 20 MB"):
        load(file)
    file.write_text('"' + "h" * 10**6 + '",label\na,x\n')
    with pytest.raises(InputError) as error:
        load(file)
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize(
    "cell",
    ["1e999", "-1e999", "NaN", "inf", DIGITS, "0x10", "--1", "1_000", "\u0661"],
    ids=lambda text: ascii(text[:9]),
)
def test_a_number_that_is_none_is_told_with_its_row(tmp_path: Path, cell: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"text,label\na,-0\nb,{cell}\nc,1e3\n")
    with pytest.raises(
        InputError, match=r"rows\.csv, row 2: .* where a (finite )?number is expected"
    ) as error:
        load(file, data__problem_type="regression")
    assert len(str(error.value)) < 3000


def test_a_parquet_file_whose_texts_are_no_utf8(tmp_path: Path) -> None:
    def column(*values: bytes) -> pa.Array:
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())

    texts, broken = pa.array(["a", "b"]), column(b"fine", b"caf\xe9")
    for columns, ok in (({"text": texts, "note": broken}, True), ({"text": broken, "note": texts}, False)):
        pq.write_table(pa.table(columns | {"label": ["x", "y"]}), tmp_path / "rows.parquet")
        if ok:
            assert len(load(tmp_path / "rows.parquet").train) == 2
        else:
            with pytest.raises(InputError, match="column 'text' can't be read"):
                load(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    "odd",
    [10**5000, "\ud83d", {1: 2}, object(), [1, "a"], b"x", float("nan")],
    ids=lambda v: type(v).__name__,
)
def test_python_rows_with_odd_values_in_a_column_nobody_reads(odd: Any) -> None:
    rows = [{"text": "a", "label": "x", "note": 1}, {"text": "b", "label": "y", "note": odd}]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    for form in (rows, columns):
        assert len(load(form).train) == 2
        with pytest.raises(InputError):
            load([{"text": odd, "label": "x"}, *rows])


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    rows = [{"text": f"a {w} film {i}", "label": w} for i in range(4) for w in ("good", "bad")]
    return bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, max_steps=2, max_length=16,
                            batch_size=4, output=tmp_path_factory.mktemp("runs") / "one", quiet=True)  # fmt: skip


@pytest.mark.parametrize("target", ["jsonl", "csv", "parquet"])
def test_predict_tells_odd_rows_and_answers_the_others(
    run: bert_ft.Run, cli: Any, tmp_path: Path, target: str
) -> None:
    odd = [*(value for value, _ in ODD_JSON.values()), str(2**70)]
    texts = ['{"text": "fine", "note": "x"}']
    texts += [f'{{"text": "row {i}", "note": {value}}}' for i, value in enumerate(odd)]
    texts += ['{"text": "twice", "note": 1, "note": 2}', '{"text": "last", "note": "x"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(texts) + "\n")
    done = cli("predict", str(run.path), "rows.jsonl", "-o", f"out.{target}")
    assert done.code == 2
    told = [
        int(line.partition("line ")[2].partition(":")[0])
        for line in done.err.splitlines()
        if ", line " in line
    ]
    halves = {5 + 1, 6 + 1}  # what JSON can hold, and tables can't
    wide = {9 + 1} if target == "parquet" else set()
    twice = {11}
    both = {2, 3, 4, 5, 8, 9} | twice
    assert set(told) == both | (set() if target == "jsonl" else halves) | wide
    if target == "jsonl":
        answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["text"] for row in answers] == ["fine", "row 4", "row 5", "row 8", "last"]
        assert [row["note"] for row in answers] == ["x", "\ud83d", "a\udc00b", 2**70, "x"]
        assert all(row["prediction"] in ("good", "bad") for row in answers)


def test_predict_tells_a_row_of_parquet_that_python_can_not_hold(
    run: bert_ft.Run, cli: Any, tmp_path: Path
) -> None:
    days = pa.array([0, 2**40, 1], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "day": days}), tmp_path / "rows.parquet")
    done = cli("predict", str(run.path), "rows.parquet", "-o", "out.jsonl")
    assert done.code == 2 and "rows.parquet, row 2: a value can't be read" in done.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


# --- paths ------------------------------------------------------------------------------------------------------------

NUL = "a\0b"
PATHS: dict[str, Callable[[], Any]] = {
    "task": lambda: bert_ft.finetune(NUL + ".toml"), "checkpoint": lambda: bert_ft.finetune("mrpc", NUL),
    "output": lambda: bert_ft.finetune("mrpc", "x/y", output=NUL), "data_dir": lambda: bert_ft.finetune("mrpc", "x/y", data_dir=NUL),
    "train": lambda: bert_ft.finetune("classification", "x/y", train=NUL + ".csv", validation=NUL),
    "validation": lambda: bert_ft.finetune("classification", "x/y", train=[{"text": "a", "label": "b"}], validation=NUL),
    "run": lambda: bert_ft.Run(NUL), "load": lambda: bert_ft.load(NUL), "compare": lambda: bert_ft.compare(NUL, "y"),
    "set": lambda: load_task("mrpc").override({"data.path": NUL}), "revision": lambda: load_task("mrpc").override({"run.revision": NUL}),
    "label_names": lambda: load_task("mrpc").override({"data.label_names": NUL}),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_nul_in_a_path_of_python_is_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BertFtError) as error:
        PATHS[name]()
    assert "NUL" in str(error.value) and "\0" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("runs", NUL), ("report", NUL), ("train", NUL), ("train", "mrpc", "-c", NUL), ("predict", NUL),
                         ("check", "mrpc", "--data-dir", NUL), ("compare", NUL, NUL), ("tasks", "show", NUL), ("evaluate", NUL)])  # fmt: skip
def test_a_nul_in_a_path_of_the_command_line_is_one_message(cli: Any, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.code == 2 and "NUL" in done.err and len(done.err.splitlines()) <= 2


@pytest.mark.parametrize(
    "name",
    ["n" * 300 + ".csv", "~nobody-of-that-name/rows.csv", "rows.csv/below.csv"],
    ids=["long", "home", "below a file"],
)
def test_a_path_that_no_file_can_have_is_one_message(
    cli: Any, run: bert_ft.Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "rows.csv").write_text("text\na\n")
    for arguments in (
        ("predict", str(run.path), name),
        ("check", "classification", "--train", name, "--validation", "10%"),
    ):
        done = cli(*arguments)
        assert done.code == 2 and len(done.err.splitlines()) <= 2, done.err


# --- runs -------------------------------------------------------------------------------------------------------------

BROKEN = {  # file of a run -> contents that are none
    "results.json": ["", "{", "[1]", "5", "null", "{}", '{"metrics": 5}', '{"metrics": {"validation": 3}}', DEEP,
                     '{"metrics": {"validation": {"accuracy": "x"}}}', '{"metrics": {}, "timing": 3}', '{"metrics": {}, "notes": [1]}',
                     f'{{"metrics": {{"validation": {{"accuracy": {DIGITS}}}}}}}', '{"metrics": {}, "metrics": {}}', "\udcff"],
    "task.toml": ["", "x", "name = 3", f"a = {DIGITS}", "a = " + "[" * 10**5, "family = ['x']", "\udcff", '[data]\npath = "a\\u0000"'],
    "log.jsonl": ["{\n", "[1]\n", DEEP + "\n", '{"loss": "x", "step": 1}\n', f'{{"step": {DIGITS}}}\n', "\udcff\n"],
    "predictions/validation.jsonl": ["{}\n", "{\n", "5\n", '{"label": "x", "prediction": "y"}\n', "\udcff\n"],
    "predictions/validation.rows.parquet": ["", "PAR1", "\udcff"],
}  # fmt: skip


@pytest.fixture
def several(run: bert_ft.Run, tmp_path: Path) -> Path:
    folder = tmp_path / "several"
    for name in ("a", "b", "c"):
        shutil.copytree(run.path, folder / name, ignore=shutil.ignore_patterns("model"))
    return folder


@pytest.mark.parametrize(("file", "content"), [
    pytest.param(file, text, marks=() if k < 2 else pytest.mark.slow)
    for file, texts in BROKEN.items() for k, text in enumerate(texts)
], ids=lambda text: ascii(text[:30]))  # fmt: skip
def test_one_broken_run_among_several(
    several: Path, cli: Any, tmp_path: Path, file: str, content: str
) -> None:
    """It is told, with its file; the others are listed and reported. What compares all of them is one message."""
    (several / "b" / file).write_bytes(content.encode(errors="surrogateescape"))
    done = cli("runs", str(several), "--json")
    assert done.code == 0
    rows = {Path(row["run"]).name: row for row in json.loads(done.out)}
    assert [rows[name]["state"] for name in "ac"] == ["finished"] * 2 and rows["a"]["value"] is not None
    if file in ("results.json", "task.toml") and content:
        assert rows["b"]["state"] == "unreadable" and f"several/b/{file}" in done.err
    done = cli("report", *(str(several / name) for name in "abc"), "-o", "all.html")
    if not (file == "task.toml" and not content):  # an empty task is a task of its own
        assert done.code == 2 and "several/b" in done.err and "1 of 3 runs" in done.err
    assert "<code>a</code>" in (tmp_path / "all.html").read_text()
    done = cli("compare", str(several / "a"), str(several / "b"))
    assert "this is a fault of bert-ft" not in done.err
    if file in ("results.json", "task.toml"):
        assert done.code == 2 and "several/b" in done.err


def test_a_line_of_the_log_that_is_being_written_is_left_for_later(several: Path, cli: Any) -> None:
    with (several / "a" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 3, "lo')
    assert cli("report", str(several / "a")).code == 0


def test_a_line_that_is_too_long_is_one_message(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("files", "rundir.folder"):
        monkeypatch.setattr(f"bert_ft.{module}.LARGEST", 1000)
    (several / "a" / "log.jsonl").write_text('{"step": 1, "x": "' + "y" * 5000 + '"}\n')
    with pytest.raises(InputError, match=r"log\.jsonl, line 1"):
        bert_ft.Run(several / "a").log  # noqa: B018
    (several / "a" / "results.json").write_text('{"x": "' + "y" * 5000 + '"}\n')
    with pytest.raises(InputError, match="may have at most"):
        bert_ft.Run(several / "a").results  # noqa: B018


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [f"epochs={DIGITS}", "labels=" + "[" * 10**5, "epochs=1e999", "label_names=a\x01b"],
    ids=["digits", "deep", "float", "control"],
)
def test_an_odd_setting_is_one_message(cli: Any, text: str) -> None:
    done = cli("check", "mrpc", "--set", text)
    assert done.code == 2 and len(done.err) < 6000


def test_json_is_read_as_the_standard_library_reads_it() -> None:
    """An independent reference for whatever has nothing odd in it."""
    for text in ('{"a": [1, -0.0, 1e5, "\\ud83d\\ude00", null, true, {"b": []}]}', "[]", '"x"', " 5 ", '{"": {"": ""}}',
                 "[" * 40 + "]" * 40, str(10**4000), '{"a": "[[[[{{{{"}'):  # fmt: skip
        assert reading.loads(text) == json.loads(text) and json.loads(
            reading.dumps(json.loads(text))
        ) == json.loads(text)
