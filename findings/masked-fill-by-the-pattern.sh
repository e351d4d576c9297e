#!/usr/bin/env bash
# Guess: on a CPU `masked_fill_` and `where` cost about as much as an addition, whatever the mask says; and a mask of floats costs
# one comparison.
# Found: both branch on every element. A mask drawn at random takes them several times as long as one of alternating values with
# just as many True, and more than ten times as long as adding a mask of zeros and -inf does (which takes no notice of it). And
# `(bits < n).float()` takes several times as long as the same comparison with a tensor of floats as its `out`.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
cat > "$work/masks.py" <<'PY'
import sys
import time

import torch

N = 262_144  # a megabyte of float32: it stays in the cache


def nanoseconds(work):
    """An element, the fastest of 100 times: no page is new, and others on the machine are not counted."""
    best = float("inf")
    for _ in range(110):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best / N * 1e9


torch.set_num_threads(1)
torch.manual_seed(0)
x, out, flags = torch.randn(N), torch.empty(N), torch.empty(N, dtype=torch.bool)
masks = {"alternating": torch.arange(N) % 2 == 0, "random": torch.rand(N) < 0.5}
found = {}
for name, mask in masks.items():
    added = torch.zeros(N).masked_fill_(mask, float("-inf"))
    found[name] = {
        "masked_fill_": nanoseconds(lambda: out.masked_fill_(mask, 0.0)),
        "where": nanoseconds(lambda: torch.where(mask, x, out, out=out)),
        "add": nanoseconds(lambda: torch.add(x, added, out=out)),
    }
    print(f"{name}, {int(mask.sum()):,} of {N:,} True: " + ", ".join(f"{k} {v:.2f} ns" for k, v in found[name].items()))
bits = torch.randint(-32768, 32767, (N,), dtype=torch.int16)
straight = nanoseconds(lambda: torch.lt(bits, 100, out=out))
around = nanoseconds(lambda: out.copy_(torch.lt(bits, 100, out=flags)))
assert torch.equal(torch.lt(bits, 100, out=out), (bits < 100).float())
print(f"a mask of floats by a comparison: {straight:.2f} ns an element, by way of booleans {around:.2f}")
random, regular = found["random"], found["alternating"]
sys.exit(not (
    all(random[name] > 2.5 * regular[name] and random[name] > 8 * random["add"] for name in ("masked_fill_", "where"))
    and 0.5 < random["add"] / regular["add"] < 2
    and around > 3 * straight
))
PY
"$python" -c 'import torch; print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())'
"$python" "$work/masks.py"
