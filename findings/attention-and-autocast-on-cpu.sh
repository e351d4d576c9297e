#!/usr/bin/env bash
# Guess: a query that may attend to nothing gets NaN, as softmax of nothing but -inf is; an infinite gradient is clipped away or
# makes everything NaN; and autocast computes layer_norm in float32 on a CPU as it does on a GPU.
# Found: scaled_dot_product_attention gives zeros, where the same in three lines gives NaN. clip_grad_norm_ returns inf, makes
# the infinite gradient NaN and every other one 0. On a CPU layer_norm gives bfloat16 for bfloat16 (cross_entropy float32).
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

print("torch", torch.__version__)
torch.manual_seed(0)
query, key, value = (torch.randn(1, 1, 2, 4) for _ in range(3))
mask = torch.tensor([[True, True], [False, False]])
by_hand = (query @ key.mT / 2).masked_fill(~mask, float("-inf")).softmax(-1) @ value
fused = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
weight = torch.nn.Parameter(torch.zeros(2))
weight.grad = torch.tensor([float("inf"), 1.0])
norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
half = torch.randn(2, 4).bfloat16()
with torch.autocast("cpu", torch.bfloat16):
    types = [
        F.layer_norm(half.float(), (4,)).dtype,
        F.layer_norm(half, (4,)).dtype,
        F.cross_entropy(half, torch.tensor([0, 1])).dtype,
    ]
found = {
    "attention to nothing": fused[0, 0, 1].tolist(),
    "the same by hand is NaN": bool(by_hand[0, 0, 1].isnan().all()),
    "the other query agrees": torch.allclose(fused[0, 0, 0], by_hand[0, 0, 0]),
    "norm of inf and 1": norm.item(),
    "clipped": str(weight.grad.tolist()),
    "layer_norm of float32, of bfloat16, cross_entropy of bfloat16": [str(kind).removeprefix("torch.") for kind in types],
}
for case, value in found.items():
    print(f"{case}: {value}")
sys.exit(list(found.values()) != [[0.0] * 4, True, True, float("inf"), "[nan, 0.0]", ["float32", "bfloat16", "float32"]])
PY
