#!/usr/bin/env bash
# Guess: a softmax over rows of 7 numbers takes about as long as one over rows of 8, on a CPU: a little less.
# Found: it takes several times as long. A row that is shorter than a vector of the CPU (8 numbers of float32 with AVX2, 16 with
# AVX-512) is computed number by number, one of exactly a vector at once: with AVX-512 15 numbers take about ten times as long as
# 16, and even rows of three numbers take longer than rows of 16.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
cat > "$work/rows.py" <<'PY'
import sys
import time

import torch


def milliseconds(numbers, rows=20_000):
    """The fastest of 60 times: others on the machine are not counted."""
    scores = torch.randn(rows, numbers)
    found = []
    for _ in range(60):
        start = time.process_time_ns()
        torch.softmax(scores, -1)
        found.append(time.process_time_ns() - start)
    return min(found) / 1e6


torch.set_num_threads(1)
torch.manual_seed(0)
capability = torch.backends.cpu.get_cpu_capability()
lanes = {"AVX2": 8, "AVX512": 16}[capability]
took = {numbers: milliseconds(numbers) for numbers in (3, lanes - 1, lanes, 63, 64)}
print(f"{capability}: " + ", ".join(f"20,000 rows of {n} {ms:.2f} ms" for n, ms in took.items()))
sys.exit(not (took[lanes - 1] > 4 * took[lanes] and took[3] > 1.5 * took[lanes]))
PY
"$python" -c 'import torch; print("torch", torch.__version__)'
ATEN_CPU_CAPABILITY=avx2 "$python" "$work/rows.py"
if "$python" -c 'import sys, torch; sys.exit(torch.backends.cpu.get_cpu_capability() != "AVX512")'; then
  "$python" "$work/rows.py"
fi
