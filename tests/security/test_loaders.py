"""No loader that unpickles, or that takes files for programs, is reached by what a task or a data set says."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import packaged_modules
from loopback import Hub

from bert_ft.config.catalog import load_task
from bert_ft.data import hub as hubs
from bert_ft.data import loading, rows
from bert_ft.errors import InputError
from bert_ft.families.classification.adapter import Classification

NAMES = sorted({*packaged_modules._PACKAGED_DATASETS_MODULES, *hubs.BUILDERS})


class Mark:
    """Unpickling it leaves a mark."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def load(changes: dict[str, Any]) -> rows.Splits:
    task = load_task("classification").override({"data.evaluate": "train", **changes})
    return loading.load(task, Classification)


@pytest.mark.parametrize("name", NAMES)
def test_no_builder_passes_for_a_data_set(name: str) -> None:
    """Whether or not the installed version of `datasets` has it."""
    for spelling in (name, name.upper(), f"{name}.py", f"{name}/{name}", f"{name}/{name}.py"):
        with pytest.raises(InputError, match="name of a builder"):
            load({"data.path": spelling})
        with pytest.raises(InputError, match="name of a builder"):
            hubs.dataset(spelling, None, None)


@pytest.mark.parametrize("path", [f"{name}/" for name in ("pandas", "csv")] + [
    "pandas//", "hf://datasets/org/name", "hf://buckets/org/name", "http://example.org/x", "s3://b/x", "zip://a::b", "a/b/c",
    "org/na me", "org/name@x", "pandas\n", " pandas",
])  # fmt: skip
def test_what_is_no_id_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="neither a folder nor"):
        hubs.dataset(path, None, None)
    with pytest.raises(InputError):
        load({"data.path": path})


def test_the_builder_that_unpickles(tmp_path: Path, monkeypatch: Any) -> None:
    """Reached in versions of `datasets` before 5.2: its name as the path, and a folder of pickles as the configuration."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.pkl").write_bytes(pickle.dumps(Mark(tmp_path / "mark")))
    for place in (tmp_path, tmp_path / "rows"):
        monkeypatch.chdir(place)
        for revision in (None, "refs/convert/parquet"):
            with pytest.raises(InputError, match="name of a builder"):
                load({"data.path": "pandas", "data.name": str(tmp_path / "rows"), "data.revision": revision})
    assert not (tmp_path / "mark").exists()


def test_a_folder_that_is_called_as_a_builder(tmp_path: Path, monkeypatch: Any) -> None:
    """It is a folder: its rows are read."""
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "train.csv").write_text("text,label\na,x\nb,y\n")
    monkeypatch.chdir(tmp_path)
    assert len(load({"data.path": "./pandas"}).train) == len(load({"data.path": "pandas"}).train) == 2


# --- what a data set's own files ask for ------------------------------------------------------------------------------


def files(folder: Path, kind: str) -> Path:
    """A data set whose files are of some kind."""
    import io
    import tarfile

    folder.mkdir()
    (folder / "README.md").write_text("# rows\n")
    if kind == "tar":
        with tarfile.open(folder / "train.tar", "w") as packed:
            for i in range(3):
                for suffix, content in (
                    ("txt", b"a text"),
                    ("json", b'{"label": "x"}'),
                    ("pyd", pickle.dumps(Mark(folder / "m"))),
                ):
                    entry = tarfile.TarInfo(f"{i}.{suffix}")
                    entry.size = len(content)
                    packed.addfile(entry, io.BytesIO(content))
    elif kind == "xml":
        (folder / "train.xml").write_text("<a>b</a>")
    elif kind == "png":
        (folder / "train").mkdir()
        (folder / "train" / "a.png").write_bytes(b"\x89PNG")
    else:
        (folder / f"rows.{kind}").write_text(
            "text,label\na,x\nb,y\n" if kind == "csv" else '{"text": "a", "label": "x"}\n' * 2
        )
    return folder


@pytest.mark.parametrize("kind", ["tar", "xml", "png"])
def test_builders_beyond_tables_and_texts_are_not_used(tmp_path: Path, kind: str) -> None:
    folder = files(tmp_path / "set", kind)
    with pytest.raises(InputError, match="which is not used"):
        hubs.dataset.__wrapped__(str(folder), None, None)
    assert not (folder / "m").exists()


LOAD = """
import sys
from bert_ft.data import loading
from bert_ft.families.classification.adapter import Classification
from bert_ft.errors import InputError
from bert_ft.config.catalog import load_task
for path in sys.argv[1:]:
    try:
        rows = loading.load(load_task("classification").override({"data.path": path, "data.evaluate": "train"}), Classification)
        print(len(rows.train))
    except InputError as error:
        print(str(error).splitlines()[0])
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served")
    served.start()
    yield served
    served.stop()


def test_the_same_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    """And from its cache, where the data set's builder is that of the cache."""
    for kind in ("tar", "csv", "jsonl"):
        hub.add("datasets", f"org/{kind}", files(tmp_path / kind, kind))
    arguments = [sys.executable, "-c", LOAD, "org/tar", "org/csv", "org/jsonl", "pandas"]
    environment = os.environ | hub.environment(tmp_path / "home")

    def said() -> list[str]:
        done = subprocess.run(arguments, env=environment, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first = said()
    assert "builder 'webdataset' of `datasets`, which is not used" in first[0] and first[1:3] == ["2", "2"], (
        first
    )
    assert "name of a builder" in first[3]
    hub.stop()
    assert said()[1:] == first[1:]


def test_weights_that_are_a_pickle_are_refused(trained_weights: Path, tmp_path: Path) -> None:
    import bert_ft

    with pytest.raises(InputError, match="corrupt, or contains more than weights"):
        bert_ft.load(trained_weights)
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def trained_weights(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A checkpoint whose weights, in the older format, leave a mark when they are unpickled."""
    import torch
    from strangers import rewrite

    folder = tmp_path / "weights"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": Mark(tmp_path / "mark")}, folder / "pytorch_model.bin")
    rewrite(folder / "config.json", architectures=["BertForSequenceClassification"])
    return folder


def test_saved_data_sets_are_read(tmp_path: Path) -> None:
    """Regular use: what `save_to_disk` leaves."""
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}).save_to_disk(
        str(tmp_path / "saved")
    )
    assert len(load({"data.path": str(tmp_path / "saved")}).train) == 2
