#!/usr/bin/env bash
# Guess: dropout keeps the mean in bfloat16 as in float32: what is kept is multiplied by 1 / (1 - p), and the result rounded.
# Found: on a CPU the factor itself is rounded, to 1.109375 for p = 0.1 where 1.1111 is right, so that all that is kept comes out
# 0.16 % too small, and with p = 0.05 0.18 % too large. float16 rounds it by a tenth of that. The mean of many numbers is off
# by as much, since nothing averages out: an encoder with 13 dropouts sees other sizes in training than in its answers.
# torch.native_dropout does the same. The same numbers times the Python number 1 / (1 - p) are right: that product is
# computed in float32, and rounded once.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
"$python" - <<'PY'
import sys

import torch
from torch import nn

print("torch", torch.__version__)
torch.manual_seed(0)
# between 1 and 2 all distances are equal, so that rounding up and down keep the balance
numbers = torch.rand(4_000_000) + 1


def factor(dropped: torch.Tensor, before: torch.Tensor) -> float:
    """What the kept numbers were multiplied by, on average."""
    kept = dropped != 0
    return float(dropped[kept].double().mean() / before[kept].double().mean())


found = {}
for rate in (0.05, 0.1):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = numbers.to(dtype)
        plain = factor(nn.functional.dropout(x, rate), x) * (1 - rate) - 1
        native = factor(torch.native_dropout(x, rate, True)[0], x) * (1 - rate) - 1
        product = factor(x * (1 / (1 - rate)), x) * (1 - rate) - 1
        found[rate, dtype] = plain, native, product
        print(f"p = {rate}, {dtype}: dropout {plain:+.3%}, native_dropout {native:+.3%}, a product {product:+.3%} off")

# as it comes to a training: a linear layer under autocast, then dropout
model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.1))
with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
    hidden = model[0](torch.randn(20_000, 64))
    under_autocast = factor(model[1](hidden), hidden) * 0.9 - 1
print(f"nn.Dropout(0.1) after a linear layer under autocast: {hidden.dtype}, {under_autocast:+.4%}")

biased = {0.05: 0.0018, 0.1: -0.0016}
small = all(abs(off) < 5e-4 for (rate, dtype), each in found.items() if dtype != torch.bfloat16 for off in each)
large = all(abs(off - biased[rate]) < 1e-4 for rate in biased for off in found[rate, torch.bfloat16][:2])
exact = all(abs(found[rate, torch.bfloat16][2]) < 1e-4 for rate in biased)
cast = hidden.dtype == torch.bfloat16 and abs(under_autocast + 0.0016) < 3e-4
sys.exit(not (small and large and exact and cast))
PY
