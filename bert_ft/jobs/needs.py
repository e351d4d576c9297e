"""What a run asks a cluster for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bert_ft.errors import InputError

REMEDY = "--per-run cpus=4,gpus=1,memory=16GB"
UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


@dataclass(frozen=True)
class Needs:
    """What each run has for itself.

    Attributes:
        cpus: also the threads that it computes with, unless OMP_NUM_THREADS says how many.
        gpus: None: one, where the cluster has any.
        memory: bytes; None: as the node has it.
    """

    cpus: float = 1
    gpus: float | None = None
    memory: float | None = None

    def __str__(self) -> str:
        """In words."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}"

    def on(self, nodes: Sequence[Mapping[str, float]]) -> Needs:
        """What that is on a cluster of nodes with these resources."""
        if self.gpus is not None:
            return self
        return replace(self, gpus=float(any(resources.get("GPU", 0) >= 1 for resources in nodes)))

    def times(self, resources: Mapping[str, float]) -> int:
        """How many runs a node with these resources has room for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus or 0, "memory": self.memory or 0}
        return min(int(resources.get(kind, 0) / amount) for kind, amount in asked.items() if amount)


def needs(text: str | None) -> Needs:
    """What "cpus=4,gpus=1,memory=16GB" asks for, or a part of it. Without a word of CPUs it is as many as
    OMP_NUM_THREADS says here, else one.

    Raises:
        InputError: another key, no number, or nothing at all of the CPUs.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    values = {"cpus": float(threads) if threads.isdigit() and int(threads) else 1.0}
    for part in (text or "").split(","):
        if not (part := part.strip()):
            continue
        match = re.fullmatch(r"(cpus|gpus|memory)\s*=\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?", part)
        if match is None or (match[3] and match[1] != "memory"):
            raise InputError(f"'{part}' is nothing that a run can ask for", where="per_run", remedy=REMEDY)
        values[match[1]] = float(match[2]) * UNITS[match[3] or ""]
    if not values["cpus"]:
        raise InputError("a run needs a CPU", where="per_run", remedy=REMEDY)
    return Needs(**values)
