"""Sets of labels: from any source to the same rows, against scikit-learn, and thresholds that are kept with the model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bert_ft
from bert_ft.data import columns, loading
from bert_ft.data import overrides as sets
from bert_ft.data.rows import Splits
from bert_ft.families.classification.adapter import Classification
from bert_ft.metrics import multilabel

WORDS = ["great", "dull", "long", "short"]
SETS = [[w for k, w in enumerate(WORDS) if n >> k & 1] for n in range(16)]
ROWS = [{"text": f"a film {' '.join(found)} {i}", "label": found} for i in range(6) for found in SETS]
MULTI = {"data.problem_type": "multi_label_classification"}
QUICK = MULTI | {"epochs": 25, "batch_size": 16, "max_length": 32, "learning_rate": 3e-3, "quiet": True,
                 "data.validation": "25%"}  # fmt: skip


def load(train: Any, **keys: Any) -> Splits:
    named = sets.sets(train, train, None)
    changes = sets.changes(named) | MULTI | {key.replace("__", "."): value for key, value in keys.items()}
    return loading.load(
        bert_ft.load_task("classification").override(changes), Classification, sets.objects(named)
    )


# --- sources ----------------------------------------------------------------------------------------------------------


def coded(rows: list[dict[str, Any]]) -> datasets.Dataset:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=WORDS))}
    )
    return datasets.Dataset.from_list(
        [row | {"label": [WORDS.index(name) for name in row["label"]]} for row in rows], features=features
    )


def cells(path: Path, rows: list[dict[str, Any]], between: str, cell: Callable[[str], str] = str) -> Path:
    frame = pd.DataFrame(rows)
    frame["label"] = [between.join(map(cell, found)) for found in frame["label"]]
    frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_source_gives_the_same_sets(tmp_path: Path) -> None:
    """Lists, codes with the source's own names, codes with a file of names, cells that a delimiter splits."""
    code = {"cell": lambda name: str(WORDS.index(name))}
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=7)
    names = written(tmp_path / "names.txt", "\n".join(WORDS) + "\n")
    backwards = [row | {"label": row["label"][::-1] + row["label"]} for row in ROWS]
    found = [
        load(ROWS), load(tmp_path / "rows.parquet"), load(pd.DataFrame(ROWS)), load(backwards),
        load(written(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))),
        load(cells(tmp_path / "a.csv", ROWS, ", "), label_delimiter=","),
        load(cells(tmp_path / "b.tsv", ROWS, "|"), label_delimiter="|"),
        load(cells(tmp_path / "c.csv", ROWS, ";", **code), label_delimiter=";", label_names=str(names)),
        load(cells(tmp_path / "d.csv", ROWS, ";", **code), label_delimiter=";", label_names=WORDS),
        load([row | {"label": [WORDS.index(n) for n in row["label"]]} for row in ROWS], label_names=WORDS),
    ]  # fmt: skip
    assert len({splits.fingerprint() for splits in found}) == 1
    assert found[0].train.table["label"].to_pylist() == [sorted(row["label"]) for row in ROWS]
    assert (
        found[5].notes[0]
        == "train: 6 of 96 rows have an empty cell in column 'label', which counts as no label"
    )
    hub = load(coded(ROWS))
    assert hub.train.table["label"].to_pylist() == [sorted(row["label"]) for row in ROWS]
    task = bert_ft.load_task("classification").override(MULTI)
    assert Classification.find_labels(hub.train, task) == WORDS, "the source's order"
    assert Classification.find_labels(found[0].train, task) == sorted(WORDS)


@pytest.mark.parametrize(("rows", "keys", "message"), [
    (["a,b", "a,,b"], {"label_delimiter": ","}, "row 2: column 'label' has 'a,,b': an empty label"),
    (["a", "['a', b]"], {"label_delimiter": ","}, "row 2: column 'label' has \"['a', b]\": a list written as text"),
    (["a,b", "a"], {}, "column 'label' holds text, not lists of labels\n  set what separates"),
    ([["a"], [None]], {}, r"row 2: column 'label' has [None]: a label is missing"),
    ([[1], [1, 0.5]], {}, "row 2: column 'label' has 0.5: a number with a fraction"),
    ([["a"], None], {}, "row 2: 1 rows have no label"),
    ([1, 2], {}, "column 'label' holds int64, not lists of labels\n  one label a row"),
    ([None, None], {}, "row 1: 2 rows have no label"),
    (["a", "b"], {"label_delimiter": ",", "label_names": "nowhere.txt"}, "data.label_names: no list of label names"),
])  # fmt: skip
def test_a_wrong_cell_is_told_with_its_row(rows: Any, keys: dict[str, str], message: str) -> None:
    with pytest.raises(bert_ft.InputError) as error:
        load({"text": ["x", "y"], "label": rows}, **keys)
    assert message in str(error.value)


def test_codes_beyond_the_sources_names() -> None:
    cells = pa.chunked_array([[[0], [1, 4]]])
    with pytest.raises(
        bert_ft.InputError, match="rows, row 2: column 'label' has 4: the source names 4 labels"
    ):
        columns.name_sets(cells, WORDS, bert_ft.load_task("classification").data, "label", "rows")


@pytest.mark.shared_data
def test_goemotions(glue: Path) -> None:
    """The published row counts of the authors' README, and every row as it stands in the file."""
    folder = glue.parent / "goemotions"
    if not folder.is_dir():
        pytest.skip("../shared/data/goemotions is not here")
    task = bert_ft.load_task("goemotions").override(
        {"run.data_dir": str(glue.parent), "data.original.test": None}
    )
    splits = loading.load(task, Classification)
    assert [len(splits.train), len(splits.evaluation["validation"])] == [43_410, 5_426]
    names = (folder / "labels.txt").read_text().split()
    assert Classification.find_labels(splits.train, task) == names
    lines = [line.split("\t") for line in (folder / "train.tsv").read_text().rstrip("\n").split("\n")]
    assert splits.train.table["text"].to_pylist() == [cells[0] for cells in lines]
    expected = [sorted(names[int(code)] for code in cells[1].split(",")) for cells in lines]
    assert splits.train.table["label"].to_pylist() == expected
    adapter = Classification(task, names)
    adapter.check("train", splits.train)
    codes = [[int(code) for code in cells[1].split(",")] for cells in lines]
    assert [np.flatnonzero(row).tolist() for row in adapter.references(splits.train)] == [
        sorted(c) for c in codes
    ]


# --- metrics and thresholds -------------------------------------------------------------------------------------------

matrices = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(arrays(np.int64, shape, elements=st.integers(0, 1)),
                            arrays(np.int64, shape, elements=st.integers(0, 1)))
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(matrices)
def test_metrics_equal_scikit_learns(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = pair
    expected = {"accuracy": float((p == y).all(axis=1).mean())}
    if p.shape[1] > 1:  # of one column scikit-learn makes a binary task
        assert expected["accuracy"] == sk.accuracy_score(y, p)
    for average in ("micro", "macro", "weighted"):
        triple = sk.precision_recall_fscore_support(
            y, p, average=average, zero_division=0, labels=range(p.shape[1])
        )
        if p.shape[1] == 1:
            triple = sk.precision_recall_fscore_support(y, p, pos_label=1, average="binary", zero_division=0)
        expected |= {
            f"{name}_{average}": v for name, v in zip(("precision", "recall", "f1"), triple[:3], strict=True)
        }
    assert multilabel.compute(multilabel.NAMES, p, y) == pytest.approx(
        {n: expected[n] for n in multilabel.NAMES}
    )


def test_the_hubs_interface() -> None:
    metric = bert_ft.metrics.load("multilabel", compute=["f1_micro", "accuracy"])
    metric.add_batch(predictions=[[1, 0, 1], [0, 0, 0]], references=[[1, 1, 1], [0, 0, 0]])
    metric.add(prediction=np.array([0, 1, 0]), reference=np.array([0, 1, 0]))
    assert metric.compute() == pytest.approx({"f1_micro": 6 / 7, "accuracy": 2 / 3})
    with pytest.raises(bert_ft.InputError, match="f1_micro"):
        bert_ft.metrics.load("multilabel", compute=["f1_micor"]).compute(predictions=[[1]], references=[[1]])
    for wrong in ([[0.7]], [0, 1], []):
        with pytest.raises(ValueError, match=r"multi-label|matrices"):
            multilabel.compute(["accuracy"], wrong, wrong)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10), st.integers(1, 3), st.data())
def test_no_threshold_has_a_better_f1(n: int, c: int, draw: Any) -> None:
    ps = draw.draw(
        arrays(
            np.float64,
            (n, c),
            elements=st.sampled_from([0.0, 1e-9, 0.2, 0.3, 0.5, 0.7, np.nextafter(0.7, 1)]),
        )
    )
    y = draw.draw(arrays(np.int64, (n, c), elements=st.integers(0, 1)))
    found = multilabel.best_thresholds(ps, y)
    for k in range(c):
        if not y[:, k].any():
            assert found[k] == 0.5
            continue
        best, *tried = [sk.f1_score(y[:, k], ps[:, k] > t, zero_division=0) for t in (found[k], 0, *ps[:, k])]
        assert best >= max(tried) - 1e-12


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights", [None, {"great": 0.5, "dull": 1.0, "long": 3.0, "short": 1.0}, "balanced"]
)
def test_the_loss_is_torchs(weights: Any) -> None:
    task = bert_ft.load_task("classification").override(
        MULTI | {"data.labels": WORDS, "class_weights": weights}
    )
    adapter, rows = Classification(task, WORDS), load(ROWS[:40]).train
    adapter.prepare(rows)
    labels = torch.from_numpy(adapter.references(rows).astype(np.float32))
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    positive = (
        (1 - labels).sum(0) / labels.sum(0) if weights == "balanced" else torch.tensor([0.5, 1.0, 3.0, 1.0])
    )
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=None if weights is None else positive)(logits, labels)
    assert float(adapter.loss(logits, {"labels": labels}).mean()) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize(("change", "message"), [
    ({"metric.compute": ["f1"]}, "metric.compute: metric 'f1' is not one of multi_label_classification"),
    ({"label_smoothing": 0.1}, "recipe.label_smoothing: label smoothing is for one label a row"),
    ({"class_weights": {"great": 2.0}}, "recipe.class_weights: weights and labels differ in 'dull'"),
    ({"data.labels": ["great", "dull", "long"]}, "train rows, row 9: label 'short': data.labels does not name it"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(bert_ft.InputError) as error:
        bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, validation=ROWS, output=tmp_path / "run",
                         **(QUICK | {"data.validation": None} | change))  # fmt: skip
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("thresholds", ["one", "per-label"])
def test_thresholds_are_tuned_kept_and_applied_alike(
    tiny_checkpoint: Path, tmp_path: Path, thresholds: str
) -> None:
    from transformers import pipeline

    given = {
        "again": ROWS[48:],
        "validation": ROWS[:48],
    }  # thresholds are tuned on the second, and hold for both
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, validation=given, output=tmp_path / "run",
                           **(QUICK | {"data.validation": None, "thresholds": thresholds, "epochs": 8,
                                       "metric.best": "validation/f1_micro_tuned"}))  # fmt: skip
    kept = run.model.adapter.tuned["thresholds"]
    assert set(kept) == set(WORDS) and len(set(kept.values())) <= (1 if thresholds == "one" else 4)
    never = {"probabilities": np.full((3, 4), 0.2), "prediction": np.eye(4, dtype=bool)[:3]}
    assert "no label at all" in run.model.adapter.warnings(never, None)[0]
    assert not run.model.adapter.warnings(never | {"probabilities": np.eye(4)[:3]}, None)
    for name, rows in given.items():
        lines = run.predictions(name)
        assert [line["label"] for line in lines] == [sorted(row["label"]) for row in rows]
        y = np.array([[w in line["label"] for w in WORDS] for line in lines])
        at = {half: np.array([[line["probabilities"][w] > (kept[w] if half else 0.5) for w in WORDS] for line in lines])
              for half in (False, True)}  # fmt: skip
        assert [set(line["prediction"]) for line in lines] == [
            set(itertools.compress(WORDS, row)) for row in at[True]
        ]
        for average in ("micro", "macro", "weighted"):
            for suffix, p in (("", at[False]), ("_tuned", at[True])):
                expected = sk.f1_score(y, p, average=average, zero_division=0)
                assert run.metrics[name][f"f1_{average}{suffix}"] == pytest.approx(expected)
    assert run.log[-1]["evaluation"].keys() == run.metrics.keys() == given.keys()
    best = "f1_micro" if thresholds == "one" else "f1_macro"
    assert run.metrics["validation"][f"{best}_tuned"] >= run.metrics["validation"][best]
    # the report says which scores were chosen on their own rows, and of no other set
    chosen = [each for each in run.results["chosen"] if each["tuned"]]
    assert [each["set"] for each in chosen] == ["validation"]
    tuned = {name for name in run.metrics["validation"] if name.endswith("_tuned")}
    assert set(chosen[0]["metrics"]) == set(chosen[0]["held_out"]) == tuned
    assert "took no part in any choice" in (run.path / "report.html").read_text()
    texts = [row["text"] for row in given["again"]]
    loaded, bare = bert_ft.load(run.path), bert_ft.load(run.path / "model")
    assert [a["prediction"] for a in loaded.predict(texts)] == [
        line["prediction"] for line in run.predictions("again")
    ]
    assert [a["prediction"] for a in bare.predict(texts)] == [
        line["prediction"] for line in run.predictions("again")
    ]
    assert loaded.evaluate(given["again"])["validation"] == pytest.approx(run.metrics["again"])
    theirs = pipeline("text-classification", str(run.path / "model"), top_k=None)(texts)
    for line, them in zip(run.predictions("again"), theirs, strict=True):
        assert {e["label"]: e["score"] for e in them} == pytest.approx(line["probabilities"], abs=1e-5)


def test_on_the_command_line(tiny_checkpoint: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    rows = cells(tmp_path / "rows.csv", ROWS, "|")
    done = cli("train", "classification", "--train", rows, "--validation", "25%", "--multi-label", "--set",
               "label_delimiter=|", "-c", tiny_checkpoint, "--max-steps", 3, "--output", tmp_path / "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["metrics"]["validation"]) == {
        name + suffix
        for name in ("f1_micro", "f1_macro", "f1_weighted", "accuracy")
        for suffix in ("", "_tuned")
    }
    assert (
        "72 rows have an empty cell" not in done.err
        and "rows have an empty cell in column 'label'" in done.err
    )
