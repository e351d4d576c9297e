"""`bert-ft reproduce` of a frozen encoder: what is measured, how it is judged, and two published numbers, measured again."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_ft
from bert_ft.config import catalog, frozen
from bert_ft.config.frozen import FrozenReference, Measure
from bert_ft.errors import InputError
from bert_ft.tools.reproduce.frozen import measures, verdict
from tests.conftest import ROOT, SENTENCES

Cli = Callable[..., Any]
MEAN = {"pooling": "mean", "normalize": True, "max_length": 64}


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each_draw", ["reset", "continue"])
def test_draws_row_by_row(each_draw: Any) -> None:
    """Against a walk over the rows; a label with fewer rows gives all it has."""
    labels = np.random.default_rng(0).choice(4, 300, p=[0.5, 0.3, 0.19, 0.01])
    measure = Measure(measure="probe", rows_per_label=8, draws=4, random_state=5, each_draw=each_draw)
    np.random.seed(5)
    order = list(range(300))
    for drawn in measures.draws(labels, measure):
        if each_draw == "reset":
            np.random.seed(5)
        np.random.shuffle(order)
        taken: dict[int, int] = {}
        rows = []
        for row in order:
            taken[labels[row]] = taken.get(labels[row], 0) + 1
            if taken[labels[row]] <= 8:
                rows.append(row)
        assert drawn.tolist() == rows and len(rows) < 32


def test_similarities() -> None:
    """Against numpy, by ranks; vectors without a spread have no correlation."""
    rng = np.random.default_rng(0)
    left, right, scores = rng.normal(size=(40, 5)), rng.normal(size=(40, 5)), rng.integers(0, 6, 40) / 1.0
    found = measures.similarity(left, right, scores)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    expected = {
        "cosine": (left * right).sum(1) / norms,
        "euclidean": -np.linalg.norm(left - right, axis=1),
        "manhattan": -abs(left - right).sum(1),
    }

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < v).sum() + (values == v).sum() / 2 for v in values])

    for name, nearness in expected.items():
        assert found[f"{name}_pearson"] == pytest.approx(np.corrcoef(nearness, scores)[0, 1])
        assert found[f"{name}_spearman"] == pytest.approx(np.corrcoef(ranks(nearness), ranks(scores))[0, 1])
    assert tuple(found) == frozen.SIMILARITIES
    assert all(map(math.isnan, measures.similarity(left, left, scores * 0).values()))


# --- the verdict ------------------------------------------------------------------------------------------------------

TEN = [45.05, 37.1, 36.2, 42.2, 40.2, 40.8, 43.15, 40.2, 41.65, 41.75]
FLIPPED = [TEN[0] - 0.05, *TEN[1:]]  # one of 2,000 rows


def published(value: float, draws: list[float] | None = None, **more: Any) -> FrozenReference:
    tree = {"checkpoint": "org/tiny-bert", "split": "test", "metric": "accuracy", "value": value, "source": "S",
            "statistic": "mean", "confidence": "C", "vectors": MEAN, "draws": draws or [], **more}  # fmt: skip
    return FrozenReference.model_validate(tree)


@pytest.mark.parametrize(("number", "values", "margin", "word", "why"), [
    (published(82.03247283), [82.03246731], 1e-4, "reproduced", "-5.5e-06 points, within 0.0001"),
    (published(82.03247283), [82.03230], 1e-4, "below", "one value: -0.0001728 points"),
    (published(82.03247283), [82.6], 1e-4, "above", r"one value: \+0.5675"),
    (published(82.03247283), [82.6], 1.0, "reproduced", ""),
    (published(82.03), [82.0346], 1e-4, "reproduced", "within 0.005 points"),
    (published(82.03), [82.0351], 1e-4, "above", ""),
    (published(40.83, TEN), TEN, 1e-4, "reproduced", "each of 10 draws is the published one, to 0.005"),
    (published(40.83, TEN), FLIPPED, 1e-4, "inconclusive", "1 of 10 draws differ .* interval -0.01631 to "),
    (published(40.83, TEN), FLIPPED, 0.05, "reproduced", "each of 10 draws"),
    (published(40.83, TEN), [v - 8 - k / 9 for k, v in enumerate(TEN)], 1e-4, "below", "10 of 10 draws differ"),
    (published(40.83, TEN), [*TEN[:9], math.nan], 1e-4, "inconclusive", "undefined in 1 of 10"),
    (published(40.83, TEN[:2]), [1.0, 2.0], 1e-4, "inconclusive", "too few draws"),
    (published(40.83, runs=10), TEN, 1e-4, "reproduced", "within 0.005 points"),
    (published(40.83, runs=10), [v - 8 for v in TEN], 1e-4, "below", "mean of 10 draws: -8 points"),
])  # fmt: skip
def test_verdict(number: FrozenReference, values: list[float], margin: float, word: str, why: str) -> None:
    found = verdict.judge(number, values, margin)
    assert found.verdict == word and re.search(why, found.why[0]), found


# --- from a file to a verdict -----------------------------------------------------------------------------------------

PROBE = """
[data]
train = "train.csv"
evaluate = "validation.csv"

[metric]
compute = ["accuracy", "f1_macro"]

[frozen]
measure = "probe"
rows_per_label = 4
draws = 3
"""
PAIRS = """
[data]
train = ""
evaluate = ""
test = "pairs.csv"
columns = { text = "a", text_pair = "b", label = "score" }
problem_type = "regression"

[frozen]
measure = "similarity"
"""


def references(path: Path, *numbers: FrozenReference) -> None:
    import tomli_w

    tree = {"reference": [number.model_dump(exclude_none=True) for number in numbers]}
    path.with_suffix(".references.toml").write_text(tomli_w.dumps(tree))


def test_a_probe_of_one_s_own(cli: Cli, reviews: Path, tiny_checkpoint: Path) -> None:
    """Two files are a new measurement: reproduced with its own conditions, not with others, and "not comparable" where
    the call changes one."""
    from sklearn.linear_model import LogisticRegression

    path = reviews / "own.toml"
    path.write_text(PROBE)
    train = [(f"{text}{more}", i % 2) for more in ("", " indeed") for i, text in enumerate(SENTENCES)]
    vectors = bert_ft.embed(tiny_checkpoint, [text for text, _ in train], pooling="mean", normalize=True)
    labels, order, draws = np.array([label for _, label in train]), np.arange(24), []
    for _ in range(3):
        np.random.RandomState(42).shuffle(order)
        rows = np.concatenate([order[labels[order] == label][:4] for label in (0, 1)])
        fitted = LogisticRegression(random_state=42).fit(vectors[rows], labels[rows])
        draws.append(100 * float((fitted.predict(vectors[:12]) == labels[:12]).mean()))
    number = published(float(np.mean(draws)), draws, split="validation", runs=3)
    references(path, number)
    words = ["reproduce", path, "--checkpoint", tiny_checkpoint, "--output", "out"]
    done = cli(*words, "--json")
    assert done.code == 0, done.err
    results = json.loads(done.out)
    assert [found["verdict"] for found in results["verdicts"]] == ["reproduced"], results
    assert results["metrics"]["validation"]["accuracy"]["values"] == pytest.approx(draws)
    assert results == json.loads(Path("out/results.json").read_text())
    page, table = Path("out/page.html").read_text(), Path("out/table.md").read_text()
    assert "A dot for every draw" in page and "pooling" in page and "draw by draw" in table

    references(
        path, number.model_copy(update={"vectors": number.vectors.model_copy(update={"pooling": "max"})})
    )
    spoiled = cli(*words)
    assert (
        spoiled.code == 0
        and "reproduced" not in spoiled.out
        and "draws differ from the published" in spoiled.out
    )
    changed = cli(*words, "--set", "pooling=max", "--set", "draws=2", "--set", "max_length=64")
    assert "vectors.pooling" not in changed.out and "frozen.draws: 3 published, 2 here" in changed.out
    references(path, number)
    changed = cli(*words, "--set", "pooling=cls")
    assert "not comparable" in changed.out and "vectors.pooling: mean published, cls here" in changed.out


def test_similarity_of_one_s_own(tmp_path: Path, tiny_checkpoint: Path, csv: Any) -> None:
    """Another checkpoint's number is told apart; one that is asked for by its source is not comparable."""
    rows = [(a, b, k % 6) for k, (a, b) in enumerate(itertools.pairwise(SENTENCES))]
    csv("pairs.csv", [("a", "b", "score"), *rows])
    path = tmp_path / "pairs.toml"
    path.write_text(PAIRS)
    other = published(50.0, metric="cosine_pearson", checkpoint="org/other", statistic="single run")
    references(path, other)
    place = {"output": tmp_path / "out", "quiet": True}
    found = bert_ft.reproduce(path, tiny_checkpoint, **place)
    left, right = (bert_ft.embed(tiny_checkpoint, [row[k] for row in rows]) for k in (0, 1))
    expected = measures.similarity(left, right, np.array([row[2] for row in rows]))
    assert found.scores["test"] == {name: [pytest.approx(100 * v)] for name, v in expected.items()}
    assert {row["verdict"] for row in found.table} == {"no published number"} and found.verdicts == []
    asked = bert_ft.reproduce(path, tiny_checkpoint, reference="S", **place)
    assert "<table" in asked._repr_html_() and "<html" not in asked._repr_html_()
    assert asked.verdicts[0]["why"] == ["checkpoint: other published, tiny-bert here"]


NUMBER = '[[reference]]\ncheckpoint = "x"\nsplit = "validation"\nvalue = 1.0\nstatistic = "mean"\n' \
    'confidence = "C"\nsource = "s"\nmetric = "{}"\n'  # fmt: skip
VECTORS = 'vectors = { pooling = "mean", normalize = true, max_length = 64 }\n'


@pytest.mark.parametrize(("text", "message"), [
    (PROBE.partition("[frozen]")[0], "the table [frozen] is missing, which says what is measured"),
    (PROBE.replace("probe", "prob"), "[frozen]: measure = 'prob': Input should be"),
    (PROBE + "draw = 3", "[frozen]: unknown key 'draw'\n  did you mean 'draws'?"),
    (PROBE + "[recipe]\nepochs = 3", "a frozen encoder is not trained, so [recipe] has no meaning here"),
    (PROBE.replace("probe", "similarity"), "[frozen]: draws is for a probe"),
    (PAIRS.replace("regression", "single_label_classification"), "similarity is of pairs of texts"),
    (PAIRS.replace("similarity", "probe"), "a probe is of single texts that have one label each"),
    (PROBE.replace('"validation.csv"', '""'), "no set of rows is measured"),
    (PROBE.replace('"train.csv"', '""'), "a probe needs training rows"),
    (PROBE.replace("[metric]", "limit_train = 5\n[metric]"), "a measurement draws its own rows"),
    (PROBE + NUMBER.format("accuracy"), "reference 1: vectors is missing"),
    (PROBE + NUMBER.format("acuracy") + VECTORS, "'acuracy' is no metric of this measurement\n  did you mean"),
    (PROBE + NUMBER.format("accuracy") + VECTORS + "draws = [1.0]", "1 draws, but the measurement has 3"),
    (PROBE + NUMBER.format("accuracy") + VECTORS + "runs = 9", "9 runs, but the measurement has 3 draws"),
])  # fmt: skip
def test_faults_of_a_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        frozen.load(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(("words", "message"), [
    (["--data-dir", "."], "no 'stsbenchmark/sts-test.csv' and no 'stsb-test/sts-test.csv' and no 'sts-test.csv'"),
    (["--seeds", "3"], "--seeds: a frozen encoder is measured, and nothing is trained"),
    (["--plan"], "--plan: a frozen encoder is measured by this command itself"),
    (["--set", "learning_rate=1e-3"], "recipe.learning_rate: a frozen encoder is not trained"),
    (["--intermediate", "mnli"], "run.intermediate: a frozen encoder is not trained"),
    (["--set", "poling=cls"], "unknown key 'poling'"),
    (["--reference", "nobody"], "no published number whose source holds 'nobody'"),
])  # fmt: skip
def test_faults_of_a_call(cli: Cli, words: list[str], message: str) -> None:
    done = cli("reproduce", "stsbenchmark", "--checkpoint", "org/x", *words)
    assert done.code == 2 and message in done.err and not Path("runs").exists(), done.err


def test_rows_and_settings_that_can_not_be(cli: Cli, reviews: Path, tiny_checkpoint: Path) -> None:
    """A pooling that is none, a length that the checkpoint has not, a set without labels, labels of few rows."""
    path = reviews / "own.toml"
    path.write_text(PROBE + NUMBER.format("accuracy").replace('"x"', f'"{tiny_checkpoint.name}"') + VECTORS)
    words = ["reproduce", path, "--checkpoint", tiny_checkpoint, "--set"]
    assert "pooling: 'men' is not known\n  did you mean 'mean'?" in cli(*words, "pooling=men").err
    assert "max_length = 999, but the checkpoint has 128" in cli(*words, "max_length=999").err
    few = cli(*words, "rows_per_label=13", "--json")
    assert json.loads(few.out)["notes"] == [
        "labels with fewer than 13 training rows, all of which are in every draw: 'neg' 12, 'pos' 12"
    ]
    (reviews / "validation.csv").write_text("text,label\nfine,\n")
    path.write_text(PROBE.replace("evaluate", 'evaluate = "train.csv"\ntest'))
    assert "the set 'test' has no labels to be scored by" in cli(*words, "draws=2").err
    path.write_text(PROBE.replace("evaluate", 'evaluate = ""\ntest'))
    assert "validation.csv, row 1: 1 rows have no label" in cli(*words, "draws=2").err


# --- built-in ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(catalog.frozen()))
def test_builtin(cli: Cli, name: str) -> None:
    """Each says how it is run, is listed, shown, copied, and trained by nobody."""
    text = catalog.frozen()[name].read_text(encoding="utf-8")
    assert text.startswith(f"# bert-ft reproduce {name} --checkpoint ")
    own = frozen.load(name)
    assert own.references and own.task.title
    assert {number.split for number in own.references} <= {
        *own.task.data.evaluation_sets,
        *own.task.data.test_sets,
    }
    assert re.search(rf"{name} +frozen {own.measure.measure}", cli("tasks").out)
    assert cli("tasks", "show", name).out.count("[[reference]]") == len(own.references)
    assert cli("tasks", "copy", name).code == 0
    copied = frozen.load(f"{name}.toml")
    assert (copied.measure, copied.references) == (own.measure, own.references)
    refused = cli("train", name, "--checkpoint", "org/x")
    assert refused.code == 2 and f"bert-ft reproduce {name} --checkpoint CHECKPOINT" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalog.frozen()))
def test_a_published_number(name: str, minilm: Path, shared_data: Path, tmp_path: Path) -> None:
    """MTEB's results of this very checkpoint: STSBenchmark to 1e-6, EmotionClassification draw by draw."""
    call = {"data_dir": shared_data, "output": tmp_path / "out", "quiet": True}
    found = bert_ft.reproduce(name, minilm, **call)
    assert {each["verdict"] for each in found.verdicts} == {"reproduced"}, found.notes
    if name == "stsbenchmark":
        assert found.scores["test"]["cosine_spearman"] == [pytest.approx(82.03247283, abs=1e-4)]
    else:
        assert found.scores["test"]["accuracy"] == pytest.approx(TEN, abs=1e-9)


@pytest.mark.slow
def test_a_spoiled_pooling_is_below(cli: Cli, minilm: Path, shared_data: Path) -> None:
    """The file says cls, the number was had with the mean."""
    assert cli("tasks", "copy", "stsbenchmark").code == 0
    beside = Path("stsbenchmark.references.toml")
    beside.write_text(beside.read_text().replace('pooling = "mean"', 'pooling = "cls"'))
    found = bert_ft.reproduce("stsbenchmark.toml", minilm, data_dir=shared_data, output="out", quiet=True)
    assert {each["verdict"] for each in found.verdicts} == {"below"}, found.notes


def test_the_example_of_the_guide(tmp_path: Path) -> None:
    """The file that docs/reproducing.md shows reads as the built-in one does."""
    guide = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(guide.partition('title="emotion_probe.toml"\n')[2].partition("```")[0])
    found, own = frozen.load(path), frozen.load("emotion_classification")
    assert found.measure == own.measure
    assert found.references[0].draws == own.references[0].draws == TEN
    assert found.references[0].vectors == own.references[0].vectors
