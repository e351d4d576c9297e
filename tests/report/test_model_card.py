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


@pytest.mark.parametrize(("kind", "arguments"), [
    ("classes", ", truncation=True"),
    ("entities", ', aggregation_strategy="first", stride='),
    ("questions", None),
])  # fmt: skip
def test_the_code_of_the_card_runs(runs: Runs, kind: str, arguments: str | None) -> None:
    """On a text beyond `max_length`, of which the pipeline reads what `predict` reads."""
    run = runs[kind]
    code = re.search("```python\n(.*?)```", (run.path / "model" / "README.md").read_text(), re.DOTALL)
    assert code is not None
    if arguments is None:  # transformers 5 has no such pipeline any more
        assert "pipeline" not in code[1]
        exec(code[1].replace("PATH_OF_THIS_MODEL", str(run.path / "model")), {})
        return
    assert f'"PATH_OR_ID_OF_THIS_MODEL"{arguments}' in code[1]
    first, _, second = code[1].partition("# or, ")
    scope: dict[str, Any] = {}
    exec(first.replace("PATH_OR_ID_OF_THIS_MODEL", str(run.path / "model")), scope)
    theirs = scope["model"]
    exec(f"# {second}".replace("PATH_OF_THIS_MODEL", str(run.path / "model")), scope)
    mine = scope["model"]
    assert theirs.tokenizer.model_max_length == run.task.recipe.max_length
    text = "Anna went to Rome " * run.task.recipe.max_length
    if kind == "classes":
        answer = mine.predict(text)[0]
        assert theirs(text)[0]["label"] == answer["prediction"]
        assert theirs(text)[0]["score"] == pytest.approx(max(answer["probabilities"].values()), abs=1e-5)
    if kind == "entities":
        for network in (theirs.model, mine.network):
            tag_every_word(network)
        ends = [[entity["end"] for entity in found] for found in (theirs(text), mine(text)["entities"])]
        assert ends[0] == ends[1] == [match.end() for match in re.finditer(r"\w+", text)]


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
