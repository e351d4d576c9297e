"""Through the hub's own client libraries: download, cache, offline, refusals, broken downloads; GLUE from hub and TSV."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets.utils.logging import disable_progress_bar
from loopback import Hub, commit

from bert_ft.config.catalog import load_task
from bert_ft.data import loading
from bert_ft.families.classification.adapter import Classification

disable_progress_bar()

# --- GLUE, in both of its forms ---------------------------------------------------------------------------------------

SINGLE, PAIR = ("sentence",), ("sentence1", "sentence2")
RTE = ["entailment", "not_entailment"]
NLI = ["entailment", "neutral", "contradiction"]
# Task -> its folder; the columns, labels (None: a number) and splits on the hub; header, text columns and label column of
# its TSVs; and their labels where they are codes.
FORMS: dict[str, dict[str, Any]] = {
    "cola": {"folder": "CoLA", "hub": SINGLE, "labels": ["unacceptable", "acceptable"], "label": "1", "texts": ["3"],
             "header": None, "coded": True},
    "sst2": {"folder": "SST-2", "hub": SINGLE, "labels": ["negative", "positive"], "header": "sentence label",
             "coded": True},
    "mrpc": {"folder": "MRPC", "hub": PAIR, "labels": ["not_equivalent", "equivalent"], "coded": True,
             "header": "Quality|#1 ID|#2 ID|#1 String|#2 String", "texts": ["#1 String", "#2 String"],
             "label": "Quality"},
    "qqp": {"folder": "QQP", "hub": ("question1", "question2"), "labels": ["not_duplicate", "duplicate"],
            "header": "id qid1 qid2 question1 question2 is_duplicate", "label": "is_duplicate", "coded": True},
    "stsb": {"folder": "STS-B", "hub": PAIR, "labels": None, "label": "score",
             "header": "index genre filename year old_index source1 source2 sentence1 sentence2 score"},
    "mnli": {"folder": "MNLI", "hub": ("premise", "hypothesis"), "labels": NLI, "texts": PAIR, "label": "gold_label",
             "header": "index promptID pairID genre sentence1 sentence2 label1 gold_label",
             "splits": {"train": "train", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched",
                        "test_matched": "test_matched", "test_mismatched": "test_mismatched"}},
    "qnli": {"folder": "QNLI", "hub": ("question", "sentence"), "labels": RTE, "header": "index question sentence label"},
    "rte": {"folder": "RTE", "hub": PAIR, "labels": RTE, "header": "index sentence1 sentence2 label"},
    "wnli": {"folder": "WNLI", "hub": PAIR, "labels": RTE[::-1], "header": "index sentence1 sentence2 label",
             "coded": True},
    "ax": {"folder": "AX", "hub": ("premise", "hypothesis"), "labels": NLI, "texts": PAIR,
           "header": "index sentence1 sentence2 label", "splits": {"diagnostic": "test"}},
}  # fmt: skip
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
# as published with the benchmark (nyu-mll/glue): train, evaluation sets, test sets
COUNTS = {"cola": (8_551, 1_043, 1_063), "sst2": (67_349, 872, 1_821), "mrpc": (3_668, 408, 1_725),
          "stsb": (5_749, 1_500, 1_379), "rte": (2_490, 277, 3_000), "wnli": (635, 71, 146), "qnli": (5_463, 5_463),
          "ax": (1_104,)}  # fmt: skip
NASTY = [
    'He said , "so .',
    'say so" ,',
    "NA",
    " null ",
    "naïve \u2028 café",
    "",
    "a 'b' ,\\",
    "#1",
    "1.0",
    "日本語 👩‍👧",
]


def header(form: dict[str, Any]) -> list[str]:
    return form["header"].split("|" if "|" in form["header"] else " ")


def written(folder: Path, form: dict[str, Any]) -> None:
    """A task's original distribution with rows of our own: quotes mean nothing, tests have neither labels nor CoLA's form."""
    (folder / form["folder"]).mkdir(parents=True)
    labels = (
        [str(i) for i in range(2)]
        if form.get("coded")
        else form["labels"] or ["0.000", "3.800", "5.000", "1.556"]
    )
    for file in form.get("splits", SPLITS):
        hidden = file.startswith("test") or file == "diagnostic"
        names = ["src", "1", "star", "3"] if form["header"] is None else header(form)
        if hidden:
            names = (
                ["index", "sentence"]
                if len(form["hub"]) == 1
                else [n for n in names if n not in label_columns(form)]
            )
        rows = [names] if hidden or form["header"] is not None else []
        for i in range(len(NASTY)):
            cells = dict.fromkeys(names, str(i)) | dict.fromkeys(label_columns(form), labels[i % len(labels)])
            texts = ["sentence"] if hidden and len(form["hub"]) == 1 else form.get("texts", form["hub"])
            cells |= {name: NASTY[(i + 3 * k) % len(NASTY)] for k, name in enumerate(texts)}
            rows.append([cells[name] for name in names])
        text = "".join("\t".join(row) + "\n" for row in rows)
        if form["folder"] == "QQP" and file == "train":
            text += "77\t1\t2\tcut off\n"
        mark = "\ufeff" if form["folder"] == "MRPC" and file == "dev" else ""
        (folder / form["folder"] / f"{file}.tsv").write_text(mark + text, encoding="utf-8", newline="\n")


def label_columns(form: dict[str, Any]) -> list[str]:
    return [form.get("label", "label"), *(["label1"] if form["folder"] == "MNLI" else [])]


def read(path: Path, form: dict[str, Any]) -> dict[str, list[Any]]:
    """A TSV as the hub's columns, by the csv module."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = ["src", "1", "star", "3"] if form["header"] is None and lines[0][0] != "index" else lines.pop(0)
    lines = [line for line in lines if len(line) == len(names)]
    texts = ["sentence"] if names == ["index", "sentence"] else form.get("texts", form["hub"])
    columns: dict[str, list[Any]] = {
        hub: [line[names.index(name)] for line in lines] for hub, name in zip(form["hub"], texts, strict=True)
    }
    label = form.get("label", "label")
    cells = [line[names.index(label)] for line in lines] if label in names else None
    if form["labels"] is None:
        columns["label"] = [-1.0] * len(lines) if cells is None else [float(cell) for cell in cells]
    elif cells is None:
        columns["label"] = [-1] * len(lines)
    else:
        columns["label"] = [int(cell) if form.get("coded") else form["labels"].index(cell) for cell in cells]
    return columns | {"idx": list(range(len(lines)))}


def as_on_the_hub(source: Path, target: Path, tasks: Sequence[str]) -> Path:
    """Parquet files and a card with their features, as in nyu-mll/glue."""
    card: dict[str, list[Any]] = {"configs": [], "dataset_info": []}
    for task in tasks:
        form = FORMS[task]
        label = (
            datasets.Value("float32") if form["labels"] is None else datasets.ClassLabel(names=form["labels"])
        )
        features = datasets.Features(
            {name: datasets.Value("string") for name in form["hub"]}
            | {"label": label, "idx": datasets.Value("int32")}
        )
        files = []
        for file, split in form.get("splits", SPLITS).items():
            if (path := source / form["folder"] / f"{file}.tsv").is_file():
                rows = datasets.Dataset.from_dict(read(path, form), features=features)
                (target / task).mkdir(parents=True, exist_ok=True)
                rows.to_parquet(str(target / task / f"{split}-00000-of-00001.parquet"))
                files.append({"split": split, "path": f"{task}/{split}-*"})
        card["configs"].append({"config_name": task, "data_files": files})
        card["dataset_info"].append({"config_name": task, "features": features._to_yaml_list()})
    (target / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n# GLUE\n")  # JSON is YAML
    return target


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served")
    served.start()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tsv` with all ten tasks in their original form, `glue` with the same rows as on the hub."""
    folder = tmp_path_factory.mktemp("small")
    for form in FORMS.values():
        written(folder / "tsv", form)
    as_on_the_hub(folder / "tsv", folder / "glue", list(FORMS))
    return folder


LOAD = """
import sys
import pyarrow as pa
from bert_ft.data import loading
from bert_ft.families.classification.adapter import Classification
from bert_ft.config.catalog import load_task
target, *names = sys.argv[1:]
for name in names:
    task = load_task(name)
    splits = loading.load(task, Classification, training=name not in ("ax", "qnli"))
    for split, rows in splits.all().items():
        with pa.ipc.new_file(f"{target}/{name}.{split}.arrow", rows.table.schema) as writer:
            writer.write_table(rows.table)
    print(name, splits.fingerprint(), ",".join(map(str, Classification.find_labels(splits.train, task))))
"""


def python(code: str, *arguments: Any, environment: dict[str, str], timeout: int = 120) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=os.environ | environment, text=True,
                          capture_output=True, timeout=timeout)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def same_rows(hub: Hub, original: Path, tasks: Sequence[str], tmp_path: Path) -> None:
    """The canonical rows from the hub and from the TSVs are one and the same."""
    out = python(LOAD, tmp_path, *tasks, environment=hub.environment(tmp_path / "home"))
    told = {name: rest for name, _, rest in (line.partition(" ") for line in out.splitlines())}
    assert list(told) == list(tasks)
    for name in tasks:
        task = load_task(name).override({"run.data_dir": str(original)})
        splits = loading.load(task, Classification, training=name not in ("ax", "qnli"))
        for split, rows in splits.all().items():
            with pa.ipc.open_file(str(tmp_path / f"{name}.{split}.arrow")) as file:
                there = file.read_all()
            for column in rows.table.column_names:
                assert there[column].to_pylist() == rows.table[column].to_pylist(), (name, split, column)
        assert told[name].split(" ")[0] == splits.fingerprint()
        if name in COUNTS and original.name == "glue":
            assert tuple(map(len, splits.all().values()))[-len(COUNTS[name]) :] == COUNTS[name]
        labels = FORMS[name]["labels"] or []
        assert told[name].split(" ")[1] == ",".join(labels)
        assert Classification.find_labels(splits.train, task) == labels


def test_glue_is_the_same_from_hub_and_files(hub: Hub, small: Path, tmp_path: Path) -> None:
    hub.add("datasets", "nyu-mll/glue", small / "glue")
    same_rows(hub, small / "tsv", list(FORMS), tmp_path)
    told = loading.load(load_task("qqp").override({"run.data_dir": str(small / "tsv")}), Classification).notes
    assert told == ["train: 1 rows with too few or too many cells are left out; the first is row 11"]


@pytest.mark.shared_data
def test_published_glue_is_the_same_from_hub_and_files(hub: Hub, glue: Path, tmp_path: Path) -> None:
    tasks = list(COUNTS)
    hub.add("datasets", "nyu-mll/glue", as_on_the_hub(glue, tmp_path / "glue", tasks))
    same_rows(hub, glue, tasks, tmp_path)


# --- training from the hub --------------------------------------------------------------------------------------------

COMMANDS = """
import json, sys
from bert_ft.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as left:
        print("=== exit", left.code, file=sys.stderr, flush=True)
"""


def commands(tmp_path: Path, environment: dict[str, str], *calls: Sequence[Any]) -> list[tuple[int, str]]:
    """(exit code, standard error) of several commands, one after the other in one process of its own."""
    options = ["--max-steps", "1", "--max-length", "32", "--no-baselines"]
    given = json.dumps([["train", *map(str, call), *options] for call in calls])
    done = subprocess.run([sys.executable, "-c", COMMANDS, given], env=os.environ | environment, cwd=tmp_path,
                          text=True, capture_output=True, timeout=240)  # fmt: skip
    parts = re.findall(r"(.*?)=== exit (\d+)\n", done.stderr, re.DOTALL)
    assert len(parts) == len(calls) and "Traceback" not in done.stderr, done.stderr
    return [(int(code), told) for told, code in parts]


@pytest.fixture
def full(hub: Hub, small: Path, tiny_checkpoint: Path) -> Hub:
    """A hub with GLUE, and with a checkpoint and a data set that may be had and ones that may not."""
    for name in ("nyu-mll/glue", "org/gated-data"):
        hub.add("datasets", name, small / "glue")
    for name in ("org/tiny", "org/gated"):
        hub.add("models", name, tiny_checkpoint)
    hub.gated |= {"org/gated", "org/gated-data"}
    return hub


def whole(home: Path) -> int:
    """How many files the client's cache holds, each with the content that its name promises."""
    blobs = [path for path in (home / "hub").glob("*/blobs/*") if not path.name.endswith(".incomplete")]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in blobs)
    return len(blobs)


def test_from_the_hub_then_from_the_cache(full: Hub, tmp_path: Path) -> None:
    tiny = ("sst2", "--checkpoint", "org/tiny")
    home = full.environment(tmp_path / "home")
    refused: list[tuple[tuple[str, ...], str]] = [
        (
            ("sst2", "-c", "org/nothing"),
            "org/nothing: no such checkpoint on the hub, or no access to it\n  check the id",
        ),
        (
            ("sst2", "-c", "org/gated"),
            "org/gated: this checkpoint is gated\n  request access on its page, then run `hf auth login`",
        ),
        ((*tiny, "--set", "run.revision=v9"), "org/tiny: no such revision of this checkpoint\n"),
        (
            (*tiny, "--set", "data.path=org/nothing"),
            "org/nothing sst2 [train]: no such data set on the hub, or no access",
        ),
        (
            (*tiny, "--set", "data.path=org/gated-data"),
            "org/gated-data sst2 [train]: this data set is gated\n  request access",
        ),
        ((*tiny, "--set", "data.revision=v9"), "nyu-mll/glue sst2 [train]: no revision 'v9'"),
        ((*tiny, "--set", "data.name=sst3"), "BuilderConfig 'sst3' not found. Available: ['cola', 'sst2'"),
        (
            (*tiny, "--set", "data.train=trian"),
            "Unknown split \"trian\". Should be one of ['train', 'validation'",
        ),
    ]
    first, *others = commands(tmp_path, home, (*tiny, "-o", "first"), *[call for call, _ in refused])
    assert first[0] == 0, first
    for (code, told), (_, message) in zip(others, refused, strict=True):
        assert (code, message in told) == (2, True), told
    results, environment = (json.loads((tmp_path / "first" / name).read_text()) for name in ("results.json", "environment.json"))  # fmt: skip
    assert environment["checkpoint_commit"] == commit(full.folder / "models" / "org" / "tiny" / "main")
    assert whole(tmp_path / "home") > 3

    full.stop()
    again, unknown, elsewhere = commands(tmp_path, home, (*tiny, "-o", "again"), ("sst2", "-c", "org/other"),
                                         (*tiny, "--set", "data.path=org/other"))  # fmt: skip
    assert again[0] == 0, again
    assert json.loads((tmp_path / "again" / "results.json").read_text())["metrics"] == results["metrics"]
    assert "Retrying" not in again[1] + unknown[1]
    for (code, told), what in ((unknown, "org/other: "), (elsewhere, "org/other sst2 [train]: ")):
        assert (code, f"{what}the hub can't be reached, or the connection was lost, and this" in told) == (
            2,
            True,
        ), told


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "train-00000-of-00001.parquet"])
def test_a_download_that_breaks_off(full: Hub, tmp_path: Path, file: str) -> None:
    home = full.environment(tmp_path / "home")
    call = ("sst2", "-c", "org/tiny", "-o", "run")
    full.breaks.add(file)
    ((code, told),) = commands(tmp_path, home, call)
    assert code == 2 and "the hub can't be reached, or the connection was lost" in told, told
    before = whole(tmp_path / "home")
    full.breaks.clear()
    assert commands(tmp_path, home, call)[0][0] == 0
    assert whole(tmp_path / "home") > before
    full.stop()
    offline = home | {"HF_HUB_OFFLINE": "1"}
    assert commands(tmp_path, offline, ("sst2", "-c", "org/tiny", "-o", "offline"))[0][0] == 0


def test_a_script_on_the_hub_and_the_hubs_conversion_of_it(hub: Hub, tmp_path: Path) -> None:
    task, labels = load_task("trec"), datasets.ClassLabel(names=["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "coarse_label": labels, "fine_label": labels}
    )
    numbers = [i % 6 for i in range(60)]
    rows = datasets.Dataset.from_dict(
        {"text": [f"Who is {i} ?" for i in range(60)], "coarse_label": numbers, "fine_label": numbers},
        features=features,
    )
    for split in ("train", "test"):
        (tmp_path / "parquet" / "default" / split).mkdir(parents=True)
        rows.to_parquet(str(tmp_path / "parquet" / "default" / split / "0000.parquet"))
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "trec.py").write_text("raise SystemExit('code from data ran')")
    hub.add("datasets", "CogComp/trec", tmp_path / "script")
    hub.add("datasets", "CogComp/trec", tmp_path / "parquet", "refs/convert/parquet")
    home = hub.environment(tmp_path / "home")
    out = python(LOAD, tmp_path, "trec", environment=home)
    assert out.endswith(" " + ",".join(task.data.labels or []) + "\n")  # type: ignore[arg-type]
    with pa.ipc.open_file(str(tmp_path / "trec.test.arrow")) as file:
        assert file.read_all()["label"].to_pylist() == [labels.int2str(i) for i in numbers]
    refusal = python("""
from bert_ft.data import loading
from bert_ft.families.classification.adapter import Classification
from bert_ft.errors import InputError
from bert_ft.config.catalog import load_task
try:
    loading.load(load_task("trec").override({"data.revision": "main"}), Classification)
except InputError as error:
    print(error)
""", environment=hub.environment(tmp_path / "another home"))  # fmt: skip
    assert (
        'no longer supported, but found trec.py\n  read the hub\'s Parquet copy with data.revision = "refs/convert/parquet"'
        in refusal
    )
