"""`bert-ft check --with RUN`: labels that are likely wrong are found as cleanlab finds them, listed with their place, and
left out by `train --without FILE`; what does not fit is refused with a remedy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bert_ft
from bert_ft import families, files
from bert_ft.config.catalog import load_task
from bert_ft.data import left_out, loading, overrides
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.families import wrong_labels as measures
from bert_ft.prepared import folded
from bert_ft.report import scored_set
from bert_ft.rundir import naming
from bert_ft.rundir.folder import RunDir
from bert_ft.tools import wrong_labels
from bert_ft.tools.check import check
from tests.conftest import Cli

WRONG = (3, 8, 21)


def films(n: int = 40, wrong: Sequence[int] = WRONG) -> dict[str, list[str]]:
    """Rows whose texts say their label, but for some."""
    words = ["fine" if i % 2 else "dull" for i in range(n)]
    labels = [("dull" if w == "fine" else "fine") if i in wrong else w for i, w in enumerate(words)]
    return {"text": [f"a {w} film, number {i}" for i, w in enumerate(words)], "label": labels}


def csv_file(path: Path, rows: dict[str, list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return path


def answers(rows: dict[str, list[str]], sure: float = 0.9) -> list[dict[str, Any]]:
    """What models that read the texts would say of them: more surely of later rows."""
    lines = []
    for i, text in enumerate(rows["text"]):
        p = min(sure + i / 1000, 0.999)
        said = "fine" if "fine" in text else "dull"
        other = "dull" if said == "fine" else "fine"
        lines.append(
            {"prediction": said, "label": rows["label"][i], "probabilities": {said: p, other: 1 - p}}
        )
    return lines


def run_of(
    folder: Path,
    lines: Sequence[dict[str, Any]],
    family: str = "classification",
    train: Any = None,
    **settings: Any,
) -> Path:
    """The folder of a run of two folds, which predicted these lines."""
    sets = overrides.sets(train, None, None)
    bound = overrides.bound(load_task(family), sets, {"folds": 2} | settings, checkpoint="any")
    adapter = families.find(bound.family)
    bound = loading.with_group(bound, adapter)
    task, rows, fingerprint = folded(bound, adapter, overrides.objects(sets))
    task = task.override({"data.labels": adapter.find_labels(rows, task) or None})
    run = RunDir(folder)
    run.path.mkdir(parents=True)
    run.start(task, {"data_fingerprint": fingerprint})
    numbered = [{**line, "row": i, "fold": 1 + i % 2} for i, line in enumerate(lines)]
    files.write_jsonl(run.prediction_file("out_of_fold"), numbered)
    scored_set.keep(run, "out_of_fold", rows.table)
    metrics = {"validation": {"accuracy": 0.9}}
    files.write_json(run.results_json, {"metrics": metrics, "spread": metrics, "folds": 2})
    return folder


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """cleanlab's functions as far as probabilities made by hand need them: it is an extra."""

    def own(labels: Any, probabilities: np.ndarray) -> np.ndarray:
        return np.array([p[k] for p, k in zip(probabilities, labels, strict=True)])

    def issues(labels: Any, probabilities: np.ndarray, **options: Any) -> np.ndarray:
        order = np.argsort(own(labels, probabilities), kind="stable")
        return order[own(labels, probabilities)[order] < 0.5]

    module = SimpleNamespace(find_label_issues=issues, get_label_quality_scores=own)
    monkeypatch.setattr(measures, "_cleanlab", lambda name: module)


@pytest.mark.usefixtures("stand_in")
def test_rows_with_their_places(tmp_path: Path, cli: Cli) -> None:
    rows = films()
    data = csv_file(tmp_path / "films.csv", rows)
    run = run_of(tmp_path / "run", answers(rows), train=data)
    listed = tmp_path / "suspects.csv"
    call = ["check", "classification", "--train", data, "--validation", "25%", "--with", run]
    outcome = cli(*call, "--export", listed, "--limit", 10)
    assert outcome.code == 0, outcome.err
    assert "rows with a label that is likely wrong" in outcome.out and "dull → fine?" in outcome.out
    assert "3 labels in" in outcome.err and "--without" in outcome.err
    lines = list(csv.DictReader(listed.read_text(encoding="utf-8-sig").splitlines()))
    assert [int(line["place"].rpartition(" ")[2]) - 1 for line in lines] == [21, 8, 3], "the surest first"
    assert all(line["place"].startswith(str(data)) for line in lines)
    first = lines[0]
    assert (first["text"], first["label"], first["suggestion"]) == (rows["text"][21], "dull", "fine")
    assert float(first["quality"]) == pytest.approx(1 - 0.921, abs=1e-4)
    found = json.loads(cli(*call, "--json", "--limit", 2).out)
    assert [one["fingerprint"] for one in found["suspects"]] == [line["fingerprint"] for line in lines[:2]]
    assert cli(*call, "--strict").code == 1, "a warning"


@pytest.mark.usefixtures("stand_in")
def test_formulas_are_not_run_and_odd_characters_stay(tmp_path: Path) -> None:
    rows = films(12, wrong=(3,))
    rows["text"][3] = '=1+1, "fine" 很好'
    run = run_of(tmp_path / "run", answers(rows), train=rows)
    found = check("classification", train=rows, validation=rows, run=run)
    wrong_labels.export(tmp_path / "list.csv", found.suspects or [])
    line = next(csv.DictReader((tmp_path / "list.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert line["text"] == '\'=1+1, "fine" 很好'
    train = loaded(rows, without=str(tmp_path / "list.csv")).train
    assert rows["text"][3] not in train.table["text"].to_pylist() and len(train) == 11


def loaded(rows: Any, **settings: Any) -> Any:
    sets = overrides.sets(rows, settings.pop("validation", rows), None)
    task = overrides.bound(load_task("classification"), sets, settings)
    return loading.load(task, families.find("classification"), overrides.objects(sets))


def list_of(
    path: Path, rows: dict[str, list[str]], chosen: Sequence[int], delimiter: str = ",", code: str = "utf-8"
) -> str:
    names = left_out.fingerprints(Rows(loaded(rows).train.table, "rows"), ["text", "label"])
    with path.open("w", encoding=code, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows(
            [["place", "text", "fingerprint"], *([f"row {i + 1}", "很好\n", names[i]] for i in chosen)]
        )
    return str(path)


def test_rows_are_left_out_whatever_their_order(tmp_path: Path) -> None:
    rows = films()
    shuffled = {key: column[::-1] for key, column in rows.items()}
    for name, delimiter, code in (("a", ",", "utf-8-sig"), ("b", ";", "gb18030"), ("c", "\t", "utf-8")):
        splits = loaded(shuffled, without=list_of(tmp_path / name, rows, WRONG, delimiter, code))
        assert (
            splits.train.table["text"].to_pylist()
            == [t for i, t in enumerate(rows["text"]) if i not in WRONG][::-1]
        )
        assert splits.notes == [f"left out: 3 rows named in {tmp_path / name}"]
        assert len(splits.evaluation["validation"]) == 40, "what is scored stays the same"


def test_what_is_held_out_stays(tmp_path: Path) -> None:
    rows = films()
    listed = list_of(tmp_path / "list.csv", rows, WRONG)
    for share in ("25%", "1/4"):
        before, after = loaded(rows, validation=share), loaded(rows, validation=share, without=listed)
        assert after.evaluation["validation"].table.equals(before.evaluation["validation"].table)
        wrong = {rows["text"][i] for i in WRONG}
        held = wrong & set(before.evaluation["validation"].table["text"].to_pylist())
        assert (
            set(before.train.table["text"].to_pylist()) - set(after.train.table["text"].to_pylist())
            == wrong - held
        )
        assert f"left out: {3 - len(held)} row" in after.notes[-1]
        assert ("held out, and scored" in after.notes[-1]) == bool(held)
        place = after.train.place(len(after.train) - 1)
        text = after.train.table["text"][len(after.train) - 1].as_py()
        assert place.endswith(f"row {rows['text'].index(text) + 1}"), "places stay those of the source"


def test_a_label_that_is_left_out_whole_stays_a_label(tmp_path: Path) -> None:
    rows = films(20, wrong=())
    rows["label"][4] = "odd"
    splits = loaded(rows, without=list_of(tmp_path / "list.csv", rows, [4]))
    assert "odd" in splits.labels and "odd" not in splits.train.table["label"].to_pylist()


def test_a_list_of_other_data_is_refused(tmp_path: Path) -> None:
    rows = films()
    listed = list_of(tmp_path / "list.csv", rows, WRONG)
    mended = {**rows, "label": list(rows["label"])}
    mended["label"][8] = "dull"
    with pytest.raises(InputError, match="1 of the 3 rows that it names are not among") as caught:
        loaded(mended, without=listed)
    assert "row 2 (row 9)" in str(caught.value) and "delete the lines" in caught.value.remedy
    (tmp_path / "other.csv").write_text("text,label\na,b\n")
    with pytest.raises(InputError, match="no column 'fingerprint'"):
        loaded(rows, without=str(tmp_path / "other.csv"))
    (tmp_path / "more.csv").write_text("place,fingerprint\nhere,\n")
    with pytest.raises(InputError, match="its row 1 has no 'fingerprint'"):
        loaded(rows, without=str(tmp_path / "more.csv"))
    with pytest.raises(InputError, match="No such file"):
        loaded(rows, without=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="all training rows"):
        loaded(rows, without=list_of(tmp_path / "all.csv", rows, range(40)))


def test_corrected_votes_are_another_row(tmp_path: Path) -> None:
    """Also where the likeliest label stays."""
    rows = {"text": [f"text {i}" for i in range(12)], "votes": [["fine", "fine", "dull"], ["dull"]] * 6}
    soft = {"data.soft": "votes"}
    names = left_out.fingerprints(loaded(rows, **soft).train, ["text", "label"])
    listed = tmp_path / "list.csv"
    listed.write_text(f"fingerprint\n{names[4]}\n{names[6]}\n")
    assert len(loaded(rows, without=str(listed), **soft).train) == 10
    votes = [list(row) for row in rows["votes"]]
    votes[4] = ["fine", "fine", "fine"]
    with pytest.raises(InputError, match="1 of the 2 rows that it names are not among"):
        loaded({**rows, "votes": votes}, without=str(listed), **soft)
    more = {"text": [*rows["text"], "new"], "votes": [*rows["votes"], ["odd"]]}
    assert len(loaded(more, without=str(listed), **soft).train) == 11, "whatever labels other rows have"
    plain = [{"text": "a", "label": "fine"}, {"text": "b", "label": "dull"}]
    mixed = [*({**row, "votes": None} for row in plain), {"text": "c", "label": None, "votes": ["fine"]}]
    by_labels = left_out.fingerprints(loaded(plain).train, ["text", "label"])
    assert left_out.fingerprints(loaded(mixed, **soft).train, ["text", "label"])[:2] == by_labels


def test_equal_rows_are_told(tmp_path: Path) -> None:
    rows = films(20, wrong=(3,))
    rows["text"][9], rows["label"][9] = rows["text"][3], rows["label"][3]
    one, both = (list_of(tmp_path / f"{len(chosen)}.csv", rows, chosen) for chosen in ([3], [3, 9]))
    note = loaded(rows, without=one).notes[-1]
    assert note.startswith("left out: 2 rows named in") and note.endswith(
        "; 1 line names 2 equal rows, all of which are meant: train rows, row 4 and train rows, row 10"
    )
    assert loaded(rows, without=both).notes[-1] == f"left out: 2 rows named in {both}"


@pytest.mark.parametrize("code", ["utf-16", "utf-8-sig", "gb18030"])
def test_lists_that_a_spreadsheet_edited(code: str, tmp_path: Path) -> None:
    rows = films(20, wrong=())
    names = left_out.fingerprints(loaded(rows).train, ["text", "label"])
    lines = [
        "sep=;",
        "place;text ; fingerprint",
        f"row 4;很好; {names[3]} ",
        ";;",
        f"row 6;;{names[5]}",
        " ; ;",
    ]
    listed = tmp_path / "list.csv"
    listed.write_bytes("\r\n".join(lines).encode(code))
    assert len(loaded(rows, without=str(listed)).train) == 18
    listed.write_bytes("\r\n".join([*lines, "row 8;a;"]).encode(code))
    with pytest.raises(InputError, match="its row 5 has no 'fingerprint'"):
        loaded(rows, without=str(listed))


@pytest.mark.usefixtures("stand_in")
def test_majorities_of_votes_are_doubted(tmp_path: Path) -> None:
    rows = films(20)
    votes = {"text": rows["text"], "votes": [[label] * 3 for label in rows["label"]]}
    run = run_of(tmp_path / "run", answers(rows), train=votes, **{"data.soft": "votes"})
    found = check("classification", train=votes, validation=votes, run=run, **{"data.soft": "votes"})
    assert sorted(one["place"].rpartition(" ")[2] for one in found.suspects or []) == ["4", "9"]


def test_a_list_is_part_of_what_folds_are(tmp_path: Path) -> None:
    rows = films()

    def print_of(**settings: Any) -> tuple[str, int]:
        sets = overrides.sets(rows, None, None)
        task = overrides.bound(load_task("classification"), sets, {"folds": 2, **settings})
        _, whole, fingerprint = folded(task, families.find("classification"), overrides.objects(sets))
        return fingerprint, len(whole)

    plain = print_of()
    first = print_of(without=list_of(tmp_path / "a.csv", rows, WRONG))
    assert first == print_of(without=list_of(tmp_path / "b.csv", rows, WRONG))
    other = print_of(without=list_of(tmp_path / "a.csv", rows, WRONG[:2]))
    assert len({plain, first, other}) == 3 and plain[1] == first[1] == 40


def test_the_list_is_in_the_task_and_in_the_name_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = load_task("classification")
    for given in ("lists/mine.csv", Path("lists/mine.csv")):
        task = overrides.bound(base, {}, {"without": given}, checkpoint="any")
        assert task.data.without == str(tmp_path / "lists" / "mine.csv")
        assert naming.run_name(base, task, {"without": given}).endswith("-without=mine-seed42")
    assert "without" not in base.dump()["data"], "and runs without a list are what they were"


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        ({"folds": None}, "has no folds", "--folds 5"),
        ({"label": "fine"}, "40 rows (it had 40), 1 of which it did not see", "--folds 5"),
        ({"family": "ner"}, "of another task: own-classification, and not own-ner", "--folds 5"),
        ({"line": {"label": {"fine": 0.5, "dull": 0.5}}}, "do not fit together", "damaged"),
        ({"line": None}, "kept no probabilities", "--overwrite"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, cli: Cli, change: dict[str, Any], message: str, remedy: str
) -> None:
    rows = films()
    data = csv_file(tmp_path / "films.csv", rows)
    lines = answers(rows)
    if "line" in change:
        lines[5] |= change["line"] or {}
        for line in lines if change["line"] is None else ():
            del line["probabilities"]
    run = run_of(tmp_path / "run", lines, train=data)
    if "folds" in change:
        toml = run / "task.toml"
        toml.write_text(toml.read_text().replace("folds = 2\n", ""))
    if "label" in change:
        csv_file(data, {**rows, "label": [change["label"], *rows["label"][1:]]})
    family = change.get("family", "classification")
    if family == "ner":
        data = tmp_path / "words.conll"
        data.write_text("Ann B-PER\nsang O\n\n" * 9)
    outcome = cli("check", family, "--train", data, "--validation", "25%", "--with", run)
    assert outcome.code == 2 and message in outcome.err and remedy in outcome.err, outcome.err
    assert "Traceback" not in outcome.err


def test_export_needs_a_run(cli: Cli) -> None:
    outcome = cli("check", "sst2", "--export", "list.csv")
    assert outcome.code == 2 and "--with RUN" in outcome.err
    outcome = cli("check", "sst2", "--with", "run", "--export", "list.json")
    assert outcome.code == 2 and "a CSV file" in outcome.err


def test_without_cleanlab(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    rows = films()
    data = csv_file(tmp_path / "films.csv", rows)
    run = run_of(tmp_path / "run", answers(rows), train=data)
    call = ["check", "classification", "--train", data, "--validation", "25%"]
    outcome = cli(*call, "--with", run)
    assert outcome.code == 2 and "bert-ft[cleanlab]" in outcome.err
    plain = cli(*call, "--json")
    assert plain.code == 0 and "suspects" not in json.loads(plain.out), "and nothing else needs it"


def scored_of(folder: Path, family: str, lines: Sequence[dict[str, Any]], train: Any, **settings: Any) -> Any:
    return bert_ft.load(run_of(folder, lines, family, train, **settings)).scored()


def test_answers_that_share_no_word(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "question": "Who sang?", "context": f"Ann Lee sang to Bob. {i}", "answers": {"text": [gold], "answer_start": [start]}}
        for i, (gold, start) in enumerate([("Ann Lee", 0), ("Ann Lee", 0), ("Bob", 16), ("Bob", 16), ("Lee", 4)])
    ]  # fmt: skip
    said = [("Ann Lee", 0.8), ("Ann Lee", 0.6), ("Ann Lee", 0.9), ("Ann Lee", 0.5), ("Ann Lee", 0.95)]
    lines = [
        {"id": str(i), "prediction": text, "start": 0, "end": 7, "score": p}
        for i, (text, p) in enumerate(said)
    ]
    found = scored_of(tmp_path / "run", "qa", lines, rows).suspects()
    assert [(one.row, one.label, one.suggestion) for one in found] == [(2, ["Bob"], "Ann Lee")]
    assert found[0].quality == pytest.approx(0.1), (
        "row 3 is no surer than right answers are; row 4 shares a word"
    )


# --- against cleanlab, called by hand


def probabilities(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, a tenth of which were exchanged, and what an imperfect model says of them."""
    random = np.random.default_rng(seed)
    truth = random.integers(k, size=n)
    logits = random.normal(size=(n, k)) + 3 * np.eye(k)[truth]
    labels = np.where(random.random(n) < 0.1, (truth + 1) % k, truth)
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_labels_as_cleanlab(tmp_path: Path) -> None:
    filters = pytest.importorskip("cleanlab.filter")
    labels, p = probabilities(300, 3, 0)
    names = ["b", "a", "c"]  # in another order than the head's
    rows = {"text": [f"text {i}" for i in range(300)], "label": [names[k] for k in labels]}
    lines = [
        {
            "prediction": names[q.argmax()],
            "label": names[k],
            "probabilities": dict(zip(names, q.tolist(), strict=True)),
        }
        for k, q in zip(labels, p, strict=True)
    ]
    found = scored_of(tmp_path / "run", "classification", lines, rows).suspects()
    assert [one.row for one in found] == filters.find_label_issues(
        labels, p, return_indices_ranked_by="self_confidence"
    ).tolist()
    assert 10 < len(found) < 60 and all(one.quality == p[one.row, labels[one.row]] for one in found)


def test_sets_of_labels_as_cleanlab(tmp_path: Path) -> None:
    filters = pytest.importorskip("cleanlab.multilabel_classification.filter")
    random = np.random.default_rng(1)
    truth = random.random((200, 3)) < 0.4
    p = np.clip(np.where(truth, 0.9, 0.1) + random.normal(0, 0.08, truth.shape), 0.01, 0.99)
    gold = truth.copy()
    gold[:12, 1] ^= True
    names = ["x", "y", "z"]
    sets = [[name for name, has in zip(names, row, strict=True) if has] for row in gold]
    rows = {"text": [f"text {i}" for i in range(200)], "label": sets}
    lines = [
        {"prediction": [], "label": s, "probabilities": dict(zip(names, q.tolist(), strict=True))}
        for s, q in zip(sets, p, strict=True)
    ]
    found = scored_of(
        tmp_path / "run", "classification", lines, rows, **{"data.problem_type": "multi_label_classification"}
    ).suspects()
    by_hand = filters.find_label_issues(
        [np.flatnonzero(row).tolist() for row in gold], p, return_indices_ranked_by="self_confidence"
    )
    assert [one.row for one in found] == by_hand.tolist()
    assert len({one.row for one in found} & set(range(12))) >= 10
    true = [[name for name, has in zip(names, row, strict=True) if has] for row in truth]
    assert all(one.suggestion == true[one.row] for one in found if one.row < 12)


def test_numbers_far_out(tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    random = np.random.default_rng(2)
    said = random.uniform(0, 5, 200)
    gold = said + random.normal(0, 0.2, 200)
    gold[[7, 50]] += [3, -2]
    rows = {"text": [f"text {i}" for i in range(200)], "label": gold.tolist()}
    for scale in (1, 1000):  # the unit does not matter
        lines = [
            {"prediction": scale * s, "label": scale * g}
            for s, g in zip(said.tolist(), gold.tolist(), strict=True)
        ]
        scored = scored_of(
            tmp_path / str(scale), "classification", lines, rows, **{"data.problem_type": "regression"}
        )
        found = scored.suspects()
        assert [one.row for one in found[:2]] == [7, 50] and len(found) < 6


def test_words_as_cleanlab(tmp_path: Path) -> None:
    filters = pytest.importorskip("cleanlab.token_classification.filter")
    names = ["O", "B-PER", "I-PER"]
    labels, p = probabilities(400, 3, 3)
    gold = [[names[k] for k in labels[i : i + 4]] for i in range(0, 400, 4)]
    gold = [
        ["B-PER" if t == "I-PER" and (j == 0 or row[j - 1] == "O") else t for j, t in enumerate(row)]
        for row in gold
    ]
    parts = [p[i : i + 4] for i in range(0, 400, 4)]
    tokens = [[f"w{i}{j}" for j in range(4)] for i in range(100)]
    lines = [
        {"tokens": words, "label": tags, "prediction": [names[k] for k in part.argmax(1)],
         "probabilities": {name: part[:, k].tolist() for k, name in enumerate(names)}}
        for words, tags, part in zip(tokens, gold, parts, strict=True)
    ]  # fmt: skip
    for name in names:  # a word that the model does not read
        lines[5]["probabilities"][name][2] = None
    found = scored_of(tmp_path / "run", "ner", lines, {"tokens": tokens, "tags": gold}).suspects()
    numbers = [[names.index(tag) for tag in row] for row in gold]
    parts[5] = np.delete(parts[5], 2, axis=0)
    del numbers[5][2]
    by_hand = filters.find_label_issues(numbers, parts, return_indices_ranked_by="self_confidence")
    assert [(one.row, one.item) for one in found] == [(i, 3 if (i, j) == (5, 2) else j) for i, j in by_hand]
    assert found and all(one.label == gold[one.row][one.item or 0] for one in found)


def test_nothing_is_imported(tmp_path: Path) -> None:
    code = "import sys, bert_ft.cli, bert_ft.families.wrong_labels; print('cleanlab' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- from folds to a training without what they doubt


@pytest.mark.slow
@pytest.mark.parametrize("family", ["classification", "ner", "qa"])
def test_from_folds_to_a_training(family: str, tmp_path: Path, tiny_checkpoint: Path, cli: Cli) -> None:
    pytest.importorskip("cleanlab")
    if family == "classification":
        data = csv_file(tmp_path / "films.csv", films(60))
    elif family == "ner":
        data = tmp_path / "words.conll"
        sentence = "Ann B-PER\nsang O\nin O\n{} B-LOC\n\n"
        data.write_text(
            "".join(sentence.format(place) for place in ["Rome", "Oslo", "Bern"] * 20) + "Rome B-PER\nis O\n"
        )
    else:
        data = tmp_path / "questions.jsonl"
        rows = [
            {"id": str(i), "question": f"Who sang {i}?", "context": f"Ann sang to Bob {i}.",
             "answers": {"text": ["Bob" if i == 7 else "Ann"], "answer_start": [12 if i == 7 else 0]}}
            for i in range(40)
        ]  # fmt: skip
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ["--checkpoint", tiny_checkpoint, "--max-length", 32, "--lr", "3e-3", "--set", "batch_size=8"]
    call = [family, "--train", data, "--validation", "25%"]
    folds = cli(
        "train", family, "--train", data, "--folds", 2, "-o", tmp_path / "folds", *quick, "--max-steps", 40
    )
    assert folds.code == 0, folds.err
    listed = tmp_path / "list.csv"
    checked = cli("check", *call, "--with", tmp_path / "folds", "--export", listed, "--json", "--limit", 100)
    assert checked.code == 0, checked.err
    suspects = json.loads(checked.out)["suspects"]
    assert len(list(csv.DictReader(listed.read_text(encoding="utf-8-sig").splitlines()))) == len(suspects)
    trained = cli("train", *call, "--without", listed, "-o", tmp_path / "run", *quick, "--max-steps", 2)
    if not suspects and family != "classification":
        assert trained.code == 0
        return
    assert trained.code == 0 and "left out: " in trained.err, trained.err
    run = bert_ft.load(tmp_path / "run")
    assert run.task.data.without == str(listed)
    assert any(note.startswith("left out: ") for note in run.results["notes"])
    again = cli("train", *call, "--without", listed, "-o", tmp_path / "run", *quick, "--max-steps", 2)
    assert "finished already" in again.err
    other = cli("train", *call, "-o", tmp_path / "run", *quick, "--max-steps", 2)
    assert other.code == 2 and "data.without" in other.err, "another list is another run"
