"""The zip for gluebenchmark.com, read again by the server's rules as they are written down here, on GLUE's real test rows."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bert_ft
from bert_ft import files
from bert_ft.cli.options import app
from bert_ft.rundir.folder import MARKER, RunDir
from bert_ft.tools.reproduce.submission import submission

MadeRun = Callable[..., Path]
BITS, RELATIONS, TWO = (
    {"0", "1"},
    {"entailment", "neutral", "contradiction"},
    {"entailment", "not_entailment"},
)
RULES: dict[str, tuple[int, set[str] | None]] = {  # rows and labels; GLUE's FAQ and test files
    "CoLA.tsv": (1063, BITS), "SST-2.tsv": (1821, BITS), "MRPC.tsv": (1725, BITS), "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, BITS), "MNLI-m.tsv": (9796, RELATIONS), "MNLI-mm.tsv": (9847, RELATIONS), "QNLI.tsv": (5463, TWO),
    "RTE.tsv": (3000, TWO), "WNLI.tsv": (146, BITS), "AX.tsv": (1104, RELATIONS),
}  # fmt: skip
FOLDERS = {"CoLA.tsv": "CoLA/test.tsv", "SST-2.tsv": "SST-2/test.tsv", "MRPC.tsv": "MRPC/test.tsv", "STS-B.tsv": "STS-B/test.tsv",
           "QNLI.tsv": "QNLI/test.tsv", "RTE.tsv": "RTE/test.tsv", "WNLI.tsv": "WNLI/test.tsv", "AX.tsv": "AX/diagnostic.tsv"}  # fmt: skip
SMALL = {"cola": "CoLA.tsv", "sst2": "SST-2.tsv", "mrpc": "MRPC.tsv", "stsb": "STS-B.tsv", "qnli": "QNLI.tsv", "rte": "RTE.tsv",
         "wnli": "WNLI.tsv"}  # fmt: skip


def read(file: Path) -> dict[str, list[str]]:
    """File name -> predictions, held to the rules."""
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None and sorted(archive.namelist()) == sorted(RULES)
        found = {name: archive.read(name).decode("ascii") for name in archive.namelist()}
    out = {}
    for name, (rows, labels) in RULES.items():
        header, *lines = found[name].split("\n")
        assert header == "index\tprediction" and lines.pop() == "" and len(lines) == rows, name
        index, predictions = zip(*(line.split("\t") for line in lines), strict=True)
        assert list(index) == [str(i) for i in range(rows)], name
        if labels is None:
            assert all(re.fullmatch(r"[0-5]\.\d{3}", p) and 0 <= float(p) <= 5 for p in predictions)
        else:
            assert set(predictions) <= labels, name
        out[name] = list(predictions)
    return out


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """`made("cola", {"test": 1063})`: a run with as many predictions by chance, and no model."""

    def make(name: str, sets: dict[str, int], folder: Path | None = None, **settings: Any) -> Path:
        task, rng = bert_ft.load_task(name).override(settings), np.random.default_rng(len(name))
        run = RunDir(folder or tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
        if folder is None:
            run.start(task, {MARKER: None})
            files.write_json(run.results_json, {"metrics": {}})
        for which, rows in sets.items():
            said = (
                [float(x) for x in rng.normal(2.5, 2, rows)]
                if name == "stsb"
                else rng.choice(task.data.labels or [], rows).tolist()
            )
            lines = [{"row": i, "prediction": p, "label": None} for i, p in enumerate(said)]
            files.write_jsonl(run.prediction_file(which), lines)
        return run.path

    return make


def predictions(run: Path, which: str = "test") -> list[Any]:
    return [
        json.loads(line)["prediction"]
        for line in (run / "predictions" / f"{which}.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_zip_is_as_the_server_wants_it(
    glue: Path, made: MadeRun, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"premise": f"it is {a}", "hypothesis": f"it is {b}", "label": ("entailment", "neutral", "contradiction")[(a + b) % 3]}
            for a in range(6) for b in range(6)]  # fmt: skip
    small = {"matched": rows[:3], "mismatched": rows[:3]}
    mnli = bert_ft.finetune("mnli", str(tiny_checkpoint), output=tmp_path / "mnli", train=rows, validation=small,
                            test={"test_matched": rows[:2], "test_mismatched": rows[:2]}, epochs=1, max_length=32, check=False, quiet=True)  # fmt: skip
    made("mnli", {"test_matched": 9796, "test_mismatched": 9847}, mnli.path)
    runs = {file: made(name, {"test": RULES[file][0]}) for name, file in SMALL.items()}
    target = tmp_path / "glue.zip"
    with pytest.raises(bert_ft.InputError, match=r"no run of qqp\n  --fill"):
        submission([*runs.values(), mnli.path], target, data_dir=glue)
    assert not target.exists()
    entries = {
        entry.file: entry
        for entry in submission([*runs.values(), mnli.path], target, data_dir=glue, fill=True)
    }
    found = read(target)

    for name, place in FOLDERS.items():  # as many rows as the real files, with their numbers
        with (glue / place).open(encoding="utf-8", newline="") as stream:
            index = [line[0] for line in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
        assert index == [str(i) for i in range(RULES[name][0])], name
    codes = {
        "unacceptable": "0",
        "acceptable": "1",
        "negative": "0",
        "positive": "1",
        "not_equivalent": "0",
        "equivalent": "1",
    }
    for name in ("CoLA.tsv", "SST-2.tsv", "MRPC.tsv"):
        assert found[name] == [codes[label] for label in predictions(runs[name])]
    assert found["WNLI.tsv"] == [str(int(label == "entailment")) for label in predictions(runs["WNLI.tsv"])]
    for name in ("RTE.tsv", "QNLI.tsv"):
        assert found[name] == predictions(runs[name])
    raw = predictions(runs["STS-B.tsv"])
    assert [float(p) for p in found["STS-B.tsv"]] == pytest.approx(np.clip(raw, 0, 5), abs=5e-4)
    outside = sum(not 0 <= value <= 5 for value in raw)
    assert outside > 50 and entries["STS-B.tsv"].note == f"{outside} of 1,379 clipped to 0 to 5"
    assert found["MNLI-m.tsv"] == predictions(mnli.path, "test_matched")
    assert found["MNLI-mm.tsv"] == predictions(mnli.path, "test_mismatched")
    with (glue / FOLDERS["AX.tsv"]).open(encoding="utf-8", newline="") as stream:
        pairs = [tuple(line[1:3]) for line in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
    assert found["AX.tsv"] == [answer["prediction"] for answer in mnli.predict(pairs)]
    assert (
        set(found["QQP.tsv"]) == {"0"}
        and entries["QQP.tsv"].run is None
        and "no run of qqp" in entries["QQP.tsv"].note
    )

    again = tmp_path / "again.zip"
    submission([mnli.path, *runs.values()], again, data_dir=glue, fill=True)
    assert again.read_bytes() == target.read_bytes()


def test_all_filled_in_but_one(made: MadeRun, tmp_path: Path) -> None:
    """The command: what was filled is said, file by file."""
    run = made("cola", {"test": 1063})
    done = CliRunner().invoke(
        app, ["reproduce", "submission", str(run), "--fill", "--json", "-o", str(tmp_path / "glue.zip")]
    )
    assert done.exit_code == 0, done
    entries = json.loads(done.stdout)
    found = read(tmp_path / "glue.zip")
    assert [entry["file"] for entry in entries] == list(RULES) and entries[0]["run"] == str(run)
    filled = {name: set(values) for name, values in found.items() if name != "CoLA.tsv"}
    assert all(len(values) == 1 for values in filled.values())
    assert all(
        entry["note"].endswith("all filled in, " + min(filled[entry["file"]])) for entry in entries[1:]
    )
    table = (
        CliRunner()
        .invoke(app, ["reproduce", "submission", str(run), "--fill", "-o", str(tmp_path / "glue.zip")])
        .stdout
    )
    assert all(name in table for name in RULES)


@pytest.mark.shared_data
def test_what_is_filled_in_is_the_most_frequent_label_of_the_training_rows(glue: Path) -> None:
    from bert_ft.config.catalog import load_suite

    wanted = load_suite("glue").submission
    for name, place in FOLDERS.items():
        train = (glue / place).parent / "train.tsv"
        if not train.is_file():  # only the five small ones and SST-2 are here
            continue
        lines = train.read_text(encoding="utf-8-sig").splitlines()
        column = {"CoLA.tsv": 1, "MRPC.tsv": 0}.get(name, -1)
        labels = [line.split("\t")[column] for line in (lines if name == "CoLA.tsv" else lines[1:])]
        if name == "STS-B.tsv":
            assert float(wanted[name].majority) == pytest.approx(
                np.mean([float(x) for x in labels]), abs=5e-4
            )
        else:
            assert wanted[name].majority == max(set(labels), key=labels.count), name


def test_what_is_refused(made: MadeRun, tmp_path: Path) -> None:
    cola = made("cola", {"test": 1063})
    cases: list[tuple[list[Path], str]] = [
        ([cola, made("cola", {"test": 1063})], "two runs of cola: "),
        ([made("imdb", {"test": 5})], "'imdb' is no task of the submission to glue"),
        ([made("rte", {"validation": 277})], "no predictions for 'test'"),
        ([made("rte", {"test": 2999})], "2,999 predictions, but RTE.tsv has 3,000 rows"),
        ([made("rte", {"test": 3000}, **{"data.labels": ["entailment", "maybe"]})], "the server does not know the label 'maybe'"),
        ([made("mnli", {"test_matched": 9796, "test_mismatched": 9847}, **{"run.data_dir": str(tmp_path)})], "this run has no saved model"),
    ]  # fmt: skip
    for runs, told in cases:
        with pytest.raises(bert_ft.InputError, match=re.escape(told)):
            submission(runs, tmp_path / "glue.zip", fill=True)
    with pytest.raises(bert_ft.InputError, match="no run of sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli\n"):
        submission([cola], tmp_path / "glue.zip")
    with pytest.raises(
        bert_ft.InputError, match="the suite 'glue-small' has no server to submit to\n  known: glue"
    ):
        submission([cola], tmp_path / "glue.zip", suite="glue-small")
    assert not (tmp_path / "glue.zip").exists()
