"""The run folder: its paths, what is in each file, and writes that are whole or not there at all."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from bert_ft import files, reading
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.errors import InputError, disk
from bert_ft.files import LARGEST, difference, finite, first_process, locked, read_jsonl, write, write_json
from bert_ft.rundir import lease
from bert_ft.rundir.lease import HELD

MOVES = {
    "data": ("data", {"path", "train", "evaluate", "test", "without"}),
    "checkpoint": ("run", {"checkpoint"}),
}
"""Which fingerprint stands for what places of a task: its table and keys (and `run.data_dir` for the
data)."""
IN_PARTS = ("eval_tokens", "gradient_accumulation_steps")
"""Keys of `batching` with which an interrupted run may go on otherwise: they say in how many parts something
is computed, which has to be more of them where memory ran out."""
RESULTS: dict[str, Any] = {
    "metrics": {"set": {"metric": 0.5}}, "spread": {"set": {"metric": 0.5}}, "counts": {"set": {"what": 1}},
    "timing": {"train_seconds": 1.5}, "recipe": {}, "tuned": {}, "notes": ["a note"], "chosen": [{}],
    "baselines": {"baseline": {"set": {"metric": 0.5}}}, "baseline_rows": 1,
    "calibration": {"set": {"before": {}}},
}  # fmt: skip
ENVIRONMENT: dict[str, Any] = {"versions": {}, "resumed": []}
"""The shapes of what `results.json` and `environment.json` hold, as `reading.fits` takes them."""
MARKER = "data_fingerprint"
"""The key of `environment.json` that says that bert-ft wrote it, and with it the folder."""
LARGE = 2**24  # bytes: no environment.json is so long
FOLDERS = {
    "checkpoints": re.compile(
        r"step-\d+(\.tmp)?|best-\d+\.safetensors|evaluation-\d+\.npz|best\.tmp|\..+\.tmp"
    ),
    "model": re.compile(
        r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|"
        r"adapter_config\.json|adapter_model\.safetensors|"
        r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|README\.md|vocab\.txt|merges\.txt|bpe\.codes|"
        r"(spiece|sentencepiece\.bpe|tokenizer|spm)\.model|chat_template\.(jinja|json)|\..+\.tmp"
    ),
    "onnx": re.compile(
        r"(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|answering|parity)\.json|"
        r"model(_int8|_fp16)?\.onnx|example\.py|vocab\.txt|merges\.txt|bpe\.codes|"
        r"(spiece|sentencepiece\.bpe|tokenizer|spm)\.model|chat_template\.(jinja|json)|\..+\.tmp"
    ),
    "predictions": re.compile(r"(.+?)(\.jsonl|\.rows\.parquet|[\w.-]*\.json)|\..+\.tmp"),
}
"""The folders of a run, with the names that are written into each: nothing else in them is ever deleted. Of
predictions these are the run's own sets alone."""
FOLDS = re.compile(r"fold-\d+|logs")
"""What else lies in the folder of a cross-validation."""
FILES = (
    *("task.toml", "environment.json", "log.jsonl", "results.json", "report.html", "pushed.jsonl"),
    *("int8.json", ".lock"),
)
"""The files of a run."""


class RunDir:
    """Paths and files of one run. `results.json` is written once all the rest is there: a run that has
    it is whole, but perhaps for the pages, which are made of it."""

    def __init__(self, path: str | Path) -> None:
        self.path = reading.path(path, "a run folder")
        self.task_toml = self.path / "task.toml"
        self.environment_json = self.path / "environment.json"
        self.log_jsonl = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.onnx = self.path / "onnx"
        self.predictions = self.path / "predictions"
        self.results_json = self.path / "results.json"
        self.report_html = self.path / "report.html"
        self.pushed_jsonl = self.path / "pushed.jsonl"
        self.int8_json = self.path / "int8.json"

    @property
    def state(self) -> str:
        """`finished`, `unfinished` (started and not ended), `new` (nothing there) or `foreign` (no run at
        all).

        A run is known by the `environment.json` that bert-ft writes: a task.toml lies in many a project's
        folder.
        """
        if not self.path.is_dir():
            return "foreign" if self.path.exists() else "new"
        marked = self._is_marked()
        if marked and self.task_toml.is_file():
            return "finished" if self.results_json.is_file() else "unfinished"
        # a marked one was ended between its marker and its task
        ours = {*FILES, *FOLDERS} if marked else {".lock"}
        passing = (files.TEMPORARY, lease.NAME, *((FOLDS,) if marked else ()))
        others = (
            entry.name
            for entry in self.path.iterdir()
            if not any(names.fullmatch(entry.name) for names in passing)
        )
        return "foreign" if any(name not in ours for name in others) else "new"

    def _is_marked(self) -> bool:
        """Whether `environment.json` is one that bert-ft wrote."""
        try:
            if not self.environment_json.is_file() or self.environment_json.stat().st_size > LARGE:
                return False
            value = json.loads(self.environment_json.read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(value, dict) and MARKER in value

    @property
    def busy(self) -> bool:
        """Whether a command is working on the run, of this machine or another. A worker that died without a
        word counts until its lease has been seen to be over."""
        if lease.alive(self.path):
            return True
        if not (lock := self.path / ".lock").is_file():
            return False
        if (stream := locked(lock)) is not None:
            stream.close()
        return stream is None

    def task(self) -> Task:
        return load_task(self.task_toml)

    def results(self) -> dict[str, Any]:
        """`results.json`, once its parts have the shapes that every reader relies on."""
        return self._read(self.results_json, RESULTS)

    def environment(self) -> dict[str, Any]:
        return self._read(self.environment_json, ENVIRONMENT)

    def precision(self, asked: str, overwrite: bool = False) -> str:
        """What a training here is to be computed in: where it goes on from a checkpoint and the choice was
        ours ("auto"), that of its steps so far, since another CPU would make another choice."""
        goes_on = asked == "auto" and self.state == "unfinished" and not overwrite
        saved = goes_on and any(self.checkpoints.glob("step-*"))
        begun = self.environment().get("precision") if saved else None
        return begun if begun in ("fp32", "bf16-steps") else asked

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        return list(read_jsonl(self.log_jsonl, growing=True)) if self.log_jsonl.is_file() else []

    def prediction_file(self, name: str) -> Path:
        """Where the predictions of a set lie."""
        return self.predictions / f"{name}.jsonl"

    def _read(self, file: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
        if not file.exists():
            raise InputError(f"there is no {file.name}", where=str(self.path), remedy="name a finished run")
        try:
            value = reading.strict(reading.text(file, LARGEST))
        except ValueError as error:
            raise InputError(f"not JSON: {error}", where=str(file)) from None
        remedy = "the file is damaged, or another program wrote it"
        if not isinstance(value, dict):
            raise InputError(
                f"expected a JSON object, got {type(value).__name__}", where=str(file), remedy=remedy
            )
        for key, shape in shapes.items():
            if not reading.fits(value.get(key, shape), shape):
                raise InputError(
                    f"'{key}' has a value of the wrong kind: {value[key]!r:.80}",
                    where=str(file),
                    remedy=remedy,
                )
        if shapes is RESULTS and "metrics" not in value:
            raise InputError("'metrics' is missing", where=str(file), remedy=remedy)
        return value

    def start(self, task: Task, environment: dict[str, Any]) -> None:
        """Empties what an earlier attempt left and writes what is known before training."""
        files.guard()
        with disk(self.path):
            self.results_json.unlink(missing_ok=True)
            self.clear()
            for old in (self.log_jsonl, self.task_toml, self.report_html, self.pushed_jsonl, self.int8_json):
                old.unlink(missing_ok=True)
            write_json(self.environment_json, environment)
            self.predictions.mkdir(exist_ok=True)
        self._write_task(task)  # from here on the folder is known as a run

    def clear(self, *folders: str) -> None:
        """Deletes what bears a name of ours in these folders of the run, by default in all; what else lies
        there stays."""
        with disk(self.path):
            for name in folders or FOLDERS:
                ours = re.compile(self._predicted()) if name == "predictions" else FOLDERS[name]
                files.clear(self.path / name, ours)
            files.sweep(self.path, files.TEMPORARY)

    def _predicted(self) -> str:
        """The names of what is written below `predictions/` for the sets of the run's task."""
        sets = {"out_of_fold"}
        with suppress(InputError):  # it has none yet, or one that can't be read: then its sets are not known
            data = self.task().data
            sets |= {*data.evaluation_sets, *data.test_sets}
        return FOLDERS["predictions"].pattern.replace(".+?", "|".join(map(re.escape, sorted(sets))))

    def remove(self) -> None:
        """Deletes the whole run, and its folder where nothing else lies in it."""
        self.clear()
        with disk(self.path):
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def resume(self, task: Task, log_size: int, environment: dict[str, Any]) -> None:
        """Takes the log back to where the checkpoint left it, and records where the run goes on."""
        with disk(self.path), files.opened(self.log_jsonl, "ab") as stream:
            stream.truncate(log_size)
        self._write_task(task)  # data and checkpoint may have moved
        recorded = self.environment() if self.environment_json.is_file() else environment
        keys = ("device", "processes", "precision", "versions", "git_commit")
        now = {key: environment.get(key) for key in keys}
        write_json(self.environment_json, {**recorded, "resumed": [*recorded.get("resumed", []), now]})

    def _write_task(self, task: Task) -> None:
        command = f"# bert-ft train {self.task_toml.name}\n"
        header = f"{command}# what this run was made from, every default included\n\n"
        write(self.task_toml, header + tomli_w.dumps(task.dump()))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a command works on the run; of several processes the first holds it for all. It ends
        with the process, even one that is killed. That of a cluster's worker is a lease.

        Raises:
            InputError: another command holds it, whom the message names; the folder holds something that is
                no run, or has links among its entries.
        """
        if not first_process():
            yield
            return
        if self.state == "foreign":
            raise InputError(
                "this folder holds something that is not a run, and nothing is written into it",
                where=str(self.path),
                remedy="choose another place with --output DIR",
            )
        with disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (*FILES, *FOLDERS):
                files.refuse_link(self.path / name)
        if (stream := locked(self.path / ".lock")) is None:
            holder = (self.path / ".lock").read_text(encoding="utf-8").strip()
            raise InputError(
                f"{HELD}: {holder}",
                where=str(self.path),
                remedy="wait for it, or choose another place with --output DIR",
            )
        try:
            with stream, lease.held(self.path, lease.requested()) as leased:
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                told = f"process {os.getpid()} on {platform.node()}, since {since}\n"
                files.fill(stream, self.path / ".lock", told)
                if leased:
                    stream.close()  # a lock may outlive this machine, and a lease would not end it
                try:
                    yield
                finally:
                    if self.state == "new" and not any(self.path.glob("fold-*")):  # nothing came of it
                        self.remove()
        finally:
            if self.path.is_dir() and not any(self.path.iterdir()):  # the lease was in it
                self.path.rmdir()

    def log_size(self) -> int:
        """Bytes of the log so far."""
        return self.log_jsonl.stat().st_size if self.log_jsonl.is_file() else 0

    def append_log(self, entry: dict[str, Any]) -> None:
        with disk(self.log_jsonl), files.opened(self.log_jsonl) as stream:
            stream.write(json.dumps(finite(entry), ensure_ascii=False) + "\n")


def is_finished(folder: RunDir, task: Task, identity: dict[str, str | None], overwrite: bool) -> bool:
    """Whether this very run is there and finished. Another one in its place is refused with the difference,
    unless it is to be overwritten. Equal data and an equal checkpoint may lie elsewhere by now."""
    if folder.state == "new" or overwrite:
        return False
    recorded = folder.environment()
    fingerprint = {kind: recorded.get(f"{kind}_fingerprint") for kind in identity}
    old = {**folder.task().dump(), "fingerprint": fingerprint}
    new = {**task.dump(), "fingerprint": identity}
    for tree in (old, new):
        # what a file says of it is not obeyed, so it changes nothing
        tree["run"].pop("trust_remote_code")
        for key in IN_PARTS if folder.state == "unfinished" else ():
            tree["batching"].pop(key)
    for kind, (table, keys) in MOVES.items():
        if identity[kind] is not None and identity[kind] == fingerprint[kind]:
            for tree in (old, new):
                tree[table] = {key: value for key, value in tree[table].items() if key not in keys}
                tree["run"] = {
                    key: value for key, value in tree["run"].items() if (kind, key) != ("data", "data_dir")
                }
    if changes := difference(old, new):
        raise InputError(
            "this folder holds another run, which differs in",
            details=changes,
            where=str(folder.path),
            remedy="replace it with --overwrite, or choose another place with --output DIR",
        )
    return folder.state == "finished"
