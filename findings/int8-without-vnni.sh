#!/usr/bin/env bash
# Guess: torchao's dynamic int8 has the same error on every CPU, that of its rounding; without VNNI it is slower.
# Found: without VNNI torch's product of integers, which it multiplies by, adds pairs in 16 bits, where they are cut off without a
# word. A linear layer whose error is 1 % of what it gives has 2.7 % there with Gaussian weights, 13 % with uniform ones, and
# 49 % with weights of two values. Weights of 7 bits are exact everywhere. The instructions of an older CPU are had by
# ONEDNN_MAX_CPU_ISA, a switch of oneDNN's own; AVX-512 without VNNI and AVX2 are wrong alike.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 torchao==0.18.0)
cat >"$work/errors.py" <<'PY'
import json

import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

torch.manual_seed(0)
weights = {
    "Gaussian": torch.randn(384, 384) / 20,
    "uniform": (torch.rand(384, 384) - 0.5) / 5,
    "two values": torch.randn(384, 384).sign() / 20,
}
x = torch.randn(64, 384)
errors = {}
for kind, weight in weights.items():
    model = torch.nn.Sequential(torch.nn.Linear(384, 384, bias=False))
    model[0].weight.data = weight.clone()
    expected = model(x)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    errors[kind] = float((model(x) - expected).norm() / expected.norm())
signs = torch.randn(2, 64, 256).sign()
wrong = {}
for bits, most in ((8, 127), (7, 63)):
    a, b = (signs[0] * 127).to(torch.int8), (signs[1] * most).to(torch.int8)
    wrong[bits] = int((torch._int_mm(a, b.t()).long() != a.long() @ b.long().t()).sum())
print(json.dumps({"errors": errors, "wrong sums of 4096, by the weights' bits": wrong}))
PY
"$python" - "$work/errors.py" <<'PY'
import importlib.metadata
import json
import os
import platform
import subprocess
import sys

import torch

print("torch", torch.__version__, "torchao", importlib.metadata.version("torchao"))
known = torch.cpu.get_capabilities()
if platform.machine() != "x86_64" or not (known.get("avx512_vnni") or known.get("avx_vnni")):
    print("this CPU has no VNNI itself: nothing to compare with")
    sys.exit()
found = {}
for name in ("ALL", "AVX512_CORE", "AVX2"):
    child = subprocess.run(
        [sys.executable, sys.argv[1]], env=os.environ | {"ONEDNN_MAX_CPU_ISA": name}, capture_output=True, text=True, check=True
    )
    found[name] = json.loads(child.stdout)
    print(name, found[name])
whole, old = found["ALL"], found["AVX2"]
bits = "wrong sums of 4096, by the weights' bits"
same = whole[bits] == {"8": 0, "7": 0} and old[bits]["8"] > 0 and old[bits]["7"] == 0
grown = all(old["errors"][kind] > 2 * error for kind, error in whole["errors"].items())
sys.exit(not (same and grown and found["AVX512_CORE"] == old))
PY
