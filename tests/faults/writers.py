"""The commands that write, each from the same start, and what of their files must be equal however often they were killed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.children import Child, command, importing

WORDS = ("good", "bad")
TOKEN = "hf_" + "a1" * 17


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"text": f"a {WORDS[i % 2]} film {'very ' * (i % 5)}{i}", "label": WORDS[i % 2]}
        for i in range(start, start + count)
    ]


def _table(file: Path, lines: list[dict[str, str]]) -> None:
    import csv

    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _checkpoint(folder: Path) -> None:
    """A BERT of 2 layers of 32 with the dropout of every BERT, random but always the same."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "a", "film", "very"]
    pieces += [*"0123456789", *(f"##{digit}" for digit in "0123456789")]
    tokenizer = BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2)  # fmt: skip
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)


class Stage:
    """Where commands find what they read, and the place that they write to, whose path is always the same.

    Attributes:
        given: what is read: `train.csv`, `validation.csv`, `in/` (files of rows), `checkpoint/`, `run/` (finished),
            `folds/` (a cross-validation).
        place: what is written; emptied before each trial.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given, self.place, self.logs = folder / "given", folder / "place", folder / "logs"
        for each in (self.given, self.place, self.logs):
            each.mkdir()
        os.environ |= {"BERT_FT_CACHE": str(self.place / "cache"), "HF_HOME": str(folder / "home")}
        self.enter()
        importing(lambda: _checkpoint(self.given / "checkpoint"), self.logs)
        _table(self.given / "train.csv", rows(48))
        _table(self.given / "validation.csv", rows(20, 100))
        (self.given / "in" / "deep").mkdir(parents=True)
        for number in range(4):
            lines = rows(30 + number, 50 * number)
            _table(self.given / "in" / f"{number}.csv", lines)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.given / "in" / "deep" / f"{number}.jsonl").write_text(text)
        for name, more in (("run", ()), ("folds", ("--folds", "2"))):
            end = importing(command(*self.training(self.given / name, *more)), self.logs)
            assert end.code == 0, end.shown

    def enter(self) -> None:
        """Makes the place the working directory."""
        os.chdir(self.place)

    def training(self, output: Path, *more: Any) -> list[Any]:
        scored = [] if "--folds" in more else ["--validation", self.given / "validation.csv"]
        return [
            "train",
            *self.task(*scored),
            "--lr",
            "2e-3",
            "--set",
            "baselines=false",
            "--output",
            output,
            *more,
        ]

    def task(self, *scored: Any) -> list[Any]:
        recipe = {"max_length": 16, "batch_size": 8, "epochs": 2, "eval_every": 4, "log_every": 2,
                  "save_every": 3}  # fmt: skip
        return ["classification", "--train", self.given / "train.csv", *scored, "--checkpoint", self.given / "checkpoint",
                *(word for key, value in recipe.items() for word in ("--set", f"{key}={value}"))]  # fmt: skip

    def empty(self) -> None:
        for entry in self.place.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def copy(self, name: str) -> None:
        shutil.copytree(self.given / name, self.place / name)


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        work: what a child does. share: of a campaign's kills, relative to the others'.
        start: what lies in the emptied place before. read: who reads what a killed one leaves, and may refuse it.
        beside: what another process does at the same time, undisturbed. needs: a package.
    """

    work: Callable[[], Any]
    share: float = 1
    start: Callable[[], None] = lambda: None
    read: Sequence[Callable[[], Any]] = ()
    beside: Callable[[], Any] | None = None
    needs: str = "bert_ft"


# --- what has to be equal ---------------------------------------------------------------------------------------------

TIMES = re.compile(rb"((?:seconds|per second|resumed|bf16 gain)</t[hd]>\s*<td>)[^<]*")
"""What a page says of seconds, of how many in float32 one in bfloat16 is worth, and how often it was resumed."""


FIGURES = re.compile(rb"\bf\d+-")
"""How many figures a process has drawn before."""


def listing(folder: Path) -> dict[str, str]:
    """File -> digest of what must be equal of it: all bytes, but for times and the numbers of processes. Trials that
    were repeated have later numbers: they count in their order."""
    numbers = sorted(int(path.name[6:]) for path in folder.glob("search/trial-*"))
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        content = b"" if path.is_dir() else essential(path)
        if name.startswith("search/"):
            name, content = _in_order(name, content, numbers)
        found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


def _in_order(name: str, content: bytes, numbers: list[int]) -> tuple[str, bytes]:
    if name.startswith("search/trial-"):
        number = int(name.split("/")[1][6:])
        ours = f"trial-{numbers.index(number)}"
        return name.replace(f"trial-{number}", ours), content.replace(b"trial-%d" % number, ours.encode())
    if name == "search/results.json":
        value = json.loads(content)
        for row in [*value["trials"], *([value["best"]] if value["best"] else [])]:
            row["trial"] = numbers.index(row["trial"])
        return name, json.dumps(value).encode()
    return name, b"" if name.endswith((".html", "best.toml")) else content


def essential(path: Path) -> bytes:
    """The bytes of a file without times. Of `study.db` and locks only that they are there."""
    content = path.read_bytes()
    if path.name == "study.db" or path.name.endswith(".lock") or path.name == "locks":
        return b""
    if path.name == "results.json":
        value = json.loads(content)
        return json.dumps(_without(value, ("timing", "seconds"))).encode()
    if path.name == "parity.json":
        return json.dumps(_without(json.loads(content), ("cpu_seconds",))).encode()
    if path.name == "log.jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        return json.dumps([_without(line, ("seconds",)) for line in lines]).encode()
    if path.name == "environment.json":
        return json.dumps(_without(json.loads(content), ("resumed", "bf16_gain"))).encode()
    if path.name == "pushed.jsonl":  # a line each time; one that was killed behind its line is pushed again
        lines = {
            json.dumps(_without(json.loads(line), ("time", "commit", "url"))) for line in content.splitlines()
        }
        return json.dumps(sorted(lines)).encode()
    if path.suffix == ".html":
        return page(content)
    return content


def page(content: bytes) -> bytes:
    """A page without its seconds."""
    return FIGURES.sub(b"", TIMES.sub(rb"\1", content))


def _without(value: Any, keys: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


# --- who writes -------------------------------------------------------------------------------------------------------


def writers(stage: Stage) -> dict[str, Writer]:
    """All of them, by name."""
    place, given = stage.place, stage.given
    run = place / "run"

    def caching() -> None:
        from bert_ft.engine import feature_cache

        feature_cache.WORTH = feature_cache.VECTORS = 10

    def read_run() -> Any:
        import bert_ft

        found = bert_ft.load(run)
        return found.results, found.predictions(), found.metrics, found.predict(["a good film"])

    def read_model() -> Any:
        import bert_ft

        return bert_ft.load(run / "model").predict(["a good film"])

    reading = [
        read_run, read_model, command("runs", place), command("predict", run, given / "in" / "0.csv"),
        command("report", run, "-o", stage.logs / "page.html"), command("evaluate", run),
    ]  # fmt: skip

    def answers(file: Path) -> Callable[[], Any]:
        """What is there is whole."""

        def read() -> None:
            import pyarrow.parquet as pq

            if file.suffix == ".parquet":
                assert not file.exists() or pq.read_table(file).num_rows == 30
            else:
                assert file.read_text().count("\n") == 31

        return read

    def old_answers() -> None:
        (place / "answers.csv").write_text("text\n" + "earlier\n" * 30)

    def vectors() -> None:
        import numpy as np

        if (place / "vectors.npy").exists():
            assert np.load(place / "vectors.npy").shape == (30, 32)

    def graph() -> None:
        import bert_ft

        bert_ft.load(run, onnx=True).predict(["a good film"])

    found = {
        "training": Writer(command(*stage.training(run)), 210, read=reading),
        "training, overwriting": Writer(
            command(*stage.training(run, "--overwrite")), 30, lambda: stage.copy("run"), reading
        ),
        "training, of folds": Writer(
            command(*stage.training(run, "--folds", "2")), 25, read=reading[2:3] + reading[4:5]
        ),
        "report": Writer(command("report", run), 110, lambda: stage.copy("run"), reading),
        "predict, a file": Writer(
            command("predict", given / "run", given / "in" / "0.csv", "-o", place / "answers.csv"), 120,
            old_answers, [answers(place / "answers.csv")],
        ),
        "predict, Parquet": Writer(
            command("predict", given / "run", given / "in" / "0.csv", "-o", place / "answers.parquet"), 100,
            read=[answers(place / "answers.parquet")],
        ),
        "predict, files": Writer(command("predict", given / "run", given / "in", "-o", place / "out"), 110),
        "row cache": Writer(command(*stage.training(run), before=caching), 30, read=reading[:2]),
        "row cache, shared": Writer(
            command(*stage.training(run), before=caching), 20, read=reading[:2],
            beside=command(*stage.training(place / "other"), before=caching),
        ),
        "search": Writer(
            command(
                "search", *stage.task("--validation", given / "validation.csv"), "-o", place / "search", "--trials", "3",
                "--no-prune", "--space", "learning_rate=1e-3,2e-3,4e-3",
            ),
            25, read=[command("runs", place / "search")],
        ),
        "export": Writer(command("export", run, "--int8"), 12, lambda: stage.copy("run"), [graph], needs="onnxscript"),
        "embed, .npy": Writer(
            command("embed", given / "checkpoint", given / "in" / "0.csv", "-o", place / "vectors.npy"), 80, read=[vectors],
        ),
        "embed, Parquet": Writer(
            command("embed", given / "checkpoint", given / "in" / "0.csv", "-o", place / "vectors.parquet"), 60,
            read=[answers(place / "vectors.parquet")],
        ),
        "check --export": Writer(
            command("check", "classification", "--train", given / "train.csv", "--validation", "10%", "--with", given / "folds", "--export",
                    place / "suspects.csv"), 40, needs="cleanlab",
        ),
        "push": Writer(pushing(stage), 50, lambda: stage.copy("run")),
    }  # fmt: skip
    return {
        name: writer for name, writer in found.items() if importlib.util.find_spec(writer.needs) is not None
    }


def pushing(stage: Stage) -> Callable[[], Any]:
    """A push to the hub whose port the environment names."""

    def at_our_hub() -> None:
        from huggingface_hub import constants

        constants.ENDPOINT = f"http://127.0.0.1:{os.environ['FAULTS_HUB']}"
        constants.HF_HUB_OFFLINE = False
        constants.HF_HUB_DISABLE_XET = True
        os.environ["HF_TOKEN"] = TOKEN

    return command("push", stage.place / "run", "me/films", before=at_our_hub)


@dataclass
class HubProcess:
    """A hub of our own in a child, which lives through the kills of its clients."""

    folder: Path
    logs: Path
    child: Child | None = field(default=None)

    def start(self) -> None:
        port = self.folder / "port"
        self.folder.mkdir(parents=True, exist_ok=True)
        port.unlink(missing_ok=True)

        def serve() -> None:
            import time

            from tests.loopback import Hub

            hub = Hub(self.folder / "served")
            hub.tokens[TOKEN] = {"me"}
            hub.start()
            (self.folder / "new").write_text(str(hub.port))
            (self.folder / "new").rename(port)
            while True:
                time.sleep(60)

        import time

        self.child = Child(serve, self.logs)
        while not port.is_file():
            time.sleep(0.01)
        os.environ["FAULTS_HUB"] = port.read_text()

    def stop(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait()
