"""The `accelerate.Accelerator` of a run: device, precision, processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError

BF16_GAIN = 1.5  # CPUs with instructions for bf16 multiply 2 to 8 times as fast with them


def accelerator(precision: str = "auto", log_with: Any = None, folder: Path | None = None) -> Any:
    """An `Accelerator` for whatever device is there. Its `step_dtype` is what the forward of a training step
    is computed in where answers are not; None: in what answers are. Its `bf16_gain` is how many times as fast
    as in float32 a CPU multiplies that computes in bfloat16; None: nothing does.

    Args:
        precision: "auto" is bf16 or fp16 on a GPU that is good at it; on a CPU that is, training steps are in
            bf16 and answers, which cost little there and may be compared to the last digit, in fp32.
        log_with: its trackers; what they write to disk lies in `folder`.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    from bert_ft.kernels.cpu import bf16_gain

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # without a GPU accelerate would let launched processes train apart, unless it is told to use the CPU
    cpu = launched > 1 and not torch.accelerator.is_available()
    steps = None
    if precision == "auto":
        precision = _of_gpu()
        steps = torch.bfloat16 if _is_good_at_bf16(cpu) else None
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("fp16 needs a CUDA device", where="recipe.precision", remedy='precision = "auto"')
    if is_initialized():  # an earlier run of this process may have had another precision
        AcceleratorState._reset_state()
    try:
        result = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=log_with,
            cpu=cpu,
            project_dir=folder,
        )
    except ValueError as error:
        raise InputError(str(error), where="log_with") from None
    on_cpu = result.device.type == "cpu" and (steps is not None or precision == "bf16")
    result.step_dtype = steps
    result.bf16_gain = bf16_gain() if on_cpu else None
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


def _of_gpu() -> str:
    """The precision that the GPU is good at; "fp32" where there is none."""
    import torch

    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _is_good_at_bf16(launched: bool) -> bool:
    """Whether this computes on a CPU that multiplies in bf16 much faster than in fp32. `launched`: as one of
    several processes, for which the first decides."""
    import torch

    from bert_ft.kernels.cpu import bf16_gain

    if torch.accelerator.is_available():
        return False
    answer = [bf16_gain() >= BF16_GAIN]
    if launched:
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        PartialState(cpu=True)
        broadcast_object_list(answer)
    return answer[0]


def _shard(accelerator: Any) -> None:
    """FSDP as our loop needs it: version 2, which shards the model in place; also on CPUs, where accelerate
    would quietly take DDP."""
    from accelerate import DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState

    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()
        AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    if not accelerator.is_fsdp2:
        raise InputError(
            "FSDP of version 1 is not supported",
            where="accelerate's configuration",
            remedy="set fsdp_config.fsdp_version: 2, as `bert-ft launch-config fsdp` does",
        )
