"""Entity scores against seqeval on random tags in every scheme, invalid sequences included, and by hand."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import scheme as schemes
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score

from bert_ft import metrics
from bert_ft.errors import InputError
from bert_ft.metrics import entities

PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
OURS = {"IOBES": "BIOES"}  # the same scheme by its other name


def generated(scheme: str, sentences: int, seed: int) -> list[list[str]]:
    """Random tags: mostly entities of two types side by side, so that every pair of neighbours comes up."""
    chance = random.Random(seed)
    tags = ["O", *[f"{prefix}-{kind}" for prefix in PREFIXES[scheme] for kind in ("PER", "creative-work")]]
    return [chance.choices(tags, k=chance.randint(0, 9)) for _ in range(sentences)]


def ours(gold: Any, found: Any, **options: Any) -> dict[str, dict[str, float]]:
    (g, p), offsets, names = entities.flat(gold, found)
    return entities.score(g, p, offsets, names, **options)


def assert_equal(mine: dict[str, dict[str, float]], gold: Any, found: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        micro = [
            f(gold, found, zero_division=0, **options) for f in (precision_score, recall_score, f1_score)
        ]
        report = (
            {}
            if len(gold) > 99
            else classification_report(gold, found, output_dict=True, zero_division=0, **options)
        )
    assert [mine[""][key] for key in ("precision", "recall", "f1")] == pytest.approx(micro)
    assert mine[""]["accuracy"] == pytest.approx(accuracy_score(gold, found))
    if not report:  # slow, and the small sets have it
        return
    kinds = {name: row for name, row in report.items() if not name.endswith(" avg")}
    assert mine.keys() - {""} == kinds.keys()
    for name, row in kinds.items():
        theirs = [row["precision"], row["recall"], row["f1-score"], row["support"]]
        assert [mine[name][key] for key in ("precision", "recall", "f1", "number")] == pytest.approx(theirs)


QUICK = ("IOB2", "BILOU")


@pytest.mark.parametrize(
    "scheme", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PREFIXES]
)
def test_equals_seqeval(scheme: str) -> None:
    """10,000 sentences a scheme: all together, and in small sets, where one entity more or less shows."""
    gold, noise = generated(scheme, 10_000, 0), random.Random(1)
    tags = sorted({tag for sentence in gold for tag in sentence})
    found = [[noise.choice(tags) if noise.random() < 0.3 else tag for tag in sentence] for sentence in gold]
    strict = {"mode": "strict", "scheme": getattr(schemes, scheme)}
    for start in [*range(0, 120, 4), None]:
        g, p = (gold, found) if start is None else (gold[start : start + 4], found[start : start + 4])
        if sum(map(len, g)):
            assert_equal(ours(g, p), g, p)
            assert_equal(ours(g, p, mode="seqeval-strict", scheme=OURS.get(scheme, scheme)), g, p, **strict)


@pytest.mark.parametrize(("gold", "found", "expected"), [
    # worked by hand with conlleval.pl's startOfChunk and endOfChunk, E and S as in seqeval: (gold, predicted, both)
    ("I-PER I-PER O I-LOC", "I-PER I-PER O I-LOC", (2, 2, 2)),  # IO
    ("I-PER I-PER O I-LOC", "I-PER O O I-LOC", (2, 2, 1)),
    ("I-PER I-LOC I-LOC", "I-PER I-PER I-LOC", (2, 2, 0)),
    ("I-PER B-PER I-PER", "I-PER I-PER I-PER", (2, 1, 0)),  # IOB1
    ("O I-PER", "O B-PER", (1, 1, 1)),  # where an entity starts, I and B are the same
    ("B-PER M-PER E-PER S-PER", "B-PER M-PER E-PER S-PER", (2, 2, 2)),  # BMES
    ("B-PER E-PER S-LOC S-LOC", "B-PER E-PER S-LOC O", (3, 2, 2)),
    ("B-PER E-PER B-PER E-PER", "B-PER M-PER M-PER E-PER", (2, 1, 0)),
    ("S-PER O", "B-PER O", (1, 1, 1)),
    ("PER PER O LOC", "I-PER I-PER O I-LOC", (2, 2, 2)),  # bare types are IO
])  # fmt: skip
def test_conlleval_by_hand(gold: str, found: str, expected: tuple[int, int, int]) -> None:
    result = ours([gold.split()], [found.split()])[""]
    number, guessed, right = expected
    assert result["number"] == number
    assert (result["precision"], result["recall"]) == pytest.approx((right / guessed, right / number))


@pytest.mark.parametrize(("tags", "by_seqeval"), [
    ("S-A S-A", 2), ("B-A E-A B-A E-A", 2), ("U-A U-A", 1), ("B-A L-A B-A L-A", 1), ("B-A L-A O B-A L-A", 2),
])  # fmt: skip
def test_raw_letters_are_counted_as_seqeval_does(tags: str, by_seqeval: int) -> None:
    """What tasks/ner/README.md says; conlleval.pl counts one each, but for the last."""
    from seqeval.metrics.sequence_labeling import get_entities

    assert ours([tags.split()], [tags.split()])[""]["number"] == len(get_entities(tags.split())) == by_seqeval


def test_gold_entities_that_no_tags_express_are_missed() -> None:
    (gold, found), offsets, names = entities.flat([["B-A", "O"]], [["B-A", "O"]])
    for mode in entities.MODES:
        result = entities.score(gold, found, offsets, names, mode, missed=["A", "A", "C"])
        assert result[""] | {"accuracy": 1.0} == result[""] and result[""]["number"] == 4
        assert result[""]["recall"] == 0.25 and result[""]["precision"] == 1 and result["A"]["number"] == 3
        assert result["C"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1}


def test_a_scheme_reads_letters_that_conlleval_does_not_know() -> None:
    gold, found = [["U-PER", "U-PER", "B-PER", "L-PER"]], [["U-PER", "O", "B-PER", "L-PER"]]
    assert ours(gold, found, scheme="BILOU")[""]["number"] == 3
    assert ours(gold, found, scheme="BILOU")[""]["recall"] == pytest.approx(2 / 3)


@given(st.lists(st.lists(st.tuples(*[st.sampled_from(["O", "B-A", "I-A", "B-C", "I-C"])] * 2), max_size=7), min_size=1,
                max_size=6))  # fmt: skip
@settings(deadline=None)
def test_partial_overlap_is_its_definition(pairs: list[list[tuple[str, str]]]) -> None:
    """By brute force over seqeval's entities: one of the same type and sentence with a word in common."""
    from seqeval.metrics.sequence_labeling import get_entities

    gold, found = ([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))
    g, p = (
        {(n, *entity) for n, tags in enumerate(side) for entity in get_entities(tags)}
        for side in (gold, found)
    )

    def meet(a: Any, b: Any) -> bool:
        return a[:2] == b[:2] and a[2] <= b[3] and b[2] <= a[3]

    result = ours(gold, found, mode="partial-overlap")[""]
    assert result["recall"] == pytest.approx(sum(any(meet(a, b) for b in p) for a in g) / max(1, len(g)))
    assert result["precision"] == pytest.approx(sum(any(meet(a, b) for a in g) for b in p) / max(1, len(p)))


def test_the_metric_has_the_hubs_keys() -> None:
    metric = metrics.load("entities", mode="conlleval")
    metric.add_batch(predictions=[["B-PER", "I-PER"]], references=[["B-PER", "I-PER"]])
    metric.add_batch(predictions=[["O"], []], references=[["B-LOC"], []])
    result = metric.compute()
    assert result == {
        "overall_precision": 1.0, "overall_recall": 0.5, "overall_f1": pytest.approx(2 / 3),
        "overall_accuracy": pytest.approx(2 / 3),
        "LOC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1},
        "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1},
    }  # fmt: skip
    assert metrics.load("entities", mode="seqeval-strict").compute(
        predictions=[["I-PER"]], references=[["B-PER"]]
    )["overall_f1"] == 0.0  # fmt: skip


def test_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'seqeval-strict'"):
        ours([["O"]], [["O"]], mode="seqeval")
    with pytest.raises(ValueError, match="of equal lengths"):
        ours([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="tag 'S-PER' is not in the scheme IOB2"):
        ours([["S-PER"]], [["O"]], mode="seqeval-strict", scheme="IOB2")
