"""Code that a checkpoint brings runs where this very call names it, and nowhere else, whatever files say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback import Hub
from strangers import rewrite, with_code

import bert_ft
from bert_ft.errors import InputError
from bert_ft.modeling import loading
from bert_ft.tools.reproduce.plan import plan

QUICK = ("--max-steps", "1", "--max-length", "16", "--batch-size", "4")
SAYS_YES = {"architectures": ["StrangerForSequenceClassification"], "id2label": {"0": "neg", "1": "pos"},
            "label2id": {"neg": 0, "pos": 1}, "problem_type": "single_label_classification",
            "bert_ft": {"task": {"family": "classification", "run": {"trust_remote_code": True}}}}  # fmt: skip


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def yes(tmp_path: Path, reviews: Path, trained: Path, mark: Path) -> Path:
    """A folder with a checkpoint that brings code, `evil`, and files that all say that it may run."""
    with_code(trained / "model", tmp_path / "evil", mark, **SAYS_YES)
    (tmp_path / "task.toml").write_text(
        'family = "classification"\n[data]\ntrain = "train.csv"\nevaluate = "validation.csv"\n'
        '[run]\ncheckpoint = "./evil"\ntrust_remote_code = true\n'
    )
    (tmp_path / "variant.toml").write_text('extends = "task"\n')
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A finished run of two labels."""
    rows = {"text": ["a fine film", "a dull film"] * 4, "label": ["pos", "neg"] * 4}
    run = bert_ft.finetune("classification", tiny_checkpoint, train=rows, validation=rows, max_steps=1, max_length=16,
                           output=tmp_path_factory.mktemp("trained") / "run", quiet=True)  # fmt: skip
    return run.path


def taken_over(trained: Path, at: Path, tiny_checkpoint: Path, mark: Path) -> Path:
    """A copy of a finished run whose model brings code, and whose files say that it may run."""
    shutil.copytree(trained, at)
    config = json.loads((at / "model" / "config.json").read_text())
    shutil.rmtree(at / "model")
    said = {key: config[key] for key in ("id2label", "label2id", "architectures", "bert_ft")}
    with_code(tiny_checkpoint, at / "model", mark, **said)
    task = (at / "task.toml").read_text()
    assert "trust_remote_code = false" in task
    (at / "task.toml").write_text(task.replace("trust_remote_code = false", "trust_remote_code = true"))
    return at


@pytest.mark.parametrize("arguments", [
    ("train", "task.toml", *QUICK), ("train", "variant.toml", *QUICK), ("train", "task.toml", "--folds", "2", *QUICK),
    ("check", "task.toml"),
    ("predict", "./evil", "validation.csv"), ("evaluate", "./evil", "--data", "validation.csv"),
    ("evaluate", "./evil", "--task", "task.toml"),
    ("search", "task.toml", "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1"),
], ids=" ".join)  # fmt: skip
def test_no_file_switches_code_on(cli: Any, yes: Path, mark: Path, arguments: Sequence[str]) -> None:
    done = cli(*arguments)
    assert not mark.exists()
    if arguments[0] == "check":  # the tokenizer alone is loaded, and needs no code
        assert done.code == 0 and "is ignored" in done.out
    else:
        assert done.code == 2 and "--trust-remote-code" in done.err, done


@pytest.mark.slow
def test_no_file_switches_code_on_in_children(cli: Any, yes: Path, mark: Path) -> None:
    done = cli("reproduce", "task.toml", "-c", "./evil", "--seeds", "1", "--max-steps", "1")
    assert done.code == 1 and f"--trust-remote-code {yes / 'evil'}" in done.err
    assert not mark.exists()


@pytest.mark.parametrize("name", ["load", "evaluate", "finetune", "search", "check", "Task"])
def test_no_file_switches_code_on_in_python(yes: Path, mark: Path, name: str, monkeypatch: Any) -> None:
    from bert_ft.tools.check import check

    monkeypatch.chdir(yes)
    calls: dict[str, Any] = {
        "load": lambda: bert_ft.load("evil"),
        "evaluate": lambda: bert_ft.evaluate(bert_ft.load("evil"), "validation.csv"),
        "finetune": lambda: bert_ft.finetune("task.toml", max_steps=1, quiet=True),
        "search": lambda: bert_ft.search("task.toml", trials=1, space={"learning_rate": [1e-5]}, quiet=True),
        "check": lambda: check("task.toml", "evil"),
        "Task": lambda: bert_ft.finetune(bert_ft.load_task("task.toml"), "evil", max_steps=1, quiet=True),
    }
    if name == "check":
        calls[name]()
    else:
        with pytest.raises(InputError, match="trust-remote-code"):
            calls[name]()
    assert not mark.exists()


@pytest.mark.parametrize("arguments", [
    ("predict", "run", "rows.csv"), ("evaluate", "run", "--data", "rows.csv"), ("report", "run"),
    ("compare", "run", "trained"), ("train", "classification", "-c", "run", "--train", "rows.csv", "--validation",
                                    "rows.csv", "-o", "out", *QUICK),
], ids=" ".join)  # fmt: skip
def test_a_runs_own_files_switch_no_code_on(
    cli: Any, tmp_path: Path, trained: Path, tiny_checkpoint: Path, mark: Path, arguments: Sequence[str]
) -> None:
    taken_over(trained, tmp_path / "run", tiny_checkpoint, mark)
    shutil.copytree(trained, tmp_path / "trained")
    (tmp_path / "rows.csv").write_text("text,label\na fine film,pos\na dull film,neg\n")
    done = cli(*arguments)
    assert not mark.exists()
    if arguments[0] in ("report", "compare"):  # they load no model
        assert done.code == 0, done
    else:
        place = "." if arguments[0] != "train" else tmp_path  # a checkpoint by its absolute path
        assert done.code == 2 and f"--trust-remote-code {place}/run/model" in done.err, done


def test_a_resumed_run_obeys_its_call_alone(cli: Any, yes: Path, mark: Path) -> None:
    """An interrupted run whose file says yes: the same command goes on without code, and says why it can't."""
    named = ("train", "task.toml", "-o", "run", "--trust-remote-code", "./evil", *QUICK)
    assert cli(*named).code == 0
    (yes / "run" / "results.json").unlink()
    mark.unlink()
    assert "trust_remote_code = true" in (yes / "run" / "task.toml").read_text()
    done = cli("train", "task.toml", "-o", "run", "--resume", *QUICK)
    assert done.code == 2 and f"--trust-remote-code {yes / 'evil'}" in done.err
    assert not mark.exists()
    again = cli("train", "task.toml", "-o", "run", "--resume", "--trust-remote-code", yes / "evil", *QUICK)
    assert again.code == 0, again  # what the message says to do; the import may be remembered by this process


@pytest.mark.slow
def test_standard_input_answers_no_question(yes: Path, mark: Path) -> None:
    """`transformers` would ask, and the rows would say yes."""
    for arguments in (["predict", "./evil", "--from", "txt"], ["train", "task.toml", *QUICK]):
        done = subprocess.run([sys.executable, "-m", "bert_ft", *arguments], cwd=yes, input="y\ny\ny\n", text=True,
                              capture_output=True, timeout=120)  # fmt: skip
        assert done.returncode == 2 and "y/N" not in done.stdout + done.stderr, done
        assert not mark.exists()


# --- by its name ------------------------------------------------------------------------------------------------------


def test_the_named_code_runs(cli: Any, yes: Path, mark: Path) -> None:
    """The command line's way, through training, prediction and evaluation; what was named is recorded."""
    done = cli("train", "task.toml", "-o", "run", "--trust-remote-code", "./evil", *QUICK)
    assert done.code == 0 and mark.exists(), done
    assert json.loads((yes / "run" / "environment.json").read_text())["trusted_remote_code"] == ["./evil"]
    assert any(
        "is ignored" in note for note in json.loads((yes / "run" / "results.json").read_text())["notes"]
    )
    for arguments in (("predict", "run", "validation.csv"), ("evaluate", "run")):
        done = cli(*arguments)
        assert done.code == 2 and "--trust-remote-code ./run/model" in done.err
        assert cli(*arguments, "--trust-remote-code", "./run").code == 0


def test_python_names_it_too(yes: Path, mark: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(yes)
    shutil.copytree("evil", "another")  # the import of `evil` may be remembered by this process
    assert len(bert_ft.load("another", trust_remote_code=Path("another")).predict(["a fine film"])) == 1
    assert mark.exists()


@pytest.mark.parametrize("named", ["org/evil", "evil", "./evil2", ".", "./"])
def test_another_name_is_no_permission(cli: Any, yes: Path, mark: Path, named: str) -> None:
    """A folder has to be named as one: one that came with somebody's files may look like a hub id."""
    (yes / "evil2").mkdir()
    done = cli("predict", "./evil", "validation.csv", "--trust-remote-code", named)
    assert (
        done.code == 2
        and "which this call does not name" in done.err
        and "--trust-remote-code ./evil" in done.err
    )
    assert not mark.exists()


def test_a_folder_does_not_pass_for_a_hub_id(cli: Any, yes: Path, mark: Path) -> None:
    (yes / "org").mkdir()
    (yes / "evil").rename(yes / "org" / "name")
    done = cli("predict", "org/name", "validation.csv", "--trust-remote-code", "org/name")
    assert done.code == 2 and "--trust-remote-code ./org/name" in done.err
    assert not mark.exists()


@pytest.mark.parametrize("given", [True, "", 1, [True]])
def test_a_yes_to_any_code_is_refused(yes: Path, mark: Path, given: Any) -> None:
    with pytest.raises(InputError, match="it takes the name of the repository"):
        bert_ft.load(yes / "evil", trust_remote_code=given)
    assert not mark.exists()


@pytest.mark.parametrize("key", ["run.trust_remote_code", "trust_remote_code"])
def test_a_setting_is_no_permission(cli: Any, yes: Path, mark: Path, key: str) -> None:
    for arguments in (("train", "task.toml"), ("check", "task.toml"), ("evaluate", "./evil", "--data", "validation.csv"),
                      ("predict", "./evil", "validation.csv"), ("reproduce", "task.toml", "-c", "./evil")):  # fmt: skip
        assert cli(*arguments, "--set", f"{key}=true").code == 2
    assert not mark.exists()


def test_the_children_of_a_reproduction_get_the_name() -> None:
    made = plan("rte", "org/name", seeds=1, trust_remote_code="org/name")
    assert "--trust-remote-code org/name" in made.runs[0].command
    assert "trust" not in plan("rte", "org/name", seeds=1).runs[0].command


# --- from the hub -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served")
    served.start()
    yield served
    served.stop()


LOAD = """
import json, sys
import bert_ft
for names in json.loads(sys.argv[2]):
    try:
        bert_ft.load(sys.argv[1], trust_remote_code=names)
        print("loaded")
    except bert_ft.InputError as error:
        print(str(error).replace(chr(10), " "))
"""


def loads(hub: Hub, tmp_path: Path, name: str, *names: Any) -> list[str]:
    done = subprocess.run([sys.executable, "-c", LOAD, name, json.dumps(names)], cwd=tmp_path, text=True, input="y\n" * 9,
                          env=os.environ | hub.environment(tmp_path / "home"), capture_output=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_code_on_the_hub(hub: Hub, tmp_path: Path, trained: Path, mark: Path) -> None:
    hub.add("models", "org/evil", with_code(trained / "model", tmp_path / "evil", mark, **SAYS_YES))
    refused = loads(hub, tmp_path, "org/evil", None, "org/other", "evil", "ORG/evil")
    assert all("--trust-remote-code org/evil" in line for line in refused) and len(refused) == 4, refused
    assert not mark.exists()
    assert loads(hub, tmp_path, "org/evil", "org/evil") == ["loaded"]
    assert mark.exists()


@pytest.mark.slow
def test_code_of_another_repository(hub: Hub, tmp_path: Path, trained: Path, mark: Path) -> None:
    """Naming the checkpoint is not enough where its code comes from elsewhere."""
    hub.add("models", "org/evil", with_code(trained / "model", tmp_path / "evil", mark, **SAYS_YES))
    pointing = with_code(trained / "model", tmp_path / "pointing", mark, code_of="org/evil", **SAYS_YES)
    hub.add("models", "org/pointing", pointing)
    refused = loads(hub, tmp_path, "org/pointing", None, "org/pointing", "org/evil")
    assert (
        "code would come from org/evil" in refused[1] and "code would come from org/pointing" in refused[2]
    ), refused
    assert not mark.exists()
    assert loads(hub, tmp_path, "org/pointing", ["org/pointing", "org/evil"]) == ["loaded"]
    assert mark.exists()


@pytest.mark.slow
def test_a_tokenizers_code(hub: Hub, tmp_path: Path, tiny_checkpoint: Path, mark: Path) -> None:
    """A tokenizer may bring code of its own, beside a model that needs none."""
    folder = tmp_path / "tokens"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "tokens.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom transformers import BertTokenizerFast as Own"
    )
    rewrite(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer",
            auto_map={"AutoTokenizer": ["tokens.Own", "tokens.Own"]})  # fmt: skip
    rewrite(folder / "config.json", **{key: SAYS_YES[key] for key in ("id2label", "label2id")},
            architectures=["BertForSequenceClassification"])  # fmt: skip
    hub.add("models", "org/tokens", folder)
    assert not any(
        line == "loaded" and mark.exists() for line in loads(hub, tmp_path, "org/tokens", None, "org/other")
    )
    assert not mark.exists()
    loads(hub, tmp_path, "org/tokens", "org/tokens")
    assert mark.exists()


# --- what is taken from a checkpoint's config -------------------------------------------------------------------------


def changed(trained: Path, at: Path, own: Any, **changes: Any) -> Path:
    shutil.copytree(trained / "model", at)
    rewrite(at / "config.json", bert_ft=own, **changes)
    return at


def test_only_what_prediction_needs_is_taken(cli: Any, trained: Path, tmp_path: Path) -> None:
    strange = {"family": "classification", "classification": {"truncation": "tail"}, "recipe": {"max_length": 9, "epochs": 7.0},
               "data": {"columns": {"text": "body"}, "path": "/etc", "train": "/etc/passwd", "label_names": {"a": "b"}},
               "run": {"data_dir": "/etc", "checkpoint": "org/other", "seed": 7}, "metric": {"compute": ["mcc"]},
               "batching": {"unpad": False}, "name": "../../x", "ner": {"context": "document"}}  # fmt: skip
    folder = changed(trained, tmp_path / "model", {"task": strange})
    task = bert_ft.load(folder).adapter.task
    assert (task.recipe.max_length, task.data.columns, task.options.truncation) == (
        9,
        {"text": "body"},
        "tail",
    )
    plain = bert_ft.load(changed(trained, tmp_path / "plain" / "model", {})).adapter.task
    taken = {"recipe.max_length": 9, "data.columns": {"text": "body"}, "classification.truncation": "tail"}
    assert task.override({"run.checkpoint": None}) == plain.override(taken | {"run.checkpoint": None})
    (tmp_path / "rows.csv").write_text("body\na fine film\n")
    done = cli("predict", folder, "rows.csv")
    assert (
        done.code == 0
        and "not taken from the model's config: 'batching', 'data.label_names', 'data.path'" in done.err
    )


@pytest.mark.parametrize(("own", "changes"), [
    ([], {}), ("text", {}), ({"task": []}, {}), ({"task": {"family": 3}}, {}), ({"task": {"family": "nothing"}}, {}),
    ({"task": {"family": "ner"}}, {}), ({"task": {"data": []}}, {}), ({"task": {"data": {"columns": {"text": 3}}}}, {}),
    ({"task": {"data": {"columns": "text"}}}, {}), ({"task": {"data": {"quoting": "no"}}}, {}),
    ({"task": {"recipe": {"max_length": "long"}}}, {}), ({"task": {"recipe": {"max_length": -1}}}, {}),
    ({"task": {"family": "classification", "classification": {"stride": "x"}}}, {}),
    ({"task": {"family": "classification", "classification": 3}}, {}),
    ({"tuned": []}, {}), ({"tuned": {"thresholds": {"pos": "x"}}}, {}), ({"tuned": {"thresholds": 1}}, {}),
    ({"tuned": {"null_threshold": None}}, {}), ({}, {"id2label": {"0": "a", "7": "b"}}),
    ({}, {"max_position_embeddings": "many"}), ({}, {"architectures": [3]}), ({}, {"architectures": "BertModel"}),
    ({}, {"id2label": ["a", "b"]}), ({}, {"id2label": 3}), ({}, {"problem_type": ["x"]}),
])  # fmt: skip
def test_odd_types_are_one_message(trained: Path, tmp_path: Path, own: Any, changes: Any) -> None:
    folder = changed(trained, tmp_path / "model", own, **changes)
    with pytest.raises(InputError):
        bert_ft.load(folder)


def test_attention_programs_of_the_hub_are_not_taken(trained: Path, tmp_path: Path) -> None:
    """`attn_implementation` may name a program that the hub serves, which `transformers` fetches and runs."""
    folder = changed(trained, tmp_path / "model", {}, attn_implementation="somebody/kernels")
    loaded = bert_ft.load(folder)
    assert loaded.unpadding.attn_implementation in ("sdpa", "eager")
    assert loaded.predict(["a fine film"])


def test_what_is_saved_is_what_is_taken(trained: Path) -> None:
    """Every key that a run writes into its model's config is read again: nothing is passed over."""
    loaded = loading.load_folder(str(trained / "model"))
    assert not loaded.notes and loaded.adapter.task.recipe.max_length == 16
