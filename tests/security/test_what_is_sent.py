"""What leaves the machine: to the hub a model and nothing else, to a cluster's nodes no secret; and who is answered."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import Hub

import bert_ft
from benchmarks.nodes import alone
from bert_ft.config.catalog import load_task
from bert_ft.jobs import cluster, node
from bert_ft.jobs.base import Job
from bert_ft.jobs.needs import needs
from bert_ft.rundir.folder import RunDir
from tests.security.hostile import TERMINAL
from tests.tools.test_app import HERE, asked

TOKEN = "hf_" + "c3" * 17
SECRETS = {"AWS_SECRET_ACCESS_KEY": "canary-aws", "HF_API_KEY": "canary-key", "BERT_FT_PASSWORD": "canary-word", "PGPASSWORD": "canary-pg"}  # fmt: skip


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served")
    served.tokens[TOKEN] = {"me"}
    served.start()
    yield served
    served.stop()


def told(hub: Hub) -> bytes:
    """Everything that a hub got, files as they are and not as base64."""
    everything = b"\n".join(hub.sent)
    coded = re.findall(rb'"content": ?"([A-Za-z0-9+/=]+)"', everything)
    return everything + b"".join(map(base64.b64decode, coded))


@pytest.mark.parametrize("family", ["classification", "ner"])
def test_a_push_sends_no_row_no_path_and_no_secret(
    tiny_checkpoint: Path, tmp_path: Path, hub: Hub, cli: Any, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    from huggingface_hub import constants

    home = tmp_path / "home-of-somebody"
    home.mkdir()
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    rows: Any = [
        {"text": f"canary-row {i}", "label": "bad" if i % 2 else "good", "note": "canary-note"}
        for i in range(12)
    ]
    if family == "ner":
        rows = [{"tokens": ["canary-row", "Rome"], "tags": ["O", "B-LOC"], "note": "canary-note"}] * 12
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("train", family, "-c", tiny_checkpoint, "--train", home / "rows.jsonl", "--validation", home / "rows.jsonl",
               "-o", home / "run", "--max-steps", "2", "--max-length", "16")  # fmt: skip
    assert done.code == 0, done
    (home / "run" / "model" / "mine.txt").write_text("canary-file")
    (home / "run" / "model" / "secret.json").symlink_to(home / "rows.jsonl")
    endpoint = {
        "ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in endpoint.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = cli("push", home / "run", "me/films")
    assert done.code == 0, done
    everything = told(hub)
    assert b"label2id" in everything and b"bert-ft" in everything and len(hub.stored) >= 1, (
        "the model was sent"
    )
    for word in (
        "canary",
        TOKEN,
        str(tmp_path),
        "home-of-somebody",
        str(Path.home()) + "/",
        str(tiny_checkpoint),
    ):
        assert word.encode() not in everything, (
            f"{word}: {everything[max(0, everything.index(word.encode()) - 200) :][:400]!r}"
        )
    assert TOKEN not in done.out + done.err and "canary" not in (home / "run" / "pushed.jsonl").read_text()
    assert {path.name for path in (hub.folder / "models" / "me" / "films" / "main").iterdir()} <= {
        path.name for path in (home / "run" / "model").iterdir()
    } - {"mine.txt", "secret.json"}  # fmt: skip


def test_names_of_a_hostile_repository_are_shown_escaped(
    tiny_checkpoint: Path, tmp_path: Path, hub: Hub, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that lie there already, and what the hub answers."""
    from huggingface_hub import constants

    rows = [{"text": f"film {i}", "label": "bad" if i % 2 else "good"} for i in range(8)]
    bert_ft.finetune(
        "classification",
        tiny_checkpoint,
        train=rows,
        validation=rows,
        max_steps=1,
        quiet=True,
        output=tmp_path / "run",
    )
    for name, value in {
        "ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli("push", tmp_path / "run", "me/films").code == 0
    there = hub.folder / "models" / "me" / "films" / "main"
    (there / f"x{TERMINAL}.safetensors".replace("/", "")).write_bytes(b"x")
    (there / "model-00001-of-00002.safetensors").write_bytes(b"x")
    done = cli("push", tmp_path / "run", "me/films", "--dry-run")
    assert done.code == 0 and "\x1b" not in done.out + done.err, done
    hub.shas[there] = f"{TERMINAL}"
    done = cli("push", tmp_path / "run", "me/films", "--message", TERMINAL)
    assert "\x1b" not in done.out + done.err and done.code in (0, 2), done


# --- a cluster --------------------------------------------------------------------------------------------------------


def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> node.Order:
    """What a job is sent as."""
    sent: list[node.Order] = []
    task = SimpleNamespace(remote=sent.append)
    fake = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}], remote=lambda **_: lambda work: task
    )
    connection = cluster.Connection(
        fake, cluster.Cluster("ray", tmp_path, needs("cpus=1")), tmp_path / "token"
    )
    job = Job(load_task("classification"), RunDir(tmp_path / "run"), ["train", "x.toml", "--output", "run"])
    connection._submit(job)
    return sent[0]


def test_a_clusters_nodes_get_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment only what is named for it, without what is called a secret, or holds one."""
    secret = SECRETS | {
        "HF_TOKEN": "canary", "HUGGING_FACE_HUB_TOKEN": "canary", "HF_ENDPOINT": "https://me:canary@hub.example", "HF_SECRET_X": "canary",
        "TRANSFORMERS_AUTH_TOKEN": "canary", "BERT_FT_DB": "postgresql://me:canary@host/db", "PYTORCH_API_KEY": "canary",
    }  # fmt: skip
    for name, value in (secret | {"HF_HUB_OFFLINE": "1"}).items():
        monkeypatch.setenv(name, value)
    sent = order(tmp_path, monkeypatch)
    assert "canary" not in repr(sent) and sent.weak["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_node_writes_its_log_through_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """On the disk that all nodes share: somebody else may have put something in its place."""
    monkeypatch.setattr(node, "name", lambda: "here")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "token").write_text("")
    log = tmp_path / "log.txt"
    log.symlink_to(tmp_path / "mine") if what == "link" else os.mkfifo(log)
    sent = node.Order(
        ["tasks"], str(tmp_path / "run"), str(log), str(tmp_path / "token"), str(tmp_path), "", {}, {}
    )
    with pytest.raises(OSError):  # noqa: PT011 - of a link another one than of a pipe
        node.work(sent)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("what", ["pipe", "device", "huge", "words", "deep"])
def test_a_lease_of_somebody_else_stops_nobody(tmp_path: Path, what: str) -> None:
    """A run folder may hold anything under its name."""
    from bert_ft.rundir import lease

    file = tmp_path / ".lease-1"
    if what == "pipe":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "huge":
        with file.open("wb") as stream:
            stream.truncate(2**33)
    else:
        file.write_text({"words": f'{{"seconds": "{TERMINAL}", "process": [1]}}', "deep": "[" * 10**6}[what])
    lease.alive(tmp_path)
    assert len(lease.holder(tmp_path)) < 10_000


LISTENING = """
import json, sys
from bert_ft.jobs.ray import connect

def listening():
    found = []
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            place, state = line.split()[1], line.split()[3]
            if state == "0A":
                found.append(place.split(":")[0])
    return found

with connect("ray") as ray:
    mode = __import__("os").environ.get("RAY_AUTH_MODE")
    print(json.dumps([listening(), mode, ray.get(ray.remote(lambda: 3).remote())]))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
def test_a_cluster_that_is_started_here_is_for_this_machine_alone(tmp_path: Path) -> None:
    """Where there is another network: its ports are on 127.0.0.1, and ask for a token."""
    pytest.importorskip("ray", reason="Ray is not installed")
    if not (inside := alone()):
        pytest.skip("this machine allows no network of one's own (unshare -n)")
    network = 'ip addr add 10.9.8.7/24 dev lo; ip route add default dev lo src 10.9.8.7; exec "$@"'
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(bert_ft.__file__).parents[1])}
    known = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | home
    done = subprocess.run([*inside, "sh", "-c", network, "-", sys.executable, "-c", LISTENING], text=True, capture_output=True,
                          timeout=200, env=known)  # fmt: skip
    assert done.returncode == 0, done.stderr
    places, mode, answer = json.loads(done.stdout.splitlines()[-1])
    assert answer == 3 and mode == "token" and len(places) > 3
    assert {*places} <= LOOPBACK, places


# --- the page to try a model in ---------------------------------------------------------------------------------------

REBINDING = [
    "127.0.0.1.nip.io:7860", "localhost.evil.example:7860", "localhost.:7860", "127.1:7860", "2130706433:7860", "0x7f000001:7860",
    "0.0.0.0:7860", "127.0.0.2:7860", "[::1]:7860", "[::ffff:127.0.0.1]:7860", "::1", "[::]:7860", "[0:0:0:0:0:0:0:1]:7860", "",
    "127.0.0.1:7860@evil.example", "evil.example#127.0.0.1:7860", "127.0.0.1:7860.evil.example", "127.0.0.1:7860,evil.example",
    " 127.0.0.1:7860", "127.0.0.1:07860", "127.0.0.1:7860 ", "１２７.0.0.1:7860",
]  # fmt: skip
ORIGINS = [
    "http://127.0.0.1.nip.io:7860", "http://[::1]:7860", "http://[::ffff:127.0.0.1]:7860", "http://0.0.0.0:7860", "null", "file://",
    "http://127.0.0.1", "http://127.0.0.1:7861", "ws://127.0.0.1:7860", "http://localhost:7860", "http://me@127.0.0.1:7860",
    "http://127.0.0.1:7860/", "chrome-extension://abc", "http://127.0.0.1:7860 http://evil.example", "",
]  # fmt: skip


def test_names_of_others_are_not_answered() -> None:
    """Names that lead to this machine by a server of names (DNS rebinding), other ways to write its address, and IPv6."""
    assert asked(host=HERE)[0] == 200 and asked(host="localhost:7860")[0] == 200
    for name in REBINDING:
        assert asked(host=name.encode().decode("latin-1"))[0] == 403, name


def test_pages_of_others_are_not_answered() -> None:
    for origin in ORIGINS:
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            assert asked(method, host=HERE, origin=origin)[0] == 403, (method, origin)


def test_two_origins_are_as_good_as_none() -> None:
    """A header that is there twice is no browser's."""
    import asyncio

    from bert_ft.tools.app.guard import Guard

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("answered")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    for first, second in (
        ("http://evil.example", f"http://{HERE}"),
        (f"http://{HERE}", "http://evil.example"),
    ):
        headers = [(b"host", HERE.encode()), (b"origin", first.encode()), (b"origin", second.encode())]
        asyncio.run(Guard(inner, 7860)({"type": "http", "method": "POST", "headers": headers}, None, send))  # type: ignore[arg-type]
        assert sent[-2]["status"] == 403
