"""Baselines of a run against hand-worked answers and scikit-learn's own pipelines, on real rows."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

import bert_ft
from bert_ft import baselines
from bert_ft.baselines import Baselines
from bert_ft.finetuning.experiment import Experiment

MEASURE = baselines.measure  # before the fixture of all tests takes it away
FILMS = [
    ("a warm film", "good"),
    ("warm and brave", "good"),
    ("a dull plot", "bad"),
    ("warm", "good"),
    ("dull", "bad"),
]


@pytest.fixture(autouse=True)
def with_baselines(no_baselines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "measure", MEASURE)


def measured(family: str, checkpoint: Any, train: Any, validation: Any, **settings: Any) -> Baselines:
    """What the baselines reach on rows."""
    experiment = Experiment.create(family, checkpoint, output="/nowhere/run", train=train, validation=validation,
                                   settings=settings)  # fmt: skip
    return experiment.prepare().baselines


def rows(pairs: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in pairs]


def tsv(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_films(glue: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SST-2: the same as scikit-learn's pipelines on the texts; and well above the majority."""
    monkeypatch.setattr(baselines, "FORWARDED", 0)
    train = [(text, label) for text, label in tsv(glue / "SST-2" / "train.tsv")[1:3001]]
    dev = [(text, label) for text, label in tsv(glue / "SST-2" / "dev.tsv")[1:]]
    found = measured("classification", tiny_checkpoint, rows(train), rows(dev)).scores
    texts, labels = zip(*train, strict=True)
    scored, gold = zip(*dev, strict=True)
    plain = make_pipeline(
        TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10),
    ).fit(texts, labels)
    majority = DummyClassifier().fit(texts, labels)
    assert set(found) == {"majority", "tf-idf"}
    assert found["tf-idf"]["validation"]["accuracy"] == pytest.approx(plain.score(scored, gold), abs=0.003)
    assert found["tf-idf"]["validation"]["accuracy"] > 0.7
    assert found["majority"]["validation"]["accuracy"] == majority.score(scored, gold)


def test_chinese_is_no_single_word(shared_data: Path, tiny_checkpoint: Path) -> None:
    """A Chinese sentence has no spaces: taken as one word, its review would be told from nothing."""
    lines = {part: tsv(shared_data / "chnsenticorp_zh" / f"{part}.tsv") for part in ("train", "dev")}
    train, dev = (rows((text, label) for text, label in lines[part]) for part in ("train", "dev"))
    found = measured("classification", tiny_checkpoint, train[:1500], dev[:400]).scores
    plain = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10)
    )
    plain.fit([row["text"] for row in train[:1500]], [row["label"] for row in train[:1500]])
    reached = plain.score([row["text"] for row in dev[:400]], [row["label"] for row in dev[:400]])
    assert found["tf-idf"]["validation"]["accuracy"] > reached - 0.03
    assert found["tf-idf"]["validation"]["accuracy"] > found["majority"]["validation"]["accuracy"] + 0.2


def test_pairs_and_numbers(glue: Path, tiny_checkpoint: Path) -> None:
    """STS-B: the mean, and ridge regression of both texts; a frozen encoder of both, too."""
    lines = tsv(glue / "STS-B" / "train.tsv")[1:401]
    table = [{"text": line[7], "text_pair": line[8], "label": float(line[9])} for line in lines]
    found = measured("classification", tiny_checkpoint, table[:300], table[300:], problem_type="regression",
                     **{"metric.compute": ["mean_squared_error", "pearson"], "metric.best": "mean_squared_error",
                        "data.columns": {"text": "text", "text_pair": "text_pair", "label": "label"}})  # fmt: skip
    gold = np.array([row["label"] for row in table])
    mean_squared = float(np.mean((gold[300:] - gold[:300].mean()) ** 2))
    assert found.scores["majority"]["validation"]["mean_squared_error"] == pytest.approx(mean_squared)
    assert set(found.scores) == {"majority", "tf-idf", "frozen encoder"}
    both = [[row[key] for row in table] for key in ("text", "text_pair")]
    vectorizers = [
        TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True) for _ in both
    ]
    columns = [
        v.fit(texts[:300]).transform(texts).toarray() for v, texts in zip(vectorizers, both, strict=True)
    ]
    matrix = np.concatenate(columns, axis=1)
    expected = Ridge(alpha=1.0).fit(matrix[:300], gold[:300]).predict(matrix[300:])
    error = float(np.mean((gold[300:] - expected) ** 2))
    assert found.scores["tf-idf"]["validation"]["mean_squared_error"] == pytest.approx(error, rel=1e-4)
    # lower is better: a run above the best of them does not beat it
    best = min(sets["validation"]["mean_squared_error"] for sets in found.scores.values())
    assert found.unbeaten(
        "validation", "mean_squared_error", {"validation": {"mean_squared_error": best + 0.1}}
    )
    assert not found.unbeaten(
        "validation", "mean_squared_error", {"validation": {"mean_squared_error": best - 0.1}}
    )


def test_several_labels(tiny_checkpoint: Path) -> None:
    """A label that no training row has, one that all have, and thresholds that are tuned as the run's are."""
    train = [{"text": text, "label": ["film", label]} for text, label in FILMS * 4]
    found = measured("classification", tiny_checkpoint, train, train, problem_type="multi_label_classification",
                     **{"data.labels": ["film", "good", "bad", "never"], "metric.compute": ["f1_micro", "accuracy"]})  # fmt: skip
    assert found.scores["tf-idf"]["validation"] == {"f1_micro": 1.0, "accuracy": 1.0}
    assert found.scores["majority"]["validation"]["accuracy"] == 0.6


def test_labels_that_training_lacks(tiny_checkpoint: Path) -> None:
    for texts in (FILMS[:2], [*FILMS[:1], *FILMS[2:3]]):
        found = measured("classification", tiny_checkpoint, rows(texts), rows(FILMS),
                         **{"data.labels": ["worse", "good", "bad"], "metric.compute": ["accuracy"]})  # fmt: skip
        assert set(found.scores) == {"majority", "tf-idf", "frozen encoder"}
        assert all(0.3 < sets["validation"]["accuracy"] <= 1 for sets in found.scores.values())


def test_tags(shared_data: Path, tiny_checkpoint: Path) -> None:
    """WNUT: each word the tag that it had most often, worked out here anew and scored by seqeval."""
    from seqeval.metrics import f1_score as of_entities

    def sentences(file: Path) -> list[list[tuple[str, str]]]:
        blocks = file.read_text(encoding="utf-8").strip().replace("\t\n", "\n").split("\n\n")
        lines = [[line.split("\t") for line in block.splitlines() if "\t" in line] for block in blocks]
        return [[(word, tag) for word, tag in line] for line in lines if line]

    train = sentences(shared_data / "wnut17" / "wnut17train.conll")
    dev = sentences(shared_data / "wnut17" / "emerging.dev.conll")
    counts: dict[str, Counter[str]] = {}
    for word, tag in (pair for sentence in train for pair in sentence):
        counts.setdefault(word, Counter())[tag] += 1
    answers = [
        [counts[word].most_common(1)[0][0] if word in counts else "O" for word, _ in line] for line in dev
    ]
    table = [
        [{"tokens": [word for word, _ in line], "tags": [tag for _, tag in line]} for line in part]
        for part in (train, dev)
    ]
    found = measured("ner", tiny_checkpoint, *table).scores["most frequent tag"]["validation"]
    assert found["f1"] == pytest.approx(
        of_entities([[tag for _, tag in line] for line in dev], answers), abs=0.002
    )
    assert found["f1"] > 0.05


def test_a_run_tells_them(tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before training and after it, in the results, the report and the card; a test set without labels has none."""
    table = rows(FILMS * 4)
    run = bert_ft.finetune("classification", tiny_checkpoint, train=table, validation=table, max_steps=1, learning_rate=1e-9,
                           test=[{"text": "a film"}], output=tmp_path / "run", **{"metric.compute": ["accuracy", "f1_macro"]})  # fmt: skip
    gold = ["good" if label == "good" else "bad" for _, label in FILMS * 4]
    assert run.results["baselines"]["majority"] == {
        "validation": {
            "accuracy": accuracy_score(gold, ["good"] * 20),
            "f1_macro": f1_score(gold, ["good"] * 20, average="macro"),
        }
    }
    assert run.results["baselines"]["tf-idf"]["validation"]["accuracy"] == 1.0
    assert run.results["baseline_rows"] == 20
    told = capfd.readouterr()
    assert (
        "baselines fitted to 20 training rows: validation accuracy majority 0.6000, tf-idf 1.0000"
        in told.out + told.err
    )
    [note] = [note for note in run.results["notes"] if "baseline" in note]
    assert (
        note.startswith("this run does not beat its baseline: validation accuracy is 0.")
        and "1.0000 with tf-idf" in note
    )
    assert "tf-idf" in (run.path / "report.html").read_text()
    assert (
        "Beside it tf-idf, fitted to 20 of the training rows: validation accuracy 1.0000"
        in (run.path / "model" / "README.md").read_text()
    )


def test_none(cli: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(FILMS)))
    done = cli("train", "classification", "--train", file, "--validation", file, "-c", tiny_checkpoint, "--max-steps", "1",
               "-o", tmp_path / "run", "--no-baselines")  # fmt: skip
    assert done.code == 0 and "baseline" not in done.out + done.err
    assert "baselines" not in json.loads((tmp_path / "run" / "results.json").read_text())


def test_a_family_without_any_says_nothing(
    tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Mine(bert_ft.Classification):
        pass

    rows = [{"text": text, "label": label} for text, label in FILMS]
    bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, adapter=Mine, max_steps=1,
                     output=tmp_path / "run")  # fmt: skip
    told = capfd.readouterr().err
    assert "step 1/1" in told and "\n\n" not in told and "baselines" not in told


def test_texts_without_a_word(tiny_checkpoint: Path) -> None:
    """Empty texts leave tf-idf nothing to learn from: it is left out, and a pair's other text is enough."""
    empty = [{"text": "", "label": label} for _, label in FILMS]
    found = measured("classification", tiny_checkpoint, empty, empty)
    assert "majority" in found.scores and "tf-idf" not in found.scores
    columns = {"data.columns": {"text": "text", "text_pair": "text_pair", "label": "label"}}
    pairs = [{"text": text, "text_pair": " ", "label": label} for text, label in FILMS]
    found = measured("classification", tiny_checkpoint, pairs, pairs, **columns)
    assert found.scores["tf-idf"]["validation"]["accuracy"] == 1.0
    numbers = [{"text": text, "label": float(i)} for i, (text, _) in enumerate(FILMS)]
    found = measured("classification", tiny_checkpoint, numbers, numbers, problem_type="regression")
    assert "majority undefined" in found.line("validation", "pearson")


@pytest.mark.slow
def test_ten_thousand_rows_take_seconds(glue: Path, tiny_checkpoint: Path) -> None:
    """CPU seconds, the reading of the rows not among them."""
    experiment = Experiment.create("sst2", tiny_checkpoint, output="/nowhere/run",
                                   settings={"data_dir": str(glue), "limit_train": 10_000})  # fmt: skip
    prepared = experiment.prepare()
    start = time.process_time()
    found = prepared.baselines
    assert time.process_time() - start < 3 and set(found.scores) == {"majority", "tf-idf"}
