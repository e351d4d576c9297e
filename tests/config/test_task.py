"""A task file: strict, found by name, extended, overridden, and the same after it was written and read again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from bert_ft.config import families
from bert_ft.config.catalog import builtin, frozen, load_suite, load_task, references_file, suites, tasks_root
from bert_ft.config.references import Reference, Suite
from bert_ft.config.task import Task, dotted_keys
from bert_ft.errors import ELSEWHERE, InputError, did_you_mean
from bert_ft.metrics import METRIC_NAMES

Write = Callable[[str, str], Path]


@pytest.fixture
def toml(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --- strict -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), [
    ("titel = 'x'", "unknown key 'titel'\n  did you mean 'title'?"),
    ("[recipe]\nlearning_rat = 1e-5", "unknown key 'recipe.learning_rat'\n  did you mean 'learning_rate'?"),
    ("[data.original]\nfolder = 'x'\ncolumns = {}\nx = 1", "unknown key 'data.original.x'\n  known: columns"),
    ("[recipe]\nlearning_rate = 0", "recipe.learning_rate = 0: Input should be greater than 0"),
    ("[recipe]\nlearning_rate = nan", "recipe.learning_rate = nan: Input should be"),
    ("[recipe]\nlearning_rate = '3e-5'", "recipe.learning_rate = '3e-5': Input should be a valid number"),
    ("[recipe]\nepochs = inf", "recipe.epochs = inf: Input should be a finite number"),
    ("[recipe]\nbatch_size = 1.5", "recipe.batch_size = 1.5: Input should be a valid integer"),
    ("[recipe]\nbatch_size = -1", "recipe.batch_size = -1: Input should be greater than 0"),
    ("[recipe]\nbatch_size = true", "recipe.batch_size = True: Input should be a valid integer"),
    ("[recipe]\nschedule = 'step'", "recipe.schedule = 'step': Input should be 'linear', 'cosine', 'constant'"),
    ("[recipe]\neval_every = 'step'", "recipe.eval_every = 'step': Input should be 'epoch'"),
    ("[recipe]\nclass_weights = 'equal'", "recipe.class_weights = 'equal': Input should be 'balanced'"),
    ("[data]\nvalidation = '10'", "data.validation = '10': a share is written"),
    ("[data]\nlabels = ['a', 'b', 'a']", "data.labels holds a label twice: a"),
    ("[data]\nlabels = ['1', 1]", "data.labels holds a label twice: 1"),
    ("[data]\nevaluate = { '../x' = 'dev' }", "data: '../x' can't name a set"),
    ("[data]\nevaluate = { a = 3 }", "data.evaluate.a = 3: Input should be a valid string"),
    ("[data]\nevaluate = 3", "data.evaluate = 3: Input should be a valid string"),
    ("[data]\nlabels = ['a', 1.5]", "data.labels.1 = 1.5: Input should be a valid string"),
    ("[data]\nevaluate = { test = 'dev' }\ntest = 'test'", "data: two sets have one name: test"),
    ("[data]\ntest = { train = 'x' }", "data: two sets have one name: train"),
    ("[metric]\ncompute = ['acuracy']", "metric.compute.0 = 'acuracy': unknown metric 'acuracy'; did you"),
    ("[metric]\ncompute = []", "metric.compute = []: List should have at least 1 item"),
    ("[metric]\nbest = 'dev/accuracy'", "metric.best names the evaluation set 'dev'; did you mean 'validation'"),
    ("[[reference]]\ncheckpoint = 'x'", "reference.0.split"),
    ("data = 3", "data = 3: Input should be a valid dictionary"),
    ("name = 'ner'", "'ner' is the name of a family, so no task can bear it\n  rename the file"),
    ("[data\n", "not a TOML file: Expected"),
    ("title = '\x00'", "not a TOML file"),
])  # fmt: skip
def test_fault(toml: Write, text: str, message: str) -> None:
    path = toml("own.toml", text)
    with pytest.raises(InputError, match="^" + re.escape(f"{path}: {message}")) as error:
        load_task(path)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(("name", "message"), [
    ("mrcp", "unknown task 'mrcp'\n  did you mean 'mrpc'?"),
    ("clasification", "unknown task 'clasification'\n  did you mean 'classification'?"),
    ("nowhere.toml", "nowhere.toml: no such task file\n  `bert-ft tasks` lists"),
    ("pkg/mrpc", "unknown task 'pkg/mrpc'"),
    ("", "unknown task ''\n  known: "),
])  # fmt: skip
def test_unknown_task(name: str, message: str) -> None:
    with pytest.raises(InputError, match="^" + re.escape(message)):
        load_task(name)


def test_suggestions_stay_short() -> None:
    told = did_you_mean("text", [f"{'long ' * 99}\n{i}" for i in range(999)])
    assert len(told) < 2000
    assert "\n" not in told


# --- built-in tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(builtin()))
def test_builtin(name: str) -> None:
    """Every one loads by its name, says how to run it, and survives being written and read again."""
    task, text = load_task(name), builtin()[name].read_text(encoding="utf-8")
    command = f"# bert-ft train {name} --checkpoint "
    if not task.data.train:
        command = f"# bert-ft evaluate {'RUN_OF_MNLI' if name == 'ax' else 'RUN/model'} --task {name}"
    assert text.startswith(command)
    assert task.title
    known = {*task.data.evaluation_sets, *task.data.test_sets}
    if task.data.path is None and task.data.original and task.data.original.test:
        known.add("test")  # read from its own files alone
    assert task.best_metric[1] in task.metric.compute
    for reference in task.reference:
        assert reference.split in known, "a reference names its set as a run's results do"
        assert reference.metric in METRIC_NAMES
        task.override({f"recipe.{key}": value for key, value in reference.recipe.items()})
    for key, values in task.recipe.grid.items():
        for value in values:
            task.override({f"recipe.{key}": value})


def test_copy_edit_load(cli: Any, tmp_path: Path) -> None:
    done = cli("tasks", "copy", "stsb")
    assert (done.code, done.out) == (0, "stsb.toml\n")
    copied = tmp_path / "stsb.toml"
    assert load_task(copied) == load_task("stsb")
    copied.write_text(
        copied.read_text(encoding="utf-8").replace("learning_rate = 3e-5", "learning_rate = 1e-4")
    )
    assert load_task(copied).recipe.learning_rate == 1e-4
    again = cli("tasks", "copy", "stsb")
    assert (again.code, again.out) == (2, "")
    assert again.err.startswith("bert-ft: stsb.toml: there is a file already")
    assert cli("tasks", "copy", "ner").err.startswith("bert-ft: 'ner' is a family, not a task")
    assert cli("tasks", "copy", "stsb", "sub/mine.toml").code == 0
    mine = load_task(tmp_path / "sub" / "mine.toml")
    assert mine.name == "mine" and mine.reference == load_task("stsb").reference != []
    assert cli("tasks", "copy", "imdb").code == 0 and not (tmp_path / "imdb.references.toml").exists()


# --- references beside the task ---------------------------------------------------------------------------------------

NUMBER = """
[[reference]]
checkpoint = "org/bert"
split = "validation"
metric = "accuracy"
value = {}
statistic = "single run"
confidence = "C"
source = "here"
"""


def test_the_built_in_references_lie_beside_their_tasks() -> None:
    """No built-in task holds numbers itself, each reads on one screen, and no file of numbers lies there alone."""
    assert not [name for name in builtin() if name.endswith(".references")]
    files = set(tasks_root().rglob("*.references.toml"))
    tables = 0
    for path in frozen().values():
        assert "reference" not in tomllib.loads(path.read_text(encoding="utf-8"))
        files.remove(references_file(path))
    for path in builtin().values():
        text = path.read_text(encoding="utf-8")
        assert "reference" not in tomllib.loads(text) and text.count("\n") <= 50, path
        if (beside := references_file(path)) in files:
            files.remove(beside)
            numbers = tomllib.loads(beside.read_text(encoding="utf-8")).get("reference", [])
            assert load_task(path).reference == [Reference.model_validate(number) for number in numbers]
            tables += len(numbers)
    assert not files and tables >= 405


def test_references_beside_a_task(toml: Write, cli: Any) -> None:
    path = toml("own.toml", "title = 'Own'" + NUMBER.format(1))
    assert [r.value for r in load_task(path).reference] == [1]
    toml("own.references.toml", NUMBER.format(2) + NUMBER.format(3))
    assert [r.value for r in load_task(path).reference] == [1, 2, 3]
    assert cli("tasks", "show", path).out.count("[[reference]]") == 3
    # a variant that has none of its own is held against those of the task that it extends
    variant = toml("variant.toml", 'extends = "own"')
    assert [r.value for r in load_task(variant).reference] == [1, 2, 3]
    toml("variant.references.toml", NUMBER.format(4))
    assert [r.value for r in load_task(variant).reference] == [4]
    toml("variant.references.toml", "")
    assert load_task(variant).reference == []


@pytest.mark.parametrize(("text", "message"), [
    ("title = 'x'", "'title' is no [[reference]], and a file of references holds nothing else\n  move it to own.toml"),
    (NUMBER.format("'x'"), "reference.0.value = 'x': Input should be a valid number"),
    ("reference = 3", "reference = 3: Input should be a valid list"),
    ("[[reference]\n", "not a TOML file: Expected"),
])  # fmt: skip
def test_faults_of_references(toml: Write, text: str, message: str) -> None:
    path, beside = toml("own.toml", ""), toml("own.references.toml", text)
    with pytest.raises(InputError, match="^" + re.escape(f"{beside}: {message}")):
        load_task(path)
    with pytest.raises(InputError, match=r"holds the published numbers of a task, and no task\n.* own\.toml"):
        load_task(beside)


def test_the_longest_file_name_is_a_task_s(toml: Write) -> None:
    name = "x" * 250  # with .toml what a disk takes, with .references.toml more
    assert load_task(toml(f"{name}.toml", "")).name == name


# --- extends ----------------------------------------------------------------------------------------------------------


def test_extends(toml: Write, tmp_path: Path) -> None:
    toml("below/base.toml", """
name = "the-base"
title = "Base"
[data]
train = "train.csv"
evaluate = { matched = "a.csv", mismatched = "b.csv" }
columns = { text = "review", label = "stars" }
labels = [1, 2]
[recipe]
epochs = 2
class_weights = { 1 = 1.0, 2 = 3.0 }
""")  # fmt: skip
    path = toml("variant.toml", """
extends = "below/base"
[data]
evaluate = { dev = "dev.csv" }
columns = { label = "mark" }
[recipe]
learning_rate = 1e-4
class_weights = { 2 = 9.0 }
""")  # fmt: skip
    task = load_task(path)
    assert (task.name, task.title, task.family) == ("variant", "Base", "classification")
    assert task.recipe.epochs == 2
    assert task.recipe.learning_rate == 1e-4
    assert task.recipe.class_weights == {"2": 9.0}
    assert task.data.columns == {"text": "review", "label": "mark"}
    # a file is beside the task file that names it
    assert task.data.train == str(tmp_path / "below" / "train.csv")
    assert task.data.evaluate == {"dev": str(tmp_path / "dev.csv")}
    assert load_task(toml("of-builtin.toml", 'extends = "glue/mrpc"\n')).data == load_task("mrpc").data


@pytest.mark.parametrize(("a", "b"), [("b", "a"), ("./b", "./a"), ("a", "")])
def test_extends_in_a_circle(toml: Write, a: str, b: str) -> None:
    path = toml("circle/a.toml", f'extends = "{a}"')
    toml("circle/b.toml", f'extends = "{b}"')
    with pytest.raises(InputError, match="`extends` runs in a circle"):
        load_task(path)


def test_extends_nothing(toml: Write) -> None:
    with pytest.raises(InputError, match="unknown task 'mrcp'"):
        load_task(toml("x.toml", 'extends = "mrcp"'))


def test_local_paths(toml: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a TOML file they start at it; of an override, where the person stands. A hub id stays one."""
    (tmp_path / "at" / "data").mkdir(parents=True)
    (tmp_path / "validation").mkdir()  # no split is meant by it
    monkeypatch.chdir(tmp_path)
    for path, found in (("data", "at/data"), ("./new", "at/new"), ("../at", "at"), ("org/name", "org/name")):
        task = load_task(toml("at/x.toml", f"[data]\npath = '{path}'\ntrain = 'train.csv'"))
        assert task.data.path == (found if found == "org/name" else str(tmp_path / found))
        assert task.data.train == "train.csv"
    plain = load_task(toml("at/y.toml", ""))
    assert (plain.data.train, plain.data.evaluate) == ("train", "validation")
    assert plain.override({"data.train": "here.csv", "data.test": ""}).data.train == str(
        tmp_path / "here.csv"
    )
    assert plain.override({"data.path": "at"}).data.path == str(tmp_path / "at")
    assert plain.override({"data.test": ""}).data.test == ""


# --- overrides --------------------------------------------------------------------------------------------------------


def test_override() -> None:
    task = load_task("mrpc").override({
        "learning_rate": 5e-5, "recipe.epochs": 1, "log_every": 1, "validation": "10%", "data.columns.text": "a",
        "metric.best": "accuracy", "class_weights": {"equivalent": 2.0}, "seed": 7,
    })  # fmt: skip
    assert (task.recipe.learning_rate, task.recipe.epochs, task.batching.log_every) == (5e-5, 1, 1)
    assert (task.data.validation, task.data.columns["text"], task.run.seed) == ("10%", "a", 7)
    assert load_task("mrpc").data.columns["text"] == "sentence1"
    both = task.override({"data.evaluate": {"a": "x", "b": "y"}, "data.validation": "20%"})
    assert both.best_metric == ("validation", "accuracy"), (
        "rows held out take the place of the evaluation sets"
    )


@pytest.mark.parametrize(("key", "message"), [
    ("learning_rat", "unknown key 'learning_rat'\n  did you mean 'learning_rate'?"),
    ("recipe.lr", "unknown key 'recipe.lr'"),
    ("recip.epochs", "unknown key 'recip.epochs'\n  did you mean 'recipe.epochs'?"),
    ("reference.value", "unknown key 'reference.value'"),
    ("data.original.folder", "unknown key 'data.original.folder'"),
    ("revision", "which 'revision'?\n  data.revision or run.revision"),
    ("", "unknown key ''"),
])  # fmt: skip
def test_override_of_nothing(key: str, message: str) -> None:
    with pytest.raises(InputError, match="^" + re.escape(message)):
        load_task("classification").override({key: 1})


# --- dump -------------------------------------------------------------------------------------------------------------

CHANGES: list[dict[str, Any]] = [
    {},
    {"max_grad_norm": 0.0, "warmup_steps": 0, "dropout": 0.0, "patience": 2, "eval_every": 5},
    {
        "class_weights": {"a.b": 1.0, "ü \"'\n": 2.0},
        "data.labels": ["a.b", "ü \"'\n"],
        "data.label_names": {"": "a.b"},
    },
    {
        "class_weights": "balanced",
        "data.labels": [True, 1, "x"],
        "data.delimiter": "\t",
        "metric.positive": True,
    },
    {"data.train": "", "data.test": {}, "data.evaluate": {"m": "a", "mm": "b"}, "metric.best": "mm/accuracy"},
    {"recipe.grid": {"learning_rate": [1e-5, 2]}, "run.custom": ["loss"], "run.seed": 0},
]


@pytest.mark.parametrize("task", [*sorted(builtin()), *CHANGES], ids=str)
def test_dump_and_load(toml: Write, task: str | dict[str, Any]) -> None:
    """What a run writes as task.toml is the task, wherever it lies."""
    before = load_task(task) if isinstance(task, str) else load_task("classification").override(task)
    assert load_task(toml("run/task.toml", tomli_w.dumps(before.dump()))) == before


def test_nothing_can_not_be_written() -> None:
    """TOML has no null, so a key that may be empty must be empty by default."""
    for task in (Task(family=family) for family in families.BUILTIN):
        for key in dotted_keys(task):
            table, leaf = key.split(".")
            default = getattr(task.options if table == task.table else getattr(task, table), leaf)
            if default is not None:
                with pytest.raises(InputError):
                    task.override({key: None})


@pytest.mark.parametrize("family", ["classification", "ner", "qa"])
def test_the_expected_results_are_those_of_the_task_files(family: str) -> None:
    """The table of tasks/<family>/README.md against the references beside the tasks: the same rows."""
    folder = tasks_root() / family
    lines = [
        line.strip("|").split("|")
        for line in (folder / "README.md").read_text().splitlines()
        if line[:2] == "| "
    ]
    listed = [tuple(cell.strip() for cell in cells) for cells in lines[1:]]
    names = {"f1": "F1", "pearson": "Pearson", "spearmanr": "Spearman", "matthews_correlation": "Matthews"}
    held = [
        (name, r.checkpoint.rpartition("/")[2], r.split, names.get(r.metric, r.metric),
         f"{r.value} ± {r.std}" if r.std else str(r.value), r.statistic)
        for name, path in builtin().items() if folder in path.parents for r in load_task(name).reference
    ]  # fmt: skip
    assert sorted(tuple(map(str.lower, row)) for row in listed) == sorted(
        tuple(map(str.lower, row)) for row in held
    )


# --- suites -----------------------------------------------------------------------------------------------------------


def test_suites(cli: Any) -> None:
    for name, suite in suites().items():
        assert suite.name == name and set(suite.tasks) <= set(builtin())
    with pytest.raises(InputError, match="unknown suite 'gleu'\n  did you mean 'glue'"):
        load_suite("gleu")
    assert re.search("glue-small +suite +the mean of cola, mrpc", cli("tasks").out)


@pytest.mark.parametrize(("checkpoint", "score"), [
    ("L-2_H-128_A-2", 64.2), ("L-4_H-256_A-4", 65.8), ("L-4_H-512_A-8", 71.2), ("L-8_H-512_A-8", 73.5)
])  # fmt: skip
def test_score_of_the_server(checkpoint: str, score: float) -> None:
    """The task files' numbers give the score that the benchmark's server gave for them (google-research/bert, README)."""
    metrics: dict[str, Any] = {}
    for name in (glue := load_suite("glue")).tasks:
        for r in load_task(name).reference:
            if r.checkpoint == f"google/bert_uncased_{checkpoint}":
                metrics.setdefault(name, {}).setdefault(r.split, {})[r.metric] = r.value
    # the server rounds the numbers it shows
    assert glue.score(metrics) == pytest.approx(score, abs=0.07)


def test_score_of_the_paper() -> None:
    """BERT's average is over the two sets of MNLI as over two tasks, and leaves WNLI out (Devlin et al. 2019, Table 1)."""
    tasks = [name for name in load_suite("glue").tasks if name != "wnli"]
    for size, score in (("base", 79.6), ("large", 82.1)):
        metrics: dict[str, Any] = {name: {} for name in tasks}
        for name in tasks:
            for r in load_task(name).reference:
                if r.source == "Devlin et al. 2019, Table 1" and size in r.checkpoint:
                    metrics[name][r.split] = {r.metric: r.value}
        assert round(Suite(title="", tasks=tasks, average="sets").score(metrics), 1) == score


def test_task_without_training(toml: Write) -> None:
    assert load_task("ax").best_metric == ("test", "matthews_correlation")
    with pytest.raises(InputError, match=r"data\.evaluate is empty, but training needs"):
        load_task(toml("own.toml", "[data]\nevaluate = ''"))


@pytest.mark.parametrize(("wrong", "meant"), [
    ("lr", "learning_rate"), ("num_train_epochs", "epochs"), ("per_device_train_batch_size", "batch_size"),
    ("max_seq_length", "max_length"), ("sep", "delimiter"), ("learning_rat", "learning_rate"),
])  # fmt: skip
def test_a_key_of_another_tool_is_answered_with_ours(wrong: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"unknown key '{wrong}'\n  did you mean '{meant}'"):
        load_task("classification").override({wrong: 1})


@pytest.mark.parametrize(("task", "wrong", "meant"), [
    ("classification", "f1_binary", "f1"), ("ner", "seqeval", "f1"), ("classification", "macro_f1", "f1_macro"), ("qa", "em", "exact_match"),
])  # fmt: skip
def test_a_metric_of_another_tool_is_answered_with_ours(task: str, wrong: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"unknown metric '{wrong}'; did you mean '{meant}'"):
        load_task(task).override({"metric.compute": wrong})
    assert load_task(task).override({"metric.compute": meant}).metric.compute == [meant]


def test_what_is_meant_exists() -> None:
    keys = {
        key.rpartition(".")[2]
        for name in ("classification", "ner", "qa")
        for key in dotted_keys(load_task(name))
    }
    assert set(ELSEWHERE.values()) <= keys | {*METRIC_NAMES, "output"}, "an answer that is no key"
