"""Folders that somebody else made: of vectors, of an exported graph, of a search, of many files. Nothing of them is run,
none of them names a file outside, and what is odd in them is one message."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from tests.security.hostile import ALL, TERMINAL
from tests.security.strangers import with_code

ROWS = [{"text": f"a {'warm' if i % 2 else 'dull'} film {i}", "label": "good" if i % 2 else "bad"} for i in range(12)]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others") / "run"
    bert_ft.finetune("classification", tiny_checkpoint, train=ROWS, validation=ROWS, max_steps=2, max_length=16,
                     output=folder, quiet=True)  # fmt: skip
    return folder


# --- vectors ----------------------------------------------------------------------------------------------------------

TRANSFORMER, POOLING = (
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
)
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
MEAN = {"1_Pooling/config.json": {"pooling_mode_mean_tokens": True}}


def dense(*shapes: tuple[int, ...]) -> Callable[[Path], None]:
    """Weights of these shapes."""

    def write(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        (folder / "2_Dense").mkdir()
        (folder / "2_Dense" / "config.json").write_text("{}")
        weights = dict(zip(("linear.weight", "linear.bias"), map(torch.zeros, shapes), strict=True))
        save_file(weights, folder / "2_Dense" / "model.safetensors")

    return write


def pipe(name: str) -> Callable[[Path], None]:
    """A pipe in the place of a file: who opens it waits for ever."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


Modules = list[dict[str, Any]]
VECTORS: dict[str, tuple[Modules, dict[str, Any], Callable[[Path], None] | None, str]] = {
    "default prompt": ([TRANSFORMER, POOLING], MEAN | {"config_sentence_transformers.json": {
        "prompts": {"q": "x"}, "default_prompt_name": ["q"]}}, None, "default_prompt_name"),
    "weights of no layer": ([TRANSFORMER, POOLING, DENSE], MEAN, dense((3,), (2, 2)), "no linear layer"),
    "weights and bias": ([TRANSFORMER, POOLING, DENSE], MEAN, dense((3, 32), (7,)), "no linear layer"),
    "absolute": ([TRANSFORMER, {"type": "x.Pooling", "path": "/etc"}], MEAN, None, "points outside"),
    "upward": ([TRANSFORMER, {"type": "x.Pooling", "path": "../st/1_Pooling"}], MEAN, None, "points outside"),
    "encoder upward": ([{"type": "x.Transformer", "path": "../tiny"}, POOLING], MEAN, None, "points outside"),
    "no name": ([TRANSFORMER, {"type": "x.Pooling", "path": "a" * 5000}], MEAN, None, "name too long"),
    "no file": ([TRANSFORMER, {"type": "x.Pooling", "path": "\ud800"}], MEAN, None, "no such file"),
    "long prompt": ([TRANSFORMER, POOLING], MEAN | {"config_sentence_transformers.json": {"prompts": {"q": "x" * 10**6}}}, None,
                    "10,000 are the most"),
    "activation": ([TRANSFORMER, POOLING, DENSE], MEAN | {"2_Dense/config.json": {"activation_function": f"os.{TERMINAL}"}}, None,
                   "is not known"),
    "pipe": ([TRANSFORMER, POOLING], {}, pipe("1_Pooling/config.json"), "not a regular file"),
    "pipe of weights": ([TRANSFORMER, POOLING, DENSE], MEAN, pipe("2_Dense/model.safetensors"), "no weights"),
}  # fmt: skip


def vectors_folder(tiny: Path, folder: Path, modules: Modules, files: dict[str, Any]) -> Path:
    shutil.copytree(tiny, folder)
    for name, value in {"modules.json": modules, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("name", VECTORS)
def test_a_folder_of_vectors_is_refused_in_one_message(
    tiny_checkpoint: Path, tmp_path: Path, cli: Any, name: str
) -> None:
    modules, files, change, message = VECTORS[name]
    folder = vectors_folder(tiny_checkpoint, tmp_path / "st", modules, files)
    if change is not None:
        change(folder)
    (tmp_path / "rows.csv").write_text("text\na warm film\n")
    done = cli("embed", folder, "rows.csv", "-o", "out.npy")
    assert done.code == 2 and message.lower() in done.err.lower(), done
    assert "\x1b" not in done.err and not (tmp_path / "out.npy").exists()


def test_a_folder_of_vectors_switches_no_code_on(tiny_checkpoint: Path, tmp_path: Path, cli: Any) -> None:
    """Whatever its files say of it: keys of sentence-transformers, and code beside them."""
    trusting = {
        "trust_remote_code": True,
        "model_args": {"trust_remote_code": True},
        "auto_model_name": "os.system",
    }
    files = MEAN | {"sentence_bert_config.json": trusting, "config_sentence_transformers.json": trusting}
    mark = tmp_path / "mark"
    own = with_code(tiny_checkpoint, tmp_path / "own", mark)
    folder = vectors_folder(
        own, tmp_path / "st", [TRANSFORMER, {**POOLING, "trust_remote_code": True}], files
    )
    (folder / "custom.py").write_text(f"open({str(mark)!r}, 'w')")
    (tmp_path / "rows.csv").write_text("text\na warm film\n")
    done = cli("embed", folder, "rows.csv", "-o", "out.npy")
    assert done.code == 2 and "--trust-remote-code" in done.err, done
    assert not mark.exists()
    modules = [TRANSFORMER, {"type": "custom.Module", "path": "1_Pooling"}]
    own = vectors_folder(tiny_checkpoint, tmp_path / "st2", modules, files)
    (own / "custom.py").write_text(f"open({str(mark)!r}, 'w')")
    done = cli("embed", own, "rows.csv", "-o", "out.npy")
    assert done.code == 2 and "Module" in done.err and not mark.exists(), done


# --- a graph ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    pytest.importorskip("onnx")
    from bert_ft.tools.export.export import export

    export(trained)
    return trained


def node(graph: Any, old: str, new: str) -> None:
    """Calls a value of a graph another name."""
    for each in graph.node:
        for names in (each.input, each.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


def external(place: str) -> Callable[[Any, Path], None]:
    """Weights in a file of their own."""

    def change(model: Any, folder: Path) -> None:
        from onnx import TensorProto

        (folder / "secret.bin").write_bytes(b"\x01" * 10_000_000)
        (folder / "onnx" / "link.bin").symlink_to(folder / "secret.bin")
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        size = len(largest.raw_data)
        largest.ClearField("raw_data")
        largest.data_location = TensorProto.EXTERNAL
        for key, value in {"location": place.format(folder), "offset": "0", "length": str(size)}.items():
            entry = largest.external_data.add()
            entry.key, entry.value = key, value

    return change


def other_input(model: Any, folder: Path) -> None:
    node(model.graph, "input_ids", f"ids{TERMINAL}")
    model.graph.input[0].name = f"ids{TERMINAL}"


def other_output(model: Any, folder: Path) -> None:
    node(model.graph, "logits", f"other{TERMINAL}")
    model.graph.output[0].name = f"other{TERMINAL}"


def wider(model: Any, folder: Path) -> None:
    from onnx import TensorProto, helper

    node(model.graph, "logits", "narrow")
    model.graph.node.append(helper.make_node("Concat", ["narrow", "narrow"], ["logits"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))


def constant(model: Any, folder: Path) -> None:
    from onnx import TensorProto, helper

    del model.graph.node[:], model.graph.initializer[:]
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [float("nan")])
    model.graph.node.append(helper.make_node("Constant", [], ["logits"], value=value))


def of_somebody(model: Any, folder: Path) -> None:
    from onnx import helper

    model.graph.node[0].domain = "somebody"
    model.opset_import.append(helper.make_opsetid("somebody", 1))


GRAPHS: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "weights outside": (external("../secret.bin"), "can't read this file"),
    "another input": (other_input, "which the tokenizer does not give"),
    "weights anywhere": (external("{}/secret.bin"), "can't read this file"),
    "weights by a link": (external("link.bin"), "can't read this file"),
    "another output": (other_output, "answering.json says logits"),
    "more logits": (wider, "2 logits each"),
    "no rows": (constant, "it gives arrays of (1,)"),
    "operators of somebody": (of_somebody, "can't read this file"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_of_somebody_else_is_refused_in_one_message(
    exported: Path, tmp_path: Path, cli: Any, name: str
) -> None:
    import onnx

    change, message = GRAPHS[name]
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    model = onnx.load(run / "onnx" / "model.onnx")
    change(model, run)
    (run / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "rows.csv").write_text("text\na warm film\n")
    done = cli("predict", run, "rows.csv", "--onnx")
    assert done.code == 2 and message in done.err and "\x1b" not in done.err, done


def test_a_graphs_own_settings_are_not_taken(exported: Path, tmp_path: Path, cli: Any) -> None:
    """onnxruntime's, which could name libraries to load and files to write."""
    import onnx

    run = Path(shutil.copytree(exported, tmp_path / "run"))
    model = onnx.load(run / "onnx" / "model.onnx")
    settings = {
        "optimized_model_filepath": str(tmp_path / "mark"),
        "session.custom_ops_library": "/nowhere.so",
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = "ort_config", json.dumps({"session_options": settings})
    (run / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "rows.csv").write_text("text\na warm film\n")
    assert cli("predict", run, "rows.csv", "--onnx").code == 0 and not (tmp_path / "mark").exists()


# --- a search ---------------------------------------------------------------------------------------------------------


def waiting(**attributes: Any) -> Callable[[Any, Path], None]:
    """A trial that waits to be taken, with these notes."""

    def change(study: Any, file: Path) -> None:
        import optuna

        study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs=attributes))

    return change


def queued(recipe: dict[str, Any]) -> Callable[[Any, Path], None]:
    return lambda study, file: study.enqueue_trial(recipe)


def statement(sql: str) -> Callable[[Any, Path], None]:
    def change(study: Any, file: Path) -> None:
        with sqlite3.connect(file) as connection:
            connection.executescript(sql)

    return change


STUDIES: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "a path": (waiting(first="../../owned"), "first = '../../owned'"),
    "a key that is not searched": (queued({"run.checkpoint": "/etc", "learning_rate": 1e-5}), "is not searched"),
    "a negative number": (waiting(first=-5), "first = -5"),
    "no number": (waiting(first=None), "first = None"),
    "a list": (waiting(repeats=[1]), "repeats = [1]"),
    "a note that is none": (waiting(note={TERMINAL: 1}), "note ="),
    "a value of another kind": (queued({"learning_rate": TERMINAL}), "learning_rate ="),
    "a class": (statement("""update trial_params set distribution_json='{"name": "os.system", "attributes": {}}'"""), "can't be read"),
    "no JSON": (statement("insert into trial_user_attributes(trial_id, key, value_json) values (1, 'note', '{')"), "can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_somebody_else_is_refused_in_one_message(
    tiny_checkpoint: Path, tmp_path: Path, cli: Any, reviews: Path, name: str
) -> None:
    """Its trials name folders, and set keys of the recipe; Optuna reads JSON, and no class by its name."""
    optuna = pytest.importorskip("optuna")
    given = ("classification", "-c", tiny_checkpoint, "--train", "train.csv", "--validation", "validation.csv", "-o", "look",
             "--space", "learning_rate=1e-5,1e-4", "--set", "max_steps=1", "--set", "max_length=16")  # fmt: skip
    assert cli("search", *given, "--trials", "1").code == 0
    (tmp_path / "look" / ".trial-..").mkdir()  # so that `.trial-../../owned.lock` is a path
    (tmp_path / "look" / "trial-..").mkdir()
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "look")}
    study = optuna.load_study(study_name="look", storage=f"sqlite:///{tmp_path / 'look' / 'study.db'}")
    change, message = STUDIES[name]
    change(study, tmp_path / "look" / "study.db")
    done = cli("search", *given, "--trials", "3")
    assert done.code == 2 and message in done.err and "\x1b" not in done.err, done
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "look")} == before


# --- many files -------------------------------------------------------------------------------------------------------

NAMES = [
    "..csv", "...csv", "a\nb.csv", f"x{TERMINAL}.csv".replace("/", "|"), "=cmd|' -x.csv", "-o.csv", "~.csv", "$(id).csv", " .csv",
    "a\\b.csv", "％2e％2e.csv", "*.csv", "[a].csv", "con.csv", os.fsdecode(b"caf\xe9.csv"), "<img src=x onerror=owned(1)>.csv",
]  # fmt: skip


def test_files_of_any_name_are_answered_in_the_folder_and_nowhere_else(
    trained: Path, tmp_path: Path, cli: Any
) -> None:
    """Names as a stranger's folder may have them: those that begin with a dot are hidden, the others each have an answer."""
    folder = tmp_path / "in" / "rows"
    for place in (folder, folder / "..more"):
        place.mkdir(parents=True)
        for number, name in enumerate(NAMES):
            (place / name).write_text(f"text\na warm film {number}\n")
    before = set(tmp_path.rglob("*"))
    done = cli("predict", trained, folder, "-o", tmp_path / "out" / "answers")
    assert done.code == 0 and "\x1b" not in done.err + done.out and "\u202e" not in done.err, done
    made = {
        path.relative_to(tmp_path / "out" / "answers")
        for path in (tmp_path / "out" / "answers").iterdir()
        if path.is_file()
    }
    assert {str(path) for path in made} == {name for name in NAMES if not name.startswith(".")}
    assert {
        path
        for path in tmp_path.rglob("*")
        if path.parts[: len(tmp_path.parts) + 1] != (*tmp_path.parts, "out")
    } == before


def test_records_of_answers_lead_nowhere(trained: Path, tmp_path: Path, cli: Any) -> None:
    """A stranger's folder of answers, with records that name files elsewhere; a pipe and a link in their place."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("text\na warm film\n")
    (tmp_path / "mine.csv").write_text("mine")
    assert cli("predict", trained, "rows", "-o", "answers").code == 0
    records = tmp_path / "answers" / ".answered"
    [record] = records.glob("*.json")
    odd = json.loads(record.read_text()) | {"name": "../mine.csv", "told": [f"line{ALL}"], "rows": 10**30}
    (records / f"{'0' * 32}.json").write_text(json.dumps(odd))
    (records / f"{'1' * 32}.json").write_text(json.dumps(odd | {"name": f"../{TERMINAL}"}))
    os.mkfifo(records / f"{'2' * 32}.json")
    (records / f"{'3' * 32}.json").symlink_to(tmp_path / "mine.csv")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"told": [f"line{TERMINAL}"]}))
    done = cli("predict", trained, "rows", "-o", "answers")
    assert done.code in (0, 2) and "\x1b" not in done.err + done.out, done
    assert (tmp_path / "mine.csv").read_text() == "mine" and "mine.csv" not in done.out


# --- wrong labels -----------------------------------------------------------------------------------------------------


def test_a_list_of_wrong_labels_has_no_formulas(tmp_path: Path) -> None:
    """What `check --with RUN --export FILE` writes: no cell that a spreadsheet would compute."""
    from bert_ft.tools.wrong_labels import export

    formulas = ["=HYPERLINK(1)", "+1+1", "-1+1|cmd", "@SUM(1)", "\t=1", "\r=1", "＝1"]
    lines = [{"place": f"{text}, row 1", "fingerprint": "r0", "text": text, "label": text, "suggestion": [text], "quality": 0.5}
             for text in formulas]  # fmt: skip
    for number, line in enumerate(lines):
        export(tmp_path / f"{number}.csv", [line])
        with (tmp_path / f"{number}.csv").open(encoding="utf-8-sig", newline="") as stream:
            header, cells = csv.reader(stream)
        assert not [cell for cell in (*header, *cells) if cell[:1] in (*"=+-@\t\r", "＝")], cells
        assert any(formulas[number].strip() in cell for cell in cells)
