"""Training state on disk, `checkpoints/step-N/`: whole or not there, verified before it is used.

What a step follows from is in it: weights, optimizer, schedule, every random state of every process, how far
training has come, and where the log stood. The order of the rows needs no state: it is a function of seed and
step alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object

from bert_ft import files
from bert_ft.engine.averaging import Average
from bert_ft.errors import BertFtError, disk

KEPT = 2  # the newest, and the one before in case the newest turns out to be damaged


@dataclass
class State:
    """How far training has come."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    best_sha256: str = ""  # of its weights' file
    waited: int = 0  # evaluations since the best one
    micro_batches: int = 1  # parts a process computes its share of a batch in; grows where memory runs out
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0  # inside steps: evaluations and saving are not counted
    first_step: float | None = None  # time.perf_counter() when the first step was done
    running: float = 0.0  # this process's sum of losses since the last line of the log
    since: int = 0  # steps in it


@dataclass
class Checkpoints:
    """Saves and restores one training.

    Args:
        folder: the run's `checkpoints/`.
        every: steps ("500") or minutes ("10min") between two.
        log_size: returns the size of the log in bytes.
        say: shows a line to the person.
    """

    folder: Path
    every: str
    accelerator: Any
    log_size: Callable[[], int]
    say: Callable[[str], None]
    keeps_best: bool = True
    stopped_by: str | None = None  # a signal's name once one has come
    saved: float = field(default_factory=time.monotonic)
    random_state: dict[str, Any] = field(default_factory=dict)

    def due(self, step: int) -> bool:
        """Whether to save after this step; the main process decides for all."""
        if self.every.isdigit():
            due = step % int(self.every) == 0
        else:
            due = time.monotonic() - self.saved > 60 * float(self.every.removesuffix("min"))
        due, self.stopped_by = broadcast_object_list([due or self.stopped_by is not None, self.stopped_by])
        return bool(due)

    def mark(self) -> None:
        """Remembers the random states between two steps: one that is broken off has drawn from them
        already."""
        self.random_state = _random_state(self.accelerator.device)

    def save(
        self, model: Any, optimizer: Any, scheduler: Any, state: State, average: Average | None = None
    ) -> None:
        """Writes `step-N` to a temporary folder, syncs it, renames it; then drops what is no longer
        needed."""
        tensors, groups = _whole(model, optimizer)  # every process gives its part of what is sharded
        if average is not None:
            tensors |= {f"average.{name}": mean for name, mean in average.means.items()}
        everyone = gather_object([{"random": self.random_state, "running": state.running}])
        if self.accelerator.is_main_process:
            with disk(self.folder):
                self._write(tensors, groups, scheduler, state, everyone)
        self.accelerator.wait_for_everyone()
        self.saved = time.monotonic()

    def _write(
        self,
        tensors: dict[str, torch.Tensor],
        groups: list[Any],
        scheduler: Any,
        state: State,
        everyone: list[Any],
    ) -> None:
        temporary = self.folder / f"step-{state.step}.tmp"
        final = self.folder / f"step-{state.step}"
        files.guard()
        for left in self.folder.glob("step-*.tmp"):  # of a process that was killed
            files.remove(left)
        temporary.mkdir(parents=True)
        for rank, own in enumerate(everyone):
            tensors |= {f"random.{rank}.{key}": tensor for key, tensor in own["random"]["tensors"].items()}
        save(tensors, temporary / "state.safetensors")
        rest = {
            "state": asdict(state),
            "log": self.log_size(),
            "keeps_best": self.keeps_best,
            "groups": groups,
            "schedule": scheduler.state_dict(),
            "scaler": scaler.state_dict() if (scaler := self.accelerator.scaler) is not None else None,
            "processes": [{"running": own["running"], "others": own["random"]["others"]} for own in everyone],
        }
        (temporary / "state.json").write_text(json.dumps(rest))
        sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / "checksums.json").write_text(json.dumps(sums))
        for file in temporary.iterdir():
            _sync(file)
        files.guard()
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(self.folder)
        self._prune(state)

    def _prune(self, state: State) -> None:
        """Keeps the newest `KEPT`, and the best weights that they or the training itself refer to."""
        steps = sorted(self.steps(), reverse=True)
        for step in steps[KEPT:]:
            shutil.rmtree(self.folder / f"step-{step}", ignore_errors=True)
        needed = {state.best_step}
        for step in steps[:KEPT]:
            needed.add(
                json.loads((self.folder / f"step-{step}" / "state.json").read_text())["state"]["best_step"]
            )
        for best in self.folder.glob("best-*.safetensors"):
            if best not in {self.best(step) for step in needed}:
                best.unlink()

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there."""
        return [int(p.name[5:]) for p in self.folder.glob("step-*") if p.name[5:].isdigit()]

    def best(self, step: int) -> Path:
        """Where the best weights lie, those of `step`."""
        return self.folder / f"best-{step}.safetensors"

    def keep_best(self, model: Any, state: State) -> None:
        """Keeps the weights of this step: the best so far."""
        if not self.keeps_best:
            return
        state_dict, whole = _gathering()
        weights: Any = state_dict.get_model_state_dict(model, options=whole)
        if self.accelerator.is_main_process:
            with disk(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                files.guard()
                files.refuse_link(self.best(state.step))
                # safetensors writes beside the file under a name of its own: what is left in here goes
                temporary = self.folder / "best.tmp"
                files.remove(temporary)
                temporary.mkdir()
                new = temporary / "model.safetensors"
                save(weights, new)
                _sync(new)
                state.best_sha256 = _sha256(new)
                files.guard()
                new.replace(self.best(state.step))
                temporary.rmdir()
            self._prune(state)

    def whole(self, model: Any) -> Any:
        """The weights of a model that is sharded over processes, gathered; None where there is nothing to
        gather."""
        if not self.accelerator.is_fsdp2:
            return None
        state_dict, whole = _gathering()
        return state_dict.get_model_state_dict(model, options=whole)

    def load_best(self, model: Any, step: int) -> None:
        """Puts the kept weights of `step` back."""
        from safetensors.torch import load_file

        self.accelerator.wait_for_everyone()
        weights: Any = load_file(self.best(step))
        if self.accelerator.is_fsdp2:
            model.reshard()  # an evaluation leaves what is outside of its layers whole
        state_dict, whole = _gathering()
        state_dict.set_model_state_dict(model, weights, options=whole)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its `state.json`; a damaged one is
        reported and passed over."""
        for step in sorted(self.steps(), reverse=True):
            folder = self.folder / f"step-{step}"
            try:
                sums = json.loads((folder / "checksums.json").read_text())
                wrong = [name for name, then in sums.items() if _sha256(folder / name) != then]
                rest: dict[str, Any] = json.loads((folder / "state.json").read_text())
                best = self.best(rest["state"]["best_step"])
                if (
                    rest["keeps_best"]
                    and rest["state"]["best_step"]
                    and _sha256(best) != rest["state"]["best_sha256"]
                ):
                    wrong.append(best.name)
                if not wrong:
                    return folder, rest
            except (OSError, ValueError, KeyError) as error:
                wrong = [str(error)]
            self.say(f"{folder} is damaged ({', '.join(wrong)}): the checkpoint before it is used")
        return None

    def restore(self, model: Any, optimizer: Any, scheduler: Any, average: Average | None = None) -> State:
        """Puts the newest whole checkpoint back, also into what accelerate has sharded; a fresh `State` where
        there is none."""
        from safetensors.torch import load_file

        newest = self.newest()
        if newest is None:
            return State()
        folder, rest = newest
        tensors = load_file(folder / "state.safetensors")
        weights: Any = {name[6:]: t for name, t in tensors.items() if name.startswith("model.")}
        inner: dict[str, Any] = {"state": {}, "param_groups": rest["groups"]}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                parameter, _, key = name[10:].rpartition(".")
                inner["state"].setdefault(parameter, {})[key] = tensor
        state_dict, whole = _gathering()
        state_dict.set_state_dict(
            model, _bare(optimizer), model_state_dict=weights, optim_state_dict=inner, options=whole
        )
        if average is not None:
            average.load({n.partition(".")[2]: t for n, t in tensors.items() if n.startswith("average.")})
        scheduler.load_state_dict(rest["schedule"])
        if rest["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(rest["scaler"])
        state = State(**rest["state"])
        rank = self.accelerator.process_index
        processes = self.accelerator.num_processes
        if len(rest["processes"]) == processes:
            own = {k.split(".", 2)[2]: t for k, t in tensors.items() if k.startswith(f"random.{rank}.")}
            _set_random_state(own, rest["processes"][rank]["others"])
            state.running = rest["processes"][rank]["running"]
        else:  # other processes draw other dropout: equal to tolerance, not to the bit
            state.running = sum(own["running"] for own in rest["processes"]) / len(rest["processes"])
            before = len(rest["processes"])
            self.say(f"the checkpoint is of {before} processes; training continues with {processes}")
        state.first_step = None
        self.say(f"resuming after step {state.step}")
        return state

    @contextmanager
    def signals(self, catch: bool) -> Iterator[None]:
        """SIGINT and SIGTERM save at the end of the step and leave; a second one leaves at once."""
        if not catch:
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self.stopped_by is not None:
                os._exit(130)
            self.stopped_by = signal.Signals(number).name
            self.say(
                f"{self.stopped_by}: saving after this step, then stopping (a second signal stops at once)"
            )

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Interrupted(BertFtError):
    """A signal ended the training, its state being saved: exit code 130 after Ctrl-C, 1 after SIGTERM."""

    def __init__(self, by: str, step: int) -> None:
        remedy = "its state is saved; run the same command (without --overwrite) to continue from there"
        super().__init__(f"{by}: stopped after step {step}", remedy=remedy)
        self.exit_code = 130 if by == "SIGINT" else 1


def _gathering() -> tuple[Any, Any]:
    """torch's functions for weights and optimizers that may be sharded, and their options; imported where a
    state is kept or put back, since importing them takes longer than a short training."""
    from torch.distributed.checkpoint import state_dict

    return state_dict, state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)


def _bare(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper


def _whole(model: Any, optimizer: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights and optimizer state by name, gathered from all processes where they are sharded; and the
    groups."""
    weights: Any
    inner: Any
    state_dict, whole = _gathering()
    weights, inner = state_dict.get_state_dict(model, _bare(optimizer), options=whole)
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    for parameter, values in inner.get("state", {}).items():
        tensors |= {f"optimizer.{parameter}.{name}": value for name, value in values.items()}
    return tensors, inner.get("param_groups", [])


def save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Writes tensors as safetensors. The format refuses tied weights, which share memory: each is copied."""
    from safetensors.torch import save_file

    pointers: set[int] = set()
    for name, tensor in tensors.items():
        tensors[name] = tensor.clone() if tensor.data_ptr() in pointers else tensor.contiguous()
        pointers.add(tensor.data_ptr())
    save_file(tensors, file)


def _random_state(device: torch.device) -> dict[str, Any]:
    """The random states: those of torch as tensors, those of Python and numpy as JSON."""
    numbers: Any = np.random.get_state(legacy=False)
    numbers["state"]["key"] = numbers["state"]["key"].tolist()
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return {"tensors": tensors, "others": {"python": random.getstate(), "numpy": numbers}}


def _set_random_state(tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
    version, words, gauss = others["python"]
    random.setstate((version, tuple(words), gauss))
    others["numpy"]["state"]["key"] = np.array(others["numpy"]["state"]["key"], np.uint32)
    np.random.set_state(others["numpy"])
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
