"""What a number depends on besides the task: versions, device, precision, processes, commit, fingerprints."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

PACKAGES = ("bert-ft", "torch", "transformers", "tokenizers", "accelerate", "datasets", "evaluate", "scikit-learn",
            "numpy", "pyarrow")  # fmt: skip


def version(package: str) -> str:
    """The installed version; `unknown` where the package runs from a bare checkout."""
    try:
        return installed(package)
    except PackageNotFoundError:
        return "unknown"


def describe(accelerator: Any, identity: dict[str, str | None], commit: str | None, seed: int) -> dict[str, Any]:
    """The content of `environment.json`."""
    import torch

    return {
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "platform": platform.platform(),
        "device": device_name(accelerator),
        "precision": precision(accelerator),
        "distributed": str(accelerator.distributed_type.value),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "seed": seed,
        "data_fingerprint": identity["data"],
        "checkpoint_fingerprint": identity["checkpoint"],
        "checkpoint_commit": commit,
    }


def precision(accelerator: Any) -> str:
    """`fp32`, `bf16` or `fp16`."""
    return "fp32" if accelerator.mixed_precision == "no" else str(accelerator.mixed_precision)


def device_name(accelerator: Any) -> str:
    """`cuda (NVIDIA ...)`, `mps`, or `cpu (x86_64)`."""
    import torch

    kind = accelerator.device.type
    detail = torch.cuda.get_device_name(accelerator.device) if kind == "cuda" else platform.machine()
    return f"{kind} ({detail})"


def device_line(accelerator: Any) -> str:
    """One line for the person: device, precision, processes."""
    import torch

    cores, count = torch.get_num_threads(), accelerator.num_processes
    threads = f", {cores} thread{'s' * (cores > 1)}" * (accelerator.device.type == "cpu")
    processes = f", {count} processes" * (count > 1)
    return f"{device_name(accelerator)}, {precision(accelerator)}{threads}{processes}"


def git_commit() -> str | None:
    """The commit of the working directory's checkout, `+` where it has changes; None outside of one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
