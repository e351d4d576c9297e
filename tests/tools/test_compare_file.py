"""A file of predictions in the place of a run: the same answers, in each form, are no difference; others are as sure as
those of a run; what is none of the rows is refused with its place."""

from __future__ import annotations

import csv as csv_module
import json
from pathlib import Path
from typing import Any

import pytest
from test_compare import KINDS, Made, N, made

import bert_ft
from bert_ft.errors import InputError

__all__ = ["made"]  # the fixture


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv_module.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_s_own_predictions_are_no_difference(made: Made, kind: str) -> None:
    """Values, intervals and tests of another run, from its file of predictions, in any order of its lines."""
    run, other = made(kind, 1), made(kind, 2, right=0.5)
    lines = other.predictions()[::-1]
    as_run, as_file = (
        bert_ft.compare(run, it, draws=200) for it in (other, written(run.path / "o.jsonl", lines))
    )
    names = {d.metric for d in as_file.differences}
    assert names and names <= {d.metric for d in as_run.differences}
    at_any_rate = {"classes": 3, "sets": 4, "numbers": 3, "entities": 3, "questions": 4}
    assert len(names) >= at_any_rate[kind]
    for one in as_file.differences:
        same = next(d for d in as_run.differences if d.metric == one.metric)
        if kind == "questions" and one.metric not in ("tuned_f1", "tuned_exact_match"):
            continue  # at null odds of 0, which a file of answers says nothing of
        assert one.difference == pytest.approx(same.difference), one.metric
        if kind != "questions":  # whose other metrics make other kinds of rows, drawn in another order
            assert one.interval == pytest.approx(same.interval) and one.p == pytest.approx(same.p)
    assert as_file.groups[1].seeds == [] and str(as_file.groups[1]).endswith("o.jsonl")
    assert any("is a file" in line for line in as_file.lines())
    assert len(as_file.flips[0].worse) == len(as_run.flips[0].worse)


def test_forms_of_a_file(made: Made, tmp_path: Path) -> None:
    """Labels by text in another order, codes, probabilities alone, a column of any name, a label a line: one answer."""
    run, other = made("classes", 1, **{"data.label_names": {"7": "b"}}), made("classes", 2)
    texts = run.scored().rows["text"].to_pylist()  # type: ignore[index]
    lines = other.predictions()
    labels = [line["prediction"] for line in lines]
    expected = bert_ft.compare(run, other, draws=100).differences[0]

    def found(name: str, rows: list[dict[str, Any]], **columns: str) -> Any:
        return bert_ft.compare(run, written(tmp_path / name, rows), draws=100, columns=columns).differences[0]

    forms = [
        found("text.csv", [{"text": t, "prediction": p} for t, p in zip(texts, labels, strict=True)][::-1]),
        found("codes.csv", [{"answer": {"b": "7"}.get(p, p)} for p in labels], prediction="answer"),
        found("label.jsonl", [{"label": p} for p in labels]),
        found("p.jsonl", [{"probabilities": line["probabilities"]} for line in lines]),
        found(
            "p.csv", [{f"probability of {k}": v for k, v in line["probabilities"].items()} for line in lines]
        ),
        found("row.csv", [{"no": i, "prediction": p} for i, p in enumerate(labels)][::-1], row="no"),
    ]
    (tmp_path / "a.txt").write_text("\n".join(labels) + "\n")
    forms.append(bert_ft.compare(run, tmp_path / "a.txt", draws=100).differences[0])
    assert [f.difference for f in forms] == [pytest.approx(expected.difference)] * len(forms)
    assert [f.p for f in forms] == [pytest.approx(expected.p)] * len(forms)


def test_answers_as_the_official_script_takes_them(made: Made, tmp_path: Path) -> None:
    run = made("questions", 1)
    answers = {line["id"]: line["prediction"] for line in run.predictions()}
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    found = {d.metric: d for d in bert_ft.compare(run, tmp_path / "answers.json", draws=50).differences}
    assert found["tuned_f1"].difference == 0 and found["tuned_exact_match"].difference == 0


def test_chinese_texts_and_labels(tmp_path: Path, made: Made) -> None:
    run = made("classes", 1, **{"data.label_names": {"好": "a", "坏": "b", "中": "c"}})
    back = {"a": "好", "b": "坏", "c": "中"}
    rows = [{"回答": back[line["prediction"]]} for line in run.predictions()]
    found = bert_ft.compare(
        run, written(tmp_path / "零样本.csv", rows), draws=50, columns={"prediction": "回答"}
    )
    assert all(d.difference == 0 for d in found.differences)


def test_groups_of_seeds_against_a_file(made: Made, tmp_path: Path) -> None:
    runs = [made("classes", seed, right=0.8) for seed in (1, 2, 3)]
    file = written(tmp_path / "o.jsonl", made("classes", 4, right=0.4).predictions())
    found = bert_ft.compare(*runs, file, draws=100)
    assert [len(group.runs) for group in found.groups] == [3, 1] and found.differences[0].difference < 0
    assert any("B is one file" in line for line in found.lines())
    json.dumps(found.dump(2))


def test_what_is_refused(made: Made, tmp_path: Path) -> None:
    run = made("classes", 1)
    texts = run.scored().rows["text"].to_pylist()  # type: ignore[index]
    rows = [{"text": text, "prediction": "a"} for text in texts]

    def refused(name: str, rows: list[dict[str, Any]], of: bert_ft.Run = run, **columns: str) -> str:
        with pytest.raises(InputError) as caught:
            bert_ft.compare(of, written(tmp_path / name, rows), draws=10, columns=columns)
        return str(caught.value)

    assert "59 rows, not 60" in refused("a.csv", rows[:-1])
    other = [*rows[:5], {"text": "a film", "prediction": "a"}, *rows[6:]]
    message = refused("b.csv", other)
    assert "row 5 of the set has another text: a film" in message and "b.csv, line 7" in message
    message = refused("c.csv", [*rows[:3], {**rows[3], "prediction": "meh"}, *rows[4:]])
    assert "row 3 of the set: 'meh' is none of the labels" in message and "c.csv, line 5" in message
    assert "no prediction" in refused("d.csv", [{**rows[0], "prediction": ""}, *rows[1:]])
    assert "no column 'prediction'" in refused("e.csv", [{"text": text} for text in texts])
    assert "no column 'said'" in refused("f.csv", rows, prediction="said")
    assert "there is no role 'answer'" in refused("g.csv", rows, answer="prediction")
    numbered = [{"row": i, "prediction": "a"} for i in range(N)]
    assert "row '0' stands there twice" in refused("h.jsonl", [numbered[0], *numbered[:-1]])
    assert "no answer to row '59' (1 in all)" in refused("i.jsonl", numbered[:-1])
    assert "row '60' is none of the set's" in refused("j.jsonl", [*numbered, {"row": 60, "prediction": "a"}])
    assert "4 words" in refused("k.jsonl", [{"prediction": ["O"]}] * N, made("entities", 1))
    assert "where a number is expected" in refused("l.jsonl", [{"prediction": "x"}] * N, made("numbers", 1))
    with pytest.raises(InputError, match="does not say how it is scored"):
        bert_ft.compare(tmp_path / "a.csv", run)
