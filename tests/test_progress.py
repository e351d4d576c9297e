"""Long work tells how far it has come: what is told adds up, and a terminal has one bar at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bert_ft
from bert_ft import display, progress

ROWS = 60


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(unit, total, done) of each work that is told from here on."""
    found: list[tuple[str, int, int]] = []

    @contextmanager
    def counting(total: int, unit: str, quiet: bool = False) -> Iterator[Callable[[int], None]]:
        done: list[int] = []
        yield done.append
        found.append((unit, total, sum(done)))

    monkeypatch.setattr(progress, "MANY", 1)
    monkeypatch.setattr(display, "counting", counting)
    return found


def rows(family: str, number: int) -> list[dict[str, object]]:
    """No two of one length, since equal inputs are computed once."""
    if family == "ner":
        return [{"tokens": ["good"] * (k + 1), "tags": ["O"] * k + ["B-A"]} for k in range(number)]
    texts = ["good " * k + "film" for k in range(number)]
    if family == "qa":
        answer = {"text": ["film"], "answer_start": [0]}
        return [
            {
                "id": str(len(text)),
                "question": "good",
                "context": text,
                "answers": answer | {"answer_start": [len(text) - 4]},
            }
            for text in texts
        ]
    return [{"text": text, "label": "ab"[k % 2]} for k, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("family", "units"),
    [
        ("classification", {("texts tokenized", ROWS), ("texts tokenized", 20), ("rows computed", 20)}),
        ("ner", {("words tokenized", 1), ("rows computed", 20)}),
        ("qa", {("texts tokenized", ROWS), ("texts tokenized", 20), ("rows computed", 20)}),
    ],
)
def test_all_that_is_told_is_done(
    family: str,
    units: set[tuple[str, int]],
    tiny_checkpoint: Path,
    told: list[tuple[str, int, int]],
    tmp_path: Path,
) -> None:
    run = bert_ft.finetune(
        family, str(tiny_checkpoint), train=rows(family, ROWS), validation=rows(family, 20), epochs=1, max_length=96,
        output=tmp_path / "run",
    )  # fmt: skip
    assert units <= {(unit, total) for unit, total, _ in told}
    assert all(total == done for _, total, done in told)
    told.clear()
    run.evaluate(rows(family, 20))
    assert ("rows computed", 20, 20) in told
    told.clear()
    run.evaluate(rows(family, 20), quiet=True)
    assert not told


def test_a_terminal_has_one_bar(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    """While a training's own bar is shown nothing else is; before and after it there is room."""
    bars: list[bool] = []
    shown = display.Display

    class Watched(shown):  # type: ignore[misc, valid-type]
        def __init__(self, quiet: bool = False) -> None:
            super().__init__(quiet)
            self.live = True

        def on_evaluate(self, *of: object) -> None:
            bars.append(bool(told and told[-1][0] == "rows computed"))
            assert progress._watcher.get() is None and self.bar is not None
            super().on_evaluate(*of)

    monkeypatch.setattr(display, "Display", Watched)
    bert_ft.finetune(
        "classification", str(tiny_checkpoint), train=rows("classification", ROWS), epochs=2,
        validation=rows("classification", 20), output=tmp_path / "run",
    )  # fmt: skip
    assert bars == [False, False]
    assert ("rows computed", 20, 20) in told
    assert progress._watcher.get() is None


def test_without_a_watcher_nothing_is_told_and_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MANY", 1)
    assert list(progress.told([[1, 2], [3]], 3, "things", len)) == [[1, 2], [3]]


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "SECONDS", -1)
    with display.watching():
        list(progress.told([range(15_000), range(10_000)], 25_000, "texts tokenized", len))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",  ")[0].split(", ")[0] for line in lines] == [
        "15,000/25,000 texts tokenized",
        "25,000/25,000 texts tokenized",
    ]
