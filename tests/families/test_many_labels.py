"""Labels by the hundred: files and memory grow with what is said, and nothing that matters is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bert_ft
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families import linear, listing
from bert_ft.finetuning import results
from bert_ft.metrics import bootstrap, scoring
from bert_ft.pages import run_page
from bert_ft.tools.predict import files
from bert_ft.tools.predict.caution import Caution

LABELS = 150
WORDS = ["a", "the", "film", "actor", "scene", "music", "plot", "slow", "warm", "river", "bank", "night"]


def _rows(each: int) -> list[dict[str, str]]:
    random = np.random.default_rng(0)
    return [
        {"text": f"{' '.join(random.choice(WORDS, 4))} {i}", "label": f"intent {i % LABELS}"}
        for i in range(each * LABELS)
    ]


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    return bert_ft.finetune("classification", str(tiny_checkpoint), train=_rows(5), validation=_rows(1)[:80], max_steps=2,
                            max_length=24, output=tmp_path_factory.mktemp("many") / "run", quiet=True)  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_what_is_left_out_is_smaller_than_all_that_is_listed(several: bool) -> None:
    random = np.random.default_rng(1)
    names = [f"l{i}" for i in range(400)]
    values = random.dirichlet(np.full(400, 0.05), 50)
    if several:
        values[:3] = random.uniform(0.4, 1, (3, 400))  # more than a hundred above 0.5
        found = values > 0.9
        gold: list[Any] = [[names[i] for i in random.integers(400, size=3)] for _ in range(50)]
    else:
        found = values.argmax(axis=1)
        gold = [names[i] for i in random.integers(400, size=50)]
    lines = list(listing.lines(names, names, {"prediction": found, "probabilities": values}, gold))
    assert [line["label"] for line in lines] == gold
    for line, row, own in zip(lines, values, gold, strict=True):
        listed = line["probabilities"]
        assert listed == {name: row[names.index(name)] for name in listed}  # to the bit, in whatever order
        left = [p for name, p in zip(names, row, strict=True) if name not in listed]
        needed = {*(own if several else [own]), *(line["prediction"] if several else [line["prediction"]])}
        needed |= {name for name, p in zip(names, row, strict=True) if p > 0.5}
        assert needed <= listed.keys()
        assert len(listed) >= listing.MOST
        largest = sorted(row, reverse=True)[: listing.MOST]
        assert set(largest) <= set(listed.values())
        assert max(left) <= min(largest)
        assert len(listed) <= len(needed | {n for n, p in zip(names, row, strict=True) if p >= min(largest)})
        assert listing.of_all(listed, names) == [listed.get(name, 0.0) for name in names]


def test_up_to_a_hundred_labels_all_are_listed() -> None:
    names = [f"l{i}" for i in range(listing.MOST)]
    values = np.random.default_rng(0).dirichlet(np.ones(len(names)), 5)
    lines = listing.lines(
        names, names, {"prediction": values.argmax(1), "probabilities": values}, [None, *names[:4]]
    )
    assert [list(line["probabilities"].values()) for line in lines] == values.tolist()
    with pytest.raises(KeyError):  # a damaged file is not read as zeros
        listing.of_all({"l0": 1.0}, names)


def test_a_run_lists_a_hundred_and_its_page_stands(run: bert_ft.Run) -> None:
    lines = run.predictions("validation")
    assert {len(line["probabilities"]) for line in lines} <= {listing.MOST, listing.MOST + 1}
    assert all(line["label"] in line["probabilities"] for line in lines)
    assert "the 20 most frequent of 150 labels" in (run.path / "report.html").read_text()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_answers_of_a_file_are_those_of_the_model(run: bert_ft.Run, tmp_path: Path, suffix: str) -> None:
    texts = [row["text"] for row in _rows(1)[:30]]
    source = tmp_path / "in.txt"
    source.write_text("\n".join(texts) + "\n")
    out = tmp_path / f"out.{suffix}"
    files.predict(run.model, str(source), str(out))
    if suffix == "jsonl":
        said = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        import pandas as pd

        said = (pq.read_table(out) if suffix == "parquet" else pd.read_csv(out).to_dict("records"))  # fmt: skip
        said = said.to_pylist() if suffix == "parquet" else said
        assert len(said[0]) == 3  # text, prediction, probabilities
        said = [{**row, "probabilities": json.loads(row["probabilities"])} for row in said]
    for row, answer in zip(said, run.predict(texts), strict=True):
        assert row["prediction"] == answer["prediction"]
        assert row["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)
        assert len(row["probabilities"]) == listing.MOST


def test_probabilities_to_learn_from_are_whole(run: bert_ft.Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "soft.jsonl"
    source.write_text("a warm film\nthe night river\n")
    files.predict(run.model, str(source), str(out), probabilities=True)
    for line in out.read_text().splitlines():
        shares = json.loads(line)["probabilities"]
        assert len(shares) == LABELS
        assert sum(shares.values()) == pytest.approx(1)


def test_sets_that_would_need_what_is_not_listed_are_refused(run: bert_ft.Run) -> None:
    with pytest.raises(InputError, match="too many of 150"):
        Caution.of(run, None, 0.9)


def test_intervals_of_many_labels_in_a_second_and_little_memory() -> None:
    """5,000 labels: a dense row of each kind would take 800 MB, and half a minute."""
    import tracemalloc

    random = np.random.default_rng(0)
    keys = np.stack([random.integers(5000, size=1000)] * 2, axis=1)
    keys[:300, 1] = random.integers(5000, size=300)
    tracemalloc.start()
    counted = bootstrap.Resamples(keys, scoring.Classes([str(i) for i in range(5000)], 1))
    found = counted.intervals()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6
    assert counted.of()["accuracy"] == pytest.approx((keys[:, 0] == keys[:, 1]).mean())
    assert isinstance(found["accuracy"], bootstrap.Interval)


def test_the_nearest_mean_is_that_of_sklearn() -> None:
    """Where there are too many labels to fit: scikit-learn's NearestCentroid of rows and means of length 1."""
    from sklearn.neighbors import NearestCentroid
    from sklearn.preprocessing import normalize

    random = np.random.default_rng(0)
    classes = random.permutation(np.arange(300) % 60)
    matrix = normalize(random.normal(size=(300, 20)) + np.eye(60)[classes][:, :20])
    rows = random.normal(size=(50, 20))
    means = linear._means(matrix, classes)
    found = linear._nearest(means, rows, np.arange(60) * 2, 120)
    reference = NearestCentroid().fit(matrix, classes)
    reference.centroids_ = normalize(reference.centroids_)
    assert (found.argmax(1) == 2 * reference.predict(normalize(rows))).all()


def test_a_baseline_of_many_labels_takes_no_fit(run: bert_ft.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.linear_model

    def fitted(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a linear model was fitted")

    adapter = run.model.adapter
    rows = _rows(3)
    table = {
        "text": [f"{row['text']} {row['label']}" for row in rows],
        "label": [row["label"] for row in rows],
    }
    train = Rows(pa.table(table), "here")
    monkeypatch.setattr(linear, "VERY_LARGE", 1000)
    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", fitted)
    (answers,) = linear.tfidf(adapter, train, [train], lambda texts: np.zeros((len(texts), 1)))
    assert adapter.score(answers, train)["accuracy"] > 0.9


def test_a_run_that_ends_in_its_report_is_finished(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill there left a finished run unfinished, for good where it was the report that took too much."""

    def train() -> bert_ft.Run:
        return bert_ft.finetune("classification", str(tiny_checkpoint), train=_rows(1)[:40], validation=_rows(1)[:8],
                                max_steps=2, max_length=24, output=tmp_path / "run", quiet=True)  # fmt: skip

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_page, "leave", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    folder = tmp_path / "run"
    before = (folder / "results.json").read_bytes()
    assert not (folder / "report.html").exists()
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_results", killed)  # nothing is trained again
        train()
    assert (folder / "report.html").is_file()
    assert (folder / "model" / "README.md").is_file()
    assert not list(folder.glob("checkpoints/*"))
    assert (folder / "results.json").read_bytes() == before
