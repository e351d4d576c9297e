#!/usr/bin/env bash
# Guess: where torch says that the CPU's capability is AVX512, a product of float32 is computed with it.
# Found: on AMD's processors MKL, which torch multiplies float32 with, names no instructions at all where it names AVX-512 on
# Intel's, and takes AVX2. oneDNN, which lies in the same wheel and multiplies bfloat16, does take AVX-512: for the same
# matrices 1.05 to 1.10 times the speed where vectors of 512 bits are computed in halves (as on Zen 4), 2.2 times on Zen 5.
# So what bfloat16 gains by `torch.mm` there is half the instructions' doing and half the library's.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
"$python" - <<'PY'
import os
import subprocess
import sys
import time

import torch

print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
vendor = torch.cpu.get_capabilities().get("cpu_name", "")
if "AMD" not in vendor or torch.backends.cpu.get_cpu_capability() != "AVX512":
    print(f"{vendor or 'this CPU'} is none of AMD's with AVX-512: nothing to see")
    sys.exit()
child = "import torch; torch.ones(64, 64) @ torch.ones(64, 64)"
said = subprocess.run(
    [sys.executable, "-c", child], env=os.environ | {"MKL_VERBOSE": "1"}, capture_output=True, text=True, check=True
).stdout.splitlines()[0]
print(said)

torch.set_num_threads(1)
torch.manual_seed(0)
a, b = torch.randn(512, 384), torch.randn(1024, 384)
ways = {
    "MKL, float32": lambda: a @ b.t(),
    "oneDNN, float32": lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
    "oneDNN, bfloat16": lambda a=a.bfloat16(), b=b.bfloat16(): a @ b.t(),
}
seconds = {name: [] for name in ways}
for _ in range(31):
    for name, way in ways.items():
        start = time.thread_time()
        way()
        seconds[name].append(time.thread_time() - start)
for name, values in seconds.items():
    print(f"{name}: {2e-9 * 512 * 384 * 1024 / min(values):.0f} GFLOP/s")
exact = a.double() @ b.double().t()
for name in ("MKL, float32", "oneDNN, float32"):
    print(f"{name}: the largest error {(ways[name]().double() - exact).abs().max():.1e}")
slower = min(seconds["MKL, float32"]) > min(seconds["oneDNN, float32"])
sys.exit("AVX-512" in said or "AVX512" in said or not slower)
PY
