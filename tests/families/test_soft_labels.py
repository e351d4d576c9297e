"""Soft targets: every form gives the same rows, faults are told with their place, the loss is torch's, certain rows train
as labels do, and what people voted is measured and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

import bert_ft
from bert_ft import baselines
from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides
from bert_ft.errors import InputError
from bert_ft.families import soft_labels
from bert_ft.families.classification.adapter import Classification
from bert_ft.families.features import Features
from bert_ft.metrics.agreement import alpha
from bert_ft.prepared import Prepared, prepare, read
from bert_ft.tools.check import check
from tests.conftest import SENTENCES, Cli

MEASURE = baselines.measure  # before the fixture of all tests takes it away
VOTED = [
    ["好", "好", "坏"],
    ["坏", "坏", "坏"],
    ["好", "坏"],
    ["中", "好", "中"],
    ["中", "中"],
    ["坏", "中", "坏"],
] * 2
TEXTS = [f"第{i}部电影" for i in range(len(VOTED))]
SHARES = [{label: votes.count(label) / len(votes) for label in sorted(set(votes))} for votes in VOTED]
NAMES = ["中", "坏", "好"]
MATRIX = np.array([[row.get(name, 0.0) for name in NAMES] for row in SHARES])


def loaded(rows: Any, soft: Any = "votes", **keys: Any) -> Prepared:
    """The rows as training and as validation rows."""
    named = overrides.sets(rows, rows, None)
    settings = {"data.soft": soft} | {key.replace("__", "."): value for key, value in keys.items()}
    task = overrides.bound(load_task("classification"), named, settings)
    return read(task, Classification, overrides.objects(named))


def of(cells: list[Any], name: str = "votes") -> list[dict[str, Any]]:
    return [{"text": text, name: cell} for text, cell in zip(TEXTS, cells, strict=True)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def matrix(prepared: Prepared, names: list[str] | None = None) -> np.ndarray:
    found = soft_labels.matrix(prepared.splits.train, names or prepared.adapter.names)
    assert found is not None and found[1].all()
    return found[0]


# --- forms --------------------------------------------------------------------------------------------------------------


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    columns = pd.DataFrame({"text": TEXTS, **{f"v{k}": [[*v, None][k] for v in VOTED] for k in range(3)}})
    columns.to_csv(tmp_path / "columns.csv", index=False)
    pipeline = [[{"label": k, "score": p} for k, p in row.items()] for row in SHARES]
    counted = [{label: votes.count(label) for label in set(votes)} for votes in VOTED]
    pq.write_table(pa.table({"text": TEXTS, "votes": VOTED}), tmp_path / "votes.parquet")
    maps = pa.array([list(row.items()) for row in SHARES], pa.map_(pa.string(), pa.float32()))
    pq.write_table(pa.table({"text": TEXTS, "votes": maps}), tmp_path / "maps.parquet")
    frame = pd.DataFrame(of([json.dumps(row, ensure_ascii=False) for row in SHARES]))
    frame.to_csv(tmp_path / "json.csv", index=False)
    pd.DataFrame(of(["|".join(v) for v in VOTED])).to_csv(tmp_path / "bars.csv", index=False)
    apart = pd.DataFrame(
        {"text": TEXTS, **{f"probability of {n}": MATRIX[:, k] for k, n in enumerate(NAMES)}}
    )
    apart.to_csv(tmp_path / "apart.csv", index=False)
    codes = [[NAMES.index(label) for label in votes] for votes in VOTED]
    forms = {
        "distributions": loaded(of(SHARES)),
        "jsonl": loaded(jsonl(tmp_path / "a.jsonl", of(SHARES))),
        "votes": loaded(of(VOTED)),
        "counts": loaded(of(counted)),
        "of a pipeline": loaded(of(pipeline)),
        "parquet": loaded(tmp_path / "votes.parquet"),
        "maps": loaded(tmp_path / "maps.parquet"),
        "JSON in a cell": loaded(tmp_path / "json.csv"),
        "delimited": loaded(tmp_path / "bars.csv", data__label_delimiter="|"),
        "columns": loaded(tmp_path / "columns.csv", ["v0", "v1", "v2"]),
        "a column a label": loaded(tmp_path / "apart.csv", [f"probability of {name}" for name in NAMES]),
        "codes": loaded(of(codes), data__label_names=NAMES),
        "in the order of labels": loaded(of(MATRIX.tolist()), data__labels=NAMES),
    }
    for name, found in forms.items():
        assert sorted(found.adapter.names) == NAMES, name
        tolerance = 1e-6 if name == "maps" else 1e-12
        assert abs(matrix(found, NAMES) - MATRIX).max() < tolerance, name
        labels = found.splits.train.table["label"].to_pylist()
        best = MATRIX.max(axis=1)
        assert all(MATRIX[i, NAMES.index(label)] > best[i] - 1e-6 for i, label in enumerate(labels)), name
        voted = name not in ("distributions", "jsonl", "of a pipeline", "maps", "JSON in a cell", "a column a label",
                             "in the order of labels")  # fmt: skip
        assert ("votes" in found.splits.train.table.column_names) == voted, name
    skipped = loaded(of([[*votes, "-", None, ""] for votes in VOTED]), data__skip_labels=["-"])
    assert skipped.splits.fingerprint() == forms["votes"].splits.fingerprint()
    answered = [{**row, "answer": "accept"} for row in of(SHARES)]
    answered.insert(2, {"text": "x", "votes": {"好": 7.5}, "answer": "reject"})
    rejected = loaded(jsonl(tmp_path / "prodigy.jsonl", answered))
    assert rejected.splits.fingerprint() == forms["distributions"].splits.fingerprint(), (
        "a row that nobody uses"
    )
    # the same rows whatever the form: the fingerprint says so
    assert forms["votes"].splits.fingerprint() == forms["parquet"].splits.fingerprint()
    assert forms["votes"].splits.fingerprint() == forms["columns"].splits.fingerprint()
    assert forms["distributions"].splits.fingerprint() == forms["jsonl"].splits.fingerprint()


def test_labels_of_rows_without_a_distribution(tmp_path: Path) -> None:
    """Files are joined: one has labels, the other a teacher's probabilities; a label of its own is what is scored."""
    labelled = jsonl(tmp_path / "gold.jsonl", [{"text": t, "label": "好"} for t in TEXTS[:3]])
    soft = jsonl(
        tmp_path / "soft.jsonl", [{"text": t, "votes": p} for t, p in zip(TEXTS, SHARES, strict=True)]
    )
    both = jsonl(tmp_path / "both.jsonl", [{"text": "x", "label": "坏", "votes": {"好": 0.75, "坏": 0.25}}])
    named = overrides.sets([labelled, soft, both], labelled, None)
    task = overrides.bound(load_task("classification"), named, {"data.soft": "votes"})
    found = prepare(task, Classification)
    rows = found.splits.train
    targets = soft_labels.targets(found.adapter, rows)
    assert targets is not None and found.adapter.names == NAMES
    assert (targets[:3] == [0, 0, 1]).all() and np.allclose(targets[3:15], MATRIX)
    assert targets[15].tolist() == [0, 0.25, 0.75] and rows.table["label"][15].as_py() == "坏"
    assert any("1 rows have a label of their own that is not the likeliest" in note for note in found.notes)
    assert soft_labels.targets(found.adapter, found.splits.evaluation["validation"]) is None
    with pytest.raises(InputError, match="no column 'votes'"):
        loaded(labelled)


def test_several_labels_and_numbers() -> None:
    several = {"data__problem_type": "multi_label_classification"}
    shares = [{"长": 0.75, "短": 0.2 * (i % 5)} for i in range(12)]
    found = loaded(of(shares), **several)
    assert found.splits.train.table["label"].to_pylist() == [
        ["短", "长"] if i % 5 > 2 else ["长"] for i in range(12)
    ]
    votes = [[["长"], ["长", "短"], [], ["长"]]] * 12
    assert matrix(loaded(of(votes), **several), ["长", "短"]).tolist() == [[0.75, 0.25]] * 12
    scores = loaded(of([[i, i + 2.0] for i in range(12)]), data__problem_type="regression")
    assert scores.splits.train.table["label"].to_pylist() == [i + 1.0 for i in range(12)]
    frame = pd.DataFrame({"text": TEXTS, "a": range(12), "b": [None, *range(1, 12)]})
    two = loaded(frame, ["a", "b"], data__problem_type="regression")
    assert two.splits.train.table["label"].to_pylist() == list(range(12))
    assert any(
        "mean of those in 'a', 'b'; they agree by Krippendorff's alpha 1.000" in note for note in two.notes
    )


# --- faults -------------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Any, str]] = {
    "sum": ({"好": 0.5, "坏": 0.2}, "the probabilities of a row sum to 1"),
    "negative": ({"好": -0.5, "坏": 1.5}, "a probability is a number from 0 to 1"),
    "nan": ({"好": float("nan"), "坏": 1.0}, "a probability is a number from 0 to 1"),
    "unknown": ({"好": 0.4, "怪": 0.6}, "a label that data.labels does not name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_message_with_its_place(fault: str, tmp_path: Path) -> None:
    cell, message = FAULTS[fault]
    rows = of([{"好": 0.25, "坏": 0.75} if i not in (4, 7) else cell for i in range(12)])
    with pytest.raises(InputError) as caught:
        loaded(jsonl(tmp_path / "坏.jsonl", rows), data__labels=["坏", "好"])
    assert message in str(caught.value) and "坏.jsonl, row 5" in str(caught.value)
    report = check("classification", train=tmp_path / "坏.jsonl", validation=rows[:4],
                   **{"data.soft": "votes", "data.labels": ["坏", "好"]})  # fmt: skip
    found = [finding for finding in report.findings if finding.check == "unreadable"]
    assert [finding.count for finding in found] == [2] and message in found[0].message
    assert [place.rpartition(", ")[2] for place in found[0].places] == ["row 5", "row 8"]


def test_what_is_none_is_refused() -> None:
    def refused(cells: list[Any], **keys: Any) -> str:
        with pytest.raises(InputError) as caught:
            loaded(of(cells), **keys)
        return str(caught.value)

    assert "holds lists of probabilities, which do not say of what" in refused([[0.5, 0.5]] * 12)
    assert "a probability for each of 3 labels" in refused([[0.5, 0.5]] * 12, data__labels=NAMES)
    assert "no distribution and no list of votes" in refused(["好 坏"] * 12)
    assert "no distributions and no votes" in refused([1] * 12)
    assert "rows have no label" in refused([None, *SHARES[1:]])
    assert "data.labels does not name it" in refused(VOTED, data__labels=["好", "坏"])
    several = {"data__problem_type": "multi_label_classification"}
    assert "each vote is a list of labels" in refused(VOTED, **several)
    assert "a probability is a number from 0 to 1" in refused([{"好": 1.5, "坏": 0.5}] * 12, **several)
    for family in ("ner", "qa"):
        task = load_task(family).override(
            {"data.soft": "votes", "data.train": "a.jsonl", "data.evaluate": "a.jsonl"}
        )
        with pytest.raises(InputError, match=f"the {family} family learns no distributions over labels"):
            loading.load(task, bert_ft.families.find(family))


def test_rows_of_a_test_set_that_have_neither(tmp_path: Path) -> None:
    """They have no score, and all that is told of the set is told of the others."""
    rows = jsonl(tmp_path / "a.jsonl", of(VOTED))
    report = check(
        "classification", train=rows, validation=rows, test=of([None, *VOTED[1:]]), **{"data.soft": "votes"}
    )
    assert [finding.count for finding in report.findings if "without a label" in finding.message] == [1]
    assert sum(report.sets["test"]["labels"].values()) == pytest.approx(11, abs=0.2)


def test_a_label_that_training_does_not_have(tmp_path: Path) -> None:
    train, other = jsonl(tmp_path / "a.jsonl", of(SHARES)), of([{"好": 0.5, "怪": 0.5} for _ in VOTED])
    named = overrides.sets(train, jsonl(tmp_path / "b.jsonl", other), None)
    task = overrides.bound(load_task("classification"), named, {"data.soft": "votes"})
    with pytest.raises(InputError, match="label '怪' of a distribution: training does not have it"):
        prepare(task, Classification)


def test_rounded_probabilities_are_mended_and_told() -> None:
    found = loaded(of([{"好": 0.33, "坏": 0.33, "中": 0.33}] * 12))
    assert np.allclose(matrix(found).sum(axis=1), 1, atol=1e-12)
    assert any("12 rows sum to 1 up to rounding" in note for note in found.notes)


# --- what real files hold -----------------------------------------------------------------------------------------------


def told(found: Prepared, part: str) -> bool:
    return any(part in note for note in found.notes)


def fault_of(rows: Any, soft: Any = "votes", **keys: Any) -> str:
    """The message, its place and its remedy."""
    with pytest.raises(InputError) as caught:
        loaded(rows, soft, **keys)
    return f"{caught.value.where}: {caught.value.message}; {caught.value.remedy}"


def table(path: Path, **columns: list[Any]) -> Path:
    pd.DataFrame({"text": TEXTS, **{name: (cells * 12)[:12] for name, cells in columns.items()}}).to_csv(
        path, index=False
    )
    return path


def test_codes_that_get_one_name_are_added() -> None:
    names = {"data__label_names": {"0": "neg", "1": "neg", "2": "pos"}}
    votes = loaded(of([{"0": 3, "1": 2, "2": 4}] * 12), **names)
    assert np.allclose(matrix(votes, ["neg", "pos"]), [5 / 9, 4 / 9]) and told(votes, "9 votes a row")
    assert votes.splits.train.table["label"][0].as_py() == "neg"
    shares = loaded(of([{"0": 0.3, "1": 0.3, "2": 0.4}] * 12), **names)
    assert np.allclose(matrix(shares, ["neg", "pos"]), [0.6, 0.4])
    certain = loaded(of([{"0": 1, "1": 0, "2": 0}, {"0": 0, "1": 0, "2": 1}] * 6), **names)
    assert matrix(certain, ["neg", "pos"])[:2].tolist() == [[1, 0], [0, 1]]
    several = {**names, "data__problem_type": "multi_label_classification"}
    assert "makes one label of two" in fault_of(of([{"0": 0.3, "1": 0.9, "2": 0.4}] * 12), **several)


@pytest.mark.parametrize(
    "text", ['{"good": 3, "good": 1}', '[{"label": "good", "score": 1}, {"label": "good", "score": 0}]']
)
def test_a_label_that_stands_twice_is_refused(text: str, tmp_path: Path) -> None:
    plain = '{"good": 3, "bad": 1}'
    file = table(tmp_path / "a.csv", votes=[plain, plain, text, plain])
    assert f"{file}, row 3: column 'votes': 'good' appears twice" in fault_of(file)
    maps = pa.array(
        [[("a", 1.0), ("b", 1.0)]] * 11 + [[("a", 1.0), ("a", 2.0)]], pa.map_(pa.string(), pa.float64())
    )
    pq.write_table(pa.table({"text": TEXTS, "votes": maps}), tmp_path / "maps.parquet")
    assert "row 12: column 'votes': 'a' appears twice" in fault_of(tmp_path / "maps.parquet")


def test_a_label_that_is_skipped_is_no_vote(tmp_path: Path) -> None:
    skip = {"data__skip_labels": ["-"]}
    votes = loaded(of([{"good": 2, "bad": 1, "-": 1}, {"bad": 2, "-": 0}] * 6), **skip)
    assert votes.adapter.names == ["bad", "good"] and told(votes, "6 votes are left out, by data.skip_labels")
    assert np.allclose(matrix(votes)[:2], [[1 / 3, 2 / 3], [1, 0]]) and told(votes, "2 to 3 votes a row")
    shares = loaded(of([{"good": 0.5, "bad": 0.25, "-": 0.25}] * 12), **skip)
    assert np.allclose(matrix(shares), [1 / 3, 2 / 3]) and told(
        shares, "12 rows have a probability of data.skip_labels"
    )
    assert "rows have no label" in fault_of(of([{"good": 0, "-": 2}, {"good": 2, "-": 0}] * 6), **skip)
    several = {"data__problem_type": "multi_label_classification", **skip}
    lists = loaded(of([[["x"], ["-"]], [["x", "y"]]] * 6), **several)
    assert matrix(lists, ["x", "y"])[:2].tolist() == [[1, 0], [1, 1]]
    numbers = loaded(
        table(tmp_path / "a.csv", a=["3", "-"], b=["4"]), ["a", "b"], data__problem_type="regression", **skip
    )
    assert numbers.splits.train.table["label"].to_pylist()[:2] == [3.5, 4.0]


def test_an_empty_cell_is_no_vote_for_nothing(tmp_path: Path) -> None:
    keys = {"data__problem_type": "multi_label_classification", "data__label_delimiter": "|"}
    for name, full, one in (("a", "x|y", "x"), ("b", "['x', 'y']", "['x']")):
        found = loaded(table(tmp_path / f"{name}.csv", a=[full, None], b=[one]), ["a", "b"], **keys)
        assert matrix(found, ["x", "y"])[:2].tolist() == [[1, 0.5], [1, 0]] and told(
            found, "1 to 2 votes a row"
        )
        assert not told(found, "counts as no label")
    nothing = loaded(table(tmp_path / "c.csv", a=["[]"], b=["['x']"]), ["a", "b"], **keys)
    assert (matrix(nothing, ["x"]) == 0.5).all(), "a vote for none of them"


def test_whole_numbers_with_gaps_are_the_same_labels(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", a=[1, None, 0], b=[1, 0, 0], label=[1, 0, None])
    assert ",1.0,1,1.0" in file.read_text(encoding="utf-8"), "as pandas writes them"
    for names, keys in ((["0", "1"], {}), (["neg", "pos"], {"data__label_names": ["neg", "pos"]})):
        found = loaded(file, ["a", "b"], **keys)
        assert sorted(found.adapter.names) == names and matrix(found, names)[:2].tolist() == [[0, 1], [1, 0]]
        assert told(found, "0.0 is read as 0")
    assert loaded(of([{"1.0": 2, "0.0": 1}, {"1": 2, "0": 1}] * 6)).adapter.names == ["0", "1"]
    other = loaded(table(tmp_path / "b.csv", a=["1.0", "v2"], b=["1.0"]), ["a", "b"])
    assert other.adapter.names == ["1.0", "v2"], "names that only look like it"


def test_what_may_mean_no_vote_is_told(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", a=["good", "nan", "bad"], b=["good", "bad", "NA"])
    found = loaded(file, ["a", "b"])
    assert told(found, "no vote: 'NA', 'nan'; --set 'data.skip_labels=[\"NA\", \"nan\"]'")
    mended = loaded(file, ["a", "b"], data__skip_labels=["NA", "nan"])
    assert mended.adapter.names == ["bad", "good"] and not told(mended, "may mean no vote")


def test_sums_within_two_hundredths() -> None:
    found = loaded(of([{"a": 0.48, "b": 0.50}, {"a": 0.52, "b": 0.50}] * 6))
    assert np.allclose(matrix(found).sum(axis=1), 1) and told(found, "12 rows sum to 1 up to rounding")
    assert "sum to 1" in fault_of(of([{"a": 0.47, "b": 0.50}] * 12))


def test_a_row_where_nobody_voted() -> None:
    rows = of([{"good": 0, "bad": 0}, *[{"good": 2, "bad": 1}] * 11])
    assert (
        "1 rows have no label; give them a vote or a distribution in 'votes', or remove the rows"
        in fault_of(rows)
    )
    assert len(loaded(rows[1:]).splits.train) == 11, "the remedy works"
    own = [{**row, "label": "bad"} for row in rows]
    assert loaded(own).splits.train.table["soft"].null_count == 1, "and learns from its own label"
    assert "a label in 'label', or a vote" in fault_of([{**own[0], "label": None}, *own[1:]])
    assert "these are all 0; leave the row out" in fault_of(
        of([{"a": 0, "b": 0}, *[{"a": 0.5, "b": 0.5}] * 11])
    )


NO_SUMS = {
    "percents": ([{"good": 70.5, "bad": 29.5}, {"good": 70, "bad": 30}], 1, "percents are divided by 100"),
    "weights": ([{"good": 2.5, "bad": 0.5}], 1, "weighted votes as probabilities"),
    "the first alone": ([[{"label": "good", "score": 0.7}]], 1, "top_k=None"),
    "mixed": ([{"good": 3, "bad": 2}, {"good": 0.7, "bad": 0.3}], 2, "give votes in every row"),
    "several": ([{"good": 0.7, "bad": 0.7}], 1, "--multi-label"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_SUMS)
def test_each_fault_has_its_own_remedy(kind: str) -> None:
    rows, row, remedy = NO_SUMS[kind]
    message = fault_of(of((rows * 12)[:12]))
    assert f"row {row}: column 'votes' has {{\"good\": " in message and remedy in message
    assert ("--multi-label" in message) == (kind == "several")


def test_nan_in_a_list_is_no_vote(tmp_path: Path) -> None:
    nan = float("nan")
    number = {"data__problem_type": "regression"}
    for rows in (
        of([[4.0, nan]] * 12),
        table(tmp_path / "a.csv", votes=["[4, nan]"]),
        of([[4.0, None]] * 12),
    ):
        assert loaded(rows, **number).splits.train.table["label"].to_pylist() == [4.0] * 12
    names = table(tmp_path / "b.csv", votes=["['good' 'bad']", "['bad', nan]"])
    assert matrix(loaded(names), ["bad", "good"])[:2].tolist() == [[0.5, 0.5], [1, 0]]
    assert "row 12" in fault_of(of([*[[0.5, 0.5]] * 11, [0.5, nan]]), data__labels=["a", "b"])
    assert "no list of votes" in fault_of(table(tmp_path / "d.csv", votes=["array("]))
    columns = pa.table({"text": TEXTS, "a": [3.0, nan] * 6, "b": [4.0] * 12})
    pq.write_table(columns, tmp_path / "c.parquet")
    numbers = loaded(tmp_path / "c.parquet", ["a", "b"], **number).splits.train.table["label"]
    assert numbers.to_pylist()[:2] == [3.5, 4.0]


# --- what is told -------------------------------------------------------------------------------------------------------


def test_check_tells_of_ties_agreement_and_expected_counts() -> None:
    report = check("classification", train=of(VOTED), validation=of(VOTED), **{"data.soft": "votes"})
    found = {(finding.check, finding.set): finding for finding in report.findings}
    assert found["ties", "train"].count == 2, "a good and a bad vote"
    expected = dict(zip(NAMES, MATRIX.sum(axis=0), strict=True))
    counts = np.array([[votes.count(name) for name in NAMES] for votes in VOTED])
    assert report.sets["train"]["labels"] == pytest.approx({k: round(v, 1) for k, v in expected.items()})
    assert (
        f"alpha {alpha(counts):.3f} " in found["agreement", "train"].message
        and found["agreement", "train"].severity == "warning"
    )


# --- the loss -----------------------------------------------------------------------------------------------------------


def adapted(**keys: Any) -> tuple[Classification, Any]:
    """An adapter with its labels, and its rows."""
    found = loaded(of(SHARES), **keys)
    adapter = found.adapter
    adapter.prepare(found.splits.train)
    assert isinstance(adapter, Classification)
    return adapter, found.splits.train


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, {"好": 2.0, "坏": 0.5, "中": 1.0}, "balanced"])
def test_the_loss_is_torch_s(smoothing: float, weights: Any) -> None:
    adapter, rows = adapted(recipe__label_smoothing=smoothing, recipe__class_weights=weights)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.tensor(soft_labels.encoded(adapter, rows)["soft"])
    assert adapter.names == NAMES and np.allclose(soft, MATRIX)
    each = torch.tensor(adapter.class_weights if adapter.weights else np.ones(3)).float()
    if weights == "balanced":
        assert np.allclose(each, 12 / (3 * MATRIX.sum(0))), "of expected counts"
    expected = F.cross_entropy(logits, soft, weight=each, label_smoothing=smoothing, reduction="none")
    batch = {"labels": torch.tensor(adapter.references(rows)), "soft": soft}
    assert torch.allclose(adapter.loss(logits, batch), expected)
    hard = {"labels": batch["labels"], "soft": F.one_hot(batch["labels"], 3).float()}
    plain = {"labels": batch["labels"]}
    assert torch.allclose(adapter.loss(logits, hard), adapter.loss(logits, plain), atol=1e-6)


class Pieces:
    """A tokenizer that gives each text a token a letter."""


def test_weights_add_up_to_those_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row weighs in the mean is what its labels weigh, so that certain rows train as labels do."""
    from bert_ft.families import tokenization

    def encode(
        tokenizer: Any, texts: list[str], *_: Any, **__: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]:
        offsets = np.arange(len(texts) + 1)
        return offsets, {"input_ids": np.ones(len(texts), np.int32)}, {"rows": len(texts)}

    monkeypatch.setattr(tokenization, "encode", encode)
    adapter, rows = adapted(recipe__class_weights={"好": 2.0, "坏": 0.5, "中": 1.0})
    features = adapter.encode(rows, Pieces(), 8)
    assert isinstance(features, Features) and np.allclose(features.weights, MATRIX @ [1.0, 0.5, 2.0])
    several, rows = adapted(data__problem_type="multi_label_classification")
    features = several.encode(rows, Pieces(), 8)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    batch = {key: torch.tensor(column) for key, column in features.values.items()}
    expected = F.binary_cross_entropy_with_logits(
        logits, torch.tensor(MATRIX).float(), reduction="none"
    ).mean(1)
    assert torch.allclose(several.loss(logits, batch), expected)


def test_a_loss_of_one_s_own_is_not_passed_over() -> None:
    class Own(Classification):
        def loss(self, logits: Any, batch: Any) -> Any:
            return F.cross_entropy(logits, batch["labels"], reduction="none")

    class Knows(Own):
        soft_targets = True

        def loss(self, logits: Any, batch: Any) -> Any:
            return F.cross_entropy(logits, batch.get("soft", batch["labels"]), reduction="none")

    found = loaded(of(SHARES))
    for family in (Own, Knows):
        adapter = family(found.task, found.adapter.labels)
        if family is Knows:
            adapter.check("train", found.splits.train)
            continue
        with pytest.raises(InputError, match="the loss of Own is for one label a row"):
            adapter.check("train", found.splits.train)


# --- runs ---------------------------------------------------------------------------------------------------------------

FILMS = [(f"{text} {k}", "neg" if i % 2 else "pos") for k in range(3) for i, text in enumerate(SENTENCES)]
QUICK = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "eval_every": 6, "quiet": True,
         "max_length": 32, "log_every": 1, "warmup_ratio": 0.0, "check": False}  # fmt: skip


def losses(run: bert_ft.Run) -> list[float]:
    return [entry["loss"] for entry in run.log if "loss" in entry]


@pytest.mark.parametrize("method", [
    {"recipe.class_weights": "balanced", "gradient_accumulation_steps": 2}, pytest.param({}, marks=pytest.mark.slow),
    pytest.param({"method": "features"}, marks=pytest.mark.slow), pytest.param({"method": "contrastive"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_certain_rows_train_as_labels_do(
    method: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Also padding-free beside padded: the second is trained without."""
    hard = [{"text": text, "label": label} for text, label in FILMS[:30]]
    soft = [
        {"text": text, "p": {"pos": float(label == "pos"), "neg": float(label == "neg")}}
        for text, label in FILMS[:30]
    ]
    settings = QUICK | {"precision": "fp32"} | method  # what is padded is rounded otherwise in bfloat16
    if method.get("method") == "features":
        settings = {key: settings[key] for key in ("quiet", "check", "max_length", "method")}
    runs = [
        bert_ft.finetune("classification", tiny_checkpoint, train=rows, validation=hard, output=tmp_path / name,
                         **settings, **more)
        for name, rows, more in (("hard", hard, {}), ("soft", soft, {"data.soft": "p", "batching.unpad": False}))
    ]  # fmt: skip
    assert np.allclose(losses(runs[0]), losses(runs[1]), rtol=1e-4 if method else 1e-5)
    first, second = ([line["probabilities"]["pos"] for line in run.predictions()] for run in runs)
    assert np.allclose(first, second, atol=1e-3 if "method" in method else 1e-4)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_certain_rows_train_as_labels_do_with_dropout(
    precision: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The same masks of the same seed, and the loss taken of bfloat16 logits too."""
    hard = [{"text": text, "label": label} for text, label in FILMS[:30]]
    soft = [{"text": text, "p": {label: 1.0}} for text, label in FILMS[:30]]
    settings = QUICK | {"dropout": 0.3, "precision": precision, "label_smoothing": 0.1}
    first, second = (
        losses(bert_ft.finetune("classification", tiny_checkpoint, train=rows, validation=hard, output=tmp_path / name,
                                **settings, **more))
        for name, rows, more in (("hard", hard, {}), ("soft", soft, {"data.soft": "p"}))
    )  # fmt: skip
    assert np.allclose(first, second, rtol=1e-3 if precision == "bf16" else 1e-5)


def test_a_run_with_votes(
    tiny_checkpoint: Path, tmp_path: Path, cli: Cli, no_baselines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics, agreement, calibration and pages of a run, whose head has another order than its labels; then the two
    commands of a distillation."""
    monkeypatch.setattr(baselines, "measure", MEASURE)
    random = np.random.default_rng(0)
    voted = [
        random.choice(["pos", "neg"], 3, p=[0.8, 0.2] if label == "pos" else [0.2, 0.8]).tolist()
        for _, label in FILMS
    ]
    rows = [{"text": text, "votes": votes} for (text, _), votes in zip(FILMS * 6, voted * 6, strict=True)]
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, train=rows[:60], validation=rows[:216], output=tmp_path / "teacher",
        **QUICK | {"data.soft": "votes", "data.labels": ["pos", "neg"], "metric.best": "cross_entropy", "baselines": True},
    )  # fmt: skip
    metrics, lines = run.metrics["validation"], run.predictions()
    assert run.task.data.soft == ["votes"]
    target = np.array([[votes.count(name) / 3 for name in ("pos", "neg")] for votes in (voted * 6)[:216]])
    p = np.array([[line["probabilities"][name] for name in ("pos", "neg")] for line in lines])
    expected = float(F.cross_entropy(torch.tensor(p).log(), torch.tensor(target)))
    assert metrics["cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert metrics["expected_accuracy"] == pytest.approx(target[np.arange(216), p.argmax(1)].mean())
    majority = np.array([line["label"] for line in lines])
    assert (majority == np.where(target[:, 0] > 0.5, "pos", "neg")).all()
    assert metrics["accuracy"] == pytest.approx(
        np.mean([line["prediction"] == line["label"] for line in lines])
    )
    assert run.results["calibration"]["validation"]["before"]["nll"] > 0.5, (
        "against what was said, not its majority"
    )
    assert set(run.results["agreement"]["krippendorff_alpha"]) == {"train", "validation"}
    assert run.results["baselines"]["tf-idf"]["validation"]["cross_entropy"] > 0
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "agreement between annotators" in page
    assert run.evaluate(rows[:216], quiet=True)["validation"] == pytest.approx(metrics, abs=1e-6)
    # a checkpoint's head keeps its order, which is not that of names
    named = overrides.sets(rows[:60], rows[:60], None)
    task = overrides.bound(
        load_task("classification"), named, {"data.soft": "votes"}, checkpoint=str(run.path / "model")
    )
    again = prepare(task, Classification, overrides.objects(named))
    assert again.adapter.names == ["pos", "neg"]
    found = soft_labels.targets(again.adapter, again.splits.train)
    assert found is not None and np.allclose(found, target[:60])

    unlabelled = tmp_path / "unlabelled.csv"
    pd.DataFrame({"text": [text for text, _ in FILMS[:20]]}).to_csv(unlabelled, index=False)
    for kind in ("jsonl", "csv", "parquet"):
        told = cli("predict", run.path, unlabelled, "--probabilities", "-o", f"soft.{kind}")
        assert told.code == 0, told.err
        named = overrides.sets(tmp_path / f"soft.{kind}", tmp_path / f"soft.{kind}", None)
        task = overrides.bound(load_task("classification"), named, {"data.soft": "probabilities"})
        found = read(task, Classification)
        said = [answer["probabilities"]["pos"] for answer in run.predict([text for text, _ in FILMS[:20]])]
        assert np.allclose(matrix(found, ["pos"])[:, 0], said, atol=1e-6), kind
    pd.DataFrame(FILMS[:8], columns=["text", "label"]).to_csv(tmp_path / "dev.csv", index=False)
    told = cli("train", "classification", "--train", "soft.jsonl", "--validation", "dev.csv", "-c", tiny_checkpoint, "-o",
               "student", "--set", "soft=probabilities", "--max-steps", "2", "--no-check", "--json")  # fmt: skip
    assert told.code == 0, told.err
    assert "cross_entropy" not in json.loads(told.out)["metrics"]["validation"], "these have labels alone"
    told = cli("predict", run.path, unlabelled, "--probabilities", "--abstain-below", "0.9")
    assert told.code == 2 and "never left open" in told.err


@pytest.mark.slow
def test_folds_of_votes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "votes": [label, label, "pos"]} for text, label in FILMS]
    run = bert_ft.finetune(
        "classification", tiny_checkpoint, train=rows, output=tmp_path / "run", folds=3,
        **QUICK | {"data.soft": "votes"},
    )  # fmt: skip
    assert {"accuracy", "cross_entropy"} <= set(run.metrics["validation"])
    assert len(run.predictions("out_of_fold")) == len(rows)
