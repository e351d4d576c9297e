"""The `accelerate.Accelerator` of a run: device, precision, processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bert_ft.engine.surroundings import own_states
from bert_ft.errors import InputError

WORTH = 1.5  # times the speed of float32: from here on a training on a CPU is in bfloat16

# words of what accelerate refuses, and where they are mended
BLAMED = {"logging capability": "log_with", "mixed precision": "recipe.precision"}


def accelerator(
    precision: str = "auto", log_with: Any = None, folder: Path | None = None, training: bool = False
) -> Any:
    """An `Accelerator` for whatever device is there.

    Beside accelerate's own attributes it has `step_dtype`, what the forward of a training step is computed in
    where answers are not (None: in what answers are); `asked`, whether the precision is not our choice; and
    `bf16_gain`, how many times as fast as in float32 a CPU multiplies that computes in bfloat16 (None:
    nothing does).

    Args:
        precision: "auto" is bf16 or fp16 on a GPU that is good at it, bf16-steps in a training where the CPUs
            of all processes are, else fp32; "bf16-steps": training steps in bf16, and answers, which may be
            compared to the last digit, in fp32.
        training: whether there are such steps.
        log_with: its trackers; what they write to disk lies in `folder`.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, gather_object

    from bert_ft.kernels.cpu import bf16_gain
    from bert_ft.kernels.processor import has_bf16

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # without a GPU accelerate would let launched processes train apart, unless it is told to use the CPU
    cpu = launched > 1 and not torch.accelerator.is_available()
    asked = precision != "auto"
    if not asked and torch.cuda.is_available():
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("fp16 needs a CUDA device", where="recipe.precision", remedy='precision = "auto"')
    try:
        with own_states({}, {}):
            result = Accelerator(
                mixed_precision=precision if precision in ("bf16", "fp16") else "no",
                # not what ACCELERATE_GRADIENT_ACCUMULATION_STEPS says, by which gradients would be divided
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                log_with=log_with,
                cpu=cpu,
                project_dir=folder,
            )
    except ValueError as error:
        where = next((place for words, place in BLAMED.items() if words in str(error)), "accelerate")
        raise InputError(str(error), where=where) from None
    on_cpu = result.device.type == "cpu"
    if training:
        _refuse_surroundings(result.device.type)
    result.asked = asked
    if training and on_cpu and not asked:
        good = gather_object([has_bf16() and bf16_gain() >= WORTH])
        precision = "bf16-steps" if all(good) else "fp32"
    result.step_dtype = torch.bfloat16 if training and precision == "bf16-steps" else None
    computed = result.step_dtype is not None or precision == "bf16"
    result.bf16_gain = bf16_gain() if on_cpu and computed else None
    trackers = log_with if isinstance(log_with, (list, tuple)) else [log_with]
    requested = {str(getattr(each, "value", each)) for each in trackers if isinstance(each, str)}
    for absent in sorted(
        requested - {"all"} - {str(getattr(each, "value", each)) for each in result.log_with}
    ):
        raise InputError(
            f"the tracker '{absent}' is not installed", where="log_with", remedy=f"pip install {absent}"
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and result.num_processes > 1:
        _shard(result)
    return result


def _refuse_surroundings(device: str) -> None:
    """Refuses a training inside a person's own `torch.autocast`, which keeps its copies of the weights until
    it is left, so that every step would be computed with those of the first; and one without gradients."""
    import torch

    if torch.is_autocast_enabled(device):
        raise InputError(
            "the training is called inside `torch.autocast`, where no step would see what the one before "
            "has learned",
            where="torch",
            remedy='call it outside; precision = "bf16", "fp16" or "bf16-steps" says what it is computed in',
        )
    if not torch.is_grad_enabled():
        raise InputError(
            "the training is called inside `torch.no_grad` or `torch.inference_mode`, where no gradients are",
            where="torch",
            remedy="call it outside",
        )


def _shard(accelerator: Any) -> None:
    """FSDP as our loop needs it: version 2, which shards the model in place; also on CPUs, where accelerate
    would quietly take DDP."""
    from accelerate import DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import PartialState

    if accelerator.device.type == "cpu":
        kind = {"distributed_type": DistributedType.FSDP}
        accelerator.state.__dict__.update(kind, fsdp_plugin=FullyShardedDataParallelPlugin())
        PartialState._shared_state.update(kind)  # which every look at the state copies into it
    if not accelerator.is_fsdp2:
        raise InputError(
            "FSDP of version 1 is not supported",
            where="accelerate's configuration",
            remedy="set fsdp_config.fsdp_version: 2, as `bert-ft launch-config fsdp` does",
        )
