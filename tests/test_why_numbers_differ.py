"""docs/why-numbers-differ.md: every row leads to a finding or a test, every finding stands there, in both languages; and what it
says of bert-ft, where no other test holds it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pandas as pd
import pytest
from transformers import BertConfig, BertForSequenceClassification

from bert_ft import families, metrics
from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides, rows
from bert_ft.engine import loop
from bert_ft.engine.checkpoints import State
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification
from bert_ft.families.ner.adapter import Ner
from bert_ft.modeling import mean_layer
from bert_ft.modeling.loading import build
from bert_ft.prepared import prepare

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8")
         for name in ("why-numbers-differ.md", "why-numbers-differ.zh-CN.md")}  # fmt: skip
LINK = re.compile(r"\]\(([^)\s]+)\)")


def rows_of(page: str) -> list[str]:
    """The rows of the tables, without head and line."""
    lines = page.split("\n")
    return [
        line for i, line in enumerate(lines) if line.startswith("| ") and not lines[i + 1].startswith("|---")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_every_row_has_its_finding_or_test(name: str) -> None:
    for row in rows_of(PAGES[name]):
        targets = [target for target in LINK.findall(row) if target.startswith(("../findings/", "../tests/"))]
        assert targets, row
        assert all((ROOT / "docs" / target).is_file() for target in targets), row


@pytest.mark.parametrize("name", PAGES)
def test_every_finding_is_linked(name: str) -> None:
    linked = {
        target.split("/")[-1] for target in LINK.findall(PAGES[name]) if target.startswith("../findings/")
    }
    assert {file.name for file in (ROOT / "findings").glob("*.sh")} == linked


def test_both_languages_have_the_same_rows() -> None:
    english, chinese = (
        [[target for target in LINK.findall(row) if target.startswith("../")] for row in rows_of(page)]
        for page in PAGES.values()
    )
    assert english == chinese
    cases = [re.findall(r'(?<=\]\(#)[a-z-]+(?=\))|(?<=id=")[a-z-]+', page) for page in PAGES.values()]
    assert cases[0] == cases[1]


@pytest.mark.parametrize("name", PAGES)
def test_the_cases_lead_to_a_row(name: str) -> None:
    page = PAGES[name]
    cases = [line for line in page.split("\n") if line.startswith("- ")]
    assert len(cases) >= 5
    for case in cases:
        (anchor,) = re.findall(r"\]\(#([a-z-]+)\)", case)
        assert [row for row in rows_of(page) if f'<a id="{anchor}"></a>' in row], case


# --- what the page says of bert-ft ------------------------------------------------------------------------------------


def read(train: Any, family: Any = Classification, **keys: Any) -> rows.Rows:
    sets = overrides.sets(train, train, None)
    changes = overrides.changes(sets) | {key.replace("__", "."): value for key, value in keys.items()}
    return loading.load(load_task(family.family).override(changes), family, overrides.objects(sets)).train


@pytest.mark.parametrize("name", ["ner", "classification"])
def test_accumulation_only_divides_a_batch(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The mean over all words, or rows, of the batch, and its gradient, whatever the parts: rows of one word and of six."""
    file = tmp_path / "rows.jsonl"
    words = [["a", "warm", "film", "and", "a", "dull"][:n] for n in (1, 6, 1, 2)]
    keys = (
        [{"tokens": row, "tags": ["B-X", *["O"] * 5][: len(row)]} for row in words]
        if name == "ner"
        else [{"text": " ".join(row), "label": "xy"[i % 2]} for i, row in enumerate(words)]
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in keys))
    sets = overrides.changes(overrides.sets(str(file), str(file), None))
    first: list[Any] = []
    for parts in (1, 4):
        recipe = {
            "max_steps": 1,
            "batch_size": 4,
            "dropout": 0.0,
            "log_every": 1,
            "gradient_accumulation_steps": parts,
        }
        task = load_task(name).override(sets | recipe | {"run.checkpoint": str(tiny_checkpoint)})
        prepared = prepare(task, families.find(task.family))
        built, _ = build(prepared.task, prepared.adapter, "fp32")
        metric = {"validation": {task.best_metric[1]: 0.0}}
        log: list[dict[str, Any]] = []
        loop.train(
            built, built.encode(prepared.splits.train), evaluate=lambda metric=metric: metric, log=log.append
        )
        first.append([log[0][key] for key in ("loss", "grad_norm")])
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_an_undefined_metric_is_never_the_best() -> None:
    task, state = load_task("classification").override({"metric.compute": ["matthews_correlation"]}), State()
    name = task.best_metric[0]
    scores = (math.nan, 0.5, math.nan, 0.6, 0.6)
    better = [loop._better(task, {name: {"matthews_correlation": score}}, state) for score in scores]
    assert better == [True, True, False, True, False] and state.best == 0.6


def test_digits_that_name_no_label_are_no_ids() -> None:
    task = load_task("classification").override({"data.labels": ["1", "2"]})
    adapter = Classification(task, ["1", "2"])
    for labels in (["0", "2"], [0, 2]):
        found = read({"text": ["a", "b"], "label": labels}, data__labels=["1", "2"])
        with pytest.raises(InputError, match=r"row 1: label '0': data\.labels does not name it"):
            adapter.check("train", found)


def test_labels_of_two_types_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl.*label"):
        read(str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("labels", [["x", None, "y"], pd.Series(["x", None, "y"], dtype="str"),
                                    pd.Categorical(["x", None, "y"])], ids=["list", "str", "categorical"])  # fmt: skip
def test_a_missing_label_of_a_frame_is_no_class(labels: Any) -> None:
    with pytest.raises(InputError, match="row 2: 1 rows have no label"):
        read(pd.DataFrame({"text": ["a", "b", "c"], "label": labels}))


def test_chosen_rows_of_a_frame_bring_no_index() -> None:
    frame = pd.DataFrame({"text": list("abcd"), "label": list("xyxy")})
    chosen = read(frame[[True, True, False, True]])
    assert chosen.table.column_names == read(frame).table.column_names
    assert chosen.table["text"].to_pylist() == ["a", "b", "d"]


def test_classes_of_a_parquet_file_have_their_names(tmp_path: Path) -> None:
    kinds = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["bad", "good"]))
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds)
    data.to_parquet(str(tmp_path / "rows.parquet"))
    assert pd.read_parquet(tmp_path / "rows.parquet")["label"].tolist() == [1, 0]
    assert read(str(tmp_path / "rows.parquet")).table["label"].to_pylist() == ["good", "bad"]


def test_columns_are_those_of_the_tabs(tmp_path: Path) -> None:
    (tmp_path / "tagged.conll").write_text("1\tNew York\tPROPN\tB-LOC\n2\tsleeps\tVERB\tO\n\n")
    found = read(str(tmp_path / "tagged.conll"), Ner, data__columns={"tokens": "1", "tags": "3"}).table
    assert [found[name].to_pylist() for name in ("tokens", "tags")] == [
        [["New York", "sleeps"]],
        [["B-LOC", "O"]],
    ]


def test_a_type_with_a_hyphen_stays_one(tmp_path: Path) -> None:
    (tmp_path / "tagged.conll").write_text("HeLa cell-line\nis O\n\n")
    assert read(str(tmp_path / "tagged.conll"), Ner).table["tags"].to_pylist() == [["B-cell-line", "O"]]


def test_every_label_has_its_name_in_the_config() -> None:
    config = BertConfig(**Classification(load_task("classification"), ["bad", "good"]).config())
    assert config.num_labels == 2 and config.id2label == {0: "bad", 1: "good"}


def test_a_tuple_is_a_pair() -> None:
    table = Classification(load_task("classification"), ["x", "y"]).rows([("good", "bad")]).table
    assert table.select(["text", "text_pair"]).to_pylist() == [{"text": "good", "text_pair": "bad"}]


def test_an_added_layer_shares_the_config() -> None:
    network = BertForSequenceClassification(BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                       intermediate_size=32)).eval()  # fmt: skip
    mean_layer.add(network, SimpleNamespace(inputs={"text": True}, logits=lambda outputs: outputs.logits))
    assert network.config.num_hidden_layers == 2
    assert {id(m.config) for m in network.modules() if hasattr(m, "config")} == {id(network.config)}


def test_a_class_that_is_neither_gold_nor_predicted() -> None:
    two, ones = [0, 0, 1, 1], [1, 1, 1]
    assert metrics.load("f1_macro").compute(predictions=two, references=two) == {"f1_macro": 1.0}
    assert metrics.load("matthews_correlation").compute(predictions=ones, references=ones) == {
        "matthews_correlation": 0.0
    }
