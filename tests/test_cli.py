"""The command line: what it accepts and refuses, its exit codes, its two outputs, and running it again."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sklearn.metrics import matthews_corrcoef

from bert_ft.cli import main
from bert_ft.config.catalog import load_task
from bert_ft.config.task import TABLES
from bert_ft.engine import feature_cache
from bert_ft.errors import InputError
from bert_ft.rundir.folder import RunDir

Cli = Callable[..., Any]
QUICK = {"epochs": 2, "batch-size": 8, "max-length": 32, "lr": "1e-3"}
ROWS = "text,label\na fine film,pos\na dull film,neg\na warm film,pos\na lazy film,neg\n"


def flags(**options: Any) -> list[str]:
    """`--key value` of each; nothing of a None, the bare flag of a True."""
    given = [(f"--{key.replace('_', '-')}", value) for key, value in options.items() if value is not None]
    return [word for key, value in given for word in ([key] if value is True else [key, str(value)])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with data, checkpoint and a finished run of `command_of(folder)`; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_checkpoint, folder / "bert")
    for name in ("train", "validation", "test"):
        (folder / f"{name}.csv").write_text(ROWS + f"the {name} film,pos\n")
    with pytest.raises(SystemExit) as left:
        main([*command_of(folder), "--output", str(folder / "run")])
    assert left.value.code == 0
    return folder


def command_of(folder: Path, **changes: Any) -> list[str]:
    sets = {name: folder / f"{name}.csv" for name in ("train", "validation", "test")}
    return ["train", "classification", *flags(**{"checkpoint": folder / "bert"} | sets | QUICK | changes)]


@pytest.fixture
def mine(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, `run` in the working directory."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def stamps(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != ".lock"}


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["tasks"], ["tasks", "show", "mrpc"], ["runs"], ["cache"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = """
import sys
from bert_ft.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    heavy = {"torch", "transformers", "datasets", "evaluate", "sklearn", "scipy", "pandas"} & set(sys.modules)
    sys.exit(f"imported: {heavy}" if heavy else left.code)
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout or "no runs" in done.stderr


def test_help_is_quick() -> None:
    """In CPU time, which what else the machine does changes little."""

    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "bert_ft", "--help"], capture_output=True, check=True)
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    assert min(seconds() for _ in range(3)) < 0.4


# --- options from the schema ------------------------------------------------------------------------------------------


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bert_ft", *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_options_have_the_schema_s_words_and_types() -> None:
    """`--help` says of each key what the schema says, and has every key of `[execution]` but `signals`."""
    text = help_of("train")
    keys = [f"execution.{key}" for key in TABLES["execution"].model_fields if key != "signals"]
    keys += ["run.seed", "run.data_dir", "run.folds", "data.limit_train"]
    keys += [f"recipe.{key}" for key in ("learning_rate", "batch_size", "epochs", "max_steps", "max_length")]
    whole, number, word = (
        r"(<int>|INTEGER)",
        r"(<float>|FLOAT)",
        r"(<str>|TEXT)",
    )  # typer's, and those of its oldest
    kinds = {"seed": whole, "learning_rate": number, "epochs": number, "save_every": word, "log_with": word}
    for key in keys:
        table, _, name = key.partition(".")
        description = TABLES[table].model_fields[name].description
        assert description and description[1:] in text, key
        option = f"--{name.replace('_', '-')}"
        assert option in text and (
            name not in kinds or re.search(rf"{option}(, ?--lr)? {kinds[name]} ", text)
        )
    assert "--signals" not in text and "--no-check" in text and "--no-save-model" in text
    assert "[default: (10min)]" in text, "what a key of [execution] is, where neither file nor line says it"


@pytest.mark.parametrize(("words", "given"), [
    ([], {}),
    (["--lr", "1e-4", "--epochs", "0.5", "--max-steps", 3], {"recipe.learning_rate": 1e-4, "recipe.epochs": 0.5,
                                                             "recipe.max_steps": 3}),
    (["--set", "lr_=1", "--set", "learning_rate=1", "--lr", 2], {"lr_": 1, "recipe.learning_rate": 2.0}),
    (["--no-check", "--no-save-model", "--save-every", 50], {"check": False, "save_model": False, "save_every": "50"}),
    (["--overwrite", "--keep-checkpoints", "--log-with", "tensorboard"],
     {"overwrite": True, "keep_checkpoints": True, "log_with": "tensorboard"}),
    (["--resume", "--quiet", "--seed", 7, "--folds", 3, "--data-dir", "d"],
     {"resume": True, "quiet": True, "seed": 7, "folds": 3, "data_dir": "d"}),
    (["--text", "a", "--label", "b", "--multi-label", "--limit-train", 9],
     {"data.columns.text": "a", "data.columns.label": "b", "data.problem_type": "multi_label_classification",
      "data.limit_train": 9}),
    (["--regression", "--tokens", "0", "--tags", "-1"],
     {"data.problem_type": "regression", "data.columns.tokens": "0", "data.columns.tags": "-1"}),
])  # fmt: skip
def test_only_what_the_line_says_is_set(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[Any], given: dict[str, Any]
) -> None:
    """So that a file's `[execution]` and `[recipe]` hold where the line is silent."""
    from bert_ft.finetuning import finetune as module

    calls: list[dict[str, Any]] = []

    def finetune(*arguments: Any, **keywords: Any) -> None:
        calls.append(keywords)
        raise InputError("far enough")

    monkeypatch.setattr(module, "finetune", finetune)
    assert cli("train", "mrpc", *words).code == 2
    always = {"output", "train", "validation", "test", "signals", "trust_remote_code"}
    assert {key: value for key, value in calls[0].items() if key not in always} == given


@pytest.mark.parametrize(
    ("command", "key"),
    [
        *(("train", key) for key in ("output", "task", "adapter", "model", "metrics")),
        *(("curve", key) for key in ("seeds", "shares")),
        *(("search", key) for key in ("trials", "space", "storage")),
        *(("reproduce", key) for key in ("margin", "reference", "seeds")),
        ("check", "task"),
    ],
)
def test_arguments_of_functions_are_no_keys(cli: Cli, command: str, key: str) -> None:
    """They were handed on as such: a TypeError, or an argument that nobody has checked."""
    done = cli(command, "sst2", "--checkpoint", "nosuch", "--set", f"{key}=1")
    assert done.code == 2 and done.err.startswith(f"bert-ft: --set: '{key}' is no key of a task\n"), done


def test_options_of_other_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from bert_ft.tools import check
    from bert_ft.tools.reproduce import plan
    from bert_ft.tools.search import search

    calls: list[dict[str, Any]] = []

    def caught(*arguments: Any, **keywords: Any) -> None:
        calls.append(keywords)
        raise InputError("far enough")

    for module, name in ((check, "check"), (search, "search"), (plan, "plan")):
        monkeypatch.setattr(module, name, caught)
    for line in (["check", "mrpc"], ["search", "mrpc"], ["reproduce", "mrpc", "-c", "x", "--plan"]):
        assert cli(*line, "--data-dir", "d", "--set", "epochs=2").code == 2
        assert (
            calls[-1]["data_dir"] == "d" and calls[-1]["recipe.epochs"] == 2 and "save_every" not in calls[-1]
        )
    assert cli("search", "mrpc", "--save-every", "5", "--regression").code == 2
    assert calls[-1]["save_every"] == "5" and calls[-1]["data.problem_type"] == "regression"
    assert cli("reproduce", "mrpc", "-c", "x", "--plan", "--max-steps", "5", "--limit-train", "6").code == 2
    assert calls[-1]["recipe.max_steps"] == 5 and calls[-1]["data.limit_train"] == 6


# --- bad input --------------------------------------------------------------------------------------------------------


def spoilt(change: Callable[[Path], object], *remove: str) -> Callable[[Path], None]:
    """A change to the checkpoint's folder."""

    def spoil(folder: Path) -> None:
        for name in remove:
            (folder / "bert" / name).unlink()
        change(folder / "bert")

    return spoil


def cut(bert: Path) -> None:
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def flipped(bert: Path) -> None:
    weights = bytearray((bert / "model.safetensors").read_bytes())
    weights[20] ^= 0xFF
    (bert / "model.safetensors").write_bytes(weights)


def longer_vocabulary(bert: Path) -> None:
    tokenizer = json.loads((bert / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(9)}
    (bert / "tokenizer.json").write_text(json.dumps(tokenizer))


def config(**keys: Any) -> Callable[[Path], object]:
    def change(bert: Path) -> None:
        file = bert / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))

    return change


def file(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def nothing(folder: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], object], dict[str, Any], str, str]] = {
    # name: what is spoilt, what the command says otherwise, where and what, remedy
    "task": (nothing, {"task": "clasification"}, "unknown task 'clasification'", "did you mean 'classification'"),
    "task file": (nothing, {"task": "my.toml"}, "my.toml: no such task file", "`bert-ft tasks` lists"),
    "key of the task file": (file("my.toml", "[recipe]\nepoch = 1"), {"task": "my.toml"},
                             "my.toml: unknown key 'recipe.epoch'", "did you mean 'epochs'?"),
    "key": (nothing, {"set": "recipe.epoch=1"}, "unknown key 'recipe.epoch'", "did you mean 'epochs'?"),
    "key alone": (nothing, {"set": "epoch=1"}, "unknown key 'epoch'", "did you mean 'epochs'?"),
    "no value": (nothing, {"set": "epochs"}, "--set epochs: KEY=VALUE is wanted", "learning_rate=5e-5"),
    "family": (nothing, {"set": "family=nerr"}, "unknown key 'family'", "known"),
    "text column": (nothing, {"text": "texts"}, r"train.csv: no column 'texts'", "did you mean 'text'?"),
    "label column": (nothing, {"label": "stars"}, r"train.csv: no column 'stars'", "known: label, text"),
    "role": (nothing, {"set": "data.columns.txt=text"}, "data.columns: .* has no 'txt'", "text, text_pair, label"),
    "labels": (nothing, {"set": 'data.labels=["pos", "bad"]'}, r"train.csv, row 2: label 'neg'", "known: bad, pos"),
    "positive label": (nothing, {"set": "positive=good"}, "metric.positive = 'good' is not a label", "known: neg, pos"),
    "label that training lacks": (file("validation.csv", ROWS + "so so,neutral\n"), {},
                                  r"validation.csv, row 5: label 'neutral': the training rows", "known: neg, pos"),
    "label that only test has": (file("test.csv", ROWS + "so so,neutral\n"), {"test": "test.csv"},
                                 r"test.csv, row 5: label 'neutral': the training rows do not", "known: neg, pos"),
    "half a pair": (file("train.csv", "text,label,other\na,pos,b\nc,neg,\n"), {"text-pair": "other"},
                    r"train.csv, row 2: column 'other' has no text", "remove the row"),
    "two columns of one name": (file("train.csv", "text,text,label\na,b,pos\n"), {},
                                "train.csv: two columns are called 'text'", "rename"),
    "label near another": (file("validation.csv", ROWS + "so so,Pos\n"), {},
                           r"validation.csv, row 5: label 'Pos'", "did you mean 'pos'"),
    "one label": (file("train.csv", "text,label\na,pos\nb,pos\n"), {}, r"train.csv: only one label \('pos'\)", "two"),
    "float label": (file("train.csv", "text,label\na,0.5\nb,1.5\n"), {}, "train.csv: .* such as 0.5", "regression"),
    "float labels in JSON": (file("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0.5}'),
                             {"train": "t.jsonl"}, "t.jsonl, row 2: .* 0.5", "regression"),
    "no number": (nothing, {"regression": True}, "train.csv, row 1: column 'label' has 'pos'", "number"),
    "no file": (nothing, {"train": "nowhere.csv"}, "nowhere.csv: no such file", ""),
    "kind of file": (file("t.xls", "x"), {"train": "t.xls"}, "t.xls: a '.xls' file", "use one of .json"),
    "folder for a file": (nothing, {"train": "bert"}, "bert: this is a folder, not a file", "--set data.path=DIR"),
    "no validation": (nothing, {"validation": None}, "no data for 'validation'", "--validation 10%"),
    "share": (nothing, {"validation": "ten%"}, "data.validation = 'ten%'", "10%"),
    "empty file": (file("train.csv", ""), {}, "train.csv: the file is empty", ""),
    "no rows": (file("train.csv", "text,label\n"), {}, "train.csv: no rows below the header", ""),
    "missing column": (file("validation.csv", "text\na\n"), {}, "validation.csv: no column 'label'", "known: text"),
    "ragged": (file("train.csv", ROWS + "so, so,pos\n"), {}, "train.csv, row 5: 3 cells", "quote cells"),
    "null text": (file("train.csv", ROWS + ",pos\n"), {}, "train.csv, row 5: .* has no text", "remove the row"),
    "null label": (file("validation.csv", ROWS + "so so,\n"), {}, "validation.csv, row 5: .* no label", "give column"),
    "learning rate": (nothing, {"lr": 0}, r"recipe.learning_rate = 0.0: .*greater than 0", ""),
    "batch": (nothing, {"batch-size": -1}, r"recipe.batch_size = -1: .*greater than 0", ""),
    "epochs": (nothing, {"epochs": "inf"}, r"recipe.epochs = inf: .*finite", ""),
    "no number at all": (nothing, {"lr": "high"}, "'--lr': .* valid (number|float)", ""),
    "option": (nothing, {"learnig-rate": 1}, "No such option.* '?--learnig-rate", "--learning-rate"),
    "length": (nothing, {"max-length": 999}, "recipe.max_length: .* has 128 positions", "max_length=128"),
    "metric": (nothing, {"set": "compute=[\"pearson\"]"}, "metric 'pearson' is not one of", "did you mean"),
    "best": (nothing, {"set": "best=f1"}, "metric.best = 'f1' is not one of the metrics that are computed", "known: accuracy"),
    "weights of classes": (nothing, {"set": "class_weights={pos=1.0}"}, "recipe.class_weights: .* 'neg'", "neg, pos"),
    "precision": (nothing, {"set": "precision=fp16"}, "recipe.precision: fp16 needs a CUDA device", "auto"),
    "no checkpoint": (nothing, {"checkpoint": None}, "no checkpoint", "--checkpoint ORG/NAME"),
    "no such checkpoint": (nothing, {"checkpoint": "./nowhere"}, "./nowhere: no such folder", "hub id"),
    "no such hub id": (nothing, {"checkpoint": "nobody/has-this"}, "nobody/has-this: .*hub", "check the id"),
    "file as checkpoint": (nothing, {"checkpoint": "train.csv"}, "train.csv: .* this is a file", ""),
    "run without a model": (file("run2.toml", ""), {"checkpoint": "half"}, "half: this run has no model yet", "finish"),
    "empty checkpoint": (nothing, {"checkpoint": "empty"}, "empty: the folder has no config.json", "copy them all"),
    "no tokenizer": (spoilt(nothing, "tokenizer.json"), {}, "bert: the folder has no tokenizer", "copy tokenizer.json"),
    "tokenizer of another model": (spoilt(longer_vocabulary), {}, "bert: the tokenizer has", "own tokenizer"),
    "corrupt tokenizer": (spoilt(file("tokenizer.json", "{")), {}, "bert: ", "use an encoder that|copy it again"),
    "no weights": (spoilt(nothing, "model.safetensors"), {}, "bert: .*no .*model.safetensors", ""),
    "truncated weights": (spoilt(cut), {}, "bert: the weight file is corrupt", "copy it again"),
    "flipped header": (spoilt(flipped), {}, "bert: the weight file is corrupt", "copy it again"),
    "empty weights": (spoilt(file("model.safetensors", "")), {}, "bert: the weight file is corrupt", "copy it again"),
    "corrupt pickle": (spoilt(file("pytorch_model.bin", "x" * 99), "model.safetensors"), {},
                       "bert: the weight file is corrupt", "copy it again"),
    "no config": (spoilt(nothing, "config.json"), {}, "bert: .*config", ""),
    "corrupt config": (spoilt(file("config.json", "{")), {}, "bert: .*", "use an encoder that"),
    "unknown architecture": (spoilt(config(model_type="brt")), {}, "bert: .*brt", ""),
    "other shapes": (spoilt(config(hidden_size=64)), {}, "bert: the checkpoint .*lacks .* weights", "encoder"),
    "tokens without embeddings": (spoilt(config(vocab_size=9)), {}, "bert: ", ""),
    "weights of another architecture": (spoilt(config(model_type="distilbert")), {}, "bert: the checkpoint", "encoder"),
    "other run there": (file("busy/x", ""), {"output": "busy"}, "busy: this folder holds something that is not a run", "--output"),
    "file there": (nothing, {"output": "train.csv"}, "train.csv: ", "--output"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli: Cli, tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """One message that says where and what, and the remedy; code 2; no run."""
    spoil, changes, what, remedy = BAD[name]
    shutil.copytree(tiny_checkpoint, tmp_path / "bert")
    for folder in ("empty", "busy", "half"):
        (tmp_path / folder).mkdir()
    (tmp_path / "half" / "task.toml").write_text("")
    for part in ("train", "validation"):
        (tmp_path / f"{part}.csv").write_text(ROWS)
    spoil(tmp_path)
    options = {
        "checkpoint": "bert",
        "train": "train.csv",
        "validation": "validation.csv",
        "output": "run",
    } | QUICK
    task = changes.get("task", "classification")
    done = cli("train", task, *flags(**options | {k: v for k, v in changes.items() if k != "task"}))
    assert done.code == 2, done
    assert done.out == ""
    told, *rest = re.split(r"^(?:bert-ft|Error): ", done.err, flags=re.MULTILINE)[1:]
    assert not rest, "one message"
    assert done.err.startswith(("bert-ft: ", "Usage: ")), "and nothing beside it"
    assert re.search(what, told.splitlines()[0]), told
    assert re.search(remedy, told), told
    assert len(told.splitlines()) <= 3, told
    assert len(told) < 500, told
    assert RunDir(tmp_path / "run").state != "finished"
    assert not list(tmp_path.rglob("results.json"))


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_an_address_is_no_folder_right_here(
    cli: Cli, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`s3://bucket/run` is a relative path to Python, of a folder `s3:`; wherever a path may stand it is refused before
    anything is computed or made. A folder that is really called so is a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    model, rows = ["-c", str(tiny_checkpoint)], ["--train", "rows.csv", "--validation", "50%"]
    for line in (
        ["train", "classification", *model, *rows, "-o", "s3://bucket/run"],
        ["train", "classification", *model, "--train", "https://example.com/rows.csv"],
        ["train", "classification", *model, "--train", "rows.csv", "--validation", "gs://bucket/rows.csv"],
        ["check", "classification", "--train", "s3://bucket/rows.csv"],
        ["predict", "gs://bucket/run", "rows.csv"],
        ["predict", str(tiny_checkpoint), "s3://bucket/*.parquet", "-o", "out"],
        ["embed", str(tiny_checkpoint), "rows.csv", "-o", "abfs://box@account/x.npy"],
        ["search", "classification", *model, *rows, "-o", "s3://bucket/search"],
        ["curve", "classification", *model, *rows, "-o", "s3://bucket/curve"],
        ["reproduce", "rte", *model, "-o", "s3://bucket/suite"],
        ["runs", "s3://bucket"],
        ["tasks", "copy", "mrpc", "s3://bucket/mrpc.toml"],
        ["train", "classification", "-c", "s3://bucket/model", *rows],
        ["embed", "s3://bucket/model", "rows.csv", "-o", "x.npy"],
        ["report", "s3://bucket/run"],
        ["export", "s3://bucket/run"],
        ["push", "s3://bucket/run", "name/of"],
    ):
        done = cli(*line)
        address = next(word for word in line if "://" in word)
        assert done.code == 2, line
        said = done.err.splitlines()[-2:]
        assert address.split("/")[-1] in done.err and "Traceback" not in done.err, line
        refused = (
            f"an address ({address.partition('://')[0]}://) is no path" in said[0] and "rclone" in said[1]
        )
        assert refused, (line, said)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"], line
    for data in (
        'train = "s3://b/x.csv"',
        'path = "s3://b"',
        'label_names = "s3://b/x.csv"\ntrain = "rows.csv"',
    ):
        Path("own.toml").write_text(f'family = "classification"\n[data]\n{data}\n')
        done = cli("check", "own.toml")
        assert done.code == 2 and "an address (s3://) is no path" in done.err, data
    Path("own.toml").unlink()
    done = cli("search", "classification", *model, *rows, "--storage", "s3://bucket/x", "-o", "search")
    assert done.code == 2 and not Path("search").exists()
    (tmp_path / "s3:").mkdir()
    shutil.copy("rows.csv", "s3:/rows.csv")
    assert cli("check", "classification", "--train", "s3:/rows.csv", "--validation", "50%").code == 0


@pytest.mark.parametrize(
    ("output", "code"), [("train.csv/run", 2), ("/proc/run", 1), ("/sys/run", 1), ("/dev/null/run", 2)]
)
def test_folder_that_can_not_be_written(cli: Cli, finished: Path, output: str, code: int) -> None:
    """A file in the way is the user's, a disk that can't be written the machine's."""
    if not Path("/sys").is_dir() and output.startswith(("/proc", "/sys")):
        pytest.skip("no such place on this machine")
    done = cli(*command_of(finished), "--output", output.replace("train.csv", str(finished / "train.csv")))
    assert done.code == code, done
    message = done.err[done.err.index("bert-ft: ") :]
    assert re.search(r"run\b.*: ", message)
    assert "choose another place with --output" in message


def test_disk_that_fills_up(
    cli: Cli, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever file it happens: code 1, one message, and a run that does not look whole; then it trains anew."""
    real, room = Path.replace, [0]

    def replace(self: Path, target: Any) -> Path:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for written in range(20):
        room[0] = written
        done = cli(*command_of(finished, epochs=1), "--output", "run")
        if done.code == 0:
            break
        assert done.code == 1, done
        assert re.search(r"^bert-ft: .*run.*: the disk is full\n  .*--output", done.err, re.MULTILINE), (
            done.err
        )
        assert RunDir(tmp_path / "run").state != "finished"
        assert not (tmp_path / "run" / "results.json").exists()
    assert written >= 6
    assert RunDir(tmp_path / "run").state == "finished"
    assert not list((tmp_path / "run").rglob("*.tmp"))


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_results_on_stdout_progress_on_stderr(cli: Cli, finished: Path) -> None:
    done = cli(*command_of(finished, json=True), "--output", "run")
    results = json.loads(done.out)
    assert results == RunDir("run").results()
    assert results["metrics"].keys() == {"validation", "test"}
    assert "run folder: run" in done.err
    assert re.search(r"step 2/2 +epoch 2.00 +loss \d", done.err)
    assert "\x1b" not in done.err, "no colours, no bar: it is no terminal"
    assert all(0 <= value <= 1 for values in results["metrics"].values() for value in values.values())


def test_tables_and_json_agree(cli: Cli, mine: Path) -> None:
    for other in ("half", "later"):
        (mine.parent / other).mkdir()
        for name in ("task.toml", "environment.json"):
            shutil.copy(mine / name, mine.parent / other)
    (mine.parent / "later" / "task.toml").write_text("colour = 'a key of a later version'")
    listing = cli("runs", ".", "--json")
    listed = json.loads(listing.out)
    states = {row["run"]: row["state"] for row in listed}
    assert states == {"half": "unfinished", "later": "unreadable", "run": "finished"}
    assert "later/task.toml: unknown key 'colour'" in listing.err
    assert listed.pop(1)["task"] is None
    assert listed[1]["metric"] == "validation/accuracy"
    assert listed[1]["value"] == RunDir(mine).results()["metrics"]["validation"]["accuracy"]
    assert f"{listed[1]['value']:.4f}" in cli("runs", ".").out
    assert json.loads(cli("runs", "nowhere", "--json").out) == []
    assert {row["task"] for row in json.loads(cli("tasks", "--json").out)} >= {"sst2", "mrpc", "stsb"}
    shown = json.loads(cli("tasks", "show", "mrpc", "--json").out)
    assert shown["recipe"]["learning_rate"] == 3e-5
    assert load_task(mine / "task.toml").name == "own-classification"


# --- running it again -------------------------------------------------------------------------------------------------


def test_again(cli: Cli, finished: Path, mine: Path) -> None:
    before = stamps(mine)
    done = cli(*command_of(finished), "--output", "run")
    assert done.code == 0
    assert "is finished already: nothing to do" in done.err
    assert json.loads(cli(*command_of(finished, json=True), "--output", "run").out) == RunDir(mine).results()
    assert stamps(mine) == before
    RunDir(mine).report_html.unlink()  # as of a run that was killed before its pages
    assert "is finished already: its pages are made" in cli(*command_of(finished), "--output", "run").err
    assert RunDir(mine).report_html.is_file()


@pytest.mark.parametrize(("changes", "difference"), [
    ({"lr": "2e-3"}, "recipe.learning_rate: 0.001 -> 0.002"),
    ({"seed": 7}, "run.seed: 42 -> 7"),
    ({"test": None}, "data.test: .*test.csv -> .none."),
    ({"set": "positive=pos"}, "metric.positive: .none. -> pos"),
    ({"train": "other.csv"}, "fingerprint.data: [0-9a-f]+"),
    ({"checkpoint": "bert2"}, "run.checkpoint: .* -> /"),
])  # fmt: skip
def test_again_with_a_difference(
    cli: Cli, finished: Path, mine: Path, changes: dict[str, Any], difference: str
) -> None:
    (mine.parent / "other.csv").write_text(ROWS + "another film,neg\n")
    shutil.copytree(finished / "bert", mine.parent / "bert2")
    if "checkpoint" in changes:  # the same weights elsewhere would be the same checkpoint
        weights = load_file(mine.parent / "bert2" / "model.safetensors")
        weights[min(weights)] += 1
        save_file(weights, mine.parent / "bert2" / "model.safetensors", {"format": "pt"})
    before = stamps(mine)
    done = cli(*command_of(finished, **changes), "--output", "run")
    assert (done.code, done.out) == (2, "")
    assert re.search(difference, done.err)
    assert "--overwrite" in done.err
    assert stamps(mine) == before


def test_again_with_other_files_in_the_same_places(
    cli: Cli, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "all", ignore=shutil.ignore_patterns("run"))
    here = [*command_of(tmp_path / "all"), "--output", "run"]
    assert cli(*here).code == 0
    with (tmp_path / "all" / "train.csv").open("a") as stream:
        stream.write("one more,neg\n")
    done = cli(*here)
    assert done.code == 2
    assert "fingerprint.data" in done.err
    evaluated = cli("evaluate", "run")
    assert evaluated.code == 2
    assert "the data has changed since this run was trained" in evaluated.err
    assert cli(*here, "--overwrite").code == 0
    assert cli(*here).code == 0, "and what lies there now is that run"
    assert RunDir("run").results()["counts"]["train"]["rows"] == 6


def test_no_clipping(cli: Cli, finished: Path) -> None:
    assert cli(*command_of(finished, set="max_grad_norm=0"), "--output", "run").code == 0
    losses = [entry for entry in RunDir("run").log() if "loss" in entry]
    assert losses
    assert all(entry["grad_norm"] is None for entry in losses)


def test_unfinished_run_is_trained_to_its_end(cli: Cli, finished: Path, mine: Path) -> None:
    whole = RunDir(mine).results()
    (mine / "results.json").unlink()
    shutil.rmtree(mine / "model")
    assert cli("runs", ".").out.count("unfinished") == 1
    assert cli("evaluate", "run").code == 2
    assert cli(*command_of(finished), "--output", "run").code == 0
    assert {**RunDir(mine).results(), "timing": 0} == {**whole, "timing": 0}


@pytest.mark.parametrize("overwrite", [True, None])
def test_foreign_folder_is_left_alone(
    cli: Cli, finished: Path, tmp_path: Path, overwrite: bool | None
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    done = cli(*command_of(finished, overwrite=overwrite), "--output", "thesis")
    assert (done.code, done.out) == (2, "")
    assert "thesis" in done.err
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_gives_the_results_of_training(cli: Cli, finished: Path, mine: Path) -> None:
    metrics = RunDir(mine).results()["metrics"]
    before = stamps(mine)
    done = cli("evaluate", "run", "--json")
    assert json.loads(done.out) == metrics
    data = ("--data", finished / "validation.csv", "--json")
    assert json.loads(cli("evaluate", "run", *data).out) == {"validation": metrics["validation"]}
    assert json.loads(cli("evaluate", "run/model", *data).out) == {"validation": metrics["validation"]}
    own = ("--task", "run/task.toml", "--json")
    assert json.loads(cli("evaluate", "run/model", *own).out) == metrics
    assert stamps(mine) == before


def test_evaluate_of_rows_held_out(cli: Cli, finished: Path) -> None:
    """The run's own split is found again, also where only some of the training rows were used."""
    options = {
        "validation": "40%",
        "test": None,
        "limit-train": 2,
        "set": "compute=['accuracy', 'f1']",
        "json": True,
    }
    trained = json.loads(cli(*command_of(finished, **options), "--output", "run").out)
    assert (trained["counts"]["train"]["rows"], trained["counts"]["validation"]["rows"]) == (2, 2)
    assert json.loads(cli("evaluate", "run", "--json").out) == trained["metrics"]


@pytest.mark.parametrize(("arguments", "what"), [
    (["run/model"], "which rows"),
    (["run", "--data", "nowhere.csv"], "nowhere.csv: no such file"),
    (["run", "--data", "strange.csv"], "strange.csv, row 1: label 'odd'"),
    (["bert", "--data", "strange.csv"], "bert"),
    (["nowhere"], "nowhere"),
    (["nowhere", "--data", "strange.csv"], "nowhere"),
    (["run/model", "--task", "stsb"], "run/model"),
])  # fmt: skip
def test_evaluate_bad_input(cli: Cli, mine: Path, finished: Path, arguments: list[str], what: str) -> None:
    (mine.parent / "strange.csv").write_text("text,label\na,odd\n")
    shutil.copytree(finished / "bert", mine.parent / "bert")
    done = cli("evaluate", *arguments)
    assert (done.code, done.out) == (2, ""), done
    assert what in done.err, done.err


# --- a process of its own ---------------------------------------------------------------------------------------------


def test_interrupt(finished: Path, tmp_path: Path) -> None:
    """Ctrl-C: code 130, one line, and a run that is not finished."""
    arguments = [*command_of(finished, epochs=100_000, json=True), "--output", "run"]
    running = subprocess.Popen([sys.executable, "-m", "bert_ft", *arguments], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "run the same command (without --overwrite) to continue from there" in err
    assert "Traceback" not in err
    assert RunDir(tmp_path / "run").state == "unfinished"


def test_offline_by_itself(command: Cli, finished: Path, tmp_path: Path) -> None:
    """With data and checkpoint on disk nothing reaches for the network, also where nobody said it is not there."""
    (tmp_path / "sitecustomize.py").write_text("""
import socket
def refuse(*arguments, **options):
    import os
    print("REACHED FOR THE NETWORK", arguments[:2], flush=True)
    os._exit(99)
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
""")  # fmt: skip
    online = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    done = command(*command_of(finished, epochs=1), "--output", "run", **online)
    assert done.code == 0, done
    assert (tmp_path / "run" / "results.json").is_file()


# --- several evaluation sets ------------------------------------------------------------------------------------------


@pytest.fixture
def nli(cli: Cli, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A finished run of MNLI on files of its original form, at most 30 rows each: `run`, with the files in `glue`."""
    (tmp_path / "glue" / "MNLI").mkdir(parents=True)
    (tmp_path / "glue" / "AX").mkdir()
    for name, rows in (
        ("train", 30),
        ("dev_matched", 8),
        ("dev_mismatched", 5),
        ("test_matched", 3),
        ("test_mismatched", 4),
    ):
        labels = ("entailment", "neutral", "contradiction")
        lines = [f"{name} {i} says so\tit is {labels[i % 3]}\t{labels[i % 3]}" for i in range(rows)]
        text = "\n".join(["sentence1\tsentence2\tgold_label", *lines]) + "\n"
        if name.startswith("test"):
            text = re.sub(r"\t\w+$", "", text, flags=re.MULTILINE)
        (tmp_path / "glue" / "MNLI" / f"{name}.tsv").write_text(text)
    (tmp_path / "glue" / "AX" / "diagnostic.tsv").write_text(
        "index\tsentence1\tsentence2\n0\tA cat.\tA dog.\n"
    )
    done = cli("train", "mnli", *flags(**QUICK, checkpoint=tiny_checkpoint, data_dir="glue", output="run"))
    assert done.code == 0, done
    assert re.search(r"step 8/8 .* matched: accuracy 0\.\d+   mismatched: accuracy 0\.\d+", done.err), (
        done.err
    )
    assert re.search(r"mismatched +accuracy +0\.", done.out)
    return tmp_path / "run"


def test_every_evaluation_set_has_its_own_name_everywhere(cli: Cli, nli: Path) -> None:
    run = RunDir(nli)
    results = run.results()
    sizes = {"matched": 8, "mismatched": 5, "test_matched": 3, "test_mismatched": 4}
    assert {name: counts["rows"] for name, counts in results["counts"].items()} == {"train": 30, **sizes}
    for name, size in sizes.items():
        lines = [
            json.loads(line) for line in (nli / "predictions" / f"{name}.jsonl").read_text().splitlines()
        ]
        assert [line["row"] for line in lines] == list(range(size))
        right = [line["prediction"] == line["label"] for line in lines]
        if not name.startswith("test"):
            assert results["metrics"][name] == {"accuracy": sum(right) / size}
    assert list(results["metrics"]) == ["matched", "mismatched"]
    logged = [entry["evaluation"] for entry in run.log() if "evaluation" in entry]
    assert len(logged) == 2 and all(list(entry) == ["matched", "mismatched"] for entry in logged)
    assert results["metrics"] in logged
    assert json.loads(cli("evaluate", "run", "--json").out) == results["metrics"]
    assert json.loads(cli("runs", ".", "--json").out)[0]["metric"] == "matched/accuracy"


def test_a_model_is_evaluated_on_another_task(cli: Cli, nli: Path, tmp_path: Path) -> None:
    """AX with a model of MNLI: of its hidden labels no score can be had, of labelled rows in its form one can."""
    unlabelled = cli("evaluate", "run", "--task", "ax", "--data-dir", "glue")
    assert unlabelled.code == 2 and "AX/diagnostic.tsv: these rows have no labels to score" in unlabelled.err
    trained = cli("train", "ax", "--checkpoint", "run", "--data-dir", "glue")
    assert trained.code == 2 and "task ax: the task has no training split\n  it is for another" in trained.err
    lines = [json.loads(line) for line in (nli / "predictions" / "matched.jsonl").read_text().splitlines()]
    texts = (tmp_path / "glue" / "MNLI" / "dev_matched.tsv").read_text().splitlines()[1:]
    pairs = [text.split("\t")[:2] for text in texts]
    full = [
        {"Premise": a, "Hypothesis": b, "Label": line["prediction"]}
        for (a, b), line in zip(pairs, lines, strict=True)
    ]
    full[0]["Label"] = full[1]["Label"] = "neutral"
    full[2]["Label"] = "entailment"
    (tmp_path / "full.json").write_text(json.dumps(full))
    columns = 'data.columns={text="Premise", text_pair="Hypothesis", label="Label"}'
    done = cli("evaluate", "run", "--task", "ax", "--data", "full.json", "--set", columns, "--json")
    expected = matthews_corrcoef([row["Label"] for row in full], [line["prediction"] for line in lines])
    assert json.loads(done.out) == {"validation": {"matthews_correlation": pytest.approx(expected)}}


def test_sets_of_ones_own(cli: Cli, finished: Path, tmp_path: Path) -> None:
    """Domain-shift sets: a table of name -> file."""
    for name in ("here", "there"):
        (tmp_path / f"{name}.csv").write_text(ROWS)
    sets = {
        "validation": None,
        "set": 'data.evaluate={here="here.csv", there="there.csv"}',
        "output": "shift",
    }
    done = cli(*command_of(finished, **sets, json=True))
    assert done.code == 0, done
    metrics = json.loads(done.out)["metrics"]
    assert list(metrics) == ["here", "there", "test"] and metrics["here"] == metrics["there"]
    assert json.loads(cli("evaluate", "shift", "--json").out) == metrics


# --- the cache --------------------------------------------------------------------------------------------------------


def test_cache(cli: Cli, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_FT_CACHE", str(tmp_path / "cache"))
    place = str(tmp_path / "cache" / "features")
    assert cli("cache").out == f"{place}: 0 entries, 0.0 MB\n"
    monkeypatch.setattr(feature_cache, "WORTH", 1)
    assert cli(*command_of(finished, output="cached")).code == 0
    (tmp_path / "cache" / "features" / "mine").mkdir()
    shown = json.loads(cli("cache", "--json").out)
    on_disk = sum(
        file.stat().st_size for file in (tmp_path / "cache" / "features").rglob("*") if file.is_file()
    )
    assert (shown["folder"], shown["bytes"]) == (place, on_disk)
    assert [entry["rows"] for entry in shown["entries"]] == [5, 5, 5]
    assert all(entry["tokens"] > 5 for entry in shown["entries"])
    (tmp_path / "cache" / "features" / shown["entries"][0]["entry"] / "index.json").write_text("{")
    assert re.search(rf"{shown['entries'][0]['entry']} +0 +0 ", cli("cache").out), "damaged, and still listed"
    assert json.loads(cli("cache", "clear", "--json").out)["freed"] > 0
    assert [path.name for path in (tmp_path / "cache" / "features").iterdir()] == ["mine"]
    assert cli("cache", "clear").out == f"{place}: 0.0 MB freed\n"


@pytest.mark.parametrize(("arguments", "code", "what"), [
    (["check", "mrpc", "--data-dir", "glue", "--train", "nowhere.csv"], 2, "--train: --data-dir brings all of the task's sets"),
    (["evaluate", "run", "--set", "nonsense=1"], 2, "unknown key 'nonsense'"),
    (["evaluate", "run/model", "--data", "other.csv"], 2, "no column 'text'"),
    (["evaluate", "run/model", "--data", "other.csv", "--set", 'data.columns={ text = "body" }'], 0, "accuracy"),
    (["evaluate", "run", "--data", "other.csv", "--set", 'data.columns={ text = "body" }'], 0, "accuracy"),
    (["runs", ".", "--sort", "metric"], 0, "unfinished"),
    (["runs", ".", "--sort", "task"], 0, "unfinished"),
    (["check", "classification", "--multi-label", "--train", "sets.jsonl", "--validation", "sets.jsonl", "--test",
      "none.jsonl"], 0, "none.jsonl"),
    (["check", "ner", "--train", "words.jsonl", "--validation", "words.jsonl", "--tokens", "w", "--tags", "t"], 0, "words.jsonl"),
])  # fmt: skip
def test_options_are_not_ignored(cli: Cli, mine: Path, arguments: list[str], code: int, what: str) -> None:
    files = {"other.csv": "body,label\na fine film,pos\na dull film,neg\n", "none.jsonl": '{"text": "c", "label": []}\n',
             "sets.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n',
             "words.jsonl": '{"w": ["Anna", "came"], "t": ["B-PER", "O"]}\n'}  # fmt: skip
    for name, content in files.items():
        (mine.parent / name).write_text(content)
    (mine.parent / "half").mkdir()
    for name in ("task.toml", "environment.json"):
        shutil.copy(mine / name, mine.parent / "half")
    done = cli(*arguments)
    assert done.code == code, done
    assert what in (done.err if code else done.out + done.err)
    assert "Traceback" not in done.err and "fault of bert-ft" not in done.err


def test_a_bare_key_is_no_option_of_the_command(cli: Cli, finished: Path) -> None:
    done = cli(*command_of(finished, set="seed=3", json=True), "--output", "run")
    assert json.loads(done.out)["seed"] == 3
    score = [
        "--regression",
        "--set",
        "metric.compute=['mean_squared_error']",
        "--output",
        "numbers",
        "--json",
    ]
    (finished.parent / "numbers.csv").write_text(
        "text,label\na fine film,1.5\na dull film,0.5\na warm film,1\n"
    )
    sets = {
        "train": finished.parent / "numbers.csv",
        "validation": finished.parent / "numbers.csv",
        "test": None,
    }
    done = cli(*command_of(finished, **sets), *score)
    assert json.loads(done.out)["metrics"]["validation"].keys() == {"mean_squared_error"}
    same = ["--regression", "--output", "alike", "--epochs", "1", "--lr", "1e-9", "--json"]
    one = finished.parent / "one.csv"
    one.write_text("text,label\na fine film,1.5\n")
    done = cli(*command_of(finished, **sets | {"test": one}), *same)
    assert done.code == 0, done
    told = json.loads(cli("evaluate", "alike", "--data", str(one), "--json").out)  # of one row: undefined
    assert told == {"validation": {"pearson": None, "spearmanr": None}}
    assert "undefined" in cli("evaluate", "alike", "--data", str(one)).out


def test_settings_of_an_evaluation_keep_the_runs_guards(cli: Cli, finished: Path, mine: Path) -> None:
    same = json.loads(cli("evaluate", "run", "--set", "eval_tokens=512", "--json").out)
    assert same == RunDir(mine).results()["metrics"]
    task = (mine / "task.toml").read_text()
    (mine.parent / "moved.csv").write_text((finished / "validation.csv").read_text() + "another film,pos\n")
    (mine / "task.toml").write_text(
        task.replace(str(finished / "validation.csv"), str(mine.parent / "moved.csv"))
    )
    for settings in ([], ["--set", "eval_tokens=512"]):
        assert "the data has changed since this run was trained" in cli("evaluate", "run", *settings).err


@pytest.mark.parametrize("key", ["windows=true", "no_answer=true"])
def test_a_key_of_another_family_is_unknown(cli: Cli, key: str) -> None:
    (Path("words.jsonl")).write_text('{"tokens": ["Anna"], "tags": ["B-PER"]}\n')
    done = cli("check", "ner", "--train", "words.jsonl", "--validation", "words.jsonl", "--set", key)
    assert done.code == 2 and "unknown key" in done.err


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_output_is_no_fault(closed: str) -> None:
    """As `>&-` leaves it: sys.stdout is None."""
    close = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    command = f'"{sys.executable}" -m bert_ft tasks --json {close}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    expected = "bert-ft: standard output is closed: what is printed there is lost\n"
    assert done.stderr == (expected if closed == "stdout" else "")


def test_an_output_without_the_characters_is_told(tmp_path: Path) -> None:
    labels = tmp_path / "task.toml"
    text = 'name = "films"\nfamily = "classification"\n[data]\ntrain = "a.csv"\nlabels = ["好", "坏"]\n'
    labels.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "bert_ft", "tasks", "show", str(labels)]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "bert-ft: standard output is in latin-1, which has no '\\u597d'",
        "  set PYTHONIOENCODING=utf-8 (or PYTHONUTF8=1), or name a file to write to",
    ]
