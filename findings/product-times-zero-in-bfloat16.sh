#!/usr/bin/env bash
# Guess: a batched product with alpha = 0 is beta times what was there, in every type: torch's documentation has it so.
# Found: in bfloat16 on a CPU with instructions for it, a large one leaves the result as it was, whatever beta is: 7 in the place
# of 0 with beta = 0, and of 3.5 with beta = 0.5. float32 and float16 are right, and so is a small product in bfloat16, which
# takes another path. A factor that is computed, as 1 / (1 - p) for a dropout of everything, comes to 0 by itself.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
"$python" - <<'PY'
import sys

import torch

print("torch", torch.__version__)
capabilities = torch.cpu.get_capabilities()
if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
    print("this CPU has no instructions for bfloat16: nothing to see")
    sys.exit()


SIZES = {"small": (2, 3, 4, 5), "large": (8, 240, 240, 32)}


def result(dtype: torch.dtype, size: str, beta: float) -> list[float]:
    """The numbers of beta * 7 + 0 * (a @ b)."""
    batch, rows, inner, columns = SIZES[size]
    a, b = torch.ones(batch, rows, inner, dtype=dtype), torch.ones(batch, inner, columns, dtype=dtype)
    out = torch.full((batch, rows, columns), 7.0, dtype=dtype)
    return out.baddbmm_(a, b, beta=beta, alpha=0).unique().tolist()


found = {
    (dtype, size, beta): result(dtype, size, beta)
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
    for size in SIZES
    for beta in (0.0, 0.5)
}
for (dtype, size, beta), numbers in found.items():
    print(f"{dtype}, {' x '.join(map(str, SIZES[size]))}, beta = {beta}: {numbers}")
odd = {key for key, numbers in found.items() if numbers != [7 * key[2]]}
sys.exit(odd != {(torch.bfloat16, "large", 0.0), (torch.bfloat16, "large", 0.5)})
PY
