"""Files that are named by somebody else's files: they lie in the same folder, are regular files, and no larger than said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Hub

from bert_ft.config.catalog import load_task
from bert_ft.config.paths import LONGEST_FILE
from bert_ft.data import loading
from bert_ft.data.rows import Splits
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification

ROWS = "text,label\nfine one,a\nfine two,b\nfine three,a\nfine four,b\n"
SECRET = ROWS.replace("fine", "secret")


@contextlib.contextmanager
def in_time(seconds: int = 20) -> Iterator[None]:
    """A pipe that is opened waits for ever: this does not."""

    def stop(number: int, frame: Any) -> None:
        raise AssertionError("it waits")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of somebody else's, beside a file that is none of theirs."""
    (tmp_path / "secret.txt").write_text("secret\nlabels\n")
    (tmp_path / "secret.csv").write_text(SECRET)
    (tmp_path / "base.toml").write_text("title = 'secret'")
    theirs = tmp_path / "theirs"
    (theirs / "below").mkdir(parents=True)
    (theirs / "names.txt").write_text("bad\ngood\n正面\n")
    (theirs / "below" / "names.txt").write_text("bad\ngood\n")
    (theirs / "near.toml").write_text("title = 'near'")
    os.mkfifo(theirs / "pipe")
    os.mkfifo(theirs / "pipe.toml")
    return theirs


def task(folder: Path, text: str) -> Any:
    (folder / "task.toml").write_text(text)
    with in_time():
        return load_task(folder / "task.toml")


OUTSIDE = ["../secret.txt", "below/../../secret.txt", "/etc/hostname", "~/names.txt", "a\\u0000b"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("table", ["data", "data.original"])
def test_label_names_stay_in_the_folder_of_the_task(folder: Path, name: str, table: str) -> None:
    with pytest.raises(InputError, match=r"task\.toml, data\.label_names: .* points outside the folder"):
        task(folder, f'[{table}]\nlabel_names = "{name}"')


def test_label_names_in_the_folder_are_read(folder: Path) -> None:
    assert task(folder, '[data]\nlabel_names = "names.txt"').data.label_names == {
        "0": "bad",
        "1": "good",
        "2": "正面",
    }
    assert task(folder, '[data]\nlabel_names = "below/names.txt"').data.label_names == {
        "0": "bad",
        "1": "good",
    }
    # what is said in this call may lie anywhere
    named = load_task("classification").override({"data.label_names": str(folder.parent / "secret.txt")})
    assert list(named.data.label_names.values()) == ["secret", "labels"]


@pytest.mark.parametrize("name", ["../base", "../base.toml", "/etc/x", "~/x", "a\\u0000b"])
def test_extends_stays_in_the_folder_of_the_task(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"task\.toml, extends: .* points outside the folder"):
        task(folder, f'extends = "{name}"')
    assert task(folder, 'extends = "near"').title == "near"


def test_files_named_by_a_task_are_regular(folder: Path) -> None:
    with pytest.raises(InputError, match="not a regular file"):
        task(folder, '[data]\nlabel_names = "pipe"')
    with pytest.raises(InputError, match="unknown task 'pipe'"):
        task(folder, 'extends = "pipe"')
    with in_time(), pytest.raises(InputError, match="no such task file"):
        load_task(folder / "pipe.toml")
    read = task(folder, '[data]\ntrain = "pipe.csv"\nevaluate = "pipe.csv"')
    os.mkfifo(folder / "pipe.csv")
    with in_time(), pytest.raises(InputError, match="not a regular file"):
        loading.load(read, Classification)


def test_files_named_by_a_task_are_bounded(folder: Path) -> None:
    for name in ("names.txt", "near.toml"):
        with (folder / name).open("r+b") as stream:
            stream.truncate(LONGEST_FILE + 1)
    with pytest.raises(InputError, match="may have at most 10 MB"):
        task(folder, '[data]\nlabel_names = "names.txt"')
    with pytest.raises(InputError, match="may have at most 10 MB"):
        task(folder, 'extends = "near"')


def readme(folder: Path, place: str) -> None:
    (folder / "README.md").write_text(
        f'---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "{place}"\n---\n'
    )


def loaded(path: Path | str) -> Splits:
    bound = load_task("classification").override({"data.path": str(path), "data.validation": "50%"})
    with in_time():
        return loading.load(bound, Classification)


@pytest.mark.parametrize(
    "place", ["../secret.csv", "{root}/secret.csv", "file://{root}/secret.csv", "below/../../secret.csv"]
)
def test_a_readme_names_no_file_outside_of_its_data_set(folder: Path, place: str) -> None:
    readme(folder, place.format(root=folder.parent))
    with pytest.raises(InputError, match=r"its README names the data file .*which is not in the data set"):
        loaded(folder)


@pytest.mark.parametrize("place", ["pipe.csv", "absent.csv"])
def test_a_readme_names_files_that_are_there(folder: Path, place: str) -> None:
    os.mkfifo(folder / "pipe.csv")
    readme(folder, place)
    with pytest.raises(InputError, match="a data file that its README names does not exist"):
        loaded(folder)


def test_a_readme_whose_head_is_no_yaml_is_one_message(folder: Path) -> None:
    (folder / "README.md").write_text("---\nconfigs:\n- path: **\n---\n")
    with pytest.raises(InputError, match="YAML at the head of its README"):
        loaded(folder)


def test_a_readme_of_files_in_the_data_set_is_read(folder: Path) -> None:
    (folder / "below" / "rows.csv").write_text(ROWS)
    (folder / "link.csv").symlink_to("below/rows.csv")
    for place in ("below/rows.csv", "below/*.csv", "link.csv"):
        readme(folder, place)
        assert len(loaded(folder).train) == 2


@pytest.mark.parametrize("place", ["{root}/secret.csv", "file://{root}/secret.csv"])
def test_a_data_set_of_the_hub_reads_no_file_of_this_machine(
    folder: Path, tmp_path: Path, place: str
) -> None:
    """Over the hub's own way of finding and fetching files, with a hub of ours."""
    readme(folder, place.format(root=folder.parent))
    hub = Hub(tmp_path / "hub")
    theirs = tmp_path / "repository"
    theirs.mkdir()
    (theirs / "README.md").write_text((folder / "README.md").read_text())
    (theirs / "rows.csv").write_text(ROWS)
    hub.add("datasets", "someone/rows", theirs)
    hub.start()
    code = """
from bert_ft.data import loading
from bert_ft.families.classification.adapter import Classification
from bert_ft.config.catalog import load_task
task = load_task("classification").override({"data.path": "someone/rows", "data.validation": "50%"})
print(loading.load(task, Classification).train.table["text"].to_pylist())
"""
    environment = {**os.environ, **hub.environment(tmp_path / "home")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
    finally:
        hub.stop()
    assert "secret one" not in done.stdout + done.stderr and done.returncode
    assert (
        "InputError" in done.stderr and "data_files" in done.stderr
    ) or "its README names the data file" in done.stderr


def saved(folder: Path, filename: str, splits: list[str] | None = None) -> Path:
    import datasets

    path = folder / "saved"
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"]})
    datasets.DatasetDict({"train": rows}).save_to_disk(str(path))
    rows.save_to_disk(str(folder.parent / "outside"))
    state = json.loads((path / "train" / "state.json").read_text())
    if filename:
        state["_data_files"] = [{"filename": filename}]
    (path / "train" / "state.json").write_text(json.dumps(state))
    if splits:
        (path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    return path


@pytest.mark.parametrize(("filename", "splits"), [("../../../outside/data-00000-of-00001.arrow", None), ("/etc/hostname", None),
                         ("", ["../../outside"]), ("", ["train", "/etc"])])  # fmt: skip
def test_a_saved_data_set_names_no_file_outside_of_it(
    folder: Path, filename: str, splits: list[str] | None
) -> None:
    with pytest.raises(InputError, match="points outside the folder"):
        loaded(saved(folder, filename, splits))


@pytest.mark.parametrize(
    "content", ["[1]", "{}", '{"splits": 5}', '{"splits": [' + "9" * 5000 + "]}", "[" * 10000]
)
def test_a_saved_data_set_that_is_none_is_one_message(folder: Path, content: str) -> None:
    path = saved(folder, "")
    assert len(loaded(path).train) == 2
    (path / "dataset_dict.json").write_text(content)
    with pytest.raises(InputError):
        loaded(path)


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", ".x", "", "a\\u0000b", "n" * 201, "集" * 67])
def test_a_set_s_name_is_the_name_of_a_file(folder: Path, name: str) -> None:
    """Refused before anything is trained: its predictions could not be written."""
    with pytest.raises(InputError, match=r"name a set|holds a control character"):
        task(folder, f'[data.evaluate]\n"{name}" = "rows.csv"')


def test_the_longest_name_of_a_set_fits_on_the_disk(folder: Path) -> None:
    name = "集" * 66
    sets = task(folder, f'[data.evaluate]\n"{name}" = "rows.csv"').data.evaluation_sets
    assert list(sets) == [name]
    (folder / f".{name}.rows.parquet.0123456789abcdef.tmp").touch()  # with all that is put around it


def test_sets_in_the_results_of_a_run_name_no_other_file(
    tiny_checkpoint: Path, tmp_path: Path, cli: Any
) -> None:
    import bert_ft

    rows = [{"text": f"a {w} film", "label": w} for w in ("good", "bad")] * 4
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows, max_steps=1,
                           output=tmp_path / "run", quiet=True)  # fmt: skip
    (tmp_path / "secret.jsonl").write_text(
        (run.dir.prediction_file("validation")).read_text().replace("good", "secret")
    )
    results = json.loads(run.dir.results_json.read_text())
    results["metrics"]["../../secret"] = results["metrics"]["validation"]
    run.dir.results_json.write_text(json.dumps(results))
    done = cli("report", str(run.path))
    assert done.code == 2 and "'../../secret' can't name a set" in done.err
