"""The model card, as the hub's own classes read it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tiny_models import tag_every_word

import bert_ft
from bert_ft.pages import card

Runs = dict[str, bert_ft.Run]


@pytest.mark.parametrize("kind", ["classes", "sets", "numbers", "entities", "questions"])
def test_the_card_has_the_results(runs: Runs, kind: str) -> None:
    run = runs[kind]
    parsed = ModelCard.load(run.path / "model" / "README.md")
    found = {(e.dataset_split, e.metric_type): e.metric_value for e in parsed.data.eval_results or []}
    written = json.loads((run.path / "results.json").read_text())["metrics"]
    assert found == {
        (name, k): v for name, values in written.items() for k, v in values.items() if v is not None
    }
    assert (
        parsed.data.library_name == "transformers"
        and "bert-ft" in parsed.data.tags
        and parsed.data.license is None
    )
    assert (
        "licence of that checkpoint is not known" in parsed.text
        and "<script" not in parsed.text
        and "<img" not in parsed.text
    )
    assert str(run.path) not in parsed.content and "learning_rate: 0.003" in parsed.text.replace("\\", "")


def blocks(run: bert_ft.Run) -> list[dict[str, Any]]:
    """Each code block of the card, run by itself: the names that it leaves."""
    card = (run.path / "model" / "README.md").read_text()
    found = []
    for code in re.findall("```(.*?)```", card, re.DOTALL):
        assert code.startswith("python\n")
        scope: dict[str, Any] = {"code": code}
        place = re.compile("PATH_OR_ID_OF_THIS_MODEL|PATH_OF_THIS_MODEL")
        exec(place.sub(str(run.path / "model"), code.partition("\n")[2]), scope)
        found.append(scope)
    return found


@pytest.mark.parametrize(("kind", "arguments"), [
    ("classes", ", truncation=True"),
    ("many classes", ", truncation=True"),
    ("sets", ", truncation=True, top_k=None"),
    ("numbers", ", truncation=True"),
    ("entities", ', aggregation_strategy="first", stride='),
])  # fmt: skip
def test_the_code_of_the_card_runs(runs: Runs, kind: str, arguments: str) -> None:
    """On a text beyond `max_length`, of which the pipeline reads what `predict` reads."""
    run = runs[kind]
    pipelines, own = blocks(run)
    assert f'"PATH_OR_ID_OF_THIS_MODEL"{arguments}' in pipelines["code"]
    theirs, mine = pipelines["model"], own["model"]
    assert theirs.tokenizer.model_max_length == run.task.recipe.max_length
    text = "Anna went to Rome " * run.task.recipe.max_length
    if kind == "entities":
        for network in (theirs.model, mine.network):
            tag_every_word(network)
        ends = [[entity["end"] for entity in found] for found in (theirs(text), mine(text)["entities"])]
        assert ends[0] == ends[1] == [match.end() for match in re.finditer(r"\w+", text)]
        return
    best, answer = theirs(text)[0], mine.predict(text)[0]
    if kind == "sets":  # a probability for each of them
        every = {each["label"]: each["score"] for each in (best if isinstance(best, list) else theirs(text))}
        assert every == pytest.approx(answer["probabilities"], abs=1e-5) and len(every) > 1
        return
    if kind == "numbers":
        assert best["score"] == pytest.approx(answer["prediction"], abs=1e-5)
        return
    shares = answer["probabilities"]
    assert best["label"] == max(shares, key=shares.__getitem__)
    assert best["score"] == pytest.approx(max(shares.values()), abs=1e-5)
    assert best["label"] == answer["prediction"]


def test_the_code_of_a_card_of_questions_runs(runs: Runs) -> None:
    """transformers 5 has no such pipeline any more: plain `transformers` gives what ours gives."""
    run = runs["questions"]
    plain, own = blocks(run)
    assert "pipeline(" not in plain["code"] + own["code"]
    assert plain["answer"] and plain["answer"] in plain["context"]
    mine = own["model"]
    mine.adapter.tuned = {"null_threshold": float("inf")}  # that there is no answer is ours alone
    code = plain["code"].partition("\n")[2].replace("PATH_OR_ID_OF_THIS_MODEL", str(run.path / "model"))
    texts = [plain["context"]]
    texts += ["It is in Rome. " + "warm film and grace " * many for many in (0, 1, 3, 5)]
    for number, text in enumerate(texts):
        question = ["Who wrote it?", "what is it ?"][number % 2]
        scope: dict[str, Any] = {}
        line = next(line for line in code.splitlines() if line.startswith("question, context = "))
        exec(code.replace(line, f"question, context = {question!r}, {text!r}"), scope)
        assert scope["answer"] == mine(question, text)["prediction"]


def test_the_card_says_what_older_versions_make_of_it(runs: Runs) -> None:
    run = runs["classes"]
    said = "`transformers` 4.57 reads this folder too, and computes the same."
    assert said in (run.path / "model" / "README.md").read_text()


def test_base_model_and_licence(runs: Runs, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Of a hub id its own name; of a folder, and of an earlier run, what their card says, if they have one."""
    run = runs["classes"]
    results, environment = run.results, run.environment

    def data(checkpoint: str, **changes: str) -> object:
        return ModelCard(
            card.text(run.task.override({"run.checkpoint": checkpoint, **changes}), results, environment)
        ).data

    known = tmp_path / "known"
    shutil.copytree(tiny_checkpoint, known)
    (known / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: org/tiny\n---\n# Tiny\n")
    of_folder = data(str(known))
    assert (of_folder.license, of_folder.base_model) == ("apache-2.0", "org/tiny")  # type: ignore[attr-defined]
    (known / "README.md").write_text("---\n- broken: [\n---\n")
    assert data(str(known)).license is None  # type: ignore[attr-defined]
    hub = data("org/name", **{"data.path": "nyu-mll/glue", "data.name": "sst2"})
    assert (hub.base_model, hub.license, hub.datasets) == ("org/name", None, ["nyu-mll/glue"])  # type: ignore[attr-defined]
    assert hub.eval_results[0].dataset_config == "sst2"  # type: ignore[attr-defined]
    assert data(str(run.path)).base_model is None  # type: ignore[attr-defined]
