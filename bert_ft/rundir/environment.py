"""What a number depends on besides the task: versions, device, precision, processes, commit, fingerprints."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

PACKAGES = (
    "bert-ft",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "evaluate",
    "scikit-learn",
    "numpy",
    "pyarrow",
)
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LARGE = 10_000_000  # bytes: a repository has no longer list of its branches


def version(package: str) -> str:
    """The installed version; `unknown` where the package runs from a bare checkout."""
    try:
        return installed(package)
    except PackageNotFoundError:
        return "unknown"


def describe(
    accelerator: Any, identity: dict[str, str | None], commit: str | None, seed: int
) -> dict[str, Any]:
    """The content of `environment.json`."""
    import torch

    return {
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "platform": platform.platform(),
        "device": device_name(accelerator),
        "precision": precision(accelerator),
        **({} if accelerator.bf16_gain is None else {"bf16_gain": accelerator.bf16_gain}),
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
    """`fp32`, `bf16`, `fp16`, or `bf16-steps`: training steps in bf16, answers in fp32."""
    if accelerator.step_dtype is not None:
        return "bf16-steps"
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

    parts = [device_name(accelerator), precision(accelerator)]
    if (gain := accelerator.bf16_gain) is not None:
        parts[-1] += (
            f" (products {gain:.1f} times as fast as in fp32)" if gain else " (slow: no instructions for it)"
        )
    if accelerator.device.type == "cpu":
        threads = torch.get_num_threads()
        parts.append(f"{threads} threads" if threads > 1 else f"{threads} thread")
    if accelerator.num_processes > 1:
        parts.append(f"{accelerator.num_processes} processes")
    return ", ".join(parts)


def git_commit() -> str | None:
    """The commit that the working directory's checkout is at; None outside of one.

    It is read from git's files. git itself is not asked, since it would run the programs that the
    configuration of that folder names; so it is not known whether the checkout has changes.
    """
    try:
        here = Path.cwd()
        git = next((place for folder in (here, *here.parents) if (place := folder / ".git").exists()), None)
        if git is None:
            return None
        if git.is_file():  # of a worktree or a submodule: "gitdir: ITS/PLACE"
            git = git.parent / _text(git).removeprefix("gitdir:").strip()
        head = _text(git / "HEAD").strip()
        reference = head.removeprefix("ref:").strip()
        if reference == head:
            return head if COMMIT.fullmatch(head) else None
        if not reference.startswith("refs/") or ".." in reference:
            return None
        common = git / _text(git / "commondir").strip() if (git / "commondir").is_file() else git
        for place in (git, common):
            if (place / reference).is_file():
                commit = _text(place / reference).strip()
                return commit if COMMIT.fullmatch(commit) else None
        packed = _text(common / "packed-refs").splitlines() if (common / "packed-refs").is_file() else []
    except (OSError, ValueError):  # it can't be read, is no text, or no file can have its name
        return None
    commits = (line.partition(" ")[0] for line in packed if line.partition(" ")[2] == reference)
    return next((commit for commit in commits if COMMIT.fullmatch(commit)), None)


def _text(file: Path) -> str:
    """What a small regular file holds. Raises OSError: it is none."""
    if not file.is_file() or file.stat().st_size > LARGE:
        raise OSError(f"{file} is no small file")
    return file.read_text(encoding="utf-8")
