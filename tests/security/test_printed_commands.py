"""What is printed to be pasted is the command that is run: one line, quoted, without anything of a file's own making."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.rundir import naming
from bert_ft.tools.reproduce.plan import plan
from bert_ft.tools.search.search import Search

NASTY = ["a\nrm -rf x", "a\rb", "a\x1b[2J", "a\u2028b", "a\x85b", "a\x7f"]
TASK = 'family = "classification"\n[data]\ntrain = "train.csv"\nevaluate = "validation.csv"\n'


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
@pytest.mark.parametrize("where", ["reference", "dotted", "grid", "name", "table", "file name"])
def test_control_characters_in_keys_and_names_are_refused(
    cli: Any, tmp_path: Path, nasty: str, where: str
) -> None:
    key = json.dumps(nasty)
    reference = ('[[reference]]\ncheckpoint = "org/bert"\nsplit = "validation"\nmetric = "accuracy"\nvalue = 0.5\n'
                 'statistic = "mean"\nruns = 5\nconfidence = "C"\nsource = "s"\n')  # fmt: skip
    texts = {"reference": f"{TASK}{reference}recipe = {{ {key} = 1 }}\n",
             "dotted": f"{TASK}{reference}recipe = {{ {json.dumps('class_weights.' + nasty)} = 1.0 }}\n",
             "grid": f"{TASK}[recipe.grid]\n{json.dumps('class_weights.' + nasty)} = [1.0]\n",
             "name": f"name = {key}\n{TASK}", "table": f"{TASK}[{key}]\nx = 1\n", "file name": TASK}  # fmt: skip
    file = written(tmp_path / (f"{nasty}.toml" if where == "file name" else "t.toml"), texts[where])
    for arguments in (
        ("reproduce", file, "-c", "org/bert", "--plan", "--grid"),
        ("reproduce", file, "-c", "org/bert", "--plan"),
    ):
        done = cli(*arguments)
        assert done.code == 2 and not done.out, done
    with pytest.raises(InputError):
        load_task(file)


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_a_plan_has_a_line_a_command(cli: Any, tmp_path: Path, nasty: str) -> None:
    """Whatever a checkpoint, folder or value is called: it is refused, or escaped within its line."""
    for arguments in (
        ("-c", f"org/{nasty}"),
        ("-c", "org/bert", "-o", nasty),
        ("-c", "org/bert", "--data-dir", nasty),
    ):
        assert cli("reproduce", "rte", *arguments, "--plan").code == 2
    made = plan("rte", "org/bert", seeds=1, output=tmp_path / "o", **{"recipe.class_weights": {nasty: 1.0}})
    (command,) = [run.command for run in made.runs]
    assert command.splitlines() == [command] and command.isprintable()
    words = shlex.split(command)
    value = next(word for word in words if word.startswith("recipe.class_weights=")).partition("=")[2]
    assert tomllib.loads(f"value = {value}")["value"] == {nasty: 1.0}


@pytest.mark.parametrize("name", [
    "$(touch mark); `touch mark` #", "评论 一", pytest.param("../../up", marks=pytest.mark.slow),
    pytest.param("a?mode=memory", marks=pytest.mark.slow),
])  # fmt: skip
def test_names_from_files_are_cleaned_and_quoted(
    cli: Any, reviews: Path, tiny_checkpoint: Path, name: str
) -> None:
    """In the folder of a search, in its study's place, and in the command that trains with what it found."""
    file = written(reviews / "t.toml", f"name = {json.dumps(name)}\n{TASK}")
    done = cli("search", file, "-c", tiny_checkpoint, "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1",
               "--set", "max_length=16")  # fmt: skip
    assert done.code == 0, done
    (folder,) = (reviews / "runs").iterdir()
    assert folder.name == f"search-{naming.clean(name)}-tiny-bert" and (folder / "study.db").is_file()
    assert all(c.isalnum() or c in "._=+-" for c in folder.name)
    printed = next(line for line in done.err.splitlines() if line.startswith("bert-ft train"))
    best = (folder / "best.toml").read_text()
    expected = ["bert-ft", "train", f"runs/{folder.name}/best.toml", "--output", f"runs/{folder.name}-best"]
    assert shlex.split(printed) == shlex.split(best.splitlines()[0].removeprefix("# ")) == expected
    assert tomllib.loads(best)["name"] == name
    again = cli("search", file, "-c", tiny_checkpoint, "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1",
                "--set", "max_length=16")  # fmt: skip
    assert again.code == 0 and len(list((reviews / "runs").iterdir())) == 1


def test_a_folder_of_any_name_is_quoted(cli: Any, reviews: Path, tiny_checkpoint: Path) -> None:
    """`?` and `%` are no options of the study's address."""
    written(reviews / "t.toml", TASK)
    done = cli("search", "t.toml", "-c", tiny_checkpoint, "--trials", "1", "--space", "learning_rate=1e-5", "--set", "max_steps=1",
               "--set", "max_length=16", "-o", "it's; 100%?mode=ro&x #1")  # fmt: skip
    if done.code == 2:  # SQLAlchemy before 2.1
        assert "a database can't lie in a folder of this name" in done.err
        return
    assert done.code == 0 and (reviews / "it's; 100%?mode=ro&x #1" / "study.db").is_file(), done
    printed = next(line for line in done.err.splitlines() if line.startswith("bert-ft train"))
    assert shlex.split(printed)[2] == "it's; 100%?mode=ro&x #1/best.toml"


def test_the_command_of_any_folder_is_one_comment() -> None:
    found = object.__new__(Search)
    found.path = Path("a\nb c")
    assert shlex.split(found.command)[2] == "a\nb c/best.toml"


def test_a_tasks_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    task = load_task("classification").override({"run.checkpoint": "org/bert"})
    named = task.model_copy(update={"name": "../../x"})
    assert "/" not in naming.run_name(named, named, {})
    made = plan(str(written(tmp_path / "x y$(z).toml", TASK)), "org/bert", seeds=1)
    assert made.folder.name == "reproduce-x_y__z_-bert"


def test_labels_may_hold_anything() -> None:
    """They are data: a table that is keyed by them is no table of keys."""
    weights = {"a\tb": 1.0, "c\nd": 2.0}
    assert Task.model_validate({"recipe": {"class_weights": weights}}).recipe.class_weights == weights
