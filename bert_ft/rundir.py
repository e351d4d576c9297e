"""The run folder: its paths, what is in each file, and writes that are whole or not there at all."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import tomli_w

from bert_ft.errors import InputError, disk
from bert_ft.schema import Recipe
from bert_ft.task import Task, load_task

MOVES = {"data": ("data", {"path", "train", "evaluate", "test"}), "checkpoint": ("run", {"checkpoint"})}
"""Which fingerprint stands for what places of a task: its table and keys (and `run.data_dir` for the data)."""
HELD = "another command is working on this run"


class RunDir:
    """Paths and files of one run. `results.json` is written last: a run that has it is whole."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.task_toml = self.path / "task.toml"
        self.environment_json = self.path / "environment.json"
        self.log_jsonl = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.predictions = self.path / "predictions"
        self.results_json = self.path / "results.json"
        self.report_html = self.path / "report.html"

    @property
    def state(self) -> str:
        """`finished`, `unfinished` (started and not ended), `new` (nothing there) or `foreign` (no run at all)."""
        if self.results_json.is_file() and self.task_toml.is_file():
            return "finished"
        if self.task_toml.is_file():
            return "unfinished"
        if self.path.is_dir():
            return "foreign" if any(p.name not in ("task.toml.tmp", ".lock") for p in self.path.iterdir()) else "new"
        return "foreign" if self.path.exists() else "new"

    @property
    def busy(self) -> bool:
        """Whether a command is working on the run."""
        if not (lock := self.path / ".lock").is_file():
            return False
        if (stream := locked(lock)) is not None:
            stream.close()
        return stream is None

    def task(self) -> Task:
        return load_task(self.task_toml)

    def results(self) -> dict[str, Any]:
        return self._read(self.results_json)

    def environment(self) -> dict[str, Any]:
        return self._read(self.environment_json)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        return list(read_jsonl(self.log_jsonl)) if self.log_jsonl.is_file() else []

    def prediction_file(self, name: str) -> Path:
        """Where the predictions of a set lie."""
        return self.predictions / f"{name}.jsonl"

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no {file.name}", where=str(self.path), remedy="is this a finished run?") from None
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error}", where=str(file)) from None
        return value

    def start(self, task: Task, environment: dict[str, Any]) -> None:
        """Empties what an earlier attempt left and writes what is known before training."""
        with disk(self.path):
            for old in (self.results_json, self.log_jsonl, self.environment_json, self.report_html):
                old.unlink(missing_ok=True)
            self._write_task(task)  # from here on the folder is known as a run
            for folder in (self.checkpoints, self.model, self.predictions):
                shutil.rmtree(folder, ignore_errors=True)
            self.predictions.mkdir(exist_ok=True)
        write_json(self.environment_json, environment)

    def resume(self, task: Task, log_size: int, environment: dict[str, Any]) -> None:
        """Takes the log back to where the checkpoint left it, and records where the run goes on."""
        with disk(self.path), self.log_jsonl.open("ab") as stream:
            stream.truncate(log_size)
        self._write_task(task)  # data and checkpoint may have moved
        before = self.environment() if self.environment_json.is_file() else environment
        now = {key: environment[key] for key in ("device", "processes", "precision", "versions")}
        write_json(self.environment_json, {**before, "resumed": [*before.get("resumed", []), now]})

    def _write_task(self, task: Task) -> None:
        header = f"# bert-ft train {self.task_toml.name}\n# what this run was made from, every default included\n\n"
        write(self.task_toml, header + tomli_w.dumps(task.dump()))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a command works on the run; a second one is told who holds it. Ends with the process, even killed.
        A folder that holds something else is left alone. Of several processes the first holds it for all."""
        if not first_process():
            yield
            return
        if self.state == "foreign":
            raise InputError("something that is no run lies here, and is left alone", where=str(self.path),
                             remedy="choose another place with --output DIR")  # fmt: skip
        with disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if (stream := locked(self.path / ".lock")) is None:
            holder = (self.path / ".lock").read_text(encoding="utf-8").strip()
            raise InputError(f"{HELD}: {holder}", where=str(self.path),
                             remedy="wait for it, or choose another place with --output DIR")  # fmt: skip
        with stream:
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            stream.flush()
            try:
                yield
            finally:
                if self.state == "new":  # nothing came of it
                    shutil.rmtree(self.path, ignore_errors=True)

    def log_size(self) -> int:
        """Bytes of the log so far."""
        return self.log_jsonl.stat().st_size if self.log_jsonl.is_file() else 0

    def append_log(self, entry: dict[str, Any]) -> None:
        with disk(self.log_jsonl), self.log_jsonl.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(entry), ensure_ascii=False) + "\n")


def locked(file: Path, wait: bool = False) -> IO[str] | None:
    """The file, locked until it is closed or the process ends; None where another has it and is not waited for."""
    import fcntl

    with disk(file):
        stream = file.open("a", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        stream.close()
        return None
    return stream


def write(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Writes a file whole, a text, its lines or bytes: to a temporary neighbour, synced, renamed."""
    parts = [content] if isinstance(content, (str, bytes)) else content
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as stream:
            stream.writelines(part.encode() if isinstance(part, str) else part for part in parts)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """An undefined metric (nan) is null: JSON has no nan."""
    write(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of one object a line, whole or not there."""
    write(path, (json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of one a line."""
    with path.open(encoding="utf-8") as stream:
        yield from (json.loads(line) for line in stream if line.strip())


def save_model(path: Path, model: Any, tokenizer: Any, weights: dict[str, Any] | None = None) -> None:
    """`model/` as `from_pretrained` loads it: written beside, then renamed. `weights` are those of a sharded model."""
    temporary = path.with_name(path.name + ".tmp")
    with disk(path):
        shutil.rmtree(temporary, ignore_errors=True)
        if hasattr(model, "merge_and_unload"):  # LoRA: merged, it is a plain model that loads anywhere
            model = copy.deepcopy(model).merge_and_unload()
        with quiet():
            model.save_pretrained(temporary, state_dict=weights)
            _name_labels(temporary / "config.json", model.config)
            tokenizer.save_pretrained(temporary)
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)


def _name_labels(file: Path, config: Any) -> None:
    """Writes the labels into a saved config.json: `transformers` leaves two of no name out as its default, and then loads
    a BART, whose own default is three, with another head."""
    saved = json.loads(file.read_text(encoding="utf-8"))
    labels = {"id2label": config.id2label, "label2id": config.label2id}
    if not labels.keys() <= saved.keys():
        file.write_text(json.dumps(saved | labels, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `transformers`, which are as they were after it."""
    from transformers import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def remove(folder: Path) -> None:
    """Removes a folder of ours, if it is there."""
    with disk(folder):
        shutil.rmtree(folder, ignore_errors=True)


def finite(value: Any) -> Any:
    """The value with nan and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` of every value that differs between two trees."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_short(a)} -> {_short(b)}")
    return lines


def _short(value: Any) -> str:
    text = "(none)" if value is None else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def run_name(base: Task, task: Task, settings: Mapping[str, Any]) -> str:
    """`<task>-<checkpoint>[-changed keys]-seed<k>`."""
    leaves = {key.rpartition(".")[2]: value for key, value in sorted(settings.items())}
    told = [f"{leaf}={value}" for leaf, value in leaves.items() if leaf in {*Recipe.model_fields, "limit_train"}]
    told += [f"folds={task.run.folds}"] * bool(task.run.folds)
    parts = [base.name, short_name(task.run.checkpoint or "model"), *told]
    name = "-".join("".join(c if c.isalnum() or c in "._=+-" else "_" for c in part) for part in parts)
    if len(name) > 180:
        name = f"{name[:170]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name}-seed{task.run.seed}"


def short_name(checkpoint: str) -> str:
    """The part of a checkpoint's name that goes into a run's name."""
    path = Path(checkpoint).expanduser()
    return path.resolve().name if path.is_dir() else checkpoint.rpartition("/")[2]


def first_process() -> bool:
    """Whether this is the process that writes and prints; a launcher (torchrun, accelerate) says so before torch does."""
    return os.environ.get("RANK", "0") == "0"


def numbered(folder: RunDir, resume: bool = False) -> RunDir:
    """The folder, or the first free `<name>-2`, `<name>-3`, ...: a notebook's cell never runs into its own past, unless
    it is to be resumed: then the last one that is there."""
    number = 2
    first = before = folder
    while folder.state != "new":
        before, folder = folder, RunDir(first.path.with_name(f"{first.path.name}-{number}"))
        number += 1
    return before if resume else folder


def is_finished(folder: RunDir, task: Task, identity: dict[str, str | None], overwrite: bool) -> bool:
    """Whether this very run is there and whole. Another one in its place is refused with the difference, unless it is
    to be overwritten. Equal data and an equal checkpoint may lie elsewhere by now."""
    if folder.state == "new" or overwrite:
        return False
    # a run that got no further than its task.toml has no environment yet
    there = folder.environment() if folder.environment_json.is_file() else None
    fingerprint = identity if there is None else {k: there.get(f"{k}_fingerprint") for k in identity}
    old, new = {**folder.task().dump(), "fingerprint": fingerprint}, {**task.dump(), "fingerprint": identity}
    for kind, (table, keys) in MOVES.items():
        if identity[kind] is not None and identity[kind] == fingerprint[kind]:
            for tree in (old, new):
                tree[table] = {key: value for key, value in tree[table].items() if key not in keys}
                tree["run"] = {key: value for key, value in tree["run"].items() if (kind, key) != ("data", "data_dir")}
    if changes := difference(old, new):
        raise InputError("another run lies here; it differs in\n    " + "\n    ".join(changes), where=str(folder.path),
                         remedy="--overwrite replaces it, --output DIR puts the new one elsewhere")  # fmt: skip
    return folder.state == "finished"
