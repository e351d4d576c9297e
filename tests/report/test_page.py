"""Reports of runs of every kind: whole HTML, inert whatever stands in the data, with the numbers of independent scorers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_ft
from bert_ft.pages import run_page, scored_sets
from bert_ft.report import rendering
from bert_ft.report.elements import Table
from bert_ft.rundir.folder import RunDir

Runs = dict[str, bert_ft.Run]
KINDS = ("classes", "many classes", "sets", "numbers", "entities", "questions")
VOID = {"meta", "br"}
TAGS = {*VOID, "html", "head", "title", "style", "body", "main", "article", "header", "footer", "section", "h1", "h2", "p", "span",
        "strong", "small", "code", "div", "figure", "figcaption", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
        "svg", "g", "path", "defs", "use", "text", "tspan", "clippath", "rect", "b"}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "style", "scope", "tabindex", "role", "aria-label",
              "id", "viewbox", "xmlns", "xmlns:xlink", "xlink:href", "clip-path", "d", "x", "y", "width", "height",
              "transform"}  # fmt: skip


class Checked(HTMLParser):
    """Holds a page to well-formedness and to a list of tags and attributes, none of which can do anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.used: set[str] = set()
        self.words: list[str] = []
        self.labels: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert len(self.ids) == len(set(self.ids)) and self.used <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        names = [name for name, _ in attrs]
        assert set(names) <= ATTRIBUTES and len(names) == len(set(names)), (tag, names)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "xlink:href":
                assert (value or "").startswith("#")
                self.used.add((value or "")[1:])
            links = re.findall(r"url\(([^)]*)\)", value or "") if name in ("style", "clip-path") else []
            assert all(link.startswith("#") for link in links)
            self.used |= {link[1:] for link in links}
            if name == "aria-label" and tag == "svg":
                self.labels.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, "only SVG knows tags that close themselves"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            assert not re.search(r"url\(|@import|expression", data)
        self.words.append(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_whole_and_inert(runs: Runs, kind: str) -> None:
    run = runs[kind]
    text = (run.path / "report.html").read_text()
    shown = Checked(text)
    assert text.startswith("<!DOCTYPE html>") and text.count("default-src 'none'") == 1
    assert '"><img src=x onerror=alert(1)>' in shown.text and "{{ 7*7 }} $x$ &amp;" in shown.text, "as text"
    if kind not in ("numbers", "many classes"):
        assert "<script>alert(1)</script>" in shown.text
    name, metric = run.task.best_metric
    assert f"{metric} on {name}" in shown.text and rendering.show(run.metrics[name][metric]) in shown.text
    assert len(shown.labels) == 4 + (kind == "numbers") and all(" to " in label for label in shown.labels), (
        "text alternatives"
    )
    reason = {
        "many classes": "none: 2 rows of 'label 0', fewer than 20",
        "numbers": "no interval: 46 rows, fewer than 50",
    }
    interval = reason.get(kind, "95 % interval over the 46 rows: ")
    if kind not in reason:
        assert shown.text.count("The rows are taken as independent") == 1
    for part in (interval, "by length of the input in",
                 "Learning curves", "recipe", "environment", "timing", "what was read, truncated and unknown"):  # fmt: skip
        assert part in shown.text, part
    assert f"errors 20 of {len(run.errors(None))} wrong rows" in shown.text or len(run.errors(None)) < 20


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_are_of_the_metrics_in_the_results(runs: Runs, kind: str) -> None:
    run = runs[kind]
    (one,) = scored_sets.scored(run.dir, run.task, run.results)
    expected = {
        name
        for name in run.metrics["validation"]
        if not re.match("(Has|No)Ans|best_.*thresh|f1_(LOC|<)", name)
    }
    undefined = {name for name in expected if run.metrics["validation"][name] is None}
    assert one.certainty.keys() == expected - undefined and run.task.best_metric[1] in one.certainty
    reasons = {name: why for name, why in one.certainty.items() if isinstance(why, str)}
    assert one.intervals.keys() | reasons.keys() == one.certainty.keys() and all(reasons.values())
    assert bool(one.intervals) == (kind != "numbers"), "46 pairs are too few"
    for name, (low, high) in one.intervals.items():
        assert low <= run.metrics["validation"][name] <= high


def table(run: bert_ft.Run, title: str) -> Table:
    (one,) = scored_sets.scored(run.dir, run.task, run.results)
    return next(t for t in one.sections() if t.title.startswith(title) and isinstance(t, Table))


def test_tables_are_those_of_other_scorers(runs: Runs) -> None:
    from seqeval.metrics import classification_report
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    for kind, size in (("classes", 2), ("many classes", 20)):
        run, found = runs[kind], table(runs[kind], "confusion")
        names = [row[0] for row in found.rows]
        sides = [[line[key] for line in run.predictions()] for key in ("label", "prediction")]
        every = [str(label) for label in run.task.data.labels or []]
        whole = confusion_matrix(*sides, labels=every)[[every.index(name) for name in names]]
        assert len(names) == size and whole.sum(1).tolist() == [row[-2] for row in found.rows]
        assert whole[:, [every.index(name) for name in names]].tolist() == [row[1:-2] for row in found.rows]

    lines = runs["sets"].predictions()
    names = [str(label) for label in runs["sets"].task.data.labels or []]
    gold, said = (
        np.array([[name in line[key] for name in names] for line in lines]) for key in ("label", "prediction")
    )
    expected = np.array(precision_recall_fscore_support(gold, said, zero_division=0)[:3]).T
    found = table(runs["sets"], "labels")
    assert np.array([row[3:6] for row in found.rows]) == pytest.approx(expected)
    saved = json.loads((runs["sets"].path / "model" / "config.json").read_text())["bert_ft"]["tuned"][
        "thresholds"
    ]
    assert {row[0]: row[6] for row in found.rows} == saved

    lines = runs["entities"].predictions()
    report = classification_report(
        *([line[k] for line in lines] for k in ("label", "prediction")), output_dict=True, zero_division=0
    )
    for row in table(runs["entities"], "entities").rows:
        theirs = report[row[0]]
        assert row[1:] == pytest.approx(
            [theirs["support"], theirs["precision"], theirs["recall"], theirs["f1-score"]]
        )

    parts = table(runs["questions"], "by whether")
    metrics = runs["questions"].metrics["validation"]
    threshold = json.loads((runs["questions"].path / "model" / "config.json").read_text())["bert_ft"]["tuned"]
    assert [row[:2] for row in parts.rows] == [["HasAns", 30], ["NoAns", 16]] and threshold
    assert np.average([row[3] for row in parts.rows], weights=[30, 16]) == pytest.approx(metrics["tuned_f1"])
    words = table(runs["questions"], "by first word")
    assert dict(row[:2] for row in words.rows) == {"what": 23, '"><img': 23}


def test_errors_are_the_wrong_rows_the_surest_first(runs: Runs) -> None:
    lines, errors = runs["classes"].predictions(), runs["classes"].errors(None)
    wrong = {line["row"] for line in lines if line["label"] != line["prediction"]}
    assert {error["row"] for error in errors} == wrong and wrong
    sure = [error["confidence"] for error in errors]
    assert sure == sorted(sure, reverse=True) and runs["classes"].errors(3) == errors[:3]
    assert all(error["text"].endswith(f" {error['row']}") for error in errors), "the row's own text"
    sizes = [abs(error["label"] - error["prediction"]) for error in runs["numbers"].errors(None)]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 46
    for error in runs["entities"].errors(None):
        line = runs["entities"].predictions()[error["row"]]
        assert line["label"] != line["prediction"] and len(error["missed"]) + len(error["wrong"])
        assert all(
            " ".join(item.split(": ", 1)[1].split()) in error["text"]
            for item in error["missed"] + error["wrong"]
        )
    for error in runs["questions"].errors(None):
        assert error["prediction"] not in error["label"] and (error["label"] or error["prediction"])
    for error in runs["sets"].errors(None):
        assert (error["worst"] in error["label"]) != (error["worst"] in error["prediction"])
    with pytest.raises(bert_ft.InputError, match="no scored set 'tset'"):
        runs["classes"].errors(split="tset")


def test_a_report_comes_from_the_folder_alone(runs: Runs, cli: Any, tmp_path: Path) -> None:
    """Copied elsewhere it says the same; without its rows it has no texts; several stand side by side."""
    moved = tmp_path / "moved"
    shutil.copytree(runs["classes"].path, moved)
    before = Checked((moved / "report.html").read_text()).text
    (moved / "report.html").unlink()
    done = cli("report", moved)
    assert (done.code, done.out) == (0, f"{moved / 'report.html'}\n")
    assert Checked((moved / "report.html").read_text()).text.replace("moved", "classes") == before
    (moved / "predictions" / "validation.rows.parquet").unlink()
    cli("report", moved)
    bare = Checked((moved / "report.html").read_text()).text
    assert (
        "confusion matrix" in bare and "by length" not in bare and "95 % interval over the 46 rows: " in bare
    )

    assert cli("report", moved, runs["numbers"].path).code == 2
    both = [runs["classes"].path, runs["sets"].path, runs["classes"].path]
    assert cli("report", *both, "-o", tmp_path / "all.html").code == 0
    shown = Checked((tmp_path / "all.html").read_text()).text
    assert "3 runs side by side" in shown and "data.problem_type" in shown
    assert cli("report", tmp_path).code == 2


def test_what_fails_in_a_report_costs_no_run(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("no such chart")

    told: list[str] = []
    say: Callable[..., None] = lambda text, style="": told.append(text)  # noqa: E731
    monkeypatch.setattr(run_page.plots, "charts", broken)
    run_page.leave(RunDir(runs["numbers"].path), runs["numbers"].results, say)
    assert told == ["no report: ZeroDivisionError: no such chart"]


def test_folds_and_families_of_ones_own_have_reports_too(
    reviews: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from bert_ft import Classification

    class Own(Classification):
        def lines(self, predictions: Any, rows: Any) -> Any:
            return ({"said": str(each)} for each in predictions["prediction"])

    quick = {"max_steps": 2, "quiet": True, "batch_size": 8, "max_length": 16}
    run = bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "own", train=reviews / "train.csv",
                           validation=reviews / "validation.csv", adapter=Own, **quick)  # fmt: skip
    assert "accuracy on validation" in Checked((run.path / "report.html").read_text()).text
    with pytest.raises(bert_ft.InputError, match="no errors can be listed"):
        run.errors()
    run = bert_ft.finetune("classification", str(tiny_checkpoint), output=tmp_path / "folds", train=reviews / "train.csv",
                           folds=2, **quick)  # fmt: skip
    shown = Checked((run.path / "report.html").read_text()).text
    assert "mean and standard deviation of 2 folds" in shown and "out_of_fold, 24 rows" in shown
    assert len(run.errors(None)) == sum(
        line["label"] != line["prediction"] for line in run.predictions("out_of_fold")
    )
