"""Each sentence on security names the tests that hold it, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("SECURITY.md", "docs/security.md", "docs/security.zh-CN.md")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises(page: str) -> list[str]:
    return [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("- ")]


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("page", PAGES)
def test_each_sentence_names_tests_that_exist(page: str) -> None:
    lines = promises(page)
    assert len(lines) >= 10
    for line in lines:
        named = TEST.findall(line)
        assert named, line
        for file, name in named:
            assert name in names_in(file), f"{file}::{name}, of: {line}"


def test_both_languages_promise_the_same() -> None:
    english, chinese = ([TEST.findall(line) for line in promises(page)] for page in PAGES[1:])
    assert english == chinese
    short = [TEST.findall(line) for line in promises("SECURITY.md")]
    assert short[: len(short) // 2] == short[len(short) // 2 :]
    assert all(named in english for named in short)
