"""What the tests share: a tiny checkpoint, the demo's one, GLUE's files, the command line, and no network."""

from __future__ import annotations

import atexit
import csv as csv_module
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before torch and the hub's libraries are imported: two tests side by side share two cores, and nobody's caches count.
CACHE = tempfile.mkdtemp(prefix="bert-ft-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ |= {
    "HF_HOME": CACHE,
    "BERT_FT_CACHE": CACHE,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

ROOT = Path(__file__).resolve().parent.parent

Cli = Callable[..., "Outcome"]
WriteCsv = Callable[..., Path]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


# --- no network -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A connection or name look-up beyond this machine is refused, and fails the test even where it was caught."""
    tried: list[Any] = []

    def refusing(real: Callable[..., Any], at: int) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            address = arguments[at]
            host = (
                address[0] if isinstance(address, tuple) else address if at == 0 else None
            )  # else a path: Unix
            if host and not str(host).startswith(("127.", "::1", "localhost", "0.0.0.0")):
                tried.append(address)
                raise OSError(f"the tests have no network: {address}")
            return real(*arguments, **options)

        return call

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refusing(getattr(socket.socket, name), 1))
    monkeypatch.setattr(socket, "getaddrinfo", refusing(socket.getaddrinfo, 0))
    yield tried
    assert not tried, f"reached for the network: {tried}"


@pytest.fixture(autouse=True, scope="session")
def no_baselines() -> Iterator[None]:
    """Trainings of the tests are of two steps, and baselines of a second; the tests of them undo this."""
    from bert_ft import baselines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "measure", lambda *_: baselines.Baselines())
        yield


# --- checkpoints and data ---------------------------------------------------------------------------------------------

SENTENCES = """
a warm and funny film with a brave heart
the plot is dull and the jokes fall flat
one of the finest pictures of the year
it drags on for two long and empty hours
she plays the part with grace and wit
a lazy sequel that nobody asked for
the camera work is bold , and the music soars
he mumbles his way through a tired script
children and parents will love every minute of it
I wanted my money back , and my evening too
this is how a thriller ought to be made !
the ending makes no sense at all ?
""".strip().splitlines()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers of 32, random but always the same, with a WordPiece tokenizer of its own and no head."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bert"
    # no trainer of tokenizers: it learns other pieces, and in another order, in every process
    words = sorted({word for text in SENTENCES for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = sorted({letter for word in words for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word[:5] for word in words] + [f"##{word[5:]}" for word in words if len(word) > 5]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=128)
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=128)  # fmt: skip
    assert config.pad_token_id == tokenizer.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def world(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder that a stranger made, each string of which would give orders: `tests.security.hostile.World`."""
    from tests.security.hostile import World

    return World(tmp_path_factory.mktemp("strangers"), tiny_checkpoint)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The demo's checkpoint, all-MiniLM-L6-v2."""
    from demo import fetch

    if not (fetch._cache(None) / fetch.MODEL.split("/")[1]).is_dir():
        pytest.skip("the demo's checkpoint is not cached: `make assets` fetches it")
    return fetch.checkpoint()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data sets in their original distributions."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


@pytest.fixture(scope="session")
def glue(shared_data: Path) -> Path:
    """GLUE in its original distribution."""
    return shared_data / "glue"


@pytest.fixture
def csv(tmp_path: Path) -> WriteCsv:
    """`csv("train.csv", [("text", "label"), ("fine", "pos")])` writes rows, the header first; `.tsv` too."""

    def write(name: str, rows: Sequence[Sequence[Any]], quoting: Any = csv_module.QUOTE_MINIMAL) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as stream:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            csv_module.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(
                rows
            )
        return path

    return write


@pytest.fixture
def reviews(csv: WriteCsv) -> Path:
    """A folder with train.csv (24 rows) and validation.csv (12 rows): columns text and label, "neg" and "pos"."""
    labelled = [(text, "neg" if i % 2 else "pos") for i, text in enumerate(SENTENCES)]
    csv("validation.csv", [("text", "label"), *labelled])
    return csv(
        "train.csv", [("text", "label"), *labelled, *[(f"{text} indeed", label) for text, label in labelled]]
    ).parent


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """`cli("train", ...)` runs a command in this process, in `tmp_path`; no command may show a traceback."""
    from bert_ft.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Outcome(left.value.code or 0, out, err)  # type: ignore[arg-type]

    return run


@pytest.fixture
def command(tmp_path: Path) -> Cli:
    """`command("train", ..., NAME="value")` runs `python -m bert_ft` in a process of its own, in `tmp_path`."""

    def run(*arguments: Any, **environment: str) -> Outcome:
        done = subprocess.run([sys.executable, "-m", "bert_ft", *map(str, arguments)], cwd=tmp_path, text=True,
                              env={**os.environ, **environment}, capture_output=True, timeout=120)  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
