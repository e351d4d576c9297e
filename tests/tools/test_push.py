"""A push against a hub on this machine: created, updated, refused, broken off and resumed; what was pushed answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import BrokenOff, Hub, Refused

import bert_ft

TOKEN = "hf_" + "a1" * 17
ROWS = [
    {"text": f"a {'warm' if i % 2 else 'dull'} film", "label": "good" if i % 2 else "bad"} for i in range(8)
]

Push = Callable[..., Any]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served")
    served.tokens[TOKEN] = {"me"}
    served.start()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; its checkpoint's weights are a large file for the hub."""
    folder = tmp_path_factory.mktemp("pushed") / "run"
    bert_ft.finetune(
        "classification", tiny_checkpoint, train=ROWS, validation=ROWS, max_steps=1, quiet=True, output=folder
    )
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def push(hub: Hub, run: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> Push:
    """`bert-ft push RUN ...` with this hub, which the client's library reads from the environment once."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)

    def call(*arguments: Any, token: str = TOKEN) -> Any:
        monkeypatch.setenv("HF_TOKEN", token)
        return cli("push", run, *arguments)

    return call


def told(done: Any, *parts: str) -> None:
    """A refusal in one message, with these words."""
    assert done.code == 2 and all(part in done.err for part in parts), done


def on_hub(hub: Hub, name: str = "me/films") -> Path:
    return hub.folder / "models" / name / "main"


def test_created_private_and_answers(hub: Hub, push: Push, run: Path, tmp_path: Path) -> None:
    dry = push("me/films", "--dry-run")
    assert dry.code == 0 and "nothing was pushed" in dry.err and "model.safetensors" in dry.out, dry
    assert not on_hub(hub).exists() and not hub.stored and not (run / "pushed.jsonl").exists()
    done = push("me/films")
    assert done.code == 0, done
    assert "me/films" in hub.private
    names = {path.relative_to(on_hub(hub)).as_posix() for path in on_hub(hub).rglob("*")}
    assert names == {path.name for path in (run / "model").iterdir()}, "the model, and nothing of the data"
    [line] = [json.loads(line) for line in (run / "pushed.jsonl").read_text().splitlines()]
    assert line["repo"] == "me/films" and line["private"] and line["commit"] == hub.sha(on_hub(hub))
    assert line["url"] in done.out
    card = (on_hub(hub) / "README.md").read_text()
    assert 'bert_ft.load("me/films")' in card and "OF_THIS_MODEL" not in card
    assert "OF_THIS_MODEL" in (run / "model" / "README.md").read_text()
    # fetched into an empty cache, by id
    code = "import bert_ft, json, sys; print(json.dumps(bert_ft.load('me/films').predict(['a warm film', 'dull'])))"
    home = hub.environment(tmp_path / "empty", HF_TOKEN=TOKEN)
    fetched = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | home, capture_output=True, text=True
    )
    assert fetched.returncode == 0, fetched.stderr
    assert json.loads(fetched.stdout) == bert_ft.load(run).predict(["a warm film", "dull"])


def test_updated(hub: Hub, push: Push, run: Path) -> None:
    """Only what changed is in the second commit; weights of an earlier push that this one lacks go, other files stay."""
    assert push("me/films", "--with", "predictions", "--with", "report").code == 0
    assert (on_hub(hub) / "predictions" / "validation.jsonl").is_file() and (
        on_hub(hub) / "report.html"
    ).is_file()
    assert not list(on_hub(hub).rglob("*.parquet")), "the rows themselves are never pushed"
    (on_hub(hub) / "NOTES.md").write_text("by hand")
    (on_hub(hub) / "model-00001-of-00002.safetensors").write_bytes(b"older")
    first = hub.sha(on_hub(hub))
    hub.asked.clear()
    config = run / "model" / "config.json"
    config.write_text(config.read_text().replace('"vocab_size"', '"pushed_twice": 1,\n  "vocab_size"'))
    done = push("me/films", "--message", "again")
    assert done.code == 0 and "removed there" in done.out, done
    assert hub.sha(on_hub(hub)) != first and not [path for _, path in hub.asked if path.startswith("/lfs/")]
    assert "pushed_twice" in (on_hub(hub) / "config.json").read_text()
    assert (on_hub(hub) / "NOTES.md").exists() and not (
        on_hub(hub) / "model-00001-of-00002.safetensors"
    ).exists()
    assert len((run / "pushed.jsonl").read_text().splitlines()) == 2


def test_refused(hub: Hub, push: Push, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(push("me/films", token=""), "no token", "hf auth login")
    told(push("me/films", token="hf_" + "b2" * 17), "does not know this token", "(401)")
    told(push("others/films"), "may not write", "(403)")
    told(push("me/films/again"), "ORG/NAME")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        told(push("me/films"), "HF_HUB_OFFLINE")
    told(push("me/films", "--with", "data"), "predictions or report")
    assert not on_hub(hub).exists()
    assert push("me/open", "--public").code == 0 and "me/open" not in hub.private
    told(push("me/open"), "everybody can see this repository", "--public")

    def meanwhile(name: str) -> None:
        if name == "commit":
            hub.shas[on_hub(hub, "me/open")] = "0" * 40

    hub.before = meanwhile
    before = (on_hub(hub, "me/open") / "config.json").read_text()
    (run / "model" / "config.json").write_text(before.replace("{", "{ ", 1))
    told(push("me/open", "--public"), "changed the repository meanwhile", "the same command again")
    assert (on_hub(hub, "me/open") / "config.json").read_text() == before
    hub.before = lambda name: None
    (run / "model" / "tokenizer_config.json").write_text(json.dumps({"token": TOKEN}))
    told(push("me/films"), "token of the hub stands in this file", "tokenizer_config.json")
    (run / "results.json").unlink()
    told(push("me/films"), "no finished run")


@pytest.mark.parametrize(("at", "how"), [
    ("upload", Refused(400)), ("commit", BrokenOff()), pytest.param("upload", BrokenOff(), marks=pytest.mark.slow),
])  # fmt: skip
def test_broken_off_and_resumed(hub: Hub, push: Push, run: Path, at: str, how: Exception) -> None:
    """The old commit stays whole; the second try sends nothing large twice."""
    assert push("me/films").code == 0
    before = {path.name: path.read_bytes() for path in on_hub(hub).iterdir()}
    sha = hub.sha(on_hub(hub))
    weights = run / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\0\0\0\0"
    weights.write_bytes(content)

    def breaks(name: str) -> None:
        if name == at:
            raise how

    hub.before = breaks
    told(push("me/films"), "the same command again")
    assert {path.name: path.read_bytes() for path in on_hub(hub).iterdir()} == before and hub.sha(
        on_hub(hub)
    ) == sha
    assert len((run / "pushed.jsonl").read_text().splitlines()) == 1
    hub.before = lambda name: None
    hub.asked.clear()
    assert push("me/films").code == 0
    assert len([path for _, path in hub.asked if path.startswith("/lfs/")]) == (0 if at == "commit" else 1)
    assert (on_hub(hub) / "model.safetensors").read_bytes() == bytes(content)


def test_no_hub(hub: Hub, push: Push) -> None:
    hub.stop()
    told(push("me/films"), "not reached", f"127.0.0.1:{hub.port}")
