"""The head fitted to frozen features: scikit-learn's solutions, the mean of the tokens, plain models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

import bert_ft
from bert_ft.engine import contrastive, feature_cache, fitting, inference
from bert_ft.engine.problem import Problem
from bert_ft.engine.vectors import Vectors
from bert_ft.errors import InputError
from bert_ft.families.features import Features
from bert_ft.modeling import mean_layer
from tests import tiny_models

HEAD = SimpleNamespace(inputs={"text": True}, logits=lambda outputs: outputs.logits)
ROWS = [
    {"text": f"the {'warm' if i % 2 else 'dull'} film {i}", "label": "good" if i % 2 else "bad"}
    for i in range(24)
]


def _vectors(x: np.ndarray, outputs: int, **values: np.ndarray) -> Vectors:
    """Rows that an encoder has made these vectors of."""
    features = Features(
        np.arange(len(x) + 1), {"input_ids": np.zeros(len(x), np.int32)}, values, np.ones(len(x))
    )
    model = SimpleNamespace(
        tokenizer=SimpleNamespace(pad_token_id=0),
        adapter=SimpleNamespace(task=SimpleNamespace(run=SimpleNamespace(seed=0))),
    )
    head: Any = SimpleNamespace(module=torch.nn.Linear(x.shape[1], outputs), per_token=False)
    return Vectors(model, head, features, x.astype(np.float32))


def _data(n: int = 90, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d)) + 3
    return x, x @ random.normal(size=(d, 3)) + random.normal(size=(n, 3)) * 4


def _scaled(vectors: Vectors) -> np.ndarray:
    return ((vectors.flat - vectors.center) / vectors.scale).double().numpy()


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_solutions_are_those_of_scikit_learn(strength: float) -> None:
    """One label of three, several labels, and a number: on the same rows with the same penalty."""
    x, scores = _data()
    labels = scores.argmax(1)
    many = (scores > 0).astype(np.float32)

    def solved(outputs: int, loss: Callable[..., Any], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors = _vectors(x, outputs, labels=values)
        problem = Problem(vectors, vectors.whole, loss)
        problem.write(problem.solve(strength, problem.constant))
        with torch.no_grad():
            return vectors.module(vectors.flat).numpy(), _scaled(vectors)

    logits, scaled = solved(3, lambda z, b: F.cross_entropy(z, b["labels"], reduction="none"), labels)
    model = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(scaled, labels)
    expected = torch.from_numpy(model.predict_proba(scaled))
    assert torch.allclose(torch.from_numpy(logits).double().softmax(1), expected, atol=1e-3)

    logits, scaled = solved(
        3, lambda z, b: F.binary_cross_entropy_with_logits(z, b["labels"], reduction="none").sum(1), many
    )
    for k in range(3):
        one = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(scaled, many[:, k])
        assert np.allclose(logits[:, k], one.decision_function(scaled), atol=5e-3)

    numbers = scores[:, 0].astype(np.float32)
    logits, scaled = solved(1, lambda z, b: F.mse_loss(z.squeeze(-1), b["labels"], reduction="none"), numbers)
    ridge = Ridge(alpha=strength * len(x) / 2).fit(scaled, numbers)
    assert np.allclose(logits[:, 0], ridge.predict(scaled), atol=5e-3)


def test_the_strength_is_that_of_the_least_held_out_loss() -> None:
    """Of pure noise the strongest penalty; of what is certain a weak one; and each fold has its share of labels."""
    x, _ = _data(200)
    random = np.random.default_rng(1)

    def loss(z: Any, b: Any) -> Any:
        return F.cross_entropy(z, b["labels"], reduction="none")

    noise = _vectors(x, 2, labels=random.integers(2, size=len(x)))
    certain = _vectors(x, 3, labels=(x @ random.normal(size=(12, 3))).argmax(1))
    assert fitting.fit(noise, loss).strength > 30 * fitting.fit(certain, loss).strength
    labels = noise.features.values["labels"]
    shares = [labels[fitting.folds_of(noise) == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.03
    windows = _vectors(x, 2, labels=labels, row=np.arange(len(x)) // 4)
    folds = fitting.folds_of(windows).reshape(-1, 4)
    assert (folds == folds[:, :1]).all()


@pytest.mark.parametrize(
    "name", ["Bert", "Roberta", "DistilBert", "Electra", "Camembert", "Ernie", "ModernBert", "Albert"]
)
def test_the_head_reads_the_mean(name: str) -> None:
    """What goes into the last linear layer is the mean of the tokens, centred and scaled; ALBERT's layers
    share their weights, and stay as they were."""
    network = tiny_models.build(name).eval()
    inputs = tiny_models.batch([7, 3, 12, 1])
    before = network.base_model(**inputs)[0].detach()
    layers = network.config.num_hidden_layers
    mean_layer.add(network, HEAD)
    assert mean_layer.add(network, HEAD) is not None  # a second time nothing changes
    if name == "Albert":
        assert network.config.num_hidden_layers == layers
        return
    assert network.config.num_hidden_layers == layers + (name != "ModernBert")
    taken = []
    head = mean_layer.LastLinear(network, HEAD)
    with torch.no_grad(), head.read():
        taken = head.logits(network(**inputs))
    if name == "ModernBert":  # its head has a norm of its own
        assert network.config.classifier_pooling == "mean"
        return
    mask = inputs["attention_mask"][..., None]
    means = (before * mask).sum(1) / mask.sum(1)
    with torch.no_grad(), head.read():  # in half precision too: nothing in the layer is too large for it
        half = head.logits(network.half()(**inputs)).float()
    for vector, rounded, mean in zip(taken, half, means, strict=True):
        assert float(torch.corrcoef(torch.stack([vector, mean]))[0, 1]) > 0.999
        assert float(torch.corrcoef(torch.stack([rounded, mean]))[0, 1]) > 0.99


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERT_FT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_cache, "VECTORS", 1)
    return tmp_path


def _train(folder: Path, checkpoint: Path, family: str = "classification", **settings: Any) -> bert_ft.Run:
    rows = settings.pop("rows", ROWS)
    settings = {"method": "features", "max_length": 24, "quiet": True} | settings
    return bert_ft.finetune(
        family, checkpoint, train=rows, validation=rows, output=folder, overwrite=True, **settings
    )


def test_a_run_is_a_plain_model(cache: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain transformers gives the run's probabilities; the encoder is that of the checkpoint; a second run
    takes the features from the cache and ends with the same weights; a padded one too, to rounding."""
    run = _train(cache / "run", tiny_checkpoint)
    assert run.results["steps"] == 1
    assert run.results["metrics"]["validation"]["accuracy"] > 0.9
    network = tf.AutoModelForSequenceClassification.from_pretrained(run.path / "model").eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(run.path / "model")
    lines = [
        json.loads(line) for line in (run.path / "predictions/validation.jsonl").read_text().splitlines()
    ]
    for row, line in zip(ROWS[:6], lines, strict=False):
        with torch.no_grad():
            found = network(**tokenizer(row["text"], return_tensors="pt")).logits[0].softmax(0)
        assert line["probabilities"]["good"] == pytest.approx(
            float(found[network.config.label2id["good"]]), abs=1e-5
        )
    checkpoint = tf.AutoModel.from_pretrained(tiny_checkpoint).state_dict()
    state = network.base_model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in checkpoint.items() if "pooler" not in key)

    calls = []
    plain = inference.predict
    monkeypatch.setattr(inference, "predict", lambda *a, **k: calls.append(1) or plain(*a, **k))
    again = _train(cache / "again", tiny_checkpoint)
    assert len(calls) == 1  # the evaluation
    assert (again.path / "model/model.safetensors").read_bytes() == (
        run.path / "model/model.safetensors"
    ).read_bytes()
    padded = _train(cache / "padded", tiny_checkpoint, unpad=False, first_token=False)
    other = tf.AutoModelForSequenceClassification.from_pretrained(padded.path / "model")
    assert torch.allclose(other.classifier.weight, network.classifier.weight, rtol=1e-2, atol=1e-3)


def test_all_families_and_kinds_of_labels(cache: Path, tiny_checkpoint: Path) -> None:
    """Words, several labels, numbers, pairs, windows and class weights go through the same fit."""
    words = [{"tokens": row["text"].split(), "tags": ["O", "B-X", "O", "O"]} for row in ROWS]
    assert (
        _train(cache / "ner", tiny_checkpoint, "ner", rows=words).results["metrics"]["validation"]["f1"] > 0.9
    )
    kinds: dict[str, dict[str, Any]] = {
        "several": {
            "rows": [row | {"label": [row["label"], "film"][: 1 + i % 2]} for i, row in enumerate(ROWS)],
            "problem_type": "multi_label_classification",
        },
        "numbers": {
            "rows": [row | {"label": float(len(row["text"]))} for row in ROWS],
            "problem_type": "regression",
        },
        "windows": {"windows": True, "stride": 2, "max_length": 6},
        "weights": {"class_weights": "balanced"},
        "pairs": {"rows": [row | {"text_pair": "so it is"} for row in ROWS]},
    }
    for name, kind in kinds.items():
        run = _train(cache / name, tiny_checkpoint, **kind)
        assert run.predict("the warm film 3")[0] if name != "pairs" else True
    context = "the warm film is long and the dull one is short"
    questions = [
        {
            "id": str(i),
            "question": "what is long?",
            "context": context,
            "answers": {"text": ["film"], "answer_start": [9]},
        }
        for i in range(12)
    ]
    answers = _train(cache / "qa", tiny_checkpoint, "qa", rows=questions, max_length=48)
    assert answers.results["metrics"]["validation"]["exact_match"] == 100


def test_numbers_of_any_size_are_fitted_alike() -> None:
    """Targets a million times as large, or as small, give as much larger, or smaller, predictions; equal ones give
    exactly that number."""
    x, scores = _data()

    def fitted(targets: np.ndarray) -> np.ndarray:
        vectors = _vectors(x, 1, labels=targets.astype(np.float32))
        fitting.fit(vectors, lambda z, b: F.mse_loss(z.squeeze(-1), b["labels"], reduction="none"))
        with torch.no_grad():
            return vectors.module(vectors.flat)[:, 0].double().numpy()

    expected = fitted(scores[:, 0])
    assert np.corrcoef(expected, scores[:, 0])[0, 1] > 0.9
    for size in (1e-6, 1e6):
        assert np.allclose(fitted(scores[:, 0] * size) / size, expected, rtol=2e-2, atol=0.2)
    shifted = fitted(scores[:, 0] + 2000) - 2000
    assert np.allclose(shifted, expected, rtol=2e-2, atol=0.2)
    assert (fitted(np.full(len(x), 3.0)) == 3).all()


def test_one_row_is_fitted(cache: Path, tiny_checkpoint: Path) -> None:
    """Of which nothing can be held out; the run says what its predictions are worth."""
    for method in ("features", "contrastive"):
        run = _train(cache / method, tiny_checkpoint, method=method, limit_train=1)
        assert set(run.results["metrics"]["validation"]) == {"accuracy"}


def test_the_layer_goes_where_each_token_is_read(cache: Path, tiny_checkpoint: Path) -> None:
    """A run of features as the checkpoint of a tagger: all its tokens would be alike behind the layer, so it is
    left out, and told; the words' vectors of `embed` too. With other labels the new dense layer is straight again."""
    base = _train(cache / "base", tiny_checkpoint)
    words = [{"tokens": row["text"].split(), "tags": ["O", "B-X", "O", "O"]} for row in ROWS]
    for method in ("features", "fine-tuning"):
        run = _train(
            cache / method, base.path, "ner", rows=words, method=method, max_steps=60, learning_rate=1e-2
        )
        assert run.results["metrics"]["validation"]["f1"] > 0.9
        assert run.model.network.config.num_hidden_layers == 2
        assert any("is left out: here each token is read" in note for note in run.results["notes"])
    [found] = bert_ft.Embedder.load(base.path).words(["the warm film"])
    [expected] = bert_ft.Embedder.load(tiny_checkpoint).words(["the warm film"])
    assert np.allclose(found.vectors, expected.vectors, atol=1e-5)
    three = [row | {"label": f"{row['label']}-{i % 3 == 0}"} for i, row in enumerate(ROWS)]
    again = _train(cache / "three", base.path, rows=three)
    assert again.model.network.config.num_hidden_layers == 3
    dense = again.model.network.bert.pooler.dense
    assert torch.equal(dense.weight, torch.eye(32) * 2**-6) and not dense.bias.any()


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=7), seed=st.integers(0, 9))
def test_pairs_equal_a_loop_over_all_of_them(labels: list[int], seed: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(labels), 5)))
    same, other = [], []
    for i in range(len(labels)):
        for j in range(i):
            cosine = float(F.cosine_similarity(vectors[i], vectors[j], dim=0))
            alike = labels[i] == labels[j]
            (same if alike else other).append((cosine - alike) ** 2)
    expected = np.mean([np.mean(kind) for kind in (same, other) if kind]) if same or other else 0.0
    found = contrastive.of_pairs(vectors, {"labels": torch.tensor(labels)})
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_contrastive_training_draws_labels_together(cache: Path, tiny_checkpoint: Path) -> None:
    """After it rows of one label are nearer to each other than they were; the head that is kept was fitted to
    the encoder that is kept."""
    run = _train(
        cache / "run",
        tiny_checkpoint,
        method="contrastive",
        max_steps=12,
        batch_size=8,
        learning_rate=1e-3,
        keep="last",
    )
    assert not feature_cache.kept(), "nobody asks for the vectors of a passing encoder again"
    before = _train(cache / "before", tiny_checkpoint)

    def apart(of: bert_ft.Run) -> float:
        vectors = bert_ft.embed(of.path, [row["text"] for row in ROWS], normalize=True)
        cosines = vectors @ vectors.T
        label = np.array([row["label"] == "good" for row in ROWS])
        same = label[:, None] == label
        return float(cosines[same].mean() - cosines[~same].mean())

    assert apart(run) > 2 * apart(before)
    model = run.model
    features = model.encode(model.adapter.rows([row["text"] for row in ROWS]))
    weight = model.network.classifier.weight.detach().clone()
    features.values["labels"] = np.array([model.adapter.labels.index(row["label"]) for row in ROWS])
    fitting.fit(Vectors.of(model, features), model.adapter.loss)
    assert torch.allclose(model.network.classifier.weight, weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("classification", {"freeze": "encoder"}, "freeze is not for the method"),
        ("classification", {"lora": {"rank": 2}}, "lora is not for the method"),
        ("ner", {"method": "contrastive"}, "needs a label for each row"),
        ("numbers", {"method": "contrastive", "problem_type": "regression"}, "these rows have numbers"),
        ("classification", {"method": "contrastive", "gradient_accumulation_steps": 2}, "in parts"),
        ("classification", {"method": "contrastive", "equal_lengths": True}, "in parts"),
        ("classification", {"method": "contrastive", "batch_size": 1}, "no pairs"),
        ("classification", {"method": "contrastive", "freeze": "encoder"}, "nothing to learn from pairs"),
    ],
)
def test_what_a_method_can_not_be(
    cache: Path, tiny_checkpoint: Path, family: str, settings: dict[str, Any], message: str
) -> None:
    rows: list[dict[str, Any]] = ROWS
    if family == "ner":
        rows = [{"tokens": row["text"].split(), "tags": ["O", "B-X", "O", "O"]} for row in ROWS]
    elif "equal_lengths" in settings:
        rows = [row | {"text": row["text"] + " so" * (i % 3)} for i, row in enumerate(ROWS)]
    elif family == "numbers":
        family, rows = "classification", [row | {"label": float(len(row["text"]))} for row in ROWS]
    with pytest.raises(InputError, match=message):
        _train(cache / "run", tiny_checkpoint, family, rows=rows, **settings)


def test_a_search_of_steps_is_refused(cache: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="takes no steps, so all these recipes would be one"):
        bert_ft.search(
            "classification",
            tiny_checkpoint,
            train=ROWS,
            validation=ROWS,
            method="features",
            output=cache / "search",
        )


def test_the_report_shows_the_penalties(cache: Path, tiny_checkpoint: Path) -> None:
    """In the place of curves over steps, of which there are none."""
    run = _train(cache / "run", tiny_checkpoint)
    [tried] = [line["held_out"] for line in run.log if "held_out" in line]
    assert [each["penalty"] for each in tried] == sorted((each["penalty"] for each in tried), reverse=True)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "loss of held-out rows by penalty: " in page and " by step: " not in page
