"""Cross-validation: each row is held out once, groups stay whole, the sums are numpy's, and finished folds stay."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_ft
from bert_ft.config.schema import Data
from bert_ft.data import loading, splitting
from bert_ft.data.rows import Rows
from bert_ft.families.classification.adapter import Classification

QUICK = {"max_steps": 2, "batch_size": 8, "max_length": 32, "quiet": True}
ROWS = [
    {"text": f"a {word} film {i}", "label": word, "page": f"p{i // 3}"}
    for i in range(12)
    for word in ("fine", "dull")
]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("aabc"), st.integers(0, 9)), min_size=12, max_size=60), st.integers(2, 4),
       st.booleans(), st.booleans())  # fmt: skip
def test_folds_divide_the_rows(rows: list[tuple[str, int]], k: int, grouped: bool, classes: bool) -> None:
    labels = pa.array([c for c, _ in rows] if classes else [float(g) for _, g in rows])
    groups = [str(g) for _, g in rows]
    if grouped and len(set(groups)) < k:
        return
    whole = Rows(pa.table({"label": labels, "group": groups}), "rows")
    held: list[int] = []
    for number in range(1, k + 1):
        keys = Data(validation=f"{number}/{k}", group="page" if grouped else None)
        try:
            rest, part = splitting.split_off(whole, "label", keys)
        except bert_ft.InputError as error:
            if not grouped or "too few" not in str(error):
                raise
            return
        assert sorted([*rest.numbers, *part.numbers]) == list(range(len(rows)))
        assert part.table.equals(whole.table.take(pa.array(part.numbers)))
        if grouped:
            assert not set(rest.table["group"].to_pylist()) & set(part.table["group"].to_pylist())
        elif classes:
            each, everyone = Counter(part.table["label"].to_pylist()), Counter(labels.to_pylist())
            assert all(everyone[c] // k <= each[c] <= -(-everyone[c] // k) for c in everyone), "stratified"
        held += part.numbers.tolist()
    assert sorted(held) == list(range(len(rows)))


@pytest.mark.shared_data
def test_rte(glue: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = QUICK | {
        "data.columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        "quoting": False,
        "limit_train": 32,  # of each fold: quick
        "max_length": 128,
    }
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=glue / "RTE" / "train.tsv", folds=5,
                           output=tmp_path / "rte", **settings)  # fmt: skip
    file = (glue / "RTE" / "train.tsv").read_text().rstrip("\n").split("\n")[1:]
    lines = run.predictions("out_of_fold")
    assert [line["row"] for line in lines] == list(range(2_490)) and len(file) == 2_490
    assert [line["label"] for line in lines] == [row.split("\t")[3] for row in file]
    for number in range(1, 6):
        fold = bert_ft.load(run.path / f"fold-{number}")
        splits = loading.load(fold.task, Classification)
        held = set(splits.evaluation["validation"].numbers.tolist())
        assert held == {line["row"] for line in lines if line["fold"] == number}
        assert not held & set(splits.train.numbers.tolist()) and len(held) == 498
        shares = [
            Counter(rows.table["label"].to_pylist())["entailment"] / len(rows)
            for rows in splits.all().values()
        ]
        assert shares[0] == pytest.approx(shares[1], abs=0.005)
        mine = [line["prediction"] == line["label"] for line in lines if line["fold"] == number]
        assert fold.metrics["validation"]["accuracy"] == pytest.approx(np.mean(mine))
    values = [bert_ft.load(run.path / f"fold-{n}").metrics["validation"]["accuracy"] for n in range(1, 6)]
    results = json.loads((run.path / "results.json").read_text())
    assert results["metrics"] == run.metrics == {"validation": {"accuracy": pytest.approx(np.mean(values))}}
    assert results["spread"]["validation"]["accuracy"] == pytest.approx(np.std(values, ddof=1))
    assert results["per_fold"]["validation"]["accuracy"] == values and results["folds"] == 5
    assert not list(run.path.rglob("*.safetensors")), "no model is kept"


def test_finished_folds_are_not_repeated(
    tiny_checkpoint: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["train", "classification", "--train", "rows.jsonl", "--folds", 3, "-c", tiny_checkpoint, "--max-steps", 2,
               "--output", "run", "--max-length", 16, "--set", "data.group=page"]  # fmt: skip
    done = cli(*command)
    assert done.code == 0 and "mean of folds" in done.out and "spread" in done.out, done.err
    assert "3 folds of 24 rows; no model is saved" in done.err
    assert "chosen on these very rows: the best of" in done.err and "of each fold" in done.err
    pages = [{ROWS[line["row"]]["page"] for line in bert_ft.load("run").predictions("out_of_fold") if line["fold"] == n}
             for n in (1, 2, 3)]  # fmt: skip
    assert sum(map(len, pages)) == 4 == len(set.union(*pages)), "groups are whole"
    assert "run is finished already" in cli(*command).err
    before = {n: (Path("run") / f"fold-{n}" / "results.json").stat().st_mtime_ns for n in (1, 3)}
    results = Path("run/results.json").read_text()
    Path("run/results.json").unlink()
    shutil.rmtree("run/fold-2")
    done = cli(*command, "--resume")
    assert "run/fold-1 is finished already" in done.err and done.code == 0
    assert before == {n: (Path("run") / f"fold-{n}" / "results.json").stat().st_mtime_ns for n in (1, 3)}
    again, first = json.loads(Path("run/results.json").read_text()), json.loads(results)
    assert {**again, "timing": None} == {**first, "timing": None}
    assert cli("train", "run/task.toml", "--output", "run").err.count("finished already") == 1, (
        "the file repeats it"
    )
    other = cli(*command, "--lr", "1e-4")
    assert other.code == 2 and "this folder holds another run" in other.err
    fewer = cli(*command, "--folds", 2, "--overwrite")
    assert fewer.code == 0 and sorted(p.name for p in Path("run").glob("fold-*")) == ["fold-1", "fold-2"]
    listed = cli("runs", "run", "--json")
    assert json.loads(listed.out)[0]["value"] == bert_ft.load("run").metrics["validation"]["accuracy"]


@pytest.mark.parametrize(("given", "message"), [
    ({"validation": ROWS}, "folds: each fold holds out training rows and trains a new model, so a validation"),
    ({"model": object()}, "folds: each fold holds out training rows and trains a new model, so a model object"),
    ({"folds": 40}, "validation = \"1/40\" can't be held out of 24 rows"),
    ({"folds": None, "data.validation": "3/2"}, "there is no fold 3 of 2\n  use fewer folds"),
    ({"folds": 1}, "run.folds = 1: Input should be greater than 1"),
    ({"folds": 6, "data.group": "page"}, "validation = \"1/6\" can't be held out of 24 rows"),
])  # fmt: skip
def test_folds_that_can_not_be(tiny_checkpoint: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(bert_ft.InputError) as error:
        bert_ft.finetune("classification", str(tiny_checkpoint), train=ROWS, output=tmp_path / "run",
                         **(QUICK | {"folds": 2} | given))  # fmt: skip
    assert message in str(error.value)


def test_a_rare_label_and_objects(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A label of one row is in the head of every fold; sets of labels are folded, too."""
    rows = [*ROWS, {"text": "a strange film", "label": "rare", "page": "p"}]
    run = bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows, output=tmp_path / "a", folds=3, **QUICK
    )
    assert all(
        set(line["probabilities"]) == {"fine", "dull", "rare"} for line in run.predictions("out_of_fold")
    )
    sets = [row | {"label": [row["label"], row["page"]]} for row in ROWS]
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=sets, output=tmp_path / "b", folds=2,
                           problem_type="multi_label_classification", **QUICK)  # fmt: skip
    assert [line["label"] for line in run.predictions("out_of_fold")] == [
        sorted(row["label"]) for row in sets
    ]
    assert (
        set(run.metrics["validation"])
        == set(run.results["spread"]["validation"])
        >= {"f1_micro", "f1_micro_tuned"}
    )
