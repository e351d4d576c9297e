"""Schemes and spans: whatever the tags' scheme or the spans' form, the entities stay the same."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bert_ft.errors import InputError
from bert_ft.families.ner import schemes, words
from bert_ft.families.words import split

Entities = list[tuple[str, int, int]]
KINDS = ("PER", "creative-work")


def written(entities: Entities, length: int, scheme: str) -> list[str]:
    """The tags of entities (type, first, last) in a scheme, by its definition."""
    out = ["O"] * length
    for number, (kind, first, last) in enumerate(entities):
        before = entities[number - 1] if number else None
        meets = before is not None and before[0] == kind and before[2] == first - 1
        inner, end = {"BILOU": ("I", "L"), "BMES": ("M", "E"), "BIOES": ("I", "E")}.get(scheme, ("I", "I"))
        alone = {
            "BILOU": "U",
            "BMES": "S",
            "BIOES": "S",
            "IOB2": "B",
            "IOB1": "B" if meets else "I",
            "IO": "I",
        }[scheme]
        start = {"IOB1": "B" if meets else "I", "IO": "I"}.get(scheme, "B")
        letters = [alone] if first == last else [start, *[inner] * (last - first - 1), end]
        out[first : last + 1] = [f"{letter}-{kind}" for letter in letters]
    return out


@st.composite
def sentences(draw: Any, apart: int = 0) -> tuple[Entities, int]:
    entities, at = [], 0
    for kind, gap, size in draw(
        st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(1, 3)), max_size=5)
    ):
        first = at + max(gap, apart)
        entities.append((kind, first, first + size - 1))
        at = first + size
    return entities, at + draw(st.integers(0, 2))


def read(lists: list[list[str]], scheme: str = "auto") -> tuple[list[list[str]], str, list[int]]:
    got, found, wrong = schemes.to_iob2(pa.array(lists, pa.list_(pa.string())), scheme, lambda k: f"word {k}")
    return got.to_pylist(), found, wrong


@pytest.mark.parametrize("scheme", ["IO", "IOB1", "IOB2", "BIOES", "BMES", "BILOU"])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_entities_stay_the_same(scheme: str, data: Any) -> None:
    rows = data.draw(st.lists(sentences(apart=scheme == "IO"), min_size=1, max_size=6))
    got, _, wrong = read([written(entities, length, scheme) for entities, length in rows])
    assert [get_entities(tag_list) for tag_list in got] == [entities for entities, _ in rows]
    assert all(
        tag_list == written(entities, length, "IOB2")
        for tag_list, (entities, length) in zip(got, rows, strict=True)
    )
    assert wrong == []
    full = [*rows, ([("PER", 0, 2), ("PER", 3, 3)], 4)] if scheme != "IO" else rows  # says what the scheme is
    if any(entities for entities, _ in full):
        assert read([written(*row, scheme) for row in full])[1] == {"BMES": "BIOES"}.get(scheme, scheme)


def test_what_breaks_a_scheme_is_found() -> None:
    assert read([["O", "I-PER"], ["B-PER", "I-LOC"], ["B-PER", "O"]], "IOB2")[2] == [1, 3]
    assert read([["B-PER", "I-PER"], ["I-PER", "B-PER"]], "IOB1")[2] == [0]
    # an entity that the sentence cuts off, one that nothing ends, and an end of nothing
    assert read([["B-PER"], ["B-PER", "O"], ["E-PER", "S-PER"]])[1:] == ("BIOES", [0, 2, 3])
    assert read([["I-PER", "O"], ["B-LOC", "I-LOC"]])[:2] == ([["B-PER", "O"], ["B-LOC", "I-LOC"]], "IOB2")
    assert read([["O"], []]) == ([["O"], []], "", [])
    assert read([["PER", "PER", "LOC"]])[:2] == ([["B-PER", "I-PER", "B-LOC"]], "IO")
    with pytest.raises(InputError, match="word 1: tag 'PER' has no prefix"):
        read([["B-PER", "PER"]])
    with pytest.raises(InputError, match="word 2: tag 'S-PER' is none of IOB2"):
        read([["B-PER", "O", "S-PER"]], "IOB2")


@pytest.mark.parametrize("names", [["O", "B-A", "I-A", "B-C", "I-C"], ["O", "B-A", "I-A", "E-A", "S-A"]])
def test_viterbi_is_the_best_of_all_valid_sequences(names: list[str]) -> None:
    """By enumeration: the highest sum of scores among the sequences that are read without a fault."""
    chance = np.random.default_rng(0)
    scheme = "BIOES" if "S-A" in names else "IOB2"
    lengths = [0, 3, 1, 4, 0, 2]
    scores = chance.normal(size=(sum(lengths), len(names))) * 2
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    got = schemes.viterbi(scores, offsets, names)
    for start, end in itertools.pairwise(offsets.tolist()):
        if start < end:
            every = [p for p in itertools.product(range(len(names)), repeat=end - start)
                     if not read([[names[k] for k in p]], scheme)[2]]  # fmt: skip
            best = max(every, key=lambda p: sum(scores[start + i, k] for i, k in enumerate(p)))
            assert got[start:end].tolist() == list(best)
    assert schemes.viterbi(np.zeros((0, 5)), np.zeros(3, np.int64), names).tolist() == []


TEXTS = ["Anna met Bob in New York.", "日本の東京 and Köln\u200b!", "שלום עולם 😀 hi", " \t x", ""]


ANY = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x1c\x1d\x1e\x1f"), max_size=30
)  # see str.isspace


@given(st.lists(ANY | st.sampled_from(TEXTS), min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_spans_come_back_from_the_words(texts: list[str], chance: random.Random) -> None:
    """Any spans that do not overlap and hold more than white space: those that are whole words come back, the
    others are missed, and the words are those without spans."""
    spans = []
    for text in texts:
        edges = sorted(chance.sample(range(len(text) + 1), min(len(text) + 1, 6)))
        pairs = list(zip(edges[::2], edges[1::2], strict=False))
        spans.append([(a, b, chance.choice(KINDS)) for a, b in pairs if split([text[a:b]]).words])
    tagged, _, findings = words.tag(texts, spans, str)
    found = tagged.words
    assert found.words == split(texts).words
    for row, (text, marks) in enumerate(zip(texts, spans, strict=True)):
        part = slice(*found.offsets[row : row + 2])
        limits = list(zip(found.starts[part].tolist(), found.ends[part].tolist(), strict=True))
        assert [text[a:b] for a, b in limits] == found.words[part]
        assert all(a < b for a, b in limits) and all(b <= c for (_, b), (c, _) in itertools.pairwise(limits))
        assert not "".join(text[b:c] for b, c in zip([0, *[b for _, b in limits]], [*[a for a, _ in limits], len(text)],
                                                     strict=True)).strip()  # fmt: skip
        entities = [
            (limits[a][0], limits[b][1], kind) for kind, a, b in get_entities(tagged.tags[part].tolist())
        ]
        bare = [
            (b - len(text[a:b].lstrip()), a + len(text[a:b].rstrip()), kind) for a, b, kind in sorted(marks)
        ]
        starts, ends = ({limit[side] for limit in limits} for side in (0, 1))
        whole = [mark for mark in bare if mark[0] in starts and mark[1] in ends]
        assert entities == whole
        assert tagged.missed[row] == [mark[2] for mark in bare if mark not in whole]
    assert sum(map(len, tagged.missed)) == sum(finding.count for finding in findings)


def test_overlaps_and_faults() -> None:
    text = "the Bank of England rose"
    tagged, notes, findings = words.tag(
        [text], [[(4, 8, "A"), (4, 19, "B"), (4, 19, "B")]], lambda row: f"row {row + 1}"
    )
    assert tagged.tags.tolist() == ["O", "B-B", "I-B", "I-B", "O"] == tagged.learned.tolist()
    assert (
        notes == ["1 spans overlap a longer or equal one and are left out; the first: row 1"] and not findings
    )
    tagged, notes, findings = words.tag(["iPhone13 x"], [[(0, 6, "A")]], lambda row: f"row {row + 1}")
    assert tagged.words.words == ["iPhone13", "x"] and tagged.missed == [["A"]]
    assert tagged.tags.tolist() == ["O", "O"] and tagged.learned.tolist() == ["B-A", "O"]
    assert [(each.severity, each.count, each.places) for each in findings] == [("warning", 1, ["row 1"])]
    for span, message in {(4, 99, "A"): "outside the text of 24", (5, 5, "A"): "outside", (-1, 3, "A"): "outside",
                          (3, 4, "A"): "holds no word"}.items():  # fmt: skip
        with pytest.raises(InputError, match=f"row 1: the span .*{message}"):
            words.tag([text], [[span]], lambda row: f"row {row + 1}")
