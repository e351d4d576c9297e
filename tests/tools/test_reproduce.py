"""`bert-ft reproduce`: what is there is collected, what is missing is made, whatever ended the call before; the outcome."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bert_ft.config.catalog import load_task
from bert_ft.config.references import Suite
from bert_ft.engine import loop
from bert_ft.errors import InputError
from bert_ft.files import write_json
from bert_ft.tools.reproduce import estimate
from bert_ft.tools.reproduce import plan as planning
from bert_ft.tools.reproduce import reproduce as reproducing
from bert_ft.tools.reproduce.plan import Plan, plan
from bert_ft.tools.reproduce.results import Outcome

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
TASKS = ("rte", "wnli")
PAIR = Suite(name="pair", title="two tasks", tasks=list(TASKS))


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of two tasks."""
    monkeypatch.setattr(planning, "suites", lambda: {"pair": PAIR})


@pytest.fixture
def glue_files(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """RTE and WNLI of a few rows in GLUE's layout; beside them the tiny checkpoint under a published one's name."""
    shutil.copytree(tiny_checkpoint, tmp_path / "bert-base-cased")
    for name, labels in (("RTE", ("entailment", "not_entailment")), ("WNLI", ("1", "0"))):
        folder = tmp_path / "glue" / name
        folder.mkdir(parents=True)
        for file, n in (("train", 40), ("dev", 24), ("test", 8)):
            words = ("warm", "dull", "brave")
            rows = [f"{i}\tthe {words[i % 3]} film {i}\ta film\t{labels[i * i // 3 % 2]}" for i in range(n)]
            header = "index\tsentence1\tsentence2\tlabel"
            if file == "test":
                header, rows = header.removesuffix("\tlabel"), [row.rpartition("\t")[0] for row in rows]
            (folder / f"{file}.tsv").write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / "glue"


QUICK = ["--set", "learning_rate=1e-3", "--set", "log_every=1", "--max-steps", "6"]
COMMON = ["--checkpoint", "bert-base-cased", "--data-dir", "glue", "--seeds", "2", *QUICK]


def made_by_hand(made: Plan, value: Callable[[Any], dict[str, Any]]) -> None:
    """Run folders as training leaves them, with metrics of one's own."""
    for run in made.runs:
        if run.folder.state == "finished":
            continue
        run.folder.path.mkdir(parents=True)
        run.folder.start(
            run.task, {"data_fingerprint": run.task.name, "versions": {"python": "3"}, "device": "cpu"}
        )
        write_json(run.folder.results_json, {"metrics": value(run), "timing": {"train_seconds": 60.0}})


def table_of(folder: Path) -> str:
    """The tables and verdicts without what was run when and on what."""
    return (folder / "table.md").read_text().rpartition("\n\n")[0]


def stamps(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.glob("*/results.json"))}


# --- runs that are really made ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pair", "glue_files")
def test_printed_commands_in_any_order_are_collected(cli: Cli, tmp_path: Path) -> None:
    """The commands, run backwards by somebody else, leave what reproduce then only collects."""
    printed = cli("reproduce", "pair", *COMMON, "--output", "out", "--plan").out.splitlines()
    assert len(printed) == 4 and len(set(printed)) == 4
    for line in reversed(printed):
        words = shlex.split(line)
        assert words[:2] == ["bert-ft", "train"]
        assert cli(*words[1:]).code == 0
    before = stamps(tmp_path / "out")
    done = cli("reproduce", "pair", *COMMON, "--output", "out", "--json")
    assert done.code == 0 and len(before) == 4 and stamps(tmp_path / "out") == before, "nothing was trained"
    results = json.loads(done.out)
    for name in TASKS:
        files = sorted((tmp_path / "out").glob(f"{name}-*/results.json"))
        values = [100 * json.loads(file.read_text())["metrics"]["validation"]["accuracy"] for file in files]
        assert results["tasks"][name]["metrics"]["validation"]["accuracy"]["values"] == pytest.approx(values)
        assert not list((tmp_path / "out").glob(f"{name}-*/model")), "suites keep numbers, not models"
    assert [run["command"] for run in results["runs"]] == printed
    assert {v["verdict"] for v in results["verdicts"]} == {"not comparable"}, (
        "another recipe than the published"
    )
    assert any("recipe.learning_rate: 2e-05 published, 0.001 here" in v["why"] for v in results["verdicts"])


@pytest.mark.parametrize("verdict", ["below", "reproduced"])
def test_where_causes_are_listed_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    """The page of what libraries compute otherwise, where a number is another than the published one."""
    outcome = SimpleNamespace(results={}, folder="out", failed=[], verdicts=[{"verdict": verdict}])
    monkeypatch.setattr(reproducing, "reproduce", lambda *_, **__: outcome)
    done = cli("reproduce", "rte", "--checkpoint", "org/bert", "--json")
    assert done.code == 0 and ("docs/why-numbers-differ.md" in done.err) == (verdict == "below")
    assert (ROOT / "docs" / "why-numbers-differ.md").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("glue_files")
def test_a_run_that_fails_is_told_and_made_later(cli: Cli, tmp_path: Path) -> None:
    """Two child processes: one fails for the data's sake, and once that is mended the same command makes it alone. The
    outcome is that of seeds trained by hand."""
    words = [
        cli("reproduce", "rte", *COMMON, "--output", place, "--plan").out.splitlines()
        for place in ("by-hand", "out")
    ]
    for line in [*words[0], words[1][0]]:
        assert cli(*shlex.split(line)[1:]).code == 0
    first, good = stamps(tmp_path / "out"), (tmp_path / "glue/RTE/dev.tsv").read_text()
    (tmp_path / "glue/RTE/dev.tsv").write_text(good.replace("not_entailment", "maybe", 1))
    done = cli("reproduce", "rte", *COMMON, "--output", "out")
    assert done.code == 1 and "label 'maybe'" in done.err and "incomplete" not in done.out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [run["state"] for run in results["runs"]] == ["finished", "failed"] and "maybe" in results["runs"][
        1
    ]["cause"]
    (tmp_path / "glue/RTE/dev.tsv").write_text(good)
    done = cli("reproduce", "rte", *COMMON, "--output", "out")
    assert done.code == 0 and stamps(tmp_path / "out").items() > first.items(), done.err
    assert cli("reproduce", "rte", *COMMON, "--output", "by-hand").code == 0
    assert table_of(tmp_path / "out") == table_of(tmp_path / "by-hand")


@pytest.mark.usefixtures("glue_files")
def test_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate is the time of all steps and evaluations, from a few; here of one more step, twice the time."""
    monkeypatch.chdir(tmp_path)
    changes = {
        "run.checkpoint": "bert-base-cased",
        "run.data_dir": str(tmp_path / "glue"),
        "recipe.batch_size": 8,
    }
    task = load_task("rte").override(changes)
    short, long = (
        estimate.measure(task.override({"recipe.epochs": epochs}))["seconds"] for epochs in (3, 300)
    )
    assert 5 < long / short < 2000 and 0 < short < 60
    weights = (tmp_path / "bert-base-cased/model.safetensors").stat().st_size
    assert estimate.measure(task)["bytes_training"] == pytest.approx(8 * weights, rel=0.1)

    timed = []
    train = loop.train

    def watched(model: Any, *rest: Any, **more: Any) -> Any:
        timed.append(model.accelerator.step_dtype)
        return train(model, *rest, **more)

    monkeypatch.setattr(loop, "train", watched)
    for precision in ("bf16-steps", "fp32"):
        estimate.measure(task.override({"recipe.precision": precision}))
    assert timed == [torch.bfloat16, None], "steps are timed in what they will be computed in"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for the children in /proc")
@pytest.mark.usefixtures("glue_files")
def test_killed_at_random_moments_and_started_again(cli: Cli, tmp_path: Path) -> None:
    """SIGKILL hits the suite alone, so that its child goes on as an orphan, or the child too; SIGINT leaves with 130 and
    no child behind. No finished run is repeated, and the table is that of the uninterrupted suite."""
    for line in cli(
        "reproduce", "rte", *COMMON, "--seeds", "3", "--output", "whole", "--plan"
    ).out.splitlines():
        assert cli(*shlex.split(line)[1:]).code == 0
    assert cli("reproduce", "rte", *COMMON, "--seeds", "3", "--output", "whole").code == 0
    draw, seen = random.Random(5), dict[str, int]()
    command = [
        sys.executable,
        "-m",
        "bert_ft",
        "reproduce",
        "rte",
        *COMMON,
        "--seeds",
        "3",
        "--output",
        "out",
    ]

    def children() -> list[int]:
        """The trainings that work in this test's folder."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (place / "cwd").readlink() == tmp_path and b"bert_ft\0train" in (
                    place / "cmdline"
                ).read_bytes():
                    found.append(int(place.name))
        return found

    for how in ("alone", "both", "interrupt"):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
        deadline = time.monotonic() + 120
        while not children() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(draw.uniform(0, 4 if how == "interrupt" else 12))
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130 and not children()
        else:
            process.kill()
            process.wait()
            for child in children() if how == "both" else []:
                os.kill(child, signal.SIGKILL)
        now = stamps(tmp_path / "out")
        assert now.items() >= seen.items(), "a finished run was repeated"
        seen = now
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert stamps(tmp_path / "out").items() >= seen.items()
    assert table_of(tmp_path / "out") == table_of(tmp_path / "whole")


# --- the outcome of given runs ----------------------------------------------------------------------------------------


def test_verdict_and_outputs(tmp_path: Path) -> None:
    """A published number whose every condition is met: measured, judged, and the same in all outputs."""
    made = plan("mrpc", "google-bert/bert-base-cased", seeds=3, output=tmp_path / "out")
    scores = {1: (0.884, 0.841), 2: (0.889, 0.840), 3: (0.892, 0.842)}
    made_by_hand(
        made,
        lambda run: {"validation": dict(zip(("f1", "accuracy"), scores[run.task.run.seed], strict=True))},
    )
    outcome = Outcome(made, 1.0)
    outcome.write()
    accuracy, f1 = sorted(outcome.verdicts, key=lambda v: v["metric"])
    assert (accuracy["verdict"], f1["verdict"]) == ("reproduced", "inconclusive")
    assert accuracy["difference"] == pytest.approx(84.1 - 84.07)
    row = next(row for row in outcome.table if row["metric"] == "f1")
    assert (
        row["measured"]
        == f"{statistics.fmean([88.4, 88.9, 89.2]):.2f} ± {statistics.stdev([88.4, 88.9, 89.2]):.2f}"
    )
    saved = json.loads((tmp_path / "out/results.json").read_text())
    assert (
        saved["verdicts"] == json.loads(json.dumps(outcome.verdicts))
        and saved["made"]["train_seconds"] == 180
    )
    for text in (
        (tmp_path / "out/table.md").read_text(),
        (tmp_path / "out/page.html").read_text(),
        outcome._repr_html_(),
    ):
        assert "88.83 ± 0.40" in text.replace("\u00a0", " ") and "88.85" in text and "inconclusive" in text
    page = (tmp_path / "out/page.html").read_text()
    assert "a seed 88.40, 88.90, 89.20; published 88.85" in page and not re.search(
        r"<script|src=|http(?!-equiv|://www.w3)", page
    )
    HTMLParser().feed(page)


def test_a_recipe_of_electras_is_judged(tmp_path: Path) -> None:
    """Rates by layer, pairs in both orders, Adam without its correction: said by the recipe, and no longer refused."""
    made = plan("mrpc", "google/electra-small-discriminator", seeds=3, output=tmp_path / "out")
    recipes = [run.task.recipe for run in made.runs]
    assert all(each.layer_decay == 0.8 and each.both_orders and not each.bias_correction for each in recipes)
    assert "recipe.layer_decay=0.8" in made.runs[0].command
    scores = dict.fromkeys(("f1", "accuracy"), 0.9)
    made_by_hand(
        made, lambda run: {"validation": {k: v + run.task.run.seed / 500 for k, v in scores.items()}}
    )
    verdicts = Outcome(made, 1.0).verdicts
    assert verdicts and all(
        v["interval"] for v in verdicts if v["published"]["source"].startswith("electra,")
    )


@pytest.mark.parametrize(("task", "checkpoint", "source", "verdict"), [
    ("drcd", "google-bert/bert-base-chinese", "cmrc2018, baseline", "reproduced"),
    ("lcqmc", "hfl/chinese-electra-small-discriminator", "Chinese-ELECTRA", "reproduced"),
    ("thucnews", "hfl/chinese-roberta-wwm-ext", "Chinese-BERT-wwm", "not comparable"),
])  # fmt: skip
def test_chinese_numbers_are_judged(
    tmp_path: Path, task: str, checkpoint: str, source: str, verdict: str
) -> None:
    """By a stand-in's scores near the published ones: dev and test alike, and what a source leaves open is named."""
    made = plan(task, checkpoint, seeds=5, output=tmp_path / "out")
    assert all(not run.task.recipe.bias_correction for run in made.runs)
    published = [r for r in made.entries[0].references if r.source.startswith(source)]
    points = {(r.split, r.metric): r.value for r in published}
    scale = 1 if task == "drcd" else 100

    def scores(run: Any) -> dict[str, Any]:
        off = (run.task.run.seed - 3) / 100
        sets: dict[str, Any] = {"validation": {}, "test": {}}
        for (split, metric), value in points.items():
            sets[split][metric] = (value + off) / scale
        return sets

    made_by_hand(made, scores)
    verdicts = [v for v in Outcome(made, 1.0).verdicts if v["published"]["source"].startswith(source)]
    assert {v["set"] for v in verdicts} == {"validation", "test"} and len(verdicts) == len(points)
    assert {v["verdict"] for v in verdicts} == {verdict}
    if verdict == "not comparable":
        assert verdicts[0]["why"] == ["recipe: the source does not state batch_size, epochs"]
    else:
        assert all(v["interval"] for v in verdicts)


def test_every_look_is_recorded_and_a_later_one_is_stricter(tmp_path: Path) -> None:
    """The same seeds again are the same look; more seeds are another, and too few more are not judged."""

    def outcome(seeds: int | list[int]) -> dict[str, Any]:
        made = plan("rte", "google-bert/bert-base-cased", seeds=seeds, output=tmp_path / "out")
        made_by_hand(made, lambda run: {"validation": {"accuracy": 0.70 + run.task.run.seed % 3 / 200}})
        found = Outcome(made, 1.0)
        found.write()
        return json.loads((tmp_path / "out/results.json").read_text())

    first = outcome(3)
    assert first["looks"] == [[1, 2, 3]] and first["verdicts"][0]["level"] == 0.95
    assert outcome([3, 2, 1])["looks"] == [[1, 2, 3]], "the same seeds"
    for seeds in (4, [4, 5, 6]):  # too few more, and others instead of more
        early = outcome(seeds)
        assert early["looks"] == [[1, 2, 3]] and early["verdicts"][0]["interval"] is None
        assert "judged with 3 seeds before, and next with 5 in all" in early["verdicts"][0]["why"][0]
    second = outcome(6)
    assert second["looks"] == [[1, 2, 3], [1, 2, 3, 4, 5, 6]] and second["verdicts"][0]["level"] == 0.997
    assert "verdicts at 99.7 %, look 2, after 3 seeds" in (tmp_path / "out/table.md").read_text()
    again = outcome(3)
    assert again["looks"] == second["looks"] and again["verdicts"] == first["verdicts"]
    text = (tmp_path / "out/table.md").read_text()
    assert "verdicts at 95 %, the first look" in text

    old = {key: value for key, value in second.items() if key != "looks"}  # as version 0.1 wrote it
    write_json(tmp_path / "out/results.json", old)
    assert outcome(9)["looks"] == [[1, 2, 3, 4, 5, 6], [*range(1, 10)]]
    for damaged in ([[math.inf]], "12", [{"1": 2}], [[]], None):  # anybody may have written it
        (tmp_path / "out/results.json").write_text(json.dumps(old | {"looks": damaged}))
        assert outcome(6)["looks"] == [[1, 2, 3, 4, 5, 6]]


def test_the_numbers_of_a_suite_are_judged_together(tmp_path: Path) -> None:
    """Each of them below by itself, and none of them among so many; the page says so."""
    made = plan("glue-small", "google-bert/bert-base-cased", seeds=5, output=tmp_path / "out")
    values = {entry.base.name: {r.metric: r.value for r in entry.references} for entry in made.entries}
    steps = [-0.0063, -0.0032, 0.0, 0.0032, 0.0063]  # of standard deviation 0.005

    def scores(run: Any) -> dict[str, Any]:
        away = steps[run.task.run.seed - 1] - 0.0165
        published = values[run.task.name]
        return {"validation": {m: published.get(m, 50.0) / 100 + away for m in run.task.metric.compute}}

    made_by_hand(made, scores)
    outcome = Outcome(made, 1.0)
    judged = [verdict for verdict in outcome.verdicts if verdict["interval"]]
    assert len(judged) >= 3 and all(verdict["interval"][1] < 0 for verdict in judged)
    assert {verdict["verdict"] for verdict in judged} == {"inconclusive"}
    told = f"below by itself, but not among {len(judged)} numbers judged together"
    assert all(told in verdict["why"][0] for verdict in judged)
    for page in (outcome.markdown(), outcome.html()):
        assert f"{len(judged)} numbers are judged together" in page


def test_runs_of_other_data_are_not_one_group(tmp_path: Path) -> None:
    made = plan("rte", "google-bert/bert-base-cased", seeds=3, output=tmp_path / "out")
    made_by_hand(made, lambda run: {"validation": {"accuracy": 0.657 + run.task.run.seed / 1e5}})
    assert Outcome(made, 1.0).verdicts[0]["verdict"] == "reproduced"
    write_json(made.runs[1].folder.environment_json, {"data_fingerprint": "other", "versions": {}})
    found = Outcome(made, 1.0).verdicts[0]
    assert (found["verdict"], found["why"]) == ("not comparable", ["runs: they differ in data_fingerprint"])
    shutil.rmtree(made.runs[1].folder.path)
    assert Outcome(made, 1.0).verdicts[0]["verdict"] == "incomplete"


def test_a_test_set_without_labels_is_no_comparison(tmp_path: Path) -> None:
    made = plan("rte", "google-bert/bert-base-uncased", seeds=1, output=tmp_path / "out")
    made_by_hand(made, lambda run: {"validation": {"accuracy": 0.65}})
    found = Outcome(made, 1.0).verdicts
    assert found and all("split: test published, scored here: validation" in v["why"] for v in found)


def test_the_grid_is_searched_on_validation(tmp_path: Path) -> None:
    """Each seed's run is the best on validation, not on test; how many stood behind it is said."""
    file = tmp_path / "own.toml"
    file.write_text("""
extends = "rte"
[recipe.grid]
learning_rate = [1e-5, 2e-5]
batch_size = [8, 16]
[[reference]]
checkpoint = "org/bert"
split = "test"
metric = "accuracy"
value = 61.0
statistic = "best of grid"
runs = 4
recipe = { epochs = 3, keep = "last" }
confidence = "C"
source = "us"
""")  # fmt: skip
    made = plan(file, "org/bert", seeds=[3, 5], grid=True, output=tmp_path / "out")
    assert len({str(run.folder.path) for run in made.runs}) == len(made.runs) == 8

    def scores(run: Any) -> dict[str, Any]:
        place = [1e-5, 2e-5].index(run.task.recipe.learning_rate) * 2 + [8, 16].index(
            run.task.recipe.batch_size
        )
        best = place == run.task.run.seed % 4
        return {
            "validation": {"accuracy": 0.7 if best else 0.6},
            "test": {"accuracy": 0.6 + run.task.run.seed / 1000 if best else 0.9},
        }

    made_by_hand(made, scores)
    outcome = Outcome(made, 1.0)
    assert outcome.results["tasks"]["own"]["metrics"]["test"]["accuracy"]["values"] == pytest.approx(
        [60.3, 60.5]
    )
    assert outcome.results["tasks"]["own"]["chosen"] == {"3": {"learning_rate": 2e-5, "batch_size": 16},
                                                        "5": {"learning_rate": 1e-5, "batch_size": 16}}  # fmt: skip
    judged = next(v for v in outcome.verdicts if v["published"]["source"] == "us")
    assert judged["verdict"] == "inconclusive" and "own 4" in outcome.markdown()
    with pytest.raises(InputError, match="what was searched"):
        plan("imdb", "org/bert", grid=True)


def test_suite_score(tmp_path: Path) -> None:
    """GLUE's rule by hand: metrics of a set first, then sets, then tasks; one task missing means no score, and which."""
    made = plan("glue", "org/bert", seeds=2, output=tmp_path / "out")
    draw = random.Random(1)
    given: dict[str, dict[int, dict[str, Any]]] = {}

    def scores(run: Any) -> dict[str, Any]:
        found = {
            name: {m: draw.random() for m in run.task.metric.compute}
            for name in run.task.data.evaluation_sets
        }
        given.setdefault(run.task.name, {})[run.task.run.seed] = found
        return found

    made_by_hand(made, scores)
    outcome = Outcome(made, 1.0)
    assert len(given) == 9 and len(given["mnli"][1]) == 2 and len(given["mrpc"][1]["validation"]) == 2

    def score(seed: int, tasks: list[str]) -> float:
        of_sets = {t: [statistics.fmean(m.values()) for m in given[t][seed].values()] for t in tasks}
        return 100 * statistics.fmean(statistics.fmean(sets) for sets in of_sets.values())

    for label, tasks in (("all tasks", list(given)), ("without wnli", [t for t in given if t != "wnli"])):
        assert outcome.suite["validation"][label]["values"] == pytest.approx(
            [score(1, tasks), score(2, tasks)]
        )
    assert outcome.suite["test"]["all tasks"] == {"missing": list(given)}
    shutil.rmtree(next(run.folder.path for run in made.runs if run.task.name == "wnli"))
    again = Outcome(made, 1.0)
    assert again.suite["validation"]["all tasks"] == {"missing": ["wnli"]}
    assert again.suite["validation"]["without wnli"] == outcome.suite["validation"]["without wnli"]
    assert "no score without wnli" in again.markdown()


# --- what a person can do wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "told"), [
    (["glu"], "unknown task 'glu'"),
    (["ner"], "'ner' is a family"),
    (["rte", "--seeds", "many"], "--seeds many: a number of seeds"),
    (["rte", "--seeds", "1,1"], "--seeds: seeds are"),
    (["rte", "--seeds", "0"], "--seeds: seeds are"),
    (["rte", "--reference", "nobody"], "--reference: no published number whose source holds 'nobody'"),
    (["rte", "--set", "epoch=1"], "task rte: unknown key 'epoch'"),
    (["imdb", "--grid"], "task imdb: neither the task nor the reference says what was searched"),
])  # fmt: skip
def test_bad_input(cli: Cli, arguments: list[str], told: str) -> None:
    done = cli("reproduce", *arguments, "--checkpoint", "org/bert", "--plan")
    assert (done.code, done.out) == (2, "") and f"bert-ft: {told}" in done.err, done


def test_another_run_in_its_place_is_refused(cli: Cli, tmp_path: Path) -> None:
    made_by_hand(
        plan("rte", "org/bert", seeds=1, output=tmp_path / "out"),
        lambda run: {"validation": {"accuracy": 0.5}},
    )
    done = cli(
        "reproduce",
        "rte",
        "-c",
        "org/bert",
        "--seeds",
        "1",
        "-o",
        "out",
        "--set",
        "metric.compute=['f1']",
        "--plan",
    )
    assert (
        done.code == 2 and "this folder holds another run, which differs in\n    metric.compute" in done.err
    )
