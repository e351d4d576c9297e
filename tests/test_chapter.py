"""docs/bert.md and its Chinese version: the code runs, both are the same chapter, and their numbers are those measured."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"\d+(?:\.\d+)?"
ENGLISH, CHINESE = ((DOCS / name).read_text(encoding="utf-8") for name in ("bert.md", "bert.zh-CN.md"))


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """docs/figures.py."""
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scope() -> dict[str, Any]:
    """The names that the chapter's blocks leave, run one after another."""
    names: dict[str, Any] = {}
    for language, code in FENCE.findall(ENGLISH):
        if language == "python":
            exec(compile(code, "bert.md", "exec"), names)
    return names


def test_both_languages_are_one_chapter() -> None:
    """Sections, code, pictures, links to the code and papers are the same, in the same order."""
    assert FENCE.findall(ENGLISH) == FENCE.findall(CHINESE)
    for pattern in (
        r"^(#+) ",
        r"\]\((figures/[^)\s]+)\)",
        r"^- (.* (?:19|20)\d\d\. .*)$",
        r"\]\((\.\./[^)\s]+)\)",
    ):
        found = [re.findall(pattern, FENCE.sub("", text), re.MULTILINE) for text in (ENGLISH, CHINESE)]
        assert found[0] == found[1] and len(found[0]) > 5


def test_the_chapters_wordpieces_are_the_tokenizers(
    scope: dict[str, Any], figures: ModuleType, minilm: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    words = set(re.findall(r"[a-z]+", " ".join(row["text"].lower() for row in figures.reviews("test"))))
    vocabulary = tokenizer.get_vocab()
    assert len(words) > 4000
    assert {w: scope["wordpieces"](w, vocabulary) for w in words} == {w: tokenizer.tokenize(w) for w in words}


def test_the_chapters_masking_is_berts(scope: dict[str, Any]) -> None:
    """80, 10 and 10 % of what is asked for; the rest goes in as it is, and special tokens are never asked for."""
    ids = np.random.default_rng(0).integers(1000, 2000, (400, 500))
    special = ids < 1100
    inputs, labels = scope["mask_tokens"](ids, special, 30522, 103, np.random.default_rng(1))
    asked = labels != -100
    assert (
        (labels[asked] == ids[asked]).all()
        and (inputs[~asked] == ids[~asked]).all()
        and not (asked & special).any()
    )
    shares = [(inputs == 103)[asked].mean(), (inputs == ids)[asked].mean()]
    assert asked[~special].mean() == pytest.approx(0.15, abs=0.005) and shares == pytest.approx(
        [0.8, 0.1], abs=0.01
    )


def test_the_numbers_are_those_measured(
    figures: ModuleType, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number of figures.md stands in both chapters; those that need no training are measured again."""
    kept = figures.committed()
    for name, (value, _) in kept.items():
        for number in re.findall(NUMBER, value):
            for text in (ENGLISH, CHINESE):
                assert number in re.findall(NUMBER, FENCE.sub("", text)), (name, value)
    monkeypatch.setattr(figures, "save", lambda *_: None)
    found = figures.measured()
    assert [name for name in kept if not name.startswith("accuracy at")] == list(found)
    for name, (value, conditions) in found.items():
        assert kept[name][1] == conditions
        for now, then in zip(re.findall(NUMBER, value), re.findall(NUMBER, kept[name][0]), strict=True):
            last_digit = 10.0 ** -len(then.partition(".")[2])
            assert float(now) == pytest.approx(float(then), abs=1.01 * last_digit), name


def test_the_figures_are_whole_and_small() -> None:
    pages = ENGLISH + (DOCS / "statistics.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\]\(figures/(\S+)\)", pages))
    assert used == {file.name for file in (DOCS / "figures").iterdir()}
    for name in used:
        text = (DOCS / "figures" / name).read_text(encoding="utf-8")
        assert (
            len(text) < 60_000 and "fill: #ffffff" not in text
        )  # no ground of their own: light and dark pages
